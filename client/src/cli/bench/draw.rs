//! What is drawn: numbers, keys, operations. The same seed draws the same.

use super::args::{Keys, Workload};

/// Skew of YCSB: the most frequent key of 10,000 is about one in ten.
const THETA: f64 = 0.99;

/// Numbers that follow from a seed (SplitMix64: Steele, Lea, Flood 2014).
#[derive(Clone)]
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// 0 to `limit` - 1; `limit` is at least 1.
    pub fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.draw()) * u128::from(limit)) >> 64) as u64
    }

    /// 0 to 1, without 1.
    fn unit(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// One number made of another, so that neighbours have nothing in common.
pub fn mix(number: u64) -> u64 {
    let mut z = number;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Ranks by Zipf's law, 0 the most frequent (Gray et al. 1994, "Quickly Generating Billion-Record Synthetic Databases").
struct Zipf {
    count: u64,
    zeta: f64,
    zeta_two: f64,
}

impl Zipf {
    fn new(count: u64) -> Self {
        let mut zipf = Self { count: 0, zeta: 0.0, zeta_two: 1.0 + 0.5f64.powf(THETA) };
        zipf.grow(count);
        zipf
    }

    fn grow(&mut self, count: u64) {
        for rank in self.count + 1..=count {
            self.zeta += (rank as f64).powf(-THETA);
        }
        self.count = self.count.max(count);
    }

    fn draw(&self, numbers: &mut Numbers) -> u64 {
        let alpha = 1.0 / (1.0 - THETA);
        let eta = (1.0 - (2.0 / self.count as f64).powf(1.0 - THETA)) / (1.0 - self.zeta_two / self.zeta);
        let unit = numbers.unit();
        let scaled = unit * self.zeta;
        if scaled < 1.0 {
            0
        } else if scaled < self.zeta_two {
            1
        } else {
            let rank = self.count as f64 * (eta * unit - eta + 1.0).powf(alpha);
            (rank as u64).min(self.count - 1)
        }
    }
}

enum Chooser {
    Uniform,
    Zipfian(Zipf),
    Latest(Zipf),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Operation {
    Get,
    Put,
    /// A put of a key that was not there.
    Insert,
    /// A get, and a put that supersedes what it showed.
    Modify,
}

impl Operation {
    pub const ALL: [Operation; 4] = [Operation::Get, Operation::Put, Operation::Insert, Operation::Modify];

    pub fn name(self) -> &'static str {
        match self {
            Operation::Get => "get",
            Operation::Put => "put",
            Operation::Insert => "insert",
            Operation::Modify => "modify",
        }
    }
}

/// Draws what to do next, and to which key.
pub struct Draw {
    numbers: Numbers,
    chooser: Chooser,
    workload: Workload,
    /// Keys that are there, or are being inserted.
    records: u64,
}

impl Draw {
    pub fn new(seed: u64, workload: Workload, keys: Keys, records: u64) -> Self {
        let chooser = match keys {
            Keys::Uniform => Chooser::Uniform,
            Keys::Zipfian => Chooser::Zipfian(Zipf::new(records)),
            Keys::Latest => Chooser::Latest(Zipf::new(records)),
        };
        Self { numbers: Numbers::new(mix(seed)), chooser, workload, records }
    }

    pub fn next(&mut self) -> (Operation, u64) {
        let operation = self.operation();
        if operation == Operation::Insert {
            self.records += 1;
            return (operation, self.records - 1);
        }
        (operation, self.key())
    }

    fn operation(&mut self) -> Operation {
        let percent = self.numbers.below(100);
        let or = |get: u64, other| if percent < get { Operation::Get } else { other };
        match self.workload {
            Workload::A => or(50, Operation::Put),
            Workload::B => or(95, Operation::Put),
            Workload::C | Workload::E | Workload::Gets => Operation::Get,
            Workload::D => or(95, Operation::Insert),
            Workload::F => or(50, Operation::Modify),
            Workload::Puts => Operation::Put,
        }
    }

    fn key(&mut self) -> u64 {
        match &mut self.chooser {
            Chooser::Uniform => self.numbers.below(self.records),
            // Spread over all keys, so that frequent ones are not neighbours.
            Chooser::Zipfian(zipf) => mix(zipf.draw(&mut self.numbers)) % self.records,
            Chooser::Latest(zipf) => {
                zipf.grow(self.records);
                self.records - 1 - zipf.draw(&mut self.numbers)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn counts(workload: Workload, keys: Keys) -> (BTreeMap<Operation, u64>, BTreeMap<u64, u64>) {
        let mut draw = Draw::new(7, workload, keys, 1_000);
        let (mut operations, mut chosen) = (BTreeMap::new(), BTreeMap::new());
        for _ in 0..100_000 {
            let (operation, key) = draw.next();
            *operations.entry(operation).or_default() += 1;
            *chosen.entry(key).or_default() += 1;
        }
        assert!(chosen.keys().all(|key| *key < draw.records));
        (operations, chosen)
    }

    #[test]
    fn workloads_mix_as_they_say() {
        let share = |workload, operation| {
            let (operations, _) = counts(workload, Keys::Uniform);
            operations.get(&operation).copied().unwrap_or(0) as f64 / 100_000.0
        };
        for (workload, operation, expected) in [
            (Workload::A, Operation::Put, 0.5),
            (Workload::B, Operation::Put, 0.05),
            (Workload::C, Operation::Get, 1.0),
            (Workload::D, Operation::Insert, 0.05),
            (Workload::F, Operation::Modify, 0.5),
            (Workload::Puts, Operation::Put, 1.0),
        ] {
            assert!((share(workload, operation) - expected).abs() < 0.01, "{workload:?}");
        }
    }

    #[test]
    fn keys_are_as_frequent_as_they_should_be() {
        let (_, uniform) = counts(Workload::Gets, Keys::Uniform);
        assert!(uniform.len() == 1_000 && uniform.values().all(|count| (50..200).contains(count)));
        // Zipf's law over 1,000 keys: the sum of k^-0.99 is 7.73, so the first is 12.9 % of all.
        let (_, zipfian) = counts(Workload::C, Keys::Zipfian);
        let most = zipfian.values().max().copied().unwrap();
        assert!((12_000..14_500).contains(&most), "{most}");
        let (_, latest) = counts(Workload::D, Keys::Latest);
        let new: u64 = latest.range(1_000..).map(|(_, count)| count).sum();
        assert!(new > 80_000, "{new}");
    }

    #[test]
    fn the_same_seed_draws_the_same() {
        let first: Vec<_> = std::iter::repeat_n((), 50)
            .scan(Draw::new(3, Workload::A, Keys::Zipfian, 9), |d, ()| Some(d.next()))
            .collect();
        let again: Vec<_> = std::iter::repeat_n((), 50)
            .scan(Draw::new(3, Workload::A, Keys::Zipfian, 9), |d, ()| Some(d.next()))
            .collect();
        let other: Vec<_> = std::iter::repeat_n((), 50)
            .scan(Draw::new(4, Workload::A, Keys::Zipfian, 9), |d, ()| Some(d.next()))
            .collect();
        assert!(first == again && first != other);
    }
}
