//! The leader's progress, for probes and other nodes: whether the journal is written, and how far the ticks have come.
//!
//! Not for the leader's own decisions. Other nodes use it to depose a leader that stands still.
//!
//! Invariant: a leader with nothing to do is well, and so is one that is paused or has only just begun.

use super::Leader;
use crate::core::time::bounds::OVERDUE_MS;
use crate::model::command::Progress;
use crate::model::{Now, Second};
use std::time::Duration;

/// A leader that decides on seconds so late is not well.
const LATE_SECS: u64 = 10;

impl Leader {
    /// The leader's progress, as of now.
    pub fn progress(&self, now: Now) -> Progress {
        Progress {
            journal_age_ms: Some(self.journal_age(now).as_millis() as u64),
            watermark_lag_secs: self.lag_secs(now),
            wrong: self.fault(now),
        }
    }

    /// A second that grows as long as this leader works: its last tick or, during a pause, the clock's second. An entry
    /// that is not written stops both.
    pub fn progress_tick(&self, now: Now) -> Second {
        if self.is_paused && self.ledger.journal.is_idle() { now.wall.second() } else { self.tick() }
    }

    /// Whether the store took the last entry that it was given, as far as is known.
    pub fn has_journal(&self, now: Now) -> bool {
        !self.ledger.journal.is_failing() && !self.ledger.journal.is_silent(now)
    }

    /// A fault of the leader's work, for people.
    fn fault(&self, now: Now) -> Option<String> {
        let age = self.journal_age(now);
        let is_overdue = !self.is_draining && OVERDUE_MS <= age.as_millis() as u64;
        if is_overdue || !self.has_journal(now) {
            let reason = self.ledger.journal.trouble().unwrap_or("the store does not answer");
            let reason = if self.ledger.journal.is_idle() { "the leader has given it no entry" } else { reason };
            return Some(format!("the journal has not been written for {} s: {reason}", age.as_secs()));
        }
        let lag_secs = self.lag_secs(now);
        let is_late = !self.is_draining && !self.is_paused && LATE_SECS <= lag_secs;
        is_late.then(|| format!("the leader decides seconds {lag_secs} s late: is its host overloaded?"))
    }

    /// The time since an entry was written last, or since this leader began where it has written none.
    fn journal_age(&self, now: Now) -> Duration {
        now.mono.since(self.ledger.journal.written_at().unwrap_or(self.established_at))
    }

    /// How far the last decided second lies behind the clock. The last tick is not decided while its entry is on the
    /// way.
    fn lag_secs(&self, now: Now) -> u64 {
        let undecided = if self.ledger.journal.is_idle() { 0 } else { 1 };
        (now.wall.second().0 - self.tick().0 + undecided).max(0) as u64
    }
}
