//! Values that can be told apart and checked, and what is remembered of the writes that were acknowledged.
//!
//! A value says which key it is of and when its write began; its other bytes follow from that. For a key that is
//! tracked, the acknowledged write that began last is known, and every write that had not ended by then: what a read
//! shows later has to be one of these.

use super::draw::mix;
use bytes::Bytes;
use quorate_client::ReadAnswer;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Key and stamp at the beginning of a value.
const HEADER_BYTES: usize = 16;
/// A write of which it is not known whether, and when, it takes effect.
const NEVER: u64 = u64::MAX;

/// A value of `length` bytes, 16 at the least.
pub fn make(key: u64, stamp: u64, length: usize) -> Bytes {
    let mut value = Vec::with_capacity(length + 8);
    value.extend_from_slice(&key.to_be_bytes());
    value.extend_from_slice(&stamp.to_be_bytes());
    let mut state = mix(key ^ stamp.rotate_left(32));
    while value.len() < length {
        state = mix(state.wrapping_add(0x9e37_79b9_7f4a_7c15));
        value.extend_from_slice(&state.to_be_bytes());
    }
    value.truncate(length);
    Bytes::from(value)
}

/// The stamp of a value, if it is one of this key and whole.
pub fn stamp_of(key: u64, value: &[u8]) -> Option<u64> {
    let stamp = u64::from_be_bytes(value.get(8..HEADER_BYTES)?.try_into().ok()?);
    (make(key, stamp, value.len())[..] == *value).then_some(stamp)
}

/// Whether a read shows what it ought to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shown {
    Held,
    /// Nothing is there, though a write was acknowledged.
    Missing,
    /// Only what an acknowledged write that began later has superseded.
    Stale,
    /// A value that was never written to this key.
    Wrong,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Write {
    began: u64,
    ended: u64,
}

/// The writes that were acknowledged, of some of the keys.
pub struct Ledger {
    /// Counts beginnings and ends of writes: what came first has the smaller number.
    stamps: AtomicU64,
    /// Keys whose mixed number is below this are tracked.
    tracked_below: u64,
    writes: Mutex<HashMap<u64, Vec<Write>>>,
}

impl Ledger {
    /// Tracks about `tracked` of `records` keys. `first_stamp` is above those of earlier runs on the same keys.
    pub fn new(tracked: u64, records: u64, first_stamp: u64) -> Self {
        let share = u128::from(u64::MAX) * u128::from(tracked.min(records)) / u128::from(records);
        Self { stamps: AtomicU64::new(first_stamp), tracked_below: share as u64, writes: Mutex::default() }
    }

    pub fn stamp(&self) -> u64 {
        self.stamps.fetch_add(1, Ordering::Relaxed)
    }

    pub fn acknowledged(&self, key: u64, began: u64) {
        let write = Write { began, ended: self.stamp() };
        self.note(key, |writes| {
            writes.push(write);
            let last = writes.iter().filter(|w| w.ended != NEVER).map(|w| w.began).max().unwrap_or(0);
            writes.retain(|w| w.ended >= last);
        });
    }

    pub fn unknown(&self, key: u64, began: u64) {
        self.note(key, |writes| writes.push(Write { began, ended: NEVER }));
    }

    fn note(&self, key: u64, change: impl FnOnce(&mut Vec<Write>)) {
        if mix(key) <= self.tracked_below && self.tracked_below > 0 {
            change(self.writes.lock().expect("nothing panics while it holds the ledger").entry(key).or_default());
        }
    }

    /// The keys of which a write was acknowledged.
    pub fn keys(&self) -> Vec<u64> {
        let writes = self.writes.lock().expect("nothing panics while it holds the ledger");
        let held = |writes: &Vec<Write>| writes.iter().any(|write| write.ended != NEVER);
        writes.iter().filter(|(_, writes)| held(writes)).map(|(key, _)| *key).collect()
    }

    /// Judges a read that began after all writes had ended.
    pub fn judge(&self, key: u64, answer: &ReadAnswer) -> Shown {
        self.judge_values(key, answer.siblings.iter().map(|sibling| &sibling.value[..]))
    }

    fn judge_values<'a>(&self, key: u64, values: impl Iterator<Item = &'a [u8]>) -> Shown {
        let writes = self.writes.lock().expect("nothing panics while it holds the ledger");
        let Some(expected) = writes.get(&key) else { return Shown::Held };
        let stamps: Vec<Option<u64>> = values.map(|value| stamp_of(key, value)).collect();
        let current = |stamp: &Option<u64>| stamp.is_some_and(|stamp| expected.iter().any(|w| w.began == stamp));
        if stamps.is_empty() {
            Shown::Missing
        } else if stamps.iter().any(Option::is_none) {
            Shown::Wrong
        } else if stamps.iter().any(current) {
            Shown::Held
        } else {
            Shown::Stale
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_known_again_and_damage_is_seen() {
        for length in [16, 17, 100, 1_000] {
            let value = make(5, 77, length);
            assert_eq!((value.len(), stamp_of(5, &value)), (length, Some(77)));
            assert_eq!(stamp_of(6, &value), None);
            let mut damaged = value.to_vec();
            *damaged.last_mut().unwrap() ^= 1;
            assert!(stamp_of(5, &damaged) != Some(77));
        }
        assert_eq!(stamp_of(5, b"short"), None);
    }

    #[test]
    fn only_writes_that_may_be_the_last_are_held() {
        let ledger = Ledger::new(1, 1, 100);
        let shown = |stamps: &[u64]| {
            let values: Vec<Bytes> = stamps.iter().map(|stamp| make(0, *stamp, 32)).collect();
            ledger.judge_values(0, values.iter().map(|value| &value[..]))
        };
        let first = ledger.stamp();
        ledger.acknowledged(0, first);
        let (second, third) = (ledger.stamp(), ledger.stamp());
        ledger.acknowledged(0, third);
        ledger.acknowledged(0, second);
        assert_eq!(shown(&[first]), Shown::Stale);
        // These two were under way at the same time: either may be the last.
        assert_eq!((shown(&[second]), shown(&[third])), (Shown::Held, Shown::Held));
        assert_eq!(shown(&[first, second]), Shown::Held);
        assert_eq!(shown(&[]), Shown::Missing);
        assert_eq!(ledger.judge_values(0, [&b"rubbish"[..]].into_iter()), Shown::Wrong);
        let doubtful = ledger.stamp();
        ledger.unknown(0, doubtful);
        assert_eq!((shown(&[doubtful]), shown(&[third])), (Shown::Held, Shown::Held));
        let last = ledger.stamp();
        ledger.acknowledged(0, last);
        assert_eq!((shown(&[doubtful]), shown(&[third])), (Shown::Held, Shown::Stale));
    }

    #[test]
    fn only_some_keys_are_tracked() {
        let ledger = Ledger::new(100, 10_000, 0);
        (0..10_000).for_each(|key| ledger.acknowledged(key, ledger.stamp()));
        assert!((50..200).contains(&ledger.keys().len()), "{}", ledger.keys().len());
        assert!(Ledger::new(0, 10, 0).keys().is_empty());
    }
}
