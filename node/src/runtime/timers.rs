//! The timers that a shard set, by when they fire.

use crate::kernel::Timer;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

const NANOS_PER_MS: u128 = 1_000_000;

/// Times are on the scale of `Now::mono`. A timer fires up to a millisecond late: almost every request sets one, and those of
/// one millisecond are kept together.
#[derive(Debug, Default)]
pub struct Timers {
    /// By the millisecond in which they fire, in the order in which they were set; none is empty.
    by_ms: BTreeMap<u64, VecDeque<Timer>>,
}

impl Timers {
    pub fn arm(&mut self, at: Duration, timer: Timer) {
        let ms = at.as_nanos().div_ceil(NANOS_PER_MS) as u64;
        self.by_ms.entry(ms).or_default().push_back(timer);
    }

    /// How long until the next one fires; none if none is set.
    pub fn wait(&self, now: Duration) -> Option<Duration> {
        self.by_ms.keys().next().map(|ms| Duration::from_millis(*ms).saturating_sub(now))
    }

    /// Takes off one timer that is due.
    pub fn fire(&mut self, now: Duration) -> Option<Timer> {
        let mut first = self.by_ms.first_entry().filter(|first| Duration::from_millis(*first.key()) <= now)?;
        let timer = first.get_mut().pop_front();
        if first.get().is_empty() {
            first.remove();
        }
        timer
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
        timers.arm(ms(40) + Duration::from_nanos(1), Timer::Tick);
        assert_eq!((timers.fire(ms(40)), timers.fire(ms(41))), (None, Some(Timer::Tick)));
    }
}
