//! How fast repair may move bytes, so that client latency comes first.

use std::time::Duration;

/// A bucket that fills steadily, up to half a second's worth. It may be overdrawn by what is under way, and is then
/// closed until that is made good.
#[derive(Debug)]
pub(super) struct Pace {
    /// 0: as fast as it goes.
    bytes_per_second: u64,
    left: i64,
    filled: Duration,
}

impl Pace {
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, left: 0, filled: Duration::ZERO }
    }

    /// Whether more may be moved now.
    pub(super) fn allows(&mut self, now: Duration) -> bool {
        if self.bytes_per_second == 0 {
            return true;
        }
        let micros = now.saturating_sub(self.filled).as_micros();
        let fresh = micros.saturating_mul(u128::from(self.bytes_per_second)) / 1_000_000;
        if fresh > 0 {
            self.filled = now;
            let most = i64::try_from(self.bytes_per_second / 2).unwrap_or(i64::MAX).max(1);
            self.left = self.left.saturating_add(i64::try_from(fresh).unwrap_or(i64::MAX)).min(most);
        }
        self.left > 0
    }

    pub(super) fn spend(&mut self, bytes: usize) {
        if self.bytes_per_second > 0 {
            self.left = self.left.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_a_while_as_many_bytes_pass_as_are_allowed() {
        let (page, rate) = (70_000, 1_000_000);
        let mut pace = Pace::new(rate);
        let mut moved = 0;
        for ms in (0..20_000).step_by(250) {
            while pace.allows(Duration::from_millis(ms)) {
                pace.spend(page);
                moved += page as u64;
            }
        }
        assert!((19 * rate..=21 * rate).contains(&moved), "{moved} bytes in 20 s at {rate} a second");
    }

    #[test]
    fn a_long_rest_saves_up_half_a_second_and_no_limit_is_none() {
        let mut pace = Pace::new(1_000);
        assert!(pace.allows(Duration::from_secs(3_600)));
        pace.spend(501);
        assert!(!pace.allows(Duration::from_secs(3_600)));
        let mut free = Pace::new(0);
        free.spend(usize::MAX);
        assert!(free.allows(Duration::ZERO));
    }
}
