//! The op ids of events that an object superseded.

use super::{Dot, Hlc};
use crate::id::{ActorId, OpId};

/// How many superseded op ids an object keeps, the newest by (HLC, dot).
pub const PAST_OPS_MAX: usize = 64;
/// What one takes: HLC, actor, seq and op id, big-endian, so that the order of the bytes is that of the events.
const BYTES: usize = 8 + 8 + 8 + 16;

/// An event that left no sibling, or no longer does: kept so that a late retry is known as one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PastOp {
    pub hlc: Hlc,
    pub dot: Dot,
    pub op_id: OpId,
}

impl PastOp {
    fn to_bytes(self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(&self.hlc.0.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.dot.actor().0.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.dot.seq().to_be_bytes());
        bytes[24..].copy_from_slice(&self.op_id.0);
        bytes
    }

    fn from_bytes(bytes: &[u8; BYTES]) -> Self {
        let op_id = *bytes.last_chunk().expect("an op id is shorter");
        Self { hlc: hlc_of(bytes), dot: dot_of(bytes), op_id: OpId(op_id) }
    }
}

fn number(bytes: &[u8; BYTES], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

fn hlc_of(bytes: &[u8; BYTES]) -> Hlc {
    Hlc(number(bytes, 0))
}

fn dot_of(bytes: &[u8; BYTES]) -> Dot {
    Dot(ActorId(number(bytes, 8)), number(bytes, 16))
}

/// Whether `a` comes before `b`: mostly the HLCs alone tell.
fn before(a: &[u8; BYTES], b: &[u8; BYTES]) -> bool {
    let (earlier, later) = (hlc_of(a), hlc_of(b));
    earlier < later || (earlier == later && a < b)
}

/// Past ops in order, the greatest `PAST_OPS_MAX` of all that were ever united here. Kept as they lie in a record: every
/// put reads and writes them all, and looks at few.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PastOps(Vec<[u8; BYTES]>);

impl PastOps {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = PastOp> + '_ {
        self.0.iter().map(PastOp::from_bytes)
    }

    /// The newest.
    pub fn last(&self) -> Option<PastOp> {
        self.0.last().map(PastOp::from_bytes)
    }

    pub fn event_of(&self, op_id: OpId) -> Option<Dot> {
        let same = self.0.iter().filter(|bytes| bytes.ends_with(&op_id.0));
        same.map(dot_of).max()
    }

    /// Whether all of `other` are here that would be kept here.
    pub(super) fn remember(&self, other: &Self) -> bool {
        let oldest = self.0.first().filter(|_| self.len() == PAST_OPS_MAX);
        let mut kept = other.0.iter().filter(|past| oldest.is_none_or(|oldest| *past >= oldest));
        kept.all(|past| self.0.binary_search(past).is_ok())
    }

    pub(super) fn add(&mut self, past: impl IntoIterator<Item = PastOp>) {
        self.0.extend(past.into_iter().map(PastOp::to_bytes));
        self.tidy();
    }

    pub(super) fn unite(&mut self, other: &Self) {
        if self != other {
            self.0.extend(&other.0);
            self.tidy();
        }
    }

    fn tidy(&mut self) {
        if !self.0.is_sorted_by(before) {
            self.0.sort(); // Runs that are in order are only merged.
            self.0.dedup();
        }
        let excess = self.len().saturating_sub(PAST_OPS_MAX);
        self.0.drain(..excess);
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_flattened()
    }

    /// Those of a record that are to be kept. None if the last one is cut short.
    pub(super) fn from_bytes(bytes: &[u8], mut kept: impl FnMut(Dot) -> bool) -> Option<Self> {
        let (all, []) = bytes.as_chunks() else { return None };
        let mut past_ops = Self(Vec::new());
        for past in all.iter().filter(|past| kept(dot_of(past))) {
            if past_ops.is_empty() {
                past_ops.0.reserve_exact(all.len() + 1); // A write adds one.
            }
            past_ops.0.push(*past);
        }
        past_ops.tidy();
        Some(past_ops)
    }
}

impl std::fmt::Debug for PastOps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// Of few times, actors and seqs, far apart, so that each of them decides now and then.
    fn past_op() -> impl Strategy<Value = PastOp> {
        let number = prop::sample::select(vec![0, 1, 255, 256, u64::MAX]);
        let one = (number.clone(), number.clone(), number, 0..3u8);
        one.prop_map(|(hlc, actor, seq, op)| PastOp {
            hlc: Hlc(hlc),
            dot: Dot(ActorId(actor), seq),
            op_id: OpId([op; 16]),
        })
    }

    proptest! {
        #[test]
        fn the_newest_are_kept_in_order(rounds in prop::collection::vec(prop::collection::vec(past_op(), 0..60), 1..5)) {
            let (mut added, mut united, mut all) = (PastOps::default(), PastOps::default(), BTreeSet::new());
            for round in rounds {
                let mut other = PastOps::default();
                other.add(round.iter().copied());
                added.add(round.iter().copied());
                united.unite(&other);
                all.extend(round);
                let newest: Vec<PastOp> = all.iter().skip(all.len().saturating_sub(PAST_OPS_MAX)).copied().collect();
                prop_assert!(added.iter().eq(newest.iter().copied()) && added.last() == newest.last().copied());
                prop_assert_eq!(&added, &united);
                prop_assert!(added.remember(&other));
                prop_assert_eq!(PastOps::from_bytes(added.as_bytes(), |_| true), Some(added.clone()));
                let later = PastOps::from_bytes(added.as_bytes(), |dot| dot.seq() > 1).expect("they are whole");
                prop_assert!(later.iter().eq(newest.iter().copied().filter(|past| past.dot.seq() > 1)));
                for past in newest {
                    let same = added.iter().filter(|other| other.op_id == past.op_id).map(|other| other.dot).max();
                    prop_assert_eq!(added.event_of(past.op_id), same);
                }
            }
        }

        #[test]
        fn bytes_in_any_order_become_ordered(past_ops in prop::collection::vec(past_op(), 0..100), cut in 0..40usize) {
            let bytes: Vec<u8> = past_ops.iter().flat_map(|past| past.to_bytes()).collect();
            let mut ordered = PastOps::default();
            ordered.add(past_ops.iter().copied());
            prop_assert_eq!(PastOps::from_bytes(&bytes, |_| true), Some(ordered));
            let whole = cut == 0 || bytes.is_empty();
            prop_assert_eq!(PastOps::from_bytes(&bytes[..bytes.len().saturating_sub(cut)], |_| true).is_some(), whole);
        }
    }
}
