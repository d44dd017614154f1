//! An in-flight run, and the stages that it goes through.
//!
//! Not here: changes of a run; only the table makes them.
//!
//! Invariant: a run goes from stage to stage only as `Stage::may_become` allows.

use crate::model::journal::EntryId;
use crate::model::{Job, Mono, NodeId, Wall};
use std::sync::Arc;

/// An attempt that the leader has in hand, from its plan to its committed log row.
#[derive(Clone, Debug)]
pub struct InFlightRun {
    pub job: Arc<Job>,
    /// The last entry that names it; none while its first one is on the way.
    pub entry: Option<EntryId>,
    /// The entry of the attempt before it, which stays open until this attempt's own is in.
    pub keeps_open: Option<EntryId>,
    /// The node that the last entry names.
    pub node: NodeId,
    pub stage: Stage,
    /// It was planned after its second, or left by a former leader.
    pub late: bool,
    /// When it may begin: its second, or the end of a retry's delay.
    pub due: Wall,
    /// The end of a retry's delay by the monotonic clock, so that no step of the wall clock makes the delay shorter.
    pub ready_at: Mono,
    /// An operator wants it ended: it is not given to a node any more, and has no further attempt.
    pub is_killed: bool,
    /// It is decided whether a further attempt follows; so none is planned again, even where that one is over already.
    pub is_followed: bool,
    /// The number of the question for its log row, which is asked because its node said that it does not have the run.
    /// Only the answer to this question counts. 0: nothing is asked.
    pub question: u64,
}

impl InFlightRun {
    /// A run whose entry is on the way. `node`: the node that the entry names, or nobody.
    pub fn planned(job: Arc<Job>, node: NodeId, late: bool, due: Wall) -> InFlightRun {
        InFlightRun {
            job,
            entry: None,
            keeps_open: None,
            node,
            stage: Stage::Planned,
            late,
            due,
            ready_at: Mono(0),
            is_killed: false,
            is_followed: false,
            question: 0,
        }
    }

    /// Whether its job limits how many of its runs may go at one time.
    pub fn is_limited(&self) -> bool {
        self.job.parallel_max().is_some()
    }
}

/// How far the leader has come with a run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// Its entry is on the way into the journal.
    Planned,
    /// Its entry is in the journal, and the run waits here.
    Waiting(WaitsFor),
    /// A further attempt whose delay is not over. It keeps the mutex of the attempt before it.
    Delayed,
    /// It has its permit, and the entry that names another node for it is on the way.
    Moving,
    /// Its node may have it.
    Sent,
    /// It has ended or will not begin; its log row is not known to be committed.
    Over,
}

/// The thing that a waiting run waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WaitsFor {
    /// A permit of its job.
    Permit,
    /// A node that takes it.
    Node,
    /// It had a permit, and no node was there to take it: it needs both.
    PermitAndNode,
    /// Its job was stopped, and the store has yet to take the stop.
    Decision,
}

impl Stage {
    /// Whether a run in this stage waits on the leader.
    pub fn is_waiting(self) -> bool {
        matches!(self, Stage::Waiting(_))
    }

    /// Whether a run may go from this stage to `next`. Only `RunTable::plan_again` leads back to `Planned`.
    pub fn may_become(self, next: Stage) -> bool {
        match next {
            Stage::Over => true,
            Stage::Planned | Stage::Delayed => false,
            Stage::Waiting(_) | Stage::Moving | Stage::Sent => self != Stage::Over,
        }
    }
}
