//! Ticks: takes each second once and in order, the next one only when the last is in the journal.
//!
//! Not the decisions about a tick's runs: those are made by planning in `runs`, and by `misfire` for late ticks.
//!
//! Invariant: the last tick that was taken never goes back.

use super::Leader;
use crate::core::Context;
use crate::core::io::Effects;
use crate::core::time::bounds::QUIET_SECS;
use crate::model::journal::Body;
use crate::model::{Second, Wall};

impl Leader {
    /// Takes the due ticks, up to the first that has something for the journal.
    pub(super) fn take_ticks(&mut self, cx: &mut Context) {
        let now = cx.now;
        let taken_by = Wall(now.wall.0 + self.setup.plan_ahead_ms as i64 * 1_000_000).second();
        let in_grace = now.wall.second().plus(-self.setup.limits.grace_secs);
        if self.ledger.jobs.cursor().plus(1) < in_grace {
            self.take_gap(in_grace.plus(-1), cx.fx);
            return;
        }
        self.say_ahead(taken_by, cx.fx);
        while self.ledger.journal.is_idle() && self.ledger.jobs.cursor() < taken_by {
            let mut due = self.ledger.jobs.tick();
            let tick = self.ledger.jobs.cursor();
            let is_late = self.ticks.gap.is_late(tick, now.wall.second());
            let missed = if is_late { self.ticks.gap.sort_out(&mut due, tick, &self.ledger.jobs) } else { Vec::new() };
            if due.is_empty() && missed.is_empty() && tick.0 < self.ticks.journaled.0 + QUIET_SECS {
                continue;
            }
            self.ticks.journaled = tick;
            for (part, body) in self.runs.plan(due, missed, tick, now) {
                self.ledger.journal.push(Some(tick), part, body);
            }
        }
    }

    /// Warns once that the clock was set back. No second is handled twice, so no run is due until the clock has caught
    /// up.
    fn say_ahead(&mut self, taken_by: Second, fx: &mut Effects) {
        let ahead_secs = self.ledger.jobs.cursor().0 - taken_by.0;
        let is_ahead = 1 < ahead_secs;
        if is_ahead && !self.ticks.is_ahead_said {
            fx.notice(log::Level::Warn, format!("the clock was set back: the next {ahead_secs} s are handled already, nothing runs until they are over"));
        }
        self.ticks.is_ahead_said = is_ahead;
    }

    /// Journals all seconds up to `last`, which lie beyond the grace, as missed, in one entry whose tick is `last`.
    fn take_gap(&mut self, last: Second, fx: &mut Effects) {
        let first = self.ledger.jobs.cursor().plus(1);
        let missed = self.ledger.jobs.skip_to(last);
        let runs: u64 = missed.iter().map(|gap| gap.count).sum();
        if runs != 0 {
            let jobs = missed.len();
            fx.notice(log::Level::Warn, format!("missed: {runs} runs of {jobs} jobs from {} to {}", first.0, last.0));
        }
        self.ticks.journaled = last;
        self.ledger.journal.push(Some(last), 0, Body { missed, ..Body::default() });
    }
}
