//! Wakes a task that waits for something else, too.
//!
//! To set a timer of tokio's before each wait, and take it off behind it, costs more than the wait: the timer is the next one of
//! all, so that the thread is woken by a system call to look at it, and then waits anew. An alarm that is set already
//! stays set.

use std::pin::Pin;
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

pub struct Alarm(Pin<Box<Sleep>>);

impl Default for Alarm {
    fn default() -> Self {
        Self(Box::pin(sleep(Duration::MAX)))
    }
}

impl Alarm {
    /// Waits for so long, or less: at most once for each time that it was set to before, and not waited for to the end.
    pub async fn wait(&mut self, most: Duration) {
        let at = Instant::now() + most;
        if self.0.is_elapsed() || at < self.0.deadline() {
            self.0.as_mut().reset(at);
        }
        self.0.as_mut().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    const MS: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn an_alarm_is_never_late_and_early_only_where_it_was_set_before() {
        let mut alarm = Alarm::default();
        let began = Instant::now();
        alarm.wait(5 * MS).await;
        assert!(began.elapsed() >= 5 * MS);
        assert!(timeout(MS, alarm.wait(LONG)).await.is_err());
        // Sooner than it was set to: at its time, and not in an hour.
        let began = Instant::now();
        alarm.wait(5 * MS).await;
        assert!(began.elapsed() >= 5 * MS);
        // Later than it was set to: once when that time comes, and from then on when it is due.
        tokio::select! {
            biased;
            () = alarm.wait(200 * MS) => panic!("it was set a moment ago"),
            () = std::future::ready(()) => {}
        }
        alarm.wait(LONG).await;
        assert!(timeout(5 * MS, alarm.wait(LONG)).await.is_err());
    }
}
