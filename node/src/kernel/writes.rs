//! Puts and deletes: from the request to the mint, and from the commit to the answer.

use super::operations::{Operation, PendingWrite, WriteAnswer, doubt};
use super::{Consistency, Effect, Kernel, Measure, Now, Outcome, WriteOp};
use crate::coordinator::get::{Get, GetAnswer};
use crate::coordinator::plan::{WritePlan, write_op};
use crate::coordinator::put::{Minted, Put, PutAnswer};
use crate::coordinator::{Origin, Step};
use crate::planted::{self, Bug};
use crate::replica::Mint;
use crate::storage::{MetaKey, Storage, StorageError, Table};
use bytes::Bytes;
use quorate_ring::id::{NodeId, Partition};
use quorate_ring::topology::{Durability, QuorumKind};
use quorate_ring::version::{Content, Context, ContextToken, Dot, Hlc, Object, SIBLINGS_MAX, TokenError};
use quorate_ring::wire::client::{Change, ClientReply, Supersede, WriteRequest};
use quorate_ring::wire::failure::{Doubt, Refusal};
use quorate_ring::wire::peer::{Coordinate, PeerReply, PeerRequest};
use quorate_ring::wire::{FRAME_BYTES_MAX, OBJECT_BYTES_MAX};
use std::collections::BTreeSet;
use std::time::Duration;

/// How far ahead the mark of given timestamps is kept in the store, so that it is seldom written.
const HLC_MARK_AHEAD_MS: u64 = 1_000;
/// Of a frame, for all that is in it beside the values of one object.
const FRAME_BYTES_SPARE: usize = 2 * 1024 * 1024;

impl<S: Storage> Kernel<S> {
    /// A put or delete arrives, from a client or from a gateway that is no owner.
    pub(super) fn write(
        &mut self,
        now: Now,
        origin: Origin,
        arrived: Duration,
        request: WriteRequest,
        effects: &mut Vec<Effect>,
    ) -> Result<(), StorageError> {
        let admitted = self.admit().and_then(|()| WritePlan::new(&self.layout, now, arrived, &request));
        let plan = match admitted {
            Ok(plan) => plan,
            Err(refusal) => {
                let ask = Ask { origin, op: write_op(&request.change), consistency: Consistency::Other, arrived };
                return self.refuse_write(now, ask, refusal, effects);
            }
        };
        let ask = Ask::of(origin, &plan);
        if !self.replicas.contains_key(&plan.route.partition) || self.config.rebuilding {
            match origin {
                Origin::Client { .. } => self.forward(now, origin, request, &plan, BTreeSet::new(), effects),
                Origin::Peer { .. } | Origin::Own => {
                    let why = if self.config.rebuilding { Refusal::NotReady } else { Refusal::NotOwner };
                    self.refuse_write(now, ask, why, effects)?;
                }
            }
            return Ok(());
        }
        if self.disk_reserve {
            return self.refuse_write(now, ask, Refusal::DiskReserve, effects);
        }
        let owners = 1 + self.reachable_others(now, plan.route.partition).len();
        let hints = match plan.quorum {
            QuorumKind::Strict => 0,
            QuorumKind::Sloppy => self.reachable_fallbacks(now, plan.route.partition).count(),
        };
        let got = (owners + hints).min(usize::from(plan.route.partition.n)) as u8;
        if got < plan.w {
            let refusal = Refusal::Unavailable { needed: plan.w, got };
            return self.refuse_write(now, ask, refusal, effects);
        }
        let WriteRequest { change, supersede, op_id, hlc, .. } = request;
        let write = PendingWrite { origin, plan, change, supersede, op_id, hlc };
        match write.supersede {
            Supersede::Latest => self.gather(now, write, effects),
            Supersede::Seen(_) | Supersede::Local | Supersede::Nothing => self.mint(now, write, None, effects),
        }
    }

    /// Asks R owners what they know of the key, so that the write supersedes all that was acknowledged before.
    fn gather(&mut self, now: Now, write: PendingWrite, effects: &mut Vec<Effect>) -> Result<(), StorageError> {
        let route = write.plan.route.clone();
        let replica = self.replicas.get(&route.partition).expect("only owners gather");
        let own = replica.answer(&self.store, &route.place)?;
        let others = self.reachable_others(now, route.partition);
        let epoch = self.layout.epoch();
        // Strict, whatever the quorum of the write: a gathering that misses what was acknowledged is none.
        let (op, held_min) = (Some(write.op_id), self.config.held_value_bytes);
        let mut get = Get::new(route, write.plan.r, QuorumKind::Strict, epoch, op, held_min, others.into_iter());
        let step = get.begin(now.mono, Some((self.config.node, own.context_only())));
        let number = self.number();
        if step.answer.is_none() {
            self.send_all(number, step.send, effects);
            self.enrol(now, number, Operation::Gather { write, get }, effects);
            return Ok(());
        }
        self.get_step(now, number, Operation::Gather { write, get }, step, effects)
    }

    pub(super) fn gathered(
        &mut self,
        now: Now,
        write: PendingWrite,
        answer: GetAnswer,
        effects: &mut Vec<Effect>,
    ) -> Result<(), StorageError> {
        let ask = Ask::of(write.origin, &write.plan);
        let found = match answer {
            GetAnswer::Found(found) => found,
            GetAnswer::Unavailable { needed, got } => {
                return self.refuse_write(now, ask, Refusal::Unavailable { needed, got }, effects);
            }
            GetAnswer::DeadlinePassed => return self.refuse_write(now, ask, Refusal::DeadlinePassed, effects),
        };
        if now.mono >= write.plan.route.deadline && !planted::is(Bug::ExpiredDeadlineExecuted) {
            return self.refuse_write(now, ask, Refusal::DeadlinePassed, effects); // The timer is behind the answer.
        }
        // Events of our own that we do not know of: we have forgotten. A context alone may have been made up by a client.
        for (answered, object) in &found.answers {
            let events = object.siblings().iter().map(|(dot, _)| *dot);
            let own = events.filter(|dot| dot.actor() == self.config.actor).map(Dot::seq).max().unwrap_or(0);
            if self.forgot(answered.node, write.plan.route.partition, own, effects) {
                return self.refuse_write(now, ask, Refusal::NotReady, effects);
            }
        }
        // An owner that holds the event of this op id sent its whole object: ours learns of it, and mints nothing.
        for (_, object) in &found.answers {
            if object.event_of(write.op_id).is_some() {
                self.merge(&write.plan.route.place, write.plan.route.partition, object, &[])?;
            }
        }
        self.mint(now, write, Some(found.union.context().clone()), effects)
    }

    /// Stages the event, or finds that it is known already. What follows waits for the commit.
    fn mint(
        &mut self,
        now: Now,
        write: PendingWrite,
        gathered: Option<Context>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), StorageError> {
        let PendingWrite { origin, plan, change, supersede, op_id, hlc } = write;
        let (place, ask) = (&plan.route.place, Ask::of(origin, &plan));
        let replica = self.replicas.get_mut(&plan.route.partition).expect("only owners mint");
        let mut object = replica.stored(&self.store, place)?.unwrap_or_default();
        let (dot, hlc, record, repeated) = match object.event_of(op_id) {
            Some(dot) => (dot, object.hlc_max(), object.encode(), true),
            None => {
                let seen = match supersede {
                    Supersede::Seen(_) => plan.seen.clone().expect("the plan of a write with a context holds it"),
                    Supersede::Latest => gathered.expect("a latest write is minted after its gathering"),
                    Supersede::Local => object.context().clone(),
                    Supersede::Nothing => Context::new(),
                };
                // Nobody has seen more of us than we have: such a context would cover what is yet to be minted.
                let covered = seen.seq(self.config.actor).max(object.context().seq(self.config.actor));
                if covered > replica.clock().max(self.config.actor) {
                    let why = "it covers writes that were never made".to_string();
                    return self.refuse_write(now, ask, TokenError::Malformed(why).into(), effects);
                }
                if let Err(refusal) = check_size(&object, &seen, &change, plan.route.partition.n) {
                    return self.refuse_write(now, ask, refusal, effects);
                }
                let hlc = self.next_hlc(now, hlc, object.hlc_max(), effects);
                let content = match change {
                    Change::Put { value, expires_ms } => Some(Content { value, hlc, expires_ms, op_id }),
                    Change::Delete => None,
                };
                self.stage_hlc_mark();
                let mint = Mint { op_id, hlc, seen, content };
                let replica = self.replicas.get_mut(&plan.route.partition).expect("only owners mint");
                let (dot, record) = replica.mint(&mut self.store, place, &mut object, self.config.actor, mint);
                self.clocks.changed(plan.route.partition, self.config.actor);
                (dot, hlc, record, false)
            }
        };
        self.sync |= plan.durability == Durability::Sync;
        let cluster = self.layout.topology().cluster;
        let minted = Minted {
            epoch: self.layout.epoch(),
            node: self.config.node,
            dot,
            hlc,
            object: record,
            context: ContextToken::seal(cluster, place.bucket, &place.key, object.context()),
            siblings: object.siblings().len() as u32,
            repeated,
        };
        let number = self.number();
        self.enrol(now, number, Operation::Put(Put::staged(origin, plan, minted)), effects);
        self.minted.push(number);
        Ok(())
    }

    /// The batch with a write is committed: the other owners are told.
    pub(super) fn put_committed(&mut self, now: Now, number: u64, effects: &mut Vec<Effect>) {
        let Some(Operation::Put(mut put)) = self.operations.remove(&number) else { return };
        let partition = put.plan.route.partition;
        let list = self.layout.preference(partition).expect("plans are made from the same layout");
        // An owner that cannot be reached learns of the write by its clock; under `sloppy` also by a hint.
        let mut others = self.reachable_others(now, partition);
        if planted::is(Bug::NonOwnerCounted) {
            others.extend(self.reachable_fallbacks(now, partition));
        }
        let me = self.config.node;
        let unreachable = |owner: &&NodeId| **owner != me && !self.liveness.reachable(**owner, now.mono);
        let missing: Vec<NodeId> = list.owners().iter().filter(unreachable).copied().collect();
        let fallbacks: Vec<NodeId> = self.reachable_fallbacks(now, partition).collect();
        let step = put.begin(now.mono, &others, &missing, fallbacks.into_iter());
        self.put_step(now, number, Operation::Put(put), step, effects);
    }

    pub(super) fn put_step(
        &mut self,
        now: Now,
        number: u64,
        operation: Operation,
        step: Step<PutAnswer>,
        effects: &mut Vec<Effect>,
    ) {
        let Operation::Put(put) = operation else { unreachable!("only puts take the steps of a put") };
        self.send_all(number, step.send, effects);
        let ask = Ask::of(put.origin, &put.plan);
        match step.answer {
            Some(PutAnswer::Applied(receipt)) => {
                self.counters.writes += 1;
                measure_write(now, ask, Outcome::Ok, effects);
                self.answer_write(now, put.origin, WriteAnswer::Applied(receipt), effects);
            }
            Some(PutAnswer::Unknown(uncertain)) => {
                measure_write(now, ask, Outcome::Unknown, effects);
                self.answer_write(now, put.origin, WriteAnswer::Unknown(uncertain), effects);
            }
            None => {}
        }
        if !step.done {
            self.operations.insert(number, Operation::Put(put));
        } else if self.config.measured {
            self.late.keep(now.mono, number, put);
        }
    }

    /// Hands a write to the nearest owner that can be reached. Fails over only while nothing was written.
    fn forward(
        &mut self,
        now: Now,
        origin: Origin,
        request: WriteRequest,
        plan: &WritePlan,
        tried: BTreeSet<NodeId>,
        effects: &mut Vec<Effect>,
    ) {
        let route = &plan.route;
        let next = self.reachable_others(now, route.partition).into_iter().find(|owner| !tried.contains(owner));
        let Some(to) = next else {
            let refusal = Refusal::Unavailable { needed: 1, got: 0 };
            measure_write(now, Ask::of(origin, plan), Outcome::Unavailable, effects);
            return self.answer_write(now, origin, WriteAnswer::Refused(refusal), effects);
        };
        let left = route.deadline.saturating_sub(now.mono).as_millis();
        let mut write = request.clone();
        write.deadline_ms = u32::try_from(left).unwrap_or(u32::MAX);
        let number = self.number();
        self.send_all(number, vec![(to, PeerRequest::Coordinate(Coordinate { write }))], effects);
        let (began, deadline) = (route.began, route.deadline);
        let operation = Operation::Forwarded { origin, write: Box::new(request), began, deadline, to, tried };
        self.enrol(now, number, operation, effects);
    }

    pub(super) fn forward_replied(
        &mut self,
        now: Now,
        operation: Operation,
        reply: PeerReply,
        effects: &mut Vec<Effect>,
    ) {
        let Operation::Forwarded { origin, write, began, to, mut tried, .. } = operation else {
            unreachable!("only a forwarded write is answered by its coordinator")
        };
        let answer = match reply {
            PeerReply::Written(receipt) => WriteAnswer::Applied(receipt),
            PeerReply::Unknown(uncertain) => WriteAnswer::Unknown(uncertain),
            PeerReply::Refused(
                Refusal::NotOwner
                | Refusal::NotReady
                | Refusal::ShuttingDown
                | Refusal::DiskReserve
                | Refusal::Overloaded { .. },
            ) => {
                tried.insert(to);
                return match WritePlan::new(&self.layout, now, began, &write) {
                    Ok(plan) => self.forward(now, origin, *write, &plan, tried, effects),
                    Err(refusal) => self.answer_write(now, origin, WriteAnswer::Refused(refusal), effects),
                };
            }
            PeerReply::Refused(refusal) => WriteAnswer::Refused(refusal),
            PeerReply::Greeted(_)
            | PeerReply::Pong(_)
            | PeerReply::Replicated(_)
            | PeerReply::Fetched(_)
            | PeerReply::Pulled(_)
            | PeerReply::Synced(_) => WriteAnswer::Unknown(doubt(Doubt::LinkBroke)),
        };
        self.answer_write(now, origin, answer, effects);
    }

    /// Nothing more will be heard of a write that was handed on. Its coordinator may not be there to count it.
    pub(super) fn forward_lost(
        &self,
        now: Now,
        (origin, arrived): (Origin, Duration),
        write: &WriteRequest,
        why: Doubt,
        effects: &mut Vec<Effect>,
    ) {
        let ask = Ask { origin, op: write_op(&write.change), consistency: Consistency::Other, arrived };
        measure_write(now, ask, Outcome::Unknown, effects);
        self.answer_write(now, origin, WriteAnswer::Unknown(doubt(why)), effects);
    }

    fn refuse_write(
        &mut self,
        now: Now,
        ask: Ask,
        refusal: Refusal,
        effects: &mut Vec<Effect>,
    ) -> Result<(), StorageError> {
        let outcome = match &refusal {
            Refusal::Overloaded { .. } => Outcome::Overloaded,
            refusal if refusal.worth_a_retry() => Outcome::Unavailable,
            _ => Outcome::Error,
        };
        measure_write(now, ask, outcome, effects);
        self.answer_write(now, ask.origin, WriteAnswer::Refused(refusal), effects);
        Ok(())
    }

    pub(super) fn answer_write(&self, _: Now, origin: Origin, answer: WriteAnswer, effects: &mut Vec<Effect>) {
        effects.push(match origin {
            Origin::Client { session, request } => {
                let message = match answer {
                    WriteAnswer::Applied(receipt) => ClientReply::Written(receipt),
                    WriteAnswer::Refused(refusal) => ClientReply::Refused(refusal),
                    WriteAnswer::Unknown(uncertain) => ClientReply::Unknown(uncertain),
                };
                Effect::ClientReply { to: session, request, message }
            }
            Origin::Peer { node, request } => {
                let message = match answer {
                    WriteAnswer::Applied(receipt) => PeerReply::Written(receipt),
                    WriteAnswer::Refused(refusal) => PeerReply::Refused(refusal),
                    WriteAnswer::Unknown(uncertain) => PeerReply::Unknown(uncertain),
                };
                Effect::PeerReply { to: node, request, message }
            }
            Origin::Own => return,
        });
    }

    /// The other owners that can be reached, nearest first: those that answer as usual, then the suspects.
    pub(super) fn reachable_others(&self, now: Now, partition: Partition) -> Vec<NodeId> {
        let list = self.layout.preference(partition).expect("plans are made from the same layout");
        let mut others: Vec<NodeId> = list.owners().iter().copied().filter(|o| *o != self.config.node).collect();
        others.retain(|peer| self.liveness.reachable(*peer, now.mono));
        others.sort_by_key(|peer| self.liveness.state(*peer, now.mono));
        others
    }

    fn reachable_fallbacks(&self, now: Now, partition: Partition) -> impl Iterator<Item = NodeId> {
        let list = self.layout.preference(partition).expect("plans are made from the same layout");
        list.fallbacks().iter().copied().filter(move |node| self.liveness.reachable(*node, now.mono))
    }

    /// Above everything that this coordinator gave out, that it holds for the key, and that the client has seen. A
    /// timestamp too far ahead of the wall clock is kept above for its own key, but does not move the node's clock.
    fn next_hlc(&mut self, now: Now, client: Hlc, key: Hlc, effects: &mut Vec<Effect>) -> Hlc {
        let limit = Hlc::from_wall(now.wall_ms + self.config.clock_drift_max.as_millis() as u64);
        let sound = |seen: Hlc| if seen <= limit { seen } else { Hlc::default() };
        if client.max(key) > limit {
            effects.push(Effect::Measure(Measure::ClockAhead));
        }
        self.hlc = Hlc::next(now.wall_ms, self.hlc.max(sound(client)).max(sound(key)));
        if key <= limit { self.hlc } else { Hlc::next(now.wall_ms, key) }
    }

    /// After a restart timestamps go on above this mark.
    fn stage_hlc_mark(&mut self) {
        if self.hlc < self.hlc_mark {
            return;
        }
        self.hlc_mark = Hlc::from_wall(self.hlc.wall_ms() + HLC_MARK_AHEAD_MS);
        let mark = Bytes::copy_from_slice(&self.hlc_mark.0.to_be_bytes());
        let row = MetaKey::HlcMark { shard: self.config.shard }.encode();
        self.store.stage(Table::Meta, row.into(), Some(mark));
    }
}

/// What the metrics know of a write.
#[derive(Clone, Copy, Debug)]
struct Ask {
    origin: Origin,
    op: WriteOp,
    consistency: Consistency,
    arrived: Duration,
}

impl Ask {
    fn of(origin: Origin, plan: &WritePlan) -> Self {
        let route = &plan.route;
        Self { origin, op: plan.op, consistency: route.consistency(plan.w), arrived: route.began }
    }
}

/// Counts a write that is answered. The canary's are no client's.
fn measure_write(now: Now, ask: Ask, outcome: Outcome, effects: &mut Vec<Effect>) {
    let Ask { origin, op, consistency, arrived } = ask;
    if origin != Origin::Own {
        let took = now.mono.saturating_sub(arrived);
        effects.push(Effect::Measure(Measure::Written { op, consistency, outcome, took }));
    }
}

/// Refuses a write that would leave too many siblings, or too large an object. Merges are never refused, so what all
/// `n` owners could write apart from each other has to fit into a frame together.
fn check_size(stored: &Object, seen: &Context, change: &Change, n: u8) -> Result<(), Refusal> {
    let Change::Put { value, .. } = change else { return Ok(()) };
    let left = stored.left_by(seen);
    if left + 1 > SIBLINGS_MAX {
        return Err(Refusal::TooManySiblings { siblings: left as u32 });
    }
    let kept = stored.siblings().iter().filter(|(dot, _)| !seen.covers(*dot));
    let length = value.len() + kept.map(|(_, content)| content.value.len()).sum::<usize>();
    let limit = OBJECT_BYTES_MAX.min((FRAME_BYTES_MAX - FRAME_BYTES_SPARE) / usize::from(n));
    if length > limit {
        return Err(Refusal::ObjectLength { length: length as u64, limit: limit as u64 });
    }
    Ok(())
}
