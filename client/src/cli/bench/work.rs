//! The load itself: one operation after the other, by many workers at once.

use super::args::Bench;
use super::draw::{Draw, Operation};
use super::tally::{End, Tally};
use super::values::{Ledger, Shown, make};
use crate::output::grouped;
use quorate_client::{Client, Declined, ReadAnswer, ReadOptions, Refusal, Supersede, WriteError, WriteOptions};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

const PROGRESS_EVERY: Duration = Duration::from_secs(2);
/// Between two looks at what is due, in the open loop.
const PACE: Duration = Duration::from_micros(200);

/// What all workers of a process share.
pub struct Bed {
    pub bench: Bench,
    pub bucket: String,
    pub clients: Vec<Client>,
    pub write: WriteOptions,
    pub read: ReadOptions,
    pub ledger: Ledger,
    /// Whether it is said now and then how far it is.
    pub shows: bool,
    /// Why the first operation failed that did, in words.
    pub failed: OnceLock<String>,
}

/// What a run measured.
#[derive(Default)]
pub struct Measured {
    pub tally: Tally,
    /// Due while it was measured, and not begun by the end.
    pub late: u64,
    /// Why the first operation failed that did.
    pub failed: Option<String>,
}

/// What reading back showed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Checked {
    pub held: u64,
    pub missing: u64,
    pub stale: u64,
    pub wrong: u64,
    /// No answer.
    pub failed: u64,
}

impl Checked {
    pub fn all_held(&self) -> bool {
        self.missing + self.stale + self.wrong + self.failed == 0
    }

    pub fn all(&self) -> u64 {
        self.held + self.missing + self.stale + self.wrong + self.failed
    }
}

impl Bed {
    /// Has something said now and then, until what this returns is dropped.
    fn telling(&self, mut say: impl FnMut() + Send + 'static) -> JoinSet<()> {
        let mut telling = JoinSet::new();
        if self.shows {
            telling.spawn(async move {
                loop {
                    tokio::time::sleep(PROGRESS_EVERY).await;
                    say();
                }
            });
        }
        telling
    }

    fn client(&self, turn: u64) -> &Client {
        &self.clients[(turn % self.clients.len() as u64) as usize]
    }

    fn key(&self, number: u64) -> String {
        format!("{}{number:012}", self.bench.key_prefix)
    }

    async fn perform(&self, operation: Operation, key: u64, turn: u64) -> End {
        let client = self.client(turn);
        match operation {
            Operation::Get => match client.get(&self.bucket, self.key(key), &self.read).await {
                Ok(answer) => self.look(key, &answer),
                Err(declined) => self.refused(&declined),
            },
            Operation::Put | Operation::Insert => self.put(client, key, &self.write).await,
            Operation::Modify => match client.get(&self.bucket, self.key(key), &self.read).await {
                Ok(answer) => {
                    let supersede = Some(Supersede::Seen(answer.context));
                    self.put(client, key, &WriteOptions { supersede, ..self.write.clone() }).await
                }
                Err(declined) => self.refused(&declined),
            },
        }
    }

    async fn put(&self, client: &Client, key: u64, options: &WriteOptions) -> End {
        let stamp = self.ledger.stamp();
        let value = make(key, stamp, self.bench.value_bytes as usize);
        match client.put(&self.bucket, self.key(key), value, options).await {
            Ok(_) => {
                self.ledger.acknowledged(key, stamp);
                End::Done
            }
            Err(WriteError::NotApplied(declined)) => self.refused(&declined),
            Err(WriteError::Unknown(unknown)) => {
                self.ledger.unknown(key, stamp);
                self.failed.get_or_init(|| unknown.to_string());
                End::Unknown
            }
        }
    }

    fn refused(&self, declined: &Declined) -> End {
        self.failed.get_or_init(|| declined.to_string());
        match declined {
            Declined::Refused { refusal: Refusal::Overloaded { .. }, .. } => End::Overloaded,
            Declined::Refused { .. }
            | Declined::Unreachable(_)
            | Declined::DeadlinePassed(_)
            | Declined::NoBucket { .. }
            | Declined::NoNode(_) => End::Refused,
        }
    }

    /// Every record was loaded; only what is inserted in this run may not be there yet.
    fn look(&self, key: u64, answer: &ReadAnswer) -> End {
        let own = |value: &[u8]| value.get(..8) == Some(&key.to_be_bytes()[..]);
        let there = !answer.siblings.is_empty() || key >= self.bench.records;
        let sound = there && answer.siblings.iter().all(|sibling| own(&sibling.value));
        if sound { End::Done } else { End::Wrong }
    }

    /// Writes every record once. Returns how many were not acknowledged.
    pub async fn load(self: &Arc<Self>) -> u64 {
        let next = Arc::new(AtomicU64::new(0));
        let (begun, records) = (Arc::clone(&next), self.bench.records);
        let _telling = self.telling(move || {
            let begun = begun.load(Ordering::Relaxed).min(records);
            eprintln!("loading: {} of {} records", grouped(begun), grouped(records));
        });
        let mut workers = JoinSet::new();
        for worker in 0..u64::from(self.bench.in_flight().min(256)) {
            let (bed, next) = (Arc::clone(self), Arc::clone(&next));
            workers.spawn(async move {
                let mut failed = 0;
                loop {
                    let key = next.fetch_add(1, Ordering::Relaxed);
                    if key >= bed.bench.records {
                        return failed;
                    }
                    failed += u64::from(bed.perform(Operation::Insert, key, worker).await != End::Done);
                }
            });
        }
        workers.join_all().await.into_iter().sum()
    }

    /// Reads back what the ledger tracks.
    pub async fn check(self: &Arc<Self>) -> Checked {
        let keys: Arc<[u64]> = self.ledger.keys().into();
        let (read, all) = (Arc::new(AtomicU64::new(0)), keys.len() as u64);
        let so_far = Arc::clone(&read);
        let _telling = self.telling(move || {
            eprintln!("read back: {} of {} keys", grouped(so_far.load(Ordering::Relaxed)), grouped(all));
        });
        let mut workers = JoinSet::new();
        let readers = 64.min(keys.len());
        for reader in 0..readers {
            let (bed, keys, read) = (Arc::clone(self), Arc::clone(&keys), Arc::clone(&read));
            workers.spawn(async move {
                let mut checked = Checked::default();
                for key in keys.iter().skip(reader).step_by(readers) {
                    read.fetch_add(1, Ordering::Relaxed);
                    match bed.client(*key).get(&bed.bucket, bed.key(*key), &bed.read).await {
                        Err(_) => checked.failed += 1,
                        Ok(answer) => match bed.ledger.judge(*key, &answer) {
                            Shown::Held => checked.held += 1,
                            Shown::Missing => checked.missing += 1,
                            Shown::Stale => checked.stale += 1,
                            Shown::Wrong => checked.wrong += 1,
                        },
                    }
                }
                checked
            });
        }
        let parts = workers.join_all().await;
        parts.into_iter().fold(Checked::default(), |a, b| Checked {
            held: a.held + b.held,
            missing: a.missing + b.missing,
            stale: a.stale + b.stale,
            wrong: a.wrong + b.wrong,
            failed: a.failed + b.failed,
        })
    }
}

/// One run: its clock, what is drawn next, and what was measured so far.
struct Run {
    bed: Arc<Bed>,
    draw: Mutex<Draw>,
    measured: Mutex<Tally>,
    began: Instant,
    /// What ends before this is not measured.
    warm: Instant,
    until: Instant,
    /// In the open loop: time to look at what is due.
    look: Notify,
    /// And how many were begun.
    begun: AtomicU64,
    over: AtomicBool,
}

const UNPOISONED: &str = "nothing panics while it holds this lock";

impl Run {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.measured.lock().expect(UNPOISONED)
    }

    async fn one(&self, from: Option<Instant>, worker: u64) {
        let (operation, key) = self.draw.lock().expect(UNPOISONED).next();
        let from = from.unwrap_or_else(Instant::now);
        let end = self.bed.perform(operation, key, worker).await;
        let now = Instant::now();
        if (self.warm..self.until).contains(&now) {
            self.tally().record(operation, end, now.saturating_duration_since(from));
        }
    }

    async fn closed(&self, worker: u64) {
        while Instant::now() < self.until {
            self.one(None, worker).await;
        }
    }

    /// Begins what is due, all of it at once, as whoever sends it sends it together.
    async fn open(self: &Arc<Self>, rate: u64) {
        let room = Arc::new(Semaphore::new(self.bed.bench.in_flight() as usize));
        let mut under_way = JoinSet::new();
        for slot in 0.. {
            let due = self.began + after(slot, rate);
            while Instant::now() < due.min(self.until) {
                self.look.notified().await;
            }
            let room = Arc::clone(&room).acquire_owned().await.expect("this semaphore is never closed");
            if Instant::now() >= self.until {
                break;
            }
            self.begun.fetch_add(1, Ordering::Relaxed);
            let run = Arc::clone(self);
            under_way.spawn(async move {
                run.one(Some(due), slot).await;
                drop(room);
            });
            while under_way.try_join_next().is_some() {}
        }
        under_way.join_all().await;
    }

    /// Says when to look, on a thread of its own: the timers of a runtime are too coarse.
    fn pace(&self, rate: u64) {
        while !self.over.load(Ordering::Relaxed) {
            self.look.notify_one();
            let next = self.began + after(self.begun.load(Ordering::Relaxed), rate);
            std::thread::sleep(PACE.max(next.min(self.until).saturating_duration_since(Instant::now())));
        }
    }

    /// How far it is; `before` is how many were done when this was said last.
    fn tell(&self, before: &mut u64) {
        let (done, all) = {
            let tally = self.tally();
            (tally.count(End::Done), tally.all())
        };
        let seconds = self.began.elapsed().as_secs();
        if Instant::now() < self.warm {
            return eprintln!("{seconds:>4} s: warming up");
        }
        let rate = grouped((done - *before) / PROGRESS_EVERY.as_secs());
        let failed = if all > done { format!(", {} not", grouped(all - done)) } else { String::new() };
        eprintln!("{seconds:>4} s: {} done, {rate}/s{failed}", grouped(done));
        *before = done;
    }
}

/// When the operation of this number is due.
fn after(slot: u64, rate: u64) -> Duration {
    Duration::from_nanos((u128::from(slot) * 1_000_000_000 / u128::from(rate)) as u64)
}

/// Works for as long as the settings say.
pub async fn run(bed: &Arc<Bed>) -> Measured {
    let bench = &bed.bench;
    let began = Instant::now();
    let warm = began + bench.warm_up;
    let run = Arc::new(Run {
        draw: Mutex::new(Draw::new(bench.seed, bench.workload, bench.keys(), bench.records)),
        measured: Mutex::default(),
        bed: Arc::clone(bed),
        began,
        warm,
        until: warm + bench.time,
        look: Notify::new(),
        begun: AtomicU64::new(0),
        over: AtomicBool::new(false),
    });
    let (told, mut before) = (Arc::clone(&run), 0);
    let _telling = bed.telling(move || told.tell(&mut before));
    let pacer = bench.rate.map(|rate| {
        let run = Arc::clone(&run);
        std::thread::spawn(move || run.pace(rate))
    });
    let mut workers = JoinSet::new();
    if let Some(rate) = bench.rate {
        let run = Arc::clone(&run);
        workers.spawn(async move { run.open(rate).await });
    } else {
        for worker in 0..u64::from(bench.in_flight()) {
            let run = Arc::clone(&run);
            workers.spawn(async move { run.closed(worker).await });
        }
    }
    // What is still under way when the time is over is not waited for beyond its deadline.
    workers.join_all().await;
    run.over.store(true, Ordering::Relaxed);
    if let Some(pacer) = pacer {
        pacer.join().expect("the pacer does not panic");
    }
    let late = bench.rate.map_or(0, |rate| late(bench, rate, run.begun.load(Ordering::Relaxed)));
    let tally = run.tally().clone();
    Measured { tally, late, failed: bed.failed.get().cloned() }
}

/// Operations that were due after the warm-up, and that were not begun by the end.
fn late(bench: &Bench, rate: u64, begun: u64) -> u64 {
    let due = |time: Duration| (time.as_nanos() * u128::from(rate) / 1_000_000_000) as u64;
    let (before, all) = (due(bench.warm_up), due(bench.warm_up + bench.time));
    all.saturating_sub(begun.max(before))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser;

    #[test]
    fn operations_are_due_at_even_distances() {
        assert_eq!(after(0, 1_000), Duration::ZERO);
        assert_eq!(after(2_500, 1_000), Duration::from_millis(2_500));
        assert_eq!(after(1, 3), Duration::from_nanos(333_333_333));
    }

    #[test]
    fn what_was_due_in_the_warm_up_is_not_late() {
        let Command::Bench(bench) =
            Cli::try_parse_from("quorate bench puts --warm-up 1s --time 3s".split(' ')).unwrap().command
        else {
            panic!()
        };
        let late = |begun| late(&bench, 1_000, begun);
        assert_eq!((late(0), late(900), late(1_500), late(4_000), late(4_001)), (3_000, 3_000, 2_500, 0, 0));
    }
}
