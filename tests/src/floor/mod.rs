//! The floor: the work that a put and a get cannot do without, and nothing else.
//!
//! The same crates, sizes, durability and processes as the store: three nodes and a client. Who asks has a QUIC connection
//! to whom it asks, so two nodes have two, with one stream on each, TLS on both sides. A put is a frame to one node, an
//! object and a log entry in a batch of its RocksDB that is fsynced, frames to both others, the same there, an ack from
//! each, and the answer at the first of these. A get reads RocksDB at one node and at one other. No messages are encoded or
//! decoded, nothing is versioned, merged, checked, retried or counted: frames and rows are filled up to the lengths that the
//! store's have.
//!
//! One thread a process: frames that have arrived are handled together, their rows committed in one batch, the answers
//! to one side written in one go.

pub mod client;
mod disk;
pub mod node;
mod quic;
mod sizes;
mod stream;

pub use client::{Figures, Load, Processor, Work};
pub use quic::Credentials;
pub use sizes::Sizes;

/// Nodes, each of which holds every key.
pub const NODES: usize = 3;
