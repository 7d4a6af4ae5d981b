//! What waits for a shard: bounded in bytes and in age, served in three classes.
//!
//! Clients are answered "overloaded" when it is full; peers wait, which stops the reading of their lane, so that the
//! flow control of QUIC reaches back to whoever sends too much.

use crate::kernel::{Event, weight};
use quorate_ring::wire::peer::{PeerReply, PeerRequest, Purpose};
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Events handled between two commits at the most: bounds how long the first one waits for its commit.
const BATCH_EVENTS_MAX: usize = 512;
/// And their bytes.
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Of each batch, so many events are left to repair, however busy the clients are.
const BATCH_REPAIR_MIN: usize = 16;
/// And of repair so many bytes, of a batch that others wait for, and of one of its own.
const BATCH_REPAIR_BYTES_BUSY: usize = 64 * 1024;
const BATCH_REPAIR_BYTES_ALONE: usize = 1024 * 1024;
/// Work of clients that would wait behind something older than this is refused.
const AGE_MAX: Duration = Duration::from_secs(1);

/// In the order of service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Acks, heartbeats, timers, and what the node itself has to say.
    Urgent,
    /// What a client waits for, here or at a peer.
    Work,
    /// What nobody waits for.
    Repair,
}

impl Class {
    pub fn name(self) -> &'static str {
        match self {
            Class::Urgent => "urgent",
            Class::Work => "work",
            Class::Repair => "repair",
        }
    }
}

/// The class of an event.
pub fn class(event: &Event) -> Class {
    match event {
        Event::Client { .. } | Event::ClientCancelled { .. } => Class::Work,
        Event::PeerRequest { message, .. } => match message {
            PeerRequest::Greet(_) | PeerRequest::Ping(_) => Class::Urgent,
            PeerRequest::Coordinate(_) | PeerRequest::Fetch(_) | PeerRequest::StoreHint(_) => Class::Work,
            PeerRequest::Pull(_) | PeerRequest::Sync(_) => Class::Repair,
            PeerRequest::Replicate(replicate) => match replicate.purpose {
                Purpose::Write => Class::Work,
                Purpose::ReadRepair | Purpose::Handoff => Class::Repair,
            },
        },
        Event::PeerReply { message, .. } => match message {
            PeerReply::Pulled(_) | PeerReply::Synced(_) => Class::Repair,
            PeerReply::Greeted(_)
            | PeerReply::Pong(_)
            | PeerReply::Written(_)
            | PeerReply::Replicated(_)
            | PeerReply::Fetched(_)
            | PeerReply::Refused(_)
            | PeerReply::Unknown(_) => Class::Urgent,
        },
        Event::Started
        | Event::ClientGone { .. }
        | Event::LinkUp { .. }
        | Event::LinkDown { .. }
        | Event::Fired { .. }
        | Event::Layout(_)
        | Event::DiskReserve { .. }
        | Event::Drain => Class::Urgent,
    }
}

/// There is no room for a client's request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full {
    pub retry_after_ms: u32,
}

/// What a shard is to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Drained {
    /// Handle the batch, which may be empty: a timer is due then.
    Batch,
    /// The node ends.
    Closed,
}

struct Waiting {
    event: Event,
    weight: usize,
    since: Instant,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
}

#[derive(Default)]
struct State {
    urgent: Queue,
    work: Queue,
    repair: Queue,
    closed: bool,
    /// Waking a shard that does not sleep is a system call for nothing.
    sleep: Sleep,
}

/// How the shard waits for its next event.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Sleep {
    #[default]
    Awake,
    /// Its thread does.
    Thread,
    /// Its task does, and the thread does other work.
    Task,
}

impl State {
    fn queue(&mut self, class: Class) -> &mut Queue {
        match class {
            Class::Urgent => &mut self.urgent,
            Class::Work => &mut self.work,
            Class::Repair => &mut self.repair,
        }
    }

    fn is_empty(&self) -> bool {
        self.urgent.waiting.is_empty() && self.work.waiting.is_empty() && self.repair.waiting.is_empty()
    }
}

/// Many put in, one shard takes out.
pub struct Inbox {
    state: Mutex<State>,
    filled: Condvar,
    stirred: Notify,
    room: Notify,
    /// Of the work of clients; peers may fill each class to twice this.
    limit: usize,
}

impl Inbox {
    pub fn new(limit: usize) -> Self {
        Self { state: Mutex::default(), filled: Condvar::new(), stirred: Notify::new(), room: Notify::new(), limit }
    }

    /// Puts in what the node itself has to say. There is little of it, and always room.
    pub fn push(&self, event: Event) {
        let state = self.lock();
        self.put(state, event);
    }

    /// Puts in what a client asks, if there is room.
    pub fn offer(&self, event: Event) -> Result<(), Full> {
        let mut state = self.lock();
        let queue = state.queue(class(&event));
        let age = queue.waiting.front().map_or(Duration::ZERO, |oldest| oldest.since.elapsed());
        if queue.bytes + weight(&event) > self.limit && !queue.waiting.is_empty() || age > AGE_MAX {
            let retry_after_ms = (age.as_millis() as u32).clamp(50, 2_000);
            return Err(Full { retry_after_ms });
        }
        self.put(state, event);
        Ok(())
    }

    /// Puts in what a peer asks or answers; waits for room.
    pub async fn deliver(&self, event: Event) {
        let mut event = event;
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            match self.try_deliver(event) {
                Ok(()) => return,
                Err(back) => event = back,
            }
            room.await;
        }
    }

    #[allow(clippy::result_large_err, reason = "what finds no room goes back as it came")]
    fn try_deliver(&self, event: Event) -> Result<(), Event> {
        let mut state = self.lock();
        let queue = state.queue(class(&event));
        if queue.bytes + weight(&event) > 2 * self.limit && !queue.waiting.is_empty() {
            return Err(event);
        }
        self.put(state, event);
        Ok(())
    }

    /// Waits until there is something or `wait` is over, and moves a batch of events, in the order of service, to
    /// `batch`.
    pub fn drain(&self, wait: Option<Duration>, batch: &mut Vec<Event>) -> Drained {
        let mut state = self.lock();
        if state.is_empty() && !state.closed {
            state.sleep = Sleep::Thread;
            state = match wait {
                None => self.filled.wait(state).expect(UNPOISONED),
                Some(wait) => self.filled.wait_timeout(state, wait).expect(UNPOISONED).0,
            };
            state.sleep = Sleep::Awake;
        }
        self.take_batch(state, batch)
    }

    /// As `drain`, for a shard that is a task: lets other tasks of its thread go first, in any case, so that whatever
    /// they bring is in the same batch.
    pub async fn drain_here(&self, wait: Option<Duration>, batch: &mut Vec<Event>) -> Drained {
        tokio::task::yield_now().await;
        let waits = {
            let mut state = self.lock();
            let waits = state.is_empty() && !state.closed;
            if waits {
                state.sleep = Sleep::Task;
            }
            waits
        };
        if waits {
            let stirred = self.stirred.notified();
            match wait {
                None => stirred.await,
                Some(wait) => {
                    // A timer of the shard is due: there is nothing else to be done about it here.
                    let _due = tokio::time::timeout(wait, stirred).await;
                }
            }
            tokio::task::yield_now().await;
        }
        let mut state = self.lock();
        state.sleep = Sleep::Awake;
        self.take_batch(state, batch)
    }

    fn take_batch(&self, mut state: MutexGuard<'_, State>, batch: &mut Vec<Event>) -> Drained {
        if state.closed {
            return Drained::Closed;
        }
        let mut left = BATCH_BYTES_MAX;
        take(&mut state.urgent, BATCH_EVENTS_MAX - BATCH_REPAIR_MIN, &mut left, batch);
        let room = (BATCH_EVENTS_MAX - BATCH_REPAIR_MIN).saturating_sub(batch.len());
        take(&mut state.work, room, &mut left, batch);
        let room = BATCH_EVENTS_MAX - batch.len();
        let mut left = if batch.is_empty() { BATCH_REPAIR_BYTES_ALONE } else { BATCH_REPAIR_BYTES_BUSY };
        take(&mut state.repair, room, &mut left, batch);
        drop(state);
        self.room.notify_waiters();
        Drained::Batch
    }

    /// Ends the shard; what still waits is dropped.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        self.filled.notify_one();
        self.stirred.notify_one();
    }

    /// Bytes that wait.
    pub fn bytes(&self, class: Class) -> usize {
        self.lock().queue(class).bytes
    }

    /// How long the oldest of a class has waited.
    pub fn oldest(&self, class: Class) -> Duration {
        self.lock().queue(class).waiting.front().map_or(Duration::ZERO, |oldest| oldest.since.elapsed())
    }

    fn put(&self, mut state: MutexGuard<'_, State>, event: Event) {
        let weight = weight(&event);
        let queue = state.queue(class(&event));
        queue.bytes += weight;
        queue.waiting.push_back(Waiting { event, weight, since: Instant::now() });
        let sleep = std::mem::take(&mut state.sleep);
        drop(state);
        match sleep {
            Sleep::Awake => {}
            Sleep::Thread => self.filled.notify_one(),
            Sleep::Task => self.stirred.notify_one(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect(UNPOISONED)
    }
}

const UNPOISONED: &str = "nothing panics while it holds the inbox";

/// Moves up to `most` events; stops behind the one with which `left` bytes are used up.
fn take(queue: &mut Queue, most: usize, left: &mut usize, batch: &mut Vec<Event>) {
    for _ in 0..most {
        if *left == 0 {
            return;
        }
        let Some(waiting) = queue.waiting.pop_front() else { return };
        queue.bytes -= waiting.weight;
        *left = left.saturating_sub(waiting.weight);
        batch.push(waiting.event);
    }
}

#[cfg(test)]
#[path = "inbox_tests.rs"]
mod tests;
