//! One pull or full sync with one peer: page by page, on both sides of it.

use super::operations::Operation;
use super::{Effect, Kernel, Measure, Now};
use crate::coordinator::plan::check_epoch;
use crate::replica::Place;
use crate::storage::{Storage, StorageError};
use bytes::Bytes;
use quorate_ring::id::{BucketId, NodeId, Partition};
use quorate_ring::version::Object;
use quorate_ring::wire::failure::Refusal;
use quorate_ring::wire::peer::{PeerReply, PeerRequest, Pull, Pulled, PulledObject, SyncPage, SyncRequest};
use std::time::Duration;

/// Objects in one page, about, as this node asks for it: small, so that no client waits long behind it.
pub(super) const PAGE_BYTES: u32 = 16 * 1024;
/// However much a peer asks for.
pub(super) const PAGE_BYTES_MAX: u32 = 256 * 1024;
/// A page that does not come within this is asked for again.
pub(super) const PAGE_PATIENCE: Duration = Duration::from_secs(5);

/// What one replica and one peer have to settle.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Exchange {
    Pull,
    /// The log does not reach back far enough, or the node is rebuilding.
    Sync,
}

impl<S: Storage> Kernel<S> {
    pub(super) fn exchange(
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
        self.go_on(now, (peer, partition, exchange), effects);
    }

    /// Asks for the next page, or lets the exchange wait for a tick in which more may be moved.
    fn go_on(&mut self, now: Now, which: (NodeId, Partition, Exchange), effects: &mut Vec<Effect>) {
        if self.repair.pace.allows(now.mono) {
            self.ask_page(now, which, effects);
        } else {
            self.repair.paused.push_back(which);
        }
    }

    /// What waited for the pace goes on.
    pub(super) fn unpause(&mut self, now: Now, effects: &mut Vec<Effect>) {
        while self.repair.pace.allows(now.mono)
            && let Some((peer, partition, exchange)) = self.repair.paused.pop_front()
        {
            if self.liveness.reachable(peer, now.mono) {
                self.ask_page(now, (peer, partition, exchange), effects);
            } else {
                self.repair.under_way.remove(&(peer, partition));
            }
        }
    }

    fn ask_page(
        &mut self,
        now: Now,
        (peer, partition, exchange): (NodeId, Partition, Exchange),
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
            self.go_on(now, (peer, partition, exchange), effects);
            return Ok(());
        }
        self.repair.under_way.remove(&(peer, partition));
        // The credit goes to whoever is next, without waiting for a tick. What failed waits for its turn.
        let copied = || self.replicas.get(&partition).is_some_and(|replica| replica.has_copied(peer));
        if !self.config.rebuilding {
            self.ask_what_is_due(now, effects);
        } else if !self.forgotten && copied() {
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
        let (mut dots, mut bytes, mut misplaced) = (0, 0, 0);
        for pulled in &page.objects {
            bytes += pulled.object.len() + pulled.key.len();
            let sound = self.belongs(page.partition, pulled.bucket, &pulled.key).then(|| covering(pulled)).flatten();
            let Some(object) = sound else {
                misplaced += 1;
                continue;
            };
            let place = Place { bucket: pulled.bucket, key: pulled.key.clone() };
            dots += self.merge(&place, page.partition, &object, &pulled.dots)?;
        }
        self.sync |= dots > 0;
        self.account(bytes, misplaced, effects);
        self.repair.dots_pulled += u64::from(dots);
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
        let bytes = page.records.iter().map(|record| record.object.len() + record.key.len()).sum();
        let misplaced = self.misplaced(peer, page);
        self.account(bytes, misplaced, effects);
        // A page that is none ends the sync, not the node: it came from outside.
        if misplaced > 0 {
            return Ok(false);
        }
        let Some(replica) = self.replicas.get_mut(&page.partition) else { return Ok(false) };
        let last = replica.take_sync_page(&mut self.store, peer, page)?;
        if last && self.config.rebuilding {
            replica.mark_copied(&mut self.store, peer);
        }
        self.sync = true;
        let actors: Vec<_> = replica.clock().iter().map(|(actor, _)| actor).collect();
        for actor in actors {
            self.clocks.changed(page.partition, actor);
        }
        if last {
            self.repair.to_sync.remove(&(peer, page.partition));
            self.repair.full_syncs += 1;
            effects.push(Effect::Measure(Measure::FullSync));
            self.note_clock(now, peer, page.partition);
        }
        Ok(!last)
    }

    /// Whether a key of a bucket lies in a partition.
    fn belongs(&self, partition: Partition, bucket: BucketId, key: &Bytes) -> bool {
        let bucket = self.layout.topology().bucket(bucket);
        bucket.is_some_and(|bucket| self.layout.partition(bucket, key) == partition)
    }

    /// How many records of a page should not be there: of another partition, not behind the one before, or no record.
    fn misplaced(&self, peer: NodeId, page: &SyncPage) -> u32 {
        let mut before = self.replicas.get(&page.partition).and_then(|replica| replica.sync_cursor(peer));
        let mut count = u32::from(page.records.is_empty() && !page.done); // From such a page there is no going on.
        for record in &page.records {
            let here = Some((record.bucket, record.key.clone()));
            let sound = here > before
                && self.belongs(page.partition, record.bucket, &record.key)
                && Object::decode(&record.object).is_ok();
            count += u32::from(!sound);
            before = here;
        }
        count
    }

    fn account(&mut self, bytes: usize, misplaced: u32, effects: &mut Vec<Effect>) {
        self.repair.pace.spend(bytes);
        self.repair.bytes_taken += bytes as u64;
        if misplaced > 0 {
            effects.push(Effect::Measure(Measure::Misplaced { objects: misplaced }));
        }
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
}

/// The object of a pull, if it is one and covers the events that it is said to cover.
fn covering(pulled: &PulledObject) -> Option<Object> {
    let object = Object::decode(&pulled.object).ok()?;
    pulled.dots.iter().all(|dot| object.context().covers(*dot)).then_some(object)
}
