//! What the leader decides by and what it writes its decisions into: the jobs with the last second that was taken, and the
//! journal.
//!
//! A change of a job needs both: every second that lies before the change must first be decided, under the definition in
//! force at that second, and the journal must say so. A leader that comes later knows only the new definition, and could
//! not tell what became of them. Normally the ticks decide these seconds. No ticks are taken during a pause, and some changes
//! do not wait for them; there the seconds that the job still owes are journaled as cancelled, in an entry of their own.
//!
//! Invariant: a change goes to the store only after every entry that decides on its job's seconds before its `since`.

pub mod journaler;

use crate::core::jobs::scheduler::Scheduler;
use crate::model::journal::Body;
use crate::model::{JobId, Now, Second};
use journaler::Journaler;

#[derive(Debug)]
pub struct Ledger {
    pub jobs: Scheduler,
    pub journal: Journaler,
}

impl Ledger {
    /// The first second in which a change can be in force that is asked for now: nothing of it is due before its client can
    /// know of it, and no second that is decided is decided again.
    pub fn since(&self, now: Now) -> Second {
        now.wall.second().max(self.jobs.cursor()).plus(1)
    }

    /// Whether ticks are late.
    pub fn is_behind(&self, now: Now) -> bool {
        self.jobs.cursor() < now.wall.second()
    }

    /// Whether all that the job has due before `since` is decided and in the journal.
    pub fn is_decided(&self, id: JobId, since: Second) -> bool {
        !self.jobs.owes(id, since.plus(-1)) && !self.journal.decides_before(since, id)
    }

    /// Cancels what the job, as it is defined now, still owes of before `since`. Answers whether that is anything.
    pub fn settle(&mut self, id: JobId, since: Second) -> bool {
        let last = since.plus(-1);
        let Some(gap) = self.jobs.owed(id, last) else { return false };
        self.jobs.settle(id, last);
        self.journal.push(None, 0, Body { settled: vec![gap], ..Body::default() });
        true
    }
}
