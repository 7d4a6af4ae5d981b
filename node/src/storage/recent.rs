//! Objects that were read or written not long ago, in memory: looking one up here costs a fraction of what it does in
//! RocksDB's buffers, which hold every version of a row, or in blocks of files.
//!
//! What is here is what the database holds. A batch goes in after it was written; a row that was read goes in only if no
//! row of its part was written since before it was read. So an older row never takes the place of a newer one.

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
/// For how many rows that went out are remembered, so that they stay when they come again.
const ROW_BYTES_USUAL: usize = 512;

#[derive(Clone, Copy, Debug)]
struct Bytewise;

impl Weighter<Box<[u8]>, Bytes> for Bytewise {
    fn weight(&self, key: &Box<[u8]>, row: &Bytes) -> u64 {
        key.len() as u64 + row.len() as u64 + ENTRY_BYTES
    }
}

struct Part {
    rows: Cache<Box<[u8]>, Bytes, Bytewise>,
    /// Rows of this part that were written.
    written: u64,
}

pub(super) struct Recent {
    parts: [Mutex<Part>; PARTS],
    hasher: DefaultHashBuilder,
    bytes_max: usize,
}

impl Recent {
    /// Holds up to about `bytes_max`; nothing at all if that is 0.
    pub fn new(bytes_max: usize) -> Self {
        let part = |_| {
            let (rows, bytes) = (bytes_max / PARTS / ROW_BYTES_USUAL, bytes_max / PARTS);
            Mutex::new(Part { rows: Cache::with_weighter(rows, bytes as u64, Bytewise), written: 0 })
        };
        Self { parts: std::array::from_fn(part), hasher: DefaultHashBuilder::default(), bytes_max }
    }

    fn part(&self, key: &[u8]) -> MutexGuard<'_, Part> {
        let number = self.hasher.hash_one(key) as usize % PARTS;
        self.parts[number].lock().expect("nothing panics while it holds a part")
    }

    /// The object of this key, from here or else from where `read` finds it.
    pub fn get<E>(&self, key: &[u8], read: impl FnOnce() -> Result<Option<Bytes>, E>) -> Result<Option<Bytes>, E> {
        if self.bytes_max == 0 {
            return read();
        }
        let written = {
            let part = self.part(key);
            if let Some(row) = part.rows.get(key) {
                return Ok(Some(row.clone()));
            }
            part.written
        };
        let row = read()?;
        if let Some(row) = row.as_ref().filter(|row| row.len() <= ROW_BYTES_MAX) {
            let mut part = self.part(key);
            if part.written == written {
                part.rows.insert(key.into(), row.clone());
            }
        }
        Ok(row)
    }

    /// Rows that have just been written to the database.
    pub fn written(&self, rows: &[Row]) {
        for row in rows.iter().filter(|row| row.table == Table::Objects && self.bytes_max > 0) {
            let mut part = self.part(&row.key);
            part.written += 1;
            match row.value.as_ref().filter(|value| value.len() <= ROW_BYTES_MAX) {
                // A copy: what is to be written is often a part of the message that brought it.
                Some(value) => part.rows.insert(row.key[..].into(), Bytes::copy_from_slice(value)),
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

    fn row(key: &'static [u8], value: Option<Bytes>) -> Row {
        Row { table: Table::Objects, key: Bytes::from_static(key), value }
    }

    #[test]
    fn what_was_read_or_written_is_not_read_again() {
        let recent = Recent::new(1 << 20);
        assert_eq!(recent.get(b"a", || NOTHING), Ok(None), "and that it is not there is not kept");
        assert_eq!(
            recent.get(b"a", || Ok::<_, ()>(Some(Bytes::from_static(b"1")))),
            Ok(Some(Bytes::from_static(b"1")))
        );
        assert_eq!(recent.get(b"a", || Err(())), Ok(Some(Bytes::from_static(b"1"))));
        recent.written(&[row(b"a", Some(Bytes::from_static(b"2"))), row(b"b", Some(Bytes::from_static(b"3")))]);
        assert_eq!(recent.get(b"a", || Err(())), Ok(Some(Bytes::from_static(b"2"))));
        assert_eq!(recent.get(b"b", || Err(())), Ok(Some(Bytes::from_static(b"3"))));
        recent.written(&[row(b"a", None)]);
        assert_eq!(recent.get(b"a", || NOTHING), Ok(None));
        assert_eq!(recent.get(b"a", || Err(())), Err(()), "a row that cannot be read is an error");
    }

    #[test]
    fn what_was_read_before_a_write_does_not_take_its_place() {
        let recent = Recent::new(1 << 20);
        let (old, new) = (Bytes::from_static(b"old"), Bytes::from_static(b"new"));
        let read = || {
            recent.written(&[row(b"a", Some(new.clone()))]);
            Ok::<_, ()>(Some(old.clone()))
        };
        assert_eq!(recent.get(b"a", read), Ok(Some(old.clone())));
        assert_eq!(recent.get(b"a", || Err(())), Ok(Some(new)));
        let read = || {
            recent.written(&[row(b"b", None)]);
            Ok::<_, ()>(Some(old.clone()))
        };
        assert_eq!(recent.get(b"b", read), Ok(Some(old.clone())));
        assert_eq!(recent.get(b"b", || NOTHING), Ok(None));
    }

    #[test]
    fn a_large_row_is_not_kept_and_takes_the_place_of_none() {
        let recent = Recent::new(1 << 20);
        recent.written(&[row(b"a", Some(Bytes::from_static(b"1")))]);
        let large = Bytes::from(vec![7; ROW_BYTES_MAX + 1]);
        recent.written(&[row(b"a", Some(large.clone()))]);
        assert_eq!(recent.get(b"a", || Ok::<_, ()>(Some(large.clone()))), Ok(Some(large)));
        assert_eq!(recent.get(b"a", || Err(())), Err(()));
    }

    #[test]
    fn it_stays_within_its_bytes_and_other_tables_stay_out() {
        let recent = Recent::new(256 * 1024);
        for number in 0..10_000_u32 {
            let key = Bytes::copy_from_slice(&number.to_be_bytes());
            recent.written(&[Row { table: Table::Objects, key, value: Some(Bytes::from(vec![1; 100])) }]);
        }
        assert!((128 * 1024..=256 * 1024).contains(&recent.bytes()), "{}", recent.bytes());
        let before = recent.bytes();
        recent.written(&[Row { table: Table::Log, ..row(b"a", Some(Bytes::from_static(b"1"))) }]);
        assert_eq!((recent.bytes(), recent.get(b"a", || NOTHING)), (before, Ok(None)));
        let off = Recent::new(0);
        off.written(&[row(b"a", Some(Bytes::from_static(b"1")))]);
        assert_eq!((off.bytes(), off.get(b"a", || NOTHING)), (0, Ok(None)));
    }
}
