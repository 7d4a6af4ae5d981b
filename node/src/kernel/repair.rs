//! Anti-entropy of a shard: when to pull, from whom to sync, what may be collected.

use super::operations::Operation;
use super::{Effect, Kernel, Measure, Now};
use crate::coordinator::plan::check_epoch;
use crate::replica::{Place, corrupt_record};
use crate::storage::{Storage, StorageError};
use quorate_ring::id::{NodeId, Partition};
use quorate_ring::version::Object;
use quorate_ring::wire::failure::Refusal;
use quorate_ring::wire::peer::{PeerReply, PeerRequest, Pull, Pulled, SyncPage, SyncRequest};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Pulls and syncs under way at one time: their credits. Each has one page of objects under way.
const UNDER_WAY_MAX: usize = 4;
pub(super) const PAGE_BYTES_MAX: u32 = 256 * 1024;
/// A dot that a peer has and we lack is usually on its way. After this long it is asked for.
const PULL_AFTER: Duration = Duration::from_secs(1);
/// A page that does not come within this is asked for again.
pub(super) const PAGE_PATIENCE: Duration = Duration::from_secs(5);
/// Log entries cut in one tick, over all partitions.
const CUT_MAX: usize = 16_384;
/// Objects looked at in one tick, whether they may be erased, over all partitions.
const LOOKED_AT_MAX: usize = 4_096;

/// What one replica and one peer have to settle.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Exchange {
    Pull,
    /// The log does not reach back far enough, or the node is rebuilding.
    Sync,
}

#[derive(Debug, Default)]
pub(super) struct Repair {
    /// Peers that have dots that we lack, and since when, or when they were last asked for them.
    behind: BTreeMap<(NodeId, Partition), Duration>,
    /// Peers whose log was cut above what we have.
    to_sync: BTreeSet<(NodeId, Partition)>,
    under_way: BTreeSet<(NodeId, Partition)>,
    /// Sources that a rebuilding node has copied.
    synced: BTreeSet<(NodeId, Partition)>,
    /// Where the collection goes on with the next tick.
    collect_from: Option<Partition>,
}

impl Repair {
    /// How many copies of partitions a rebuilding node has made.
    pub(super) fn copies_made(&self) -> u64 {
        self.synced.len() as u64
    }

    /// A peer has lost what it had: what it said that it has is no longer to be had from it.
    pub(super) fn forget(&mut self, peer: NodeId) {
        self.behind.retain(|(other, _), _| *other != peer);
        self.to_sync.retain(|(other, _)| *other != peer);
    }
}

impl<S: Storage> Kernel<S> {
    /// A peer told of its clock: if it has what we lack, it is asked for that in a while.
    pub(super) fn note_clock(&mut self, now: Now, peer: NodeId, partition: Partition) {
        let (Some(replica), Some(theirs)) = (self.replicas.get(&partition), self.clocks.heard(peer, partition)) else {
            return;
        };
        if theirs.lag(replica.clock()) == 0 {
            self.repair.behind.remove(&(peer, partition));
        } else {
            self.repair.behind.entry((peer, partition)).or_insert(now.mono);
        }
    }

    /// Starts what is due, and collects what is settled.
    pub(super) fn repair_tick(&mut self, now: Now, effects: &mut Vec<Effect>) -> Result<(), StorageError> {
        if self.forgotten {
            return Ok(());
        }
        if self.config.rebuilding {
            self.rebuild(now, effects);
            return Ok(());
        }
        self.ask_what_is_due(now, effects);
        self.collect(now, effects)
    }

    /// Asks peers for what they have and we lack, those first that were not asked for the longest time: one that has
    /// nothing to give, or does not answer, keeps nobody else waiting for ever.
    fn ask_what_is_due(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let due = self.repair.behind.iter().filter(|(_, since)| now.mono >= **since + PULL_AFTER);
        let mut due: Vec<(Duration, (NodeId, Partition))> = due.map(|(pair, since)| (*since, *pair)).collect();
        due.sort_unstable();
        for (_, (peer, partition)) in due {
            if self.repair.under_way.len() >= UNDER_WAY_MAX {
                break;
            }
            self.note_clock(now, peer, partition); // What came by itself in the meantime needs no pull.
            if let Some(since) = self.repair.behind.get_mut(&(peer, partition)) {
                *since = now.mono;
                let sync = self.repair.to_sync.contains(&(peer, partition));
                let exchange = if sync { Exchange::Sync } else { Exchange::Pull };
                self.exchange(now, peer, partition, exchange, effects);
            }
        }
    }

    /// A node that may have forgotten copies every partition from all other owners, joined or not, before it answers
    /// again: two wiped nodes must not wait for each other.
    fn rebuild(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let mut left = Vec::new();
        for partition in self.replicas.keys() {
            let owners = self.layout.preference(*partition).map_or(&[][..], |list| list.owners());
            let others = owners.iter().filter(|owner| **owner != self.config.node);
            left.extend(others.map(|owner| (*owner, *partition)).filter(|pair| !self.repair.synced.contains(pair)));
        }
        if left.is_empty() {
            self.config.rebuilding = false;
            effects.push(Effect::Joined);
        }
        for (peer, partition) in left {
            if self.repair.under_way.len() >= UNDER_WAY_MAX {
                break;
            }
            self.exchange(now, peer, partition, Exchange::Sync, effects);
        }
    }

    fn exchange(
        &mut self,
        now: Now,
        peer: NodeId,
        partition: Partition,
        exchange: Exchange,
        effects: &mut Vec<Effect>,
    ) {
        let known_up = self.liveness.reachable(peer, now.mono);
        if !known_up || !self.repair.under_way.insert((peer, partition)) {
            return;
        }
        self.ask_page(now, peer, partition, exchange, effects);
    }

    fn ask_page(
        &mut self,
        now: Now,
        peer: NodeId,
        partition: Partition,
        exchange: Exchange,
        effects: &mut Vec<Effect>,
    ) {
        let Some(replica) = self.replicas.get(&partition) else { return };
        let (epoch, bytes_max) = (self.layout.epoch(), self.config.page_bytes);
        let message = match exchange {
            Exchange::Pull => PeerRequest::Pull(Pull { epoch, partition, clock: replica.clock().clone(), bytes_max }),
            Exchange::Sync => {
                PeerRequest::Sync(SyncRequest { epoch, partition, after: replica.sync_cursor(peer), bytes_max })
            }
        };
        let number = self.number();
        self.send_all(number, vec![(peer, message)], effects);
        let deadline = now.mono + PAGE_PATIENCE;
        self.enrol(now, number, Operation::Exchange { peer, partition, exchange, deadline }, effects);
    }

    /// A page was answered, or nothing came: goes on, or gives up until the next tick.
    pub(super) fn exchange_replied(
        &mut self,
        now: Now,
        (peer, partition, exchange): (NodeId, Partition, Exchange),
        reply: Option<PeerReply>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), StorageError> {
        let more = match reply {
            Some(PeerReply::Pulled(page)) if page.partition == partition && exchange == Exchange::Pull => {
                self.take_pulled(now, peer, &page, effects)?
            }
            Some(PeerReply::Synced(page)) if page.partition == partition && exchange == Exchange::Sync => {
                self.take_synced(now, peer, &page, effects)?
            }
            Some(_) | None => false,
        };
        if more {
            self.ask_page(now, peer, partition, exchange, effects);
            return Ok(());
        }
        self.repair.under_way.remove(&(peer, partition));
        // The credit goes to whoever is next, without waiting for a tick. What failed waits for its turn.
        if !self.config.rebuilding {
            self.ask_what_is_due(now, effects);
        } else if !self.forgotten && self.repair.synced.contains(&(peer, partition)) {
            self.rebuild(now, effects);
        }
        Ok(())
    }

    fn take_pulled(
        &mut self,
        now: Now,
        peer: NodeId,
        page: &Pulled,
        effects: &mut Vec<Effect>,
    ) -> Result<bool, StorageError> {
        let mut dots = 0;
        for pulled in &page.objects {
            let place = Place { bucket: pulled.bucket, key: pulled.key.clone() };
            let bucket = self.layout.topology().bucket(pulled.bucket);
            let theirs = bucket.is_some_and(|bucket| self.layout.partition(bucket, &place.key) == page.partition);
            if let (true, Ok(object)) = (theirs, Object::decode(&pulled.object)) {
                dots += self.merge(&place, page.partition, &object, &pulled.dots)?;
            }
        }
        self.sync |= dots > 0;
        effects.push(Effect::Measure(Measure::Pulled { dots }));
        if page.below_floor {
            self.repair.to_sync.insert((peer, page.partition));
        }
        self.note_clock(now, peer, page.partition);
        Ok(page.more && dots > 0)
    }

    fn take_synced(
        &mut self,
        now: Now,
        peer: NodeId,
        page: &SyncPage,
        effects: &mut Vec<Effect>,
    ) -> Result<bool, StorageError> {
        let Some(replica) = self.replicas.get_mut(&page.partition) else { return Ok(false) };
        // A record that does not decode ends the sync, not the node: it came from outside.
        if page.records.iter().any(|record| Object::decode(&record.object).map_err(corrupt_record).is_err()) {
            return Ok(false);
        }
        let last = replica.take_sync_page(&mut self.store, peer, page)?;
        self.sync = true;
        let actors: Vec<_> = replica.clock().iter().map(|(actor, _)| actor).collect();
        for actor in actors {
            self.clocks.changed(page.partition, actor);
        }
        if last {
            self.repair.to_sync.remove(&(peer, page.partition));
            self.repair.synced.insert((peer, page.partition));
            effects.push(Effect::Measure(Measure::FullSync));
            self.note_clock(now, peer, page.partition);
        }
        Ok(!last)
    }

    /// Answers a peer that pulls. A node that rebuilds does not know what it lacks itself.
    pub(super) fn pulled_by(&self, pull: &Pull) -> Result<Result<PeerReply, Refusal>, StorageError> {
        if let Err(refusal) = check_epoch(&self.layout, pull.epoch) {
            return Ok(Err(refusal));
        }
        let Some(replica) = self.replicas.get(&pull.partition) else { return Ok(Err(Refusal::NotOwner)) };
        if self.config.rebuilding {
            return Ok(Err(Refusal::NotReady));
        }
        let page = replica.pull_page(&self.store, &pull.clock, pull.bytes_max.clamp(1, PAGE_BYTES_MAX) as usize)?;
        Ok(Ok(PeerReply::Pulled(page)))
    }

    /// Answers a peer that copies a partition, also while this node rebuilds. One that has forgotten says nothing more
    /// under its actor: it may have said more before, and the copy would go on from there.
    pub(super) fn synced_by(&self, sync: &SyncRequest) -> Result<Result<PeerReply, Refusal>, StorageError> {
        if let Err(refusal) = check_epoch(&self.layout, sync.epoch) {
            return Ok(Err(refusal));
        }
        let Some(replica) = self.replicas.get(&sync.partition) else { return Ok(Err(Refusal::NotOwner)) };
        if self.forgotten {
            return Ok(Err(Refusal::NotReady));
        }
        let after = sync.after.as_ref().map(|(bucket, key)| Place { bucket: *bucket, key: key.clone() });
        let bytes_max = sync.bytes_max.clamp(1, PAGE_BYTES_MAX) as usize;
        let page = replica.sync_page(&self.store, self.config.actor, after.as_ref(), bytes_max)?;
        Ok(Ok(PeerReply::Synced(page)))
    }

    /// Cuts logs and erases tombstones up to what every owner has seen, a part of the partitions with each tick.
    fn collect(&mut self, now: Now, effects: &mut Vec<Effect>) -> Result<(), StorageError> {
        let from = self.repair.collect_from.take();
        let partitions: Vec<Partition> = match from {
            Some(from) => self.replicas.range(from..).map(|(partition, _)| *partition).collect(),
            None => self.replicas.keys().copied().collect(),
        };
        let wall_ms = now.wall_ms.saturating_sub(self.config.clock_drift_max.as_millis() as u64);
        let (mut cut_left, mut looks_left) = (CUT_MAX, LOOKED_AT_MAX);
        for partition in partitions {
            if cut_left == 0 || looks_left == 0 {
                self.repair.collect_from = Some(partition);
                break;
            }
            let Some(replica) = self.replicas.get_mut(&partition).filter(|replica| !replica.is_collected()) else {
                continue;
            };
            let owners = self.layout.preference(partition).map_or(&[][..], |list| list.owners());
            let settled = self.clocks.settled(self.config.node, owners, partition, replica.clock());
            self.ages.settle(partition, &settled);
            // Content is erased once it has expired by the clock of every owner: one of them may have jumped ahead.
            let expired_ms = wall_ms.min(self.clocks.earliest_wall(self.config.node, owners));
            let collected = replica.collect(&mut self.store, &settled, expired_ms, (cut_left, looks_left))?;
            cut_left = cut_left.saturating_sub(collected.cut);
            looks_left = looks_left.saturating_sub(collected.looked_at);
            if collected.erased > 0 {
                effects.push(Effect::Measure(Measure::Erased { objects: collected.erased }));
            }
        }
        Ok(())
    }
}
