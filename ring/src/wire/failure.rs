//! Why a request was not carried out, and what is known of its effect.

use crate::id::{BucketId, ClusterId, Epoch, NodeId};
use crate::topology::CountError;
use crate::version::TokenError;
use serde::{Deserialize, Serialize};

/// Nothing was written anywhere, and nothing was read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    #[error(
        "unavailable: {needed} owners are needed and {got} can be reached; retry when more nodes are up, or ask for fewer"
    )]
    Unavailable { needed: u8, got: u8 },
    #[error("this is cluster {ours}, not {yours}; check the addresses and certificates that you use")]
    WrongCluster { yours: ClusterId, ours: ClusterId },
    #[error("the request was made under epoch {yours} of the topology, here it is {ours}; fetch the topology again")]
    StaleEpoch { yours: Epoch, ours: Epoch },
    #[error("bucket number {} is not in the topology (epoch {epoch})", bucket.0)]
    UnknownBucket { bucket: BucketId, epoch: Epoch },
    #[error("a key has 1 to {limit} bytes, this one has {length}")]
    KeyLength { length: u64, limit: u64 },
    #[error("a value of this bucket has up to {limit} bytes, this one has {length}")]
    ValueLength { length: u64, limit: u64 },
    #[error(transparent)]
    Count(#[from] CountError),
    #[error(transparent)]
    Context(#[from] TokenError),
    #[error(
        "the key has {siblings} siblings, the most there may be; read them and resolve them by a put with their context"
    )]
    TooManySiblings { siblings: u32 },
    #[error(
        "the key with its siblings would have {length} bytes, over the limit of {limit}; resolve the siblings first"
    )]
    ObjectLength { length: u64, limit: u64 },
    #[error(
        "the node is rebuilding after it may have lost data, and does not answer for this key yet; ask another owner"
    )]
    NotReady,
    #[error("the node is not an owner of this key; route by the topology")]
    NotOwner,
    #[error("overloaded; retry after {retry_after_ms} ms")]
    Overloaded { retry_after_ms: u32 },
    #[error("the deadline passed before anything was written")]
    DeadlinePassed,
    #[error("the disk has less free space than its reserve: writes are refused until there is room, reads go on")]
    DiskReserve,
    #[error(
        "the hints kept for {target} have reached their limit; nothing more is kept for it until they are delivered"
    )]
    HintsFull { target: NodeId },
    #[error("the node is shutting down; ask another")]
    ShuttingDown,
    #[error("the request is not understood: {0}")]
    Malformed(String),
}

impl Refusal {
    /// Whether the same request may succeed elsewhere or later.
    pub fn worth_a_retry(&self) -> bool {
        match self {
            Refusal::Unavailable { .. }
            | Refusal::StaleEpoch { .. }
            | Refusal::NotReady
            | Refusal::NotOwner
            | Refusal::Overloaded { .. }
            | Refusal::DiskReserve
            | Refusal::HintsFull { .. }
            | Refusal::ShuttingDown => true,
            Refusal::WrongCluster { .. }
            | Refusal::UnknownBucket { .. }
            | Refusal::KeyLength { .. }
            | Refusal::ValueLength { .. }
            | Refusal::Count(_)
            | Refusal::Context(_)
            | Refusal::TooManySiblings { .. }
            | Refusal::ObjectLength { .. }
            | Refusal::DeadlinePassed
            | Refusal::Malformed(_) => false,
        }
    }
}

/// Why the outcome of a write is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Doubt {
    #[error("the deadline passed")]
    Deadline,
    #[error("too few of the other owners could write it")]
    OwnersFailed,
    #[error("the connection to the owner that coordinated it broke, or went silent")]
    LinkBroke,
    #[error("the node shut down")]
    ShutDown,
}
