//! What a seed decides before anything happens: the cluster, its weather, the work. All of it can be printed.

use super::faults::{Fault, Mask};
use super::rng::Rng;
use std::fmt;

/// Streams of randomness, one for each part of the world.
pub mod stream {
    pub const OPTIONS: u64 = 1;
    pub const TIES: u64 = 2;
    pub const NETWORK: u64 = 3;
    pub const DISKS: u64 = 4;
    pub const FAULTS: u64 = 5;
    pub const CLIENTS: u64 = 6;
    pub const NODES: u64 = 7;
}

/// What a person may add to a seed.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub seed: u64,
    /// Kinds of faults that are switched off.
    pub mask: Mask,
    /// Client operations at the most, in place of what the seed says.
    pub max_ops: Option<u64>,
}

#[derive(Clone, Debug)]
pub struct Options {
    pub seed: u64,
    pub mask: Mask,
    pub nodes: u16,
    pub racks: u16,
    pub partitions: u16,
    /// Per node.
    pub shards: Vec<u8>,
    pub ops: u64,
    pub clients: u64,
    pub think_us_max: u64,
    /// Keys that are written to at one time.
    pub keys_open: u64,
    /// After so many operations a key is left alone, and another takes its place.
    pub key_ops_max: u64,
    /// Of 10,000 operations.
    pub reads: u64,
    pub deletes: u64,
    pub expiring: u64,
    /// Whether some writes ask for `async`; a node that then loses what it acked takes a new actor.
    pub asynchronous: bool,
    /// Events that a shard handles before it commits.
    pub drain_max: usize,
    /// Frames of a link arrive in order, and all of them while it stands, as QUIC promises; or anyhow.
    pub ordered: bool,
    pub latency_us: (u64, u64),
    /// Of 10,000 frames.
    pub spikes: u64,
    pub lost: u64,
    pub repeated: u64,
    pub damaged: u64,
    pub fsync_us: (u64, u64),
    pub ping_every_ms: u64,
    pub idle_timeout_us: u64,
    pub redial_us: u64,
    pub operations_max: usize,
    pub hint_bytes_max: u64,
    pub page_bytes: u32,
    pub drift_ppm_max: i64,
    pub skew_ms_max: i64,
    pub clock_drift_max_ms: u64,
    /// Between two faults, about.
    pub fault_every_us: u64,
    /// Of a shard; 0 for no limit.
    pub repair_bytes_per_second: u64,
}

impl Options {
    pub fn derive(asked: &Asked) -> Self {
        let rng = &mut Rng::new(asked.seed, stream::OPTIONS);
        let mask = asked.mask;
        let nodes = *rng.pick(&[3, 3, 4, 5, 5, 6, 7]);
        let shards = (0..nodes).map(|_| *rng.pick(&[1, 1, 1, 1, 1, 2, 3])).collect();
        let near = rng.chance(7_000);
        let latency_us = if near { (20, rng.between(100, 2_000)) } else { (500, rng.between(5_000, 40_000)) };
        let on = |fault: Fault, value: u64| if mask.off(fault) { 0 } else { value };
        let ops = rng.between(1_000, 4_000);
        let drawn = Self {
            seed: asked.seed,
            mask,
            nodes,
            racks: rng.between(1, u64::from(nodes)) as u16,
            partitions: *rng.pick(&[1, 1, 2, 4, 8, 16]),
            shards,
            ops,
            clients: rng.between(8, 64),
            think_us_max: *rng.pick(&[500, 2_000, 10_000, 30_000]),
            keys_open: rng.between(2, 40),
            key_ops_max: rng.between(15, 60),
            reads: rng.between(3_000, 6_000),
            deletes: rng.between(300, 2_500),
            expiring: *rng.pick(&[0, 0, 500, 3_000]),
            asynchronous: rng.chance(3_000),
            drain_max: *rng.pick(&[1, 2, 8, 64]),
            ordered: rng.chance(6_000),
            latency_us,
            spikes: on(Fault::Delay, *rng.pick(&[0, 10, 100])),
            lost: on(Fault::Loss, *rng.pick(&[0, 20, 100, 400])),
            repeated: on(Fault::Repeat, *rng.pick(&[0, 20, 100, 400])),
            damaged: on(Fault::Damage, *rng.pick(&[0, 0, 1])),
            fsync_us: *rng.pick(&[(20, 100), (50, 500), (500, 5_000)]),
            ping_every_ms: *rng.pick(&[100, 250, 250, 500]),
            idle_timeout_us: rng.between(300_000, 3_000_000),
            redial_us: rng.between(20_000, 500_000),
            operations_max: *rng.pick(&[16, 64, 16_384, 16_384]),
            hint_bytes_max: *rng.pick(&[2_000, 1 << 20, 1 << 28]),
            page_bytes: *rng.pick(&[1, 200, 2_000, 1 << 18]),
            drift_ppm_max: on(Fault::Drift, *rng.pick(&[0, 100, 500, 20_000])) as i64,
            skew_ms_max: on(Fault::Drift, *rng.pick(&[0, 50, 2_000, 600_000])) as i64,
            clock_drift_max_ms: *rng.pick(&[200, 2_000, 60_000]),
            fault_every_us: rng.between(30_000, 600_000),
            repair_bytes_per_second: *rng.pick(&[0, 100_000, 20_000]),
        };
        Self { ops: asked.max_ops.map_or(drawn.ops, |most| most.min(drawn.ops)), ..drawn }
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shards = self.shards.iter().map(u8::to_string).collect::<Vec<_>>().join(",");
        writeln!(f, "seed {}, faults switched off: {}", self.seed, self.mask)?;
        writeln!(
            f,
            "  cluster: {} nodes in {} racks, {} partitions per n, shards {shards}, drains of {} events",
            self.nodes, self.racks, self.partitions, self.drain_max
        )?;
        writeln!(
            f,
            "  work: {} operations by {} clients that think up to {} us; {} keys at a time, {} operations each; of 10,000 \
             {} read, {} delete, {} of the puts expire; async: {}",
            self.ops,
            self.clients,
            self.think_us_max,
            self.keys_open,
            self.key_ops_max,
            self.reads,
            self.deletes,
            self.expiring,
            self.asynchronous
        )?;
        writeln!(
            f,
            "  network: {} in order, {} to {} us; of 10,000 frames {} late, {} lost, {} repeated, {} damaged; idle \
             timeout {} ms, redial after {} ms",
            if self.ordered { "all frames" } else { "frames not" },
            self.latency_us.0,
            self.latency_us.1,
            self.spikes,
            self.lost,
            self.repeated,
            self.damaged,
            self.idle_timeout_us / 1_000,
            self.redial_us / 1_000
        )?;
        writeln!(
            f,
            "  nodes: fsync {} to {} us, ping every {} ms, {} operations and {} bytes of hints at the most, pages of {} bytes, \
             {} bytes of repair a second",
            self.fsync_us.0,
            self.fsync_us.1,
            self.ping_every_ms,
            self.operations_max,
            self.hint_bytes_max,
            self.page_bytes,
            self.repair_bytes_per_second
        )?;
        write!(
            f,
            "  clocks: drift up to {} ppm, skew up to {} ms, {} ms taken for sound; a fault about every {} ms",
            self.drift_ppm_max,
            self.skew_ms_max,
            self.clock_drift_max_ms,
            self.fault_every_us / 1_000
        )
    }
}
