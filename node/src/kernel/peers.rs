//! What peers ask of this node, what they answer, and the pings that keep both sides informed.

use super::{Effect, Kernel, Measure, Now, PendingAck, RequestId, Timer, shard_of};
use crate::coordinator::Origin;
use crate::coordinator::plan::{bucket, check_epoch, check_key};
use crate::replica::{Place, corrupt_record};
use crate::storage::{Storage, StorageError};
use quorate_ring::id::{BucketId, Epoch, NodeId, Partition};
use quorate_ring::topology::Durability;
use quorate_ring::version::{Dot, Object};
use quorate_ring::wire::PROTOCOL_MINOR;
use quorate_ring::wire::failure::Refusal;
use quorate_ring::wire::peer::{
    Fetch, Fetched, Greet, Greeted, PeerReply, PeerRequest, Ping, Pong, Purpose, Replicate,
};
use std::time::Duration;

/// A shard that nobody asked for anything in this time is quiet.
const QUIET_AFTER: Duration = Duration::from_secs(5);
/// So much rarer are the pings of a quiet shard.
const QUIET_PINGS: u32 = 2;

impl<S: Storage> Kernel<S> {
    pub(super) fn peer_request(
        &mut self,
        now: Now,
        from: NodeId,
        request: RequestId,
        arrived: Duration,
        message: PeerRequest,
        effects: &mut Vec<Effect>,
    ) -> Result<(), StorageError> {
        if !matches!(message, PeerRequest::Greet(_) | PeerRequest::Ping(_)) {
            self.busy = now.mono;
        }
        let answer = match message {
            PeerRequest::Greet(greet) => self.greeted_by(now, from, &greet),
            PeerRequest::Ping(ping) => Ok(self.pinged_by(now, from, &ping, effects)),
            PeerRequest::Coordinate(coordinate) => {
                let origin = Origin::Peer { node: from, request };
                return self.write(now, origin, arrived, coordinate.write, effects);
            }
            PeerRequest::Replicate(replicate) => match self.replicate(now, from, arrived, &replicate, effects)? {
                Ok(()) => {
                    self.acks.push(PendingAck { to: from, request, arrived, durability: replicate.durability });
                    return Ok(());
                }
                Err(refusal) => Err(refusal),
            },
            PeerRequest::Fetch(fetch) => self.fetch(now, arrived, &fetch)?,
            PeerRequest::StoreHint(hint) => match self.store_hint(now, arrived, &hint)? {
                Ok(()) => {
                    self.acks.push(PendingAck { to: from, request, arrived, durability: hint.replicate.durability });
                    return Ok(());
                }
                Err(refusal) => Err(refusal),
            },
            PeerRequest::Pull(pull) => self.pulled_by(&pull)?,
            PeerRequest::Sync(sync) => self.synced_by(&sync)?,
        };
        let message = answer.unwrap_or_else(PeerReply::Refused);
        effects.push(Effect::PeerReply { to: from, request, message });
        Ok(())
    }

    pub(super) fn peer_reply(
        &mut self,
        now: Now,
        from: NodeId,
        request: RequestId,
        reply: PeerReply,
        effects: &mut Vec<Effect>,
    ) -> Result<(), StorageError> {
        let number = request.0 >> 8;
        if !self.asked(number) {
            return Ok(()); // An answer to an earlier run: what it says of that one's actor is not about this one's.
        }
        match reply {
            PeerReply::Greeted(greeted) => self.greeting_answered(now, from, &greeted, effects),
            PeerReply::Pong(pong) => {
                self.clocks.pong(from, pong.number);
                self.liveness.on_pong(from, now.mono);
                self.clocks.hear_rebuilding(from, pong.rebuilding);
                measure_offset(now, from, pong.wall_ms, effects);
            }
            PeerReply::Written(_)
            | PeerReply::Replicated(_)
            | PeerReply::Fetched(_)
            | PeerReply::Pulled(_)
            | PeerReply::Synced(_)
            | PeerReply::Refused(_)
            | PeerReply::Unknown(_) => return self.operation_replied(now, from, number, reply, effects),
        }
        Ok(())
    }

    pub(super) fn link_up(&mut self, now: Now, peer: NodeId, effects: &mut Vec<Effect>) {
        self.liveness.on_link_up(peer);
        self.clocks.link_up(peer);
        self.greet(now, peer, effects);
    }

    /// Pings every peer that has greeted, and greets the others.
    pub(super) fn tick(&mut self, now: Now, effects: &mut Vec<Effect>) -> Result<(), StorageError> {
        self.note_ages(now);
        self.late.forget_old(now.mono);
        self.give_up_on_the_silent(now, effects)?;
        self.repair_tick(now, effects)?;
        self.hand_off(now, effects)?;
        self.canary_tick(now, effects)?;
        let linked: Vec<NodeId> = self.liveness.peers().filter(|peer| self.liveness.linked(*peer)).collect();
        for peer in linked {
            if !self.liveness.greeted(peer) {
                self.greet(now, peer, effects);
                continue;
            }
            let (number, clocks) = self.clocks.news(peer, &self.replicas, &self.layout);
            let ping = PeerRequest::Ping(Ping { number, wall_ms: now.wall_ms, clocks });
            let operation = self.number();
            self.send_all(operation, vec![(peer, ping)], effects);
        }
        let after = if self.quiet(now) { QUIET_PINGS * self.config.ping_every } else { self.config.ping_every };
        effects.push(Effect::Arm { timer: Timer::Tick, after });
        Ok(())
    }

    /// Nobody has asked for anything for a while, and there is nothing to repair: pings may be rarer.
    fn quiet(&self, now: Now) -> bool {
        now.mono.saturating_sub(self.busy) > QUIET_AFTER && self.repair.is_idle() && !self.config.rebuilding
    }

    fn greet(&mut self, now: Now, peer: NodeId, effects: &mut Vec<Effect>) {
        let greet = PeerRequest::Greet(Greet {
            minor: PROTOCOL_MINOR,
            cluster: self.layout.topology().cluster,
            epoch: self.layout.epoch(),
            actor: self.config.actor,
            wall_ms: now.wall_ms,
        });
        let number = self.number();
        self.send_all(number, vec![(peer, greet)], effects);
    }

    /// Tells a peer what is remembered of it here.
    fn greeted_by(&mut self, now: Now, from: NodeId, greet: &Greet) -> Result<PeerReply, Refusal> {
        let ours = self.layout.topology().cluster;
        if greet.cluster != ours {
            return Err(Refusal::WrongCluster { yours: greet.cluster, ours });
        }
        check_epoch(&self.layout, greet.epoch)?;
        if greet.actor.node() != from {
            return Err(Refusal::Malformed(format!("actor {} is not of {from}", greet.actor)));
        }
        if self.clocks.greeted_by(from, greet.actor) {
            self.repair.forget(from);
            self.ages.renewed(from, now.mono);
        }
        let known = self.replicas.iter().map(|(partition, replica)| (*partition, replica.clock().max(greet.actor)));
        Ok(PeerReply::Greeted(Greeted {
            minor: PROTOCOL_MINOR,
            epoch: self.layout.epoch(),
            actor: self.config.actor,
            wall_ms: now.wall_ms,
            known: known.filter(|(_, seq)| *seq > 0).collect(),
        }))
    }

    /// A peer said what it remembers of this node. If that is more than we remember ourselves, we have forgotten.
    fn greeting_answered(&mut self, now: Now, from: NodeId, greeted: &Greeted, effects: &mut Vec<Effect>) {
        for (partition, known) in &greeted.known {
            if self.forgot(from, *partition, *known, effects) {
                return;
            }
        }
        self.liveness.on_greeted(from, now.mono);
        measure_offset(now, from, greeted.wall_ms, effects);
    }

    pub(super) fn forgot(&mut self, peer: NodeId, partition: Partition, known: u64, effects: &mut Vec<Effect>) -> bool {
        let Some(replica) = self.replicas.get(&partition) else { return false };
        let remembered = replica.clock().max(self.config.actor);
        if known <= remembered {
            return false;
        }
        // Answers and mints nothing more under this actor, whatever the driver does next.
        self.config.rebuilding = true;
        self.forgotten = true;
        effects.push(Effect::Amnesia { peer, partition, remembered, known });
        true
    }

    fn pinged_by(&mut self, now: Now, from: NodeId, ping: &Ping, effects: &mut Vec<Effect>) -> PeerReply {
        let (node, shards, shard) = (self.config.node, self.config.shards, self.config.shard);
        for news in &ping.clocks {
            let list = self.layout.preference(news.partition);
            let shared = list.is_some_and(|list| list.is_owner(from) && list.is_owner(node));
            if shared && shard_of(news.partition, shards) == shard {
                self.clocks.hear(from, news);
                self.note_clock(now, from, news.partition);
            }
        }
        self.clocks.pinged(from, &ping.clocks);
        self.clocks.hear_wall(from, ping.wall_ms);
        measure_offset(now, from, ping.wall_ms, effects);
        PeerReply::Pong(Pong { number: ping.number, wall_ms: now.wall_ms, rebuilding: self.config.rebuilding })
    }

    /// Merges what another node sent. The ack waits for the commit.
    fn replicate(
        &mut self,
        now: Now,
        from: NodeId,
        arrived: Duration,
        message: &Replicate,
        effects: &mut Vec<Effect>,
    ) -> Result<Result<(), Refusal>, StorageError> {
        let (place, partition) = match self.owned(message.epoch, message.bucket, &message.key) {
            Ok(owned) => owned,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if message.purpose == Purpose::Write && overdue(now, arrived, message.deadline_ms) {
            return Ok(Err(Refusal::DeadlinePassed));
        }
        let object = match checked_object(message) {
            Ok(object) => object,
            Err(refusal) => return Ok(Err(refusal)),
        };
        // Events of our own that we do not know of: we have forgotten. A context alone may have been made up by a
        // client, and is refused without further consequence.
        let events = object.siblings().iter().map(|(dot, _)| *dot).chain(message.dots.iter().copied());
        let own = events.filter(|dot| dot.actor() == self.config.actor).map(Dot::seq).max().unwrap_or(0);
        if self.forgot(from, partition, own, effects) {
            return Ok(Err(Refusal::NotReady));
        }
        let remembered = self.replicas[&partition].clock().max(self.config.actor);
        if object.context().seq(self.config.actor) > remembered {
            let why = "the context covers writes of this node that were never made".to_string();
            return Ok(Err(Refusal::Malformed(why)));
        }
        let dots = self.merge(&place, partition, &object, &message.dots)?;
        self.sync |= message.durability == Durability::Sync;
        self.counters.replicated += 1;
        effects.push(Effect::Measure(Measure::Merged { dots }));
        Ok(Ok(()))
    }

    /// What this replica holds of a key.
    fn fetch(&self, now: Now, arrived: Duration, message: &Fetch) -> Result<Result<PeerReply, Refusal>, StorageError> {
        let (place, partition) = match self.owned(message.epoch, message.bucket, &message.key) {
            Ok(owned) => owned,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if self.config.rebuilding {
            return Ok(Err(Refusal::NotReady));
        }
        if overdue(now, arrived, message.deadline_ms) {
            return Ok(Err(Refusal::DeadlinePassed));
        }
        let replica = &self.replicas[&partition];
        let object = match message.context_for {
            None => replica.answer_record(&self.store, &place, &message.held)?,
            Some(op_id) => {
                let record = replica.known_record(&self.store, &place)?;
                let known = Object::decode(&record).map_err(corrupt_record)?;
                if known.event_of(op_id).is_none() { known.context_only().encode() } else { record }
            }
        };
        let took_us = now.mono.saturating_sub(arrived).as_micros() as u64;
        Ok(Ok(PeerReply::Fetched(Fetched { object, took_us })))
    }

    /// Checks that a peer's request is about a key that this node owns, under the same topology.
    fn owned(&self, epoch: Epoch, id: BucketId, key: &bytes::Bytes) -> Result<(Place, Partition), Refusal> {
        let bucket = bucket(&self.layout, epoch, id)?;
        check_key(key)?;
        let partition = self.layout.partition(bucket, key);
        if !self.replicas.contains_key(&partition) {
            return Err(Refusal::NotOwner);
        }
        Ok((Place { bucket: id, key: key.clone() }, partition))
    }
}

/// Decodes the object of a message, and checks that it covers the events that it is said to cover.
pub(super) fn checked_object(message: &Replicate) -> Result<Object, Refusal> {
    let object = Object::decode(&message.object).map_err(|why| Refusal::Malformed(why.to_string()))?;
    let uncovered = |dot: &&Dot| dot.seq() == 0 || !object.context().covers(**dot);
    match message.dots.iter().find(uncovered) {
        Some(dot) => Err(Refusal::Malformed(format!("the object does not cover {dot}, which it is said to"))),
        None => Ok(object),
    }
}

pub(super) fn overdue(now: Now, arrived: Duration, deadline_ms: u32) -> bool {
    now.mono.saturating_sub(arrived) >= Duration::from_millis(u64::from(deadline_ms))
}

fn measure_offset(now: Now, peer: NodeId, theirs_ms: u64, effects: &mut Vec<Effect>) {
    let ms = i64::try_from(theirs_ms).unwrap_or(i64::MAX).saturating_sub(now.wall_ms as i64);
    effects.push(Effect::Measure(Measure::ClockOffset { peer, ms }));
}
