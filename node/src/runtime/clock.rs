//! The clock of the machine, as the kernel is told of it.

use crate::kernel::Now;
use std::cell::Cell;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The wall clock is told in milliseconds, and read no more often.
const WALL_EVERY: Duration = Duration::from_millis(1);

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

/// The clock for one who asks for each event: up to `WALL_EVERY` behind the wall clock.
#[derive(Debug)]
pub struct FrequentClock {
    clock: Clock,
    /// The wall clock, and when it was read.
    last: Cell<Now>,
}

impl FrequentClock {
    pub fn new(clock: Clock) -> Self {
        Self { clock, last: Cell::new(clock.now()) }
    }

    pub fn mono(&self) -> Duration {
        self.clock.mono()
    }

    pub fn now(&self) -> Now {
        let (mono, last) = (self.mono(), self.last.get());
        if mono.saturating_sub(last.mono) >= WALL_EVERY {
            self.last.set(Now { mono, wall_ms: wall_ms() });
        }
        Now { mono, ..self.last.get() }
    }
}

/// Milliseconds since 1970; 0 on a machine whose clock stands before that.
pub fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wall_clock_is_read_again_once_it_may_have_gone_on() {
        let clock = FrequentClock::new(Clock::start());
        let first = clock.now();
        clock.last.set(Now { wall_ms: 7, ..first });
        while clock.mono() < first.mono + WALL_EVERY / 2 {
            std::thread::yield_now();
        }
        let soon = clock.now();
        assert!(soon.mono > first.mono && (soon.wall_ms == 7 || soon.mono >= first.mono + WALL_EVERY));
        std::thread::sleep(WALL_EVERY);
        assert!(clock.now().wall_ms >= first.wall_ms);
    }
}
