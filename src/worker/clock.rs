//! The one place that reads clocks. The reactor hands their time to the brain; the spawning threads and the guardian
//! check the lease by it.

use crate::model::{Mono, Now, Wall};
use rustix::time::{ClockId, Timespec, clock_gettime};

#[expect(clippy::disallowed_methods, reason = "the one place that reads clocks")]
pub fn now() -> Now {
    Now { mono: mono(), wall: Wall(nanos(clock_gettime(ClockId::Realtime))) }
}

/// Since boot, the time that the host slept included.
#[expect(clippy::disallowed_methods, reason = "the one place that reads clocks")]
pub fn mono() -> Mono {
    Mono(nanos(clock_gettime(ClockId::Boottime)).max(0) as u64)
}

fn nanos(time: Timespec) -> i64 {
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}
