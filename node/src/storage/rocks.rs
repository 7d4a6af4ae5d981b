//! The tables in RocksDB: one database per node, a column family per table.
//!
//! An ack means that the log of the database (WAL) was fsynced. So nothing here may be clever about recovery: the mode
//! `TolerateCorruptedTailRecords` accepts a record that was cut off at the very end of the log, and refuses to open
//! a database whose log is damaged elsewhere, where acknowledged writes may follow (RocksDB wiki, "WAL Recovery Modes").

use super::keys::{ACTOR_BYTES_END, PARTITION_BYTES, TARGET_BYTES, share_prefix};
use super::recent::Recent;
use super::{Batch, Read, Rows, Storage, StorageError, Table, splice};
use crate::memory::Memory;
use bytes::Bytes;
use quorate_ring::id::NodeId;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, BoundColumnFamily, Cache, ColumnFamilyDescriptor, DBCompressionType,
    DBRecoveryMode, DBWithThreadMode, MultiThreaded, Options, ReadOptions, SliceTransform, WriteBatch, WriteOptions,
};
use std::path::Path;
use std::sync::{Arc, OnceLock};

type Database = DBWithThreadMode<MultiThreaded>;

/// One buffer has about this part, a quarter, of the memory for rows that are not yet in a file. Three of each table may wait to be
/// written out.
const BUFFER_PART: usize = 4;
/// How far the buffers of different nodes are apart, of the length of one.
const BUFFER_SPREAD: f64 = 0.6;
/// Log files are kept until what is in them is in table files; over this the oldest are written out.
const WAL_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// RocksDB's own log about itself.
const INFO_LOG_BYTES: usize = 1024 * 1024;
const INFO_LOGS: usize = 2;
/// One look-up in a hundred for an absent key reads a block (RocksDB wiki, "Bloom Filter").
const BLOOM_BITS_PER_KEY: f64 = 10.0;
/// Of filters and indexes, each part. Larger ones are fewer to be looked for, and more is read for one that is not in memory.
const INDEX_PART_BYTES: usize = 16 * 1024;
/// Where blocks are cut. The cache has a table of fixed length, with one to three places for each of so long blocks.
const BLOCK_BYTES: usize = 4 * 1024;
/// Of a buffer for objects, the part that is a filter over their keys: some 20 bits for each of 2^16 rows.
const BUFFER_FILTER_SHARE: f64 = 0.01;
const BACKGROUND_JOBS: i32 = 2;
/// How fast table files may be written: RocksDB finds the pace that is needed between a twentieth of this and this
/// ("Auto-tuned Rate Limiter", RocksDB blog, 2017). Unlimited, writing a buffer out takes a core for a tenth of a second,
/// and requests wait behind it. The pace grows by a twentieth in 0.2 s, so large values need it quick from the start: until
/// buffers are written out, writes wait.
const FILE_BYTES_PER_SECOND_MAX: i64 = 1024 * 1024 * 1024;
/// What the pace allows for is handed out in portions of these microseconds.
const FILE_PACE_US: i64 = 2_000;
/// Buffers that are written out go before files that are merged, except in one of so many times.
const FILE_FAIRNESS: i32 = 10;
const OPEN_FILES: i32 = 512;

/// Why a database cannot be opened. It was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("there is no database in {folder}; make it with `quorate-node init`")]
    Missing { folder: String },
    #[error("another quorate-node uses {folder}: {cause}")]
    InUse { folder: String, cause: String },
    #[error(
        "the database in {folder} is damaged: {cause}. Its data cannot be trusted: move the folder away and run \
         `quorate-node init`; the node then rebuilds from the other owners"
    )]
    Damaged { folder: String, cause: String },
    #[error("the disk of {folder} is full: {cause}. Free some space and start again")]
    DiskFull { folder: String, cause: String },
    #[error("the database in {folder} cannot be opened: {cause}")]
    Failed { folder: String, cause: String },
}

/// How a database is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// The first start: the database must not be there yet.
    Create,
    Existing,
}

/// Levels of files that RocksDB keeps.
pub const LEVELS: usize = 7;

/// How a database is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Health {
    /// Files of each level: many in level 0 are the first sign of writes that come faster than they are merged.
    pub files: [u64; LEVELS],
    pub files_bytes: u64,
    /// What compactions have yet to rewrite, about.
    pub unmerged_bytes: u64,
    /// Rows that are not in files yet.
    pub buffered_bytes: u64,
    /// Bytes per second that writes are held down to; 0 while they are not.
    pub delayed_write_rate: u64,
    /// No write goes on before compactions have caught up.
    pub stopped: bool,
    pub cache_bytes: u64,
    pub cache_bytes_max: u64,
    pub object_cache_bytes: u64,
    pub object_cache_bytes_max: u64,
}

/// A node's database; clones share it, so that each shard commits its own batches.
#[derive(Clone)]
pub struct RocksStorage {
    db: Arc<Database>,
    recent: Arc<Recent>,
    memory: Memory,
    /// The first write that failed, of any shard. Nothing is written after it: what a failed fsync left on the disk is
    /// unknown, and a later one that succeeds would hide it (Rebello et al. 2020, "Can Applications Recover from fsync
    /// Failures?").
    failed: Arc<OnceLock<StorageError>>,
}

impl std::fmt::Debug for RocksStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RocksStorage({})", self.db.path().display())
    }
}

impl RocksStorage {
    pub fn open(folder: &Path, mode: Mode, node: NodeId, memory: Memory) -> Result<Self, OpenError> {
        let exists = folder.join("CURRENT").exists();
        if mode == Mode::Existing && !exists {
            return Err(OpenError::Missing { folder: folder.display().to_string() });
        }
        if mode == Mode::Create && !exists && has_tables(folder) {
            // RocksDB would take them for rubbish and remove them.
            let cause = "its file CURRENT is gone, and there are tables".to_string();
            return Err(OpenError::Damaged { folder: folder.display().to_string(), cause });
        }
        let cache = block_cache(memory.block_bytes);
        let options = |table| table_options(table, node, &memory, &cache);
        let families = Table::ALL.into_iter().map(|table| ColumnFamilyDescriptor::new(name(table), options(table)));
        let db = Database::open_cf_descriptors(&database_options(mode, &memory), folder, families)
            .map_err(|error| open_error(folder, &error))?;
        let recent = Arc::new(Recent::new(memory.object_bytes));
        Ok(Self { db: Arc::new(db), recent, memory, failed: Arc::default() })
    }

    fn family(&self, table: Table) -> Arc<BoundColumnFamily<'_>> {
        self.db.cf_handle(name(table)).expect("every table's column family is opened with the database")
    }

    /// Writes everything out to table files, so that the next start has no log to go through.
    pub fn flush(&self) -> Result<(), StorageError> {
        for table in Table::ALL {
            self.db.flush_cf(&self.family(table)).map_err(|error| failed("write out a table", &error))?;
        }
        Ok(())
    }

    /// About how many objects there are, tombstones among them. What was written over counts until files are merged.
    pub fn keys_estimate(&self) -> u64 {
        self.property(Table::Objects, "rocksdb.estimate-num-keys")
    }

    /// How the database is doing, over all tables.
    pub fn health(&self) -> Health {
        let sum = |property: &str| Table::ALL.into_iter().map(|table| self.property(table, property)).sum();
        let level = |level: usize| -> u64 { sum_files(self, level) };
        Health {
            files: std::array::from_fn(level),
            files_bytes: sum("rocksdb.total-sst-files-size"),
            unmerged_bytes: sum("rocksdb.estimate-pending-compaction-bytes"),
            buffered_bytes: sum("rocksdb.cur-size-all-mem-tables"),
            // These two are of the whole database, whichever table is asked.
            delayed_write_rate: self.property(Table::Objects, "rocksdb.actual-delayed-write-rate"),
            stopped: self.property(Table::Objects, "rocksdb.is-write-stopped") > 0,
            cache_bytes: self.property(Table::Objects, "rocksdb.block-cache-usage"),
            cache_bytes_max: self.property(Table::Objects, "rocksdb.block-cache-capacity"),
            object_cache_bytes: self.recent.bytes(),
            object_cache_bytes_max: self.memory.object_bytes as u64,
        }
    }

    /// A number that RocksDB keeps about a table; 0 if it has none of that name.
    pub fn property(&self, table: Table, property: &str) -> u64 {
        self.db.property_int_value_cf(&self.family(table), property).ok().flatten().unwrap_or(0)
    }
}

/// Files of one level, over all tables. RocksDB gives this number as text.
fn sum_files(storage: &RocksStorage, level: usize) -> u64 {
    let property = format!("rocksdb.num-files-at-level{level}");
    let of =
        |table| storage.db.property_value_cf(&storage.family(table), &property).ok().flatten()?.parse::<u64>().ok();
    Table::ALL.into_iter().filter_map(of).sum()
}

impl Read for RocksStorage {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        let read = || {
            let value = self.db.get_cf(&self.family(table), key).map_err(|error| failed("read a row", &error))?;
            Ok(value.map(Bytes::from))
        };
        if table == Table::Objects { self.recent.get(key, read) } else { read() }
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], bytes_max: usize) -> Result<Rows, StorageError> {
        let mut options = ReadOptions::default();
        // Whoever lists or copies objects reads each block once: the blocks of those who read by key are not to go for it.
        options.fill_cache(table != Table::Objects);
        self.rows(table, options, (from, to), bytes_max)
    }

    /// To know what was cut, RocksDB puts all cuts that are in memory in order, anew after each one: of 10^4 that is
    /// milliseconds.
    fn scan_uncut(&self, from: &[u8], to: &[u8], bytes_max: usize) -> Result<Rows, StorageError> {
        let mut options = ReadOptions::default();
        #[expect(deprecated, reason = "RocksDB deprecates it for those who delete no ranges")]
        options.set_ignore_range_deletions(true);
        self.rows(Table::Log, options, (from, to), bytes_max)
    }
}

impl RocksStorage {
    fn rows(
        &self,
        table: Table,
        mut options: ReadOptions,
        (from, to): (&[u8], &[u8]),
        bytes_max: usize,
    ) -> Result<Rows, StorageError> {
        let mut rows = Rows::new();
        if from >= to {
            return Ok(rows);
        }
        options.set_iterate_lower_bound(from);
        options.set_iterate_upper_bound(to);
        // Filters by prefix answer for one prefix; a scan over several has to look everywhere.
        let one_prefix = prefix_bytes(table).is_some_and(|length| share_prefix(from, to, length));
        options.set_total_order_seek(!one_prefix);
        let mut iterator = self.db.raw_iterator_cf_opt(&self.family(table), options);
        iterator.seek(from);
        let mut bytes = 0;
        while let Some((key, value)) = iterator.item() {
            bytes += key.len() + value.len();
            rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            if bytes >= bytes_max {
                return Ok(rows);
            }
            iterator.next();
        }
        // An iterator that failed is as silent as one that has come to the end.
        iterator.status().map_err(|error| failed("read rows", &error))?;
        Ok(rows)
    }
}

impl Storage for RocksStorage {
    /// After the first failure of any shard it always fails, and in the same way.
    fn commit(&mut self, batch: &Batch) -> Result<(), StorageError> {
        if let Some(error) = self.failed.get() {
            return Err(error.clone());
        }
        self.write(batch).map_err(|error| self.failed.get_or_init(|| error).clone())
    }
}

impl RocksStorage {
    fn write(&self, Batch { cuts, rows, sync }: &Batch) -> Result<(), StorageError> {
        let mut batch = WriteBatch::default();
        let families = Table::ALL.map(|table| self.family(table));
        for (from, to) in cuts {
            batch.delete_range_cf(&families[Table::Log as usize], from, to);
        }
        let plans = self.recent.plan(rows);
        for (row, plan) in rows.iter().zip(&plans) {
            let family = &families[row.table as usize];
            match (&row.value, &plan.change) {
                (Some(_), Some(change)) => batch.merge_cf(family, &row.key, change),
                (Some(value), None) => batch.put_cf(family, &row.key, value),
                (None, _) => batch.delete_cf(family, &row.key),
            }
        }
        let sync = *sync && !planted::no_fsync();
        if batch.is_empty() {
            // Nothing to write, but what was written before without an fsync is to be fsynced now.
            return self.db.flush_wal(sync).map_err(|error| failed("fsync its log", &error));
        }
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        self.db.write_opt(batch, &options).map_err(|error| failed("commit a batch", &error))?;
        self.recent.written(rows, &plans, sync);
        Ok(())
    }
}

/// The fault that shows that the power-cut rounds can fail: acks without fsync.
#[cfg(feature = "planted")]
mod planted {
    pub(super) fn no_fsync() -> bool {
        static PLANTED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        *PLANTED.get_or_init(|| std::env::var_os("QUORATE_PLANTED_NO_FSYNC").is_some_and(|value| value == "1"))
    }
}

#[cfg(not(feature = "planted"))]
mod planted {
    pub(super) const fn no_fsync() -> bool {
        false
    }
}

fn name(table: Table) -> &'static str {
    match table {
        Table::Objects => "objects",
        Table::Log => "log",
        Table::Hints => "hints",
        Table::Meta => "meta",
    }
}

/// How many bytes of a key its filters know as a prefix.
fn prefix_bytes(table: Table) -> Option<usize> {
    match table {
        Table::Objects | Table::Log => Some(PARTITION_BYTES),
        Table::Hints => Some(TARGET_BYTES),
        Table::Meta => None,
    }
}

fn has_tables(folder: &Path) -> bool {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files.into_iter().any(|file| file.path().extension().is_some_and(|end| end == "sst"))
}

/// How a node's database is set up: the floor of the benchmarks has the same.
pub fn database_options(mode: Mode, memory: &Memory) -> Options {
    let mut options = Options::default();
    options.create_if_missing(mode == Mode::Create);
    options.set_error_if_exists(mode == Mode::Create);
    options.create_missing_column_families(mode == Mode::Create);
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_paranoid_checks(true);
    options.set_db_write_buffer_size(memory.buffer_bytes);
    options.set_max_total_wal_size(WAL_BYTES_MAX);
    options.set_max_background_jobs(BACKGROUND_JOBS);
    options.set_max_open_files(OPEN_FILES);
    options.set_max_log_file_size(INFO_LOG_BYTES);
    options.set_keep_log_file_num(INFO_LOGS);
    options.set_stats_dump_period_sec(0);
    options.set_bytes_per_sync(1024 * 1024);
    options.set_auto_tuned_ratelimiter(FILE_BYTES_PER_SECOND_MAX, FILE_PACE_US, FILE_FAIRNESS);
    options
}

/// The owners of a key fill their buffers at one pace. Were these of one length, they would all write them out at the same
/// moment, and every quorum would wait for nodes that are busy with it. The golden ratio keeps any few numbers apart.
fn one_buffer_bytes(node: NodeId, memory: &Memory) -> usize {
    let place = (f64::from(node.0) * 0.618_033_988_749_895).fract();
    ((memory.buffer_bytes / BUFFER_PART) as f64 * (1.0 + BUFFER_SPREAD * (place - 0.5))) as usize
}

/// Not the usual cache: what a get took longest for, of many keys, was that one's table and its list of what was used last
/// ("HyperClockCache", RocksDB wiki, "Block Cache").
pub fn block_cache(bytes: usize) -> Cache {
    Cache::new_hyper_clock_cache(bytes, BLOCK_BYTES)
}

/// As [`database_options`], of one column family.
pub fn table_options(table: Table, node: NodeId, memory: &Memory, cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    // A filter or index in one piece has the length of its file, about a megabyte, and pushes everything else out of the
    // cache, or finds no room there and is read anew for each key (RocksDB wiki, "Partitioned Index/Filters").
    blocks.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    blocks.set_partition_filters(true);
    blocks.set_pin_top_level_index_and_filter(true);
    blocks.set_block_size(BLOCK_BYTES);
    blocks.set_metadata_block_size(INDEX_PART_BYTES);
    blocks.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
    // The log is read in runs, never by key, so its filters know prefixes only.
    blocks.set_whole_key_filtering(table != Table::Log);
    let mut options = insert_hints(table);
    if table == Table::Objects {
        options.set_merge_operator(splice::OPERATOR, splice::whole, splice::none_of_several);
        // Most keys that are asked for are in no buffer, and that takes long to find out without a filter.
        options.set_memtable_prefix_bloom_ratio(BUFFER_FILTER_SHARE);
        options.set_memtable_whole_key_filtering(true);
    }
    if let Some(length) = prefix_bytes(table) {
        options.set_prefix_extractor(SliceTransform::create_fixed_prefix(length));
    }
    options.set_block_based_table_factory(&blocks);
    options.set_write_buffer_size(one_buffer_bytes(node, memory));
    options.set_max_write_buffer_number(3);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_level_compaction_dynamic_level_bytes(true);
    options
}

/// Where a row goes into the buffer in memory is looked for from where the last one of its prefix went: not from the top of
/// 2^16 rows, most of them out of the processor's caches. It takes 250 bytes of the buffer for each prefix in it. RocksDB
/// takes this option as text only, and ignores it where several shards write at once.
fn insert_hints(table: Table) -> Options {
    let length = match table {
        Table::Objects => PARTITION_BYTES,
        Table::Log => ACTOR_BYTES_END,
        Table::Hints | Table::Meta => return Options::default(),
    };
    let text = format!("memtable_insert_with_hint_prefix_extractor=rocksdb.FixedPrefix.{length}");
    Options::default().get_options_from_string(text).expect("RocksDB knows its option")
}

fn open_error(folder: &Path, error: &rocksdb::Error) -> OpenError {
    let (folder, cause) = (folder.display().to_string(), error.to_string());
    if cause.contains("While lock file") || cause.contains("lock hold by current process") {
        OpenError::InUse { folder, cause }
    } else if disk_is_full(&cause) {
        OpenError::DiskFull { folder, cause }
    } else if error.kind() == rocksdb::ErrorKind::Corruption {
        OpenError::Damaged { folder, cause }
    } else {
        OpenError::Failed { folder, cause }
    }
}

/// RocksDB hands on the system's words, and no number.
fn disk_is_full(cause: &str) -> bool {
    cause.contains("No space left on device") || cause.contains("Disk quota exceeded")
}

fn failed(doing: &'static str, error: &rocksdb::Error) -> StorageError {
    let cause = error.to_string();
    let full = disk_is_full(&cause);
    StorageError { doing, cause: if full { format!("the disk is full, free some space: {cause}") } else { cause } }
}

#[cfg(test)]
#[path = "rocks_tests.rs"]
mod tests;
