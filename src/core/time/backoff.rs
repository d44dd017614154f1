//! The wait before the next try with a service that is away: twice as long each time, up to a limit.
//!
//! Not a timer: its owner lists `ready_at` in the table of timers.
//!
//! Invariant: a wait is between `BACKOFF_FIRST_MS` and `BACKOFF_MS_MAX` long.

use super::bounds::{BACKOFF_FIRST_MS, BACKOFF_MS_MAX};
use crate::model::{Mono, Now};

/// The waits of one owner.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    step_ms: u64,
    until: Option<Mono>,
}

impl Backoff {
    /// A try has failed.
    pub fn fail(&mut self, now: Now) {
        self.step_ms = (self.step_ms * 2).clamp(BACKOFF_FIRST_MS, BACKOFF_MS_MAX);
        self.until = Some(now.mono.plus_ms(self.step_ms));
    }

    /// The next try may come at once.
    pub fn hurry(&mut self) {
        self.until = None;
    }

    /// A try has succeeded.
    pub fn reset(&mut self) {
        *self = Backoff::default();
    }

    /// Whether the next try may come now.
    pub fn is_over(&self, now: Now) -> bool {
        self.until.is_none_or(|until| until <= now.mono)
    }

    /// When the next try may come.
    pub fn ready_at(&self) -> Mono {
        self.until.unwrap_or(Mono(0))
    }

    /// Whether a try has failed, and none has succeeded since.
    pub fn is_failing(&self) -> bool {
        self.step_ms != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_its_limit_and_starts_anew_after_success() {
        let now = Now::default();
        let mut backoff = Backoff::default();
        assert!(backoff.is_over(now));
        for wait_ms in [100, 200, 400, 800, 1_600, 2_000, 2_000] {
            backoff.fail(now);
            assert!(!backoff.is_over(now));
            assert_eq!(backoff.ready_at(), now.mono.plus_ms(wait_ms));
        }
        backoff.reset();
        assert!(backoff.is_over(now));
        assert!(!backoff.is_failing());
    }
}
