//! A node from its start to its end: starts the shards and the planes, watches the machine, shuts down in order.

use super::clients;
use super::clock::{Clock, wall_ms};
use super::close::CloseCode;
use super::door::Door;
use super::driver::{self, News, Running, ShardLinks};
use super::endpoint::{EndpointError, Plane, client_plane, peer_plane};
use super::inbox::Inbox;
use super::plane::{Exchange, accept};
use super::router::Router;
use super::status::Facts;
use super::switchboard::{Outgoing, Switchboard};
use super::timed::Timed;
use super::tls::{Tls, TlsError, TlsFiles};
use super::{admin, machine, peers};
use crate::config::Config;
use crate::identity::{self, Claim, IdentityError, Opened};
use crate::kernel::{Event, Kernel, ShardConfig};
use crate::metrics::{Disk, Metrics};
use crate::storage::StorageError;
use metrics_exporter_prometheus::BuildError;
use quinn::{Endpoint, VarInt};
use quorate_ring::id::NodeId;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

/// Connections of one client address.
const CLIENT_CONNECTIONS_PER_IP_MAX: usize = 512;
/// News of the shards that were not taken yet.
const NEWS_MAX: usize = 64;
/// Looks at the disk, the memory, and folds the samples of the metrics.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// Gives freed memory back to the machine.
const MEMORY_RETURNED_EVERY: Duration = Duration::from_secs(30);
/// While the node drains.
const IDLE_ASKED_EVERY: Duration = Duration::from_millis(20);
/// For the last datagrams, the word of why the node goes among them.
const GOODBYE_TIME_MAX: Duration = Duration::from_secs(1);

/// How a node's run ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ended {
    /// It was asked to stop, and everything is written out.
    Stopped,
    /// The disk failed. Nothing was acknowledged since.
    StorageFailed(StorageError),
    /// It had forgotten, and has taken a new actor: start it again, and it rebuilds.
    Forgotten { why: String },
}

/// Why a node did not start, or did not end as it should.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("admin address {address} cannot be used: {cause}; is another node running there?")]
    Admin { address: SocketAddr, cause: io::Error },
    #[error("the machine does not give what the node needs: {0}")]
    Machine(#[from] io::Error),
    #[error("the metrics cannot be set up: {0}")]
    Metrics(#[from] BuildError),
}

/// Credentials of a node, checked against its place in the topology.
pub fn credentials(config: &Config) -> Result<Tls, TlsError> {
    let files = TlsFiles {
        certificate: &config.certificate,
        key: &config.key,
        node_ca: &config.node_ca,
        client_ca: &config.client_ca,
    };
    Tls::load(files, config.layout.topology().cluster, config.node.id)
}

/// Calls `with` what this node claims of a data folder.
pub fn with_claim<T>(
    config: &Config,
    with: impl FnOnce(Claim<'_>) -> Result<T, IdentityError>,
) -> Result<T, NodeError> {
    let topology = config.layout.topology();
    let boot = machine::boot()?;
    let claim = Claim {
        node: config.node.id,
        cluster: topology.cluster,
        random: machine::random()?,
        boot: &boot,
        memory: config.memory,
    };
    Ok(with(claim)?)
}

/// Runs a node until it is told to stop by SIGTERM or SIGINT, or has to.
pub async fn run(config: &Config) -> Result<Ended, NodeError> {
    let tls = credentials(config)?;
    let mut stop = Stop::listen()?;
    let opened = with_claim(config, |claim| identity::open(&config.data, claim))?;
    if let Some(why) = &opened.forgot {
        tracing::warn!(why, actor = %opened.identity.actor, "this folder may have forgotten: new actor, rebuilding");
    }
    tell_what_is_excused(config, opened.identity.rebuilding);
    let (news_sender, news) = mpsc::channel(NEWS_MAX);
    let shards = Shards::prepare(config, Clock::start())?;
    let mut node = Node::start(config, &tls, opened, shards, news_sender).await?;
    let topology = config.layout.topology();
    tracing::info!(
        node = config.node.name, cluster = %topology.cluster, epoch = %topology.epoch, actor = %node.opened.identity.actor,
        rebuilding = node.opened.identity.rebuilding, clients = %config.node.client_address,
        peers = %config.node.peer_address, admin = %config.admin_address, "node started"
    );
    let end = node.watch(config, news, &mut stop).await?;
    node.end(config, end, &mut stop).await
}

/// Says what an operator's excuse may cost, or that there is nothing to excuse.
fn tell_what_is_excused(config: &Config, rebuilding: bool) {
    let name = |id: &NodeId| config.layout.topology().node(*id).map_or_else(|| id.to_string(), |n| n.name.clone());
    let excused = config.excused.iter().map(name).collect::<Vec<_>>().join(", ");
    match (excused.is_empty(), rebuilding) {
        (true, _) => {}
        (false, true) => tracing::warn!(
            excused,
            "rebuilding without these nodes, unless they answer: what only they and the lost disk of this node held is \
             lost, also if it was acknowledged by W = 2; should they come back with their data, it is found again"
        ),
        (false, false) => tracing::info!(excused, "this node is not rebuilding: there is nothing to excuse"),
    }
}

/// SIGTERM and SIGINT.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn asked(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// What the shards and the connections meet in.
struct Shards {
    clock: Clock,
    facts: Arc<Facts>,
    metrics: Arc<Metrics>,
    board: Arc<Switchboard>,
    inboxes: Vec<Arc<Inbox>>,
    idle: Vec<Arc<AtomicBool>>,
}

impl Shards {
    fn prepare(config: &Config, clock: Clock) -> Result<Self, NodeError> {
        let others = config.layout.topology().nodes.iter().filter(|node| node.id != config.node.id);
        let others = others.map(|node| (node.id, node.name.clone()));
        let metrics = match config.metrics {
            true => Metrics::new(others, wall_ms())?,
            false => Metrics::off(),
        };
        let metrics = Arc::new(metrics);
        let facts = Arc::new(Facts::new(config.node.name.clone(), clock));
        let limit = config.memory.inbox_bytes / usize::from(config.shards);
        Ok(Self {
            clock,
            board: Arc::new(Switchboard::new(facts.clone(), metrics.clone())),
            facts,
            metrics,
            inboxes: (0..config.shards).map(|_| Arc::new(Inbox::new(limit, config.repair_share_percent))).collect(),
            idle: (0..config.shards).map(|_| Arc::new(AtomicBool::new(false))).collect(),
        })
    }

    fn start(&self, config: &Config, opened: &Opened, news: &mpsc::Sender<News>) -> Result<Vec<Running>, NodeError> {
        let mut running = Vec::new();
        for (shard, (inbox, idle)) in (0..config.shards).zip(self.inboxes.iter().zip(&self.idle)) {
            let identity = opened.identity;
            let shard_config = ShardConfig {
                shard,
                shards: config.shards,
                rebuilding: identity.rebuilding,
                measured: config.metrics,
                canary: config.canary_bucket,
                excused: config.excused.clone(),
                repair_bytes_per_second: config.repair_bytes_per_second.div_ceil(u64::from(config.shards)),
                ..ShardConfig::new(identity.node, identity.actor, machine::random()?)
            };
            let storage = Timed::new(opened.storage.clone(), self.metrics.clone());
            let kernel = Kernel::open(shard_config, config.layout.clone(), storage.clone())?;
            let links = ShardLinks {
                shard,
                inbox: inbox.clone(),
                clock: self.clock,
                outgoing: Outgoing::new(self.board.clone()),
                metrics: self.metrics.clone(),
                news: news.clone(),
                idle: idle.clone(),
            };
            let alone = config.shards == 1;
            running.push(if alone {
                driver::start_here(kernel, storage, links)
            } else {
                driver::start(kernel, links)?
            });
        }
        Ok(running)
    }
}

/// A node that runs.
struct Node {
    opened: Opened,
    shards: Shards,
    running: Vec<Running>,
    exchange: Arc<Exchange>,
    endpoints: [Endpoint; 2],
    doors: [(Plane, Arc<Door>); 2],
    /// Dials the other nodes; ended before the endpoints are, so that nothing is dialled on the way out.
    dialling: JoinSet<()>,
    serving: JoinSet<()>,
    joined: BTreeSet<u8>,
    reserve_reached: bool,
}

/// Why the node stops.
enum Reason {
    Asked(&'static str),
    StorageFailed(StorageError),
    Amnesia(String),
}

impl Node {
    async fn start(
        config: &Config,
        tls: &Tls,
        opened: Opened,
        shards: Shards,
        news: mpsc::Sender<News>,
    ) -> Result<Self, NodeError> {
        let address = config.admin_address;
        let listener = TcpListener::bind(address).await.map_err(|cause| NodeError::Admin { address, cause })?;
        let clients = client_plane(config.node.client_address, tls)?;
        let (peer, dialler) = peer_plane(config.node.peer_address, tls)?;
        let running = shards.start(config, &opened, &news)?;
        let tunables = ShardConfig::new(config.node.id, opened.identity.actor, 0);
        shards.metrics.limits(tls.expires_s, tunables.hint_bytes_max, config.memory.bytes);
        let router = Router::new(config.layout.clone(), shards.inboxes.clone(), shards.board.clone());
        let (metrics, board) = (shards.metrics.clone(), shards.board.clone());
        let exchange = Arc::new(Exchange::new(config.node.id, shards.clock, router, board, metrics));
        let nodes = &config.layout.topology().nodes;
        let client_door = Door::new(config.client_connections_max, CLIENT_CONNECTIONS_PER_IP_MAX);
        let peer_door = Door::new(4 * nodes.len() + 16, 4 * nodes.len() + 16);
        let (mut serving, mut dialling) = (JoinSet::new(), JoinSet::new());
        serving.spawn(admin::serve(listener, exchange.clone()));
        serving.spawn(accept(clients.clone(), Plane::Client, client_door.clone(), exchange.clone(), clients::serve));
        serving.spawn(accept(peer.clone(), Plane::Peer, peer_door.clone(), exchange.clone(), peers::serve));
        for other in nodes.iter().filter(|other| other.id != config.node.id) {
            dialling.spawn(peers::keep_dialling(exchange.clone(), dialler.clone(), other.clone()));
        }
        Ok(Self {
            opened,
            shards,
            running,
            exchange,
            endpoints: [clients, peer],
            doors: [(Plane::Client, client_door), (Plane::Peer, peer_door)],
            dialling,
            serving,
            joined: BTreeSet::new(),
            reserve_reached: false,
        })
    }

    /// Until there is a reason to stop.
    async fn watch(
        &mut self,
        config: &Config,
        mut news: mpsc::Receiver<News>,
        stop: &mut Stop,
    ) -> Result<Reason, NodeError> {
        let mut tick = interval(WATCH_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut memory = interval(MEMORY_RETURNED_EVERY);
        memory.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                signal = stop.asked() => return Ok(Reason::Asked(signal)),
                _ = tick.tick() => self.look_around(config),
                _ = memory.tick() => machine::return_free_memory(),
                told = news.recv() => match told.expect("the shards hold a sender for as long as they run") {
                    News::StorageFailed(error) => return Ok(Reason::StorageFailed(error)),
                    News::Amnesia { peer, partition, remembered, known } => {
                        return Ok(Reason::Amnesia(format!(
                            "{peer} knows {known} events of this node in partition {partition}, and it remembers {remembered}"
                        )));
                    }
                    News::Joined { shard } => self.shard_joined(shard)?,
                },
            }
        }
    }

    fn shard_joined(&mut self, shard: u8) -> Result<(), NodeError> {
        self.joined.insert(shard);
        if self.joined.len() == self.shards.inboxes.len() {
            self.opened.mark_joined()?;
            tracing::info!("rebuilt: every partition was copied from all other owners; serving again");
        }
        Ok(())
    }

    fn look_around(&mut self, config: &Config) {
        let facts = &self.shards.facts;
        let (free, size) = match machine::disk_bytes(&config.data) {
            Ok(bytes) => bytes,
            Err(error) => return tracing::error!(%error, "the free space of the disk is not known"),
        };
        let resident = machine::resident_bytes();
        facts.disk_bytes_free.store(free, Ordering::Relaxed);
        facts.resident_bytes.store(resident, Ordering::Relaxed);
        facts.keys_estimate.store(self.opened.storage.keys_estimate(), Ordering::Relaxed);
        let disk = Disk { free, size, reserve: config.disk_reserve_bytes };
        self.shards.metrics.machine(disk, resident);
        if config.metrics {
            self.shards.metrics.storage(&self.opened.storage.health());
        }
        for (plane, door) in &self.doors {
            self.shards.metrics.connections(plane.name(), door.connections());
        }
        self.shards.metrics.upkeep();
        let reached = free < config.disk_reserve_bytes;
        if reached != self.reserve_reached {
            self.reserve_reached = reached;
            self.exchange.router.tell_all(&Event::DiskReserve { reached });
            let reserve = config.disk_reserve_bytes;
            match reached {
                true => tracing::error!(free, reserve, "the disk is nearly full: client writes are refused; make room"),
                false => tracing::info!(free, reserve, "there is room on the disk again: client writes go on"),
            }
        }
    }

    async fn end(mut self, config: &Config, reason: Reason, stop: &mut Stop) -> Result<Ended, NodeError> {
        match reason {
            Reason::Asked(signal) => {
                tracing::info!(signal, "shutting down: new requests are refused, what is under way is finished");
                self.drain(config.drain, stop).await;
                self.leave("the node is shutting down; ask another").await;
                self.stop_shards().await;
                self.opened.close()?;
                tracing::info!("stopped; everything is written out");
                Ok(Ended::Stopped)
            }
            Reason::StorageFailed(error) => {
                tracing::error!(%error, data = %config.data.display(), "the disk failed; nothing is acknowledged any more. \
                    Check the disk, and that it has room; then start the node again, which reads back what was acknowledged");
                self.leave("the disk of this node failed; ask another").await;
                self.stop_shards().await;
                Ok(Ended::StorageFailed(error))
            }
            Reason::Amnesia(why) => {
                tracing::error!(
                    why,
                    "this node has forgotten: it takes a new actor, and rebuilds when it is started again"
                );
                self.leave("the node has forgotten, and will rebuild; ask another").await;
                self.stop_shards().await;
                drop(self);
                with_claim(config, |claim| identity::forget(&config.data, claim))?;
                Ok(Ended::Forgotten { why })
            }
        }
    }

    /// Waits until nothing is under way and every reply is written; a second signal ends the waiting.
    async fn drain(&self, most: Duration, stop: &mut Stop) {
        self.exchange.router.tell_all(&Event::Drain);
        let until = Instant::now() + most;
        while Instant::now() < until {
            let idle = self.shards.idle.iter().all(|idle| idle.load(Ordering::Acquire));
            if idle && self.shards.board.queued() == 0 {
                return;
            }
            tokio::select! {
                () = sleep(IDLE_ASKED_EVERY) => {}
                signal = stop.asked() => return tracing::warn!(signal, "not waiting any longer"),
            }
        }
        tracing::warn!(seconds = most.as_secs(), "something is still under way; not waiting any longer");
    }

    /// Closes every connection, with a reason.
    async fn leave(&mut self, reason: &str) {
        self.dialling.shutdown().await;
        for endpoint in &self.endpoints {
            endpoint.close(VarInt::from_u32(CloseCode::ShuttingDown as u32), reason.as_bytes());
        }
        let [clients, peers] = &self.endpoints;
        let _late = timeout(GOODBYE_TIME_MAX, async { tokio::join!(clients.wait_idle(), peers.wait_idle()) }).await;
        self.serving.shutdown().await;
    }

    async fn stop_shards(&mut self) {
        self.shards.inboxes.iter().for_each(|inbox| inbox.close());
        for running in std::mem::take(&mut self.running) {
            let stopped = match running {
                Running::Task(task) => task.await.is_ok(),
                Running::Thread(thread) => {
                    let joined = tokio::task::spawn_blocking(move || thread.join().is_ok()).await;
                    matches!(joined, Ok(true))
                }
            };
            debug_assert!(stopped, "a shard that panics aborts the process");
        }
    }
}
