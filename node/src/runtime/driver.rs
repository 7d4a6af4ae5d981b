//! A shard's thread: it owns the kernel, and nobody else touches it.
//!
//! Drain the inbox, handle each event, commit once, and only then carry out the effects: one fsync for all writes of
//! the drain.

use super::clock::Clock;
use super::inbox::{Drained, Inbox};
use super::switchboard::Outgoing;
use super::timers::Timers;
use super::trail;
use crate::kernel::{Effect, Event, Kernel};
use crate::metrics::Metrics;
use crate::storage::{Storage, StorageError};
use quorate_ring::id::{NodeId, Partition};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use tokio::sync::mpsc;

/// Timers handled between two commits at the most.
const FIRED_MAX: usize = 1024;

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

/// Starts the thread. It ends when its inbox is closed, or the disk fails.
pub fn start<S: Storage + Send + 'static>(kernel: Kernel<S>, links: ShardLinks) -> std::io::Result<JoinHandle<()>> {
    let name = format!("shard-{}", links.shard);
    let driver =
        Driver { kernel, links, timers: Timers::default(), effects: Vec::new(), draining: false, trail: false };
    std::thread::Builder::new().name(name).spawn(move || {
        let _guard = AbortOnPanic;
        driver.run();
    })
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
    timers: Timers,
    effects: Vec<Effect>,
    draining: bool,
    /// Someone wants to read the trail of requests.
    trail: bool,
}

impl<S: Storage> Driver<S> {
    fn run(mut self) {
        if let Err(error) = self.serve() {
            let _node_ends_already = self.links.news.blocking_send(News::StorageFailed(error));
        }
    }

    fn serve(&mut self) -> Result<(), StorageError> {
        let mut batch = vec![Event::Started];
        loop {
            let events = batch.len();
            self.trail = trail::wanted();
            if self.trail {
                batch.iter().for_each(trail::event);
            }
            for event in batch.drain(..) {
                self.draining |= matches!(event, Event::Drain);
                self.kernel.handle(self.links.clock.now(), event, &mut self.effects)?;
            }
            let fired = self.fire()?;
            let clock = self.links.clock;
            self.kernel.commit(&mut || clock.now(), &mut self.effects)?;
            self.release();
            if self.draining {
                self.links.idle.store(self.kernel.idle(), Ordering::Release);
            }
            if events + fired > 0 {
                self.links.metrics.drained(events + fired);
            }
            let wait = self.timers.wait(self.links.clock.mono());
            if self.links.inbox.drain(wait, &mut batch) == Drained::Closed {
                return Ok(());
            }
        }
    }

    fn fire(&mut self) -> Result<usize, StorageError> {
        let due = self.links.clock.mono();
        for fired in 0..FIRED_MAX {
            let Some(timer) = self.timers.fire(due) else { return Ok(fired) };
            self.kernel.handle(self.links.clock.now(), Event::Fired { timer }, &mut self.effects)?;
        }
        Ok(FIRED_MAX)
    }

    /// Carries out what is committed.
    fn release(&mut self) {
        let out = &mut self.links.outgoing;
        if self.trail {
            self.effects.iter().for_each(trail::effect);
        }
        let news = |news| self.links.news.blocking_send(news);
        for effect in self.effects.drain(..) {
            match effect {
                Effect::ClientReply { to, request, message } => out.client_reply(to, request, message),
                Effect::PeerRequest { to, request, message } => out.peer_request(to, request, &message),
                Effect::PeerReply { to, request, message } => out.peer_reply(to, request, &message),
                Effect::Arm { timer, after } => self.timers.arm(self.links.clock.mono() + after, timer),
                Effect::Amnesia { peer, partition, remembered, known } => {
                    let _node_ends_already = news(News::Amnesia { peer, partition, remembered, known });
                }
                Effect::Joined => {
                    let _node_ends_already = news(News::Joined { shard: self.links.shard });
                }
                Effect::Measure(measure) => self.links.metrics.measure(measure),
            }
        }
        out.send();
    }
}
