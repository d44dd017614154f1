//! What a change of a job stands on: each second before it is decided, under the definition that was in force then, and the
//! journal says so. A leader that comes later knows only the new definition, and could not tell what became of them.
//!
//! Ticks decide them, while they are taken. During a pause none are, and a stop that does not wait for the store comes before
//! them: there what the job still owes is settled by an entry of its own, as cancelled.
//!
//! Invariant: a change goes to the store only after every entry that decides on seconds before its `since`.

use crate::core::journaler::Journaler;
use crate::core::scheduler::Scheduler;
use crate::model::journal::Body;
use crate::model::{Epoch, JobId, Now, Second};

#[derive(Debug)]
pub struct Ground<'a> {
    pub epoch: Epoch,
    pub scheduler: &'a mut Scheduler,
    pub journaler: &'a mut Journaler,
    /// What is not decided yet will soon be, by its tick.
    pub takes_ticks: bool,
    pub now: Now,
}

impl Ground<'_> {
    /// The first second in which a change can be in force that is asked for now: nothing of it is due before its client can
    /// know of it, and no second that is decided is decided again.
    pub fn since(&self) -> Second {
        self.now.wall.second().max(self.scheduler.cursor()).plus(1)
    }

    /// Whether all that the job has due before `since` is decided and in the journal. Where no tick will decide it, it is settled,
    /// and the answer is yes once that is in.
    pub fn is_decided(&mut self, id: JobId, since: Second) -> bool {
        if !self.takes_ticks {
            self.settle(id, since);
        }
        self.scheduler.owed(id, since.plus(-1)).is_none() && !self.journaler.decides_before(since, id)
    }

    /// What the job, as it is defined now, still owes of before `since` is cancelled.
    pub fn settle(&mut self, id: JobId, since: Second) {
        let last = since.plus(-1);
        if let Some(gap) = self.scheduler.owed(id, last) {
            self.scheduler.settle(id, last);
            self.journaler.push(None, 0, Body { settled: vec![gap], ..Body::default() });
        }
    }
}
