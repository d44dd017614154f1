//! How the leader's own work goes, for those who watch it: whether the journal is written, and how far it has come.
//!
//! Not what the leader itself acts on. Others do: a leader that is seen to stand still is deposed.
//!
//! Invariant: a leader with nothing to do is well, and so is one that is paused or has only just begun.

use super::Leader;
use crate::model::command::Progress;
use crate::model::{Now, Second};
use std::time::Duration;

/// An entry comes at least every `QUIET_SECS`; with none for so long something stands still.
const OVERDUE_MS: u64 = 15_000;
/// Seconds that are decided on so much later are told.
const LATE_SECS: u64 = 10;

impl Leader {
    pub fn progress(&self, now: Now) -> Progress {
        Progress {
            journal_age_ms: Some(self.journal_age(now).as_millis() as u64),
            watermark_lag_secs: self.lag_secs(now),
            wrong: self.what_is_wrong(now),
        }
    }

    /// What moves on for as long as this leader does: its ticks, and in a pause, which takes none, the clock. What the journal does
    /// not take holds up both.
    pub fn progress_tick(&self, now: Now) -> Second {
        if self.is_paused && self.ledger.journal.is_idle() { now.wall.second() } else { self.tick() }
    }

    /// Whether the store took the last entry that it was given, as far as we know.
    pub fn has_journal(&self, now: Now) -> bool {
        !self.ledger.journal.is_failing() && !self.ledger.journal.is_silent(now)
    }

    fn what_is_wrong(&self, now: Now) -> Option<String> {
        let age = self.journal_age(now);
        let is_overdue = !self.is_draining && OVERDUE_MS <= age.as_millis() as u64;
        if is_overdue || !self.has_journal(now) {
            let reason = self.ledger.journal.trouble().unwrap_or("the store does not answer");
            let reason = if self.ledger.journal.is_idle() { "nothing is given to it" } else { reason };
            return Some(format!("the journal has not been written for {} s: {reason}", age.as_secs()));
        }
        let lag_secs = self.lag_secs(now);
        let is_late = !self.is_draining && !self.is_paused && LATE_SECS <= lag_secs;
        is_late.then(|| format!("the seconds are decided on {lag_secs} s late"))
    }

    /// Since an entry was written last, or since this leader could write one.
    fn journal_age(&self, now: Now) -> Duration {
        now.mono.since(self.ledger.journal.written_at().unwrap_or(self.established_at))
    }

    /// The last second whose entry is whole, or needs none, against the clock.
    fn lag_secs(&self, now: Now) -> u64 {
        let undecided = if self.ledger.journal.is_idle() { 0 } else { 1 };
        (now.wall.second().0 - self.tick().0 + undecided).max(0) as u64
    }
}
