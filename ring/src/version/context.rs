//! A version vector: of each actor, everything up to a seq.

use super::Dot;
use crate::id::ActorId;
use serde::{Deserialize, Serialize};

/// "Everything of this actor, up to there": what is known of one key, or a base that a whole clock has reached.
///
/// Sound for a key because only owners mint, and an owner holds all it ever minted for the key. Kept as a vector
/// sorted by actor, since it seldom has more than N entries. A seq of 0 is never stored.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(from = "Vec<(ActorId, u64)>")]
pub struct Context(Vec<(ActorId, u64)>);

impl From<Vec<(ActorId, u64)>> for Context {
    /// From outside: sorted again if need be, the greater seq of a repeated actor wins, zeros go.
    fn from(entries: Vec<(ActorId, u64)>) -> Self {
        let in_order = entries.is_sorted_by(|(a, _), (b, _)| a < b) && entries.iter().all(|(_, seq)| *seq > 0);
        if in_order { Self(entries) } else { entries.into_iter().collect() }
    }
}

impl FromIterator<(ActorId, u64)> for Context {
    fn from_iter<I: IntoIterator<Item = (ActorId, u64)>>(entries: I) -> Self {
        let mut entries: Vec<_> = entries.into_iter().filter(|(_, seq)| *seq > 0).collect();
        // The greater seq first, so that `dedup` keeps it.
        entries.sort_unstable_by_key(|&(actor, seq)| (actor, std::cmp::Reverse(seq)));
        entries.dedup_by_key(|(actor, _)| *actor);
        Self(entries)
    }
}

impl Context {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn of(dot: Dot) -> Self {
        std::iter::once((dot.actor(), dot.seq())).collect()
    }

    /// The seq up to which this covers `actor`; 0 for nothing.
    pub fn seq(&self, actor: ActorId) -> u64 {
        self.0.binary_search_by_key(&actor, |(a, _)| *a).map_or(0, |i| self.0[i].1)
    }

    pub fn covers(&self, dot: Dot) -> bool {
        dot.seq() <= self.seq(dot.actor())
    }

    pub fn covers_all(&self, other: &Context) -> bool {
        other.iter().all(|(actor, seq)| seq <= self.seq(actor))
    }

    /// Raises `actor` to at least `seq`.
    pub fn raise(&mut self, actor: ActorId, seq: u64) {
        if seq == 0 {
            return;
        }
        match self.0.binary_search_by_key(&actor, |(a, _)| *a) {
            Ok(i) => self.0[i].1 = self.0[i].1.max(seq),
            Err(i) => self.0.insert(i, (actor, seq)),
        }
    }

    /// The least context that covers both.
    pub fn join(&mut self, other: &Context) {
        for (actor, seq) in other.iter() {
            self.raise(actor, seq);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (ActorId, u64)> + '_ {
        self.0.iter().copied()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_from_outside_are_put_in_order() {
        let (a, b) = (ActorId(1), ActorId(2));
        let context = Context::from(vec![(b, 3), (a, 0), (b, 7), (a, 2)]);
        assert_eq!(context.iter().collect::<Vec<_>>(), vec![(a, 2), (b, 7)]);
        assert!(context.covers(Dot(b, 7)) && !context.covers(Dot(b, 8)));
    }

    #[test]
    fn joining_covers_both() {
        let (a, b) = (ActorId(1), ActorId(2));
        let mut left = Context::from(vec![(a, 5)]);
        let right = Context::from(vec![(a, 3), (b, 4)]);
        left.join(&right);
        assert!(left.covers_all(&right) && left.seq(a) == 5 && left.seq(b) == 4);
        assert!(!right.covers_all(&left));
    }
}
