//! The two clocks, and the second. Elapsed time is measured with `Mono`, calendars use `Wall`; as they are two types,
//! one cannot be taken for the other.
//!
//! Not a clock: `worker::clock` (or a simulator) makes a `Now`, and the driver hands it in.
//!
//! Invariant: no sum or difference overflows; it stops at the largest or smallest value.

use serde::{Deserialize, Serialize};
use std::time::Duration;

const NANOS_PER_SECOND: i64 = 1_000_000_000;
const NANOS_PER_MS: u64 = 1_000_000;

/// A moment on the host's monotonic clock, in nanoseconds since boot (CLOCK_BOOTTIME: it goes on while the host
/// sleeps).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Mono(pub u64);

impl Mono {
    /// Later than every moment of a host: the end of a lease without end, for example.
    pub const NEVER: Mono = Mono(u64::MAX);

    /// So many milliseconds later; at most the largest moment.
    pub fn plus_ms(self, ms: u64) -> Mono {
        Mono(self.0.saturating_add(ms.saturating_mul(NANOS_PER_MS)))
    }

    /// The time from `earlier` to this moment; zero where `earlier` is later.
    pub fn since(self, earlier: Mono) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A moment on the wall clock, in nanoseconds since the Unix epoch (CLOCK_REALTIME: it may be stepped).
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Wall(pub i64);

impl Wall {
    /// The whole second in which this moment lies.
    pub fn second(self) -> Second {
        Second(self.0.div_euclid(NANOS_PER_SECOND))
    }

    /// The first whole second that is not before this moment.
    pub fn second_after(self) -> Second {
        Wall(self.0.saturating_add(NANOS_PER_SECOND - 1)).second()
    }

    /// So many seconds later, or earlier where that is negative.
    pub fn plus_secs(self, seconds: i64) -> Wall {
        Wall(self.0.saturating_add(seconds.saturating_mul(NANOS_PER_SECOND)))
    }

    /// Milliseconds since the Unix epoch.
    pub fn ms(self) -> i64 {
        self.0.div_euclid(NANOS_PER_MS as i64)
    }
}

/// A whole second of the wall clock, counted from the Unix epoch.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Second(pub i64);

impl Second {
    /// So many seconds later, or earlier where that is negative.
    pub fn plus(self, seconds: i64) -> Second {
        Second(self.0.saturating_add(seconds))
    }

    /// The moment at which the second begins.
    pub fn wall(self) -> Wall {
        Wall(self.0.saturating_mul(NANOS_PER_SECOND))
    }
}

/// Both clocks, read together.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Now {
    pub mono: Mono,
    pub wall: Wall,
}

impl Now {
    /// The monotonic moment at which the wall clock shows `wall`, if nobody sets it.
    pub fn mono_at(self, wall: Wall) -> Mono {
        let delta = wall.0.saturating_sub(self.wall.0);
        Mono(self.mono.0.saturating_add_signed(delta))
    }

    /// The wall-clock moment at a monotonic one, if nobody sets the wall clock.
    pub fn wall_at(self, mono: Mono) -> Wall {
        let delta = i128::from(mono.0) - i128::from(self.mono.0);
        Wall(self.wall.0.saturating_add(delta.clamp(i64::MIN.into(), i64::MAX.into()) as i64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_floors_before_the_epoch_too() {
        assert_eq!(Wall(-1).second(), Second(-1));
        assert_eq!(Wall(0).second(), Second(0));
        assert_eq!(Wall(1_999_999_999).second(), Second(1));
        assert_eq!((Wall(1_000_000_000).second_after(), Wall(1_000_000_001).second_after()), (Second(1), Second(2)));
        assert_eq!(Wall(-1).second_after(), Second(0));
    }

    #[test]
    fn the_two_clocks_translate_into_each_other() {
        let now = Now { mono: Mono(5_000), wall: Wall(1_000_000_000) };
        assert_eq!(now.mono_at(Wall(1_000_000_500)), Mono(5_500));
        assert_eq!(now.mono_at(Wall(0)), Mono(0));
        assert_eq!(now.wall_at(Mono(6_000)), Wall(1_000_001_000));
        assert_eq!(now.wall_at(Mono::NEVER), Wall(i64::MAX));
    }
}
