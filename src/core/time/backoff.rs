//! How long to wait before asking a part that is away once more: doubling, up to a limit.

use super::bounds::BACKOFF_MS_MAX;
use crate::model::{Mono, Now};

const FIRST_MS: u64 = 100;

#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    step_ms: u64,
    until: Option<Mono>,
}

impl Backoff {
    /// It failed again.
    pub fn fail(&mut self, now: Now) {
        self.step_ms = (self.step_ms * 2).clamp(FIRST_MS, BACKOFF_MS_MAX);
        self.until = Some(now.mono.plus_ms(self.step_ms));
    }

    /// It may be asked at once, whatever it did last.
    pub fn hurry(&mut self) {
        self.until = None;
    }

    /// It works.
    pub fn reset(&mut self) {
        *self = Backoff::default();
    }

    /// Whether it may be asked now.
    pub fn is_over(&self, now: Now) -> bool {
        self.until.is_none_or(|until| until <= now.mono)
    }

    /// From when on it may be asked.
    pub fn ready_at(&self) -> Mono {
        self.until.unwrap_or(Mono(0))
    }

    /// Whether it has failed since it last worked.
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
