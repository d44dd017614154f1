//! Permits limit how many runs of a job go at one time: one (`is_mutex`) or a few (`max_parallel`). Further runs wait
//! for a permit, in the order of their seconds.
//!
//! Not a lock: nothing is stored that a crash could leave set. A run has a permit by its stage; see `permits_held`.
//!
//! Invariant: a run of a limited job is sent only when it has a permit, and no earlier run of its job waits for one.

use super::Runs;
use super::in_flight::{InFlightRun, Stage, WaitsFor};
use super::sending::Orders;
use crate::core::Context;
use crate::core::ledger::Ledger;
use crate::model::{Attempt, Job, JobId, NodeId};
use std::sync::Arc;

impl Runs {
    /// Whether the job may have one more run: the run goes at once, or it is among the first `max_pending_per_job` that
    /// wait.
    pub(super) fn has_permit(&self, job: &Job) -> bool {
        let Some(parallel_max) = job.parallel_max() else { return true };
        // Of the other runs and this one, as many go as there are permits, and the rest waits. Runs that a former
        // leader sent count even before their node has told of them.
        let others = self.table.of_job(job.id).filter(|(_, run)| run.stage != Stage::Over).count();
        (others + 1).saturating_sub(parallel_max) <= self.limits.max_pending_per_job
    }

    /// Whether a planned run of the job may be sent now: it needs no permit, or one is free and no earlier run waits
    /// for it.
    pub(super) fn may_go_at_once(&self, job: &Job) -> bool {
        let may_run = |run: &InFlightRun| matches!(run.stage, Stage::Sent | Stage::Moving | Stage::Delayed);
        let is_free = match job.is_mutex {
            // A run on a node whose lease is over counts as well: here only that node's own report frees the mutex.
            true => !self.table.of_job(job.id).any(|(_, run)| may_run(run)),
            false => self.permits_left(job) != 0,
        };
        let is_limited = job.parallel_max().is_some();
        !is_limited || is_free && self.table.first_in_queue(job.id).is_none()
    }

    /// Whether only the job's delayed run has the mutex. It keeps the mutex during its delay; but another run may have
    /// it too, where a node's lease ended meanwhile.
    pub(super) fn has_kept_mutex(&self, job: &Job) -> bool {
        job.is_mutex && self.permits_held(job.id) == 1
    }

    /// Puts the run into its job's queue for a permit, in the order of their seconds.
    pub(super) fn wait_for_permit(&mut self, attempt: Attempt) {
        self.table.set_stage(attempt, Stage::Waiting(WaitsFor::Permit));
    }

    /// Gives the job's free permits to the runs that wait for one.
    pub(super) fn grant_permits(&mut self, id: JobId, ledger: &mut Ledger, cx: &mut Context) {
        let is_sent_mutex = |run: &InFlightRun| run.stage == Stage::Sent && run.job.is_mutex;
        let is_by_lease = self.table.of_job(id).any(|(_, run)| is_sent_mutex(run));
        self.grant_permits_after(id, is_by_lease, ledger, cx);
    }

    /// As `grant_permits`. `is_by_lease`: the mutex is free because a lease is over, and not because the run's node
    /// reported it. A leader that this one does not know of may have extended that lease. So the next run is journaled
    /// once more, which fails where there is such a leader.
    pub(super) fn grant_permits_after(&mut self, id: JobId, is_by_lease: bool, ledger: &mut Ledger, cx: &mut Context) {
        let Some(job) = self.limited_job(id, ledger) else { return };
        let mut orders = Orders::default();
        while self.permits_left(&job) != 0
            && let Some(next) = self.table.first_in_queue(id)
        {
            match is_by_lease {
                true => self.move_anew(next, ledger),
                false => self.send_or_move(next, &mut orders, ledger, cx),
            }
            // No node takes the run, so it waits again. The other runs of its job would find no node either.
            if self.table.is_waiting(next) {
                break;
            }
        }
        orders.send(cx.fx);
    }

    /// Notes that the node's mutex runs have surely ended, or that they may run again.
    pub(super) fn set_released(&mut self, node: &NodeId, is_released: bool) {
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

    /// The job with this id, if runs wait for its permits: by its present definition or, where the job is gone or has
    /// no limit any more, by that of the first waiting run.
    fn limited_job(&self, id: JobId, ledger: &Ledger) -> Option<Arc<Job>> {
        let first = self.table.get(self.table.first_in_queue(id)?)?;
        let limited = ledger.jobs.job(id).filter(|job| job.parallel_max().is_some());
        Some(Arc::clone(limited.unwrap_or(&first.job)))
    }

    /// Journals the run once more before it is sent, under its node where it has one.
    fn move_anew(&mut self, attempt: Attempt, ledger: &mut Ledger) {
        let Some(run) = self.table.get(attempt) else { return };
        let node = match run.node.is_nobody() {
            true => self.candidates.choose(&run.job, &self.table).unwrap_or_default(),
            false => run.node.clone(),
        };
        self.move_to(attempt, node, ledger);
    }
}
