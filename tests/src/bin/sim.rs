//! `sim`: worlds in seeds, from the command line.

use clap::Parser;
use quorate_tests::sim::faults::Mask;
use quorate_tests::sim::trace::Figures;
use quorate_tests::sim::{Asked, Telling, run};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Runs the world of a seed, or of many; stops at the first promise that is broken, with the command that shows it
/// again.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Go on for so many minutes instead.
    #[arg(long)]
    minutes: Option<u64>,
    /// Threads, a world on each.
    #[arg(long, default_value_t = 1)]
    jobs: u64,
    /// Kinds of faults to switch off, apart by commas; `all` for every one.
    #[arg(long, default_value = "")]
    mask: Mask,
    /// Client operations at the most.
    #[arg(long)]
    max_ops: Option<u64>,
    /// Tell the whole story.
    #[arg(long)]
    log: bool,
    /// Print nothing but seed and hash, a line for each run.
    #[arg(long)]
    hash: bool,
    /// A bug on purpose, which the checks must find.
    #[arg(long)]
    bug: Option<String>,
    /// Look for every bug on purpose, each until it is found or the seeds are used up.
    #[arg(long)]
    bugs: bool,
    /// Go on after a promise is broken.
    #[arg(long)]
    keep_going: bool,
}

impl Arguments {
    fn asked(&self, seed: u64) -> Asked {
        Asked { seed, mask: self.mask, max_ops: self.max_ops }
    }

    /// The command that runs a seed again.
    fn again(&self, seed: u64) -> String {
        let mut command = format!("sim --seed {seed}");
        if self.mask != Mask::default() {
            command += &format!(" --mask {}", self.mask);
        }
        if let Some(most) = self.max_ops {
            command += &format!(" --max-ops {most}");
        }
        if let Some(bug) = &self.bug {
            command += &format!(" --bug {bug}");
        }
        command
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.bugs {
        return planted::all(&arguments);
    }
    if let Err(why) = planted::plant(arguments.bug.as_deref()) {
        eprintln!("sim: {why}");
        return ExitCode::from(2);
    }
    if arguments.seeds == 1 && arguments.minutes.is_none() {
        return one(&arguments);
    }
    many(&arguments)
}

fn one(arguments: &Arguments) -> ExitCode {
    let telling = if arguments.log { Telling::Everything } else { Telling::OfFailure };
    let report = run(&arguments.asked(arguments.seed), telling);
    if arguments.hash {
        println!("{} {:016x}", arguments.seed, report.hash);
    } else {
        println!("{}", report.options);
        if arguments.log || report.violation.is_some() {
            report.story.iter().for_each(|line| println!("{line}"));
        }
        println!("{}\nhash {:016x}", report.figures, report.hash);
    }
    match report.violation {
        None => ExitCode::SUCCESS,
        Some(violation) => {
            println!("{violation}\nagain: {}", arguments.again(arguments.seed));
            ExitCode::FAILURE
        }
    }
}

/// What the threads share.
struct Tally {
    next: AtomicU64,
    stop: AtomicBool,
    done: AtomicU64,
    failed: AtomicU64,
    figures: Mutex<Figures>,
}

fn many(arguments: &Arguments) -> ExitCode {
    let began = Instant::now();
    let tally = Tally {
        next: AtomicU64::new(arguments.seed),
        stop: AtomicBool::new(false),
        done: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        figures: Mutex::new(Figures::default()),
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..arguments.jobs.max(1)).map(|_| scope.spawn(|| work(arguments, &tally, began))).collect();
        let mut said = Instant::now();
        while !threads.iter().all(|thread| thread.is_finished()) {
            std::thread::sleep(Duration::from_millis(50));
            if said.elapsed() >= Duration::from_secs(5) && !arguments.hash {
                said = Instant::now();
                println!("{}", progress(&tally, began));
            }
        }
    });
    if !arguments.hash {
        println!("{}", progress(&tally, began));
        println!("{}", tally.figures.lock().expect("no thread panics with the figures"));
    }
    if tally.failed.load(Ordering::Relaxed) == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn progress(tally: &Tally, began: Instant) -> String {
    let figures = tally.figures.lock().expect("no thread panics with the figures");
    let seconds = began.elapsed().as_secs_f64();
    let seeds = tally.done.load(Ordering::Relaxed);
    let faults: u64 = figures.faults.values().sum();
    format!(
        "{seconds:.1} s: {seeds} seeds ({:.1}/s), {} failed, {} operations ({:.0}/s), {:.2} simulated hours, {faults} faults",
        seeds as f64 / seconds,
        tally.failed.load(Ordering::Relaxed),
        figures.operations,
        figures.operations as f64 / seconds,
        figures.virtual_us as f64 / 3.6e9
    )
}

/// Runs one seed after the other, until they are used up, the time is over, or one fails.
fn work(arguments: &Arguments, tally: &Tally, began: Instant) {
    let planted = planted::plant(arguments.bug.as_deref());
    debug_assert!(planted.is_ok(), "it was planted once before");
    loop {
        let seed = tally.next.fetch_add(1, Ordering::Relaxed);
        let over = match arguments.minutes {
            Some(minutes) => began.elapsed() >= Duration::from_secs(60 * minutes),
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
            println!("seed {seed}: {violation}\nagain: {}", arguments.again(seed));
            tally.stop.fetch_or(!arguments.keep_going, Ordering::Relaxed);
        }
    }
}

#[cfg(feature = "planted")]
mod planted {
    use super::{Arguments, run};
    use quorate_node::planted::{Bug, plant as plant_in_node};
    use quorate_tests::sim::Telling;
    use std::process::ExitCode;

    pub fn plant(name: Option<&str>) -> Result<(), String> {
        let Some(name) = name else {
            plant_in_node(None);
            return Ok(());
        };
        let names = || Bug::ALL.iter().map(|bug| bug.name()).collect::<Vec<_>>().join(", ");
        let bug = Bug::ALL.iter().find(|bug| bug.name() == name);
        let bug = bug.ok_or_else(|| format!("{name:?} is none of {}", names()))?;
        plant_in_node(Some(*bug));
        Ok(())
    }

    /// Each bug, until it is found.
    pub fn all(arguments: &Arguments) -> ExitCode {
        let mut missed = 0;
        for bug in Bug::ALL {
            plant_in_node(Some(*bug));
            let found = (0..arguments.seeds).find_map(|i| {
                let seed = arguments.seed + i;
                run(&arguments.asked(seed), Telling::Nothing).violation.map(|violation| (seed, violation))
            });
            match found {
                Some((seed, violation)) => println!("{:24} seed {seed}: {violation}", bug.name()),
                None => {
                    println!("{:24} NOT FOUND in {} seeds", bug.name(), arguments.seeds);
                    missed += 1;
                }
            }
        }
        if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

#[cfg(not(feature = "planted"))]
mod planted {
    use super::Arguments;
    use std::process::ExitCode;

    const WITHOUT: &str = "this program was built without bugs on purpose; build it with --features planted";

    pub fn plant(name: Option<&str>) -> Result<(), String> {
        name.map_or(Ok(()), |_| Err(WITHOUT.to_string()))
    }

    pub fn all(_: &Arguments) -> ExitCode {
        eprintln!("sim: {WITHOUT}");
        ExitCode::from(2)
    }
}
