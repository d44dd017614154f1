//! Refusals become rows: the first of a job and reason at once, those of the next ten seconds in one row together, so that
//! a flood does not fill the log with what it says of itself.
//!
//! Invariant: every refusal is explained by exactly one row, and its entry stays open until that row is committed.

use super::{Around, Runs, rows};
use crate::core::ports::COALESCE_SECS;
use crate::model::journal::{EntryId, RefusedRun};
use crate::model::{Attempt, JobId, Mono, RunKey, Second};
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub struct Coalescer {
    all: BTreeMap<(JobId, &'static str), Window>,
}

#[derive(Debug)]
struct Window {
    until: Mono,
    gathered: Vec<(RefusedRun, EntryId)>,
}

impl Window {
    /// Whether one of this second still belongs to the same row. They may come in any order.
    fn takes(&self, at: Second) -> bool {
        let all = || self.gathered.iter().map(|(refused, _)| refused.run.scheduled_at).chain([at]);
        all().max().zip(all().min()).is_none_or(|(last, first)| last.0 - first.0 < COALESCE_SECS)
    }
}

/// Whether a row of this job and state, with the key of `later`, explains what was refused at `at`.
pub fn explains(later: Second, at: Second) -> bool {
    (0..COALESCE_SECS).contains(&(later.0 - at.0))
}

impl Runs {
    /// The entry that names the refusal is in.
    pub fn coalesce(&mut self, refused: RefusedRun, entry: EntryId, around: &mut Around) {
        let key = (refused.run.cron_id, refused.state.as_str());
        *self.open.entry(entry).or_default() += 1;
        if self.coalescer.all.get(&key).is_some_and(|window| !window.takes(refused.run.scheduled_at)) {
            self.flush(key, around);
        }
        match self.coalescer.all.get_mut(&key) {
            Some(window) => window.gathered.push((refused, entry)),
            None => {
                self.explain(&[(refused, entry)], around);
                let until = around.now.mono.plus_ms(COALESCE_SECS as u64 * 1_000);
                let window = Window { until, gathered: Vec::new() };
                self.coalescer.all.insert(key, window);
            }
        }
    }

    /// Writes the rows whose time is over; or all of them, before the node leaves.
    pub fn flush_refusals(&mut self, is_leaving: bool, around: &mut Around) {
        let now = around.now.mono;
        let is_over = |window: &Window| is_leaving || window.until <= now;
        let over: Vec<_> =
            self.coalescer.all.iter().filter(|(_, window)| is_over(window)).map(|(key, _)| *key).collect();
        over.into_iter().for_each(|key| self.flush(key, around));
    }

    /// Whether every refusal has its row on the way.
    pub fn has_unwritten_refusals(&self) -> bool {
        self.coalescer.all.values().any(|window| !window.gathered.is_empty())
    }

    /// A fold that gathered something is followed by another; one that did not is over.
    fn flush(&mut self, key: (JobId, &'static str), around: &mut Around) {
        let Some(window) = self.coalescer.all.get_mut(&key) else { return };
        let gathered = std::mem::take(&mut window.gathered);
        if gathered.is_empty() {
            self.coalescer.all.remove(&key);
            return;
        }
        window.until = around.now.mono.plus_ms(COALESCE_SECS as u64 * 1_000);
        self.explain(&gathered, around);
    }

    fn explain(&mut self, refused: &[(RefusedRun, EntryId)], around: &mut Around) {
        let runs = || refused.iter().map(|(refused, _)| refused);
        let Some(first) = runs().map(|refused| refused.run.scheduled_at).min() else { return };
        let Some(last) = runs().max_by_key(|refused| refused.run.scheduled_at) else { return };
        let text = rows::refusal_text(last.state, first, last.run.scheduled_at, refused.len());
        let attempt = Attempt { run: RunKey::scheduled(last.run.cron_id, last.run.scheduled_at), number: 0 };
        self.outcomes.entry(attempt).or_default().extend(refused.iter().map(|(_, entry)| *entry));
        self.push_row(attempt, last.version, last.state, &text, around);
        around.logbook.count_coalesced(last.state, refused.len() as u64 - 1);
    }
}
