//! Who a node is, and whether its data folder may go on under its actor.
//!
//! An actor counts its dots and never gives one out twice. A folder that may have forgotten some of them, because it
//! was lost, restored from a copy, or cut off while it was not fsynced, must not go on counting: it takes a new actor,
//! and the node rebuilds from the other owners. So identity lies in two places, in the database and in a separately
//! fsynced file, and names the folder by its inode and the time of its birth, which a copy does not share. The number
//! of its device is compared within one boot of the machine only: another boot may number devices in another order.

use crate::memory::Memory;
use crate::storage::rocks::{Mode, OpenError, RocksStorage};
use crate::storage::{Batch, MetaKey, Read, Row, Storage, StorageError, Table};
use bytes::Bytes;
use quorate_ring::id::{ActorId, ClusterId, NodeId};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const FILE: &str = "identity.toml";
const DATABASE: &str = "db";
/// There while the node runs; says under which boot of the machine.
const RUNNING: &str = "running.toml";
const FORMAT: u32 = 2;

/// Who a node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    pub node: NodeId,
    pub cluster: ClusterId,
    pub actor: ActorId,
    /// It may have forgotten, and has not copied everything from the other owners yet.
    pub rebuilding: bool,
}

/// A data folder, open.
#[derive(Debug)]
pub struct Opened {
    pub identity: Identity,
    pub storage: RocksStorage,
    /// Why the folder took a new actor just now, if it did.
    pub forgot: Option<String>,
    folder: PathBuf,
    boot: String,
}

/// What the start of a node is about.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    pub node: NodeId,
    pub cluster: ClusterId,
    /// From the machine's entropy, for an actor that may be needed.
    pub random: u64,
    /// The id of this boot of the machine.
    pub boot: &'a str,
    pub memory: Memory,
}

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("{folder} is no data folder yet; make it with `quorate-node init` (once, for a new node)")]
    NotMade { folder: String },
    #[error("{folder} holds something already; `quorate-node init` makes a new folder, or uses an empty one")]
    NotEmpty { folder: String },
    #[error(
        "{folder} is the data of {theirs}, and this is {ours}; check `node`, `topology` and `data` in the configuration"
    )]
    Elsewhere { folder: String, theirs: String, ours: String },
    #[error(
        "{file} does not say who the node is: {cause}; if it cannot be mended, remove it: the node then takes a new actor and rebuilds"
    )]
    Malformed { file: String, cause: String },
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("{path}: {cause}")]
    Io { path: String, cause: io::Error },
}

/// Both copies of an identity. `rebuilding` counts in the database's only.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    format: u32,
    node: u16,
    cluster: String,
    actor: String,
    /// Texts, as TOML has no integers beyond 63 bits and file systems have inodes there.
    device: String,
    inode: String,
    /// When the folder was made, in nanoseconds since 1970; empty where the file system does not say. Then the device
    /// has to be the same in every boot.
    #[serde(default)]
    born: String,
    /// The boot in which the device had this number.
    #[serde(default)]
    boot: String,
    rebuilding: bool,
}

impl Record {
    /// Whether a folder that looks like `found` now is the one that was recorded, and no copy of it.
    fn is_of(&self, found: &Fingerprint, boot: &str) -> bool {
        let born_known = !self.born.is_empty();
        let same_birth = !born_known || self.born == found.born;
        let same_device = self.device == found.device || (born_known && self.boot != boot);
        self.inode == found.inode && same_birth && same_device
    }
}

/// What a folder keeps when it is renamed, and its copy does not have.
struct Fingerprint {
    device: String,
    inode: String,
    born: String,
}

#[derive(Serialize, Deserialize)]
struct Running {
    boot: String,
}

/// Makes a data folder, explicitly, so that an empty folder is never taken for a new node.
pub fn init(folder: &Path, claim: Claim<'_>) -> Result<Identity, IdentityError> {
    make_folder(folder).map_err(|cause| io_error(folder, cause))?;
    for entry in fs::read_dir(folder).map_err(|cause| io_error(folder, cause))? {
        // A file system puts its own folder at its root, where a disk for the data alone is mounted.
        if entry.map_err(|cause| io_error(folder, cause))?.file_name() != "lost+found" {
            return Err(IdentityError::NotEmpty { folder: folder.display().to_string() });
        }
    }
    let mut storage = RocksStorage::open(&folder.join(DATABASE), Mode::Create, claim.node, claim.memory)?;
    take_actor(folder, &mut storage, claim, false)
}

/// Opens a data folder, and decides whether it goes on under its actor.
pub fn open(folder: &Path, claim: Claim<'_>) -> Result<Opened, IdentityError> {
    let (database, file) = (folder.join(DATABASE), read_file(folder)?);
    let has_database = database.join("CURRENT").exists();
    if file.is_none() && !has_database {
        return Err(IdentityError::NotMade { folder: folder.display().to_string() });
    }
    if let Some(record) = &file {
        check_claim(folder, record, claim)?;
    }
    let mode = if has_database { Mode::Existing } else { Mode::Create };
    let mut storage = RocksStorage::open(&database, mode, claim.node, claim.memory)?;
    let row = storage.get(Table::Meta, &MetaKey::Identity.encode())?;
    let stored = row.map(|bytes| parse(&database, &String::from_utf8_lossy(&bytes))).transpose()?;
    if let Some(record) = &stored {
        check_claim(folder, record, claim)?;
    }
    let unsynced = storage.get(Table::Meta, &MetaKey::Unsynced.encode())?.is_some();
    let forgot = why_forgotten(folder, (file.as_ref(), stored.as_ref()), unsynced, claim.boot)?;
    let identity = match (&forgot, &stored) {
        (None, Some(stored)) => {
            let identity = identity(&database, stored)?;
            let now = record(folder, identity, claim.boot)?;
            if now != *stored || Some(&now) != file.as_ref() {
                write_record(folder, &mut storage, &now)?; // The first start since this boot.
            }
            identity
        }
        _ => take_actor(folder, &mut storage, claim, true)?,
    };
    let running = Running { boot: claim.boot.to_string() };
    write_file(folder, RUNNING, &toml::to_string(&running).expect("a string is valid TOML"))?;
    if unsynced {
        // What was there at the opening is in table files since, fsynced.
        let key = MetaKey::Unsynced.encode().into();
        storage.commit(&Batch::of([Row { table: Table::Meta, key, value: None }], true))?;
    }
    Ok(Opened { identity, storage, forgot, folder: folder.to_path_buf(), boot: claim.boot.to_string() })
}

/// Gives a folder a new actor, on purpose: after the machine, or its disk, was restored from an image.
pub fn forget(folder: &Path, claim: Claim<'_>) -> Result<Identity, IdentityError> {
    let mut opened = open(folder, claim)?;
    let identity = take_actor(folder, &mut opened.storage, claim, true)?;
    opened.close()?;
    Ok(identity)
}

impl Opened {
    /// The node has copied every partition from all other owners: it answers again.
    pub fn mark_joined(&mut self) -> Result<(), IdentityError> {
        self.identity.rebuilding = false;
        write_record(&self.folder, &mut self.storage, &record(&self.folder, self.identity, &self.boot)?)
    }

    /// The end of a run in which everything was written out.
    pub fn close(self) -> Result<(), IdentityError> {
        self.storage.flush()?;
        let path = self.folder.join(RUNNING);
        fs::remove_file(&path).map_err(|cause| io_error(&path, cause))
    }
}

/// Why a folder may have forgotten, if it may.
fn why_forgotten(
    folder: &Path,
    (file, stored): (Option<&Record>, Option<&Record>),
    unsynced: bool,
    boot: &str,
) -> Result<Option<String>, IdentityError> {
    let Some(file) = file else { return Ok(Some(format!("{FILE} is missing"))) };
    let Some(stored) = stored else { return Ok(Some("the database is missing, or holds nothing".to_string())) };
    if file.actor != stored.actor {
        return Ok(Some(format!("{FILE} and the database do not belong together")));
    }
    let found = fingerprint(folder)?;
    if !file.is_of(&found, boot) || !stored.is_of(&found, boot) {
        return Ok(Some("the folder is a copy, or was restored from one".to_string()));
    }
    let path = folder.join(RUNNING);
    let text = match fs::read(&path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(io_error(&path, cause)),
    };
    // What does not parse was being written when the power went: it says as much as another boot would.
    let same_boot = toml::from_str::<Running>(&text).is_ok_and(|run| run.boot == boot);
    Ok((!same_boot && unsynced).then(|| "the machine went down, and not every write was fsynced".to_string()))
}

fn take_actor(
    folder: &Path,
    storage: &mut RocksStorage,
    claim: Claim<'_>,
    rebuilding: bool,
) -> Result<Identity, IdentityError> {
    let actor = ActorId::new(claim.node, claim.random);
    let identity = Identity { node: claim.node, cluster: claim.cluster, actor, rebuilding };
    write_record(folder, storage, &record(folder, identity, claim.boot)?)?;
    Ok(identity)
}

/// Both copies, each durable. A crash between them leaves two that differ: a new actor, once more.
fn write_record(folder: &Path, storage: &mut RocksStorage, record: &Record) -> Result<(), IdentityError> {
    let text = toml::to_string(record).expect("numbers and strings are valid TOML");
    let value = Some(Bytes::from(text.clone()));
    let row = Row { table: Table::Meta, key: MetaKey::Identity.encode().into(), value };
    storage.commit(&Batch::of([row], true))?;
    write_file(folder, FILE, &text)
}

fn record(folder: &Path, identity: Identity, boot: &str) -> Result<Record, IdentityError> {
    let Fingerprint { device, inode, born } = fingerprint(folder)?;
    Ok(Record {
        format: FORMAT,
        node: identity.node.0,
        cluster: identity.cluster.to_string(),
        actor: format!("{:016x}", identity.actor.0),
        device,
        inode,
        born,
        boot: boot.to_string(),
        rebuilding: identity.rebuilding,
    })
}

fn identity(file: &Path, record: &Record) -> Result<Identity, IdentityError> {
    let malformed = |cause: String| IdentityError::Malformed { file: file.display().to_string(), cause };
    Ok(Identity {
        node: NodeId(record.node),
        cluster: record.cluster.parse().map_err(|e| malformed(format!("cluster: {e}")))?,
        actor: ActorId(u64::from_str_radix(&record.actor, 16).map_err(|e| malformed(format!("actor: {e}")))?),
        rebuilding: record.rebuilding,
    })
}

fn check_claim(folder: &Path, record: &Record, claim: Claim<'_>) -> Result<(), IdentityError> {
    if record.node == claim.node.0 && record.cluster == claim.cluster.to_string() {
        return Ok(());
    }
    Err(IdentityError::Elsewhere {
        folder: folder.display().to_string(),
        theirs: format!("node {} of cluster {}", record.node, record.cluster),
        ours: format!("{} of cluster {}", claim.node, claim.cluster),
    })
}

fn read_file(folder: &Path) -> Result<Option<Record>, IdentityError> {
    let path = folder.join(FILE);
    match fs::read_to_string(&path) {
        Ok(text) => parse(&path, &text).map(Some),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(io_error(&path, cause)),
    }
}

fn parse(file: &Path, text: &str) -> Result<Record, IdentityError> {
    let malformed = |cause: String| IdentityError::Malformed { file: file.display().to_string(), cause };
    let record: Record = toml::from_str(text).map_err(|e| malformed(e.message().to_string()))?;
    if record.format == FORMAT {
        return Ok(record);
    }
    Err(malformed(format!("format {} is not known to this program; it knows format {FORMAT}", record.format)))
}

fn fingerprint(folder: &Path) -> Result<Fingerprint, IdentityError> {
    let metadata = fs::metadata(folder).map_err(|cause| io_error(folder, cause))?;
    let since_1970 = metadata.created().ok().and_then(|born| born.duration_since(std::time::UNIX_EPOCH).ok());
    Ok(Fingerprint {
        device: metadata.dev().to_string(),
        inode: metadata.ino().to_string(),
        born: since_1970.map_or(String::new(), |born| born.as_nanos().to_string()),
    })
}

/// Makes a folder, and those above it, so that a power cut does not take it away again.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = folder.parent().filter(|above| *above != Path::new("")).unwrap_or(Path::new("."));
    make_folder(above)?;
    fs::create_dir(folder)?;
    fs::File::open(above)?.sync_all()
}

/// Whole or not at all, and durable: a new file, fsynced, in place of the old one, and the folder fsynced.
fn write_file(folder: &Path, name: &str, text: &str) -> Result<(), IdentityError> {
    let (path, next) = (folder.join(name), folder.join(format!("{name}.next")));
    let write = || {
        let mut file = fs::File::create(&next)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&next, &path)?;
        fs::File::open(folder)?.sync_all()
    };
    write().map_err(|cause| io_error(&path, cause))
}

fn io_error(path: &Path, cause: io::Error) -> IdentityError {
    IdentityError::Io { path: path.display().to_string(), cause }
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
