//! Log rows of runs that never came to a node: refused, missed, cancelled, lost.

use super::table::Stage;
use super::{Around, Runs, coalesce};
use crate::core::log::ending;
use crate::model::journal::{Body, EntryId, MissedGap, MissedWhy, RefusedRun};
use crate::model::{Attempt, JobId, NodeId, RunKey, RunState, Second, Version};
use std::collections::{BTreeMap, BTreeSet};

pub const CANCELLED: &str = "cancelled: the job was stopped, changed or deleted before the run began";
pub const KILLED_BEFORE: &str = "cancelled: an operator ended it before it began";
pub const MISSED: &str = "missed: nobody was there to start it, and the grace (misfire_grace) is over";
pub const LOST: &str = "lost: the node that had it was not heard of until the grace (misfire_grace) was over";
pub const ROW_LOST: &str = "lost: it ended, but its node lost the row that says how";

impl Runs {
    /// Rows for what the entry itself decided: refusals and gaps. Those that `logged` explains are there already.
    pub fn write_outcomes(
        &mut self,
        id: EntryId,
        body: &Body,
        logged: &BTreeMap<Attempt, RunState>,
        around: &mut Around,
    ) {
        let unexplained = body.refused.iter().filter(|refused| !is_explained(refused, logged));
        unexplained.for_each(|refused| self.coalesce(*refused, id, around));
        let missed = body.missed.iter().map(|gap| (gap, RunState::Missed, missed_text(gap)));
        let settled = body.settled.iter().map(|gap| (gap, RunState::Cancelled, settled_text(gap)));
        for (gap, state, text) in missed.chain(settled) {
            let attempt = Attempt { run: RunKey::scheduled(gap.cron_id, gap.last), number: 0 };
            if !logged.contains_key(&attempt) {
                self.outcomes.entry(attempt).or_default().push(id);
                *self.open.entry(id).or_default() += 1;
                self.push_row(attempt, gap.version, state, &text, around);
                around.logbook.count_coalesced(state, gap.count.saturating_sub(1));
            }
        }
    }

    /// A node has too many runs of these jobs already. Like any refusal it is journaled first.
    pub fn on_refused(&mut self, node: &NodeId, mut attempts: Vec<Attempt>, around: &mut Around) {
        attempts.retain(|attempt| self.table.is(*attempt, Stage::Sent));
        let mut refused = Vec::new();
        for attempt in attempts {
            let Some(in_flight) = self.table.get(attempt).filter(|in_flight| in_flight.node == *node) else { continue };
            let (run, version, state) = (attempt.run, in_flight.job.version, RunState::Skipped);
            refused.push(RefusedRun { run, version, state });
            self.table.move_to(attempt, NodeId::default());
        }
        if !refused.is_empty() {
            around.journaler.push(None, 0, Body { refused, ..Body::default() });
        }
    }

    /// Takes away what an earlier entry gave to a node that did not take it. Answers the jobs that have a place less taken.
    /// This entry stays open for as long as the earlier one, by which the next leader would take the run for one to be given
    /// again.
    pub fn drop_refused(&mut self, id: EntryId, body: &Body) -> BTreeSet<JobId> {
        let mut jobs = BTreeSet::new();
        for refused in &body.refused {
            let attempt = Attempt { run: refused.run, number: 1 };
            let Some(in_flight) = self.table.remove(attempt) else { continue };
            self.leave_queue(refused.run.cron_id, &[attempt]);
            self.unplaced.remove(&attempt);
            jobs.insert(refused.run.cron_id);
            if let Some(earlier) = in_flight.entry {
                *self.open.entry(id).or_default() += 1;
                self.outlasting.entry(earlier).or_default().push(id);
                self.settle(earlier);
            }
        }
        jobs
    }

    pub fn push_row(&self, attempt: Attempt, version: Version, state: RunState, reason: &str, around: &mut Around) {
        let row = ending::unstarted_row(attempt, version, state, reason, &self.server);
        around.logbook.push(row, around.now);
    }
}

/// Whether one of the rows of that job stands for this refusal, alone or folded with others.
fn is_explained(refused: &RefusedRun, logged: &BTreeMap<Attempt, RunState>) -> bool {
    let first = Attempt { run: refused.run, number: 0 };
    let of_job = logged.range(first..).take_while(|(attempt, _)| attempt.run.cron_id == refused.run.cron_id);
    let mut near =
        of_job.take_while(|(attempt, _)| coalesce::explains(attempt.run.scheduled_at, refused.run.scheduled_at));
    near.any(|(attempt, state)| attempt.number == 0 && *state == refused.state)
}

/// Of `count` refusals from `first` to `last`, all for the same reason.
pub fn refusal_text(state: RunState, first: Second, last: Second, count: usize) -> String {
    let how_many = match count {
        1 => String::new(),
        _ => format!("{count} runs from {} to {} (unix seconds): ", first.0, last.0),
    };
    let reason = match state {
        RunState::Skipped => "too many earlier runs of this job are waiting for their turn (max_pending_per_job)",
        _ => "every node that may run it has as many runs waiting and running as it may (max_pending, max_running)",
    };
    format!("{}: {how_many}{reason}", state.as_str())
}

fn missed_text(gap: &MissedGap) -> String {
    let why = match gap.why {
        MissedWhy::Grace => "the grace (misfire_grace) is over",
        MissedWhy::Once => "a later one runs for all of them (misfire=once)",
        MissedWhy::Skip => "none is run late (misfire=skip)",
    };
    format!("missed: {}, not handled in time: {why}", runs_of(gap))
}

fn settled_text(gap: &MissedGap) -> String {
    format!("cancelled: {}: the job was stopped, changed or deleted before they were handled", runs_of(gap))
}

fn runs_of(gap: &MissedGap) -> String {
    let (at_least, runs) = (if gap.at_least { "at least " } else { "" }, if gap.count == 1 { "run" } else { "runs" });
    format!("{at_least}{} {runs} due from {} to {} (unix seconds)", gap.count, gap.first.0, gap.last.0)
}
