//! How often and how soon to try again: never so often that retries make an overload worse.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A retry costs ten times what a request earns: retries stay near 10% of the traffic.
const RETRY_COST: u64 = 10;
const REQUEST_EARNS: u64 = 1;
/// Retries that may be made at once, so that what is under way when a node dies can go to another.
const BURST: u64 = 128;

const BACKOFF_BASE: Duration = Duration::from_millis(25);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// A token bucket, shared by all requests of a client.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    tokens: AtomicU64,
}

impl RetryBudget {
    pub fn new() -> Self {
        Self { tokens: AtomicU64::new(BURST * RETRY_COST) }
    }

    /// A request is made for the first time.
    pub fn earn(&self) {
        let more = |tokens: u64| Some((tokens + REQUEST_EARNS).min(BURST * RETRY_COST));
        // The closure always gives a value, so this cannot fail.
        let _ = self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Whether one more retry may be made; if so, it is paid for.
    pub fn spend(&self) -> bool {
        let less = |tokens: u64| tokens.checked_sub(RETRY_COST);
        self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

/// How long to wait before retry number `attempt` (from 0): full jitter (Brooker 2015, "Exponential Backoff And
/// Jitter"), anything up to a limit that doubles each time.
pub(crate) fn backoff(attempt: u32, random: u64) -> Duration {
    let limit = BACKOFF_BASE.saturating_mul(1 << attempt.min(16)).min(BACKOFF_MAX);
    fraction(limit, random)
}

/// Somewhere between nothing and `limit`.
pub(crate) fn fraction(limit: Duration, random: u64) -> Duration {
    let micros = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX - 1);
    Duration::from_micros(random % (micros + 1))
}

/// Entropy of the operating system.
pub(crate) fn random() -> u64 {
    getrandom::u64().expect("the operating system gives random numbers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_stay_near_a_tenth_once_the_burst_is_spent() {
        let budget = RetryBudget::new();
        let burst = (0..1_000).filter(|_| budget.spend()).count();
        assert_eq!(burst as u64, BURST);
        let mut retries = 0;
        for _ in 0..10_000 {
            budget.earn();
            retries += u32::from(budget.spend());
        }
        assert_eq!(retries, 1_000);
    }

    #[test]
    fn a_full_bucket_does_not_overflow() {
        let budget = RetryBudget::new();
        for _ in 0..5_000 {
            budget.earn();
        }
        assert_eq!((0..1_000).filter(|_| budget.spend()).count() as u64, BURST);
    }

    #[test]
    fn back_off_doubles_up_to_a_limit_with_full_jitter() {
        for (attempt, limit_ms) in [(0, 25), (1, 50), (3, 200), (10, 1_000), (40, 1_000)] {
            let waits: Vec<_> = (0..200).map(|i| backoff(attempt, i * 7_919_777)).collect();
            assert!(waits.iter().all(|w| *w <= Duration::from_millis(limit_ms)), "{attempt}");
            assert!(waits.iter().any(|w| *w < Duration::from_millis(limit_ms / 4)), "{attempt}");
            assert!(waits.iter().any(|w| *w > Duration::from_millis(limit_ms * 3 / 4)), "{attempt}");
        }
    }
}
