//! The timers that a shard set, by when they fire.

use crate::kernel::Timer;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Times are on the scale of `Now::mono`.
#[derive(Debug, Default)]
pub struct Timers {
    /// When, and in which order they were set among equals.
    heap: BinaryHeap<Reverse<(Duration, u64, Timer)>>,
    armed: u64,
}

impl Timers {
    pub fn arm(&mut self, at: Duration, timer: Timer) {
        self.armed += 1;
        self.heap.push(Reverse((at, self.armed, timer)));
    }

    /// How long until the next one fires; none if none is set.
    pub fn wait(&self, now: Duration) -> Option<Duration> {
        self.heap.peek().map(|Reverse((at, _, _))| at.saturating_sub(now))
    }

    /// Takes off one timer that is due.
    pub fn fire(&mut self, now: Duration) -> Option<Timer> {
        let Reverse((at, _, _)) = self.heap.peek()?;
        if *at > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, _, timer))| timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_fire_when_due_in_the_order_of_their_time() {
        let mut timers = Timers::default();
        let ms = Duration::from_millis;
        timers.arm(ms(20), Timer::Operation(2));
        timers.arm(ms(10), Timer::Operation(1));
        timers.arm(ms(20), Timer::Operation(3));
        assert_eq!(timers.wait(ms(4)), Some(ms(6)));
        assert_eq!(timers.fire(ms(9)), None);
        assert_eq!(timers.fire(ms(10)), Some(Timer::Operation(1)));
        assert_eq!(timers.fire(ms(19)), None);
        assert_eq!(timers.wait(ms(30)), Some(ms(0)));
        assert_eq!(timers.fire(ms(30)), Some(Timer::Operation(2)));
        assert_eq!(timers.fire(ms(30)), Some(Timer::Operation(3)));
        assert_eq!((timers.fire(ms(30)), timers.wait(ms(30))), (None, None));
    }
}
