//! The texts of the log rows that the leader writes: of runs that were refused, missed, cancelled or lost, so that no
//! node can write them.
//!
//! Not the rows themselves: those are made by `log::ending`.
//!
//! Invariant: each text begins with its state, and names the setting or the event that explains it.

use crate::model::journal::{MissedGap, MissedWhy};
use crate::model::{RunState, Second};

/// The outcome of a run, and the text that explains it.
#[derive(Clone, Copy, Debug)]
pub struct Why<'a> {
    pub state: RunState,
    pub text: &'a str,
}

/// The run's job was changed before it began.
pub const CANCELLED: Why =
    Why { state: RunState::Cancelled, text: "cancelled: the job was stopped, changed or deleted before the run began" };
/// An operator ended the attempt before it began.
pub const KILLED_BEFORE: Why =
    Why { state: RunState::Cancelled, text: "cancelled: an operator ended it before it began" };
/// No node took the run within the grace.
pub const MISSED: Why = Why {
    state: RunState::Missed,
    text: "missed: no node was there to start it, and the grace (misfire_grace) is over",
};
/// The run's node was silent for the whole grace.
pub const LOST: Why =
    Why { state: RunState::Lost, text: "lost: its node said nothing until the grace (misfire_grace) was over" };
/// The run is over, and its node has no row of it any more.
pub const ROW_LOST: Why =
    Why { state: RunState::Lost, text: "lost: it ended, but its node lost the row that tells how" };

/// The run's node has lost its memory of the time before its last start.
pub const FORGOTTEN: Why = Why {
    state: RunState::Lost,
    text: "lost: its node was started without its marks (the host went down, or the file was damaged or missing): \
           whether the run began is not known",
};

/// The text for `count` refusals from `first` to `last`, all with the same state.
pub fn refusal_text(state: RunState, first: Second, last: Second, count: usize) -> String {
    let how_many = match count {
        1 => String::new(),
        _ => format!("{count} runs from {} to {} (unix seconds): ", first.0, last.0),
    };
    let reason = match state {
        RunState::Skipped => "too many earlier runs of this job are waiting (max_pending_per_job)",
        _ => "every node that may run it has as many runs waiting and running as it may (max_pending, max_running)",
    };
    format!("{}: {how_many}{reason}", state.as_str())
}

/// The text for runs that were not handled in time.
pub fn missed_text(gap: &MissedGap) -> String {
    let why = match gap.why {
        MissedWhy::Grace => "the grace (misfire_grace) is over",
        MissedWhy::Once => "a later one runs for all of them (misfire=once)",
        MissedWhy::Skip => "none is run late (misfire=skip)",
    };
    format!("missed: {}, not handled in time: {why}", runs_of(gap))
}

/// The text for runs whose job was changed before their seconds were handled.
pub fn settled_text(gap: &MissedGap) -> String {
    format!("cancelled: {}: the job was stopped, changed or deleted before they were handled", runs_of(gap))
}

fn runs_of(gap: &MissedGap) -> String {
    let (at_least, runs) = (if gap.at_least { "at least " } else { "" }, if gap.count == 1 { "run" } else { "runs" });
    format!("{at_least}{} {runs} due from {} to {} (unix seconds)", gap.count, gap.first.0, gap.last.0)
}
