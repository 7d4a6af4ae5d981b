//! Each shard accounts for itself; this makes one account of the node out of theirs.

use super::clock::Clock;
use crate::kernel::SessionId;
use quorate_ring::wire::client::{NodeStatus, PartitionStates, RepairStatus};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

/// What the shards do not know of their node.
#[derive(Debug)]
pub struct Facts {
    name: String,
    clock: Clock,
    pub keys_estimate: AtomicU64,
    pub disk_bytes_free: AtomicU64,
    pub resident_bytes: AtomicU64,
}

impl Facts {
    pub fn new(name: String, clock: Clock) -> Self {
        let unknown = || AtomicU64::new(0);
        Self { name, clock, keys_estimate: unknown(), disk_bytes_free: unknown(), resident_bytes: unknown() }
    }

    pub fn complete(&self, status: NodeStatus) -> NodeStatus {
        NodeStatus {
            name: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            uptime_s: self.clock.mono().as_secs(),
            keys_estimate: self.keys_estimate.load(Ordering::Relaxed),
            disk_bytes_free: self.disk_bytes_free.load(Ordering::Relaxed),
            resident_bytes: self.resident_bytes.load(Ordering::Relaxed),
            ..status
        }
    }
}

/// Requests for the status that some shards have not answered yet.
#[derive(Debug, Default)]
pub struct Gatherings {
    open: Mutex<BTreeMap<(SessionId, u64), Gathering>>,
}

#[derive(Debug)]
struct Gathering {
    missing: u8,
    united: NodeStatus,
}

impl Gatherings {
    pub fn begin(&self, session: SessionId, request: u64, shards: u8) {
        self.lock().insert((session, request), Gathering { missing: shards, united: NodeStatus::default() });
    }

    /// Takes one shard's answer; the node's, if it was the last.
    pub fn add(&self, session: SessionId, request: u64, part: NodeStatus) -> Option<NodeStatus> {
        let mut open = self.lock();
        let gathering = open.get_mut(&(session, request))?;
        gathering.united = unite(std::mem::take(&mut gathering.united), part);
        gathering.missing = gathering.missing.saturating_sub(1);
        if gathering.missing > 0 {
            return None;
        }
        open.remove(&(session, request)).map(|whole| whole.united)
    }

    /// Nobody waits for this one any more.
    pub fn abandon(&self, session: SessionId, request: u64) {
        self.lock().remove(&(session, request));
    }

    /// Nor for any of this session.
    pub fn abandon_all(&self, session: SessionId) {
        self.lock().retain(|(of, _), _| *of != session);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(SessionId, u64), Gathering>> {
        self.open.lock().expect("nothing panics while it unites statuses")
    }
}

/// Which state speaks for the node if its shards differ.
const STATES_BY_WEIGHT: [&str; 3] = ["draining", "rebuilding", "serving"];

fn unite(mut whole: NodeStatus, part: NodeStatus) -> NodeStatus {
    if whole.node == 0 {
        return part;
    }
    let weight = |state: &str| STATES_BY_WEIGHT.iter().position(|have| *have == state);
    if weight(&part.state) < weight(&whole.state) {
        whole.state = part.state;
    }
    for theirs in part.peers {
        match whole.peers.iter_mut().find(|ours| ours.node == theirs.node) {
            Some(ours) => {
                ours.lag_dots += theirs.lag_dots;
                ours.lag_oldest_ms = ours.lag_oldest_ms.max(theirs.lag_oldest_ms);
                ours.clock_known &= theirs.clock_known;
                ours.hints_pending += theirs.hints_pending;
                ours.hints_bytes += theirs.hints_bytes;
                ours.hints_oldest_ms = ours.hints_oldest_ms.max(theirs.hints_oldest_ms);
                ours.canary_waiting_ms = ours.canary_waiting_ms.max(theirs.canary_waiting_ms);
                if ours.silent_ms > theirs.silent_ms {
                    ours.silent_ms = theirs.silent_ms;
                    ours.state = theirs.state;
                }
            }
            None => whole.peers.push(theirs),
        }
    }
    whole.partitions_owned += part.partitions_owned;
    whole.writes += part.writes;
    whole.reads += part.reads;
    whole.replicated += part.replicated;
    whole.set_aside += part.set_aside;
    whole.read_repairs += part.read_repairs;
    whole.hints_pending += part.hints_pending;
    whole.hints_bytes += part.hints_bytes;
    whole.operations += part.operations;
    add(&mut whole.partitions_to_read, part.partitions_to_read);
    add(&mut whole.partitions_to_write, part.partitions_to_write);
    whole.log_entries += part.log_entries;
    whole.erasable += part.erasable;
    whole.copies_needed += part.copies_needed;
    whole.copies_made += part.copies_made;
    unite_repair(&mut whole.repair, part.repair);
    whole
}

fn add(whole: &mut PartitionStates, part: PartitionStates) {
    whole.all += part.all;
    whole.quorum += part.quorum;
    whole.no_quorum += part.no_quorum;
}

fn unite_repair(whole: &mut RepairStatus, part: RepairStatus) {
    whole.dots_missing = whole.dots_missing.saturating_add(part.dots_missing);
    whole.partitions_behind += part.partitions_behind;
    whole.unheard.extend(part.unheard);
    whole.unheard.sort_unstable();
    whole.unheard.dedup();
    whole.under_way += part.under_way;
    whole.dots_pulled += part.dots_pulled;
    whole.bytes_taken += part.bytes_taken;
    whole.full_syncs += part.full_syncs;
    for theirs in part.sources {
        match whole.sources.iter_mut().find(|ours| ours.node == theirs.node) {
            Some(ours) => {
                ours.partitions += theirs.partitions;
                ours.partitions_copied += theirs.partitions_copied;
            }
            None => whole.sources.push(theirs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_ring::wire::client::{PeerStatus, SourceStatus};

    fn part(state: &str, lag_dots: u64, silent_ms: u64) -> NodeStatus {
        let state_of_peer = format!("silent {silent_ms}");
        let peers = vec![PeerStatus { node: 2, state: state_of_peer, silent_ms, lag_dots, ..PeerStatus::default() }];
        let sources = vec![SourceStatus { node: 2, partitions_copied: 1, partitions: 3 }];
        let repair = RepairStatus { dots_missing: lag_dots, unheard: vec![3, 2], sources, ..RepairStatus::default() };
        let (node, state) = (1, state.to_string());
        NodeStatus { node, state, peers, writes: 5, partitions_owned: 7, repair, ..NodeStatus::default() }
    }

    #[test]
    fn the_counters_of_all_shards_are_summed() {
        let (gatherings, session) = (Gatherings::default(), SessionId(1));
        gatherings.begin(session, 9, 3);
        assert_eq!(gatherings.add(session, 9, part("serving", 1, 30)), None);
        assert_eq!(gatherings.add(session, 9, part("rebuilding", 2, 10)), None);
        let whole = gatherings.add(session, 9, part("serving", 4, 20)).unwrap();
        assert_eq!((whole.writes, whole.partitions_owned, whole.state.as_str()), (15, 21, "rebuilding"));
        assert_eq!((whole.peers[0].lag_dots, whole.peers[0].state.as_str()), (7, "silent 10"));
        assert_eq!((whole.repair.dots_missing, &whole.repair.unheard[..]), (7, &[2, 3][..]));
        assert_eq!((whole.repair.sources[0].partitions_copied, whole.repair.sources[0].partitions), (3, 9));
    }

    #[test]
    fn what_nobody_waits_for_is_dropped() {
        let (gatherings, session) = (Gatherings::default(), SessionId(1));
        gatherings.begin(session, 1, 1);
        gatherings.begin(session, 2, 1);
        gatherings.begin(SessionId(2), 1, 1);
        gatherings.abandon_all(session);
        assert_eq!(gatherings.add(session, 1, part("serving", 0, 0)), None);
        assert!(gatherings.add(SessionId(2), 1, part("serving", 0, 0)).is_some());
        assert!(gatherings.lock().is_empty());
    }
}
