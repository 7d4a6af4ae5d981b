//! A put or delete, from its mint on: the local batch is committed, then all other owners are told, then W acks.

use super::plan::WritePlan;
use super::{Origin, Step};
use bytes::Bytes;
use quorate_ring::id::{Epoch, NodeId};
use quorate_ring::version::{ContextToken, Dot, Hlc};
use quorate_ring::wire::client::{Ack, Receipt, Standing, Uncertain};
use quorate_ring::wire::failure::{Doubt, Refusal};
use quorate_ring::wire::peer::{PeerRequest, Purpose, Replicate, Replicated};
use std::collections::BTreeMap;
use std::time::Duration;

/// What the coordinator's own replica made of the write.
#[derive(Clone, Debug)]
pub struct Minted {
    pub epoch: Epoch,
    pub node: NodeId,
    pub dot: Dot,
    pub hlc: Hlc,
    /// The whole object, encoded.
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
#[derive(Debug)]
pub struct Put {
    pub origin: Origin,
    pub plan: WritePlan,
    minted: Minted,
    /// Other owners that have yet to answer, and when they were sent the object.
    waiting: BTreeMap<NodeId, Duration>,
    acks: Vec<Ack>,
    answered: bool,
}

impl Put {
    /// The write is staged. Nothing may be sent yet.
    pub fn staged(origin: Origin, plan: WritePlan, minted: Minted) -> Self {
        Self { origin, plan, minted, waiting: BTreeMap::new(), acks: Vec::new(), answered: false }
    }

    /// The batch with the write is committed: the coordinator's own ack, and the object to all `others` that can be
    /// reached.
    pub fn begin(&mut self, now: Duration, others: impl Iterator<Item = NodeId>) -> Step<PutAnswer> {
        let us = self.micros(now);
        self.acks.push(Ack {
            node: self.minted.node,
            standing: Standing::Owner,
            durability: self.plan.durability,
            sent_us: 0,
            acked_us: us,
            took_us: us,
        });
        self.waiting = others.map(|owner| (owner, now)).collect();
        let left = self.plan.route.deadline.saturating_sub(now).as_millis();
        let message = |purpose| {
            PeerRequest::Replicate(Replicate {
                epoch: self.minted.epoch,
                bucket: self.plan.route.place.bucket,
                key: self.plan.route.place.key.clone(),
                object: self.minted.object.clone(),
                dots: vec![self.minted.dot],
                durability: self.plan.durability,
                purpose,
                deadline_ms: u32::try_from(left).unwrap_or(u32::MAX),
            })
        };
        let send = self.waiting.keys().map(|owner| (*owner, message(Purpose::Write))).collect();
        Step { send, ..self.judge() }
    }

    pub fn on_reply(&mut self, now: Duration, from: NodeId, reply: Result<Replicated, Refusal>) -> Step<PutAnswer> {
        let Some(sent) = self.waiting.remove(&from) else { return Step::wait() };
        if let Ok(replicated) = reply {
            self.acks.push(Ack {
                node: from,
                standing: Standing::Owner,
                durability: replicated.durability,
                sent_us: self.micros(sent),
                acked_us: self.micros(now),
                took_us: replicated.took_us,
            });
        }
        self.judge()
    }

    /// The connection to an owner broke: it may or may not hold the write.
    pub fn on_link_down(&mut self, peer: NodeId) -> Step<PutAnswer> {
        match self.waiting.remove(&peer) {
            Some(_) => self.judge(),
            None => Step::wait(),
        }
    }

    /// The deadline passed.
    pub fn on_deadline(&mut self) -> Step<PutAnswer> {
        let answer = (!self.answered).then(|| self.unknown(Doubt::Deadline));
        Step { answer, ..Step::done() }
    }

    /// Owners that have not answered, and when they were asked.
    pub fn waiting(&self) -> &BTreeMap<NodeId, Duration> {
        &self.waiting
    }

    fn judge(&mut self) -> Step<PutAnswer> {
        let durable = |ack: &&Ack| ack.durability >= self.plan.durability;
        let got = self.acks.iter().filter(durable).count();
        let needed = usize::from(self.plan.w);
        let answer = if self.answered {
            None
        } else if got >= needed {
            Some(PutAnswer::Applied(self.receipt()))
        } else if got + self.waiting.len() < needed {
            Some(self.unknown(Doubt::OwnersFailed))
        } else {
            None
        };
        self.answered |= answer.is_some();
        Step { send: Vec::new(), answer, done: self.waiting.is_empty() }
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
