//! Puts and gets through three kernels over memory, for `ops/instructions` to count.

use clap::{Parser, ValueEnum};
use quorate_tests::cost::Kernels;

/// Keys that exist before.
const KEYS: u64 = 1_000;

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// Puts of keys that exist.
    Puts,
    Gets,
}

/// Puts or gets through three kernels over memory, in one thread.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    kind: Kind,
    /// How many.
    count: u64,
}

fn main() {
    let Arguments { kind, count } = Arguments::parse();
    let mut kernels = Kernels::default();
    (0..KEYS).for_each(|number| kernels.put(number));
    for number in (0..count).map(|number| number % KEYS) {
        match kind {
            Kind::Puts => kernels.put(number),
            Kind::Gets => kernels.get(number),
        }
    }
}
