//! The load: so many requests under way, or so many begun a second.

use super::node::CLIENT;
use super::quic::{Credentials, Fault, dial, endpoint};
use super::stream::{Frame, Kind, Out, read};
use super::{NODES, Sizes};
use hdrhistogram::Histogram;
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, Semaphore};
use tokio::task::LocalSet;

const PACE: Duration = Duration::from_micros(200);
const LATENCY_US_MAX: u64 = 120_000_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    Puts,
    Gets,
}

#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub work: Work,
    pub records: u32,
    pub value_bytes: usize,
    pub in_flight: usize,
    /// Requests to begin a second, whatever is under way.
    pub rate: Option<u64>,
    pub warm_up: Duration,
    pub time: Duration,
}

/// Time on a processor since they began, in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Processor {
    pub nodes: f64,
    pub client: f64,
}

/// What was measured.
pub struct Figures {
    pub done: u64,
    pub done_per_second: f64,
    pub latency_us: Histogram<u64>,
    /// While it was measured, neither loading nor warming up.
    pub processor: Processor,
}

struct State {
    outs: Vec<Out>,
    sizes: Sizes,
    work: Work,
    records: u32,
    random: u64,
    next: u64,
    began: HashMap<u64, Instant>,
    /// Requests that are still to be begun when another one ends.
    left: u64,
    warm: Instant,
    until: Instant,
    latency_us: Histogram<u64>,
}

impl State {
    /// Begins one request; returns the node that it goes to.
    fn begin(&mut self, key: u32, from: Instant) -> usize {
        let node = key as usize % NODES;
        self.next += 1;
        self.began.insert(self.next, from);
        let (kind, length) = match self.work {
            Work::Puts => (Kind::Write, self.sizes.write),
            Work::Gets => (Kind::Read, self.sizes.read),
        };
        self.outs[node].add(Frame { kind, id: self.next, key }, length);
        node
    }

    fn draw(&mut self) -> u32 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.random >> 33) % u64::from(self.records)) as u32
    }

    fn end(&mut self, id: u64, now: Instant) {
        if let Some(began) = self.began.remove(&id)
            && (self.warm..self.until).contains(&now)
        {
            self.latency_us.saturating_record((now - began).as_micros() as u64);
        }
    }
}

struct Session {
    state: Rc<RefCell<State>>,
    ended: Rc<Notify>,
}

/// Loads every record, then runs. `processor` says what nodes and client have used so far.
pub fn run(
    addresses: &[SocketAddr],
    credentials: &Credentials,
    load: Load,
    processor: impl Fn() -> Processor,
) -> Result<Figures, Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let session = connect(addresses, credentials, load).await?;
        session.load(load.records).await;
        let used = async {
            tokio::time::sleep(load.warm_up).await;
            let before = processor();
            tokio::time::sleep(load.time).await;
            let after = processor();
            Processor { nodes: after.nodes - before.nodes, client: after.client - before.client }
        };
        let (figures, processor) = tokio::join!(session.measure(load), used);
        Ok(Figures { processor, ..figures })
    })
}

async fn connect(addresses: &[SocketAddr], credentials: &Credentials, load: Load) -> Result<Session, Fault> {
    let endpoint = endpoint(SocketAddr::from(([127, 0, 0, 1], 0)), credentials)?;
    let now = Instant::now();
    let state = Rc::new(RefCell::new(State {
        outs: Vec::new(),
        sizes: Sizes::of(load.value_bytes),
        work: Work::Puts,
        records: load.records,
        random: 7,
        next: 0,
        began: HashMap::new(),
        left: 0,
        warm: now,
        until: now,
        latency_us: Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)?,
    }));
    let ended = Rc::new(Notify::new());
    for address in addresses {
        let (connection, send, receive) = dial(&endpoint, *address, CLIENT).await?;
        let out = Out::default();
        tokio::task::spawn_local(out.clone().write(send));
        state.borrow_mut().outs.push(out);
        let (state, ended) = (state.clone(), ended.clone());
        tokio::task::spawn_local(async move {
            let _connection = connection;
            let take = |frame: Frame| {
                let now = Instant::now();
                let mut state = state.borrow_mut();
                state.end(frame.id, now);
                if state.left > 0 && now < state.until {
                    state.left -= 1;
                    let key = state.draw();
                    state.begin(key, now);
                }
            };
            let flush = || {
                let state = state.borrow();
                state.outs.iter().for_each(Out::flush);
                if state.began.is_empty() {
                    ended.notify_one();
                }
            };
            read(receive, take, flush).await;
        });
    }
    Ok(Session { state, ended })
}

impl Session {
    async fn load(&self, records: u32) {
        self.state.borrow_mut().work = Work::Puts;
        for first in (0..records).step_by(256) {
            {
                let mut state = self.state.borrow_mut();
                state.until = Instant::now();
                for key in first..records.min(first + 256) {
                    state.begin(key, Instant::now());
                }
                state.outs.iter().for_each(Out::flush);
            }
            self.idle().await;
        }
    }

    async fn idle(&self) {
        while !self.state.borrow().began.is_empty() {
            self.ended.notified().await;
        }
    }

    async fn measure(&self, load: Load) -> Figures {
        let begun = Instant::now();
        {
            let mut state = self.state.borrow_mut();
            state.work = load.work;
            state.warm = begun + load.warm_up;
            state.until = state.warm + load.time;
            state.latency_us.reset();
            state.left = if load.rate.is_some() { 0 } else { u64::MAX };
            for _ in 0..load.rate.map_or(load.in_flight, |_| 0) {
                let key = state.draw();
                state.begin(key, begun);
            }
            state.outs.iter().for_each(Out::flush);
        }
        if let Some(rate) = load.rate {
            self.open(begun, rate).await;
        }
        self.idle().await;
        let state = self.state.borrow();
        let latency_us = state.latency_us.clone();
        let done = latency_us.len();
        let done_per_second = done as f64 / load.time.as_secs_f64();
        Figures { done, done_per_second, latency_us, processor: Processor::default() }
    }

    /// Begins requests when they are due. A thread of its own says when, as timers of the runtime are too coarse.
    async fn open(&self, begun: Instant, rate: u64) {
        let until = self.state.borrow().until;
        let due = Arc::new(Semaphore::new(0));
        let pacer = {
            let due = due.clone();
            std::thread::spawn(move || {
                let mut said = 0;
                while Instant::now() < until {
                    let now_due = (begun.elapsed().as_nanos() * u128::from(rate) / 1_000_000_000) as u64;
                    due.add_permits((now_due - said) as usize);
                    said = now_due;
                    std::thread::sleep(PACE);
                }
                due.close();
            })
        };
        let mut slot: u64 = 0;
        while let Ok(permit) = due.acquire().await {
            permit.forget();
            let mut state = self.state.borrow_mut();
            let key = state.draw();
            let node = state.begin(key, begun + Duration::from_nanos(slot * 1_000_000_000 / rate));
            slot += 1;
            if due.available_permits() == 0 {
                state.outs.iter().for_each(Out::flush);
            } else {
                state.outs[node].flush();
            }
        }
        pacer.join().expect("the pacer does not panic");
    }
}
