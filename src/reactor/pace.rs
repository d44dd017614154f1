//! A deadline that moves on with what a client sends or takes.
//!
//! Invariant: it moves only after `BYTES_MIN` more bytes, so a client that lives from drop to drop is ended too.

use crate::model::Mono;

/// How long so many bytes may take.
const WINDOW_MS: u64 = 10_000;
/// The bytes of a window: with its length, 1 KiB a second.
const BYTES_MIN: usize = 10 << 10;

#[derive(Clone, Copy, Debug)]
pub struct Pace {
    deadline: Mono,
    bytes: usize,
}

impl Pace {
    pub fn from(now: Mono) -> Pace {
        Pace { deadline: now.plus_ms(WINDOW_MS), bytes: 0 }
    }

    pub fn deadline(&self) -> Mono {
        self.deadline
    }

    /// So many bytes more have come, or gone.
    pub fn advance(&mut self, count: usize, now: Mono) {
        self.bytes += count;
        if BYTES_MIN <= self.bytes {
            *self = Pace::from(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_moves_with_enough_bytes_only() {
        let at = |ms: u64| Mono(0).plus_ms(ms);
        let mut pace = Pace::from(at(0));
        pace.advance(BYTES_MIN - 1, at(9_000));
        assert_eq!(pace.deadline(), at(10_000));
        pace.advance(1, at(9_500));
        assert_eq!(pace.deadline(), at(19_500));
    }
}
