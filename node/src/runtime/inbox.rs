//! What waits for a shard: bounded in bytes and in age, served in three classes. What nobody waits for has `turns`.
//!
//! Clients are answered "overloaded" when it is full; peers wait, which stops the reading of their lane, so that the
//! flow control of QUIC reaches back to whoever sends too much.

use super::alarm::Alarm;
use super::turns::Turns;
use crate::kernel::{Event, weight};
use quorate_ring::wire::client::ClientRequest;
use quorate_ring::wire::peer::{PeerReply, PeerRequest, Purpose};
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Events handled between two commits at the most: bounds how long the first one waits for its commit.
const BATCH_EVENTS_MAX: usize = 512;
/// And their bytes.
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Reads, and as many answers to reads, that are taken at one time while a batch is being committed.
const MEANWHILE_MAX: usize = 64;
/// And their bytes.
const MEANWHILE_BYTES_MAX: usize = 1024 * 1024;
/// Of each batch in which repair has its turn, so many events are left to it, however busy the clients are.
const BATCH_REPAIR_MIN: usize = 16;
/// A turn of repair while there are clients: short, as the next of them may come right behind it.
const TURN_EVENTS: usize = 8;
const TURN_BYTES: usize = 16 * 1024;
/// And while there are none.
const TURN_BYTES_ALONE: usize = 1024 * 1024;
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
                // A read may wait for its repair; there are no more of these than clients read.
                Purpose::Write | Purpose::ReadRepair => Class::Work,
                Purpose::Handoff => Class::Repair,
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

/// Whether a client wants something of the store by this, here or at a peer. To look on at repair is none of that.
fn serves_clients(event: &Event) -> bool {
    match event {
        Event::Client { message, .. } => match message {
            ClientRequest::Write(_) | ClientRequest::Read(_) | ClientRequest::Scan(_) => true,
            ClientRequest::Hello(_)
            | ClientRequest::Cancel(_)
            | ClientRequest::Log(_)
            | ClientRequest::Status(_)
            | ClientRequest::Repair(_) => false,
        },
        other => class(other) == Class::Work && !matches!(other, Event::ClientCancelled { .. }),
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
    /// Handle the batch, which may be empty: a timer may be due.
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

impl Queue {
    /// Moves acks, wherever they stand, and up to `most` other events that come first, to `events`. Stops with these behind
    /// the one with which `left` bytes are used up.
    fn take_first(&mut self, mut most: usize, left: &mut usize, events: &mut Vec<Event>) {
        for _ in 0..self.waiting.len() {
            let Some(waiting) = self.waiting.pop_front() else { return };
            let ack = waiting.event.is_ack();
            if ack || (most > 0 && *left > 0 && waiting.event.comes_first()) {
                if !ack {
                    most -= 1;
                    *left = left.saturating_sub(waiting.weight);
                }
                self.bytes -= waiting.weight;
                events.push(waiting.event);
            } else {
                self.waiting.push_back(waiting);
            }
        }
    }

    /// How long the first one has waited.
    fn age(&self) -> Duration {
        self.waiting.front().map_or(Duration::ZERO, |oldest| oldest.since.elapsed())
    }
}

struct State {
    urgent: Queue,
    /// Work that only reads: it need not wait for the end of a commit.
    reads: Queue,
    work: Queue,
    repair: Queue,
    turns: Turns,
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
    /// Its task waits for the end of a commit, and takes nothing but acks and, if they are wanted, reads.
    Commit { reads: bool },
}

impl State {
    fn queue(&mut self, event: &Event) -> &mut Queue {
        match class(event) {
            Class::Urgent => &mut self.urgent,
            Class::Work if event.comes_first() => &mut self.reads,
            Class::Work => &mut self.work,
            Class::Repair => &mut self.repair,
        }
    }

    fn queues(&self, class: Class) -> impl Iterator<Item = &Queue> {
        let (queue, other) = match class {
            Class::Urgent => (&self.urgent, None),
            Class::Work => (&self.work, Some(&self.reads)),
            Class::Repair => (&self.repair, None),
        };
        std::iter::once(queue).chain(other)
    }

    /// Whether one more of its class is over a limit of bytes. The first one never is.
    fn is_over(&self, limit: usize, event: &Event) -> bool {
        let bytes: usize = self.queues(class(event)).map(|queue| queue.bytes).sum();
        bytes > 0 && bytes + weight(event) > limit
    }

    /// How long there is nothing to be done: not at all, until repair has its turn, or, if none, until something comes.
    fn rest(&self, now: Instant) -> Option<Duration> {
        if self.closed || [&self.urgent, &self.reads, &self.work].iter().any(|queue| !queue.waiting.is_empty()) {
            return Some(Duration::ZERO);
        }
        (!self.repair.waiting.is_empty()).then(|| self.turns.rest(now))
    }

    /// Moves up to `most` requests that clients wait for, here or at a peer, to a batch. Reads go first, but leave half of the
    /// room to the others: so no read waits for long behind them.
    fn take_work(&mut self, most: usize, left: &mut usize, batch: &mut Vec<Event>) {
        let end = batch.len() + most;
        take(&mut self.reads, most / 2, left, batch);
        take(&mut self.work, end - batch.len(), left, batch);
        take(&mut self.reads, end - batch.len(), left, batch);
    }

    /// Adds a turn of repair to a batch, if it has one.
    fn take_repair(&mut self, batch: &mut Vec<Event>) {
        let now = Instant::now();
        let (others, clients) = (batch.len(), batch.iter().any(serves_clients));
        let (events, mut bytes) = match (others, clients || self.turns.clients_about(now)) {
            (0, false) => (BATCH_EVENTS_MAX, TURN_BYTES_ALONE),
            (0, true) => (TURN_EVENTS, TURN_BYTES),
            _ => (BATCH_REPAIR_MIN, TURN_BYTES),
        };
        if self.turns.rest(now).is_zero() {
            take(&mut self.repair, events, &mut bytes, batch);
        }
        self.turns.begin(now, clients, batch.len() > others);
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
    /// `repair_share_percent`: what repair gets of the shard's time while there are clients, 1 to 100.
    pub fn new(limit: usize, repair_share_percent: u8) -> Self {
        let state = State {
            urgent: Queue::default(),
            reads: Queue::default(),
            work: Queue::default(),
            repair: Queue::default(),
            turns: Turns::new(repair_share_percent),
            closed: false,
            sleep: Sleep::default(),
        };
        Self { state: Mutex::new(state), filled: Condvar::new(), stirred: Notify::new(), room: Notify::new(), limit }
    }

    /// Puts in what the node itself has to say. There is little of it, and always room.
    pub fn push(&self, event: Event) {
        let state = self.lock();
        self.put(state, event);
    }

    /// Puts in what a client asks, if there is room.
    pub fn offer(&self, event: Event) -> Result<(), Full> {
        let mut state = self.lock();
        let age = state.queue(&event).age();
        if state.is_over(self.limit, &event) || age > AGE_MAX {
            let retry_after_ms = (age.as_millis() as u32).clamp(50, 2_000);
            return Err(Full { retry_after_ms });
        }
        self.put(state, event);
        Ok(())
    }

    /// Puts in what a peer asks or answers; waits for room.
    pub async fn deliver(&self, event: Event) {
        let Err(mut event) = self.try_deliver(event) else { return };
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
        let state = self.lock();
        if state.is_over(2 * self.limit, &event) {
            return Err(event);
        }
        self.put(state, event);
        Ok(())
    }

    /// The batch before is done with. Waits until there is something or `wait` is over, and moves a batch of events, in
    /// the order of service, to `batch`.
    pub fn drain(&self, wait: Option<Duration>, batch: &mut Vec<Event>) -> Drained {
        let mut state = self.lock();
        let now = Instant::now();
        state.turns.end(now);
        let rest = state.rest(now);
        if rest != Some(Duration::ZERO) {
            state.sleep = Sleep::Thread;
            state = match wait.into_iter().chain(rest).min() {
                None => self.filled.wait(state).expect(UNPOISONED),
                Some(wait) => self.filled.wait_timeout(state, wait).expect(UNPOISONED).0,
            };
            state.sleep = Sleep::Awake;
        }
        self.take_batch(state, batch)
    }

    /// As `drain`, for a shard that is a task: lets other tasks of its thread go first, in any case, so that whatever
    /// they bring is in the same batch. Does not wait if something is in it already. May come back early, with nothing.
    pub async fn drain_here(&self, wait: Option<Duration>, alarm: &mut Alarm, batch: &mut Vec<Event>) -> Drained {
        self.lock().turns.end(Instant::now());
        tokio::task::yield_now().await;
        let rest = {
            let mut state = self.lock();
            let rest = wait.into_iter().chain(state.rest(Instant::now())).min();
            let rest = if batch.is_empty() { rest } else { Some(Duration::ZERO) };
            if rest != Some(Duration::ZERO) {
                state.sleep = Sleep::Task;
            }
            rest
        };
        let stirred = self.stirred.notified();
        match rest {
            Some(Duration::ZERO) => {}
            None => {
                stirred.await;
                tokio::task::yield_now().await;
            }
            // At the end of it a timer of the shard is due, or repair has its turn.
            Some(rest) => {
                tokio::select! {
                    biased;
                    () = stirred => {}
                    () = alarm.wait(rest) => {}
                }
                tokio::task::yield_now().await;
            }
        }
        let mut state = self.lock();
        state.sleep = Sleep::Awake;
        self.take_batch(state, batch)
    }

    /// Waits until there is something that comes first, acks of writes or, if they are wanted, `reads` and what they
    /// brought, and moves it to `events`. For a shard that is a task, while its batch is being committed.
    pub async fn first_here(&self, reads: bool, events: &mut Vec<Event>) {
        loop {
            {
                let mut state = self.lock();
                let (most, mut left) = (if reads { MEANWHILE_MAX } else { 0 }, MEANWHILE_BYTES_MAX);
                state.urgent.take_first(most, &mut left, events);
                if reads && !state.reads.waiting.is_empty() {
                    take(&mut state.reads, most, &mut left, events);
                    state.turns.clients_came(Instant::now());
                }
                if !events.is_empty() {
                    state.sleep = Sleep::Awake;
                    drop(state);
                    self.room.notify_waiters();
                    return;
                }
                state.sleep = Sleep::Commit { reads };
            }
            self.stirred.notified().await;
            // Whatever else arrives with it comes along.
            tokio::task::yield_now().await;
        }
    }

    fn take_batch(&self, mut state: MutexGuard<'_, State>, batch: &mut Vec<Event>) -> Drained {
        if state.closed {
            return Drained::Closed;
        }
        let mut left = BATCH_BYTES_MAX;
        take(&mut state.urgent, BATCH_EVENTS_MAX - BATCH_REPAIR_MIN, &mut left, batch);
        let room = (BATCH_EVENTS_MAX - BATCH_REPAIR_MIN).saturating_sub(batch.len());
        state.take_work(room, &mut left, batch);
        state.take_repair(batch);
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
        self.lock().queues(class).map(|queue| queue.bytes).sum()
    }

    /// How long the oldest of a class has waited.
    pub fn oldest(&self, class: Class) -> Duration {
        self.lock().queues(class).map(Queue::age).max().unwrap_or_default()
    }

    fn put(&self, mut state: MutexGuard<'_, State>, event: Event) {
        let (weight, ack, first) = (weight(&event), event.is_ack(), event.comes_first());
        let queue = state.queue(&event);
        queue.bytes += weight;
        queue.waiting.push_back(Waiting { event, weight, since: Instant::now() });
        if let Sleep::Commit { reads } = state.sleep
            && !(ack || (reads && first))
        {
            return;
        }
        let sleep = std::mem::take(&mut state.sleep);
        drop(state);
        match sleep {
            Sleep::Awake => {}
            Sleep::Thread => self.filled.notify_one(),
            Sleep::Task | Sleep::Commit { .. } => self.stirred.notify_one(),
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
