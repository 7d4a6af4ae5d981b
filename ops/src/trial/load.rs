//! A steady load of puts, overwrites, deletes and reads, and a judgement of every answer.
//!
//! Each key has one writer, which does one thing after the other; so it knows what a read of its own must show.

use super::ledger::{Breach, Judgement, Ledger};
use crate::sequence::Sequence;
use quorate_client::{Client, Count, NodeId, ReadOptions, Supersede, Via, WriteError, WriteOptions};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Things that went wrong and are told in words; of the others only the number.
const TOLD_MAX: usize = 10;
/// Stretches of a load of which latencies are kept apart; it begins with the first.
pub const STRETCHES: usize = 3;

/// What a load consists of.
#[derive(Clone, Debug)]
pub struct Mix {
    pub bucket: &'static str,
    /// The beginning of all its keys.
    pub prefix: &'static str,
    pub writers: u16,
    pub keys_per_writer: usize,
    /// Requests per second, of all writers together.
    pub rate: u32,
    pub seed: u64,
    pub route: Route,
    /// Of a hundred writes, those that wait for all owners.
    pub all_percent: u64,
    /// Reads are judged while faults go on: strict quorums promise something then, sloppy ones do not.
    pub judged: bool,
}

/// Where requests are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// As the library does it: the first live owner, then others, each failure tried again.
    Library,
    /// Any one owner of the key, and none other: whichever side of a cut it is on. A write never has two coordinators.
    AnyOwner,
}

/// Counted since the start.
#[derive(Default)]
pub struct Tally {
    pub requests: AtomicU64,
    pub applied: AtomicU64,
    pub not_applied: AtomicU64,
    pub unknown: AtomicU64,
    pub reads: AtomicU64,
    pub reads_of_one: AtomicU64,
    pub reads_declined: AtomicU64,
    pub twins: AtomicU64,
    pub breaches: AtomicU64,
}

/// What the writers share with whoever started them.
#[derive(Default)]
pub struct Shared {
    pub tally: Tally,
    stop: AtomicBool,
    stretch: AtomicUsize,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    breaches: Vec<String>,
    failures: BTreeMap<String, u64>,
    latencies: [Vec<u32>; STRETCHES],
}

/// A load under way.
pub struct Load {
    client: Client,
    mix: Mix,
    pub shared: Arc<Shared>,
    writers: JoinSet<Vec<Ledger>>,
}

struct Writer {
    client: Client,
    mix: Mix,
    shared: Arc<Shared>,
    ledgers: Vec<Ledger>,
    sequence: Sequence,
}

impl Load {
    /// Starts the writers, on the runtime that this is called in.
    pub fn start(client: &Client, mix: &Mix) -> Self {
        let shared = Arc::new(Shared::default());
        let mut writers = JoinSet::new();
        for writer in 0..mix.writers {
            let key = |number: usize| format!("{}/{writer}/{number}", mix.prefix);
            let ledgers = (0..mix.keys_per_writer).map(|number| Ledger::new(mix.seed, key(number))).collect();
            let sequence = Sequence::new(mix.seed ^ (u64::from(writer) << 40));
            let (client, mix, shared) = (client.clone(), mix.clone(), Arc::clone(&shared));
            writers.spawn(Writer { client, mix, shared, ledgers, sequence }.run());
        }
        Self { client: client.clone(), mix: mix.clone(), shared, writers }
    }

    /// From now on latencies belong to another stretch.
    pub fn stretch(&self, number: usize) {
        self.shared.stretch.store(number.min(STRETCHES - 1), Ordering::Relaxed);
    }

    /// Ends the load, once every request under way has ended.
    pub async fn stop(self) -> Done {
        self.shared.stop.store(true, Ordering::Relaxed);
        let ledgers = self.writers.join_all().await.into_iter().flatten().collect();
        Done { client: self.client, mix: self.mix, shared: self.shared, ledgers }
    }
}

/// A load that has ended, and what has to be there now.
pub struct Done {
    client: Client,
    mix: Mix,
    pub shared: Arc<Shared>,
    pub ledgers: Vec<Ledger>,
}

impl Done {
    /// Reads every key once more, from all of its owners, and judges what is there.
    pub async fn read_all(&self) {
        let options = ReadOptions { r: Some(Count::All), ..ReadOptions::default() };
        for ledger in &self.ledgers {
            match self.client.get(self.mix.bucket, ledger.key.clone(), &options).await {
                Ok(answer) => self.shared.judge(ledger, &ledger.judge(&answer.siblings), "at the end"),
                Err(declined) => {
                    self.shared.tally.reads_declined.fetch_add(1, Ordering::Relaxed);
                    self.shared.failed(&declined.to_string());
                }
            }
        }
    }
}

impl Shared {
    fn judge(&self, ledger: &Ledger, judgement: &Judgement, when: &str) {
        self.tally.twins.fetch_add(u64::from(judgement.twins), Ordering::Relaxed);
        for breach in &judgement.breaches {
            self.breach(ledger, *breach, when);
        }
    }

    fn breach(&self, ledger: &Ledger, breach: Breach, when: &str) {
        self.tally.breaches.fetch_add(1, Ordering::Relaxed);
        let mut told = self.told.lock().expect("nothing panics while it holds this lock");
        if told.breaches.len() < TOLD_MAX {
            told.breaches.push(format!("key {:?} {when}: {}", ledger.key.escape_ascii().to_string(), breach.text()));
        }
    }

    fn failed(&self, why: &str) {
        let mut told = self.told.lock().expect("nothing panics while it holds this lock");
        if told.failures.len() < TOLD_MAX || told.failures.contains_key(why) {
            *told.failures.entry(why.to_string()).or_default() += 1;
        }
    }

    fn took(&self, time: Duration) {
        let stretch = self.stretch.load(Ordering::Relaxed);
        let mut told = self.told.lock().expect("nothing panics while it holds this lock");
        told.latencies[stretch].push(time.as_micros() as u32);
    }

    /// What went wrong, in words.
    pub fn breaches(&self) -> Vec<String> {
        self.told.lock().expect("nothing panics while it holds this lock").breaches.clone()
    }

    /// Why requests were not done, and how often.
    pub fn failures(&self) -> BTreeMap<String, u64> {
        self.told.lock().expect("nothing panics while it holds this lock").failures.clone()
    }

    /// Of a stretch: how many requests it had, and the time that so many percent of them took at the most.
    pub fn percentile(&self, stretch: usize, percent: f64) -> (usize, Duration) {
        let mut times = self.told.lock().expect("nothing panics while it holds this lock").latencies[stretch].clone();
        times.sort_unstable();
        let at = ((times.len() as f64 * percent / 100.0).ceil() as usize).clamp(1, times.len().max(1)) - 1;
        (times.len(), times.get(at).map_or(Duration::ZERO, |us| Duration::from_micros(u64::from(*us))))
    }

    pub fn failed_requests(&self) -> u64 {
        let Tally { not_applied, unknown, reads_declined, .. } = &self.tally;
        [not_applied, unknown, reads_declined].iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

impl Writer {
    async fn run(mut self) -> Vec<Ledger> {
        let every = Duration::from_secs(1) * u32::from(self.mix.writers) / self.mix.rate.max(1);
        let mut next = Instant::now() + every.mul_f64((self.sequence.draw() % 1000) as f64 / 1000.0);
        while !self.shared.stop.load(Ordering::Relaxed) {
            sleep_until(next).await;
            // What was missed while a request waited is not made up for.
            next = (next + every).max(Instant::now());
            let key = (self.sequence.draw() % self.mix.keys_per_writer as u64) as usize;
            let began = Instant::now();
            match self.sequence.draw() % 100 {
                0..40 => self.read(key).await,
                40..55 => self.write(key, true).await,
                _ => self.write(key, false).await,
            }
            self.shared.tally.requests.fetch_add(1, Ordering::Relaxed);
            self.shared.took(began.elapsed());
        }
        self.ledgers
    }

    fn via(&mut self, key: usize) -> Via {
        match self.mix.route {
            Route::Library => Via::Owner,
            Route::AnyOwner => {
                let owners = owners(&self.client, self.mix.bucket, &self.ledgers[key].key);
                Via::Node(owners[(self.sequence.draw() % owners.len() as u64) as usize])
            }
        }
    }

    async fn write(&mut self, key: usize, delete: bool) {
        let via = self.via(key);
        let all = self.sequence.draw() % 100 < self.mix.all_percent;
        let ledger = &mut self.ledgers[key];
        let supersede = ledger.context().map_or(Supersede::Nothing, |context| Supersede::Seen(context.clone()));
        let w = all.then_some(Count::All);
        let options = WriteOptions { w, supersede: Some(supersede), via, ..WriteOptions::default() };
        let done = match delete {
            true => self.client.delete(self.mix.bucket, ledger.key.clone(), &options).await,
            false => self.client.put(self.mix.bucket, ledger.key.clone(), ledger.next_value(), &options).await,
        };
        let tally = &self.shared.tally;
        match done {
            Ok(receipt) => {
                tally.applied.fetch_add(1, Ordering::Relaxed);
                ledger.applied(delete, &receipt);
            }
            Err(WriteError::NotApplied(declined)) => {
                tally.not_applied.fetch_add(1, Ordering::Relaxed);
                ledger.not_applied(delete);
                self.shared.failed(&declined.to_string());
            }
            Err(WriteError::Unknown(unknown)) => {
                tally.unknown.fetch_add(1, Ordering::Relaxed);
                ledger.unknown(delete);
                self.shared.failed(&unknown.to_string());
            }
        }
    }

    async fn read(&mut self, key: usize) {
        let via = self.via(key);
        let ledger = &self.ledgers[key];
        // What all owners hold has to be shown by any of them.
        let r = ledger.held_by(3).then_some(Count::Exactly(1));
        let options = ReadOptions { r, via, ..ReadOptions::default() };
        let tally = &self.shared.tally;
        match self.client.get(self.mix.bucket, ledger.key.clone(), &options).await {
            Ok(answer) => {
                tally.reads.fetch_add(1, Ordering::Relaxed);
                tally.reads_of_one.fetch_add(u64::from(r.is_some()), Ordering::Relaxed);
                if self.mix.judged {
                    let when = if r.is_some() { "read from one owner" } else { "read under load" };
                    self.shared.judge(ledger, &ledger.judge(&answer.siblings), when);
                }
            }
            Err(declined) => {
                tally.reads_declined.fetch_add(1, Ordering::Relaxed);
                self.shared.failed(&declined.to_string());
            }
        }
    }
}

/// The owners of a key.
pub fn owners(client: &Client, bucket: &str, key: &[u8]) -> Vec<NodeId> {
    let layout = client.layout();
    let bucket = layout.topology().bucket_named(bucket).expect("a lab has this bucket");
    layout.preference(layout.partition(bucket, key)).map_or(Vec::new(), |list| list.owners().to_vec())
}
