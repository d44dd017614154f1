//! The clocks. The reactor gives the time to the core; the spawning threads and the guardian check the lease by it.
//!
//! Not for the core: it gets the time with each input.
//!
//! Invariant: no other file reads a clock.

use crate::model::{Mono, Now, Wall};
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Both clocks, in nanoseconds.
#[expect(clippy::disallowed_methods, reason = "the one place that reads clocks")]
pub fn now() -> Now {
    Now { mono: mono(), wall: Wall(nanos(clock_gettime(ClockId::Realtime))) }
}

/// The monotonic clock: nanoseconds since the host's start, its sleep included.
#[expect(clippy::disallowed_methods, reason = "the one place that reads clocks")]
pub fn mono() -> Mono {
    Mono(nanos(clock_gettime(ClockId::Boottime)).max(0) as u64)
}

fn nanos(time: Timespec) -> i64 {
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}
