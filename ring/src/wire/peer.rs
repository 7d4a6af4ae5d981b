//! Messages between nodes.

use super::client::{Receipt, Uncertain, WriteRequest};
use super::failure::Refusal;
use super::messages;
use crate::id::{ActorId, BucketId, ClusterId, Epoch, OpId, Partition};
use crate::topology::Durability;
use crate::version::{Dot, SeqSet};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

messages! {
    /// What a node asks of another.
    PeerRequest {
        /// The first on a link: who I am, and what I remember of myself.
        1 => Greet(Greet),
        2 => Ping(Ping),
        /// A gateway that is no owner hands a write to one.
        3 => Coordinate(Coordinate),
        /// Merge this object into your replica.
        4 => Replicate(Replicate),
        /// What do you hold of this key?
        5 => Fetch(Fetch),
    }
}

messages! {
    /// What it answers.
    PeerReply {
        65 => Greeted(Greeted),
        66 => Pong(Pong),
        67 => Written(Receipt),
        68 => Replicated(Replicated),
        69 => Fetched(Fetched),
        /// Nothing was written, nothing read.
        70 => Refused(Refusal),
        71 => Unknown(Uncertain),
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Greet {
    pub minor: u16,
    pub cluster: ClusterId,
    pub epoch: Epoch,
    pub actor: ActorId,
    pub wall_ms: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Greeted {
    pub minor: u16,
    pub epoch: Epoch,
    pub actor: ActorId,
    pub wall_ms: u64,
    /// Per partition the greatest seq of the asker's actor that the answerer has seen: a node that remembers less of
    /// itself than its peers do has forgotten.
    pub known: Vec<(Partition, u64)>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ping {
    pub number: u64,
    pub wall_ms: u64,
    /// Parts of the sender's clocks that changed since the receiver last acknowledged them.
    pub clocks: Vec<ClockNews>,
}

/// What a replica has seen of one actor; replaces whatever was said before.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClockNews {
    pub partition: Partition,
    pub actor: ActorId,
    pub seqs: SeqSet,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Pong {
    pub number: u64,
    pub wall_ms: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Coordinate {
    pub write: WriteRequest,
}

/// Why an object is sent: in which order it is served, and how it is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    Write,
    ReadRepair,
    Handoff,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Replicate {
    pub epoch: Epoch,
    pub bucket: BucketId,
    pub key: Bytes,
    /// An encoded [`crate::version::Object`].
    pub object: Bytes,
    /// Events of this key that the object includes or supersedes, beside its siblings.
    pub dots: Vec<Dot>,
    pub durability: Durability,
    pub purpose: Purpose,
    pub deadline_ms: u32,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Replicated {
    pub durability: Durability,
    pub took_us: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fetch {
    pub epoch: Epoch,
    pub bucket: BucketId,
    pub key: Bytes,
    /// The context will do, without the values; unless the event of this op id is known here: then the whole object.
    pub context_for: Option<OpId>,
    pub deadline_ms: u32,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fetched {
    /// An encoded [`crate::version::Object`]; of an absent key one without siblings, whose context is the base of the
    /// replica's clock.
    pub object: Bytes,
    pub took_us: u64,
}
