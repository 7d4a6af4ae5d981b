//! Since when dots are here: the age of what a peer lacks.
//!
//! No row is written for it. Like the marks of a tide on a pole: at each tick, and for each actor, how far its seqs had
//! come. What a peer lacks came in at the first mark that is not below it. What all owners have seen needs no marks, but
//! for the highest of them.

use super::{Kernel, Now};
use crate::storage::Storage;
use quorate_ring::id::{ActorId, NodeId, Partition};
use quorate_ring::version::Context;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Marks of one actor in one partition. Over it neighbours become one, with the older time.
const MARKS_MAX: usize = 64;

/// A seq, and when all up to it, from the mark before on, had come in.
type Mark = (u64, Duration);

/// The marks of one actor in one partition.
#[derive(Debug, Default)]
struct Pole {
    /// The highest seq that was ever marked: what is above has come in since the last tick.
    upto: u64,
    /// Those that are not settled.
    marks: VecDeque<Mark>,
}

#[derive(Debug, Default)]
pub(super) struct Ages {
    poles: BTreeMap<(Partition, ActorId), Pole>,
    /// The last change of our clocks that has a mark.
    noted: u64,
    /// When a peer was found to have a new actor: from then on it lacks all that it had.
    renewed: BTreeMap<NodeId, Duration>,
}

impl Ages {
    fn note(&mut self, partition: Partition, actor: ActorId, seq: u64, now: Duration) {
        let Pole { upto, marks } = self.poles.entry((partition, actor)).or_default();
        if *upto >= seq {
            return;
        }
        *upto = seq;
        marks.push_back((seq, now));
        if marks.len() > MARKS_MAX {
            let pairs: Vec<Mark> = marks.drain(..).collect();
            marks.extend(pairs.chunks(2).map(|pair| (pair[pair.len() - 1].0, pair[0].1)));
        }
    }

    /// All owners have seen this much.
    pub(super) fn settle(&mut self, partition: Partition, settled: &Context) {
        for (actor, seq) in settled.iter() {
            if let Some(pole) = self.poles.get_mut(&(partition, actor)) {
                while pole.marks.front().is_some_and(|(first, _)| *first <= seq) {
                    pole.marks.pop_front();
                }
            }
        }
    }

    pub(super) fn renewed(&mut self, peer: NodeId, now: Duration) {
        self.renewed.insert(peer, now);
    }

    /// When a peer first lacked a dot that it lacks now; none if that is so since the last tick. What was marked and has
    /// no mark any more was settled: the peer has lost it.
    pub(super) fn since(&self, peer: NodeId, partition: Partition, actor: ActorId, seq: u64) -> Option<Duration> {
        let Pole { upto, marks } = self.poles.get(&(partition, actor)).filter(|pole| seq <= pole.upto)?;
        debug_assert!(marks.back().is_none_or(|(last, _)| last == upto), "the last mark is the highest");
        let lost = self.renewed.get(&peer).copied();
        match marks.get(marks.partition_point(|(last, _)| *last < seq)) {
            Some((_, came)) => Some(lost.map_or(*came, |lost| lost.max(*came))),
            None => lost,
        }
    }
}

impl<S: Storage> Kernel<S> {
    /// Marks how far our clocks have come.
    pub(super) fn note_ages(&mut self, now: Now) {
        let (upto, changed) = self.clocks.changed_behind(self.ages.noted);
        for (partition, actor) in changed {
            let seqs = self.replicas.get(&partition).and_then(|replica| replica.clock().seqs(actor));
            if let Some(seqs) = seqs {
                self.ages.note(partition, actor, seqs.max(), now.mono);
            }
        }
        self.ages.noted = upto;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHERE: (Partition, ActorId) = (Partition { n: 3, index: 1 }, ActorId(1 << 48));

    fn since(ages: &Ages, seq: u64) -> Option<u64> {
        ages.since(NodeId(2), WHERE.0, WHERE.1, seq).map(|at| at.as_secs())
    }

    fn note(ages: &mut Ages, seq: u64, at: u64) {
        ages.note(WHERE.0, WHERE.1, seq, Duration::from_secs(at));
    }

    #[test]
    fn a_dot_is_as_old_as_the_first_mark_that_is_not_below_it() {
        let mut ages = Ages::default();
        note(&mut ages, 10, 1);
        note(&mut ages, 10, 2);
        note(&mut ages, 12, 3);
        assert_eq!([1, 10, 11, 12, 13].map(|seq| since(&ages, seq)), [Some(1), Some(1), Some(3), Some(3), None]);
        ages.settle(WHERE.0, &[(WHERE.1, 11)].into_iter().collect());
        assert_eq!([11, 12].map(|seq| since(&ages, seq)), [Some(3), Some(3)]);
        ages.settle(WHERE.0, &[(WHERE.1, 12)].into_iter().collect());
        assert_eq!(since(&ages, 12), None);
        ages.renewed(NodeId(2), Duration::from_secs(9));
        assert_eq!(since(&ages, 12), Some(9), "a peer that lost its disk lacks it since then");
        assert_eq!(since(&ages, 13), None, "and what has just come, it has lacked for no time");
    }

    #[test]
    fn marks_are_bounded_and_never_too_young() {
        let mut ages = Ages::default();
        for seq in 1..=10_000 {
            note(&mut ages, seq, seq);
        }
        assert!(ages.poles[&WHERE].marks.len() <= MARKS_MAX);
        for seq in 1..=10_000 {
            assert!(since(&ages, seq).unwrap() <= seq);
        }
        assert_eq!((since(&ages, 1), since(&ages, 10_000)), (Some(1), Some(10_000)));
    }
}
