//! Runs that were taken back by a stop which is in force and not stored: whether they are `cancelled` is not decided.
//!
//! Should another node take the lead before the stop is stored, it does not know of it and gives them anew; a row of ours
//! that calls them cancelled would then be false. So they wait, in no queue, until the stop is stored.

use super::table::Stage;
use super::{Around, Runs};
use crate::model::{Attempt, JobId};

impl Runs {
    /// What is taken back of this job from now on waits for `decide`.
    pub fn leave_undecided(&mut self, id: JobId) {
        self.undecided.insert(id);
    }

    /// Whether the run, which is not to be started as the job stands, has to wait for that to be stored.
    pub fn is_undecided(&self, attempt: Attempt) -> bool {
        self.undecided.contains(&attempt.run.cron_id)
    }

    pub fn keep_undecided(&mut self, attempt: Attempt) {
        self.table.set_stage(attempt, Stage::Waiting);
        self.unplaced.remove(&attempt);
    }

    /// The stop is stored: what it took back is cancelled.
    pub fn decide(&mut self, id: JobId, around: &mut Around) {
        if !self.undecided.remove(&id) {
            return;
        }
        let below = around.job(id).map(|job| job.version);
        for attempt in self.of_older_versions(id, below, Stage::Waiting) {
            self.reassign(attempt, around);
        }
    }
}
