//! What is done to the nodes of a lab: start, wait, stop, kill, pause. What else is done to them is in `faults`.

mod faults;

use crate::disk::{self, DiskError};
use crate::folder::{Folder, FolderError, FolderLock, NodeRecord, Record};
use crate::plan::{self, PlanError, Shape};
use crate::probe::{self, Readiness};
use crate::process::{Doing, Ended, Process, Tie};
use crate::relay::{ControlError, RulesError};
use quorate_ring::topology::Topology;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long a node that was asked to end is waited for, before it is killed.
pub const END_GRACE: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(50);
const LOG_LINES_SHOWN: usize = 12;

/// Why something was not done to a cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error("there is no program {path}; build it with `cargo build --release`, or name it with --node-program", path = .0.display())]
    ProgramMissing(PathBuf),
    #[error("there is no node {name:?} in this lab; it has {}", .known.join(", "))]
    UnknownNode { name: String, known: Vec<String> },
    #[error("{node} is not running; start it with `quorate-lab restart {node}`")]
    NotRunning { node: String },
    #[error("port {port} of {node} is in use by another program; stop that, or make a lab in another folder")]
    PortTaken { node: String, port: u16 },
    #[error("the data folder of {node} could not be made:\n{output}")]
    Initialise { node: String, output: String },
    #[error("{node} did not start: {error}")]
    Start { node: String, error: io::Error },
    #[error("{node} ended while it was waited for; the end of {log}:\n{tail}", log = log.display())]
    Ended { node: String, log: PathBuf, tail: String },
    #[error("{node} was not ready after {} s ({why}); the end of {log}:\n{tail}", after.as_secs(), log = log.display())]
    NotReady { node: String, after: Duration, why: String, log: PathBuf, tail: String },
    #[error("{node}: {error}")]
    Signal { node: String, error: io::Error },
    #[error("the processes of this machine cannot be listed: {0}")]
    Look(io::Error),
    #[error("interrupted")]
    Interrupted,
    #[error(transparent)]
    Rules(#[from] RulesError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(
        "the nodes of this lab talk to each other directly, so that no link can be cut; make a lab with `quorate-lab up --faults`"
    )]
    NoRelay,
    #[error("the relay did not start: {0}; its log is {log}", log = .1.display())]
    Relay(io::Error, PathBuf),
}

/// A lab, with its lock held.
pub struct Cluster {
    folder: Folder,
    record: Record,
    program: PathBuf,
    _lock: FolderLock,
}

/// One node, as seen from outside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeView {
    pub record: NodeRecord,
    pub doing: Doing,
    pub readiness: Readiness,
    pub resident_bytes: Option<u64>,
}

/// How far a wait has come, for whoever shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress<'a> {
    /// The node that just became ready, if one did.
    pub news: Option<&'a str>,
    pub ready: usize,
    pub all: usize,
    pub since: Duration,
}

impl Cluster {
    /// Makes the folder of a new cluster. Nothing runs yet.
    pub fn make(folder: Folder, shape: &Shape, program: PathBuf) -> Result<Self, ClusterError> {
        program_is_there(&program)?;
        let record = plan::make(&folder, shape)?;
        let lock = folder.lock()?;
        Ok(Self { folder, record, program, _lock: lock })
    }

    /// Opens what was made before.
    pub fn open(folder: Folder, program: PathBuf) -> Result<Self, ClusterError> {
        folder.read_record()?;
        let lock = folder.lock()?;
        // Read again: what was read without the lock may be old.
        let record = folder.read_record()?;
        Ok(Self { folder, record, program, _lock: lock })
    }

    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    pub fn record(&self) -> &Record {
        &self.record
    }

    /// All nodes if none is named, else those named, each of which must be there.
    pub fn select(&self, names: &[String]) -> Result<Vec<String>, ClusterError> {
        let known = self.record.names();
        match names.iter().find(|name| !known.contains(name)) {
            Some(name) => Err(ClusterError::UnknownNode { name: name.clone(), known }),
            None if names.is_empty() => Ok(known),
            None => Ok(names.to_vec()),
        }
    }

    /// Starts those that do not run, and says which these were. New certificates are issued when nothing ran: those of
    /// a folder that was left alone for long would have expired.
    pub fn start(&mut self, names: &[String], tie: Tie) -> Result<Vec<String>, ClusterError> {
        program_is_there(&self.program)?;
        if self.record.nodes.iter().all(|node| doing(node) == Doing::Gone) {
            let topology = self.topology()?;
            plan::issue_certificates(&self.folder, topology.cluster, &self.record)?;
        }
        self.start_relay(tie)?;
        let mut started = Vec::new();
        for index in 0..self.record.nodes.len() {
            let node = &self.record.nodes[index];
            if names.contains(&node.name) && doing(node) == Doing::Gone {
                let name = node.name.clone();
                self.start_one(index, tie)?;
                started.push(name);
            }
        }
        Ok(started)
    }

    fn start_one(&mut self, index: usize, tie: Tie) -> Result<(), ClusterError> {
        let node = self.record.nodes[index].clone();
        let addresses = [node.client_address, node.peer_address, node.admin_address];
        if let Some(taken) = addresses.iter().find(|address| !plan::is_free(address.port())) {
            return Err(ClusterError::PortTaken { node: node.name, port: taken.port() });
        }
        let config = self.folder.node_config(&node.name).display().to_string();
        if let Some(bytes) = self.record.disk_bytes {
            disk::mount(&self.folder.node(&node.name), bytes)?;
        }
        if !node.initialised {
            self.prepare(&node.name, "init")?;
            self.record.nodes[index].initialised = true;
        }
        let arguments = ["run", "--config", &config];
        let log = self.folder.node_log(&node.name);
        let process = Process::start(&self.program, &arguments, &log, tie)
            .map_err(|error| ClusterError::Start { node: node.name.clone(), error })?;
        self.record.nodes[index].process = Some(process);
        // At once, so that a process is on record before anything else can go wrong.
        Ok(self.folder.write_record(&self.record)?)
    }

    /// Has the node program do something to the data folder of a node that does not run.
    fn prepare(&self, node: &str, verb: &str) -> Result<(), ClusterError> {
        let output = Command::new(&self.program)
            .args([verb, "--config"])
            .arg(self.folder.node_config(node))
            .output()
            .map_err(|error| ClusterError::Start { node: node.to_string(), error })?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].concat();
        let output = String::from_utf8_lossy(&said).trim_end().to_string();
        Err(ClusterError::Initialise { node: node.to_string(), output })
    }

    fn topology(&self) -> Result<Topology, ClusterError> {
        let path = self.folder.topology();
        let text = fs::read_to_string(&path).map_err(|error| PlanError::File { path, error })?;
        Ok(Topology::parse(&text).map_err(PlanError::Topology)?)
    }

    /// Waits until all of these take requests. `show` is called again and again, and may break the wait off.
    pub fn wait_ready(
        &self,
        names: &[String],
        limit: Duration,
        mut show: impl FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<(), ClusterError> {
        let began = Instant::now();
        let mut waiting: Vec<&NodeRecord> =
            self.record.nodes.iter().filter(|node| names.contains(&node.name)).collect();
        let all = waiting.len();
        while !waiting.is_empty() {
            let mut still = Vec::new();
            for (position, node) in waiting.iter().enumerate() {
                let ready = self.look_while_waiting(node, began.elapsed(), limit)?;
                let news = ready.then_some(node.name.as_str());
                if !ready {
                    still.push(*node);
                }
                let ready = all - still.len() - (waiting.len() - position - 1);
                if show(Progress { news, ready, all, since: began.elapsed() }).is_break() {
                    return Err(ClusterError::Interrupted);
                }
            }
            waiting = still;
            if !waiting.is_empty() {
                std::thread::sleep(LOOK_EVERY);
            }
        }
        Ok(())
    }

    fn look_while_waiting(&self, node: &NodeRecord, since: Duration, limit: Duration) -> Result<bool, ClusterError> {
        let why = match probe::readiness(node.admin_address) {
            Readiness::Ready => return Ok(true),
            Readiness::NotReady(why) => why,
            Readiness::Silent => format!("nothing answers at {}", node.admin_address),
        };
        let log = self.folder.node_log(&node.name);
        let tail = || last_lines(&log, LOG_LINES_SHOWN).unwrap_or_default();
        if doing(node) == Doing::Gone {
            return Err(ClusterError::Ended { node: node.name.clone(), tail: tail(), log });
        }
        if since >= limit {
            return Err(ClusterError::NotReady { node: node.name.clone(), after: limit, why, tail: tail(), log });
        }
        Ok(false)
    }

    /// Asks all of these to end, then kills those that have not after `grace`. Processes that were started on this
    /// folder and are not on record (a `quorate-lab` was killed at the wrong moment) are ended too.
    pub fn stop(&mut self, names: &[String], grace: Duration) -> Result<Vec<(String, Ended)>, ClusterError> {
        let mut asked: Vec<(String, Process)> = Vec::new();
        for node in self.record.nodes.iter().filter(|node| names.contains(&node.name)) {
            let config = self.folder.node_config(&node.name).display().to_string();
            let strays = Process::with_argument(&config).map_err(ClusterError::Look)?;
            let known = node.process.iter().cloned();
            let others = strays.into_iter().filter(|stray| node.process.as_ref() != Some(stray));
            asked.extend(known.chain(others).map(|process| (node.name.clone(), process)));
        }
        let fault = |node: &str| {
            let node = node.to_string();
            move |error| ClusterError::Signal { node, error }
        };
        let running: Vec<bool> = asked.iter().map(|(_, process)| process.doing() != Doing::Gone).collect();
        for (node, process) in &asked {
            process.signal(libc::SIGTERM).map_err(fault(node))?;
            process.signal(libc::SIGCONT).map_err(fault(node))?;
        }
        let end = Instant::now() + grace;
        let mut ended = Vec::new();
        for ((node, process), ran) in asked.iter().zip(running) {
            let how = process.end(end.saturating_duration_since(Instant::now())).map_err(fault(node))?;
            let how = if ran && how == Ended::WasGone { Ended::WhenAsked } else { how };
            ended.push((node.clone(), how));
        }
        self.forget(names)?;
        if self.record.nodes.iter().all(|node| doing(node) == Doing::Gone) {
            self.stop_relay()?;
        }
        Ok(ended)
    }

    /// Ends all of these at once, without a chance to do anything: signals first, waits afterwards.
    pub fn kill(&mut self, names: &[String]) -> Result<(), ClusterError> {
        let processes = names.iter().map(|name| self.process(name).cloned()).collect::<Result<Vec<_>, _>>()?;
        self.signal(names, libc::SIGKILL)?;
        for (name, process) in names.iter().zip(processes) {
            process.kill().map_err(|error| ClusterError::Signal { node: name.clone(), error })?;
        }
        self.forget(names)
    }

    /// Freezes all of these, and returns once none of them can do anything more.
    pub fn freeze(&self, names: &[String]) -> Result<(), ClusterError> {
        for name in names {
            let frozen = self.process(name)?.freeze();
            frozen.map_err(|error| ClusterError::Signal { node: name.clone(), error })?;
        }
        Ok(())
    }

    pub fn pause(&self, names: &[String]) -> Result<(), ClusterError> {
        // Until it stands still it would be taken for one that runs and is silent.
        self.freeze(names)
    }

    pub fn resume(&self, names: &[String]) -> Result<(), ClusterError> {
        self.signal(names, libc::SIGCONT)
    }

    /// Ends every process of the lab and removes its folder.
    pub fn destroy(mut self) -> Result<(), ClusterError> {
        let names = self.record.names();
        self.stop(&names, END_GRACE)?;
        for name in &names {
            disk::unmount(&self.folder.node(name))?;
        }
        let path = self.folder.path().to_path_buf();
        Ok(fs::remove_dir_all(&path).map_err(|error| FolderError::File { path, error })?)
    }

    fn signal(&self, names: &[String], signal: i32) -> Result<(), ClusterError> {
        let processes = names.iter().map(|name| self.process(name)).collect::<Result<Vec<_>, _>>()?;
        for (name, process) in names.iter().zip(processes) {
            process.signal(signal).map_err(|error| ClusterError::Signal { node: name.clone(), error })?;
        }
        Ok(())
    }

    /// The process of a node that runs.
    pub fn process(&self, name: &str) -> Result<&Process, ClusterError> {
        let process = self.record.node(name).and_then(|node| node.process.as_ref());
        process
            .filter(|process| process.doing() != Doing::Gone)
            .ok_or_else(|| ClusterError::NotRunning { node: name.to_string() })
    }

    fn forget(&mut self, names: &[String]) -> Result<(), ClusterError> {
        for node in self.record.nodes.iter_mut().filter(|node| names.contains(&node.name)) {
            node.process = None;
        }
        Ok(self.folder.write_record(&self.record)?)
    }
}

/// How every node of a lab is doing; needs no lock.
pub fn view(folder: &Folder) -> Result<Vec<NodeView>, FolderError> {
    let look = |record: NodeRecord| {
        let doing = doing(&record);
        let readiness = match doing {
            Doing::Running => probe::readiness(record.admin_address),
            Doing::Paused | Doing::Gone => Readiness::Silent,
        };
        let resident_bytes = record.process.as_ref().and_then(Process::resident_bytes);
        NodeView { record, doing, readiness, resident_bytes: resident_bytes.filter(|_| doing != Doing::Gone) }
    };
    Ok(folder.read_record()?.nodes.into_iter().map(look).collect())
}

fn doing(node: &NodeRecord) -> Doing {
    node.process.as_ref().map_or(Doing::Gone, Process::doing)
}

fn program_is_there(program: &Path) -> Result<(), ClusterError> {
    match program.is_file() {
        true => Ok(()),
        false => Err(ClusterError::ProgramMissing(program.to_path_buf())),
    }
}

/// The end of a file, as text.
pub fn last_lines(path: &Path, count: usize) -> io::Result<String> {
    let text = fs::read(path)?;
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(count)..].join("\n"))
}
