//! A put or delete, from its mint on: the local batch is committed, then all other owners are told, then W acks.

use super::late::{Late, Timing};
use super::plan::WritePlan;
use super::{Origin, Step};
use crate::planted::{self, Bug};
use bytes::Bytes;
use quorate_ring::id::{Epoch, NodeId};
use quorate_ring::topology::QuorumKind;
use quorate_ring::version::{ContextToken, Dot, Hlc};
use quorate_ring::wire::client::{Ack, Receipt, Standing, Uncertain};
use quorate_ring::wire::failure::{Doubt, Refusal};
use quorate_ring::wire::peer::{PeerRequest, Purpose, Replicate, Replicated, StoreHint};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// What the coordinator's own replica made of the write.
#[derive(Clone, Debug)]
pub struct Minted {
    pub epoch: Epoch,
    pub node: NodeId,
    pub dot: Dot,
    pub hlc: Hlc,
    /// The object as the other owners are to get it, encoded.
    pub object: Bytes,
    pub context: ContextToken,
    pub siblings: u32,
    /// The op id was known already.
    pub repeated: bool,
}

#[derive(Debug)]
pub enum PutAnswer {
    Applied(Receipt),
    Unknown(Uncertain),
}

/// A write under way. The coordinator itself is an owner, and its ack is the first.
///
/// Under `sloppy` a fallback keeps a hint for an owner that cannot be reached, or stays silent. However many nodes
/// stand in for an owner, they count toward W as one.
#[derive(Debug)]
pub struct Put {
    pub origin: Origin,
    pub plan: WritePlan,
    minted: Minted,
    /// Nodes that were sent the object and have yet to answer: as what, and since when.
    waiting: BTreeMap<NodeId, (Standing, Duration)>,
    /// Nodes that may yet keep a hint, nearest first.
    fallbacks: VecDeque<NodeId>,
    /// Owners for which a fallback was asked already.
    hinted: BTreeSet<NodeId>,
    acks: Vec<Ack>,
    answered: bool,
}

impl Put {
    /// The write is staged. Nothing may be sent yet.
    pub fn staged(origin: Origin, plan: WritePlan, minted: Minted) -> Self {
        Self {
            origin,
            plan,
            minted,
            waiting: BTreeMap::new(),
            fallbacks: VecDeque::new(),
            hinted: BTreeSet::new(),
            acks: Vec::new(),
            answered: false,
        }
    }

    /// What the coordinator's own replica made of the write.
    pub fn minted(&self) -> &Minted {
        &self.minted
    }

    /// The batch with the write is committed: the coordinator's own ack, and the object to all other owners that can
    /// be reached; hints for the `missing` ones, if there are fallbacks to keep them.
    pub fn begin(
        &mut self,
        now: Duration,
        others: &[NodeId],
        missing: &[NodeId],
        fallbacks: impl Iterator<Item = NodeId>,
    ) -> Step<PutAnswer> {
        let us = self.micros(now);
        self.acks.push(Ack {
            node: self.minted.node,
            standing: Standing::Owner,
            durability: self.plan.durability,
            sent_us: 0,
            acked_us: us,
            took_us: us,
        });
        self.fallbacks = fallbacks.collect();
        self.waiting = others.iter().map(|owner| (*owner, (Standing::Owner, now))).collect();
        let mut send: Vec<_> = others.iter().map(|owner| (*owner, self.replicate(now))).collect();
        send.extend(missing.iter().filter_map(|owner| self.hint(now, *owner)));
        Step { send, ..self.judge() }
    }

    pub fn on_reply(&mut self, now: Duration, from: NodeId, reply: Result<Replicated, Refusal>) -> Step<PutAnswer> {
        let Some((standing, sent)) = self.waiting.remove(&from) else { return Step::wait() };
        let reply = match reply {
            Err(Refusal::NotOwner) if planted::is(Bug::NonOwnerCounted) => {
                Ok(Replicated { durability: self.plan.durability, took_us: 0 })
            }
            reply => reply,
        };
        let Ok(replicated) = reply else { return self.failed(now, from, standing) };
        self.acks.push(Ack {
            node: from,
            standing,
            durability: replicated.durability,
            sent_us: self.micros(sent),
            acked_us: self.micros(now),
            took_us: replicated.took_us,
        });
        self.judge()
    }

    /// The connection to a node broke: it may or may not hold the write.
    pub fn on_link_down(&mut self, now: Duration, peer: NodeId) -> Step<PutAnswer> {
        match self.waiting.remove(&peer) {
            Some((standing, _)) => self.failed(now, peer, standing),
            None => Step::wait(),
        }
    }

    /// Those asked have been silent for a while: fallbacks are asked to keep hints for them.
    pub fn on_silence(&mut self, now: Duration) -> Step<PutAnswer> {
        let silent: Vec<NodeId> = self.waiting.iter().map(|(node, (standing, _))| target(*node, *standing)).collect();
        Step { send: silent.into_iter().filter_map(|owner| self.hint(now, owner)).collect(), ..Step::wait() }
    }

    /// The deadline passed.
    pub fn on_deadline(&mut self) -> Step<PutAnswer> {
        let answer = (!self.answered).then(|| self.unknown(Doubt::Deadline));
        Step { answer, ..Step::done() }
    }

    /// How an answer counts that comes now from this node; none if nothing is expected of it.
    pub fn timing(&self, now: Duration, from: NodeId) -> Option<Timing> {
        let (standing, sent) = self.waiting.get(&from)?;
        Some(Timing::new(now, *standing, *sent, self.first_ack(), self.owners()))
    }

    /// What the answered put still waits for, if it is anything but hints.
    pub fn into_late(self, until: Duration) -> Option<Late> {
        let (first, owners) = (self.first_ack(), self.owners());
        let waiting: BTreeMap<NodeId, (Standing, Duration)> = self.waiting;
        let any = waiting.values().any(|(standing, _)| *standing == Standing::Owner);
        any.then_some(Late { first, owners, waiting, until })
    }

    /// When the coordinator's own ack was counted.
    fn first_ack(&self) -> Duration {
        self.plan.route.began + Duration::from_micros(self.acks.first().map_or(0, |ack| ack.acked_us))
    }

    fn owners(&self) -> u8 {
        self.acks.iter().filter(|ack| ack.standing == Standing::Owner).count() as u8
    }

    fn failed(&mut self, now: Duration, node: NodeId, standing: Standing) -> Step<PutAnswer> {
        let owner = target(node, standing);
        if node != owner {
            self.hinted.remove(&owner); // Another fallback may do.
        }
        let send = self.hint(now, owner).into_iter().collect();
        Step { send, ..self.judge() }
    }

    /// The next fallback is asked to keep a hint for an owner.
    fn hint(&mut self, now: Duration, owner: NodeId) -> Option<(NodeId, PeerRequest)> {
        if self.plan.quorum == QuorumKind::Strict || self.hinted.contains(&owner) {
            return None;
        }
        let fallback = self.fallbacks.pop_front()?;
        self.hinted.insert(owner);
        self.waiting.insert(fallback, (Standing::Fallback { target: owner }, now));
        let PeerRequest::Replicate(replicate) = self.replicate(now) else { return None };
        Some((fallback, PeerRequest::StoreHint(StoreHint { target: owner, replicate })))
    }

    fn replicate(&self, now: Duration) -> PeerRequest {
        let left = self.plan.route.deadline.saturating_sub(now).as_millis();
        PeerRequest::Replicate(Replicate {
            epoch: self.minted.epoch,
            bucket: self.plan.route.place.bucket,
            key: self.plan.route.place.key.clone(),
            object: self.minted.object.clone(),
            dots: vec![self.minted.dot],
            durability: self.plan.durability,
            purpose: Purpose::Write,
            deadline_ms: u32::try_from(left).unwrap_or(u32::MAX),
        })
    }

    fn judge(&mut self) -> Step<PutAnswer> {
        let durable = |ack: &&Ack| ack.durability >= self.plan.durability;
        let held = || self.acks.iter().filter(durable).map(|ack| target(ack.node, ack.standing));
        let pending = || self.waiting.iter().map(|(node, (standing, _))| target(*node, *standing));
        let (held, possible) = (distinct(held), distinct(|| held().chain(pending())));
        let needed = usize::from(self.plan.w).saturating_sub(usize::from(planted::is(Bug::AckAtWMinusOne))).max(1);
        let answer = if self.answered {
            None
        } else if held >= needed || self.planted(needed) {
            Some(PutAnswer::Applied(self.receipt()))
        } else if possible < needed {
            Some(self.unknown(Doubt::OwnersFailed))
        } else {
            None
        };
        self.answered |= answer.is_some();
        // Acks that come after the answer change nothing: an owner that misses the write learns of it by its clock.
        Step { send: Vec::new(), answer, done: self.answered }
    }

    /// Whether a bug on purpose takes too few acks for enough.
    fn planted(&self, needed: usize) -> bool {
        (planted::is(Bug::CoordinatorCountedTwice) && self.acks.len() + 1 >= needed)
            || (planted::is(Bug::QuorumWaived) && self.waiting.is_empty())
    }

    fn receipt(&self) -> Receipt {
        Receipt {
            epoch: self.minted.epoch,
            coordinator: self.minted.node,
            dot: self.minted.dot,
            hlc: self.minted.hlc,
            needed: self.plan.w,
            acks: self.acks.clone(),
            context: self.minted.context.clone(),
            siblings: self.minted.siblings,
            repeated: self.minted.repeated,
        }
    }

    fn unknown(&self, doubt: Doubt) -> PutAnswer {
        PutAnswer::Unknown(Uncertain { doubt, needed: self.plan.w, acks: self.acks.clone() })
    }

    fn micros(&self, at: Duration) -> u64 {
        at.saturating_sub(self.plan.route.began).as_micros() as u64
    }
}

/// How many different nodes these are. There are a few at the most, so that no set is made of them.
fn distinct<I: Iterator<Item = NodeId>>(nodes: impl Fn() -> I) -> usize {
    nodes().enumerate().filter(|(at, node)| !nodes().take(*at).any(|earlier| earlier == *node)).count()
}

/// The owner for whom a node holds the write.
fn target(node: NodeId, standing: Standing) -> NodeId {
    match standing {
        Standing::Owner => node,
        Standing::Fallback { target } => target,
    }
}
