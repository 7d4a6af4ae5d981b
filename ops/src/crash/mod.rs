//! Rounds of ending all nodes at once in the middle of a load, and checking what was acknowledged.
//!
//! A killed process loses nothing that it gave to the system; only a power cut shows what was not fsynced. So there
//! are two modes: SIGKILL, and a cut of the disks under the nodes (see [`volume`]).

mod load;
mod report;
mod volume;

pub use report::{Report, Round};

use crate::cluster::{Cluster, ClusterError, END_GRACE};
use crate::folder::{Folder, FolderError};
use crate::plan::Shape;
use crate::process::Tie;
use crate::sequence::Sequence;
use load::{Load, LoadError};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use volume::{Volume, VolumeError};

const READY_LIMIT: Duration = Duration::from_secs(60);
/// Room that a node leaves free on its disk: the volumes are small.
const VOLUME_SETTINGS: &str = "disk_reserve_bytes = 16_777_216\n";

/// How all nodes are ended at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Mode {
    /// SIGKILL.
    Kill,
    /// The disks stop, and what was not fsynced is gone (needs root and loop devices).
    Power,
}

/// What to do in how many rounds.
#[derive(Clone, PartialEq, Eq, Debug, clap::Args)]
pub struct Settings {
    #[arg(long, default_value_t = 20)]
    pub rounds: u32,
    #[arg(long, value_enum, default_value_t = Mode::Kill)]
    pub mode: Mode,
    /// Nodes of the cluster, on 3 racks.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub nodes: u16,
    /// Puts under way at the same time.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub writers: u16,
    /// The load goes on for this long at the most before the cut, in milliseconds; each round draws its own time.
    #[arg(long, default_value_t = 1500, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    pub load_ms: u64,
    /// What the moments of the cuts and the records are drawn from.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Folder for the cluster, removed after rounds that pass [default: one in the system's folder for such things].
    #[arg(long, value_name = "FOLDER")]
    pub scratch: Option<PathBuf>,
}

/// Why no verdict was reached.
#[derive(Debug, thiserror::Error)]
pub enum CrashError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("interrupted after {0} rounds")]
    Interrupted(usize),
}

/// A cluster that is cut again and again, and its disks, if it has its own.
struct Trial {
    cluster: Cluster,
    volumes: Vec<Volume>,
    names: Vec<String>,
}

/// Runs all rounds. Whatever happens, no process and no mounted volume is left behind; the folder stays if something
/// was lost or went wrong.
pub fn rounds(program: &Path, settings: &Settings, stop: impl Fn() -> ControlFlow<()>) -> Result<Report, CrashError> {
    let default = || std::env::temp_dir().join(format!("quorate-crash-{}", std::process::id()));
    let folder = Folder::at(&settings.scratch.clone().unwrap_or_else(default))?;
    let mut trial = Trial::make(folder.clone(), program, settings)?;
    let done = trial.run(settings, &stop);
    let ended = trial.end();
    let mut report = done?;
    ended?;
    match report.passed() {
        true => std::fs::remove_dir_all(folder.path())
            .map_err(|error| FolderError::File { path: folder.path().to_path_buf(), error })?,
        false => report.kept = Some(folder.path().to_path_buf()),
    }
    Ok(report)
}

impl Trial {
    fn make(folder: Folder, program: &Path, settings: &Settings) -> Result<Self, CrashError> {
        let common = Shape { nodes: settings.nodes, ..Shape::default() };
        let shape = match settings.mode {
            Mode::Kill => common,
            Mode::Power => {
                volume::check()?;
                Shape { node_settings: VOLUME_SETTINGS.to_string(), data: "disk/data", ..common }
            }
        };
        let cluster = Cluster::make(folder, &shape, program.to_path_buf())?;
        let names = cluster.record().names();
        let mut trial = Self { cluster, volumes: Vec::new(), names };
        if settings.mode == Mode::Power {
            for name in &trial.names {
                trial.volumes.push(Volume::make(&trial.cluster.folder().node(name))?);
            }
        }
        Ok(trial)
    }

    fn run(&mut self, settings: &Settings, stop: &impl Fn() -> ControlFlow<()>) -> Result<Report, CrashError> {
        let mut sequence = Sequence::new(settings.seed);
        let load = Load::new(&self.cluster.folder().client_profile(), settings.seed)?;
        let mut report = Report::new(settings);
        let mut acknowledged = Vec::new();
        self.start(stop)?;
        for number in 1..=settings.rounds {
            if stop().is_break() {
                return Err(CrashError::Interrupted(report.rounds.len()));
            }
            let time = Duration::from_millis(100 + sequence.draw() % (settings.load_ms - 99));
            let written = load.write(u64::from(number), settings.writers, time, || self.cut())?;
            let began = Instant::now();
            self.restore()?;
            self.start(stop)?;
            let back = began.elapsed();
            let round = Round {
                number,
                back,
                acknowledged: load.check(&written.acknowledged)?,
                unknown: load.check(&written.unknown)?,
                refused: load.check(&written.refused)?,
            };
            eprintln!("{round}");
            report.rounds.push(round);
            acknowledged.extend(written.acknowledged);
        }
        report.last_check = Some(load.check(&acknowledged)?);
        Ok(report)
    }

    fn start(&mut self, stop: &impl Fn() -> ControlFlow<()>) -> Result<(), CrashError> {
        self.cluster.start(&self.names, Tie::EndsWithUs)?;
        Ok(self.cluster.wait_ready(&self.names, READY_LIMIT, |_| stop())?)
    }

    /// All nodes end now. For a power cut they are frozen before the disks go: an fsync that is under way then may
    /// report a success that it was not (seen with ext4), and nobody is left to hear that after a real power cut.
    fn cut(&mut self) -> Result<(), CrashError> {
        if !self.volumes.is_empty() {
            self.cluster.freeze(&self.names)?;
        }
        for volume in &self.volumes {
            volume.cut()?;
        }
        Ok(self.cluster.kill(&self.names)?)
    }

    fn restore(&mut self) -> Result<(), CrashError> {
        self.volumes.iter().try_for_each(|volume| Ok(volume.restore()?))
    }

    fn end(mut self) -> Result<(), CrashError> {
        self.cluster.stop(&self.names, END_GRACE)?;
        Ok(())
    }
}
