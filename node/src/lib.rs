//! A Quorate node.
//!
//! - [`kernel`]: the state machine of a shard; it decides purely, and knows no clock, socket or thread.
//! - [`coordinator`]: whom to ask, when it is enough, what to answer.
//! - [`replica`]: one copy of a partition: its clock, its log, mint and merge.
//! - [`anti_entropy`]: pull, full sync, and the collection of what is settled.
//! - [`liveness`]: which peers can be reached, judged link by link.
//! - [`identity`]: whether a data folder may go on under its actor.
//! - [`storage`]: where replica state lies, in RocksDB or in memory.
//! - [`config`], [`metrics`]: what a node is told, and what it shows.
//! - [`planted`]: bugs on purpose, for the simulation; compiled to nothing.
//! - [`runtime`]: the only room that knows tokio, quinn, threads and the clock of the machine.

pub mod anti_entropy;
pub mod config;
pub mod coordinator;
pub mod identity;
pub mod kernel;
pub mod liveness;
pub mod memory;
pub mod metrics;
pub mod planted;
pub mod replica;
pub mod runtime;
pub mod storage;
mod sync_row;
