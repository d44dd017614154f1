//! The leader's ledger: the jobs with the last second that was taken, and the journal of the decisions on them.
//!
//! A change of a job needs both. Every second before the change must first be decided under the definition in force at
//! that second, and the journal must say so: a later leader knows only the new definition, and could not explain those
//! seconds. Normally the ticks decide them. But no ticks are taken during a pause, and some changes do not wait for
//! ticks; then the seconds that the job still owes are journaled as cancelled, in an entry of their own.
//!
//! Not the place that takes ticks or makes changes: that is the leader's `ticks` and `changes`.
//!
//! Invariant: a change goes to the store only after every entry that decides on its job's seconds before its `since`.

pub mod journaler;

use crate::core::jobs::scheduler::Scheduler;
use crate::model::journal::Body;
use crate::model::{JobId, Now, Second};
use journaler::Journaler;

/// The jobs and the journal, which are changed in step.
#[derive(Debug)]
pub struct Ledger {
    pub jobs: Scheduler,
    pub journal: Journaler,
}

impl Ledger {
    /// The first second in which a change that is asked for now can be in force: it lies after now and after the last
    /// tick that was taken, so that no decided second is decided again.
    pub fn since(&self, now: Now) -> Second {
        now.wall.second().max(self.jobs.cursor()).plus(1)
    }

    /// Whether a second has passed whose tick is not taken yet.
    pub fn is_behind(&self, now: Now) -> bool {
        self.jobs.cursor() < now.wall.second()
    }

    /// Whether all of the job's seconds before `since` are decided and in the journal.
    pub fn is_decided(&self, id: JobId, since: Second) -> bool {
        !self.jobs.owes(id, since.plus(-1)) && !self.journal.decides_before(since, id)
    }

    /// Journals the seconds before `since` that the job, as it is defined now, still owes, as cancelled. Answers
    /// whether there are any.
    pub fn settle(&mut self, id: JobId, since: Second) -> bool {
        let last = since.plus(-1);
        let Some(gap) = self.jobs.owed(id, last) else { return false };
        self.jobs.settle(id, last);
        self.journal.push(None, 0, Body { settled: vec![gap], ..Body::default() });
        true
    }
}
