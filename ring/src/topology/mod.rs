//! The topology: an immutable, numbered document of nodes and buckets, parsed once into a validated type.

mod document;

pub use document::TopologyError;

use crate::id::{BucketId, ClusterId, Epoch, NodeId};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Keys are 1 to 4,096 bytes.
pub const KEY_BYTES_MAX: usize = 4 * 1024;
/// Values are up to this unless the bucket says otherwise.
pub const VALUE_BYTES_DEFAULT: usize = 1024 * 1024;
/// What a bucket may raise the limit of its values to.
pub const VALUE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Copies of a key at the most.
pub const N_MAX: u8 = 15;
/// Tokens on the hash ring for each unit of a node's weight.
pub const TOKENS_PER_WEIGHT: u32 = 128;

/// The cluster at one epoch. Every field was checked; see `TopologyError` for what is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Topology {
    pub cluster: ClusterId,
    pub epoch: Epoch,
    /// Q: how many partitions, a power of two, 1 to 32,768; fixed for the life of the cluster.
    pub partitions: u16,
    /// In the order of their ids; at least as many as the greatest `n`.
    pub nodes: Vec<Node>,
    /// In the order of their ids; at least one.
    pub buckets: Vec<Bucket>,
    /// The text it was parsed from.
    source: String,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    pub id: NodeId,
    pub name: String,
    /// Where clients reach it (UDP).
    pub client_address: SocketAddr,
    /// Where other nodes reach it (UDP).
    pub peer_address: SocketAddr,
    pub rack: String,
    /// Share of the data in proportion to the other nodes, 1 to 64.
    pub weight: u32,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bucket {
    pub id: BucketId,
    pub name: String,
    /// Copies of each key, 1 to `N_MAX`.
    pub n: u8,
    /// Owners a read waits for, unless the request says otherwise: 1 to `n`.
    pub r: u8,
    /// Owners a write waits for, unless the request says otherwise: 1 to `n`.
    pub w: u8,
    pub conflict: Conflict,
    pub quorum: QuorumKind,
    pub durability: Durability,
    /// 1 to `VALUE_BYTES_MAX`.
    pub value_bytes_max: usize,
}

/// How a bucket answers when writes were concurrent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Conflict {
    /// Reads show all of them, and the client resolves.
    Siblings,
    /// Last write wins: reads show the one with the greatest (HLC, dot), and count the others.
    Lww,
}

/// Who may count toward W.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QuorumKind {
    /// Owners only.
    Strict,
    /// For an unreachable owner also a fallback that keeps a durable hint.
    Sloppy,
}

/// What an ack means.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Written to the log of the database, not yet fsynced: survives a crash of the process, not of the machine.
    Async,
    /// Fsynced.
    Sync,
}

/// How many owners a request waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Count {
    One,
    /// More than half of the bucket's `n`.
    Quorum,
    All,
    Exactly(u8),
}

/// A request asks for more owners than the bucket has, or for none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
#[error("{asked} owners were asked for, but each key of this bucket has {n}; ask for 1 to {n}")]
pub struct CountError {
    pub asked: u8,
    pub n: u8,
}

impl Count {
    pub fn of(self, n: u8) -> Result<u8, CountError> {
        match self {
            Count::One => Ok(1),
            Count::Quorum => Ok(n / 2 + 1),
            Count::All => Ok(n),
            Count::Exactly(asked) if (1..=n).contains(&asked) => Ok(asked),
            Count::Exactly(asked) => Err(CountError { asked, n }),
        }
    }
}

impl std::str::FromStr for Count {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "one" => Ok(Count::One),
            "quorum" => Ok(Count::Quorum),
            "all" => Ok(Count::All),
            _ => text
                .parse()
                .map(Count::Exactly)
                .map_err(|_| format!("expected one, quorum, all or a number of owners, got {text:?}")),
        }
    }
}

impl Topology {
    /// Parses and checks a topology file (TOML).
    pub fn parse(text: &str) -> Result<Self, TopologyError> {
        document::parse(text)
    }

    /// The text that this was parsed from, which is how topologies travel.
    pub fn source(&self) -> &str {
        &self.source
    }

    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.binary_search_by_key(&id, |n| n.id).ok().map(|i| &self.nodes[i])
    }

    pub fn node_named(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|n| n.name == name)
    }

    pub fn bucket(&self, id: BucketId) -> Option<&Bucket> {
        self.buckets.binary_search_by_key(&id, |b| b.id).ok().map(|i| &self.buckets[i])
    }

    pub fn bucket_named(&self, name: &str) -> Option<&Bucket> {
        self.buckets.iter().find(|b| b.name == name)
    }

    /// Every `n` in use, ascending.
    pub fn ns(&self) -> Vec<u8> {
        let mut ns: Vec<u8> = self.buckets.iter().map(|b| b.n).collect();
        ns.sort_unstable();
        ns.dedup();
        ns
    }
}
