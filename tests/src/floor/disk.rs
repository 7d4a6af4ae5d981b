//! Rows in RocksDB, as the store keeps them: two column families, one log, one fsync for each batch.

use super::Sizes;
use quorate_node::memory::Memory;
use quorate_node::storage::Table;
use quorate_node::storage::rocks::{Mode, block_cache, database_options, table_options};
use quorate_ring::id::NodeId;
use rocksdb::{ColumnFamily, ColumnFamilyDescriptor, DB, WriteBatch, WriteOptions};
use std::path::Path;

/// Of a row's key: those of a partition lie together, as in the store.
const PARTITION_BYTES: usize = 3;

pub struct Disk {
    db: DB,
    sizes: Sizes,
    seq: u64,
    sync: WriteOptions,
}

pub struct Batch(WriteBatch);

const OBJECTS: &str = "objects";
const LOG: &str = "log";

impl Disk {
    /// With the settings of `quorate-node`, whatever they are.
    pub fn open(folder: &Path, node: NodeId, sizes: Sizes) -> Result<Self, rocksdb::Error> {
        let memory = Memory::default();
        let cache = block_cache(memory.block_bytes);
        let family = |(name, table)| ColumnFamilyDescriptor::new(name, table_options(table, node, &memory, &cache));
        let families = [(OBJECTS, Table::Objects), (LOG, Table::Log)].map(family);
        let folder = folder.join(format!("n{}", node.0));
        let db = DB::open_cf_descriptors(&database_options(Mode::Create, &memory), folder, families)?;
        let mut sync = WriteOptions::default();
        sync.set_sync(true);
        Ok(Self { db, sizes, seq: 0, sync })
    }

    fn family(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("both are opened with the database")
    }

    fn object_key(&self, key: u32) -> Vec<u8> {
        // The partition first, as in the store, so that keys are spread as there.
        let mut bytes = vec![3, 0, (key.wrapping_mul(0x9e37_79b1) >> 24) as u8];
        bytes.resize(self.sizes.object_key - 4, b'k');
        bytes.extend_from_slice(&key.to_be_bytes());
        bytes
    }

    pub fn batch() -> Batch {
        Batch(WriteBatch::default())
    }

    /// The object and its log entry.
    pub fn add(&mut self, batch: &mut Batch, key: u32, from: usize, object: &[u8]) {
        self.seq += 1;
        let object_key = self.object_key(key);
        let mut log_key = object_key[..PARTITION_BYTES].to_vec();
        log_key.resize(self.sizes.log_key - 8, from as u8);
        log_key.extend_from_slice(&self.seq.to_be_bytes());
        let entry = vec![b'e'; self.sizes.log_entry];
        batch.0.put_cf(self.family(OBJECTS), object_key, object);
        batch.0.put_cf(self.family(LOG), log_key, entry);
    }

    pub fn commit(&self, batch: Batch) -> Result<(), rocksdb::Error> {
        self.db.write_opt(batch.0, &self.sync)
    }

    /// Whether the object is there.
    pub fn get(&self, key: u32) -> Result<bool, rocksdb::Error> {
        Ok(self.db.get_pinned_cf(self.family(OBJECTS), self.object_key(key))?.is_some())
    }
}
