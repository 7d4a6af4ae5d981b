//! The node's whole alphabet: what can happen to a shard, and what a shard can do.

use super::exchange::PAGE_BYTES_MAX;
use crate::planted::{self, Bug};
use quorate_ring::id::{NodeId, Partition};
use quorate_ring::placement::Layout;
use quorate_ring::wire::client::{ClientReply, ClientRequest};
use quorate_ring::wire::peer::{PeerReply, PeerRequest};
use std::sync::Arc;
use std::time::Duration;

/// The time of an event. The kernel has no clock of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// Since some moment before the start; never goes back.
    pub mono: Duration,
    /// Milliseconds since 1970; may jump either way.
    pub wall_ms: u64,
}

/// One connection of a client, numbered by the runtime; a number is never used again while the node runs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId(pub u64);

/// A request that a shard sent to a peer. The low 8 bits are the shard, so that the reply finds its way back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);

impl RequestId {
    pub fn shard(self) -> u8 {
        (self.0 & 0xff) as u8
    }
}

/// A timer that a shard set; it comes back as it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Timer {
    /// Look after the request with this number: owners that did not answer, then its deadline.
    Operation(u64),
    /// Send pings, judge peers, collect what is settled.
    Tick,
    /// Ask the other owners again whether they have the canary.
    Canary,
    /// Go on collecting what is settled.
    Collect,
}

/// What happens to a shard.
#[derive(Clone, Debug)]
pub enum Event {
    /// Once, first: sets the standing timers.
    Started,
    /// A client asks. `Hello` and `Cancel` never get here: the runtime answers the one and turns the other into
    /// `ClientCancelled`. `Status` goes to every shard. `arrived` is when it was read, on the scale of `Now::mono`:
    /// its time has run since then.
    Client {
        from: SessionId,
        request: u64,
        arrived: Duration,
        message: ClientRequest,
    },
    ClientCancelled {
        from: SessionId,
        request: u64,
    },
    ClientGone {
        from: SessionId,
    },
    /// A peer asks. `Greet` and `Ping` go to every shard, and each answers for itself; the others go to the shard of
    /// their partition.
    PeerRequest {
        from: NodeId,
        request: RequestId,
        arrived: Duration,
        message: PeerRequest,
    },
    /// A peer answers a request of this shard.
    PeerReply {
        from: NodeId,
        request: RequestId,
        message: PeerReply,
    },
    /// The connection that this node made to a peer stands; requests may be sent.
    LinkUp {
        peer: NodeId,
    },
    /// It broke: whatever was sent and not answered may or may not have arrived.
    LinkDown {
        peer: NodeId,
    },
    Fired {
        timer: Timer,
    },
    /// A newer topology is in force.
    Layout(Arc<Layout>),
    /// Whether the disk has less free space than its reserve.
    DiskReserve {
        reached: bool,
    },
    /// Refuse new client work, finish what is under way.
    Drain,
}

impl Event {
    /// An owner or a fallback says that it holds what it was given.
    pub fn is_ack(&self) -> bool {
        matches!(self, Event::PeerReply { message: PeerReply::Replicated(_), .. })
    }

    /// Asks or brings what is stored, or says that something is, and as a rule has nothing written: of what was drained
    /// together these come first, so that what comes of them need not wait for the commit of the others.
    pub fn comes_first(&self) -> bool {
        let first = matches!(
            self,
            Event::Client { message: ClientRequest::Read(_), .. }
                | Event::PeerRequest { message: PeerRequest::Fetch(_), .. }
                | Event::PeerReply { message: PeerReply::Fetched(_) | PeerReply::Replicated(_), .. }
        );
        first && !planted::is(Bug::ReadUncommitted)
    }
}

/// What a shard does, once everything that it decided on is committed.
#[derive(Clone, Debug)]
pub enum Effect {
    ClientReply {
        to: SessionId,
        request: u64,
        message: ClientReply,
    },
    PeerRequest {
        to: NodeId,
        request: RequestId,
        message: PeerRequest,
    },
    PeerReply {
        to: NodeId,
        request: RequestId,
        message: PeerReply,
    },
    Arm {
        timer: Timer,
        after: Duration,
    },
    /// This node remembers less of itself than a peer does: it has forgotten, and must not go on under its actor.
    Amnesia {
        peer: NodeId,
        partition: Partition,
        remembered: u64,
        known: u64,
    },
    /// A rebuilding node has copied every partition from all other owners, as far as this shard is concerned.
    Joined,
    /// For the metrics.
    Measure(Measure),
}

impl Effect {
    /// Whether it carries what was read of a key.
    pub fn answers_a_read(&self) -> bool {
        matches!(
            self,
            Effect::ClientReply { message: ClientReply::Read(_), .. }
                | Effect::PeerReply { message: PeerReply::Fetched(_), .. }
        )
    }
}

/// Something worth counting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Measure {
    /// A put or delete that this node coordinated was answered, or one that it could not place was refused.
    Written { op: WriteOp, consistency: Consistency, outcome: Outcome, took: Duration },
    /// A read that this node coordinated was answered.
    Read { consistency: Consistency, outcome: Outcome, took: Duration, siblings: u32 },
    /// A peer answered what this shard had asked.
    Replied { kind: Asked, took: Duration },
    /// So many owners hold a write, so long after the first.
    AckSpread { owners: u8, took: Duration },
    /// A canary is written.
    CanaryWritten,
    /// A peer shows the canary, so long after it was written.
    CanarySeen { peer: NodeId, took: Duration },
    /// Concurrent writes that a read of an lww bucket did not show.
    SetAside { count: u32 },
    /// An object of a peer was merged.
    Merged { dots: u32 },
    /// An owner was found behind by a read, and sent the union.
    ReadRepair,
    /// A hint was delivered, and forgotten.
    HandedOff,
    /// A page of a pull was merged.
    Pulled { dots: u32 },
    /// A partition was copied from another owner.
    FullSync,
    /// A peer sent objects that have no place in what was asked for; they were not taken.
    Misplaced { objects: u32 },
    /// Settled tombstones and expired objects went.
    Erased { objects: u32 },
    /// A peer's clock is this far ahead of ours (negative: behind).
    ClockOffset { peer: NodeId, ms: i64 },
    /// A timestamp too far ahead of the wall clock was kept as data only.
    ClockAhead,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum WriteOp {
    Put,
    Delete,
}

/// How many owners a request waits for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Consistency {
    One,
    Quorum,
    All,
    /// Another number, or the request was refused before that was worked out.
    Other,
}

impl Consistency {
    /// Of `count` owners out of `n`.
    pub fn of(count: u8, n: u8) -> Self {
        match count {
            1 if n > 1 => Self::One,
            _ if count == n => Self::All,
            _ if count == n / 2 + 1 => Self::Quorum,
            _ => Self::Other,
        }
    }
}

/// What is asked of a peer, and timed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Asked {
    Replicate,
    Hint,
    Fetch,
    Handoff,
    /// A page of a pull or of a full sync.
    Page,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Outcome {
    Ok,
    NotFound,
    Conflict,
    Unavailable,
    Unknown,
    Overloaded,
    Error,
}

/// What an event costs, in bytes: those that it brings, or those of the page that it asks for. Kept here so that the
/// runtime can size its inbox and its batches.
pub fn weight(event: &Event) -> usize {
    const FIXED: usize = 256;
    FIXED
        + match event {
            Event::Client { message: message @ ClientRequest::Write(write), .. } => {
                message.value_bytes() + write.key.len()
            }
            Event::PeerRequest { message: message @ PeerRequest::Coordinate(c), .. } => {
                message.value_bytes() + c.write.key.len()
            }
            Event::PeerRequest { message: message @ PeerRequest::Replicate(r), .. } => {
                message.value_bytes() + r.key.len()
            }
            Event::PeerRequest { message: PeerRequest::Pull(p), .. } => p.bytes_max.min(PAGE_BYTES_MAX) as usize,
            Event::PeerRequest { message: PeerRequest::Sync(s), .. } => s.bytes_max.min(PAGE_BYTES_MAX) as usize,
            Event::PeerRequest { message: PeerRequest::Fetch(f), .. } => size_of_val(&f.held[..]),
            Event::PeerRequest { message, .. } => message.value_bytes(),
            Event::PeerReply { message, .. } => message.value_bytes(),
            Event::Started
            | Event::Client { .. }
            | Event::ClientCancelled { .. }
            | Event::ClientGone { .. }
            | Event::LinkUp { .. }
            | Event::LinkDown { .. }
            | Event::Fired { .. }
            | Event::Layout(_)
            | Event::DiskReserve { .. }
            | Event::Drain => 0,
        }
}
