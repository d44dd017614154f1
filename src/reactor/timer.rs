//! The one timer: a timerfd with an absolute time of the wall clock, which is cancelled when somebody sets that clock.
//! It is exact, while the timeout of poll is rounded to milliseconds and up to a tenth of a percent late.
//!
//! Not the core's table of timers: this one knows only the first deadline.
//!
//! Invariant: it is armed for the deadline that was named last.

use crate::model::{Mono, Now};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

pub struct Timer {
    fd: OwnedFd,
    armed: Option<Mono>,
}

impl Timer {
    pub fn new() -> io::Result<Timer> {
        let fd = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Timer { fd, armed: None })
    }

    /// Makes the timer fire at `deadline`.
    pub fn arm(&mut self, deadline: Mono, now: Now) -> io::Result<()> {
        if self.armed == Some(deadline) {
            return Ok(());
        }
        let wall = now.wall_at(deadline).0.max(1);
        let value = Timespec { tv_sec: wall / 1_000_000_000, tv_nsec: wall % 1_000_000_000 };
        let never_again = Timespec { tv_sec: 0, tv_nsec: 0 };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        timerfd_settime(&self.fd, flags, &Itimerspec { it_interval: never_again, it_value: value })?;
        self.armed = Some(deadline);
        Ok(())
    }

    /// Takes an event of the timer, and says whether the clock was set.
    pub fn was_clock_set(&mut self) -> bool {
        let mut count = [0; 8];
        let mut was_set = false;
        loop {
            match rustix::io::read(&self.fd, &mut count) {
                Ok(_) => {}
                Err(rustix::io::Errno::CANCELED) => was_set = true,
                Err(_) => break,
            }
        }
        // It has fired (perhaps a little early by the monotonic clock), or it was armed for a time of the old clock.
        self.armed = None;
        was_set
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
