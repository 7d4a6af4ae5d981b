//! Objects that were written not long ago, or read more than once, in memory: looking one up here costs a fraction of what it does in
//! RocksDB's buffers, which hold every version of a row, or in blocks of files.
//!
//! What is here is what the database holds. A batch goes in after it was written; a row that was read goes in if this is not
//! its first read in a while, and no row of its part was written since before it was read. So an older row never takes the place
//! of a newer one, and of many keys that are read once each none takes the place of one that is read often.
//!
//! What was fsynced from here is also known to be what a change (`splice`) would be applied to, as a key has one writer: the
//! shard of its partition, which commits one batch after the other. What was written without fsync is not: a power cut
//! might take it, and leave the change.

use super::splice::splice;
use super::{Row, Table};
use bytes::Bytes;
use quick_cache::unsync::Cache;
use quick_cache::{DefaultHashBuilder, Weighter};
use std::hash::BuildHasher;
use std::sync::{Mutex, MutexGuard};

/// Parts, each with a lock of its own: a power of two.
const PARTS: usize = 16;
/// What an entry takes beside its key and its row, about: its places in the table and in the queue, two allocations.
const ENTRY_BYTES: u64 = 160;
/// Larger rows stay out: copying them costs what finding them costs.
const ROW_BYTES_MAX: usize = 64 * 1024;
/// As many changes in a row are written before the row is written whole again: who reads it from the database has to find
/// them all.
const CHANGES_MAX: u8 = 15;
/// For how many rows that went out are remembered, so that they stay when they come again.
const ROW_BYTES_USUAL: usize = 512;

/// For each row that there is room for, so many keys that were asked for are remembered.
const ASKED_PER_ROW: usize = 4;

#[derive(Clone, Debug)]
struct Entry {
    row: Bytes,
    /// So many changes lie upon the whole row in the database; `CHANGES_MAX` if that is not known, or not fsynced.
    changes: u8,
}

#[derive(Clone, Copy, Debug)]
struct Bytewise;

impl Weighter<Box<[u8]>, Entry> for Bytewise {
    fn weight(&self, key: &Box<[u8]>, entry: &Entry) -> u64 {
        key.len() as u64 + entry.row.len() as u64 + ENTRY_BYTES
    }
}

/// How a row is to be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Plan {
    /// As this change of what the database holds; else whole.
    pub change: Option<Vec<u8>>,
    /// So many changes then lie upon the whole row.
    changes: u8,
}

impl Plan {
    const WHOLE: Self = Self { change: None, changes: 0 };
}

struct Part {
    rows: Cache<Box<[u8]>, Entry, Bytewise>,
    /// Rows of this part that were written.
    written: u64,
    /// Of keys that were read and are not here, a part of the hash of each, never 0; one place for several.
    asked: Box<[u16]>,
}

impl Part {
    /// Whether a key that is not here was read before, not long ago. What is read only once would make others go.
    fn asked_before(&mut self, hash: u64) -> bool {
        let at = (hash as u32) as usize / PARTS % self.asked.len();
        let tag = ((hash >> 48) as u16).max(1);
        std::mem::replace(&mut self.asked[at], tag) == tag
    }
}

pub(super) struct Recent {
    parts: [Mutex<Part>; PARTS],
    hasher: DefaultHashBuilder,
}

impl Recent {
    /// Holds up to about `bytes_max`, and takes a sixtieth of that beside it.
    pub fn new(bytes_max: usize) -> Self {
        let part = |_| {
            let (rows, bytes) = (bytes_max / PARTS / ROW_BYTES_USUAL, bytes_max / PARTS);
            let asked = vec![0; ASKED_PER_ROW * rows + 1].into();
            Mutex::new(Part { rows: Cache::with_weighter(rows, bytes as u64, Bytewise), written: 0, asked })
        };
        Self { parts: std::array::from_fn(part), hasher: DefaultHashBuilder::default() }
    }

    fn part(&self, key: &[u8]) -> MutexGuard<'_, Part> {
        self.part_of(self.hasher.hash_one(key))
    }

    fn part_of(&self, hash: u64) -> MutexGuard<'_, Part> {
        self.parts[hash as usize % PARTS].lock().expect("nothing panics while it holds a part")
    }

    /// The object of this key, from here or else from where `read` finds it.
    pub fn get<E>(&self, key: &[u8], read: impl FnOnce() -> Result<Option<Bytes>, E>) -> Result<Option<Bytes>, E> {
        let hash = self.hasher.hash_one(key);
        let written = {
            let part = self.part_of(hash);
            if let Some(entry) = part.rows.get(key) {
                return Ok(Some(entry.row.clone()));
            }
            part.written
        };
        let row = read()?;
        if let Some(row) = row.as_ref().filter(|row| row.len() <= ROW_BYTES_MAX) {
            let mut part = self.part_of(hash);
            if part.asked_before(hash) && part.written == written {
                part.rows.insert(key.into(), Entry { row: row.clone(), changes: CHANGES_MAX });
            }
        }
        Ok(row)
    }

    /// How the rows of a batch are to be written, one plan for each.
    pub fn plan(&self, rows: &[Row]) -> Vec<Plan> {
        let mut last: Option<&Bytes> = None;
        let mut plans = Vec::with_capacity(rows.len());
        for row in rows {
            let mut plan = Plan::WHOLE;
            // What is not behind all before it may stand twice in the batch, and the first of the two is not here yet.
            if row.table == Table::Objects && last.is_none_or(|last| last < &row.key) {
                last = Some(&row.key);
                plan = row.value.as_ref().map_or(plan, |value| self.plan_of(&row.key, value));
            }
            plans.push(plan);
        }
        plans
    }

    fn plan_of(&self, key: &[u8], value: &[u8]) -> Plan {
        let old = self.part(key).rows.get(key).filter(|entry| entry.changes < CHANGES_MAX).cloned();
        let change = old.and_then(|old| Some((splice(&old.row, value)?, old.changes + 1)));
        change.map_or(Plan::WHOLE, |(change, changes)| Plan { change: Some(change), changes })
    }

    /// Rows that have just been written to the database, as planned, and fsynced if so it is said.
    pub fn written(&self, rows: &[Row], plans: &[Plan], synced: bool) {
        let rows = rows.iter().zip(plans);
        for (row, plan) in rows.filter(|(row, _)| row.table == Table::Objects) {
            let mut part = self.part(&row.key);
            part.written += 1;
            match row.value.as_ref().filter(|value| value.len() <= ROW_BYTES_MAX) {
                // A copy: what is to be written is often a part of the message that brought it.
                Some(value) => {
                    let changes = if synced { plan.changes } else { CHANGES_MAX };
                    let row_now = Bytes::copy_from_slice(value);
                    part.rows.insert(row.key[..].into(), Entry { row: row_now, changes });
                }
                None => {
                    part.rows.remove(&row.key[..]);
                }
            }
        }
    }

    /// What it holds, in bytes.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.lock().expect("nothing panics while it holds a part").rows.weight()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Result<Option<Bytes>, ()> = Ok(None);

    fn write(recent: &Recent, rows: &[Row]) -> Vec<bool> {
        let plans = recent.plan(rows);
        recent.written(rows, &plans, true);
        plans.iter().map(|plan| plan.change.is_some()).collect()
    }

    fn row(key: &'static [u8], value: Option<Bytes>) -> Row {
        Row { table: Table::Objects, key: Bytes::from_static(key), value }
    }

    #[test]
    fn what_was_read_twice_or_written_is_not_read_again() {
        let recent = Recent::new(1 << 20);
        let one = || Ok::<_, ()>(Some(Bytes::from_static(b"1")));
        assert_eq!(recent.get(b"a", || NOTHING), Ok(None), "and that it is not there is not kept");
        assert_eq!(recent.get(b"a", one), one());
        assert_eq!(recent.get(b"a", || Err(())), Err(()), "one read is not enough");
        assert_eq!(recent.get(b"a", one), one());
        assert_eq!(recent.get(b"a", || Err(())), one());
        write(&recent, &[row(b"a", Some(Bytes::from_static(b"2"))), row(b"b", Some(Bytes::from_static(b"3")))]);
        assert_eq!(recent.get(b"a", || Err(())), Ok(Some(Bytes::from_static(b"2"))));
        assert_eq!(recent.get(b"b", || Err(())), Ok(Some(Bytes::from_static(b"3"))));
        write(&recent, &[row(b"a", None)]);
        assert_eq!(recent.get(b"a", || NOTHING), Ok(None));
        assert_eq!(recent.get(b"a", || Err(())), Err(()), "a row that cannot be read is an error");
    }

    #[test]
    fn what_was_read_before_a_write_does_not_take_its_place() {
        let recent = Recent::new(1 << 20);
        let (old, new) = (Bytes::from_static(b"old"), Bytes::from_static(b"new"));
        for key in [b"a", b"b"] {
            recent.get(key, || Ok::<_, ()>(Some(old.clone()))).unwrap();
        }
        let read = || {
            write(&recent, &[row(b"a", Some(new.clone()))]);
            Ok::<_, ()>(Some(old.clone()))
        };
        assert_eq!(recent.get(b"a", read), Ok(Some(old.clone())));
        assert_eq!(recent.get(b"a", || Err(())), Ok(Some(new)));
        let read = || {
            write(&recent, &[row(b"b", None)]);
            Ok::<_, ()>(Some(old.clone()))
        };
        assert_eq!(recent.get(b"b", read), Ok(Some(old.clone())));
        assert_eq!(recent.get(b"b", || NOTHING), Ok(None));
    }

    #[test]
    fn what_is_read_once_makes_nothing_go() {
        let recent = Recent::new(1 << 20);
        let read = |number: u32| {
            let mut read = false;
            let row = Bytes::from(vec![1; 100]);
            recent.get(&number.to_be_bytes(), || {
                read = true;
                Ok::<_, ()>(Some(row.clone()))
            })?;
            Ok::<_, ()>(read)
        };
        let reads = |numbers: std::ops::Range<u32>| numbers.filter(|number| read(*number).unwrap()).count();
        let twice = |number| reads(number..number + 1) + reads(number..number + 1);
        assert!((0..3_000).map(twice).sum::<usize>() > 5_950, "a few look as if they had been read before");
        let full = recent.bytes();
        assert_eq!(reads(10_000..60_000), 50_000, "more than ten times what there is room for");
        assert!(recent.bytes().abs_diff(full) < 20 * 300);
        assert!(reads(0..3_000) < 150, "nothing went, but where two keys share a place");
    }

    #[test]
    fn a_large_row_is_not_kept_and_takes_the_place_of_none() {
        let recent = Recent::new(1 << 20);
        write(&recent, &[row(b"a", Some(Bytes::from_static(b"1")))]);
        let large = Bytes::from(vec![7; ROW_BYTES_MAX + 1]);
        write(&recent, &[row(b"a", Some(large.clone()))]);
        for _ in 0..2 {
            assert_eq!(recent.get(b"a", || Ok::<_, ()>(Some(large.clone()))), Ok(Some(large.clone())));
        }
        assert_eq!(recent.get(b"a", || Err(())), Err(()));
    }

    #[test]
    fn it_stays_within_its_bytes_and_other_tables_stay_out() {
        let recent = Recent::new(256 * 1024);
        for number in 0..10_000_u32 {
            let key = Bytes::copy_from_slice(&number.to_be_bytes());
            write(&recent, &[Row { table: Table::Objects, key, value: Some(Bytes::from(vec![1; 100])) }]);
        }
        assert!((128 * 1024..=256 * 1024).contains(&recent.bytes()), "{}", recent.bytes());
        let before = recent.bytes();
        write(&recent, &[Row { table: Table::Log, ..row(b"a", Some(Bytes::from_static(b"1"))) }]);
        assert_eq!((recent.bytes(), recent.get(b"a", || NOTHING)), (before, Ok(None)));
    }

    #[test]
    fn a_row_is_written_as_a_change_if_what_it_changes_is_known_to_be_in_the_database() {
        let long = |head: &str| row(b"a", Some(Bytes::from([head.as_bytes(), &[7; 200]].concat())));
        let recent = Recent::new(1 << 20);
        let plans: Vec<bool> = (0..40).flat_map(|n| write(&recent, &[long(&n.to_string())])).collect();
        let whole: Vec<usize> = (0..40).filter(|n| !plans[*n]).collect();
        assert_eq!(whole, [0, 16, 32], "now and then it is written whole");
        let changes = |recent: &Recent, rows: &[Row]| write(recent, rows).iter().filter(|change| **change).count();
        let b = || row(b"b", Some(Bytes::from_static(b"1")));
        assert_eq!(changes(&recent, &[long("x"), b()]), 1);
        assert_eq!(changes(&recent, &[long("x"), long("y")]), 1, "only the first one changes what is in the database");
        assert_eq!(changes(&recent, &[b(), long("x"), b()]), 0, "these are not in order, so each may stand twice");
        assert_eq!(changes(&recent, &[row(b"a", None)]), 0);
        assert_eq!(changes(&recent, &[long("x")]), 0, "it was deleted");
        let read = Recent::new(1 << 20);
        for _ in 0..2 {
            read.get(b"a", || Ok::<_, ()>(long("x").value)).unwrap();
        }
        assert_eq!(changes(&read, &[long("y")]), 0, "who knows how many changes lie upon it");
        assert_eq!(changes(&read, &[Row { table: Table::Log, ..long("z") }, long("z")]), 1);
        let unsynced = Recent::new(1 << 20);
        unsynced.written(&[long("x")], &unsynced.plan(&[long("x")]), false);
        assert_eq!(changes(&unsynced, &[long("y")]), 0, "a power cut may take the row before");
        assert_eq!(changes(&unsynced, &[long("z")]), 1);
    }
}
