//! A Quorate node.
//!
//! - [`kernel`]: the state machine of a shard; it decides purely, and knows no clock, socket or thread.
//! - [`storage`]: where replica state lies, in RocksDB or in memory.
//! - `runtime`: the only room that knows tokio, quinn, threads and the clock of the machine.

pub mod kernel;
pub mod storage;
