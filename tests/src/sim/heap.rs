//! What happens next: by virtual time, and among things of the same moment in a seeded order.

use super::rng::Rng;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A place in the order: the moment, a seeded tie-break, the number of the entry. And where its item lies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Rank {
    at_us: u64,
    tie: u32,
    number: u32,
    slot: u32,
}

/// Items stay where they are; what the heap moves about is small.
pub struct Heap<T> {
    ranks: BinaryHeap<Reverse<Rank>>,
    items: Vec<Option<T>>,
    /// Slots without an item.
    free: Vec<u32>,
    ties: Rng,
    number: u32,
}

impl<T> Heap<T> {
    pub fn new(ties: Rng) -> Self {
        Self { ranks: BinaryHeap::new(), items: Vec::new(), free: Vec::new(), ties, number: 0 }
    }

    pub fn push(&mut self, at_us: u64, item: T) {
        self.number += 1;
        let slot = self.free.pop().unwrap_or(self.items.len() as u32);
        match self.items.get_mut(slot as usize) {
            Some(place) => *place = Some(item),
            None => self.items.push(Some(item)),
        }
        let tie = (self.ties.word() >> 32) as u32;
        self.ranks.push(Reverse(Rank { at_us, tie, number: self.number, slot }));
    }

    /// The next moment, and what happens then.
    pub fn pop(&mut self) -> Option<(u64, T)> {
        let Reverse(rank) = self.ranks.pop()?;
        self.free.push(rank.slot);
        let item = self.items[rank.slot as usize].take().expect("a rank leads to an item until it is popped");
        Some((rank.at_us, item))
    }

    pub fn len(&self) -> usize {
        self.ranks.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ranks.is_empty()
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
