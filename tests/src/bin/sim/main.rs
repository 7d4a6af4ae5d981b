//! `sim`: worlds in seeds, from the command line.

mod many;
mod planted;
mod twice;

use clap::Parser;
use quorate_tests::sim::faults::Mask;
use quorate_tests::sim::{Asked, Telling, run};
use std::process::{Command, ExitCode};

/// A world is made of many small things, each soon gone.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    /// Run every seed in two processes, and compare the hashes.
    #[arg(long)]
    twice: bool,
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

    /// What changes a run, as it is typed.
    fn changes(&self) -> Vec<String> {
        let mut changes = Vec::new();
        if self.mask != Mask::default() {
            changes.extend(["--mask".to_string(), self.mask.to_string()]);
        }
        if let Some(most) = self.max_ops {
            changes.extend(["--max-ops".to_string(), most.to_string()]);
        }
        if let Some(bug) = &self.bug {
            changes.extend(["--bug".to_string(), bug.clone()]);
        }
        changes
    }

    /// The command that runs a seed again.
    fn again(&self, seed: u64) -> String {
        [vec![format!("sim --seed {seed}")], self.changes()].concat().join(" ")
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
    if arguments.twice {
        return twice::compare(&arguments);
    }
    if arguments.seeds == 1 && arguments.minutes.is_none() {
        return one(&arguments);
    }
    many::run_all(&arguments)
}

fn one(arguments: &Arguments) -> ExitCode {
    let telling = if arguments.log { Telling::Everything } else { Telling::OfFailure };
    let report = run(&arguments.asked(arguments.seed), telling);
    if arguments.hash {
        println!("{} {:016x}", arguments.seed, report.hash);
    } else {
        println!("revision {}\n{}", revision(), report.options);
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

/// Of the sources here, as far as git knows: a seed means nothing without them.
fn revision() -> String {
    let output = Command::new("git").args(["describe", "--always", "--dirty"]).output();
    let known = output.ok().filter(|output| output.status.success());
    known.map_or("unknown".to_string(), |output| String::from_utf8_lossy(&output.stdout).trim().to_string())
}
