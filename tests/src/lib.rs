//! Tests over the whole of Quorate.
//!
//! - [`sim`]: a world in a seed: the kernels of several nodes under virtual time, with faults.
//! - [`checks`]: the promises, and what it takes to catch the store breaking them.

pub mod checks;
pub mod sim;
