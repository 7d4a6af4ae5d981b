//! The hybrid logical clock: wall time that never goes back (Kulkarni et al. 2014, "Logical Physical Clocks").

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970 in the upper 48 bits, a counter in the lower 16.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hlc(pub u64);

impl Hlc {
    pub fn from_wall(ms: u64) -> Self {
        Self(ms.min((1 << 48) - 1) << 16)
    }

    pub fn wall_ms(self) -> u64 {
        self.0 >> 16
    }

    /// The next time to give out: above everything in `seen`, and at the wall clock if that is ahead.
    pub fn next(wall_ms: u64, seen: Hlc) -> Self {
        Self::from_wall(wall_ms).max(Self(seen.0.saturating_add(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_goes_back_when_the_wall_does() {
        let first = Hlc::next(1_000, Hlc::default());
        let second = Hlc::next(900, first);
        assert!(second > first && second.wall_ms() == 1_000);
        assert_eq!(Hlc::next(2_000, second).wall_ms(), 2_000);
    }
}
