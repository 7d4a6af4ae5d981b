//! Requests under way, by number: carrying out what the coordinators decide, and answering whoever waits.

use super::exchange::{Exchange, PAGE_PATIENCE};
use super::hints::HANDOFF_PATIENCE;
use super::late::measure_ack;
use super::{Asked, Effect, Kernel, Measure, Now, RequestId, SEED_MASK, Timer};
use crate::coordinator::get::Get;
use crate::coordinator::plan::{ReadPlan, WritePlan};
use crate::coordinator::put::Put;
use crate::coordinator::{Origin, Step};
use crate::storage::{Storage, StorageError};
use bytes::Bytes;
use quorate_ring::id::{NodeId, OpId, Partition};
use quorate_ring::topology::{Conflict, QuorumKind};
use quorate_ring::version::{Dot, Hlc, Object};
use quorate_ring::wire::client::{Change, ClientReply, ReadAnswer, Receipt, Supersede, Uncertain, WriteRequest};
use quorate_ring::wire::failure::{Doubt, Refusal};
use quorate_ring::wire::peer::{PeerReply, PeerRequest};
use std::collections::BTreeSet;
use std::time::Duration;

/// A request under way at this node.
#[derive(Debug)]
pub(super) enum Operation {
    /// Reads R owners for a client.
    Read {
        origin: Origin,
        plan: ReadPlan,
        conflict: Conflict,
        get: Get,
    },
    /// Gathers what a `latest` write supersedes; then mints.
    Gather {
        write: PendingWrite,
        get: Get,
    },
    Put(Put),
    /// Handed to an owner, since this node is none.
    Forwarded {
        origin: Origin,
        write: Box<WriteRequest>,
        began: Duration,
        deadline: Duration,
        to: NodeId,
        tried: BTreeSet<NodeId>,
    },
    /// A hint is on its way to the owner that it is for.
    Handoff {
        target: NodeId,
        row: Bytes,
        dots: BTreeSet<Dot>,
        deadline: Duration,
    },
    /// A page of a pull or a full sync is on its way here.
    Exchange {
        peer: NodeId,
        partition: Partition,
        exchange: Exchange,
        deadline: Duration,
    },
    /// A blocking read that waits until enough owners hold what it found.
    Repairing {
        origin: Origin,
        answer: Box<ReadAnswer>,
        held: u8,
        needed: u8,
        waiting: BTreeSet<NodeId>,
        deadline: Duration,
    },
}

/// A write before its mint.
#[derive(Debug)]
pub(super) struct PendingWrite {
    pub origin: Origin,
    pub plan: WritePlan,
    pub change: Change,
    pub supersede: Supersede,
    pub op_id: OpId,
    /// The newest timestamp that the client has seen.
    pub hlc: Hlc,
}

/// How a write ended, for whoever asked.
pub(super) enum WriteAnswer {
    Applied(Receipt),
    Refused(Refusal),
    Unknown(Uncertain),
}

impl Operation {
    /// Whoever waits for an answer; nobody waits for an exchange.
    fn origin(&self) -> Option<Origin> {
        match self {
            Operation::Read { origin, .. }
            | Operation::Forwarded { origin, .. }
            | Operation::Repairing { origin, .. } => Some(*origin),
            Operation::Gather { write, .. } => Some(write.origin),
            Operation::Put(put) => Some(put.origin),
            Operation::Exchange { .. } | Operation::Handoff { .. } => None,
        }
    }

    /// Whether a drain waits for it.
    pub(super) fn serves_a_client(&self) -> bool {
        self.origin().is_some()
    }

    fn deadline(&self) -> Duration {
        match self {
            Operation::Read { plan, .. } => plan.route.deadline,
            Operation::Gather { write, .. } => write.plan.route.deadline,
            Operation::Put(put) => put.plan.route.deadline,
            Operation::Forwarded { deadline, .. }
            | Operation::Repairing { deadline, .. }
            | Operation::Handoff { deadline, .. }
            | Operation::Exchange { deadline, .. } => *deadline,
        }
    }

    /// Whether dropping it loses nothing but an answer. A write goes on, to reach its owners.
    fn only_answers(&self) -> bool {
        match self {
            Operation::Read { .. } | Operation::Gather { .. } | Operation::Repairing { .. } => true,
            Operation::Put(_)
            | Operation::Forwarded { .. }
            | Operation::Handoff { .. }
            | Operation::Exchange { .. } => false,
        }
    }
}

impl<S: Storage> Kernel<S> {
    pub(super) fn number(&mut self) -> u64 {
        self.next_operation += 1;
        self.next_operation
    }

    /// Whether a request of this number was made since this shard was opened.
    pub(super) fn asked(&self, number: u64) -> bool {
        (self.config.seed & SEED_MASK) < number && number <= self.next_operation
    }

    pub(super) fn request_id(&self, number: u64) -> RequestId {
        RequestId((number << 8) | u64::from(self.config.shard))
    }

    /// Registers an operation and sets its first timer.
    pub(super) fn enrol(&mut self, now: Now, number: u64, operation: Operation, effects: &mut Vec<Effect>) {
        let left = operation.deadline().saturating_sub(now.mono);
        let after = match operation {
            Operation::Read { .. } | Operation::Gather { .. } => left.min(self.config.read_patience),
            Operation::Put(ref put) if put.plan.quorum == QuorumKind::Sloppy => left.min(self.config.read_patience),
            Operation::Put(_)
            | Operation::Forwarded { .. }
            | Operation::Repairing { .. }
            | Operation::Handoff { .. }
            | Operation::Exchange { .. } => left,
        };
        self.operations.insert(number, operation);
        effects.push(Effect::Arm { timer: Timer::Operation(number), after });
    }

    /// Carries out what a coordinator decided on sending; the rest is the caller's.
    pub(super) fn send_all(&self, number: u64, send: Vec<(NodeId, PeerRequest)>, effects: &mut Vec<Effect>) {
        let request = self.request_id(number);
        effects.extend(send.into_iter().map(|(to, message)| Effect::PeerRequest { to, request, message }));
    }

    pub(super) fn operation_fired(
        &mut self,
        now: Now,
        number: u64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), StorageError> {
        let Some(mut operation) = self.operations.remove(&number) else { return Ok(()) };
        let deadline = operation.deadline();
        let over = now.mono >= deadline;
        match &mut operation {
            Operation::Read { get, .. } | Operation::Gather { get, .. } => {
                let step = if over { get.on_deadline() } else { get.on_silence(now.mono) };
                return self.get_step(now, number, operation, step, effects);
            }
            Operation::Put(put) if !over && put.plan.quorum == QuorumKind::Sloppy => {
                let step = put.on_silence(now.mono);
                let after = deadline.saturating_sub(now.mono);
                effects.push(Effect::Arm { timer: Timer::Operation(number), after });
                self.put_step(now, number, operation, step, effects);
            }
            Operation::Put(put) if over => {
                let step = put.on_deadline();
                self.put_step(now, number, operation, step, effects);
            }
            Operation::Forwarded { origin, write, began, .. } if over => {
                self.forward_lost(now, (*origin, *began), write, Doubt::Deadline, effects);
            }
            // The read itself has succeeded: it is answered, and the repair goes on by itself.
            Operation::Repairing { .. } if over => self.answer_repaired(now, operation, effects),
            Operation::Exchange { peer, partition, exchange, .. } if over => {
                let which = (*peer, *partition, *exchange);
                return self.exchange_replied(now, which, None, effects);
            }
            Operation::Handoff { target, .. } if over => self.hints.under_way_ended(*target),
            Operation::Put(_)
            | Operation::Forwarded { .. }
            | Operation::Repairing { .. }
            | Operation::Handoff { .. }
            | Operation::Exchange { .. } => {
                self.operations.insert(number, operation);
                let after = deadline.saturating_sub(now.mono);
                effects.push(Effect::Arm { timer: Timer::Operation(number), after });
            }
        }
        Ok(())
    }

    /// A peer answered something that this shard asked.
    pub(super) fn operation_replied(
        &mut self,
        now: Now,
        from: NodeId,
        number: u64,
        reply: PeerReply,
        effects: &mut Vec<Effect>,
    ) -> Result<(), StorageError> {
        let Some(mut operation) = self.operations.remove(&number) else {
            self.late_reply(now, from, number, &reply, effects);
            return self.canary_reply(now, from, number, &reply, effects);
        };
        match &mut operation {
            Operation::Read { .. } | Operation::Gather { .. } => {
                let answer = match reply {
                    PeerReply::Fetched(fetched) => match Object::decode(&fetched.object) {
                        Ok(object) => Ok((object, fetched.took_us)),
                        Err(why) => Err(Refusal::Malformed(why.to_string())),
                    },
                    other => Err(refusal_of(other)),
                };
                return self.get_replied(now, from, (number, operation), answer, effects);
            }
            Operation::Put(_) => self.put_replied(now, from, (number, operation), reply, effects),
            Operation::Forwarded { to, .. } if *to == from => self.forward_replied(now, operation, reply, effects),
            Operation::Forwarded { .. } => {
                self.operations.insert(number, operation);
            }
            Operation::Handoff { target, row, dots, deadline } => {
                self.hints.under_way_ended(*target);
                if matches!(reply, PeerReply::Replicated(_)) {
                    let took = (now.mono + HANDOFF_PATIENCE).saturating_sub(*deadline);
                    effects.push(Effect::Measure(Measure::Replied { kind: Asked::Handoff, took }));
                    return self.handed_off(now, *target, row, dots, effects);
                }
            }
            Operation::Exchange { peer, partition, exchange, deadline } => {
                let which = (*peer, *partition, *exchange);
                let took = (now.mono + PAGE_PATIENCE).saturating_sub(*deadline);
                effects.push(Effect::Measure(Measure::Replied { kind: Asked::Page, took }));
                return self.exchange_replied(now, which, Some(reply), effects);
            }
            Operation::Repairing { waiting, held, answer, .. } => {
                if waiting.remove(&from) && matches!(reply, PeerReply::Replicated(_)) {
                    *held += 1;
                    answer.repairing.retain(|owner| *owner != from);
                }
                self.repair_step(now, number, operation, effects);
            }
        }
        Ok(())
    }

    /// An owner answered to a read or a gathering under way.
    pub(super) fn get_replied(
        &mut self,
        now: Now,
        from: NodeId,
        (number, mut operation): (u64, Operation),
        answer: Result<(Object, u64), Refusal>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), StorageError> {
        let (Operation::Read { get, .. } | Operation::Gather { get, .. }) = &mut operation else {
            unreachable!("only reads and gatherings hold a get")
        };
        if let (Ok(_), Some(took)) = (&answer, get.waited(now.mono, from)) {
            effects.push(Effect::Measure(Measure::Replied { kind: Asked::Fetch, took }));
        }
        let step = get.on_reply(now.mono, from, answer);
        self.get_step(now, number, operation, step, effects)
    }

    /// An owner or a fallback answered to a put under way.
    pub(super) fn put_replied(
        &mut self,
        now: Now,
        from: NodeId,
        (number, mut operation): (u64, Operation),
        reply: PeerReply,
        effects: &mut Vec<Effect>,
    ) {
        let Operation::Put(put) = &mut operation else { unreachable!("only puts are answered like this") };
        if let (PeerReply::Replicated(_), Some(timing)) = (&reply, put.timing(now.mono, from)) {
            measure_ack(timing, effects);
        }
        let answer = match reply {
            PeerReply::Replicated(replicated) => Ok(replicated),
            other => Err(refusal_of(other)),
        };
        let step = put.on_reply(now.mono, from, answer);
        self.put_step(now, number, operation, step, effects);
    }

    pub(super) fn link_down(&mut self, now: Now, peer: NodeId, effects: &mut Vec<Effect>) -> Result<(), StorageError> {
        self.liveness.on_link_down(peer);
        self.give_up_on(now, peer, effects)
    }

    /// Peers that died without a word: what can no longer succeed without them ends now, and not at its deadline.
    pub(super) fn give_up_on_the_silent(&mut self, now: Now, effects: &mut Vec<Effect>) -> Result<(), StorageError> {
        for peer in self.liveness.fallen_silent(now.mono) {
            self.give_up_on(now, peer, effects)?;
        }
        Ok(())
    }

    /// Nothing that was asked of a peer is waited for any more. It may have been done all the same.
    fn give_up_on(&mut self, now: Now, peer: NodeId, effects: &mut Vec<Effect>) -> Result<(), StorageError> {
        let numbers: Vec<u64> = self.operations.keys().copied().collect();
        for number in numbers {
            let Some(mut operation) = self.operations.remove(&number) else { continue };
            match &mut operation {
                Operation::Read { get, .. } | Operation::Gather { get, .. } => {
                    let step = get.on_link_down(now.mono, peer);
                    self.get_step(now, number, operation, step, effects)?;
                }
                Operation::Put(put) => {
                    let step = put.on_link_down(now.mono, peer);
                    self.put_step(now, number, operation, step, effects);
                }
                Operation::Forwarded { origin, write, began, to, .. } if *to == peer => {
                    self.forward_lost(now, (*origin, *began), write, Doubt::LinkBroke, effects);
                }
                Operation::Forwarded { .. } => {
                    self.operations.insert(number, operation);
                }
                Operation::Exchange { peer: with, partition, exchange, .. } if *with == peer => {
                    let which = (peer, *partition, *exchange);
                    self.exchange_replied(now, which, None, effects)?;
                }
                Operation::Handoff { target, .. } if *target == peer => self.hints.under_way_ended(peer),
                Operation::Exchange { .. } | Operation::Handoff { .. } => {
                    self.operations.insert(number, operation);
                }
                Operation::Repairing { waiting, .. } => {
                    waiting.remove(&peer);
                    self.repair_step(now, number, operation, effects);
                }
            }
        }
        Ok(())
    }

    /// Whoever asked is gone, or does not want to know any more.
    pub(super) fn forget_origin(&mut self, gone: impl Fn(&Origin) -> bool) {
        self.operations
            .retain(|_, operation| !(operation.only_answers() && operation.origin().as_ref().is_some_and(&gone)));
    }

    pub(super) fn get_step(
        &mut self,
        now: Now,
        number: u64,
        operation: Operation,
        step: Step<crate::coordinator::get::GetAnswer>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), StorageError> {
        self.send_all(number, step.send, effects);
        let Some(answer) = step.answer else {
            let patience = operation.deadline().saturating_sub(now.mono);
            effects.push(Effect::Arm { timer: Timer::Operation(number), after: patience });
            self.operations.insert(number, operation);
            return Ok(());
        };
        match operation {
            Operation::Read { origin, plan, conflict, .. } => {
                self.read_found(now, origin, plan, conflict, answer, effects)
            }
            Operation::Gather { write, .. } => self.gathered(now, write, answer, effects),
            Operation::Put(_)
            | Operation::Forwarded { .. }
            | Operation::Repairing { .. }
            | Operation::Handoff { .. }
            | Operation::Exchange { .. } => {
                unreachable!("only reads and gatherings hold a get")
            }
        }
    }

    pub(super) fn reply(&self, origin: Origin, client: ClientReply, peer: PeerReply, effects: &mut Vec<Effect>) {
        effects.push(match origin {
            Origin::Client { session, request } => Effect::ClientReply { to: session, request, message: client },
            Origin::Peer { node, request } => Effect::PeerReply { to: node, request, message: peer },
            Origin::Own => return,
        });
    }
}

/// What a reply of the wrong kind amounts to.
fn refusal_of(reply: PeerReply) -> Refusal {
    match reply {
        PeerReply::Refused(refusal) => refusal,
        PeerReply::Greeted(_)
        | PeerReply::Pong(_)
        | PeerReply::Written(_)
        | PeerReply::Replicated(_)
        | PeerReply::Fetched(_)
        | PeerReply::Pulled(_)
        | PeerReply::Synced(_)
        | PeerReply::Unknown(_) => Refusal::Malformed("the answer is not to what was asked".to_string()),
    }
}

pub(super) fn doubt(doubt: Doubt) -> Uncertain {
    Uncertain { doubt, needed: 0, acks: Vec::new() }
}
