//! What happens next: by virtual time, and among things of the same moment in a seeded order.

use super::rng::Rng;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Its place in the order: the moment, a seeded tie-break, the number of the entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Rank(u64, u32, u64);

struct Entry<T> {
    rank: Reverse<Rank>,
    item: T,
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.rank == other.rank
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank.cmp(&other.rank)
    }
}

pub struct Heap<T> {
    entries: BinaryHeap<Entry<T>>,
    ties: Rng,
    number: u64,
}

impl<T> Heap<T> {
    pub fn new(ties: Rng) -> Self {
        Self { entries: BinaryHeap::new(), ties, number: 0 }
    }

    pub fn push(&mut self, at_us: u64, item: T) {
        self.number += 1;
        let rank = Rank(at_us, (self.ties.word() >> 32) as u32, self.number);
        self.entries.push(Entry { rank: Reverse(rank), item });
    }

    /// The next moment, and what happens then.
    pub fn pop(&mut self) -> Option<(u64, T)> {
        self.entries.pop().map(|entry| (entry.rank.0.0, entry.item))
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_out_in_the_order_of_time() {
        let mut heap = Heap::new(Rng::new(1, 1));
        for at in [5, 1, 3, 1, 9] {
            heap.push(at, at);
        }
        let order: Vec<u64> = std::iter::from_fn(|| heap.pop()).map(|(_, item)| item).collect();
        assert_eq!(order, [1, 1, 3, 5, 9]);
    }
}
