//! What a change of a job stands on: every second that lies before the change must first be decided, under the definition in
//! force at that second, and the journal must say so. A leader that comes later knows only the new definition, and could
//! not tell what became of them.
//!
//! Normally the ticks decide these seconds. No ticks are taken during a pause, and some changes do not wait for them; there
//! the seconds that the job still owes are journaled as cancelled, in an entry of their own.
//!
//! Invariant: a change goes to the store only after every entry that decides on its job's seconds before its `since`.

use crate::core::jobs::scheduler::Scheduler;
use crate::core::journaler::Journaler;
use crate::model::journal::Body;
use crate::model::{Epoch, JobId, Now, Second};

#[derive(Debug)]
pub struct Ground<'a> {
    pub epoch: Epoch,
    pub scheduler: &'a mut Scheduler,
    pub journaler: &'a mut Journaler,
    /// Neither paused nor leaving: what is not decided yet soon will be, by its tick.
    pub takes_ticks: bool,
    pub now: Now,
}

impl Ground<'_> {
    /// The first second in which a change can be in force that is asked for now: nothing of it is due before its client can
    /// know of it, and no second that is decided is decided again.
    pub fn since(&self) -> Second {
        self.now.wall.second().max(self.scheduler.cursor()).plus(1)
    }

    /// Whether ticks are late.
    pub fn is_behind(&self) -> bool {
        self.scheduler.cursor() < self.now.wall.second()
    }

    /// Whether all that the job has due before `since` is decided and in the journal.
    pub fn is_decided(&self, id: JobId, since: Second) -> bool {
        !self.scheduler.owes(id, since.plus(-1)) && !self.journaler.decides_before(since, id)
    }

    /// Cancels what the job, as it is defined now, still owes of before `since`. Answers whether that is anything.
    pub fn settle(&mut self, id: JobId, since: Second) -> bool {
        let last = since.plus(-1);
        let Some(gap) = self.scheduler.owed(id, last) else { return false };
        self.scheduler.settle(id, last);
        self.journaler.push(None, 0, Body { settled: vec![gap], ..Body::default() });
        true
    }
}
