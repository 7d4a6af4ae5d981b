//! Messages between a client and the node that it talks to, its gateway.

use super::failure::{Doubt, Refusal};
use super::{messages, usual};
use crate::id::{ActorId, BucketId, ClusterId, Epoch, NodeId, OpId, Partition};
use crate::topology::{Count, Durability, QuorumKind};
use crate::version::{ContextToken, Dot, Hlc};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

messages! {
    /// What a client asks.
    ClientRequest {
        /// Always the first on a connection.
        1 => Hello(Hello),
        2 => Write(WriteRequest),
        3 => Read(ReadRequest),
        /// One page of what this very node holds of a partition.
        4 => Scan(ScanRequest),
        5 => Status(StatusRequest),
        /// The request with this id is of no interest any more; it may still take effect. Not answered.
        6 => Cancel(Cancel),
        /// One page of the log that this very node keeps of a partition.
        7 => Log(LogRequest),
        /// Pull and copy what is missing at once; answered by `Status`.
        8 => Repair(RepairRequest),
    }
}

messages! {
    /// What a node answers. Every request but `Cancel` gets exactly one answer, unless the connection breaks.
    ClientReply {
        65 => Hello(HelloReply),
        66 => Written(Receipt),
        67 => Read(ReadAnswer),
        68 => Page(ScanPage),
        69 => Status(Box<NodeStatus>),
        /// Nothing was written, nothing read.
        70 => Refused(Refusal),
        /// A write that may have taken effect, or may yet.
        71 => Unknown(Uncertain),
        72 => LogPage(LogPage),
    }
}

impl ClientRequest {
    /// Bytes of all values and objects in it.
    pub fn value_bytes(&self) -> usize {
        match self {
            Self::Write(write) => write.change.value_bytes(),
            Self::Hello(_)
            | Self::Read(_)
            | Self::Scan(_)
            | Self::Status(_)
            | Self::Cancel(_)
            | Self::Log(_)
            | Self::Repair(_) => 0,
        }
    }
}

impl ClientReply {
    /// Bytes of all values and objects in it.
    pub fn value_bytes(&self) -> usize {
        match self {
            Self::Read(answer) => answer.siblings.iter().map(|sibling| sibling.value.len()).sum(),
            Self::Page(page) => page.records.iter().map(|record| record.object.len()).sum(),
            Self::Hello(_)
            | Self::Written(_)
            | Self::Status(_)
            | Self::Refused(_)
            | Self::Unknown(_)
            | Self::LogPage(_) => 0,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    pub minor: u16,
    /// If the client knows which cluster it means.
    pub cluster: Option<ClusterId>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HelloReply {
    pub minor: u16,
    pub node: NodeId,
    pub cluster: ClusterId,
    pub epoch: Epoch,
    /// The topology file, from which the client works out the placement.
    pub topology: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Change {
    Put {
        #[serde(rename = "v")]
        value: Bytes,
        /// Milliseconds since 1970.
        #[serde(rename = "ex", default, skip_serializing_if = "usual")]
        expires_ms: Option<u64>,
    },
    Delete,
}

impl Change {
    /// Of the value that is to be put.
    pub(super) fn value_bytes(&self) -> usize {
        match self {
            Self::Put { value, .. } => value.len(),
            Self::Delete => 0,
        }
    }
}

/// What a write supersedes, stated by the client.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Supersede {
    /// Exactly what the context covers.
    Seen(ContextToken),
    /// All that was acknowledged before the write began; costs a trip to R owners.
    Latest,
    /// What the coordinator holds at that moment.
    Local,
    Nothing,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WriteRequest {
    #[serde(rename = "e")]
    pub epoch: Epoch,
    #[serde(rename = "b")]
    pub bucket: BucketId,
    #[serde(rename = "k")]
    pub key: Bytes,
    #[serde(rename = "c")]
    pub change: Change,
    #[serde(rename = "s")]
    pub supersede: Supersede,
    #[serde(rename = "o")]
    pub op_id: OpId,
    /// The newest timestamp that the client has seen.
    #[serde(rename = "h")]
    pub hlc: Hlc,
    /// Defaults of the bucket where none is given.
    #[serde(default, skip_serializing_if = "usual")]
    pub r: Option<Count>,
    #[serde(default, skip_serializing_if = "usual")]
    pub w: Option<Count>,
    #[serde(rename = "q", default, skip_serializing_if = "usual")]
    pub quorum: Option<QuorumKind>,
    #[serde(rename = "d", default, skip_serializing_if = "usual")]
    pub durability: Option<Durability>,
    /// Time left, from when the message arrives.
    #[serde(rename = "dl")]
    pub deadline_ms: u32,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReadRequest {
    #[serde(rename = "e")]
    pub epoch: Epoch,
    #[serde(rename = "b")]
    pub bucket: BucketId,
    #[serde(rename = "k")]
    pub key: Bytes,
    #[serde(default, skip_serializing_if = "usual")]
    pub r: Option<Count>,
    #[serde(rename = "q", default, skip_serializing_if = "usual")]
    pub quorum: Option<QuorumKind>,
    /// Wait until W owners hold what the read found.
    #[serde(rename = "br", default, skip_serializing_if = "usual")]
    pub blocking_repair: bool,
    #[serde(rename = "dl")]
    pub deadline_ms: u32,
    /// Chosen by whoever asks, and logged by every node that takes part.
    #[serde(rename = "id", default, skip_serializing_if = "usual")]
    pub request_id: Option<OpId>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    Owner,
    /// Keeps a hint for an owner that could not be reached.
    Fallback {
        target: NodeId,
    },
}

/// One node that holds the write. Times are microseconds since the coordinator began.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ack {
    #[serde(rename = "n")]
    pub node: NodeId,
    #[serde(rename = "st")]
    pub standing: Standing,
    #[serde(rename = "d")]
    pub durability: Durability,
    #[serde(rename = "su")]
    pub sent_us: u64,
    #[serde(rename = "au")]
    pub acked_us: u64,
    /// How long the node itself took, from taking the message up to its commit.
    #[serde(rename = "tu")]
    pub took_us: u64,
}

/// A write that was applied: by whom, how durably, under which epoch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Receipt {
    #[serde(rename = "e")]
    pub epoch: Epoch,
    #[serde(rename = "co")]
    pub coordinator: NodeId,
    #[serde(rename = "dt")]
    pub dot: Dot,
    #[serde(rename = "h")]
    pub hlc: Hlc,
    /// How many acks were waited for.
    #[serde(rename = "ne")]
    pub needed: u8,
    /// Those that had come in, the coordinator's own first.
    #[serde(rename = "a")]
    pub acks: Vec<Ack>,
    /// What the coordinator knows of the key after the write.
    #[serde(rename = "cx")]
    pub context: ContextToken,
    /// Siblings that the key has now, at the coordinator.
    #[serde(rename = "si")]
    pub siblings: u32,
    /// The coordinator knew this op id already: a retry; nothing new was minted.
    #[serde(rename = "re", default, skip_serializing_if = "usual")]
    pub repeated: bool,
}

/// A write of which it is not known whether it took effect.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Uncertain {
    pub doubt: Doubt,
    pub needed: u8,
    pub acks: Vec<Ack>,
}

/// One owner's part in a read. Times are microseconds since the gateway began.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Answered {
    #[serde(rename = "n")]
    pub node: NodeId,
    #[serde(rename = "su")]
    pub sent_us: u64,
    #[serde(rename = "au")]
    pub answered_us: u64,
    #[serde(rename = "tu")]
    pub took_us: u64,
    #[serde(rename = "si")]
    pub siblings: u32,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Sibling {
    #[serde(rename = "v")]
    pub value: Bytes,
    #[serde(rename = "dt")]
    pub dot: Dot,
    #[serde(rename = "h")]
    pub hlc: Hlc,
    #[serde(rename = "ex", default, skip_serializing_if = "usual")]
    pub expires_ms: Option<u64>,
    #[serde(rename = "o")]
    pub op_id: OpId,
}

/// What `answered` owners hold of a key, united.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReadAnswer {
    #[serde(rename = "e")]
    pub epoch: Epoch,
    /// None: there is no such key. More than one: concurrent writes, for the client to resolve. One at most in an lww
    /// bucket.
    #[serde(rename = "si")]
    pub siblings: Vec<Sibling>,
    /// What was seen; a write with it supersedes exactly that. Also there when there is no such key.
    #[serde(rename = "cx")]
    pub context: ContextToken,
    #[serde(rename = "ne")]
    pub needed: u8,
    #[serde(rename = "an")]
    pub answered: Vec<Answered>,
    /// Concurrent writes that an lww bucket does not show.
    #[serde(rename = "as", default, skip_serializing_if = "usual")]
    pub set_aside: u32,
    /// Owners that were found behind and are being repaired.
    #[serde(rename = "rp", default, skip_serializing_if = "usual")]
    pub repairing: Vec<NodeId>,
    /// A sloppy read that found fewer than `needed` owners.
    #[serde(rename = "sh", default, skip_serializing_if = "usual")]
    pub short: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ScanRequest {
    pub epoch: Epoch,
    pub partition: Partition,
    /// Every bucket of this `n`, or one.
    pub bucket: Option<BucketId>,
    #[serde(with = "serde_bytes")]
    pub prefix: Vec<u8>,
    /// Go on behind this record.
    pub after: Option<(BucketId, Bytes)>,
    /// About how many bytes of records to send; at least one record is sent.
    pub bytes_max: u32,
}

/// A record as it is stored at one replica.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ScanRecord {
    pub bucket: BucketId,
    pub key: Bytes,
    /// An encoded [`crate::version::Object`], siblings, tombstones and all.
    pub object: Bytes,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ScanPage {
    /// In the order of (bucket, key).
    pub records: Vec<ScanRecord>,
    /// Nothing follows the last record.
    pub done: bool,
    /// The replica's clock has seen all of this: what "not in the page" means.
    pub base: crate::version::Context,
}

/// For whoever verifies that a cluster has settled: what is left in the log says what is not settled yet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogRequest {
    pub epoch: Epoch,
    pub partition: Partition,
    /// Go on behind this entry.
    pub after: Option<Dot>,
    /// About how many bytes of entries to send; at least one entry is sent.
    pub bytes_max: u32,
}

/// An entry of the log: which key an event wrote.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogRecord {
    pub dot: Dot,
    pub bucket: BucketId,
    pub key: Bytes,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogPage {
    /// The actor under which the node mints now. An actor of no node any more is that of a lost disk.
    pub actor: ActorId,
    /// The base of the replica's clock.
    pub base: crate::version::Context,
    /// In the order of (actor, seq).
    pub records: Vec<LogRecord>,
    /// Nothing follows the last record.
    pub done: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StatusRequest {}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Cancel {}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RepairRequest {
    /// Only this one; what the answer says of repair is then about it alone.
    pub partition: Option<Partition>,
}

/// One node's own account of itself.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    pub node: u16,
    pub name: String,
    pub version: String,
    pub epoch: u64,
    /// `serving`, `rebuilding` or `draining`.
    pub state: String,
    pub uptime_s: u64,
    /// How this node sees each other.
    pub peers: Vec<PeerStatus>,
    pub partitions_owned: u32,
    pub keys_estimate: u64,
    pub disk_bytes_free: u64,
    pub resident_bytes: u64,
    /// Puts and deletes coordinated, reads coordinated, and writes replicated here since the start.
    pub writes: u64,
    pub reads: u64,
    pub replicated: u64,
    /// Concurrent writes that reads of lww buckets did not show.
    pub set_aside: u64,
    pub read_repairs: u64,
    pub hints_pending: u64,
    pub hints_bytes: u64,
    /// Requests under way here, of clients and of its own.
    pub operations: u64,
    /// Of all partitions, how many have so many owners within reach, as this node sees it.
    pub partitions_to_read: PartitionStates,
    pub partitions_to_write: PartitionStates,
    /// Entries of the log that not all owners have seen, and keys that wait to be erased: tombstones, and values that
    /// expire.
    pub log_entries: u64,
    pub erasable: u64,
    /// While it rebuilds: copies of partitions that it needs, and those that it has made.
    pub copies_needed: u64,
    pub copies_made: u64,
    pub repair: RepairStatus,
}

/// How far a node is with getting what it lacks.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RepairStatus {
    /// Dots that other owners are known to have and this node lacks.
    pub dots_missing: u64,
    /// Partitions with such dots.
    pub partitions_behind: u32,
    /// Other owners that have not told all of their clocks since they last connected: what only they have is not
    /// counted.
    pub unheard: Vec<u16>,
    /// Pulls and full syncs under way.
    pub under_way: u32,
    /// Since the start: dots that pulls brought, bytes of objects that pulls and full syncs brought, full syncs ended.
    pub dots_pulled: u64,
    pub bytes_taken: u64,
    pub full_syncs: u64,
    /// Of a node that rebuilds: how much it has copied, from whom.
    pub sources: Vec<SourceStatus>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SourceStatus {
    pub node: u16,
    /// Partitions copied to the end, of all that both own.
    pub partitions_copied: u32,
    pub partitions: u32,
}

/// Partitions by how many of their owners can be reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PartitionStates {
    pub all: u32,
    /// Not all, but more than half.
    pub quorum: u32,
    pub no_quorum: u32,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PeerStatus {
    pub node: u16,
    /// `up`, `suspect` or `down`.
    pub state: String,
    /// Since its last pong.
    pub silent_ms: u64,
    /// Dots that it is known to lack of what this node has, over all partitions that both own.
    pub lag_dots: u64,
    /// How old the oldest of these is, counted from this node's start at the earliest.
    pub lag_oldest_ms: u64,
    /// Whether it has told what it has: before, its lag is not known, and said to be 0.
    pub clock_known: bool,
    /// Hints that this node keeps for it, and the age of the oldest write among them.
    pub hints_pending: u64,
    pub hints_bytes: u64,
    pub hints_oldest_ms: u64,
    /// How long this node's canary has been waiting for it; 0 if it has seen the last one.
    pub canary_waiting_ms: u64,
}
