//! Tests over the whole of Quorate.
//!
//! - [`sim`]: a world in a seed: the kernels of several nodes under virtual time, with faults.
//! - [`cost`]: the work of a put and a get inside the kernels, always the same, for benchmarks that count instructions.
//! - [`floor`]: the work that a put and a get cannot do without, to measure the store against.
//! - [`watched`]: a cluster of real processes with a real Prometheus beside it.
//! - [`checks`]: the promises, and what it takes to catch the store breaking them.

pub mod checks;
pub mod cost;
pub mod floor;
pub mod sim;
pub mod watched;
