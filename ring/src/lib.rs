//! What two Quorate processes must agree on, byte for byte.
//!
//! - [`id`]: the names of things.
//! - [`topology`]: the cluster as a document, parsed once into a validated type.
//! - [`placement`]: which nodes own a key.
//! - [`version`]: dots, contexts, clocks, objects, and how they unite.
//! - [`wire`]: frames and messages, of clients and of peers.
//!
//! Not inside: I/O, clocks, randomness, threads. The same input gives the same output on every machine.

pub mod id;
pub mod placement;
pub mod topology;
pub mod version;
pub mod wire;
