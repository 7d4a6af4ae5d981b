//! Placement: which nodes own a key. Worked out once per epoch into a table; the hot path is an array look-up.
//!
//! `hashring` orders the candidates of a partition. They are taken under a bounded load (Mirrokni, Thorup,
//! Zadimoghaddam 2016, "Consistent Hashing with Bounded Loads"), distinct racks first. Where the walk gets stuck
//! (every candidate is full), owners are exchanged with other partitions along a shortest path of exchanges.

mod assign;
mod walk;

use crate::id::{BucketId, Epoch, NodeId, Partition};
use crate::topology::{Bucket, Topology};
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// Why a valid topology cannot be placed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    #[error(
        "{} and {} have the same token {token:016x} on the hash ring; change the id of one of them", nodes.0, nodes.1
    )]
    TokenCollision { nodes: (NodeId, NodeId), token: u64 },
}

/// The nodes of a partition: its `n` owners first, then the fallbacks, all distinct, in the order of the walk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PreferenceList {
    nodes: Vec<NodeId>,
    n: usize,
}

impl PreferenceList {
    pub fn owners(&self) -> &[NodeId] {
        &self.nodes[..self.n]
    }

    pub fn fallbacks(&self) -> &[NodeId] {
        &self.nodes[self.n..]
    }

    pub fn is_owner(&self, node: NodeId) -> bool {
        self.owners().contains(&node)
    }
}

/// A topology and its placement, shared by all that route.
#[derive(Clone, Debug)]
pub struct Layout {
    topology: Arc<Topology>,
    /// Per `n` in use: a preference list for each partition.
    tables: Vec<(u8, Vec<PreferenceList>)>,
}

/// How evenly and how far apart the copies lie, for people.
#[derive(Clone, PartialEq, Debug)]
pub struct PlacementReport {
    pub n: u8,
    /// Partitions owned, per node in the order of the topology.
    pub owned: Vec<(NodeId, u32)>,
    /// Busiest node over mean, by weight: 1.0 is even.
    pub imbalance: f64,
    /// Partitions two of whose owners share a rack.
    pub rack_shared: u32,
}

impl Layout {
    pub fn new(topology: Arc<Topology>) -> Result<Self, PlacementError> {
        let orders = walk::orders(&topology)?;
        let table = |n: u8| (n, assign::assign(&topology, &orders, n));
        let tables = topology.ns().into_iter().map(table).collect();
        Ok(Self { topology, tables })
    }

    pub fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }

    pub fn epoch(&self) -> Epoch {
        self.topology.epoch
    }

    /// The partition of a key: the top bits of XXH3-64 over bucket, 0x00, key.
    pub fn partition(&self, bucket: &Bucket, key: &[u8]) -> Partition {
        let bits = self.topology.partitions.trailing_zeros();
        let hash = key_hash(bucket.id, key);
        let index = if bits == 0 { 0 } else { (hash >> (64 - bits)) as u16 };
        Partition { n: bucket.n, index }
    }

    /// The nodes of a partition; none if no bucket has this `n`, or there is no such partition.
    pub fn preference(&self, partition: Partition) -> Option<&PreferenceList> {
        let (_, table) = self.tables.iter().find(|(n, _)| *n == partition.n)?;
        table.get(usize::from(partition.index))
    }

    /// Every partition, of every `n` in use.
    pub fn partitions(&self) -> impl Iterator<Item = (Partition, &PreferenceList)> {
        self.tables.iter().flat_map(|(n, table)| {
            table.iter().enumerate().map(|(index, list)| (Partition { n: *n, index: index as u16 }, list))
        })
    }

    pub fn report(&self, n: u8) -> Option<PlacementReport> {
        let (_, table) = self.tables.iter().find(|(have, _)| *have == n)?;
        let nodes = &self.topology.nodes;
        let owned: Vec<(NodeId, u32)> =
            nodes.iter().map(|node| (node.id, table.iter().filter(|l| l.is_owner(node.id)).count() as u32)).collect();
        let weights: u32 = nodes.iter().map(|node| node.weight).sum();
        let per_weight = f64::from(u32::from(n) * table.len() as u32) / f64::from(weights);
        let load = |(node, (_, owned)): (&crate::topology::Node, &(NodeId, u32))| {
            f64::from(*owned) / (per_weight * f64::from(node.weight))
        };
        let imbalance = nodes.iter().zip(&owned).map(load).fold(0.0, f64::max);
        let rack = |id: &NodeId| self.topology.node(*id).map(|node| node.rack.as_str());
        let shared = |list: &&PreferenceList| {
            let mut racks: Vec<_> = list.owners().iter().map(rack).collect();
            racks.sort_unstable();
            racks.windows(2).any(|pair| pair[0] == pair[1])
        };
        let rack_shared = table.iter().filter(shared).count() as u32;
        Some(PlacementReport { n, owned, imbalance, rack_shared })
    }
}

/// XXH3-64 of (bucket id in big-endian, 0x00, key). Fixed for ever: it decides where data lies.
pub fn key_hash(bucket: BucketId, key: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&bucket.0.to_be_bytes());
    hash.update(&[0]);
    hash.update(key);
    hash.digest()
}

#[cfg(test)]
#[path = "placement/tests.rs"]
mod tests;
