//! Permits: how many runs of a job may go at one time, one (`is_mutex`) or a few (`max_parallel`). Runs beyond that wait, in
//! the order of their seconds.
//!
//! Not a lock: nothing is stored that a crash could leave set. Each run that may go holds a permit; see `permits_held`.
//!
//! Invariant: a run of a limited job is sent only when it has a permit, and none of its job that came before it waits.

use super::Runs;
use super::sending::Orders;
use super::table::{InFlightRun, Stage, WaitsFor};
use crate::core::Context;
use crate::core::ledger::Ledger;
use crate::model::{Attempt, Job, JobId, NodeId};
use std::sync::Arc;

impl Runs {
    /// Whether one more run of the job would go at once, or wait with no more than may.
    pub fn has_permit(&self, job: &Job) -> bool {
        let Some(parallel_max) = job.parallel_max() else { return true };
        // As many as there are permits run or will go, and the others wait with this one: those too that a former leader had
        // sent, and of which no node has told yet.
        let others = self.table.of_job(job.id).filter(|(_, run)| run.stage != Stage::Over).count();
        (others + 1).saturating_sub(parallel_max) <= self.limits.max_pending_per_job
    }

    /// Free by the word of the run's node that had it, and nobody is ahead.
    pub fn may_go_at_once(&self, job: &Job) -> bool {
        let is_out = |run: &InFlightRun| matches!(run.stage, Stage::Sent | Stage::Moving | Stage::Delayed);
        let is_free = match job.is_mutex {
            // Runs on nodes whose lease is over count as well.
            true => !self.table.of_job(job.id).any(|(_, run)| is_out(run)),
            false => self.permits_left(job) != 0,
        };
        let is_limited = job.parallel_max().is_some();
        !is_limited || is_free && self.table.first_in_queue(job.id).is_none()
    }

    /// A mutex is kept over a delay; but where a lease had ended meanwhile, another run may have it too.
    pub fn has_kept_mutex(&self, job: &Job) -> bool {
        job.is_mutex && self.permits_held(job.id) == 1
    }

    /// Puts it among the runs of its job that wait, in the order of their seconds.
    pub fn wait_for_permit(&mut self, attempt: Attempt) {
        self.table.set_stage(attempt, Stage::Waiting(WaitsFor::Permit));
    }

    /// Gives the job's free permits to the runs that wait for one.
    pub fn grant_permits(&mut self, id: JobId, ledger: &mut Ledger, cx: &mut Context) {
        let is_sent_mutex = |run: &InFlightRun| run.stage == Stage::Sent && run.job.is_mutex;
        let is_by_lease = self.table.of_job(id).any(|(_, run)| is_sent_mutex(run));
        self.grant_permits_after(id, is_by_lease, ledger, cx);
    }

    /// `is_by_lease`: the mutex is free because a lease is over, and not by its holder's word. Another leader, of which we
    /// have not heard, may have made that lease longer; so the next run goes into the journal once more, which tells.
    pub fn grant_permits_after(&mut self, id: JobId, is_by_lease: bool, ledger: &mut Ledger, cx: &mut Context) {
        let Some(job) = self.limited_job(id, ledger) else { return };
        let mut orders = Orders::default();
        while self.permits_left(&job) != 0
            && let Some(next) = self.table.first_in_queue(id)
        {
            match is_by_lease {
                true => self.move_anew(next, ledger),
                false => self.send_or_move(next, &mut orders, ledger, cx),
            }
            // It found no node, so the others would find none either.
            if self.table.is_waiting(next) {
                break;
            }
        }
        orders.send(cx);
    }

    /// The node's mutex runs have surely ended, or may run again.
    pub fn set_released(&mut self, node: &NodeId, is_released: bool) {
        if is_released {
            self.released.insert(node.clone());
        } else {
            self.released.remove(node);
        }
    }

    fn permits_left(&self, job: &Job) -> usize {
        job.parallel_max().map_or(usize::MAX, |max| max.saturating_sub(self.permits_held(job.id)))
    }

    /// How many runs of the job have a permit.
    fn permits_held(&self, id: JobId) -> usize {
        let is_held = |run: &InFlightRun| match run.stage {
            // The guardian of a node whose lease is over has ended its mutex runs, and no others.
            Stage::Sent => !(run.job.is_mutex && self.released.contains(&run.node)),
            Stage::Moving => true,
            Stage::Delayed => run.job.is_mutex,
            Stage::Planned | Stage::Waiting(_) | Stage::Over => false,
        };
        self.table.of_job(id).filter(|(_, run)| is_held(run)).count()
    }

    /// The job for whose permits runs wait, as it is now; or as the first that waits knew it.
    fn limited_job(&self, id: JobId, ledger: &Ledger) -> Option<Arc<Job>> {
        let first = self.table.get(self.table.first_in_queue(id)?)?;
        let limited = ledger.jobs.job(id).filter(|job| job.parallel_max().is_some());
        Some(Arc::clone(limited.unwrap_or(&first.job)))
    }

    fn move_anew(&mut self, attempt: Attempt, ledger: &mut Ledger) {
        let Some(run) = self.table.get(attempt) else { return };
        let node = match run.node.is_nobody() {
            true => self.candidates.choose(&run.job, &self.table).unwrap_or_default(),
            false => run.node.clone(),
        };
        self.move_to(attempt, node, ledger);
    }
}
