//! What a node shows to Prometheus: every name, what it means, and a cached handle for each.
//!
//! Each node has its own recorder, so that several may live in one process. Every series with a fixed set of labels
//! stands at 0 from the start, so that a rate sees its first step.

use crate::kernel::{Measure, Outcome};
use metrics::{Counter, Gauge, Histogram, Label, Unit};
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use quorate_ring::id::NodeId;
use quorate_ring::wire::client::NodeStatus;
use std::collections::BTreeMap;
use std::time::Duration;

pub const BUILD_INFO: &str = "quorate_build_info";
pub const START_TIME: &str = "quorate_start_time_seconds";
pub const STATE: &str = "quorate_state";
pub const REQUESTS: &str = "quorate_requests_total";
pub const REQUEST_DURATION: &str = "quorate_request_duration_seconds";
pub const SIBLINGS: &str = "quorate_siblings";
pub const SET_ASIDE: &str = "quorate_set_aside_total";
pub const MERGED_DOTS: &str = "quorate_merged_dots_total";
pub const READ_REPAIRS: &str = "quorate_read_repairs_total";
pub const CLOCK_OFFSET: &str = "quorate_clock_offset_seconds";
pub const CLOCK_AHEAD: &str = "quorate_clock_ahead_total";
pub const HANDED_OFF: &str = "quorate_hints_handed_off_total";
pub const HINTS_PENDING: &str = "quorate_hints_pending";
pub const HINTS_BYTES: &str = "quorate_hints_bytes";
pub const PULLED_DOTS: &str = "quorate_pulled_dots_total";
pub const FULL_SYNCS: &str = "quorate_full_syncs_total";
pub const ERASED: &str = "quorate_erased_objects_total";
pub const PEER_UP: &str = "quorate_peer_up";
pub const PEER_LAG: &str = "quorate_peer_lag_dots";
pub const PARTITIONS_OWNED: &str = "quorate_partitions_owned";
pub const COMMIT_DURATION: &str = "quorate_commit_duration_seconds";
pub const COMMIT_ROWS: &str = "quorate_commit_rows";
pub const BATCH_EVENTS: &str = "quorate_batch_events";
pub const INBOX_BYTES: &str = "quorate_inbox_bytes";
pub const INBOX_REFUSED: &str = "quorate_inbox_refused_total";
pub const CONNECTIONS: &str = "quorate_connections";
pub const CONNECTIONS_REFUSED: &str = "quorate_connections_refused_total";
pub const LANE_DROPPED: &str = "quorate_lane_dropped_total";
pub const DISK_FREE: &str = "quorate_disk_free_bytes";
pub const RESIDENT: &str = "quorate_resident_bytes";

const SECONDS: [f64; 16] =
    [0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const COUNTS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

pub const STATES: [&str; 3] = ["serving", "rebuilding", "draining"];
pub const PLANES: [&str; 2] = ["client", "peer"];
pub const CLASSES: [&str; 3] = ["urgent", "work", "repair"];
/// Why a connection was refused.
pub const REFUSALS: [&str; 5] = ["connections", "connections_of_one_address", "handshakes", "tls", "protocol"];

const OUTCOMES: [Outcome; 7] = [
    Outcome::Ok,
    Outcome::NotFound,
    Outcome::Conflict,
    Outcome::Unavailable,
    Outcome::Unknown,
    Outcome::Overloaded,
    Outcome::Error,
];

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

/// Requests of one kind that this node coordinated.
struct Requests {
    outcomes: BTreeMap<Outcome, Counter>,
    duration: Histogram,
}

impl Requests {
    fn new(op: &'static str) -> Self {
        let counted = |outcome| {
            let counter = counter!(REQUESTS, "op" => op, "outcome" => outcome_name(outcome));
            counter.absolute(0);
            (outcome, counter)
        };
        Self {
            outcomes: OUTCOMES.into_iter().map(counted).collect(),
            duration: histogram!(REQUEST_DURATION, "op" => op),
        }
    }

    fn answered(&self, outcome: Outcome, took: Duration) {
        if let Some(counter) = self.outcomes.get(&outcome) {
            counter.increment(1);
        }
        self.duration.record(took.as_secs_f64());
    }
}

/// How this node sees one peer.
struct PeerGauges {
    up: Gauge,
    lag: Gauge,
    clock_offset: Gauge,
}

/// The handles of one node's metrics.
pub struct Metrics {
    handle: PrometheusHandle,
    writes: Requests,
    reads: Requests,
    siblings: Histogram,
    set_aside: Counter,
    merged_dots: Counter,
    read_repairs: Counter,
    clock_ahead: Counter,
    handed_off: Counter,
    pulled_dots: Counter,
    full_syncs: Counter,
    erased: Counter,
    peers: BTreeMap<NodeId, PeerGauges>,
    states: Vec<(&'static str, Gauge)>,
    partitions_owned: Gauge,
    hints_pending: Gauge,
    hints_bytes: Gauge,
    commit_sync: Histogram,
    commit_async: Histogram,
    commit_rows: Histogram,
    batch_events: Histogram,
    inbox_bytes: Vec<(&'static str, Gauge)>,
    inbox_refused: Counter,
    connections: Vec<(&'static str, Gauge)>,
    connections_refused: BTreeMap<(&'static str, &'static str), Counter>,
    lane_dropped: Vec<(&'static str, Counter)>,
    disk_free: Gauge,
    resident: Gauge,
}

impl Metrics {
    /// `peers` are the other nodes of the topology; `started_ms` is the wall clock.
    pub fn new(peers: impl Iterator<Item = NodeId>, started_ms: u64) -> Result<Self, BuildError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets(&COUNTS)?
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_string()), &SECONDS)?
            .build_recorder();
        let handle = recorder.handle();
        Ok(metrics::with_local_recorder(&recorder, || Self::register(handle, peers, started_ms)))
    }

    fn register(handle: PrometheusHandle, peers: impl Iterator<Item = NodeId>, started_ms: u64) -> Self {
        describe();
        gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        gauge!(START_TIME).set(started_ms as f64 / 1000.0);
        let peer = |id: NodeId| {
            let label = || vec![Label::new("peer", id.0.to_string())];
            let (up, lag) = (gauge!(PEER_UP, label()), gauge!(PEER_LAG, label()));
            (id, PeerGauges { up, lag, clock_offset: gauge!(CLOCK_OFFSET, label()) })
        };
        let zero = |counter: Counter| {
            counter.absolute(0);
            counter
        };
        let refused = |plane: &'static str| {
            REFUSALS.map(|reason| {
                ((plane, reason), zero(counter!(CONNECTIONS_REFUSED, "plane" => plane, "reason" => reason)))
            })
        };
        Self {
            handle,
            writes: Requests::new("write"),
            reads: Requests::new("read"),
            siblings: histogram!(SIBLINGS),
            set_aside: zero(counter!(SET_ASIDE)),
            merged_dots: zero(counter!(MERGED_DOTS)),
            read_repairs: zero(counter!(READ_REPAIRS)),
            clock_ahead: zero(counter!(CLOCK_AHEAD)),
            handed_off: zero(counter!(HANDED_OFF)),
            pulled_dots: zero(counter!(PULLED_DOTS)),
            full_syncs: zero(counter!(FULL_SYNCS)),
            erased: zero(counter!(ERASED)),
            peers: peers.map(peer).collect(),
            states: STATES.map(|state| (state, gauge!(STATE, "state" => state))).into(),
            partitions_owned: gauge!(PARTITIONS_OWNED),
            hints_pending: gauge!(HINTS_PENDING),
            hints_bytes: gauge!(HINTS_BYTES),
            commit_sync: histogram!(COMMIT_DURATION, "durability" => "sync"),
            commit_async: histogram!(COMMIT_DURATION, "durability" => "async"),
            commit_rows: histogram!(COMMIT_ROWS),
            batch_events: histogram!(BATCH_EVENTS),
            inbox_bytes: CLASSES.map(|class| (class, gauge!(INBOX_BYTES, "class" => class))).into(),
            inbox_refused: zero(counter!(INBOX_REFUSED)),
            connections: PLANES.map(|plane| (plane, gauge!(CONNECTIONS, "plane" => plane))).into(),
            connections_refused: PLANES.into_iter().flat_map(refused).collect(),
            lane_dropped: PLANES.map(|plane| (plane, zero(counter!(LANE_DROPPED, "plane" => plane)))).into(),
            disk_free: gauge!(DISK_FREE),
            resident: gauge!(RESIDENT),
        }
    }

    /// Takes what a shard measured.
    pub fn measure(&self, measure: Measure) {
        match measure {
            Measure::Written { outcome, took } => self.writes.answered(outcome, took),
            Measure::Read { outcome, took, siblings } => {
                self.reads.answered(outcome, took);
                self.siblings.record(f64::from(siblings));
            }
            Measure::SetAside { count } => self.set_aside.increment(u64::from(count)),
            Measure::Merged { dots } => self.merged_dots.increment(u64::from(dots)),
            Measure::ReadRepair => self.read_repairs.increment(1),
            Measure::ClockOffset { peer, ms } => {
                if let Some(gauges) = self.peers.get(&peer) {
                    gauges.clock_offset.set(ms as f64 / 1000.0);
                }
            }
            Measure::ClockAhead => self.clock_ahead.increment(1),
            Measure::HandedOff => self.handed_off.increment(1),
            Measure::Pulled { dots } => self.pulled_dots.increment(u64::from(dots)),
            Measure::FullSync => self.full_syncs.increment(1),
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

    pub fn inbox(&self, class: &'static str, bytes: usize) {
        set(&self.inbox_bytes, class, bytes as f64);
    }

    /// A client's request found the inbox full.
    pub fn inbox_refused(&self) {
        self.inbox_refused.increment(1);
    }

    pub fn connections(&self, plane: &'static str, count: usize) {
        set(&self.connections, plane, count as f64);
    }

    /// `reason` is one of [`REFUSALS`].
    pub fn connection_refused(&self, plane: &'static str, reason: &'static str) {
        if let Some(counter) = self.connections_refused.get(&(plane, reason)) {
            counter.increment(1);
        }
    }

    /// Frames could not be queued, and were dropped.
    pub fn lane_dropped(&self, plane: &'static str) {
        if let Some((_, counter)) = self.lane_dropped.iter().find(|(name, _)| *name == plane) {
            counter.increment(1);
        }
    }

    pub fn machine(&self, disk_bytes_free: u64, resident_bytes: u64) {
        self.disk_free.set(disk_bytes_free as f64);
        self.resident.set(resident_bytes as f64);
    }

    /// Takes what only the node's account of itself says.
    pub fn status(&self, status: &NodeStatus) {
        for (state, gauge) in &self.states {
            gauge.set(f64::from(u8::from(*state == status.state)));
        }
        self.partitions_owned.set(f64::from(status.partitions_owned));
        self.hints_pending.set(status.hints_pending as f64);
        self.hints_bytes.set(status.hints_bytes as f64);
        for peer in &status.peers {
            if let Some(gauges) = self.peers.get(&NodeId(peer.node)) {
                gauges.up.set(f64::from(u8::from(peer.state == "up")));
                gauges.lag.set(peer.lag_dots as f64);
            }
        }
    }

    /// Folds the samples that came in since the last time. To be called every few seconds: they take memory.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// The text that Prometheus reads.
    pub fn render(&self) -> String {
        self.handle.render()
    }
}

fn set(gauges: &[(&'static str, Gauge)], name: &'static str, value: f64) {
    if let Some((_, gauge)) = gauges.iter().find(|(have, _)| *have == name) {
        gauge.set(value);
    }
}

fn describe() {
    describe_gauge!(BUILD_INFO, "The program that runs; always 1.");
    describe_gauge!(START_TIME, Unit::Seconds, "When the node started, since 1970.");
    describe_gauge!(STATE, "1 for the state that the node is in.");
    describe_counter!(REQUESTS, "Requests that this node coordinated and answered, by outcome.");
    describe_histogram!(REQUEST_DURATION, Unit::Seconds, "From taking a request to its answer, at the coordinator.");
    describe_histogram!(SIBLINGS, "Siblings that a read found.");
    describe_counter!(SET_ASIDE, "Concurrent writes that reads of lww buckets did not show.");
    describe_counter!(MERGED_DOTS, "Dots that merges of peers' objects brought in.");
    describe_counter!(READ_REPAIRS, "Owners that a read found behind, and that were sent the union.");
    describe_gauge!(CLOCK_OFFSET, Unit::Seconds, "How far the wall clock of a peer is ahead of this node's.");
    describe_counter!(CLOCK_AHEAD, "Timestamps too far ahead of the wall clock, kept as data only.");
    describe_counter!(HANDED_OFF, "Hints that were delivered to their owner, and forgotten here.");
    describe_gauge!(HINTS_PENDING, "Hints that this node keeps for others.");
    describe_gauge!(HINTS_BYTES, Unit::Bytes, "Bytes of the hints that this node keeps for others.");
    describe_counter!(PULLED_DOTS, "Dots that pulls from other owners brought in.");
    describe_counter!(FULL_SYNCS, "Partitions copied whole from another owner.");
    describe_counter!(ERASED, "Tombstones and expired objects that were settled, and went.");
    describe_gauge!(PEER_UP, "1 while a peer answers its pings.");
    describe_gauge!(PEER_LAG, "Dots of this node that a peer is known to lack, over the partitions of both.");
    describe_gauge!(PARTITIONS_OWNED, "Partitions of which this node keeps a copy.");
    describe_histogram!(COMMIT_DURATION, Unit::Seconds, "A batch going to the disk; with sync, the fsync included.");
    describe_histogram!(COMMIT_ROWS, "Rows of a batch.");
    describe_histogram!(BATCH_EVENTS, "Events that a shard handled between two commits.");
    describe_gauge!(INBOX_BYTES, Unit::Bytes, "What waits for the shards, by class of service.");
    describe_counter!(INBOX_REFUSED, "Requests of clients refused because too much waited.");
    describe_gauge!(CONNECTIONS, "Connections that others made to this node, those being made included.");
    describe_counter!(CONNECTIONS_REFUSED, "Connections refused or closed by this node, by reason.");
    describe_counter!(LANE_DROPPED, "Times that frames were dropped because the other side did not take them.");
    describe_gauge!(DISK_FREE, Unit::Bytes, "Free space on the disk of the data folder.");
    describe_gauge!(RESIDENT, Unit::Bytes, "Memory that the process has resident.");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_described_and_stands_at_zero_from_the_start() {
        let metrics = Metrics::new([NodeId(2)].into_iter(), 1_500).unwrap();
        let text = metrics.render();
        assert!(text.contains("quorate_requests_total{op=\"write\",outcome=\"unknown\"} 0"), "{text}");
        assert!(text.contains("quorate_peer_up{peer=\"2\"} 0"), "{text}");
        for line in text.lines().filter(|line| line.starts_with("# TYPE ")) {
            let name = line.split(' ').nth(2).unwrap();
            assert!(text.contains(&format!("# HELP {name} ")), "{name} is not described");
        }
    }

    #[test]
    fn measures_arrive_as_buckets_and_counts() {
        let metrics = Metrics::new([NodeId(2)].into_iter(), 1_500).unwrap();
        metrics.measure(Measure::Written { outcome: Outcome::Ok, took: Duration::from_millis(3) });
        metrics.measure(Measure::ClockOffset { peer: NodeId(2), ms: -1500 });
        metrics.committed(4, true, Duration::from_millis(1));
        metrics.connection_refused("peer", "tls");
        let text = metrics.render();
        for line in [
            "quorate_requests_total{op=\"write\",outcome=\"ok\"} 1",
            "quorate_request_duration_seconds_bucket{op=\"write\",le=\"0.004\"} 1",
            "quorate_request_duration_seconds_bucket{op=\"write\",le=\"0.002\"} 0",
            "quorate_clock_offset_seconds{peer=\"2\"} -1.5",
            "quorate_commit_duration_seconds_bucket{durability=\"sync\",le=\"0.001\"} 1",
            "quorate_commit_rows_bucket{le=\"4\"} 1",
            "quorate_connections_refused_total{plane=\"peer\",reason=\"tls\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
