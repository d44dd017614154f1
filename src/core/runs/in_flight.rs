//! An in-flight run, and the stages that it goes through.
//!
//! Not the place that changes it: that is the table's alone.
//!
//! Invariant: a run goes from stage to stage only as `Stage::may_become` allows.

use crate::model::journal::EntryId;
use crate::model::{Job, Mono, NodeId, Wall};
use std::sync::Arc;

/// An attempt that the leader has planned, until its log row is committed.
#[derive(Clone, Debug)]
pub struct InFlightRun {
    pub job: Arc<Job>,
    /// The entry that names it last; none while its first one is on the way.
    pub entry: Option<EntryId>,
    /// The entry of the attempt before it, which stays open until its own is in.
    pub keeps_open: Option<EntryId>,
    /// The node that the last entry names.
    pub node: NodeId,
    pub stage: Stage,
    pub late: bool,
    /// When it may begin: its second, or the end of a retry's delay.
    pub due: Wall,
    /// The end of a retry's delay, which no step of the wall clock makes shorter.
    pub ready_at: Mono,
    /// An operator wants it ended: it is not given to a node any more, and has no further attempt.
    pub is_killed: bool,
    /// Its further attempt was decided on, and may be over already: there is no second one.
    pub is_followed: bool,
    /// Its log row is being looked for since the node said that it does not have the run; an answer counts only for the
    /// question with this number. 0: nothing is asked.
    pub question: u64,
}

impl InFlightRun {
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

    /// Whether only so many runs of its job may go at one time.
    pub fn is_limited(&self) -> bool {
        self.job.parallel_max().is_some()
    }
}

/// How far the leader has come with a run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// Its entry is on the way into the journal.
    Planned,
    Waiting(WaitsFor),
    /// A further attempt whose delay is not over. It keeps its mutex.
    Delayed,
    /// It has its permit, and the entry that names another node for it is on the way.
    Moving,
    /// The node may have it.
    Sent,
    Over,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WaitsFor {
    /// As many of its job run as may.
    Permit,
    /// No node is there to take it.
    Node,
    /// It had a permit, and no node was there to take it.
    PermitAndNode,
    /// Its job was stopped, and the store has yet to take the stop.
    Decision,
}

impl Stage {
    /// Whether it waits here, for whatever.
    pub fn is_waiting(self) -> bool {
        matches!(self, Stage::Waiting(_))
    }

    /// Whether a run goes from this stage to that one. Only `RunTable::plan_again` leads back to `Planned`.
    pub fn may_become(self, next: Stage) -> bool {
        match next {
            Stage::Over => true,
            Stage::Planned | Stage::Delayed => false,
            Stage::Waiting(_) | Stage::Moving | Stage::Sent => self != Stage::Over,
        }
    }
}
