//! Refused, missed and settled runs, from the entry that names them to their rows.
//!
//! Refusals are coalesced: the first of a job and reason has a row at once, those of the next ten seconds share one, so
//! that a flood of refusals does not flood the log.
//!
//! Not the decision to refuse a run: that is `planning`'s.
//!
//! Invariant: every refusal is explained by exactly one row, and its entry stays open until that row is committed.

use super::desk::Desk;
use super::entries::OpenEntries;
use super::in_flight::Stage;
use super::rows::{self, Why};
use super::table::RunTable;
use super::watched::Watched;
use crate::core::runs::ledger::Ledger;
use crate::core::time::bounds::COALESCE_SECS;
use crate::model::journal::{Body, EntryId, RefusedRun};
use crate::model::{Attempt, JobId, Mono, NodeId, Now, RunKey, RunState, Second};
use std::collections::{BTreeMap, BTreeSet};

/// A job, and the state of its refused runs.
type Key = (JobId, &'static str);

/// Refusals that have no row yet.
#[derive(Debug, Default)]
pub struct Coalescer {
    windows: Watched<BTreeMap<Key, Window>>,
}

/// The refusals after the first one, until they share a row.
#[derive(Debug)]
struct Window {
    until: Mono,
    gathered: Vec<(RefusedRun, EntryId)>,
}

impl Window {
    /// Whether a refusal of this second may share the row. Refusals may come in any order of their seconds.
    fn takes(&self, at: Second) -> bool {
        let all = || self.gathered.iter().map(|(refused, _)| refused.run.scheduled_at).chain([at]);
        all().max().zip(all().min()).is_none_or(|(last, first)| last.0 - first.0 < COALESCE_SECS)
    }
}

impl Coalescer {
    /// The entries whose refusals have no row yet, once for each refusal.
    pub fn entries(&self) -> impl Iterator<Item = EntryId> {
        self.windows.values().flat_map(|window| &window.gathered).map(|(_, entry)| *entry)
    }

    /// Whether anything has changed since this was asked last.
    pub fn take_touched(&self) -> bool {
        self.windows.take_touched()
    }

    /// Whether every refusal has a row.
    pub fn is_empty(&self) -> bool {
        self.windows.values().all(|window| window.gathered.is_empty())
    }

    /// Writes the rows of the entry's refusals and gaps, save for those that `logged` explains already.
    pub fn write_outcomes(&mut self, id: EntryId, body: &Body, logged: &BTreeMap<Attempt, RunState>, desk: &mut Desk) {
        let unexplained = body.refused.iter().filter(|refused| !is_explained(refused, logged));
        unexplained.for_each(|refused| self.coalesce(*refused, id, desk));
        let missed = body.missed.iter().map(|gap| (gap, RunState::Missed, rows::missed_text(gap)));
        let settled = body.settled.iter().map(|gap| (gap, RunState::Cancelled, rows::settled_text(gap)));
        for (gap, state, text) in missed.chain(settled) {
            let attempt = Attempt { run: RunKey::scheduled(gap.cron_id, gap.last), number: 0 };
            if !logged.contains_key(&attempt) {
                desk.entries.hold(id);
                desk.entries.explain(attempt, std::iter::once(id));
                desk.push_row(attempt, gap.version, Why { state, text: &text });
                desk.cx.logbook.count_coalesced(state, gap.count.saturating_sub(1));
            }
        }
    }

    /// Writes the shared rows whose window is over, or all of them at a shutdown.
    pub fn flush_over(&mut self, is_shutdown: bool, desk: &mut Desk) {
        let is_over = |window: &Window| is_shutdown || window.until <= desk.cx.now.mono;
        let over = self.windows.iter().filter(|(_, window)| is_over(window)).map(|(key, _)| *key);
        over.collect::<Vec<_>>().into_iter().for_each(|key| self.flush(key, desk));
    }

    /// Writes the refusal's row at once where it is the first of its job and reason; otherwise gathers it.
    fn coalesce(&mut self, refused: RefusedRun, entry: EntryId, desk: &mut Desk) {
        let key = (refused.run.cron_id, refused.state.as_str());
        desk.entries.hold(entry);
        if self.windows.get(&key).is_some_and(|window| !window.takes(refused.run.scheduled_at)) {
            self.flush(key, desk);
        }
        match self.windows.get_mut(&key) {
            Some(window) => window.gathered.push((refused, entry)),
            None => {
                explain(&[(refused, entry)], desk);
                let window = Window { until: window_end(desk.cx.now), gathered: Vec::new() };
                self.windows.insert(key, window);
            }
        }
    }

    /// Writes a window's row and begins the next window. A window without refusals ends.
    fn flush(&mut self, key: Key, desk: &mut Desk) {
        let Some(window) = self.windows.get_mut(&key) else { return };
        let gathered = std::mem::take(&mut window.gathered);
        if gathered.is_empty() {
            self.windows.remove(&key);
            return;
        }
        window.until = window_end(desk.cx.now);
        explain(&gathered, desk);
    }
}

/// The node did not take these attempts because it has too many runs of their jobs. They are refused, which is journaled
/// first, like any refusal.
pub fn on_refused(node: &NodeId, attempts: Vec<Attempt>, table: &mut RunTable, ledger: &mut Ledger) {
    let mut refused = Vec::new();
    for attempt in attempts {
        let Some(run) = table.get(attempt) else { continue };
        if run.stage() == Stage::Sent && run.node == *node {
            refused.push(RefusedRun { run: attempt.run, version: run.job.version, state: RunState::Skipped });
            table.move_to(attempt, NodeId::default());
        }
    }
    if !refused.is_empty() {
        ledger.journal.push(None, 0, Body { refused, ..Body::default() });
    }
}

/// Removes the entry's refused runs that an earlier entry had given to a node. Answers their jobs, which may have a
/// free permit now. This entry outlasts the earlier one: with that one alone the next leader would give the run to a
/// node again.
pub fn drop_refused(id: EntryId, body: &Body, table: &mut RunTable, entries: &mut OpenEntries) -> BTreeSet<JobId> {
    let mut jobs = BTreeSet::new();
    for refused in &body.refused {
        let Some(run) = table.remove(Attempt { run: refused.run, number: 1 }) else { continue };
        jobs.insert(refused.run.cron_id);
        if let Some(earlier) = run.entry {
            entries.outlast(earlier, id);
            entries.close_if_settled(earlier, table);
        }
    }
    jobs
}

/// Writes one row for all of these refusals, under the key of the last.
fn explain(refused: &[(RefusedRun, EntryId)], desk: &mut Desk) {
    let runs = || refused.iter().map(|(refused, _)| refused);
    let Some(first) = runs().map(|refused| refused.run.scheduled_at).min() else { return };
    let Some(last) = runs().max_by_key(|refused| refused.run.scheduled_at) else { return };
    let text = rows::refusal_text(last.state, first, last.run.scheduled_at, refused.len());
    let attempt = Attempt { run: RunKey::scheduled(last.run.cron_id, last.run.scheduled_at), number: 0 };
    desk.entries.explain(attempt, refused.iter().map(|(_, entry)| *entry));
    desk.push_row(attempt, last.version, Why { state: last.state, text: &text });
    desk.cx.logbook.count_coalesced(last.state, refused.len() as u64 - 1);
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
