//! The replica clock: the set of dots that a replica of a partition has seen. One mechanism for lag, repair and deletion
//! (see ARCHITECTURE.md, "How replicas come together again").

use super::{Context, Dot};
use crate::id::ActorId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The seqs seen of one actor: all up to `base`, and runs beyond it.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(from = "(u64, Vec<(u64, u64)>)", into = "(u64, Vec<(u64, u64)>)")]
pub struct SeqSet {
    base: u64,
    /// Inclusive runs, in order, apart from each other and from the base by at least one missing seq.
    runs: Vec<(u64, u64)>,
}

impl From<(u64, Vec<(u64, u64)>)> for SeqSet {
    fn from((base, runs): (u64, Vec<(u64, u64)>)) -> Self {
        let mut set = Self { base, runs: Vec::new() };
        for (first, last) in runs {
            set.insert_run(first, last);
        }
        set
    }
}

impl From<SeqSet> for (u64, Vec<(u64, u64)>) {
    fn from(set: SeqSet) -> Self {
        (set.base, set.runs)
    }
}

impl SeqSet {
    /// The seq up to which nothing is missing.
    pub fn base(&self) -> u64 {
        self.base
    }

    pub fn max(&self) -> u64 {
        self.runs.last().map_or(self.base, |(_, last)| *last)
    }

    pub fn contains(&self, seq: u64) -> bool {
        if seq <= self.base {
            return seq > 0;
        }
        let after = self.runs.partition_point(|(first, _)| *first <= seq);
        after > 0 && seq <= self.runs[after - 1].1
    }

    /// How many seqs it holds.
    pub fn count(&self) -> u64 {
        self.base + self.runs.iter().map(|(first, last)| last - first + 1).sum::<u64>()
    }

    pub fn insert(&mut self, seq: u64) {
        if seq.checked_sub(1) == Some(self.base) && self.runs.is_empty() {
            self.base = seq; // The common case: writes arrive in order.
        } else if seq > 0 {
            self.insert_run(seq, seq);
        }
    }

    /// Adds all of `first..=last`. A run that is turned around holds nothing.
    pub fn insert_run(&mut self, first: u64, last: u64) {
        if last < first || last <= self.base {
            return;
        }
        let first = first.max(self.base + 1);
        // The runs that touch first..=last become one with it.
        let from = self.runs.partition_point(|(_, end)| end.saturating_add(1) < first);
        let to = self.runs.partition_point(|(start, _)| *start <= last.saturating_add(1));
        let mut run = (first, last);
        if from < to {
            run = (first.min(self.runs[from].0), last.max(self.runs[to - 1].1));
        }
        self.runs.splice(from..to, [run]);
        if self.runs[0].0 == self.base + 1 {
            self.base = self.runs.remove(0).1;
        }
    }

    pub fn union(&mut self, other: &SeqSet) {
        self.insert_run(1, other.base);
        for (first, last) in &other.runs {
            self.insert_run(*first, *last);
        }
    }

    /// The runs of `self` that `other` lacks, in order.
    pub fn missing_in(&self, other: &SeqSet) -> Vec<(u64, u64)> {
        let mut missing = Vec::new();
        let mut theirs = other.all_runs().peekable();
        for (first, last) in self.all_runs() {
            // What is not accounted for yet; nothing, if a run of theirs reaches the greatest seq there is.
            let mut next = Some(first);
            while let (Some(from), Some(&(start, end))) = (next, theirs.peek()) {
                if start > last {
                    break;
                }
                if end >= from {
                    if from < start {
                        missing.push((from, start - 1));
                    }
                    next = end.checked_add(1);
                }
                if end > last {
                    break; // It may cover a part of the next run of ours as well.
                }
                theirs.next();
            }
            if let Some(from) = next.filter(|from| *from <= last) {
                missing.push((from, last));
            }
        }
        missing
    }

    /// Every run, the base first.
    pub fn all_runs(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let base = (self.base > 0).then_some((1, self.base));
        base.into_iter().chain(self.runs.iter().copied())
    }
}

/// The dots that a replica has seen, per actor.
///
/// C1: a dot in a replica's durable clock means that its durable state for the dot's key holds the dot's value, or a
/// state that causally supersedes it.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Clock(BTreeMap<ActorId, SeqSet>);

impl Clock {
    pub fn new() -> Self {
        Self::default()
    }

    /// A clock that has seen everything a base covers.
    pub fn from_base(base: &Context) -> Self {
        Self(base.iter().map(|(actor, seq)| (actor, SeqSet { base: seq, runs: Vec::new() })).collect())
    }

    pub fn contains(&self, dot: Dot) -> bool {
        self.0.get(&dot.actor()).is_some_and(|seqs| seqs.contains(dot.seq()))
    }

    pub fn insert(&mut self, dot: Dot) {
        self.0.entry(dot.actor()).or_default().insert(dot.seq());
    }

    pub fn union(&mut self, other: &Clock) {
        for (actor, seqs) in &other.0 {
            self.union_actor(*actor, seqs);
        }
    }

    pub fn union_actor(&mut self, actor: ActorId, seqs: &SeqSet) {
        self.0.entry(actor).or_default().union(seqs);
    }

    pub fn seqs(&self, actor: ActorId) -> Option<&SeqSet> {
        self.0.get(&actor)
    }

    /// The greatest seq seen of an actor; 0 for none.
    pub fn max(&self, actor: ActorId) -> u64 {
        self.0.get(&actor).map_or(0, SeqSet::max)
    }

    /// Per actor, the seq up to which nothing is missing.
    pub fn base(&self) -> Context {
        self.0.iter().map(|(actor, seqs)| (*actor, seqs.base())).collect()
    }

    pub fn iter(&self) -> impl Iterator<Item = (ActorId, &SeqSet)> {
        self.0.iter().map(|(actor, seqs)| (*actor, seqs))
    }

    /// The runs of dots in `self` that `other` lacks: what a replica with clock `other` has yet to be told.
    pub fn missing_in(&self, other: &Clock) -> Vec<(ActorId, u64, u64)> {
        let none = SeqSet::default();
        let mut missing = Vec::new();
        for (actor, seqs) in &self.0 {
            let theirs = other.0.get(actor).unwrap_or(&none);
            missing.extend(seqs.missing_in(theirs).into_iter().map(|(first, last)| (*actor, first, last)));
        }
        missing
    }

    /// Lag: how many dots of `self` are missing in `other`. Exact.
    pub fn lag(&self, other: &Clock) -> u64 {
        // Clocks of peers come from outside: no sum of theirs overflows.
        self.missing_in(other).iter().fold(0, |sum: u64, (_, first, last)| sum.saturating_add(last - first + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn naive(set: &SeqSet, limit: u64) -> BTreeSet<u64> {
        (1..=limit).filter(|s| set.contains(*s)).collect()
    }

    proptest! {
        /// The clever set against a set of integers.
        #[test]
        fn seq_set_is_a_set(runs in prop::collection::vec((0u64..60, 0u64..8), 0..30),
                            others in prop::collection::vec((0u64..60, 0u64..8), 0..30)) {
            let build = |runs: &[(u64, u64)]| {
                let (mut set, mut twin) = (SeqSet::default(), BTreeSet::new());
                for (first, length) in runs {
                    if *length == 0 { set.insert(*first) } else { set.insert_run(*first, first + length) }
                    twin.extend((*first..=first + length).filter(|s| *s > 0));
                }
                (set, twin)
            };
            let ((mine, my_twin), (theirs, their_twin)) = (build(&runs), build(&others));
            prop_assert_eq!(&naive(&mine, 80), &my_twin);
            prop_assert_eq!(mine.count(), my_twin.len() as u64);
            prop_assert_eq!(mine.max(), my_twin.last().copied().unwrap_or(0));
            let base = (1..).take_while(|s| my_twin.contains(s)).last().unwrap_or(0);
            prop_assert_eq!(mine.base(), base);
            let missing: BTreeSet<u64> = mine.missing_in(&theirs).iter().flat_map(|(a, b)| *a..=*b).collect();
            prop_assert_eq!(missing, my_twin.difference(&their_twin).copied().collect::<BTreeSet<_>>());
            let mut both = mine.clone();
            both.union(&theirs);
            prop_assert_eq!(naive(&both, 80), my_twin.union(&their_twin).copied().collect::<BTreeSet<_>>());
            let again = SeqSet::from(<(u64, Vec<(u64, u64)>)>::from(both.clone()));
            prop_assert_eq!(again, both);
        }
    }

    #[test]
    fn the_greatest_seq_does_not_overflow() {
        let mut set = SeqSet::default();
        set.insert_run(u64::MAX - 1, u64::MAX);
        set.insert(u64::MAX);
        assert!(set.contains(u64::MAX) && set.count() == 2);
        set.insert_run(1, u64::MAX);
        set.insert(u64::MAX);
        assert_eq!((set.base(), set.count()), (u64::MAX, u64::MAX));
        let mut clock = Clock::new();
        clock.union_actor(ActorId(1), &set);
        clock.union_actor(ActorId(2), &set);
        assert_eq!(clock.lag(&Clock::new()), u64::MAX);
        assert_eq!(clock.lag(&clock), 0);
    }
}
