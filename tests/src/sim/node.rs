//! A node of the world: real kernels, one for each shard, over one simulated disk.

use super::clock::NodeClock;
use super::disk::{Batch, SimDisk};
use super::options::Options;
use super::rng::Rng;
use bytes::Bytes;
use quorate_node::kernel::{Effect, Event, Kernel, Now, ShardConfig};
use quorate_node::planted::{self, Bug};
use quorate_node::storage::StorageError;
use quorate_ring::id::{ActorId, NodeId, Partition};
use quorate_ring::placement::Layout;
use quorate_ring::version::Dot;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Where in a drain a node is going to die.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Point {
    /// Events were handled, nothing is committed.
    BeforeCommit,
    /// The batch is written, its fsync is under way.
    DuringCommit,
    /// Some of the effects were carried out.
    AmongEffects,
}

/// What dies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Death {
    Process,
    Machine,
}

/// Objects as the mint of an event left them, with its dot: later events of the drain may have changed them again.
pub type AtMint = BTreeMap<(Partition, Dot), Bytes>;

/// A drain whose commit is under way.
pub struct Committing {
    pub effects: Vec<Effect>,
    pub batch: Option<Batch>,
    /// What was minted, as it was then.
    pub minted: AtMint,
    /// The node's clock when it handled the events.
    pub handled: Now,
}

pub struct Shard {
    pub kernel: Kernel<SimDisk>,
    /// Events, and what each of them weighs.
    pub inbox: VecDeque<(usize, Event)>,
    pub inbox_bytes: usize,
    /// A drain is on its way.
    pub called: bool,
    pub committing: Option<Committing>,
}

pub struct SimNode {
    pub id: NodeId,
    pub running: bool,
    /// Counts the runs: what is meant for an earlier one does not reach this one.
    pub incarnation: u32,
    pub actor: ActorId,
    /// Shards that have yet to copy what this node may have forgotten.
    pub rebuilding: Vec<bool>,
    /// The disk has lost something that others may know of: the next run takes a new actor.
    pub forgot: bool,
    pub disk: SimDisk,
    pub clock: NodeClock,
    pub paused_until_us: u64,
    pub slow_until_us: u64,
    pub doomed: Option<(Point, Death)>,
    /// Batches that were let out without an fsync, as `async` asks for, and whether they enter dots.
    pub unsynced: Vec<(u64, bool)>,
    pub shards: Vec<Shard>,
}

impl SimNode {
    pub fn new(index: usize, options: &Options, rng: &mut Rng) -> Self {
        let id = NodeId(index as u16 + 1);
        let either = |rng: &mut Rng, most: i64| rng.between(0, 2 * most as u64) as i64 - most;
        let clock = NodeClock::new(
            either(rng, options.drift_ppm_max),
            either(rng, options.skew_ms_max),
            rng.below(1_000_000_000_000),
        );
        Self {
            id,
            running: false,
            incarnation: 0,
            actor: ActorId::new(id, rng.word()),
            rebuilding: vec![false; usize::from(options.shards[index])],
            forgot: false,
            disk: SimDisk::default(),
            clock,
            paused_until_us: 0,
            slow_until_us: 0,
            doomed: None,
            unsynced: Vec::new(),
            shards: Vec::new(),
        }
    }

    /// Starts the process. A node that may have forgotten takes a new actor, and rebuilds.
    pub fn start(&mut self, layout: &Arc<Layout>, options: &Options, rng: &mut Rng) -> Result<(), StorageError> {
        let fresh = ActorId::new(self.id, rng.word());
        if std::mem::take(&mut self.forgot) {
            if !planted::is(Bug::KeepActor) {
                self.actor = fresh;
            }
            self.rebuilding.fill(true);
        }
        let count = self.rebuilding.len() as u8;
        let seed = rng.word();
        self.shards.clear();
        for shard in 0..count {
            let config = ShardConfig {
                shard,
                shards: count,
                rebuilding: self.rebuilding[usize::from(shard)],
                ping_every: Duration::from_millis(options.ping_every_ms),
                operations_max: options.operations_max,
                hint_bytes_max: options.hint_bytes_max,
                page_bytes: options.page_bytes,
                // Some nodes have no value sent that they hold, the others all: what is written here is short.
                held_value_bytes: if self.id.0.is_multiple_of(2) { 0 } else { usize::MAX },
                repair_bytes_per_second: options.repair_bytes_per_second,
                clock_drift_max: Duration::from_millis(options.clock_drift_max_ms),
                ..ShardConfig::new(self.id, self.actor, seed)
            };
            let kernel = Kernel::open(config, layout.clone(), self.disk.of_shard(shard))?;
            self.shards.push(Shard { kernel, inbox: VecDeque::new(), inbox_bytes: 0, called: false, committing: None });
        }
        self.running = true;
        Ok(())
    }

    /// The process is no more. Returns the drains whose effects nobody will see.
    pub fn stop(&mut self) -> Vec<Committing> {
        self.running = false;
        self.incarnation += 1;
        (self.paused_until_us, self.slow_until_us, self.doomed) = (0, 0, None);
        self.shards.drain(..).filter_map(|shard| shard.committing).collect()
    }

    pub fn is_rebuilding(&self) -> bool {
        self.forgot || self.rebuilding.contains(&true)
    }
}
