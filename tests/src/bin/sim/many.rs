//! Many seeds, on several threads.

use super::{Arguments, planted};
use quorate_tests::sim::rare::Rare;
use quorate_tests::sim::trace::Figures;
use quorate_tests::sim::{Telling, run};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// What the threads share.
struct Tally {
    began: Instant,
    next: AtomicU64,
    stop: AtomicBool,
    done: AtomicU64,
    failed: AtomicU64,
    figures: Mutex<Figures>,
}

pub fn run_all(arguments: &Arguments) -> ExitCode {
    let tally = Tally {
        began: Instant::now(),
        next: AtomicU64::new(arguments.seed),
        stop: AtomicBool::new(false),
        done: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        figures: Mutex::new(Figures::default()),
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..arguments.jobs.max(1)).map(|_| scope.spawn(|| work(arguments, &tally))).collect();
        let mut said = Instant::now();
        while !threads.iter().all(|thread| thread.is_finished()) {
            std::thread::sleep(Duration::from_millis(50));
            if said.elapsed() >= PROGRESS_EVERY && !arguments.hash {
                said = Instant::now();
                println!("{}", tally.progress());
            }
        }
    });
    if !arguments.hash {
        println!("{}", tally.summary());
    }
    if tally.failed.load(Ordering::Relaxed) == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Tally {
    fn progress(&self) -> String {
        let figures = self.figures.lock().expect("no thread panics with the figures");
        let seconds = self.began.elapsed().as_secs_f64();
        let seeds = self.done.load(Ordering::Relaxed);
        let all = Rare::ALL.len();
        format!(
            "{seconds:.0} s: {seeds} seeds ({:.1}/s), {} failed, {} operations, {:.2} simulated hours; faults: {}; rare \
             events: {} of {all} kinds",
            seeds as f64 / seconds,
            self.failed.load(Ordering::Relaxed),
            figures.operations,
            figures.hours(),
            figures.faults_by_kind(),
            all - figures.never().len()
        )
    }

    fn summary(&self) -> String {
        let figures = self.figures.lock().expect("no thread panics with the figures");
        let seconds = self.began.elapsed().as_secs_f64();
        let seeds = self.done.load(Ordering::Relaxed);
        format!(
            "{seeds} seeds in {seconds:.1} s ({:.1}/s), {} failed; {:.0} client operations and {:.0} messages a second\n{}",
            seeds as f64 / seconds,
            self.failed.load(Ordering::Relaxed),
            figures.operations as f64 / seconds,
            figures.frames as f64 / seconds,
            *figures
        )
    }
}

/// Runs one seed after the other, until they are used up, the time is over, or one fails.
fn work(arguments: &Arguments, tally: &Tally) {
    let planted = planted::plant(arguments.bug.as_deref());
    debug_assert!(planted.is_ok(), "it was planted once before");
    loop {
        let seed = tally.next.fetch_add(1, Ordering::Relaxed);
        let over = match arguments.minutes {
            Some(minutes) => tally.began.elapsed() >= Duration::from_secs(60 * minutes),
            None => seed >= arguments.seed + arguments.seeds,
        };
        if over || tally.stop.load(Ordering::Relaxed) {
            return;
        }
        let report = run(&arguments.asked(seed), Telling::Nothing);
        tally.done.fetch_add(1, Ordering::Relaxed);
        tally.figures.lock().expect("no thread panics with the figures").add(&report.figures);
        if arguments.hash {
            println!("{seed} {:016x}", report.hash);
        }
        if let Some(violation) = report.violation {
            tally.failed.fetch_add(1, Ordering::Relaxed);
            if !arguments.hash {
                println!("seed {seed}: {violation}\nagain: {}", arguments.again(seed));
            }
            tally.stop.fetch_or(!arguments.keep_going && !arguments.hash, Ordering::Relaxed);
        }
    }
}
