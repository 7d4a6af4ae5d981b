//! What a request may ask for, beside its key.

use quorate_ring::id::{NodeId, OpId};
use quorate_ring::topology::{Count, Durability, QuorumKind};
use quorate_ring::wire::client::Supersede;
use std::time::Duration;

/// Time for a request where none is given, all retries included.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(5);

/// Which nodes a request may be sent to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Via {
    /// The first live owner of the key; then the other owners, then any node.
    #[default]
    Owner,
    /// This node only, whether it owns the key or not.
    Node(NodeId),
    /// Any node but the first owner, a different one for different keys: for checking that the others hold it too.
    NotFirstOwner,
}

/// How a put or a delete is done. Where nothing is given, the bucket decides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WriteOptions {
    /// Owners to gather contexts from, for [`Supersede::Latest`].
    pub r: Option<Count>,
    /// Owners that have to hold it before it is acknowledged.
    pub w: Option<Count>,
    pub quorum: Option<QuorumKind>,
    pub durability: Option<Durability>,
    /// What it replaces. Default: `Local` for a put, `Latest` for a delete.
    pub supersede: Option<Supersede>,
    /// By default a new one. Give the one of an earlier call whose outcome is unknown to do that call again.
    pub op_id: Option<OpId>,
    /// Milliseconds since 1970 from which a put value reads as deleted.
    pub expires_ms: Option<u64>,
    /// Time for all of it, retries included.
    pub deadline: Duration,
    pub via: Via,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self {
            r: None,
            w: None,
            quorum: None,
            durability: None,
            supersede: None,
            op_id: None,
            expires_ms: None,
            deadline: DEADLINE_DEFAULT,
            via: Via::Owner,
        }
    }
}

/// How a get is done. Where nothing is given, the bucket decides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadOptions {
    /// Owners that have to answer.
    pub r: Option<Count>,
    pub quorum: Option<QuorumKind>,
    /// Wait until W owners hold what was read.
    pub blocking_repair: bool,
    /// Time for all of it, retries included.
    pub deadline: Duration,
    pub via: Via,
    /// Nodes that log `quorate::request=debug` say under this id what they do for the read.
    pub request_id: Option<OpId>,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            r: None,
            quorum: None,
            blocking_repair: false,
            deadline: DEADLINE_DEFAULT,
            via: Via::Owner,
            request_id: None,
        }
    }
}

/// How a listing is done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScanOptions {
    /// Only keys that begin with this.
    pub prefix: Vec<u8>,
    /// Owners that have to answer, of each partition. Default: the `r` of the bucket.
    pub r: Option<Count>,
    /// About how many bytes to take from one owner at a time; a listing holds up to `r` times this.
    pub page_bytes: u32,
    /// Time for one page.
    pub deadline: Duration,
}

impl Default for ScanOptions {
    fn default() -> Self {
        Self { prefix: Vec::new(), r: None, page_bytes: 256 * 1024, deadline: DEADLINE_DEFAULT }
    }
}
