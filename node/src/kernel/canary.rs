//! The canary: a small write, made now and then, and looked for at each other owner until it is there.
//!
//! It goes the way of any write and of any read, so it shows what clocks cannot: that what is acknowledged can be read
//! elsewhere, and after how long.

use super::{Effect, Kernel, Measure, Now, Timer, shard_of};
use crate::coordinator::Origin;
use crate::replica::Place;
use crate::storage::{Storage, StorageError};
use bytes::Bytes;
use quorate_ring::id::{BucketId, NodeId, OpId, Partition};
use quorate_ring::topology::{Count, QuorumKind};
use quorate_ring::version::{Dot, Object};
use quorate_ring::wire::client::{Change, Supersede, WriteRequest};
use quorate_ring::wire::peer::{Fetch, PeerReply, PeerRequest};
use std::collections::BTreeMap;
use std::time::Duration;

/// Between two canaries.
const WRITTEN_EVERY: Duration = Duration::from_secs(2);
/// Between a look and the next: twice as long each time.
const LOOK_AGAIN_MIN: Duration = Duration::from_millis(1);
const LOOK_AGAIN_MAX: Duration = Duration::from_millis(250);
/// A look that is not answered within this is made again.
const LOOK_PATIENCE: Duration = Duration::from_secs(1);
/// Names that are tried for a key whose first owner is this node.
const NAMES_MAX: u32 = 100_000;

#[derive(Debug, Default)]
pub(super) struct Canary {
    home: Option<(Place, Partition)>,
    written: Option<Duration>,
    /// Owners that have not shown it yet: which dot they should show, and since when it is there.
    waiting: BTreeMap<NodeId, (Dot, Duration)>,
    /// Looks under way, by number, and when they were sent.
    looks: BTreeMap<u64, (NodeId, Duration)>,
    look_again: Duration,
    /// When to look again; a timer that comes before it was set for an earlier canary.
    next_look: Duration,
}

impl Canary {
    pub(super) fn waiting_since(&self, peer: NodeId) -> Option<Duration> {
        self.waiting.get(&peer).map(|(_, since)| *since)
    }
}

impl<S: Storage> Kernel<S> {
    /// Writes the next canary if it is time.
    pub(super) fn canary_tick(&mut self, now: Now, effects: &mut Vec<Effect>) -> Result<(), StorageError> {
        let Some(bucket) = self.config.canary else { return Ok(()) };
        let due = self.canary.written.is_none_or(|at| now.mono >= at + WRITTEN_EVERY);
        if !due || self.config.rebuilding || self.draining || self.disk_reserve {
            return Ok(());
        }
        self.canary.written = Some(now.mono);
        if self.canary.home.is_none() {
            self.canary.home = self.canary_home(bucket);
        }
        let Some((place, partition)) = self.canary.home.clone() else { return Ok(()) };
        let before = self.own_seq(partition);
        let number = self.number();
        let message = WriteRequest {
            epoch: self.layout.epoch(),
            bucket,
            key: place.key,
            change: Change::Put { value: Bytes::from(now.wall_ms.to_string()), expires_ms: None },
            supersede: Supersede::Local,
            op_id: OpId(((u128::from(self.config.actor.0) << 64) | u128::from(number)).to_be_bytes()),
            hlc: self.hlc,
            r: None,
            w: Some(Count::One),
            quorum: Some(QuorumKind::Strict),
            durability: None,
            deadline_ms: WRITTEN_EVERY.as_millis() as u32,
        };
        self.write(now, Origin::Own, now.mono, message, effects)?;
        let seq = self.own_seq(partition);
        if seq == before {
            return Ok(()); // Refused.
        }
        effects.push(Effect::Measure(Measure::CanaryWritten));
        let dot = Dot(self.config.actor, seq);
        let owners = self.layout.preference(partition).map_or(&[][..], |list| list.owners());
        for owner in owners.iter().filter(|owner| **owner != self.config.node) {
            // Whoever still lacks an earlier one is waited for since then.
            self.canary.waiting.entry(*owner).or_insert((dot, now.mono));
        }
        self.canary.look_again = LOOK_AGAIN_MIN;
        self.arm_canary(now, effects);
        Ok(())
    }

    fn own_seq(&self, partition: Partition) -> u64 {
        self.replicas.get(&partition).map_or(0, |replica| replica.clock().max(self.config.actor))
    }

    /// A key of which this node is the first owner, in a partition of this shard. The other shards have no canary.
    fn canary_home(&self, bucket: BucketId) -> Option<(Place, Partition)> {
        if self.config.shard != 0 {
            return None;
        }
        let me = self.config.node;
        let settings = self.layout.topology().bucket(bucket)?;
        (0..NAMES_MAX).find_map(|name| {
            let key = Bytes::from(format!("canary/{}/{name}", me.0));
            let partition = self.layout.partition(settings, &key);
            let first = self.layout.preference(partition)?.owners().first()? == &me;
            let mine = first && shard_of(partition, self.config.shards) == self.config.shard;
            mine.then_some((Place { bucket, key }, partition))
        })
    }

    /// Looks again at whoever has not shown it.
    pub(super) fn canary_fired(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let Some((place, _)) = self.canary.home.clone() else { return };
        if now.mono < self.canary.next_look {
            return;
        }
        self.canary.looks.retain(|_, (_, sent)| now.mono < *sent + LOOK_PATIENCE);
        let waiting: Vec<NodeId> = self.canary.waiting.keys().copied().collect();
        for peer in waiting {
            let looked = self.canary.looks.values().any(|(at, _)| *at == peer);
            if looked || !self.liveness.reachable(peer, now.mono) {
                continue;
            }
            let number = self.number();
            self.canary.looks.insert(number, (peer, now.mono));
            let fetch = PeerRequest::Fetch(Fetch {
                epoch: self.layout.epoch(),
                bucket: place.bucket,
                key: place.key.clone(),
                context_for: None,
                deadline_ms: LOOK_PATIENCE.as_millis() as u32,
                request_id: None,
                held: Vec::new(),
            });
            self.send_all(number, vec![(peer, fetch)], effects);
        }
        if !self.canary.waiting.is_empty() {
            self.arm_canary(now, effects);
        }
    }

    fn arm_canary(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let after = self.canary.look_again;
        self.canary.look_again = (2 * after).min(LOOK_AGAIN_MAX);
        self.canary.next_look = now.mono + after;
        effects.push(Effect::Arm { timer: Timer::Canary, after });
    }

    /// A peer answered what no operation waits for: perhaps a look at the canary.
    pub(super) fn canary_reply(
        &mut self,
        now: Now,
        from: NodeId,
        number: u64,
        reply: &PeerReply,
        effects: &mut Vec<Effect>,
    ) -> Result<(), StorageError> {
        if self.canary.looks.remove(&number).is_none_or(|(peer, _)| peer != from) {
            return Ok(());
        }
        let PeerReply::Fetched(fetched) = reply else { return Ok(()) };
        let Ok(object) = Object::decode(&fetched.object) else { return Ok(()) };
        if let Some((dot, since)) = self.canary.waiting.get(&from).copied()
            && object.context().covers(dot)
        {
            self.canary.waiting.remove(&from);
            let took = now.mono.saturating_sub(since);
            effects.push(Effect::Measure(Measure::CanarySeen { peer: from, took }));
        }
        Ok(())
    }
}
