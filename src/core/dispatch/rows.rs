//! Log rows of runs that never came to a node: refused, missed, cancelled, lost.

use super::{Around, Dispatch};
use crate::core::ending;
use crate::model::journal::{Body, EntryId, MissedGap, MissedWhy};
use crate::model::{Attempt, RunKey, RunState, Version};
use std::collections::BTreeSet;

pub const CANCELLED: &str = "cancelled: the job was stopped, changed or deleted before the run began";
pub const MISSED: &str = "missed: nobody was there to start it, and the grace (misfire_grace) is over";
pub const LOST: &str = "lost: the node that had it was not heard of until the grace (misfire_grace) was over";
pub const ROW_LOST: &str = "lost: it ended, but its node lost the row that says how";

impl Dispatch {
    /// Rows for what the entry itself decided: refusals and gaps. Those in `logged` are there already.
    pub fn write_outcomes(&mut self, id: EntryId, body: &Body, logged: &BTreeSet<Attempt>, around: &mut Around) {
        let refused = body.refused.iter();
        let refused = refused.map(|refused| (refused.run, refused.version, refused.state, refusal_text(refused.state)));
        let missed = body.missed.iter();
        let missed =
            missed.map(|gap| (RunKey::scheduled(gap.cron_id, gap.last), gap.version, RunState::Missed, gap_text(gap)));
        for (run, version, state, text) in refused.chain(missed) {
            let attempt = Attempt { run, number: 0 };
            if logged.contains(&attempt) {
                continue;
            }
            self.outcomes.insert(attempt, id);
            *self.open.entry(id).or_default() += 1;
            self.push_row(attempt, version, state, &text, around);
        }
    }

    pub fn push_row(&self, attempt: Attempt, version: Version, state: RunState, reason: &str, around: &mut Around) {
        let row = ending::unstarted_row(attempt, version, state, reason, &self.server);
        around.logbook.push(row, around.now);
    }
}

fn refusal_text(state: RunState) -> String {
    match state {
        RunState::Skipped => {
            "skipped: too many earlier runs of this mutex job are waiting (max_pending_per_job)".into()
        }
        _ => "shed: every node has as many runs waiting and running as it may (max_pending, max_running)".into(),
    }
}

fn gap_text(gap: &MissedGap) -> String {
    let (at_least, runs) = (if gap.at_least { "at least " } else { "" }, if gap.count == 1 { "run" } else { "runs" });
    let why = match gap.why {
        MissedWhy::Grace => "the grace (misfire_grace) is over",
        MissedWhy::Once => "a later one runs for all of them (misfire=once)",
        MissedWhy::Skip => "none is run late (misfire=skip)",
    };
    format!(
        "missed: {at_least}{} {runs} due from {} to {} (unix seconds), not handled in time: {why}",
        gap.count, gap.first.0, gap.last.0
    )
}
