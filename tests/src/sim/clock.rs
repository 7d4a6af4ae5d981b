//! A node's clock: it drifts, it is set, and it is not the world's.

use quorate_node::kernel::Now;
use quorate_ring::id::NodeId;
use std::time::Duration;

/// Wall time at the beginning of the world: 2023-11-14, in milliseconds since 1970.
pub const EPOCH_MS: u64 = 1_700_000_000_000;

#[derive(Clone, Debug)]
pub struct NodeClock {
    /// Parts per million by which it runs fast (negative: slow).
    drift_ppm: i64,
    /// Milliseconds by which its wall clock is ahead (negative: behind), beside the drift.
    skew_ms: i64,
    /// What the monotonic clock showed at the beginning of the world.
    mono_offset_us: u64,
}

impl NodeClock {
    pub fn new(drift_ppm: i64, skew_ms: i64, mono_offset_us: u64) -> Self {
        Self { drift_ppm, skew_ms, mono_offset_us }
    }

    pub fn now(&self, world_us: u64) -> Now {
        let run = self.scaled(world_us);
        let wall = EPOCH_MS as i64 + (run / 1_000) as i64 + self.skew_ms;
        Now { mono: Duration::from_micros(self.mono_offset_us + run), wall_ms: wall.max(0) as u64 }
    }

    /// How long the world has to wait until this much has passed here; never too short.
    pub fn world_us(&self, after: Duration) -> u64 {
        let (us, speed) = (after.as_micros() as u64, (1_000_000 + self.drift_ppm) as u64);
        (us * 1_000_000).div_ceil(speed) + 2
    }

    /// Somebody sets the wall clock.
    pub fn step(&mut self, by_ms: i64) {
        self.skew_ms += by_ms;
    }

    /// Somebody sets it right.
    pub fn set_right(&mut self, world_us: u64) {
        self.skew_ms = world_us as i64 / 1_000 - (self.scaled(world_us) / 1_000) as i64;
    }

    fn scaled(&self, world_us: u64) -> u64 {
        let us = world_us as i64;
        (us + us * self.drift_ppm / 1_000_000) as u64
    }
}

/// The latest that the wall clock of each node has shown.
pub struct Walls {
    latest_ms: Vec<u64>,
    drift_max_ms: u64,
}

impl Walls {
    pub fn new(nodes: usize, drift_max_ms: u64) -> Self {
        Self { latest_ms: vec![0; nodes], drift_max_ms }
    }

    pub fn show(&mut self, node: usize, wall_ms: u64) {
        let latest = &mut self.latest_ms[node];
        *latest = wall_ms.max(*latest);
    }

    /// Content that expired at this time or before may have been erased: the clocks of all owners have passed it, and
    /// one of them, that of whoever erases it, by as much as clocks are allowed to be apart.
    pub fn erasable_ms(&self, owners: &[NodeId]) -> u64 {
        let latest = || owners.iter().map(|owner| self.latest_ms[usize::from(owner.0) - 1]);
        let ahead = latest().max().unwrap_or(0).saturating_sub(self.drift_max_ms);
        latest().min().unwrap_or(0).min(ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_clock_that_jumps_ahead_lets_nothing_be_erased() {
        let mut walls = Walls::new(3, 100);
        let owners = [NodeId(1), NodeId(3)];
        (0..3).for_each(|node| walls.show(node, 1_000));
        walls.show(0, 9_000);
        assert_eq!(walls.erasable_ms(&owners), 1_000);
        walls.show(2, 2_000);
        walls.show(2, 500);
        assert_eq!(walls.erasable_ms(&owners), 2_000);
        assert_eq!(walls.erasable_ms(&owners[1..]), 1_900);
    }

    #[test]
    fn a_timer_is_never_early() {
        for drift in [-50_000, -200, 0, 200, 50_000] {
            let clock = NodeClock::new(drift, 0, 7);
            for after in [1, 999, 1_000, 123_456, 60_000_000] {
                let after = Duration::from_micros(after);
                let begin = clock.now(5_000_000).mono;
                let end = clock.now(5_000_000 + clock.world_us(after)).mono;
                assert!(end - begin >= after, "{drift}: {:?} of {after:?}", end - begin);
            }
        }
    }

    #[test]
    fn a_step_moves_the_wall_and_not_the_monotonic_clock() {
        let mut clock = NodeClock::new(0, 10, 0);
        let before = clock.now(1_000_000);
        clock.step(-5_000);
        let after = clock.now(1_000_000);
        assert_eq!(after.mono, before.mono);
        assert_eq!(before.wall_ms - after.wall_ms, 5_000);
        clock.set_right(1_000_000);
        assert_eq!(clock.now(1_000_000).wall_ms, EPOCH_MS + 1_000);
    }
}
