//! A cluster for a run of its own, and a client of it. Whatever happens, no process of it is left behind.

use crate::cluster::{Cluster, ClusterError, END_GRACE};
use crate::folder::{Folder, FolderError};
use crate::plan::Shape;
use crate::probe;
use crate::process::Tie;
use crate::verify::{self, Findings};
use quorate_client::{
    Client, ConnectError, Declined, LinkError, NodeId, NodeStatus, Profile, ProfileError, WriteError,
};
use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

const READY_LIMIT: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);
const STATUS_PATIENCE: Duration = Duration::from_secs(1);
/// Nodes take this long at the most to notice a cut, or that it was healed: silent connections are given up after 10 s,
/// and dialled again.
const NOTICE_LIMIT: Duration = Duration::from_secs(30);

/// Asked again and again whether to stop before the end.
pub type Stop<'a> = &'a dyn Fn() -> ControlFlow<()>;

/// Why a run came to no end.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(transparent)]
    Profile(#[from] ProfileError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the threads of the client could not be started: {0}")]
    Threads(io::Error),
    #[error("a write that the run needs was not done: {0}")]
    Write(#[from] WriteError),
    #[error("a read that the run needs was not done: {0}")]
    Read(#[from] Declined),
    #[error("waited {} s in vain: {what}", after.as_secs())]
    Waited { what: String, after: Duration },
    #[error("{0}")]
    Unexpected(String),
    #[error("interrupted")]
    Interrupted,
}

/// A cluster that ends with this.
pub struct Stage<'a> {
    pub cluster: Cluster,
    pub names: Vec<String>,
    pub threads: Runtime,
    pub client: Client,
    stop: Stop<'a>,
}

impl<'a> Stage<'a> {
    /// Makes a cluster in a folder of its own and starts it.
    pub fn set(program: &Path, folder: Option<PathBuf>, shape: &Shape, stop: Stop<'a>) -> Result<Self, StageError> {
        let default = || std::env::temp_dir().join(format!("quorate-stage-{}", std::process::id()));
        let folder = Folder::at(&folder.unwrap_or_else(default))?;
        let threads = Runtime::new().map_err(StageError::Threads)?;
        let mut cluster = Cluster::make(folder, shape, program.to_path_buf())?;
        let names = cluster.record().names();
        cluster.start(&names, Tie::EndsWithUs)?;
        cluster.wait_ready(&names, READY_LIMIT, |_| stop())?;
        let profile = Profile::load(&cluster.folder().client_profile())?;
        let client = threads.block_on(Client::connect(&profile))?;
        Ok(Self { cluster, names, threads, client, stop })
    }

    /// Ends every process; the folder goes too, unless it is to be kept to be looked at.
    pub fn clear(self, keep: bool) -> Result<Option<PathBuf>, StageError> {
        let Self { mut cluster, names, threads, client, .. } = self;
        threads.block_on(client.close());
        if keep {
            cluster.stop(&names, END_GRACE)?;
            return Ok(Some(cluster.folder().path().to_path_buf()));
        }
        cluster.destroy()?;
        Ok(None)
    }

    pub fn check_stop(&self) -> Result<(), StageError> {
        if (self.stop)().is_break() { Err(StageError::Interrupted) } else { Ok(()) }
    }

    /// Waits, and tells how far it has come.
    pub fn pause(&self, time: Duration, mut show: impl FnMut(Duration)) -> Result<(), StageError> {
        let began = Instant::now();
        while began.elapsed() < time {
            self.check_stop()?;
            std::thread::sleep(LOOK_EVERY.min(time.saturating_sub(began.elapsed())));
            show(began.elapsed());
        }
        Ok(())
    }

    /// Waits for something to be so; returns how long that took.
    pub fn wait_until(
        &self,
        what: &str,
        limit: Duration,
        mut is_so: impl FnMut(&Self) -> bool,
    ) -> Result<Duration, StageError> {
        let began = Instant::now();
        while !is_so(self) {
            self.check_stop()?;
            if began.elapsed() >= limit {
                return Err(StageError::Waited { what: what.to_string(), after: limit });
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(began.elapsed())
    }

    pub fn start(&mut self, name: &str) -> Result<(), StageError> {
        self.cluster.start(&[name.to_string()], Tie::EndsWithUs)?;
        Ok(())
    }

    pub fn kill(&mut self, name: &str) -> Result<(), StageError> {
        Ok(self.cluster.kill(&[name.to_string()])?)
    }

    pub fn wait_ready(&self, name: &str) -> Result<(), StageError> {
        Ok(self.cluster.wait_ready(&[name.to_string()], READY_LIMIT, |_| (self.stop)())?)
    }

    pub fn node(&self, name: &str) -> NodeId {
        NodeId(self.cluster.record().node(name).map_or(0, |node| node.id))
    }

    pub fn name(&self, node: NodeId) -> String {
        let found = self.cluster.record().nodes.iter().find(|record| record.id == node.0);
        found.map_or_else(|| node.to_string(), |record| record.name.clone())
    }

    /// Each node's account of itself, of those that answer.
    pub fn status(&self) -> Vec<NodeStatus> {
        let answers: Vec<(NodeId, Result<NodeStatus, LinkError>)> =
            self.threads.block_on(self.client.status(STATUS_PATIENCE));
        answers.into_iter().filter_map(|(_, status)| status.ok()).collect()
    }

    pub fn hints_pending(&self) -> u64 {
        self.status().iter().map(|status| status.hints_pending).sum()
    }

    /// Waits until each node takes exactly those others for down that it cannot hear.
    pub fn wait_noticed(&self, down: impl Fn(&str, &str) -> bool) -> Result<Duration, StageError> {
        let noticed = |stage: &Self| {
            let statuses = stage.status();
            statuses.len() == stage.names.len()
                && statuses.iter().all(|status| {
                    status.peers.iter().all(|peer| {
                        (peer.state == "down") == down(&status.name, &stage.name(NodeId(peer.node)))
                            && (peer.state == "up") != down(&status.name, &stage.name(NodeId(peer.node)))
                    })
                })
        };
        self.wait_until("the nodes do not see the links as they are", NOTICE_LIMIT, noticed)
    }

    /// The sum of a counter over all its labels, as a node's metrics have it.
    pub fn counter(&self, name: &str, metric: &str) -> Option<u64> {
        let admin = self.cluster.record().node(name)?.admin_address;
        let (_, text) = probe::get(admin, "/metrics").ok()?;
        let lines = text.lines().filter_map(|line| line.strip_prefix(metric));
        let values = lines.filter(|rest| rest.starts_with([' ', '{'])).filter_map(|rest| rest.rsplit(' ').next());
        Some(values.filter_map(|value| value.parse::<f64>().ok()).sum::<f64>() as u64)
    }

    /// Looks at all owners until they hold the same, and with `residue` until nothing is left.
    pub fn settle(&self, residue: bool, within: Duration) -> (Findings, Duration) {
        self.threads.block_on(verify::settle(&self.client, residue, within, |_| {}))
    }
}

/// One line on stderr that changes, if there is a terminal to show it.
pub fn progress(line: &str) {
    let mut stderr = io::stderr().lock();
    if stderr.is_terminal() {
        // Nothing to be done when nobody can be told.
        let _ = write!(stderr, "\r\x1b[K{line}").and_then(|()| stderr.flush());
    }
}

/// A line on stderr that stays.
pub fn note(line: &str) {
    let mut stderr = io::stderr().lock();
    let clear = if stderr.is_terminal() { "\r\x1b[K" } else { "" };
    let _ = writeln!(stderr, "{clear}{line}");
}
