//! The shard kernel: one single-threaded state machine that decides; whoever drives it acts.
//!
//! A driver drains its inbox, hands each event to [`Kernel::handle`], then calls [`Kernel::commit`] once, and only then
//! carries out the effects; those from before anything was staged ([`Kernel::settled`]) it may carry out at once, and so
//! those of what a commit under way does not concern ([`Kernel::meanwhile`]).
//! Nothing that carries a dot, a context or a clock leaves before the batch that it stems from is committed: there is no
//! other way out of here. Inside there is no clock, no entropy, no socket and no lock.

mod account;
mod ages;
mod canary;
mod clocks;
mod collect;
mod event;
mod exchange;
mod hints;
mod late;
mod logs;
mod meanwhile;
mod operations;
mod pace;
mod peers;
mod reads;
mod repair;
mod writes;

pub use event::{
    Asked, Consistency, Effect, Event, Measure, Now, Outcome, RequestId, SessionId, Timer, WriteOp, weight,
};

use crate::coordinator::Origin;
use crate::coordinator::put::Minted;
use crate::liveness::Liveness;
use crate::planted::{self, Bug};
use crate::replica::Replica;
use crate::storage::{Batch, MetaKey, Read, Staged, Storage, StorageError, Table};
use ages::Ages;
use canary::Canary;
use clocks::Clocks;
use exchange::PAGE_BYTES;
use hints::Hints;
use late::LatePuts;
use operations::Operation;
use quorate_ring::id::{ActorId, BucketId, NodeId, Partition};
use quorate_ring::placement::Layout;
use quorate_ring::topology::Durability;
use quorate_ring::version::Hlc;
use quorate_ring::wire::client::{ClientReply, ClientRequest};
use quorate_ring::wire::failure::Refusal;
use quorate_ring::wire::peer::{PeerReply, Replicated};
use repair::Repair;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// The usual [`ShardConfig::held_value_bytes`]: naming a value takes some 15 bytes, and looking it up.
pub const HELD_VALUE_BYTES: usize = 1024;

/// Who this shard is, and its tunables.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    pub node: NodeId,
    pub actor: ActorId,
    /// 0 to `shards` - 1.
    pub shard: u8,
    pub shards: u8,
    /// Where the request numbers of this run begin, so that answers to an earlier run are not taken for ours.
    pub seed: u64,
    /// The node may have forgotten: it takes replicated writes, and neither reads nor mints.
    pub rebuilding: bool,
    /// Owners that a rebuilding node does not wait for, on an operator's word: what only they hold may be missed.
    pub excused: BTreeSet<NodeId>,
    pub ping_every: Duration,
    /// Phi from which a peer is taken for down.
    pub phi_threshold: f64,
    /// An owner that has not answered a read for this long is not waited for alone.
    pub read_patience: Duration,
    /// Requests under way, beyond which new ones are refused.
    pub operations_max: usize,
    /// How far a timestamp may be ahead of the wall clock before it no longer moves our own.
    pub clock_drift_max: Duration,
    /// Hints kept for one node, beyond which new ones for it are refused; a hint that counted is never dropped.
    pub hint_bytes_max: u64,
    /// Objects in one page of a pull or a full sync, about; up to 256 KiB.
    pub page_bytes: u32,
    /// An owner that is asked by a read leaves out values of so many bytes or more that the coordinator has already.
    pub held_value_bytes: usize,
    /// Acks are timed, also those that come when the client has its answer already.
    pub measured: bool,
    /// The bucket of the canary, if there is to be one.
    pub canary: Option<BucketId>,
    /// What pulls, full syncs and handoffs of this shard may move in a second, about; 0 for no limit.
    pub repair_bytes_per_second: u64,
}

impl ShardConfig {
    /// One shard with the usual tunables.
    pub fn new(node: NodeId, actor: ActorId, seed: u64) -> Self {
        Self {
            node,
            actor,
            shard: 0,
            shards: 1,
            seed,
            rebuilding: false,
            excused: BTreeSet::new(),
            ping_every: Duration::from_millis(250),
            phi_threshold: 8.0,
            read_patience: Duration::from_millis(100),
            operations_max: 16_384,
            clock_drift_max: Duration::from_secs(60),
            hint_bytes_max: 256 * 1024 * 1024,
            page_bytes: PAGE_BYTES,
            held_value_bytes: HELD_VALUE_BYTES,
            measured: true,
            canary: None,
            repair_bytes_per_second: 0,
        }
    }
}

/// Which of a node's shards has a partition.
pub fn shard_of(partition: Partition, shards: u8) -> u8 {
    (partition.index % u16::from(shards)) as u8
}

/// As much of a seed as request numbers begin with.
const SEED_MASK: u64 = 0xffff_ffff_ffff;

/// Counted since the start, for the status.
#[derive(Debug, Default)]
struct Counters {
    writes: u64,
    reads: u64,
    replicated: u64,
    set_aside: u64,
    read_repairs: u64,
}

/// An ack that is due once the batch is committed.
#[derive(Debug)]
struct PendingAck {
    to: NodeId,
    request: RequestId,
    arrived: Duration,
    durability: Durability,
}

/// The state machine of one shard.
pub struct Kernel<S: Storage> {
    config: ShardConfig,
    layout: Arc<Layout>,
    store: Staged<S>,
    /// The partitions of this shard that this node owns.
    replicas: BTreeMap<Partition, Replica>,
    liveness: Liveness,
    clocks: Clocks,
    repair: Repair,
    hints: Hints,
    late: LatePuts,
    ages: Ages,
    canary: Canary,
    operations: BTreeMap<u64, Operation>,
    next_operation: u64,
    /// Writes minted in this drain, whose batch is not committed yet.
    minted: Vec<u64>,
    acks: Vec<PendingAck>,
    /// The batch of this drain has to be fsynced.
    sync: bool,
    hlc: Hlc,
    /// Above every timestamp that this node gave out; in the store.
    hlc_mark: Hlc,
    /// When it was last asked for something.
    busy: Duration,
    draining: bool,
    disk_reserve: bool,
    /// A peer remembers more of this actor than we do: only a new actor may go on.
    forgotten: bool,
    counters: Counters,
}

impl<S: Storage> Kernel<S> {
    /// Rebuilds the clocks of this shard's partitions from the store.
    pub fn open(config: ShardConfig, layout: Arc<Layout>, storage: S) -> Result<Self, StorageError> {
        let config = ShardConfig { rebuilding: config.rebuilding && !planted::is(Bug::ServeAfterWipe), ..config };
        let store = Staged::new(storage);
        let peers = layout.topology().nodes.iter().map(|node| node.id).filter(|id| *id != config.node);
        let liveness = Liveness::new(peers, config.phi_threshold, config.ping_every);
        let (from, to) = MetaKey::hlc_marks();
        let marks = store.scan(Table::Meta, &from, &to, usize::MAX)?;
        let mark = |(_, bytes): &(_, bytes::Bytes)| bytes[..].try_into().map_or(0, u64::from_be_bytes);
        let hlc_mark = Hlc(marks.iter().map(mark).max().unwrap_or(0));
        let next_operation = config.seed & SEED_MASK;
        let mut kernel = Self {
            layout,
            store,
            replicas: BTreeMap::new(),
            liveness,
            clocks: Clocks::default(),
            repair: Repair::new(config.repair_bytes_per_second),
            hints: Hints::default(),
            late: LatePuts::default(),
            ages: Ages::default(),
            canary: Canary::default(),
            operations: BTreeMap::new(),
            next_operation,
            minted: Vec::new(),
            acks: Vec::new(),
            sync: false,
            hlc: hlc_mark,
            hlc_mark,
            busy: Duration::ZERO,
            draining: false,
            disk_reserve: false,
            forgotten: false,
            counters: Counters::default(),
            config,
        };
        kernel.load_replicas()?;
        kernel.load_hints()?;
        Ok(kernel)
    }

    fn load_replicas(&mut self) -> Result<(), StorageError> {
        let layout = self.layout.clone();
        for (partition, list) in layout.partitions() {
            let mine = list.is_owner(self.config.node) && shard_of(partition, self.config.shards) == self.config.shard;
            if mine && !self.replicas.contains_key(&partition) {
                let mut replica = Replica::load(&self.store, partition)?;
                replica.load_syncs(&mut self.store, self.config.actor, self.config.rebuilding)?;
                self.clocks.track(partition, replica.clock());
                self.replicas.insert(partition, replica);
            }
        }
        Ok(())
    }

    /// Takes one event. What is to be done about it is appended to `effects`, and held back until `commit`.
    pub fn handle(&mut self, now: Now, event: Event, effects: &mut Vec<Effect>) -> Result<(), StorageError> {
        match event {
            Event::Started => return self.tick(now, effects),
            Event::Client { from, request, arrived, message } => {
                return self.client_request(now, Origin::Client { session: from, request }, arrived, message, effects);
            }
            Event::ClientCancelled { from, request } => {
                self.forget_origin(|o| *o == Origin::Client { session: from, request });
            }
            Event::ClientGone { from } => {
                self.forget_origin(|o| matches!(o, Origin::Client { session, .. } if *session == from));
            }
            Event::PeerRequest { from, request, arrived, message } => {
                return self.peer_request(now, from, request, arrived, message, effects);
            }
            Event::PeerReply { from, request, message } => {
                return self.peer_reply(now, from, request, message, effects);
            }
            Event::LinkUp { peer } => self.link_up(now, peer, effects),
            Event::LinkDown { peer } => return self.link_down(now, peer, effects),
            Event::Fired { timer: Timer::Tick } => return self.tick(now, effects),
            Event::Fired { timer: Timer::Canary } => self.canary_fired(now, effects),
            Event::Fired { timer: Timer::Collect } => return self.collect(now, effects),
            Event::Fired { timer: Timer::Operation(number) } => return self.operation_fired(now, number, effects),
            Event::Layout(layout) => {
                self.layout = layout;
                return self.load_replicas();
            }
            Event::DiskReserve { reached } => self.disk_reserve = reached,
            Event::Drain => self.draining = true,
        }
        Ok(())
    }

    /// Whether all effects so far stem from what is committed: nothing is staged, and nothing waits for a commit.
    pub fn settled(&self) -> bool {
        self.store.is_empty() && self.minted.is_empty() && self.acks.is_empty() && !self.sync
    }

    /// Commits what the events since the last commit staged, in one batch; then the effects may be carried out.
    ///
    /// `clock` is asked for the time after the commit.
    pub fn commit(&mut self, clock: &mut dyn FnMut() -> Now, effects: &mut Vec<Effect>) -> Result<(), StorageError> {
        if let Some(batch) = self.batch() {
            self.store.write(&batch)?;
        }
        self.committed(clock, effects);
        Ok(())
    }

    /// The batch of what the events since the last one staged; none if there is nothing to write. It is for a driver that
    /// commits it on another thread, and then calls `committed`; in between it may call `meanwhile`, and nothing else.
    pub fn batch(&mut self) -> Option<Batch> {
        if planted::is(Bug::AckBeforeCommit) && !self.acks.is_empty() {
            return None;
        }
        self.store.take(std::mem::take(&mut self.sync))
    }

    /// Appends what may be said only after the commit: acks, and the writes that go out to other owners.
    pub fn committed(&mut self, clock: &mut dyn FnMut() -> Now, effects: &mut Vec<Effect>) {
        self.store.landed();
        if self.acks.is_empty() && self.minted.is_empty() {
            return;
        }
        let now = clock();
        for ack in std::mem::take(&mut self.acks) {
            let took_us = now.mono.saturating_sub(ack.arrived).as_micros() as u64;
            let message = PeerReply::Replicated(Replicated { durability: ack.durability, took_us });
            effects.push(Effect::PeerReply { to: ack.to, request: ack.request, message });
        }
        for number in std::mem::take(&mut self.minted) {
            self.put_committed(now, number, effects);
        }
    }

    /// Nothing is under way.
    pub fn idle(&self) -> bool {
        !self.operations.values().any(Operation::serves_a_client)
    }

    /// Operations under way, of clients and of its own; at most `operations_max` of clients.
    pub fn under_way(&self) -> usize {
        self.operations.len()
    }

    /// This node's copies, for checks.
    pub fn replicas(&self) -> impl Iterator<Item = (Partition, &Replica)> {
        self.replicas.iter().map(|(partition, replica)| (*partition, replica))
    }

    /// This node's copy of one partition, if it is of this shard.
    pub fn replica(&self, partition: Partition) -> Option<&Replica> {
        self.replicas.get(&partition)
    }

    /// Writes that wait for the commit, as they were minted, for checks: by the commit other events may have changed
    /// their objects again.
    pub fn staged_writes(&self) -> impl Iterator<Item = (Partition, &Minted)> {
        self.minted.iter().filter_map(|number| match self.operations.get(number) {
            Some(Operation::Put(put)) => Some((put.plan.route.partition, put.minted())),
            Some(_) | None => None,
        })
    }

    pub fn store(&self) -> &Staged<S> {
        &self.store
    }

    fn client_request(
        &mut self,
        now: Now,
        origin: Origin,
        arrived: Duration,
        message: ClientRequest,
        effects: &mut Vec<Effect>,
    ) -> Result<(), StorageError> {
        if !matches!(message, ClientRequest::Status(_)) {
            self.busy = now.mono;
        }
        let answer = match message {
            ClientRequest::Write(write) => return self.write(now, origin, arrived, write, effects),
            ClientRequest::Read(read) => return self.read(now, origin, arrived, &read, effects),
            ClientRequest::Scan(scan) => match self.scan(&scan)? {
                Ok(page) => ClientReply::Page(page),
                Err(refusal) => ClientReply::Refused(refusal),
            },
            ClientRequest::Log(log) => match self.log_page(&log)? {
                Ok(page) => ClientReply::LogPage(page),
                Err(refusal) => ClientReply::Refused(refusal),
            },
            ClientRequest::Status(_) => ClientReply::Status(Box::new(self.status(now, None))),
            ClientRequest::Repair(repair) => {
                self.repair_at_once(now, repair.partition, effects)?;
                ClientReply::Status(Box::new(self.status(now, repair.partition)))
            }
            ClientRequest::Hello(_) | ClientRequest::Cancel(_) => {
                ClientReply::Refused(Refusal::Malformed("hello comes first, and once".to_string()))
            }
        };
        if let Origin::Client { session, request } = origin {
            effects.push(Effect::ClientReply { to: session, request, message: answer });
        }
        Ok(())
    }

    /// Work that a client asked for, and that can be refused for now.
    fn admit(&self) -> Result<(), Refusal> {
        if self.draining {
            return Err(Refusal::ShuttingDown);
        }
        if self.operations.len() >= self.config.operations_max {
            return Err(Refusal::Overloaded { retry_after_ms: 100 });
        }
        Ok(())
    }
}
