//! When repair has its turn at a shard: client latency comes first.
//!
//! While clients want something of a shard, repair gets a share of its time: after each turn, which is short, it rests
//! for so many times as long as the turn took, commit and all. So it is slow by itself where the disk or the machine is
//! slow or busy, and nobody has to know how much they can do. It is as if on a narrow bridge lorries waited, after each
//! that has crossed, until nine times as many cars had the time to cross.

use std::time::{Duration, Instant};

/// A shard of which clients wanted nothing for this long is left to repair.
const CLIENTS_GONE_AFTER: Duration = Duration::from_secs(1);
/// However long a turn took: pages and handoffs that wait any longer would be asked for again.
const REST_MAX: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Turns {
    /// 1 to 100.
    share_percent: u8,
    /// When clients last wanted something.
    clients: Option<Instant>,
    /// Since when a turn of repair is under way.
    began: Option<Instant>,
    rests_until: Option<Instant>,
}

impl Turns {
    pub fn new(share_percent: u8) -> Self {
        Self { share_percent: share_percent.clamp(1, 100), clients: None, began: None, rests_until: None }
    }

    /// Clients wanted something.
    pub fn clients_came(&mut self, now: Instant) {
        self.clients = Some(now);
    }

    /// A batch is about to be handled, with work of clients in it, or of repair, or of both.
    pub fn begin(&mut self, now: Instant, clients: bool, repair: bool) {
        if clients {
            self.clients_came(now);
        }
        self.began = repair.then_some(now);
    }

    /// It was handled, and what it changed is committed.
    pub fn end(&mut self, now: Instant) {
        let Some(began) = self.began.take() else { return };
        let times = u32::from(100 - self.share_percent);
        let rest = (now - began) * times / u32::from(self.share_percent);
        self.rests_until = Some(now + rest.min(REST_MAX));
    }

    /// How long repair has to wait for its next turn.
    pub fn rest(&self, now: Instant) -> Duration {
        let until = self.rests_until.filter(|_| self.clients_about(now));
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// Whether clients wanted something of late.
    pub fn clients_about(&self, now: Instant) -> bool {
        self.clients.is_some_and(|seen| now.saturating_duration_since(seen) < CLIENTS_GONE_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Repairs for ten seconds, each turn so long, with clients every so often. Returns the part of the time it had.
    fn share(turns: &mut Turns, turn: Duration, clients_every: Option<Duration>) -> f64 {
        let began = Instant::now();
        let (mut now, mut spent, mut asked) = (began, Duration::ZERO, began);
        while now - began < Duration::from_secs(10) {
            let clients = clients_every.is_some_and(|every| now >= asked + every);
            asked = if clients { now } else { asked };
            let repair = turns.rest(now).is_zero();
            turns.begin(now, clients, repair);
            now += if repair { turn } else { Duration::from_micros(100) };
            spent += if repair { turn } else { Duration::ZERO };
            turns.end(now);
        }
        spent.as_secs_f64() / (now - began).as_secs_f64()
    }

    #[test]
    fn while_there_are_clients_repair_has_its_share_however_long_a_turn_takes() {
        for ms in [1, 5, 50] {
            let had = share(&mut Turns::new(10), Duration::from_millis(ms), Some(Duration::from_millis(10)));
            assert!((0.08..0.12).contains(&had), "turns of {ms} ms had {had} of the time");
        }
        let all = share(&mut Turns::new(100), Duration::from_millis(5), Some(Duration::from_millis(10)));
        assert!(all > 0.99, "a share of 100 is no limit: {all}");
    }

    #[test]
    fn without_clients_repair_need_not_rest() {
        assert!(share(&mut Turns::new(10), Duration::from_millis(5), None) > 0.99);
    }

    #[test]
    fn a_turn_that_hung_does_not_stop_repair_for_long() {
        let mut turns = Turns::new(1);
        let now = Instant::now();
        turns.begin(now, true, true);
        turns.end(now + Duration::from_millis(500));
        assert_eq!(turns.rest(now + Duration::from_millis(500)), REST_MAX);
    }
}
