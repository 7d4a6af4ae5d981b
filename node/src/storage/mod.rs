//! Where a replica's state lies: four tables of ordered bytes, written in atomic batches.
//!
//! `Storage` has three implementations: RocksDB, memory, and the simulator's faulty disk.

mod keys;
mod memory;
mod recent;
pub mod rocks;
mod splice;
mod staged;

pub use keys::{LogEntry, LogEntryError, MetaKey, Range};
pub use keys::{bucket_range, object_key, object_range, parse_object_key};
pub use keys::{hint_key, hint_range, parse_hint_key};
pub use keys::{log_key, log_range, log_range_of, parse_log_key};
pub use memory::MemoryStorage;
pub use staged::Staged;

use bytes::Bytes;
use std::sync::Arc;

/// The column families.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Table {
    /// (n, partition, bucket, key) -> object
    Objects,
    /// (n, partition, actor, seq) -> bucket, key
    Log,
    /// (target, n, partition, bucket, key) -> object and dots
    Hints,
    /// Identity, floors, clocks' bases, the HLC high-water mark.
    Meta,
}

impl Table {
    pub const ALL: [Table; 4] = [Table::Objects, Table::Log, Table::Hints, Table::Meta];
}

/// One row to write; `None` deletes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    pub table: Table,
    pub key: Bytes,
    pub value: Option<Bytes>,
}

/// What one drain of a shard wants written, all of it or none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    /// What of the log is deleted, before the rows are written: for runs of entries, as deleting each would cost nearly what
    /// writing it did.
    pub cuts: Vec<Range>,
    pub rows: Arc<Vec<Row>>,
    /// Fsynced, together with everything committed before, before anyone is told.
    pub sync: bool,
}

impl Batch {
    pub fn of(rows: impl Into<Vec<Row>>, sync: bool) -> Self {
        Self { cuts: Vec::new(), rows: Arc::new(rows.into()), sync }
    }

    pub fn is_empty(&self) -> bool {
        self.cuts.is_empty() && self.rows.is_empty()
    }
}

/// Rows in the order of their keys.
pub type Rows = Vec<(Bytes, Bytes)>;

/// The disk failed. The node stops acknowledging and exits; a failed write or fsync is never tried again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("storage failed to {doing}: {cause}")]
pub struct StorageError {
    pub doing: &'static str,
    pub cause: String,
}

/// Reads.
pub trait Read {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StorageError>;

    /// Rows with `from <= key < to`, in order. Stops behind the row with which keys and values reach `bytes_max`;
    /// fewer bytes than that mean that nothing follows.
    fn scan(&self, table: Table, from: &[u8], to: &[u8], bytes_max: usize) -> Result<Rows, StorageError>;

    /// The same of the log, where no cut was ever made: above a floor. It may cost less.
    fn scan_uncut(&self, from: &[u8], to: &[u8], bytes_max: usize) -> Result<Rows, StorageError> {
        self.scan(Table::Log, from, to, bytes_max)
    }
}

/// One node's disk, or one shard's part of it.
pub trait Storage: Read {
    /// Applies all of it or nothing; a later row of the same key wins. With `sync` it is fsynced when this returns,
    /// together with everything committed before.
    fn commit(&mut self, batch: &Batch) -> Result<(), StorageError>;
}
