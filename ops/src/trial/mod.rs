//! Faults under load, and what must hold then. Each trial makes a cluster of real processes, ends and removes it.
//!
//! - [`ledger`]: what the writer of a key knows, and what a reader may therefore be shown.
//! - [`load`]: a steady load, every answer of which is judged.
//! - [`receipt`]: what a trial did and found.
//! - `fill`: many records at once.
//! - `down`, `wipe`, `cut`, `deletes`, `hints`: the trials.

mod cut;
mod deletes;
mod down;
mod fill;
mod hints;
mod ledger;
mod load;
mod receipt;
mod wipe;

pub use receipt::Receipt;

use crate::plan::Shape;
use crate::stage::{Stage, StageError, Stop};
use load::{Mix, Route};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the owners may take to become the same once nothing is wrong any more.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
/// A load runs for this long before anything is done to the cluster.
const WARM: Duration = Duration::from_secs(2);

/// What all trials take.
#[derive(Clone, PartialEq, Eq, Debug, clap::Args)]
pub struct Common {
    /// Nodes of the cluster, on 3 racks.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(4..=16))]
    pub nodes: u16,
    /// Requests per second.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rate: u32,
    /// Clients that work at the same time.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub writers: u16,
    /// What keys, values, nodes and moments are drawn from.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Folder for the cluster, removed after a trial that passes [default: one in the system's folder for such things].
    #[arg(long, value_name = "FOLDER")]
    pub scratch: Option<PathBuf>,
}

/// Faults under load, and what must hold then.
#[derive(Clone, PartialEq, Eq, Debug, clap::Subcommand)]
pub enum Trial {
    /// A node is down for a while and returns: no request fails, and it catches up.
    Down {
        #[command(flatten)]
        common: Common,
        /// How long it is down.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Disks are wiped, one after the other: nothing acknowledged is missed at any time.
    Wipe {
        #[command(flatten)]
        common: Common,
        #[arg(long, default_value_t = 20)]
        rounds: u32,
        /// Records that are there beforehand, so that there is something to copy.
        #[arg(long, default_value_t = 10_000)]
        records: u64,
    },
    /// The cluster is cut in two, or in other ways, in strict and in sloppy buckets: nothing acknowledged is lost.
    Cut {
        #[command(flatten)]
        common: Common,
        /// How long a cut lasts.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Cuts: the first in two halves, the others drawn from halves, one node alone, one way, majorities that overlap.
        #[arg(long, default_value_t = 1)]
        rounds: u32,
    },
    /// Deletes while an owner is down, while hints are under way, before a disk is wiped: nothing comes back.
    Deletes {
        #[command(flatten)]
        common: Common,
        /// Keys that are deleted in each act.
        #[arg(long, default_value_t = 1000)]
        keys: usize,
    },
    /// Hints survive a crash of the node that keeps them, and their delivery does not slow clients down.
    Hints {
        #[command(flatten)]
        common: Common,
        /// Hints that are delivered under load; 0 leaves that part out.
        #[arg(long, default_value_t = 100_000)]
        hints: u64,
        /// How long the load without hints is measured.
        #[arg(long, default_value_t = 20)]
        seconds: u64,
    },
}

impl Trial {
    fn common(&self) -> &Common {
        match self {
            Trial::Down { common, .. }
            | Trial::Wipe { common, .. }
            | Trial::Cut { common, .. }
            | Trial::Deletes { common, .. }
            | Trial::Hints { common, .. } => common,
        }
    }
}

/// Runs a trial. No process is left behind; the folder stays if something was wrong.
pub fn run(program: &Path, trial: &Trial, stop: Stop<'_>) -> Result<Receipt, StageError> {
    let common = trial.common();
    let faults = match trial {
        Trial::Cut { .. } | Trial::Deletes { .. } | Trial::Hints { .. } => true,
        Trial::Down { .. } | Trial::Wipe { .. } => false,
    };
    let shape = Shape { nodes: common.nodes, faults, ..Shape::default() };
    let mut stage = Stage::set(program, common.scratch.clone(), &shape, stop)?;
    let done = match trial {
        Trial::Down { seconds, .. } => down::run(&mut stage, common, Duration::from_secs(*seconds)),
        Trial::Wipe { rounds, records, .. } => wipe::run(&mut stage, common, *rounds, *records),
        Trial::Cut { seconds, rounds, .. } => cut::run(&mut stage, common, Duration::from_secs(*seconds), *rounds),
        Trial::Deletes { keys, .. } => deletes::run(&mut stage, common, *keys),
        Trial::Hints { hints, seconds, .. } => hints::run(&mut stage, common, *hints, Duration::from_secs(*seconds)),
    };
    let keep = !done.as_ref().is_ok_and(Receipt::passed);
    let kept = stage.clear(keep)?;
    if let (Err(_), Some(folder)) = (&done, &kept) {
        crate::stage::note(&format!("the folder is kept: {}", folder.display()));
    }
    done.map(|mut receipt| {
        receipt.kept = kept;
        receipt
    })
}

impl Common {
    /// A load on one bucket.
    fn mix(&self, bucket: &'static str, route: Route) -> Mix {
        Mix {
            bucket,
            prefix: bucket,
            writers: self.writers,
            keys_per_writer: 40,
            rate: self.rate,
            seed: self.seed,
            route,
            all_percent: 0,
            judged: true,
        }
    }
}
