//! What the log rows say of runs that never came to a node: refused, missed, cancelled, lost.
//!
//! Invariant: each text begins with its state and names what to look at.

use crate::model::journal::MissedGap;
use crate::model::journal::MissedWhy;
use crate::model::{RunState, Second};

pub const CANCELLED: &str = "cancelled: the job was stopped, changed or deleted before the run began";
pub const KILLED_BEFORE: &str = "cancelled: an operator ended it before it began";
pub const MISSED: &str = "missed: nobody was there to start it, and the grace (misfire_grace) is over";
pub const LOST: &str = "lost: the node that had it was not heard of until the grace (misfire_grace) was over";
pub const ROW_LOST: &str = "lost: it ended, but its node lost the row that says how";

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

pub fn missed_text(gap: &MissedGap) -> String {
    let why = match gap.why {
        MissedWhy::Grace => "the grace (misfire_grace) is over",
        MissedWhy::Once => "a later one runs for all of them (misfire=once)",
        MissedWhy::Skip => "none is run late (misfire=skip)",
    };
    format!("missed: {}, not handled in time: {why}", runs_of(gap))
}

pub fn settled_text(gap: &MissedGap) -> String {
    format!("cancelled: {}: the job was stopped, changed or deleted before they were handled", runs_of(gap))
}

fn runs_of(gap: &MissedGap) -> String {
    let (at_least, runs) = (if gap.at_least { "at least " } else { "" }, if gap.count == 1 { "run" } else { "runs" });
    format!("{at_least}{} {runs} due from {} to {} (unix seconds)", gap.count, gap.first.0, gap.last.0)
}
