//! Anti-entropy of a shard: when to pull, from whom to sync, at what pace, and how far it has come.

use super::exchange::Exchange;
use super::pace::Pace;
use super::{Effect, Kernel, Now};
use crate::storage::{Storage, StorageError};
use quorate_ring::id::{NodeId, Partition};
use quorate_ring::wire::client::{RepairStatus, SourceStatus};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Pulls and syncs under way at one time: their credits. Each has one page of objects under way.
const UNDER_WAY_MAX: usize = 4;
/// A dot that a peer has and we lack is usually on its way. After this long it is asked for.
const PULL_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Repair {
    /// Peers that have dots that we lack, and since when, or when they were last asked for them.
    behind: BTreeMap<(NodeId, Partition), Duration>,
    /// Peers whose log was cut above what we have.
    pub(super) to_sync: BTreeSet<(NodeId, Partition)>,
    pub(super) under_way: BTreeSet<(NodeId, Partition)>,
    /// When a rebuilding node last began to copy, from whom: one that does not answer comes last the next time.
    tried: BTreeMap<(NodeId, Partition), Duration>,
    /// Of those under way, the ones whose next page waits until more bytes may be moved.
    pub(super) paused: VecDeque<(NodeId, Partition, Exchange)>,
    pub(super) pace: Pace,
    /// Where the collection goes on when its timer fires.
    pub(super) collect_from: Option<Partition>,
    /// When the next collection may begin.
    pub(super) collect_after: Duration,
    /// Since the start.
    pub(super) dots_pulled: u64,
    pub(super) bytes_taken: u64,
    pub(super) full_syncs: u64,
}

impl Repair {
    /// At the most so many bytes a second; 0 for no limit.
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self {
            behind: BTreeMap::new(),
            to_sync: BTreeSet::new(),
            under_way: BTreeSet::new(),
            tried: BTreeMap::new(),
            paused: VecDeque::new(),
            pace: Pace::new(bytes_per_second),
            collect_from: None,
            collect_after: Duration::ZERO,
            dots_pulled: 0,
            bytes_taken: 0,
            full_syncs: 0,
        }
    }

    /// Nothing is missing, as far as is known, and nothing under way.
    pub(super) fn is_idle(&self) -> bool {
        self.behind.is_empty() && self.under_way.is_empty()
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
        self.unpause(now, effects);
        if self.config.rebuilding {
            self.rebuild(now, effects);
            return Ok(());
        }
        self.ask_what_is_due(now, effects);
        self.collect_tick(now, effects)
    }

    /// Somebody asks for repair now: what is missing is not waited for any longer, but asked for.
    pub(super) fn repair_at_once(
        &mut self,
        now: Now,
        only: Option<Partition>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), StorageError> {
        if self.forgotten {
            return Ok(());
        }
        let due = now.mono.saturating_sub(PULL_AFTER);
        let asked = |partition: Partition| only.is_none_or(|only| only == partition);
        for since in self.repair.behind.iter_mut().filter(|((_, p), _)| asked(*p)).map(|(_, since)| since) {
            *since = (*since).min(due);
        }
        if self.config.rebuilding {
            self.rebuild(now, effects);
        } else {
            self.ask_what_is_due(now, effects);
        }
        self.hand_off(now, effects)
    }

    /// Asks peers for what they have and we lack, those first that were not asked for the longest time: one that has
    /// nothing to give, or does not answer, keeps nobody else waiting for ever.
    pub(super) fn ask_what_is_due(&mut self, now: Now, effects: &mut Vec<Effect>) {
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
    /// again: two wiped nodes must not wait for each other. One that an operator has excused is not waited for; it is
    /// copied all the same if it answers.
    pub(super) fn rebuild(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let excused = |peer: &NodeId| self.config.excused.contains(peer) && !self.liveness.reachable(*peer, now.mono);
        let mut left: Vec<(NodeId, Partition)> = self.uncopied().filter(|(peer, _)| !excused(peer)).collect();
        left.sort_by_key(|pair| (self.repair.tried.get(pair).copied(), *pair));
        if left.is_empty() {
            self.config.rebuilding = false;
            effects.push(Effect::Joined);
        }
        for (peer, partition) in left {
            if self.repair.under_way.len() >= UNDER_WAY_MAX {
                break;
            }
            if self.repair.under_way.contains(&(peer, partition)) {
                continue;
            }
            self.repair.tried.insert((peer, partition), now.mono);
            self.exchange(now, peer, partition, Exchange::Sync, effects);
        }
    }

    /// What a rebuilding node has yet to copy, and from whom.
    fn uncopied(&self) -> impl Iterator<Item = (NodeId, Partition)> {
        self.replicas.iter().flat_map(move |(partition, replica)| {
            let others = self.other_owners(*partition).filter(move |owner| !replica.has_copied(*owner));
            others.map(move |owner| (owner, *partition))
        })
    }

    pub(super) fn other_owners(&self, partition: Partition) -> impl Iterator<Item = NodeId> {
        let owners = self.layout.preference(partition).map_or(&[][..], |list| list.owners());
        owners.iter().copied().filter(move |owner| *owner != self.config.node)
    }

    /// How far repair has come: of all partitions, or of one.
    pub(super) fn repair_status(&self, only: Option<Partition>) -> RepairStatus {
        let mut status = RepairStatus {
            under_way: self.repair.under_way.len() as u32,
            dots_pulled: self.repair.dots_pulled,
            bytes_taken: self.repair.bytes_taken,
            full_syncs: self.repair.full_syncs,
            ..RepairStatus::default()
        };
        let mut sources: BTreeMap<NodeId, SourceStatus> = BTreeMap::new();
        for (partition, replica) in self.replicas.iter().filter(|(p, _)| only.is_none_or(|only| only == **p)) {
            let owners = self.layout.preference(*partition).map_or(&[][..], |list| list.owners());
            let missing = self.clocks.missing(self.config.node, owners, *partition, replica.clock());
            status.dots_missing = status.dots_missing.saturating_add(missing);
            status.partitions_behind += u32::from(missing > 0);
            for owner in self.other_owners(*partition) {
                let source =
                    sources.entry(owner).or_insert_with(|| SourceStatus { node: owner.0, ..Default::default() });
                source.partitions += 1;
                source.partitions_copied += u32::from(replica.has_copied(owner));
            }
        }
        status.unheard = sources.keys().filter(|node| !self.clocks.has_told_all(**node)).map(|node| node.0).collect();
        if self.config.rebuilding {
            status.sources = sources.into_values().collect();
        }
        status
    }
}
