//! The order in which the hash ring names the nodes, from the point of each partition.
//!
//! Facts about hashring 0.3.6 that shape this file: the hash of a node is whatever its `Hash` feeds the hasher, so
//! tokens are written as one u64 through an identity hasher; `get_with_replicas` clones the whole ring and may repeat
//! a machine, so successors are found by `get(token + 1)`.

use super::PlacementError;
use crate::id::NodeId;
use crate::topology::{TOKENS_PER_WEIGHT, Topology};
use hashring::HashRing;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hash, Hasher};
use xxhash_rust::xxh3::xxh3_64;

/// A place on the ring, of a node or of a look-up.
struct Point {
    token: u64,
    node: NodeId,
}

impl Hash for Point {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.token);
    }
}

/// Passes tokens on as they are.
#[derive(Clone)]
struct Identity;

struct Token(u64);

impl Hasher for Token {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("points write exactly one u64");
    }

    fn write_u64(&mut self, token: u64) {
        self.0 = token;
    }
}

impl BuildHasher for Identity {
    type Hasher = Token;
    fn build_hasher(&self) -> Token {
        Token(0)
    }
}

/// The `i`-th token of a node: XXH3-64 of the id and the number, byte by byte.
pub(super) fn token(node: NodeId, i: u32) -> u64 {
    let mut bytes = [0; 6];
    bytes[..2].copy_from_slice(&node.0.to_be_bytes());
    bytes[2..].copy_from_slice(&i.to_be_bytes());
    xxh3_64(&bytes)
}

/// The point of a partition: the first hash that lies in it.
pub(super) fn point(index: u16, partitions: u16) -> u64 {
    let bits = partitions.trailing_zeros();
    if bits == 0 { 0 } else { u64::from(index) << (64 - bits) }
}

/// Per partition, every node of the topology in the order of the walk.
pub(super) fn orders(topology: &Topology) -> Result<Vec<Vec<NodeId>>, PlacementError> {
    let mut tokens: BTreeMap<u64, NodeId> = BTreeMap::new();
    for node in &topology.nodes {
        for i in 0..node.weight * TOKENS_PER_WEIGHT {
            let token = token(node.id, i);
            if let Some(other) = tokens.insert(token, node.id) {
                return Err(PlacementError::TokenCollision { nodes: (other, node.id), token });
            }
        }
    }
    let mut ring = HashRing::with_hasher(Identity);
    ring.batch_add(tokens.into_iter().map(|(token, node)| Point { token, node }).collect());
    Ok((0..topology.partitions).map(|p| order(&ring, point(p, topology.partitions), topology.nodes.len())).collect())
}

fn order(ring: &HashRing<Point, Identity>, from: u64, nodes: usize) -> Vec<NodeId> {
    let mut order: Vec<NodeId> = Vec::with_capacity(nodes);
    let mut at = from;
    while order.len() < nodes {
        let next = ring.get(&Point { token: at, node: NodeId(0) }).expect("a topology has at least one node");
        if !order.contains(&next.node) {
            order.push(next.node);
        }
        at = next.token.wrapping_add(1);
    }
    order
}
