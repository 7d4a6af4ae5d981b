//! The folder of a lab: where things lie in it, and the record of what was started.

use crate::process::Process;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

const RECORD_VERSION: u32 = 1;

/// Why a lab's folder cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("there is no lab in {path}; make one with `quorate-lab up`, or name its folder with --dir", path = .0.display())]
    Missing(PathBuf),
    #[error("{path} exists and is not the folder of a lab; name another with --dir", path = .0.display())]
    NotALab(PathBuf),
    #[error("another quorate-lab command is at work in {path}; try again when it is done", path = .0.display())]
    Busy(PathBuf),
    #[error("{path}: {error}", path = path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("{path} is damaged ({error}); `quorate-lab destroy` ends the lab's processes and removes it", path = path.display())]
    Record { path: PathBuf, error: serde_json::Error },
    #[error("{path} was written by another version of quorate-lab (format {found}, this one knows {RECORD_VERSION})", path = path.display())]
    Version { path: PathBuf, found: u32 },
}

/// A folder that holds, or will hold, a lab. The path is absolute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Folder(PathBuf);

/// Held while something in the folder is changed; only one has it.
#[derive(Debug)]
pub struct FolderLock(#[allow(dead_code, reason = "the lock lasts as long as the file is open")] fs::File);

/// What was started in a folder (`lab.json`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    pub version: u32,
    pub nodes: Vec<NodeRecord>,
    /// If the nodes talk through one.
    #[serde(default)]
    pub relay: Option<RelayRecord>,
    /// If each node has a small disk of its own: its size.
    #[serde(default)]
    pub disk_bytes: Option<u64>,
    /// Where in a node's folder its data lies.
    #[serde(default = "default_data")]
    pub data: String,
}

fn default_data() -> String {
    "data".to_string()
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RelayRecord {
    /// Where it takes orders.
    pub control: SocketAddr,
    /// The process that was last started for it, if it was not ended by us.
    pub process: Option<Process>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeRecord {
    pub id: u16,
    pub name: String,
    pub rack: String,
    pub client_address: SocketAddr,
    pub peer_address: SocketAddr,
    pub admin_address: SocketAddr,
    /// Whether `quorate-node init` made its data folder.
    pub initialised: bool,
    /// The process that was last started for it, if it was not ended by us.
    pub process: Option<Process>,
}

impl Folder {
    /// The folder need not be there yet.
    pub fn at(path: &Path) -> Result<Self, FolderError> {
        std::path::absolute(path).map(Self).map_err(|error| FolderError::File { path: path.to_path_buf(), error })
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn topology(&self) -> PathBuf {
        self.0.join("topology.toml")
    }

    pub fn client_profile(&self) -> PathBuf {
        self.0.join("client.toml")
    }

    pub fn certs(&self) -> PathBuf {
        self.0.join("certs")
    }

    pub fn node(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn node_config(&self, name: &str) -> PathBuf {
        self.node(name).join("node.toml")
    }

    pub fn node_log(&self, name: &str) -> PathBuf {
        self.node(name).join("log")
    }

    pub fn relay_plan(&self) -> PathBuf {
        self.0.join("relay.json")
    }

    pub fn relay_log(&self) -> PathBuf {
        self.0.join("relay.log")
    }

    pub fn record(&self) -> PathBuf {
        self.0.join("lab.json")
    }

    pub fn holds_a_lab(&self) -> bool {
        self.record().exists()
    }

    /// Makes the folder; an empty one that is there already will do.
    pub fn make(&self) -> Result<(), FolderError> {
        let fault = |error| FolderError::File { path: self.0.clone(), error };
        fs::create_dir_all(&self.0).map_err(fault)?;
        match fs::read_dir(&self.0).map_err(fault)?.next() {
            None => Ok(()),
            Some(_) => Err(FolderError::NotALab(self.0.clone())),
        }
    }

    pub fn lock(&self) -> Result<FolderLock, FolderError> {
        let fault = |error| FolderError::File { path: self.0.clone(), error };
        let file = fs::File::open(&self.0).map_err(fault)?;
        // SAFETY: the descriptor is open.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
            return Ok(FolderLock(file));
        }
        match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::WouldBlock => Err(FolderError::Busy(self.0.clone())),
            error => Err(fault(error)),
        }
    }

    pub fn read_record(&self) -> Result<Record, FolderError> {
        let path = self.record();
        if !self.holds_a_lab() {
            return Err(match self.0.exists() {
                true => FolderError::NotALab(self.0.clone()),
                false => FolderError::Missing(self.0.clone()),
            });
        }
        let text = fs::read(&path).map_err(|error| FolderError::File { path: path.clone(), error })?;
        let record: Record =
            serde_json::from_slice(&text).map_err(|error| FolderError::Record { path: path.clone(), error })?;
        match record.version {
            RECORD_VERSION => Ok(record),
            found => Err(FolderError::Version { path, found }),
        }
    }

    /// Written beside its place and moved there: a record is whole or the one before.
    pub fn write_record(&self, record: &Record) -> Result<(), FolderError> {
        let path = self.record();
        let beside = path.with_extension("json.new");
        let written = || -> io::Result<()> {
            let mut file = fs::File::create(&beside)?;
            serde_json::to_writer_pretty(&mut file, record)?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            fs::rename(&beside, &path)
        };
        written().map_err(|error| FolderError::File { path, error })
    }
}

impl Record {
    pub fn new(nodes: Vec<NodeRecord>) -> Self {
        Self { version: RECORD_VERSION, nodes, relay: None, disk_bytes: None, data: default_data() }
    }

    pub fn node(&self, name: &str) -> Option<&NodeRecord> {
        self.nodes.iter().find(|node| node.name == name)
    }

    pub fn names(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_holds_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::at(dir.path()).unwrap();
        let held = folder.lock().unwrap();
        assert!(matches!(folder.lock(), Err(FolderError::Busy(_))));
        drop(held);
        folder.lock().unwrap();
    }

    #[test]
    fn a_folder_with_other_things_in_it_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::at(dir.path()).unwrap();
        folder.make().unwrap();
        fs::write(dir.path().join("thesis.txt"), "three years of work").unwrap();
        assert!(matches!(folder.make(), Err(FolderError::NotALab(_))));
        assert!(matches!(folder.read_record(), Err(FolderError::NotALab(_))));
        let nowhere = Folder::at(&dir.path().join("nowhere")).unwrap();
        assert!(matches!(nowhere.read_record(), Err(FolderError::Missing(_))));
    }

    #[test]
    fn a_record_comes_back_as_it_was_or_says_why_not() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::at(dir.path()).unwrap();
        let record = Record::new(Vec::new());
        folder.write_record(&record).unwrap();
        assert_eq!(folder.read_record().unwrap(), record);
        fs::write(folder.record(), "{").unwrap();
        assert!(matches!(folder.read_record(), Err(FolderError::Record { .. })));
        fs::write(folder.record(), r#"{"version": 9, "nodes": []}"#).unwrap();
        assert!(matches!(folder.read_record(), Err(FolderError::Version { found: 9, .. })));
    }
}
