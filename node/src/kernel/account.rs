//! A shard's account of itself: the status, and through it most of the metrics.

use super::{Kernel, Now, shard_of};
use crate::replica::Replica;
use crate::storage::Storage;
use quorate_ring::id::{NodeId, Partition};
use quorate_ring::version::Clock;
use quorate_ring::wire::client::{NodeStatus, PartitionStates, PeerStatus};
use std::time::Duration;

impl<S: Storage> Kernel<S> {
    /// What is said of repair may be about one partition only.
    pub(super) fn status(&self, now: Now, repair_of: Option<Partition>) -> NodeStatus {
        let state = if self.draining {
            "draining"
        } else if self.config.rebuilding {
            "rebuilding"
        } else {
            "serving"
        };
        let (partitions_to_read, partitions_to_write) = self.partition_states(now);
        NodeStatus {
            node: self.config.node.0,
            epoch: self.layout.epoch().0,
            state: state.to_string(),
            peers: self.liveness.peers().map(|peer| self.peer_status(now, peer)).collect(),
            partitions_owned: self.replicas.len() as u32,
            writes: self.counters.writes,
            reads: self.counters.reads,
            replicated: self.counters.replicated,
            set_aside: self.counters.set_aside,
            read_repairs: self.counters.read_repairs,
            hints_pending: self.hints.pending(),
            hints_bytes: self.hints.bytes(),
            operations: self.operations.len() as u64,
            partitions_to_read,
            partitions_to_write,
            log_entries: self.replicas.values().map(log_entries).sum(),
            erasable: self.replicas.values().map(|replica| replica.erasable.len() as u64).sum(),
            copies_needed: if self.config.rebuilding { self.copies_needed() } else { 0 },
            copies_made: if self.config.rebuilding { self.copies_made() } else { 0 },
            repair: self.repair_status(repair_of),
            ..NodeStatus::default()
        }
    }

    fn peer_status(&self, now: Now, peer: NodeId) -> PeerStatus {
        let (lag_dots, since) = self.lag(peer);
        let hints = self.hints.kept_for(peer);
        let ms = |since: Option<Duration>| since.map_or(0, |since| now.mono.saturating_sub(since).as_millis() as u64);
        PeerStatus {
            node: peer.0,
            state: self.liveness.state(peer, now.mono).name().to_string(),
            silent_ms: self.liveness.silence(peer, now.mono).map_or(u64::MAX, |d| d.as_millis() as u64),
            lag_dots,
            lag_oldest_ms: ms(since),
            clock_known: self.clocks.told_by(peer),
            hints_pending: hints.rows,
            hints_bytes: hints.bytes,
            hints_oldest_ms: hints.oldest_s.map_or(0, |second| now.wall_ms.saturating_sub(second * 1000)),
            canary_waiting_ms: ms(self.canary.waiting_since(peer)),
        }
    }

    /// How many dots of ours a peer lacks, over all partitions that both own, and since when it lacks the oldest of
    /// them. As of what it last told: 0 before it told anything.
    fn lag(&self, peer: NodeId) -> (u64, Option<Duration>) {
        let none = Clock::new();
        let (mut dots, mut oldest) = (0u64, None);
        if !self.clocks.told_by(peer) {
            return (dots, oldest);
        }
        for (partition, replica) in &self.replicas {
            if !self.layout.preference(*partition).is_some_and(|list| list.is_owner(peer)) {
                continue;
            }
            let theirs = self.clocks.heard(peer, *partition).unwrap_or(&none);
            for (actor, first, last) in replica.clock().missing_in(theirs) {
                dots = dots.saturating_add(last - first + 1);
                let since = self.ages.since(peer, *partition, actor, first);
                oldest = [oldest, since].into_iter().flatten().min();
            }
        }
        (dots, oldest)
    }

    /// Of this shard's partitions, whether this node owns them or not: how many of their owners may answer a read, and
    /// how many may take a write.
    fn partition_states(&self, now: Now) -> (PartitionStates, PartitionStates) {
        let me = self.config.node;
        let takes = |owner: &NodeId| match *owner == me {
            true => !self.draining,
            false => self.liveness.reachable(*owner, now.mono),
        };
        let remembers = |owner: &NodeId| match *owner == me {
            true => !self.config.rebuilding,
            false => !self.clocks.is_rebuilding(*owner),
        };
        let (mut to_read, mut to_write) = (PartitionStates::default(), PartitionStates::default());
        for (partition, list) in self.layout.partitions() {
            if shard_of(partition, self.config.shards) != self.config.shard {
                continue;
            }
            let owners = list.owners();
            let writers = owners.iter().filter(|owner| takes(owner)).count();
            let readers = owners.iter().filter(|owner| takes(owner) && remembers(owner)).count();
            count(&mut to_read, readers, owners.len());
            // A write needs a coordinator that has not forgotten.
            count(&mut to_write, if readers == 0 { 0 } else { writers }, owners.len());
        }
        (to_read, to_write)
    }

    fn copies_made(&self) -> u64 {
        self.replicas.values().map(|replica| replica.copied.len() as u64).sum()
    }

    fn copies_needed(&self) -> u64 {
        let others = |owners: &[NodeId]| owners.iter().filter(|owner| **owner != self.config.node).count() as u64;
        self.replicas.keys().filter_map(|p| self.layout.preference(*p)).map(|list| others(list.owners())).sum()
    }
}

fn count(states: &mut PartitionStates, reachable: usize, owners: usize) {
    if reachable == owners {
        states.all += 1;
    } else if reachable > owners / 2 {
        states.quorum += 1;
    } else {
        states.no_quorum += 1;
    }
}

/// Dots of the clock above the floor: those that the log has.
fn log_entries(replica: &Replica) -> u64 {
    let above =
        |(actor, seqs): (_, &quorate_ring::version::SeqSet)| seqs.count().saturating_sub(replica.floor().seq(actor));
    replica.clock().iter().map(above).sum()
}
