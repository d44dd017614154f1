//! Refused, missed and settled runs, from the entry that names them to their rows.
//!
//! Refusals are coalesced: the first of a job and reason has a row at once, those of the next ten seconds share one, so
//! that a flood of refusals does not flood the log.
//!
//! Not the decision to refuse a run: that is `planning`'s.
//!
//! Invariant: every refusal is explained by exactly one row, and its entry stays open until that row is committed.

use super::in_flight::Stage;
use super::memory::{Coalescer, Key, Window};
use super::rows::Why;
use super::{Runs, rows};
use crate::core::Context;
use crate::core::ledger::Ledger;
use crate::core::log::ending;
use crate::core::time::bounds::COALESCE_SECS;
use crate::model::journal::{Body, EntryId, RefusedRun};
use crate::model::{Attempt, JobId, Mono, NodeId, Now, RunKey, RunState, Second, Version};
use std::collections::{BTreeMap, BTreeSet};

impl Coalescer {
    /// The entries whose refusals have no row yet, once for each refusal.
    pub fn entries(&self) -> impl Iterator<Item = EntryId> {
        self.windows.values().flat_map(|window| &window.gathered).map(|(_, entry)| *entry)
    }

    fn is_empty(&self) -> bool {
        self.windows.values().all(|window| window.gathered.is_empty())
    }
}

impl Window {
    /// Whether a refusal of this second may share the row. Refusals may come in any order of their seconds.
    fn takes(&self, at: Second) -> bool {
        let all = || self.gathered.iter().map(|(refused, _)| refused.run.scheduled_at).chain([at]);
        all().max().zip(all().min()).is_none_or(|(last, first)| last.0 - first.0 < COALESCE_SECS)
    }
}

impl Runs {
    /// Writes the rows of the entry's refusals and gaps, save for those that `logged` explains already.
    pub(super) fn write_outcomes(
        &mut self,
        id: EntryId,
        body: &Body,
        logged: &BTreeMap<Attempt, RunState>,
        cx: &mut Context,
    ) {
        let unexplained = body.refused.iter().filter(|refused| !is_explained(refused, logged));
        unexplained.for_each(|refused| self.coalesce(*refused, id, cx));
        let missed = body.missed.iter().map(|gap| (gap, RunState::Missed, rows::missed_text(gap)));
        let settled = body.settled.iter().map(|gap| (gap, RunState::Cancelled, rows::settled_text(gap)));
        for (gap, state, text) in missed.chain(settled) {
            let attempt = Attempt { run: RunKey::scheduled(gap.cron_id, gap.last), number: 0 };
            if !logged.contains_key(&attempt) {
                self.entries.hold(id);
                self.entries.explain(attempt, std::iter::once(id));
                self.push_row(attempt, gap.version, Why { state, text: &text }, cx);
                cx.logbook.count_coalesced(state, gap.count.saturating_sub(1));
            }
        }
    }

    /// The node did not take these attempts because it has too many runs of their jobs. They are refused, which is
    /// journaled first, like any refusal.
    pub fn on_refused(&mut self, node: &NodeId, attempts: Vec<Attempt>, ledger: &mut Ledger) {
        let mut refused = Vec::new();
        for attempt in attempts {
            let Some(run) = self.table.get(attempt) else { continue };
            if run.stage == Stage::Sent && run.node == *node {
                refused.push(RefusedRun { run: attempt.run, version: run.job.version, state: RunState::Skipped });
                self.table.move_to(attempt, NodeId::default());
            }
        }
        if !refused.is_empty() {
            ledger.journal.push(None, 0, Body { refused, ..Body::default() });
        }
    }

    /// Removes the entry's refused runs that an earlier entry had given to a node. Answers their jobs, which may have a
    /// free permit now. This entry outlasts the earlier one: with that one alone the next leader would give the run to
    /// a node again.
    pub(super) fn drop_refused(&mut self, id: EntryId, body: &Body) -> BTreeSet<JobId> {
        let mut jobs = BTreeSet::new();
        for refused in &body.refused {
            let Some(run) = self.table.remove(Attempt { run: refused.run, number: 1 }) else { continue };
            jobs.insert(refused.run.cron_id);
            if let Some(earlier) = run.entry {
                self.entries.outlast(earlier, id);
                self.entries.close_if_settled(earlier, &self.table);
            }
        }
        jobs
    }

    /// Writes the row of a run that did not start, or that is lost.
    pub(super) fn push_row(&self, attempt: Attempt, version: Version, why: Why, cx: &mut Context) {
        let row = ending::unstarted_row(attempt, version, why.state, why.text, &self.server);
        cx.logbook.push(row, cx.now);
    }

    /// Writes the shared rows whose window is over, or all of them at a shutdown.
    pub fn flush_refusals(&mut self, is_shutdown: bool, cx: &mut Context) {
        let is_over = |window: &Window| is_shutdown || window.until <= cx.now.mono;
        let over = self.refusals.windows.iter().filter(|(_, window)| is_over(window)).map(|(key, _)| *key);
        over.collect::<Vec<_>>().into_iter().for_each(|key| self.flush(key, cx));
    }

    /// Whether any refusal has no row yet.
    pub fn has_unwritten_refusals(&self) -> bool {
        !self.refusals.is_empty()
    }

    /// Writes the refusal's row at once where it is the first of its job and reason; otherwise gathers it.
    fn coalesce(&mut self, refused: RefusedRun, entry: EntryId, cx: &mut Context) {
        let key = (refused.run.cron_id, refused.state.as_str());
        self.entries.hold(entry);
        if self.refusals.windows.get(&key).is_some_and(|window| !window.takes(refused.run.scheduled_at)) {
            self.flush(key, cx);
        }
        match self.refusals.windows.get_mut(&key) {
            Some(window) => window.gathered.push((refused, entry)),
            None => {
                self.explain(&[(refused, entry)], cx);
                let window = Window { until: window_end(cx.now), gathered: Vec::new() };
                self.refusals.windows.insert(key, window);
            }
        }
    }

    /// Writes a window's row and begins the next window. A window without refusals ends.
    fn flush(&mut self, key: Key, cx: &mut Context) {
        let Some(window) = self.refusals.windows.get_mut(&key) else { return };
        let gathered = std::mem::take(&mut window.gathered);
        if gathered.is_empty() {
            self.refusals.windows.remove(&key);
            return;
        }
        window.until = window_end(cx.now);
        self.explain(&gathered, cx);
    }

    /// Writes one row for all of these refusals, under the key of the last.
    fn explain(&mut self, refused: &[(RefusedRun, EntryId)], cx: &mut Context) {
        let runs = || refused.iter().map(|(refused, _)| refused);
        let Some(first) = runs().map(|refused| refused.run.scheduled_at).min() else { return };
        let Some(last) = runs().max_by_key(|refused| refused.run.scheduled_at) else { return };
        let text = rows::refusal_text(last.state, first, last.run.scheduled_at, refused.len());
        let attempt = Attempt { run: RunKey::scheduled(last.run.cron_id, last.run.scheduled_at), number: 0 };
        self.entries.explain(attempt, refused.iter().map(|(_, entry)| *entry));
        self.push_row(attempt, last.version, Why { state: last.state, text: &text }, cx);
        cx.logbook.count_coalesced(last.state, refused.len() as u64 - 1);
    }
}

fn window_end(now: Now) -> Mono {
    now.mono.plus_ms(COALESCE_SECS as u64 * 1_000)
}

/// Whether a shared row with the key of second `later` explains a refusal at second `at`.
fn explains(later: Second, at: Second) -> bool {
    (0..COALESCE_SECS).contains(&(later.0 - at.0))
}

/// Whether one of these rows explains this refusal, alone or coalesced with others.
fn is_explained(refused: &RefusedRun, logged: &BTreeMap<Attempt, RunState>) -> bool {
    let first = Attempt { run: refused.run, number: 0 };
    let of_job = logged.range(first..).take_while(|(attempt, _)| attempt.run.cron_id == refused.run.cron_id);
    let mut near = of_job.take_while(|(attempt, _)| explains(attempt.run.scheduled_at, refused.run.scheduled_at));
    near.any(|(attempt, state)| attempt.number == 0 && *state == refused.state)
}
