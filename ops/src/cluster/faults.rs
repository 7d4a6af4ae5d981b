//! Faults on purpose: cut and slow links, lost and full disks.

use super::{Cluster, ClusterError, END_GRACE, doing};
use crate::disk;
use crate::folder::{FolderError, RelayRecord};
use crate::process::{Doing, Process, Tie};
use crate::relay::{self, Account, Rules, RulesError};
use std::fs;
use std::io;
use std::time::{Duration, Instant};

const RELAY_LIMIT: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);

impl Cluster {
    /// Changes what is done to the links. It holds once this has returned.
    pub fn change_rules(
        &self,
        change: impl FnOnce(&mut Rules, &[String]) -> Result<(), RulesError>,
    ) -> Result<Account, ClusterError> {
        let relay = self.record.relay.as_ref().ok_or(ClusterError::NoRelay)?;
        let mut rules = relay::ask(relay.control)?.rules;
        change(&mut rules, &self.record.names())?;
        Ok(relay::tell(relay.control, rules)?)
    }

    /// As if the disk of a node had been lost and replaced by an empty one: the process is killed, the data folder goes,
    /// and the node starts under a new actor, to rebuild from the others.
    pub fn wipe(&mut self, name: &str, tie: Tie) -> Result<(), ClusterError> {
        let names = [name.to_string()];
        if self.record.node(name).is_some_and(|node| doing(node) != Doing::Gone) {
            self.kill(&names)?;
        }
        let path = self.folder.node(name).join(&self.record.data);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FolderError::File { path, error })?,
            Ok(()) | Err(_) => {}
        }
        // A folder that was only made anew would be taken for that of a new node, with nothing to remember.
        self.prepare(name, "init")?;
        self.prepare(name, "forget")?;
        self.start(&names, tie).map(drop)
    }

    /// Fills the disk of a node up to `leave` bytes; by default to half of what it is told to leave free.
    pub fn fill_disk(&self, name: &str, leave: Option<u64>) -> Result<u64, ClusterError> {
        let bytes = self.record.disk_bytes.unwrap_or_default();
        Ok(disk::fill(&self.folder.node(name), name, leave.unwrap_or(disk::reserve(bytes) / 2))?)
    }

    pub fn free_disk(&self, name: &str) -> Result<(), ClusterError> {
        Ok(disk::release(&self.folder.node(name), name)?)
    }

    /// Starts the relay of a lab that has one, if it does not run.
    pub(super) fn start_relay(&mut self, tie: Tie) -> Result<(), ClusterError> {
        let Some(RelayRecord { control, process }) = self.record.relay.clone() else { return Ok(()) };
        if process.is_some_and(|process| process.doing() != Doing::Gone) {
            return Ok(());
        }
        let log = self.folder.relay_log();
        let fault = |error| ClusterError::Relay(error, log.clone());
        let program = std::env::current_exe().map_err(fault)?;
        let plan = self.folder.relay_plan().display().to_string();
        let started = Process::start(&program, &["relay", "--plan", &plan], &log, tie).map_err(fault)?;
        self.record.relay = Some(RelayRecord { control, process: Some(started.clone()) });
        self.folder.write_record(&self.record)?;
        let began = Instant::now();
        while relay::ask(control).is_err() {
            if started.doing() == Doing::Gone || began.elapsed() > RELAY_LIMIT {
                return Err(fault(io::Error::other("it ended, or does not answer")));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Ends the relay, and any that was started on this folder and is not on record.
    pub(super) fn stop_relay(&mut self) -> Result<(), ClusterError> {
        let Some(RelayRecord { control, process }) = self.record.relay.clone() else { return Ok(()) };
        let plan = self.folder.relay_plan().display().to_string();
        let strays = Process::with_argument(&plan).map_err(ClusterError::Look)?;
        for relay in process.into_iter().chain(strays) {
            relay.end(END_GRACE).map_err(|error| ClusterError::Signal { node: "the relay".to_string(), error })?;
        }
        self.record.relay = Some(RelayRecord { control, process: None });
        Ok(self.folder.write_record(&self.record)?)
    }
}
