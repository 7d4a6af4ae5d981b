//! The clock of the machine, as the kernel is told of it.

use crate::kernel::Now;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Counts from the start of the node. All threads of a node share one.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Since the start; never goes back.
    pub fn mono(&self) -> Duration {
        self.start.elapsed()
    }

    pub fn now(&self) -> Now {
        Now { mono: self.mono(), wall_ms: wall_ms() }
    }
}

/// Milliseconds since 1970; 0 on a machine whose clock stands before that.
pub fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
