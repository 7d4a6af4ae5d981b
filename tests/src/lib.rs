//! Tests over the whole of Quorate.
//!
//! - [`sim`]: a world in a seed: the kernels of several nodes under virtual time, with faults.
//! - [`watched`]: a cluster of real processes with a real Prometheus beside it.
//! - [`checks`]: the promises, and what it takes to catch the store breaking them.

pub mod checks;
pub mod sim;
pub mod watched;
