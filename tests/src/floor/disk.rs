//! Rows in RocksDB, as the store keeps them: two column families, one log, one fsync for each batch.

use super::Sizes;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode, Options,
    SliceTransform, WriteBatch, WriteOptions,
};
use std::path::Path;

/// As `quorate-node` has them by default.
const CACHE_BYTES: usize = 64 * 1024 * 1024;
const BUFFERS_BYTES: usize = 64 * 1024 * 1024;
const BUFFER_BYTES: usize = 16 * 1024 * 1024;
const WAL_BYTES_MAX: u64 = 256 * 1024 * 1024;
const FILE_BYTES_PER_SECOND_MAX: i64 = 1024 * 1024 * 1024;
const FILE_PACE_US: i64 = 2_000;
const FILE_FAIRNESS: i32 = 10;
const PARTITION_BYTES: usize = 3;
const ACTOR_BYTES_END: usize = PARTITION_BYTES + 8;
const BLOOM_BITS_PER_KEY: f64 = 10.0;

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
    pub fn open(folder: &Path, sizes: Sizes) -> Result<Self, rocksdb::Error> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
        options.set_db_write_buffer_size(BUFFERS_BYTES);
        options.set_max_total_wal_size(WAL_BYTES_MAX);
        options.set_max_background_jobs(2);
        options.set_auto_tuned_ratelimiter(FILE_BYTES_PER_SECOND_MAX, FILE_PACE_US, FILE_FAIRNESS);
        let cache = Cache::new_lru_cache(CACHE_BYTES);
        let family = |(name, hints)| Ok(ColumnFamilyDescriptor::new(name, family_options(hints, &cache)?));
        let families = [(OBJECTS, PARTITION_BYTES), (LOG, ACTOR_BYTES_END)].map(family);
        let families = families.into_iter().collect::<Result<Vec<_>, rocksdb::Error>>()?;
        let db = DB::open_cf_descriptors(&options, folder, families)?;
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

/// Rows go into the buffer in memory near where the last one with the same `hints` bytes at its beginning went.
fn family_options(hints: usize, cache: &Cache) -> Result<Options, rocksdb::Error> {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
    let text = format!("memtable_insert_with_hint_prefix_extractor=rocksdb.FixedPrefix.{hints}");
    let mut options = Options::default().get_options_from_string(text)?;
    options.set_prefix_extractor(SliceTransform::create_fixed_prefix(PARTITION_BYTES));
    options.set_block_based_table_factory(&blocks);
    options.set_write_buffer_size(BUFFER_BYTES);
    options.set_max_write_buffer_number(3);
    options.set_compression_type(DBCompressionType::Lz4);
    Ok(options)
}
