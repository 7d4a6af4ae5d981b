//! The shard kernel: one single-threaded state machine that decides; whoever drives it acts.

mod event;

pub use event::{Effect, Event, Measure, Now, Outcome, RequestId, SessionId, Timer, weight};
