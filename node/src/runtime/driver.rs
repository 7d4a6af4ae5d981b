//! What drives a shard: it owns the kernel, and nobody else touches it.
//!
//! Drain the inbox, handle each event, commit once, and only then carry out the effects: one fsync for all writes of
//! the drain. Reads and acks come first, and what comes of them goes out before that fsync begins.
//!
//! The only shard of a node is a task beside its connections, on one thread: handing each request from thread to thread
//! costs more than the request. Its batches are committed on another thread, so that connections are served meanwhile,
//! and so are acks and reads: they would otherwise wait for the end of a commit that is none of their own.
//! Of several shards each has a thread, and commits there.

use super::alarm::Alarm;
use super::clock::{Clock, FrequentClock};
use super::inbox::{Drained, Inbox};
use super::switchboard::Outgoing;
use super::timers::Timers;
use super::trail;
use crate::kernel::{Effect, Event, Kernel, weight};
use crate::metrics::Metrics;
use crate::storage::{Batch, Storage, StorageError};
use quorate_ring::id::{NodeId, Partition};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc;

/// Timers handled between two commits at the most.
const FIRED_MAX: usize = 1024;
/// Events, and their bytes, that wait for the end of a commit after they were looked at. Beyond it no more reads are taken
/// meanwhile: so the next batch has room for others.
const NEXT_MAX: usize = 64;
const NEXT_BYTES_MAX: usize = 1024 * 1024;

/// What a shard has to tell the node that it is part of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum News {
    /// The disk failed; the shard has stopped, and has acknowledged nothing since.
    StorageFailed(StorageError),
    /// A peer remembers more of this node than it does itself.
    Amnesia { peer: NodeId, partition: Partition, remembered: u64, known: u64 },
    /// The partitions of this shard are rebuilt.
    Joined { shard: u8 },
}

/// What a shard needs beside its kernel.
pub struct ShardLinks {
    pub shard: u8,
    pub inbox: Arc<Inbox>,
    pub clock: Clock,
    pub outgoing: Outgoing,
    pub metrics: Arc<Metrics>,
    pub news: mpsc::Sender<News>,
    /// Set while the node drains and the shard has nothing under way.
    pub idle: Arc<AtomicBool>,
}

/// A shard at work. It ends when its inbox is closed, or the disk fails.
pub enum Running {
    Thread(JoinHandle<()>),
    Task(tokio::task::JoinHandle<()>),
}

/// Starts a shard on a thread of its own.
pub fn start<S: Storage + Send + 'static>(kernel: Kernel<S>, links: ShardLinks) -> std::io::Result<Running> {
    let name = format!("shard-{}", links.shard);
    let mut driver = Driver::new(kernel, links);
    let work = move || {
        let _guard = AbortOnPanic;
        let served = driver.serve();
        driver.ended(served);
    };
    Ok(Running::Thread(std::thread::Builder::new().name(name).spawn(work)?))
}

/// Starts a shard as a task. `disk` is the storage of the kernel.
pub fn start_here<S: Storage + Clone + Send + 'static>(kernel: Kernel<S>, disk: S, links: ShardLinks) -> Running {
    let mut driver = Driver::new(kernel, links);
    Running::Task(tokio::spawn(async move {
        let _guard = AbortOnPanic;
        let served = driver.serve_here(disk).await;
        driver.ended(served);
    }))
}

/// A shard that panicked is in no state to go on, and the node is none without it.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

struct Driver<S: Storage> {
    kernel: Kernel<S>,
    links: ShardLinks,
    clock: FrequentClock,
    timers: Timers,
    effects: Vec<Effect>,
    /// Of the batch that is handled, what waits until reads and acks are through.
    others: Vec<Event>,
    /// What came while a batch was committed, and has to wait for its end.
    next: Vec<Event>,
    draining: bool,
    /// Someone wants to read the trail of requests.
    trail: bool,
}

impl<S: Storage> Driver<S> {
    fn new(kernel: Kernel<S>, links: ShardLinks) -> Self {
        let (timers, effects, others, next) = (Timers::default(), Vec::new(), Vec::new(), Vec::new());
        let clock = FrequentClock::new(links.clock);
        Self { kernel, links, clock, timers, effects, others, next, draining: false, trail: false }
    }

    fn ended(&self, served: Result<(), StorageError>) {
        if let Err(error) = served {
            self.tell(News::StorageFailed(error));
        }
    }

    fn serve(&mut self) -> Result<(), StorageError> {
        let mut batch = vec![Event::Started];
        let clock = self.links.clock;
        loop {
            let handled = self.handle(&mut batch)?;
            self.kernel.commit(&mut || clock.now(), &mut self.effects)?;
            let wait = self.committed(handled);
            if self.links.inbox.drain(wait, &mut batch) == Drained::Closed {
                return Ok(());
            }
        }
    }

    async fn serve_here<D: Storage + Clone + Send + 'static>(&mut self, disk: D) -> Result<(), StorageError> {
        let (mut batch, mut alarm) = (vec![Event::Started], Alarm::default());
        let clock = self.links.clock;
        loop {
            let handled = self.handle(&mut batch)?;
            if let Some(rows) = self.kernel.batch() {
                self.commit_here(disk.clone(), rows).await?;
            }
            self.kernel.committed(&mut || clock.now(), &mut self.effects);
            let wait = self.committed(handled);
            batch.append(&mut self.next);
            if self.links.inbox.drain_here(wait, &mut alarm, &mut batch).await == Drained::Closed {
                return Ok(());
            }
        }
    }

    /// Commits a batch; meanwhile acks of earlier ones go through, and reads that it does not concern.
    async fn commit_here<D: Storage + Send + 'static>(&mut self, disk: D, rows: Batch) -> Result<(), StorageError> {
        let inbox = self.links.inbox.clone();
        let mut committed = std::pin::pin!(commit(disk, rows));
        let mut first = Vec::new();
        loop {
            let reads = self.next.len() < NEXT_MAX && self.next.iter().map(weight).sum::<usize>() < NEXT_BYTES_MAX;
            tokio::select! {
                biased;
                done = &mut committed => return done,
                () = inbox.first_here(reads, &mut first) => {}
            }
            let held = std::mem::take(&mut self.effects);
            for event in first.drain(..) {
                let now = self.clock.now();
                let trailed = self.trail.then(|| event.clone());
                match self.kernel.meanwhile(now, event, &mut self.effects)? {
                    Some(other) => self.next.push(other),
                    None => trailed.iter().for_each(trail::event),
                }
            }
            self.release();
            self.effects = held;
            // What came to be sent is sent, and what arrives is taken together.
            tokio::task::yield_now().await;
        }
    }

    /// Handles one batch, and what timers have to say. Returns how many events that were.
    fn handle(&mut self, batch: &mut Vec<Event>) -> Result<usize, StorageError> {
        let events = batch.len();
        self.trail = trail::wanted();
        if self.trail {
            batch.iter().for_each(trail::event);
        }
        for event in batch.drain(..) {
            if !event.comes_first() {
                self.others.push(event);
                continue;
            }
            let now = self.clock.now();
            if let Some(event) = self.kernel.ack_meanwhile(now, event, &mut self.effects) {
                // An ack of something else than a put is work: it would have the reads wait for the disk.
                if event.is_ack() {
                    self.others.push(event);
                } else {
                    self.kernel.handle(now, event, &mut self.effects)?;
                }
            }
        }
        if self.kernel.settled() {
            self.release();
        }
        for event in self.others.drain(..) {
            self.draining |= matches!(event, Event::Drain);
            self.kernel.handle(self.clock.now(), event, &mut self.effects)?;
        }
        Ok(events + self.fire()?)
    }

    /// Carries out what `handled` events came to. Returns how long until a timer fires.
    fn committed(&mut self, handled: usize) -> Option<Duration> {
        self.release();
        if self.draining {
            self.links.idle.store(self.kernel.idle(), Ordering::Release);
        }
        if handled > 0 {
            self.links.metrics.drained(handled);
        }
        self.timers.wait(self.links.clock.mono())
    }

    /// There is room for all that shards ever have to tell; if not, the node ends already.
    fn tell(&self, news: News) {
        let _node_ends_already = self.links.news.try_send(news);
    }

    fn fire(&mut self) -> Result<usize, StorageError> {
        let due = self.links.clock.mono();
        for fired in 0..FIRED_MAX {
            let Some(timer) = self.timers.fire(due) else { return Ok(fired) };
            self.kernel.handle(self.clock.now(), Event::Fired { timer }, &mut self.effects)?;
        }
        Ok(FIRED_MAX)
    }

    /// Carries out what is committed.
    fn release(&mut self) {
        if self.trail {
            self.effects.iter().for_each(trail::effect);
        }
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            let out = &mut self.links.outgoing;
            match effect {
                Effect::ClientReply { to, request, message } => out.client_reply(to, request, message),
                Effect::PeerRequest { to, request, message } => out.peer_request(to, request, &message),
                Effect::PeerReply { to, request, message } => out.peer_reply(to, request, &message),
                Effect::Arm { timer, after } => self.timers.arm(self.links.clock.mono() + after, timer),
                Effect::Amnesia { peer, partition, remembered, known } => {
                    self.tell(News::Amnesia { peer, partition, remembered, known });
                }
                Effect::Joined => self.tell(News::Joined { shard: self.links.shard }),
                Effect::Measure(measure) => self.links.metrics.measure(measure),
            }
        }
        self.links.outgoing.send();
        self.effects = effects;
    }
}

/// Commits on a thread on which nothing else waits.
async fn commit<D: Storage + Send + 'static>(mut disk: D, batch: Batch) -> Result<(), StorageError> {
    let work = move || {
        let _guard = AbortOnPanic;
        disk.commit(&batch)
    };
    tokio::task::spawn_blocking(work).await.expect("a commit that panics aborts the process, and none is called off")
}
