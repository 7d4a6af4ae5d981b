//! A node's disk: what it shows now, and how to undo what no fsync has made durable.
//!
//! The shards of a node share one disk with one write-ahead log: an fsync makes everything durable that was committed
//! before it, by whichever shard, and a power cut keeps a prefix of what came after.

use super::rng::Rng;
use bytes::Bytes;
use quorate_node::storage::{self, MetaKey, Read, Row, Rows, Storage, StorageError, Table, parse_log_key};
use quorate_ring::version::Object;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::rc::Rc;

type Tables = [BTreeMap<Bytes, Bytes>; Table::ALL.len()];

/// A batch that was committed and not fsynced yet.
struct Unsynced {
    number: u64,
    /// What stood there before, in the order of the rows.
    before: Vec<(Table, Bytes, Option<Bytes>)>,
}

/// How a commit is going to fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// The next fsync fails with EIO. What it should have made durable may or may not be.
    FailedSync,
    /// There is no space left: nothing is written.
    Full,
}

struct Disk {
    tables: Rc<Tables>,
    unsynced: VecDeque<Unsynced>,
    number: u64,
    trouble: Option<Trouble>,
    /// The last batch of each shard.
    batches: BTreeMap<u8, Batch>,
    /// Reads of this key fail: its block does not match its checksum.
    damaged: Option<(Table, Bytes)>,
}

/// What a shard committed.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Counted over the whole disk.
    pub number: u64,
    pub rows: Vec<Row>,
    pub sync: bool,
}

/// A copy of everything on a disk.
#[derive(Clone)]
pub struct Image(Rc<Tables>);

/// One shard's way to its node's disk. Clones see the same disk.
#[derive(Clone)]
pub struct SimDisk {
    disk: Rc<RefCell<Disk>>,
    shard: u8,
}

impl Default for SimDisk {
    fn default() -> Self {
        Self::new(Rc::default())
    }
}

impl SimDisk {
    fn new(tables: Rc<Tables>) -> Self {
        let disk = Disk {
            tables,
            unsynced: VecDeque::new(),
            number: 0,
            trouble: None,
            batches: BTreeMap::new(),
            damaged: None,
        };
        Self { disk: Rc::new(RefCell::new(disk)), shard: 0 }
    }

    pub fn of_shard(&self, shard: u8) -> Self {
        Self { disk: Rc::clone(&self.disk), shard }
    }

    /// What the last commit of this shard wrote, if there was one since the last call.
    pub fn take_batch(&self) -> Option<Batch> {
        self.disk.borrow_mut().batches.remove(&self.shard)
    }

    /// An fsync that began after batch `number` is over.
    pub fn synced(&self, number: u64) {
        let unsynced = &mut self.disk.borrow_mut().unsynced;
        while unsynced.front().is_some_and(|batch| batch.number <= number) {
            unsynced.pop_front();
        }
    }

    /// The process is gone, the machine is not: everything that was committed is there when it starts again.
    pub fn process_died(&self) {
        let mut disk = self.disk.borrow_mut();
        disk.unsynced.clear();
        disk.batches.clear();
        disk.trouble = None;
    }

    /// The machine is gone, too: of the batches without an fsync a prefix is there when it starts again. Returns the
    /// number of the first batch that is lost; none if all are there.
    pub fn power_cut(&self, rng: &mut Rng) -> Option<u64> {
        let mut disk = self.disk.borrow_mut();
        disk.trouble = None;
        disk.batches.clear();
        let kept = rng.below(disk.unsynced.len() as u64 + 1) as usize;
        let mut first = None;
        while disk.unsynced.len() > kept {
            let Some(batch) = disk.unsynced.pop_back() else { break };
            first = Some(batch.number);
            let tables = Rc::make_mut(&mut disk.tables);
            for (table, key, value) in batch.before.into_iter().rev() {
                put(&mut tables[table as usize], key, value);
            }
        }
        disk.unsynced.clear();
        first
    }

    pub fn plan(&self, trouble: Trouble) {
        self.disk.borrow_mut().trouble = Some(trouble);
    }

    /// Nothing is wrong with it any more.
    pub fn mend(&self) {
        let mut disk = self.disk.borrow_mut();
        (disk.trouble, disk.damaged) = (None, None);
    }

    /// Damages one row of a table, if it has any.
    pub fn damage(&self, table: Table, rng: &mut Rng) -> bool {
        let mut disk = self.disk.borrow_mut();
        let rows = &disk.tables[table as usize];
        if rows.is_empty() {
            return false;
        }
        let at = rng.below(rows.len() as u64) as usize;
        disk.damaged = rows.keys().nth(at).map(|key| (table, key.clone()));
        disk.damaged.is_some()
    }

    /// Whether a block is damaged, and nothing has read it yet.
    pub fn is_damaged(&self) -> bool {
        self.disk.borrow().damaged.is_some()
    }

    /// What a power cut would leave now, at the least.
    pub fn image(&self) -> Image {
        let disk = self.disk.borrow();
        let mut tables = Rc::clone(&disk.tables);
        for (table, key, value) in disk.unsynced.iter().rev().flat_map(|batch| batch.before.iter().rev()) {
            put(&mut Rc::make_mut(&mut tables)[*table as usize], key.clone(), value.clone());
        }
        Image(tables)
    }

    /// A disk with the contents of an image.
    pub fn restored(image: &Image) -> Self {
        Self::new(Rc::clone(&image.0))
    }

    /// What a power cut could not take.
    pub fn durable(&self, table: Table, key: &[u8]) -> Option<Bytes> {
        let disk = self.disk.borrow();
        for batch in &disk.unsynced {
            if let Some((_, _, before)) = batch.before.iter().find(|(t, k, _)| *t == table && k[..] == *key) {
                return before.clone();
            }
        }
        disk.tables[table as usize].get(key).cloned()
    }

    /// Every row of a table, as of now.
    pub fn each_row_of(&self, table: Table, mut look: impl FnMut(&Bytes, &Bytes)) {
        self.disk.borrow().tables[table as usize].iter().for_each(|(key, value)| look(key, value));
    }

    /// Every row, as of now.
    pub fn each_row(&self, mut look: impl FnMut(Table, &Bytes, &Bytes)) {
        for table in Table::ALL {
            self.each_row_of(table, |key, value| look(table, key, value));
        }
    }

    /// Whether a batch of this disk, not fsynced yet, enters dots into a clock: by new log entries above the floor.
    pub fn enters_dots(&self, batch: &Batch) -> bool {
        let disk = self.disk.borrow();
        let Some(unsynced) = disk.unsynced.iter().find(|unsynced| unsynced.number == batch.number) else {
            return false; // An fsync of another shard has covered it.
        };
        let log = &disk.tables[Table::Log as usize];
        let fresh = |(table, key, before): &&(Table, Bytes, Option<Bytes>)| {
            *table == Table::Log && before.is_none() && log.contains_key(key)
        };
        let fresh = unsynced.before.iter().filter(fresh);
        fresh.filter_map(|(_, key, _)| parse_log_key(key)).any(|(partition, dot)| {
            let floor = disk.tables[Table::Meta as usize].get(&MetaKey::Floor(partition).encode()[..]);
            let floor = floor.and_then(|bytes| Object::decode(bytes).ok());
            !floor.is_some_and(|floor| floor.context().covers(dot))
        })
    }

    pub fn is_empty(&self, table: Table) -> bool {
        self.disk.borrow().tables[table as usize].is_empty()
    }
}

fn put(rows: &mut BTreeMap<Bytes, Bytes>, key: Bytes, value: Option<Bytes>) -> Option<Bytes> {
    match value {
        Some(value) => rows.insert(key, value),
        None => rows.remove(&key),
    }
}

fn scan(tables: &Tables, table: Table, from: &[u8], to: &[u8], bytes_max: usize) -> Rows {
    let mut rows = Rows::new();
    if from >= to {
        return rows;
    }
    let mut bytes = 0;
    for (key, value) in tables[table as usize].range::<[u8], _>((Bound::Included(from), Bound::Excluded(to))) {
        bytes += key.len() + value.len();
        rows.push((key.clone(), value.clone()));
        if bytes >= bytes_max {
            break;
        }
    }
    rows
}

fn corrupt() -> StorageError {
    StorageError { doing: "read a block", cause: "block checksum mismatch".to_string() }
}

impl Read for SimDisk {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        let disk = self.disk.borrow();
        if disk.damaged.as_ref().is_some_and(|(t, k)| *t == table && k[..] == *key) {
            return Err(corrupt());
        }
        Ok(disk.tables[table as usize].get(key).cloned())
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], bytes_max: usize) -> Result<Rows, StorageError> {
        let disk = self.disk.borrow();
        let rows = scan(&disk.tables, table, from, to, bytes_max);
        match &disk.damaged {
            Some((t, k)) if *t == table && rows.iter().any(|(key, _)| key == k) => Err(corrupt()),
            Some(_) | None => Ok(rows),
        }
    }
}

impl Storage for SimDisk {
    fn commit(&mut self, batch: &storage::Batch) -> Result<(), StorageError> {
        let mut disk = self.disk.borrow_mut();
        if disk.trouble == Some(Trouble::Full) && !batch.is_empty() {
            return Err(StorageError { doing: "commit", cause: "no space left on device".to_string() });
        }
        disk.number += 1;
        let number = disk.number;
        let Disk { tables, damaged, .. } = &mut *disk;
        let tables = Rc::make_mut(tables);
        let mut before = Vec::new();
        for (from, to) in &batch.cuts {
            for (key, value) in scan(tables, Table::Log, from, to, usize::MAX) {
                tables[Table::Log as usize].remove(&key);
                before.push((Table::Log, key, Some(value)));
            }
        }
        for row in batch.rows.iter() {
            let old = put(&mut tables[row.table as usize], row.key.clone(), row.value.clone());
            before.push((row.table, row.key.clone(), old));
        }
        // A damaged block that nobody reads goes with its row.
        damaged.take_if(|(table, key)| !tables[*table as usize].contains_key(&key[..]));
        disk.unsynced.push_back(Unsynced { number, before });
        disk.batches.insert(self.shard, Batch { number, rows: batch.rows.to_vec(), sync: batch.sync });
        if batch.sync && disk.trouble == Some(Trouble::FailedSync) {
            return Err(StorageError { doing: "fsync", cause: "input/output error".to_string() });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(rows: impl Into<Vec<Row>>, sync: bool) -> storage::Batch {
        storage::Batch::of(rows, sync)
    }

    fn row(key: &'static str, value: &'static str) -> Row {
        let value = Some(Bytes::from_static(value.as_bytes()));
        Row { table: Table::Objects, key: Bytes::from_static(key.as_bytes()), value }
    }

    fn held(disk: &SimDisk, key: &str) -> Option<Bytes> {
        disk.get(Table::Objects, key.as_bytes()).unwrap()
    }

    #[test]
    fn a_power_cut_keeps_what_was_synced_and_a_prefix_of_the_rest() {
        let mut lengths = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let mut disk = SimDisk::default();
            disk.commit(&written([row("a", "1")], true)).unwrap();
            let synced = disk.take_batch().unwrap().number;
            disk.synced(synced);
            disk.commit(&written([row("a", "2"), row("b", "2")], false)).unwrap();
            disk.of_shard(1).commit(&written([row("a", "3")], true)).unwrap();
            assert_eq!(disk.durable(Table::Objects, b"a").unwrap()[..], *b"1");
            let lost = disk.power_cut(&mut Rng::new(seed, 1));
            let a = held(&disk, "a").unwrap();
            assert_eq!(held(&disk, "b").is_some(), a[..] > b"1"[..]);
            assert_eq!(lost.is_some(), a[..] < b"3"[..]);
            lengths.insert(a);
        }
        assert_eq!(lengths.len(), 3, "{lengths:?}");
    }

    #[test]
    fn troubles_come_when_they_were_planned() {
        let mut disk = SimDisk::default();
        disk.plan(Trouble::Full);
        assert!(disk.commit(&written([row("a", "1")], false)).is_err() && held(&disk, "a").is_none());
        disk.process_died();
        disk.plan(Trouble::FailedSync);
        assert!(disk.commit(&written([row("a", "1")], false)).is_ok() && disk.commit(&written([], true)).is_err());
        disk.process_died();
        assert!(disk.damage(Table::Objects, &mut Rng::new(1, 1)));
        assert!(disk.get(Table::Objects, b"a").is_err());
    }
}
