//! What a node shows to Prometheus: a cached handle for each series, and what sets it.
//!
//! Each node has its own recorder, so that several may live in one process. Every series with a fixed set of labels
//! stands at 0 from the start, so that a rate sees its first step.

pub mod names;

use crate::kernel::{Asked, Consistency, Measure, Outcome, WriteOp};
use crate::storage::rocks::{Health, LEVELS};
use metrics::{Counter, Gauge, Histogram, Label, NoopRecorder};
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use names::*;
use quorate_ring::id::NodeId;
use quorate_ring::wire::client::{NodeStatus, PartitionStates, PeerStatus};
use std::collections::BTreeMap;
use std::time::Duration;

const SECONDS: [f64; 16] =
    [0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const COUNTS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

pub const STATES: [&str; 3] = ["serving", "rebuilding", "draining"];
pub const PLANES: [&str; 2] = ["client", "peer"];
pub const CLASSES: [&str; 3] = ["urgent", "work", "repair"];
/// Why a connection was refused.
pub const REFUSALS: [&str; 5] = ["connections", "connections_of_one_address", "handshakes", "tls", "protocol"];
/// How another node looks from here.
pub const PEER_STATES: [&str; 3] = ["up", "suspect", "down"];
/// Owners of a key whose acks are told apart, from the second on; further ones count with the last.
const OWNERS_TOLD_APART: u8 = 7;

/// What a client asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    Put,
    Delete,
    Get,
}

const OPS: [Op; 3] = [Op::Put, Op::Delete, Op::Get];
const CONSISTENCIES: [Consistency; 4] = [Consistency::One, Consistency::Quorum, Consistency::All, Consistency::Other];
const OUTCOMES: [Outcome; 7] = [
    Outcome::Ok,
    Outcome::NotFound,
    Outcome::Conflict,
    Outcome::Unavailable,
    Outcome::Unknown,
    Outcome::Overloaded,
    Outcome::Error,
];
const ASKED: [Asked; 5] = [Asked::Replicate, Asked::Hint, Asked::Fetch, Asked::Handoff, Asked::Page];

impl Op {
    fn name(self) -> &'static str {
        match self {
            Op::Put => "put",
            Op::Delete => "delete",
            Op::Get => "get",
        }
    }
}

fn consistency_name(consistency: Consistency) -> &'static str {
    match consistency {
        Consistency::One => "one",
        Consistency::Quorum => "quorum",
        Consistency::All => "all",
        Consistency::Other => "other",
    }
}

fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Ok => "ok",
        Outcome::NotFound => "not_found",
        Outcome::Conflict => "conflict",
        Outcome::Unavailable => "unavailable",
        Outcome::Unknown => "unknown",
        Outcome::Overloaded => "overloaded",
        Outcome::Error => "error",
    }
}

fn asked_name(asked: Asked) -> &'static str {
    match asked {
        Asked::Replicate => "replicate",
        Asked::Hint => "hint",
        Asked::Fetch => "fetch",
        Asked::Handoff => "handoff",
        Asked::Page => "page",
    }
}

/// Requests of one kind, by how many owners they wait for and how they ended. A table, so that the way to a handle is
/// two steps.
struct Requests([Consistent; CONSISTENCIES.len()]);

struct Consistent {
    outcomes: [Counter; OUTCOMES.len()],
    duration: Histogram,
}

impl Requests {
    fn new(op: Op) -> Self {
        let op = op.name();
        Self(CONSISTENCIES.map(consistency_name).map(|consistency| Consistent {
            outcomes: OUTCOMES.map(outcome_name).map(|outcome| {
                zero(counter!(REQUESTS, "op" => op, "consistency" => consistency, "outcome" => outcome))
            }),
            duration: histogram!(REQUEST_DURATION, "op" => op, "consistency" => consistency),
        }))
    }

    fn answered(&self, consistency: Consistency, outcome: Outcome, took: Duration) {
        let of = &self.0[consistency as usize];
        of.outcomes[outcome as usize].increment(1);
        of.duration.record(took.as_secs_f64());
    }

    /// Refused before anyone looked at it: it took no time.
    fn shed(&self) {
        self.0[Consistency::Other as usize].outcomes[Outcome::Overloaded as usize].increment(1);
    }
}

/// How this node sees one peer, and what it keeps for it.
struct Peer {
    up: Gauge,
    lag_dots: Gauge,
    lag_oldest: Gauge,
    clock_known: Gauge,
    clock_offset: Gauge,
    hints_pending: Gauge,
    hints_bytes: Gauge,
    hints_oldest: Gauge,
    canary_waiting: Gauge,
    canary_duration: Histogram,
}

impl Peer {
    fn new(name: &str) -> Self {
        let label = || vec![Label::new("peer", name.to_string())];
        Self {
            up: gauge!(PEER_UP, label()),
            lag_dots: gauge!(LAG_DOTS, label()),
            lag_oldest: gauge!(LAG_OLDEST, label()),
            clock_known: gauge!(CLOCK_KNOWN, label()),
            clock_offset: gauge!(CLOCK_OFFSET, label()),
            hints_pending: gauge!(HINTS_PENDING, label()),
            hints_bytes: gauge!(HINTS_BYTES, label()),
            hints_oldest: gauge!(HINTS_OLDEST, label()),
            canary_waiting: gauge!(CANARY_WAITING, label()),
            canary_duration: histogram!(CANARY_DURATION, label()),
        }
    }

    fn status(&self, status: &PeerStatus) {
        let seconds = |ms: u64| ms as f64 / 1000.0;
        self.up.set(flag(status.state == "up"));
        self.lag_dots.set(status.lag_dots as f64);
        self.lag_oldest.set(seconds(status.lag_oldest_ms));
        self.clock_known.set(flag(status.clock_known));
        self.hints_pending.set(status.hints_pending as f64);
        self.hints_bytes.set(status.hints_bytes as f64);
        self.hints_oldest.set(seconds(status.hints_oldest_ms));
        self.canary_waiting.set(seconds(status.canary_waiting_ms));
    }
}

/// Partitions by state, for one kind of request.
struct Partitions([Gauge; 3]);

impl Partitions {
    fn new(op: &'static str) -> Self {
        Self(["all", "quorum", "no_quorum"].map(|state| gauge!(PARTITIONS, "op" => op, "state" => state)))
    }

    fn set(&self, states: PartitionStates) {
        let counts = [states.all, states.quorum, states.no_quorum];
        self.0.iter().zip(counts).for_each(|(gauge, count)| gauge.set(f64::from(count)));
    }
}

/// The disk of the data folder, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Disk {
    pub free: u64,
    pub size: u64,
    pub reserve: u64,
}

/// What a node is counted by.
pub struct Metrics {
    /// None if nothing is measured.
    handle: Option<PrometheusHandle>,
    requests: [Requests; OPS.len()],
    rpc: [Histogram; ASKED.len()],
    /// From the second owner on.
    ack_spread: [Histogram; OWNERS_TOLD_APART as usize - 1],
    siblings: Histogram,
    set_aside: Counter,
    merged_dots: Counter,
    read_repairs: Counter,
    clock_ahead: Counter,
    handed_off: Counter,
    pulled_dots: Counter,
    full_syncs: Counter,
    misplaced: Counter,
    erased: Counter,
    canaries: Counter,
    peers: BTreeMap<NodeId, Peer>,
    states: [Gauge; STATES.len()],
    nodes: [Gauge; PEER_STATES.len()],
    partitions: [Partitions; 2],
    commit_sync: Histogram,
    commit_async: Histogram,
    commit_rows: Histogram,
    batch_events: Histogram,
    inbox_bytes: [Gauge; CLASSES.len()],
    inbox_oldest: [Gauge; CLASSES.len()],
    inbox_refused: Counter,
    connections: [Gauge; PLANES.len()],
    connections_refused: BTreeMap<(&'static str, &'static str), Counter>,
    lane_dropped: [Counter; PLANES.len()],
    storage_files: [Gauge; LEVELS],
    /// The gauges without labels, by name.
    plain: BTreeMap<&'static str, Gauge>,
}

impl Metrics {
    /// `peers` are the other nodes of the topology, with their names; `started_ms` is the wall clock.
    pub fn new(peers: impl Iterator<Item = (NodeId, String)>, started_ms: u64) -> Result<Self, BuildError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets(&COUNTS)?
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_string()), &SECONDS)?
            .build_recorder();
        let handle = recorder.handle();
        Ok(metrics::with_local_recorder(&recorder, || {
            describe();
            gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
            let metrics = Self::register(Some(handle), peers);
            metrics.set(START_TIME, started_ms as f64 / 1000.0);
            metrics
        }))
    }

    /// Measures nothing, and shows nothing.
    pub fn off() -> Self {
        metrics::with_local_recorder(&NoopRecorder, || Self::register(None, std::iter::empty()))
    }

    fn register(handle: Option<PrometheusHandle>, peers: impl Iterator<Item = (NodeId, String)>) -> Self {
        let refused = |plane: &'static str| {
            REFUSALS.map(|reason| {
                ((plane, reason), zero(counter!(CONNECTIONS_REFUSED, "plane" => plane, "reason" => reason)))
            })
        };
        let bare = ALL.iter().filter(|metric| metric.kind == Kind::Gauge && metric.labels.is_empty());
        Self {
            handle,
            requests: OPS.map(Requests::new),
            rpc: ASKED.map(|asked| histogram!(RPC_DURATION, "kind" => asked_name(asked))),
            ack_spread: std::array::from_fn(|index| histogram!(ACK_SPREAD, "owners" => (index + 2).to_string())),
            siblings: histogram!(SIBLINGS),
            set_aside: zero(counter!(SET_ASIDE)),
            merged_dots: zero(counter!(MERGED_DOTS)),
            read_repairs: zero(counter!(READ_REPAIRS)),
            clock_ahead: zero(counter!(CLOCK_AHEAD)),
            handed_off: zero(counter!(HANDED_OFF)),
            pulled_dots: zero(counter!(PULLED_DOTS)),
            full_syncs: zero(counter!(FULL_SYNCS)),
            misplaced: zero(counter!(MISPLACED)),
            erased: zero(counter!(ERASED)),
            canaries: zero(counter!(CANARIES)),
            peers: peers.map(|(id, name)| (id, Peer::new(&name))).collect(),
            states: STATES.map(|state| gauge!(STATE, "state" => state)),
            nodes: PEER_STATES.map(|state| gauge!(NODES, "state" => state)),
            partitions: ["read", "write"].map(Partitions::new),
            commit_sync: histogram!(COMMIT_DURATION, "durability" => "sync"),
            commit_async: histogram!(COMMIT_DURATION, "durability" => "async"),
            commit_rows: histogram!(COMMIT_ROWS),
            batch_events: histogram!(BATCH_EVENTS),
            inbox_bytes: CLASSES.map(|class| gauge!(INBOX_BYTES, "class" => class)),
            inbox_oldest: CLASSES.map(|class| gauge!(INBOX_OLDEST, "class" => class)),
            inbox_refused: zero(counter!(INBOX_REFUSED)),
            connections: PLANES.map(|plane| gauge!(CONNECTIONS, "plane" => plane)),
            connections_refused: PLANES.into_iter().flat_map(refused).collect(),
            lane_dropped: PLANES.map(|plane| zero(counter!(LANE_DROPPED, "plane" => plane))),
            storage_files: std::array::from_fn(|level| gauge!(STORE_FILES, "level" => level.to_string())),
            plain: bare.map(|metric| (metric.name, gauge!(metric.name))).collect(),
        }
    }

    /// Takes what a shard measured.
    pub fn measure(&self, measure: Measure) {
        match measure {
            Measure::Written { op, consistency, outcome, took } => {
                let op = match op {
                    WriteOp::Put => Op::Put,
                    WriteOp::Delete => Op::Delete,
                };
                self.requests[op as usize].answered(consistency, outcome, took);
            }
            Measure::Read { consistency, outcome, took, siblings } => {
                self.requests[Op::Get as usize].answered(consistency, outcome, took);
                if matches!(outcome, Outcome::Ok | Outcome::NotFound | Outcome::Conflict) {
                    self.siblings.record(f64::from(siblings));
                }
            }
            Measure::Replied { kind, took } => self.rpc[kind as usize].record(took.as_secs_f64()),
            Measure::AckSpread { owners, took } => {
                let owners = owners.clamp(2, OWNERS_TOLD_APART);
                self.ack_spread[usize::from(owners) - 2].record(took.as_secs_f64());
            }
            Measure::CanaryWritten => self.canaries.increment(1),
            Measure::CanarySeen { peer, took } => {
                if let Some(peer) = self.peers.get(&peer) {
                    peer.canary_duration.record(took.as_secs_f64());
                }
            }
            Measure::SetAside { count } => self.set_aside.increment(u64::from(count)),
            Measure::Merged { dots } => self.merged_dots.increment(u64::from(dots)),
            Measure::ReadRepair => self.read_repairs.increment(1),
            Measure::ClockOffset { peer, ms } => {
                if let Some(peer) = self.peers.get(&peer) {
                    peer.clock_offset.set(ms as f64 / 1000.0);
                }
            }
            Measure::ClockAhead => self.clock_ahead.increment(1),
            Measure::HandedOff => self.handed_off.increment(1),
            Measure::Pulled { dots } => self.pulled_dots.increment(u64::from(dots)),
            Measure::FullSync => self.full_syncs.increment(1),
            Measure::Misplaced { objects } => self.misplaced.increment(u64::from(objects)),
            Measure::Erased { objects } => self.erased.increment(u64::from(objects)),
        }
    }

    /// One batch went to the disk.
    pub fn committed(&self, rows: usize, sync: bool, took: Duration) {
        let duration = if sync { &self.commit_sync } else { &self.commit_async };
        duration.record(took.as_secs_f64());
        self.commit_rows.record(rows as f64);
    }

    /// A shard handled so many events and then committed.
    pub fn drained(&self, events: usize) {
        self.batch_events.record(events as f64);
    }

    /// `class` is one of [`CLASSES`].
    pub fn inbox(&self, class: &'static str, bytes: usize, oldest: Duration) {
        if let Some(at) = CLASSES.iter().position(|have| *have == class) {
            self.inbox_bytes[at].set(bytes as f64);
            self.inbox_oldest[at].set(oldest.as_secs_f64());
        }
    }

    /// A client's request found the inbox full; `op` if it is a put, delete or get.
    pub fn inbox_refused(&self, op: Option<Op>) {
        self.inbox_refused.increment(1);
        if let Some(op) = op {
            self.requests[op as usize].shed();
        }
    }

    /// `plane` is one of [`PLANES`].
    pub fn connections(&self, plane: &'static str, count: usize) {
        if let Some(at) = PLANES.iter().position(|have| *have == plane) {
            self.connections[at].set(count as f64);
        }
    }

    /// `reason` is one of [`REFUSALS`].
    pub fn connection_refused(&self, plane: &'static str, reason: &'static str) {
        if let Some(counter) = self.connections_refused.get(&(plane, reason)) {
            counter.increment(1);
        }
    }

    /// Frames could not be queued, and were dropped.
    pub fn lane_dropped(&self, plane: &'static str) {
        if let Some(at) = PLANES.iter().position(|have| *have == plane) {
            self.lane_dropped[at].increment(1);
        }
    }

    pub fn machine(&self, disk: Disk, resident_bytes: u64) {
        self.set(DISK_FREE, disk.free as f64);
        self.set(DISK_SIZE, disk.size as f64);
        self.set(DISK_RESERVE, disk.reserve as f64);
        self.set(RESIDENT, resident_bytes as f64);
    }

    /// What does not change while the node runs: when its certificate ends to be valid, in seconds since 1970, how
    /// many bytes of hints it keeps for one peer, and how many of memory it may take.
    pub fn limits(&self, certificate_expires_s: i64, hint_bytes_max: u64, memory_bytes: usize) {
        self.set(CERTIFICATE_EXPIRY, certificate_expires_s as f64);
        self.set(HINTS_BYTES_MAX, hint_bytes_max as f64);
        self.set(RESIDENT_MAX, memory_bytes as f64);
    }

    pub fn storage(&self, health: &Health) {
        self.storage_files.iter().zip(health.files).for_each(|(gauge, files)| gauge.set(files as f64));
        self.set(STORE_BYTES, health.files_bytes as f64);
        self.set(STORE_UNMERGED, health.unmerged_bytes as f64);
        self.set(STORE_BUFFERED, health.buffered_bytes as f64);
        self.set(STORE_SLOWED, flag(health.stopped || health.delayed_write_rate > 0));
        self.set(CACHE_BYTES, health.cache_bytes as f64);
        self.set(CACHE_BYTES_MAX, health.cache_bytes_max as f64);
        self.set(OBJECT_CACHE_BYTES, health.object_cache_bytes as f64);
        self.set(OBJECT_CACHE_BYTES_MAX, health.object_cache_bytes_max as f64);
    }

    /// Takes what only the node's account of itself says.
    pub fn status(&self, status: &NodeStatus) {
        for (state, gauge) in STATES.iter().zip(&self.states) {
            gauge.set(flag(*state == status.state));
        }
        for (state, gauge) in PEER_STATES.iter().zip(&self.nodes) {
            let peers = status.peers.iter().filter(|peer| peer.state == *state).count();
            gauge.set((peers + usize::from(*state == "up")) as f64);
        }
        let [to_read, to_write] = &self.partitions;
        to_read.set(status.partitions_to_read);
        to_write.set(status.partitions_to_write);
        self.set(EPOCH, status.epoch as f64);
        self.set(OPERATIONS, status.operations as f64);
        self.set(PARTITIONS_OWNED, f64::from(status.partitions_owned));
        self.set(COPIES_NEEDED, status.copies_needed as f64);
        self.set(COPIES_MADE, status.copies_made as f64);
        self.set(LOG_ENTRIES, status.log_entries as f64);
        self.set(ERASABLE, status.erasable as f64);
        for peer in &status.peers {
            if let Some(gauges) = self.peers.get(&NodeId(peer.node)) {
                gauges.status(peer);
            }
        }
    }

    /// Folds the samples that came in since the last time. To be called every few seconds: they take memory.
    pub fn upkeep(&self) {
        if let Some(handle) = &self.handle {
            handle.run_upkeep();
        }
    }

    /// The text that Prometheus reads.
    pub fn render(&self) -> String {
        self.handle.as_ref().map_or_else(String::new, PrometheusHandle::render)
    }

    fn set(&self, name: &'static str, value: f64) {
        if let Some(gauge) = self.plain.get(name) {
            gauge.set(value);
        }
    }
}

fn zero(counter: Counter) -> Counter {
    counter.absolute(0);
    counter
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

fn describe() {
    for Metric { name, kind, help, .. } in ALL {
        match kind {
            Kind::Counter => describe_counter!(*name, *help),
            Kind::Gauge => describe_gauge!(*name, *help),
            Kind::Histogram => describe_histogram!(*name, *help),
        }
    }
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
