//! A row as a change of the row before it: what goes before a piece of that one, the piece, and what follows.
//!
//! An object that is written over and over differs from the one before in its head, with the value, and in one op id more
//! at its end; the op ids between are most of it, and need not be written again each time. RocksDB puts whole rows
//! together when it reads them, and when it writes out or merges its files (RocksDB wiki, "Merge Operator").
//!
//! ```text
//! hash(u64) from(u32) before(u32), then `before` bytes and the bytes that follow: the row is the former, the old row from
//! `from` on, and the latter; its XXH3 is the hash
//! ```

use rocksdb::MergeOperands;
use xxhash_rust::xxh3::xxh3_64;

const HEAD_BYTES: usize = 8 + 4 + 4;
/// Where the end of the old row lies in the new one is found by so many bytes of it: of an object, the newest op id.
const ANCHOR_BYTES: usize = 16;
/// It is looked for no further from the end of the new row.
const AFTER_BYTES_MAX: usize = 1024;
/// Longer rows are written whole: little of them are op ids.
const ROW_BYTES_MAX: usize = 16 * 1024;
/// Compared at once.
const CHUNK_BYTES: usize = 64;

/// The change that makes `new` of `old`; none if it would be more than half as long as `new`.
pub(super) fn splice(old: &[u8], new: &[u8]) -> Option<Vec<u8>> {
    if old.len().max(new.len()) > ROW_BYTES_MAX {
        return None;
    }
    let (_, anchor) = old.split_last_chunk::<ANCHOR_BYTES>()?;
    let near = new.len().saturating_sub(AFTER_BYTES_MAX);
    let end = near + new[near..].windows(ANCHOR_BYTES).rposition(|window| window == anchor)? + ANCHOR_BYTES;
    let shared = shared_end(old, &new[..end]);
    let (before, after) = (&new[..end - shared], &new[end..]);
    let [from, before_bytes] = [old.len() - shared, before.len()].map(|number| (number as u32).to_be_bytes());
    let fits = 2 * (HEAD_BYTES + before.len() + after.len()) <= new.len();
    fits.then(|| [&xxh3_64(new).to_be_bytes()[..], &from, &before_bytes, before, after].concat())
}

/// How many bytes at their ends two rows share.
fn shared_end(a: &[u8], b: &[u8]) -> usize {
    let same = |(a, b): &(&[u8], &[u8])| a == b;
    let chunks = CHUNK_BYTES * a.rchunks_exact(CHUNK_BYTES).zip(b.rchunks_exact(CHUNK_BYTES)).take_while(same).count();
    let (a, b) = (&a[..a.len() - chunks], &b[..b.len() - chunks]);
    chunks + a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count()
}

/// The row that a change makes of `old`; none if it was made for another one.
fn apply(old: &[u8], change: &[u8]) -> Option<Vec<u8>> {
    let (hash, rest) = change.split_first_chunk()?;
    let (from, rest) = rest.split_first_chunk()?;
    let (before, rest) = rest.split_first_chunk()?;
    let (before, after) = rest.split_at_checked(u32::from_be_bytes(*before) as usize)?;
    let row = [before, old.get(u32::from_be_bytes(*from) as usize..)?, after].concat();
    (xxh3_64(&row) == u64::from_be_bytes(*hash)).then_some(row)
}

/// RocksDB's name for it, which it keeps in its options.
pub(super) const OPERATOR: &str = "quorate.splice";

/// The row that a whole one and the changes since make. None, which RocksDB takes for damage, if one of them was made for
/// another row.
pub(super) fn whole(_key: &[u8], old: Option<&[u8]>, changes: &MergeOperands) -> Option<Vec<u8>> {
    changes.iter().try_fold(old?.to_vec(), |row, change| apply(&row, change))
}

/// Changes are not made into one: RocksDB keeps them until it meets the row.
pub(super) fn none_of_several(_key: &[u8], _old: Option<&[u8]>, _changes: &MergeOperands) -> Option<Vec<u8>> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As an object with the op ids of some events.
    fn row(head: &[u8], ids: std::ops::Range<u8>) -> Vec<u8> {
        head.iter().copied().chain(ids.flat_map(|id| [id; 40])).collect()
    }

    #[test]
    fn an_op_id_more_is_a_short_change() {
        let (old, new) = (row(b"one", 0..60), row(b"another", 2..62));
        let change = splice(&old, &new).unwrap();
        assert_eq!(change.len(), HEAD_BYTES + "another".len() + 2 * 40);
        assert_eq!(apply(&old, &change), Some(new));
        assert_eq!(splice(&old, &row(b"a head that is longer than all the rest of it together, by far", 59..60)), None);
        assert_eq!(splice(&old, &row(b"nothing in common", 61..64)), None);
        assert_eq!(splice(&old[..15], &old), None);
        let long = vec![7; ROW_BYTES_MAX + 1];
        assert_eq!(splice(&long, &long), None);
    }

    #[test]
    fn a_change_of_another_row_makes_nothing() {
        let (old, new) = (row(b"one X", 0..20), row(b"two X", 0..21));
        let change = splice(&old, &new).unwrap();
        assert_eq!(apply(&old, &change), Some(new));
        assert_eq!(apply(&row(b"one Y", 0..20), &change), None, "what both had is taken from the row");
        assert_eq!(apply(&row(b"one X", 0..19), &change), None);
        (0..change.len()).for_each(|cut| assert_eq!(apply(&old, &change[..cut]), None, "cut at {cut}"));
        assert_eq!(apply(&[], &change), None);
    }

    proptest! {
        /// Of two letters, so that they have much in common.
        #[test]
        fn a_change_makes_the_new_row(
            old in prop::collection::vec(0..2u8, 0..80), before in prop::collection::vec(0..2u8, 0..10),
            from in 0..90usize, after in prop::collection::vec(0..2u8, 0..10),
        ) {
            let new = [&before, old.get(from..).unwrap_or_default(), &after].concat();
            if let Some(change) = splice(&old, &new) {
                prop_assert!(2 * change.len() <= new.len());
                prop_assert_eq!(apply(&old, &change), Some(new));
            }
        }
    }
}
