//! Messages between nodes.

use super::client::{Receipt, ScanRecord, Uncertain, WriteRequest};
use super::failure::Refusal;
use super::{messages, usual};
use crate::id::{ActorId, BucketId, ClusterId, Epoch, NodeId, OpId, Partition};
use crate::topology::Durability;
use crate::version::{Clock, Context, Dot, SeqSet};
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
        /// Which events of a partition do I lack?
        6 => Pull(Pull),
        /// The objects of a partition, in the order of their keys.
        7 => Sync(SyncRequest),
        /// Keep this for an owner that I cannot reach.
        8 => StoreHint(StoreHint),
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
        72 => Pulled(Pulled),
        73 => Synced(SyncPage),
    }
}

impl PeerRequest {
    /// Bytes of all values and objects in it.
    pub fn value_bytes(&self) -> usize {
        match self {
            Self::Coordinate(coordinate) => coordinate.write.change.value_bytes(),
            Self::Replicate(replicate) => replicate.object.len(),
            Self::StoreHint(hint) => hint.replicate.object.len(),
            Self::Greet(_) | Self::Ping(_) | Self::Fetch(_) | Self::Pull(_) | Self::Sync(_) => 0,
        }
    }
}

impl PeerReply {
    /// Bytes of all values and objects in it.
    pub fn value_bytes(&self) -> usize {
        match self {
            Self::Fetched(fetched) => fetched.object.len(),
            Self::Pulled(pulled) => pulled.objects.iter().map(|pulled| pulled.object.len()).sum(),
            Self::Synced(page) => page.records.iter().map(|record| record.object.len()).sum(),
            Self::Greeted(_)
            | Self::Pong(_)
            | Self::Written(_)
            | Self::Replicated(_)
            | Self::Refused(_)
            | Self::Unknown(_) => 0,
        }
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
    /// The sender may have forgotten, and answers no reads until it has copied its partitions.
    #[serde(default)]
    pub rebuilding: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Coordinate {
    #[serde(rename = "w")]
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
    #[serde(rename = "e")]
    pub epoch: Epoch,
    #[serde(rename = "b")]
    pub bucket: BucketId,
    #[serde(rename = "k")]
    pub key: Bytes,
    /// An encoded [`crate::version::Object`].
    #[serde(rename = "ob")]
    pub object: Bytes,
    /// Events of this key that the object includes or supersedes, beside its siblings.
    #[serde(rename = "ds", default, skip_serializing_if = "usual")]
    pub dots: Vec<Dot>,
    #[serde(rename = "d")]
    pub durability: Durability,
    #[serde(rename = "p")]
    pub purpose: Purpose,
    #[serde(rename = "dl")]
    pub deadline_ms: u32,
}

/// Answered by `Replicated`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StoreHint {
    /// The owner that it is for.
    pub target: NodeId,
    pub replicate: Replicate,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Replicated {
    #[serde(rename = "d")]
    pub durability: Durability,
    #[serde(rename = "tu")]
    pub took_us: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fetch {
    #[serde(rename = "e")]
    pub epoch: Epoch,
    #[serde(rename = "b")]
    pub bucket: BucketId,
    #[serde(rename = "k")]
    pub key: Bytes,
    /// The context will do, without the values; unless the event of this op id is known here: then the whole object.
    #[serde(rename = "cf", default, skip_serializing_if = "usual")]
    pub context_for: Option<OpId>,
    #[serde(rename = "dl")]
    pub deadline_ms: u32,
    /// Of the read that this is part of.
    #[serde(rename = "id", default, skip_serializing_if = "usual")]
    pub request_id: Option<OpId>,
    /// Siblings, in order, whose values the asker has: the answer may leave these empty. Not heeded beside `context_for`.
    #[serde(rename = "h", default, skip_serializing_if = "usual")]
    pub held: Vec<Dot>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fetched {
    /// An encoded [`crate::version::Object`]; of an absent key one without siblings, whose context is the base of the
    /// replica's clock. Values of siblings that were said to be held may be left empty.
    #[serde(rename = "ob")]
    pub object: Bytes,
    #[serde(rename = "tu")]
    pub took_us: u64,
}

/// Anti-entropy by clock: the answer names, from the log, the keys of the dots that `clock` lacks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Pull {
    pub epoch: Epoch,
    pub partition: Partition,
    /// What the asker has seen.
    pub clock: Clock,
    /// About how many bytes of objects to send; at least one object is sent.
    pub bytes_max: u32,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Pulled {
    pub partition: Partition,
    pub objects: Vec<PulledObject>,
    /// Some of what the asker lacks lies below the floor of the answerer's log: it needs a full sync.
    pub below_floor: bool,
    /// There is more.
    pub more: bool,
}

/// A key as it is now, and the dots of the asker's gap that this includes or supersedes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PulledObject {
    pub bucket: BucketId,
    pub key: Bytes,
    /// An encoded [`crate::version::Object`]; of an absent key one whose context is the base of the answerer's clock.
    pub object: Bytes,
    pub dots: Vec<Dot>,
}

/// One page of a full sync.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SyncRequest {
    pub epoch: Epoch,
    pub partition: Partition,
    /// Go on behind this record.
    pub after: Option<(BucketId, Bytes)>,
    /// About how many bytes of objects to send; at least one is sent.
    pub bytes_max: u32,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SyncPage {
    pub partition: Partition,
    pub actor: ActorId,
    /// The base of the source's clock when the page was read. The asker keeps that of the first page.
    pub base: Context,
    /// In the order of (bucket, key).
    pub records: Vec<ScanRecord>,
    /// Nothing follows the last record.
    pub done: bool,
}
