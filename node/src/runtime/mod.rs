//! The only room that knows tokio, quinn, threads, locks and the clock of the machine.
//!
//! A request walks: `endpoint` (QUIC, with every limit set) -> `door` (how many may come in) -> `tls` (who they are)
//! -> `clients` or `peers` (frames to messages, by `lane`) -> `router` (which shard) -> `inbox` (bounded) -> `driver`
//! (the shard's thread: handle, commit once, release) -> `switchboard` (which lane) -> `lane` (written together).
//!
//! `node` starts and ends all of it; `admin` shows it. Not inside: any decision about data.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the clock, threads and maps without order belong here, and only here"
)]

pub mod admin;
mod alarm;
mod clients;
pub mod clock;
mod close;
mod door;
mod driver;
mod endpoint;
mod inbox;
mod lane;
pub mod machine;
pub mod node;
mod peers;
mod plane;
mod router;
mod status;
mod switchboard;
mod timed;
mod timers;
pub mod tls;
mod trail;
mod turns;

pub use clients::CLIENT_FRAME_BYTES_MAX;
pub use close::CloseCode;
