//! Permits limit how many runs of a job go at one time: one (`is_mutex`) or a few (`max_parallel`). Further runs wait
//! for a permit, in the order of their seconds.
//!
//! Not a lock: nothing is stored that a crash could leave set. A run has a permit by its stage; see `permits_held`.
//!
//! Invariant: a run of a limited job is sent only when it has a permit, and no earlier run of its job waits for one.

use super::desk::Desk;
use super::in_flight::{InFlightRun, Stage, WaitsFor};
use super::sending::{Orders, Sending, move_to};
use super::table::RunTable;
use crate::core::runs::ledger::Ledger;
use crate::model::{Attempt, Job, JobId, NodeId};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What the permits depend on beside the stages of the runs.
#[derive(Debug, Default)]
pub struct Permits {
    /// Nodes whose mutex runs have surely ended, because their leases are over.
    released: BTreeSet<NodeId>,
}

/// Whether the job may have one more run: the run goes at once, or it is among the first `pending_max` that wait.
pub fn has_permit(job: &Job, table: &RunTable, pending_max: usize) -> bool {
    let Some(parallel_max) = job.parallel_max() else { return true };
    // Of the other runs and this one, as many go as there are permits, and the rest waits. Runs that a former leader
    // sent count even before their node has told of them.
    let others = table.of_job(job.id).filter(|(_, run)| run.stage() != Stage::Over).count();
    (others + 1).saturating_sub(parallel_max) <= pending_max
}

/// Puts the run into its job's queue for a permit, in the order of their seconds.
pub fn wait_for_permit(attempt: Attempt, table: &mut RunTable) {
    table.set_stage(attempt, Stage::Waiting(WaitsFor::Permit));
}

impl Permits {
    /// Whether a planned run of the job may be sent now: it needs no permit, or one is free and no earlier run waits
    /// for it.
    pub fn may_go_at_once(&self, job: &Job, table: &RunTable) -> bool {
        let may_run = |run: &InFlightRun| matches!(run.stage(), Stage::Sent | Stage::Moving | Stage::Delayed);
        let is_free = match job.is_mutex {
            // A run on a node whose lease is over counts as well: here only that node's own report frees the mutex.
            true => !table.of_job(job.id).any(|(_, run)| may_run(run)),
            false => self.permits_left(job, table) != 0,
        };
        let is_limited = job.parallel_max().is_some();
        !is_limited || is_free && table.first_in_queue(job.id).is_none()
    }

    /// Whether only the job's delayed run has the mutex. It keeps the mutex during its delay; but another run may have
    /// it too, where a node's lease ended meanwhile.
    pub fn has_kept_mutex(&self, job: &Job, table: &RunTable) -> bool {
        job.is_mutex && self.permits_held(job.id, table) == 1
    }

    /// Gives the job's free permits to the runs that wait for one.
    pub fn grant(&self, id: JobId, sending: &Sending, desk: &mut Desk) {
        let is_sent_mutex = |run: &InFlightRun| run.stage() == Stage::Sent && run.job.is_mutex;
        let is_by_lease = desk.table.of_job(id).any(|(_, run)| is_sent_mutex(run));
        self.grant_after(id, is_by_lease, sending, desk);
    }

    /// As `grant`. `is_by_lease`: the mutex is free because a lease is over, and not because the run's node reported it.
    /// A leader that this one does not know of may have extended that lease. So the next run is journaled once more,
    /// which fails where there is such a leader.
    pub fn grant_after(&self, id: JobId, is_by_lease: bool, sending: &Sending, desk: &mut Desk) {
        let Some(job) = limited_job(id, desk.table, desk.ledger) else { return };
        let mut orders = Orders::default();
        while self.permits_left(&job, desk.table) != 0
            && let Some(next) = desk.table.first_in_queue(id)
        {
            if is_by_lease {
                move_anew(next, desk);
            } else {
                let freed = sending.send_or_move(next, &mut orders, desk);
                debug_assert_eq!(freed, None, "{next}: it waited, so it had no permit to give back");
            }
            // No node takes the run, so it waits again. The other runs of its job would find no node either.
            if desk.table.is_waiting(next) {
                break;
            }
        }
        orders.send(desk.cx.fx);
    }

    /// Notes that the node's mutex runs have surely ended, or that they may run again.
    pub fn set_released(&mut self, node: &NodeId, is_released: bool) {
        if is_released {
            self.released.insert(node.clone());
        } else {
            self.released.remove(node);
        }
    }

    fn permits_left(&self, job: &Job, table: &RunTable) -> usize {
        job.parallel_max().map_or(usize::MAX, |max| max.saturating_sub(self.permits_held(job.id, table)))
    }

    /// How many runs of the job have a permit.
    fn permits_held(&self, id: JobId, table: &RunTable) -> usize {
        let is_held = |run: &InFlightRun| match run.stage() {
            // The guardian of a node whose lease is over has ended its mutex runs, and no others.
            Stage::Sent => !(run.job.is_mutex && self.released.contains(&run.node)),
            Stage::Moving => true,
            Stage::Delayed => run.job.is_mutex,
            Stage::Planned | Stage::Waiting(_) | Stage::Over => false,
        };
        table.of_job(id).filter(|(_, run)| is_held(run)).count()
    }
}

/// The job with this id, if runs wait for its permits: by its present definition or, where the job is gone or has no
/// limit any more, by that of the first waiting run.
fn limited_job(id: JobId, table: &RunTable, ledger: &Ledger) -> Option<Arc<Job>> {
    let first = table.get(table.first_in_queue(id)?)?;
    let limited = ledger.jobs.job(id).filter(|job| job.parallel_max().is_some());
    Some(Arc::clone(limited.unwrap_or(&first.job)))
}

/// Journals the run once more before it is sent, under its node where it has one.
fn move_anew(attempt: Attempt, desk: &mut Desk) {
    let Some(run) = desk.table.get(attempt) else { return };
    let node = match run.node.is_nobody() {
        true => desk.candidates.choose(&run.job, desk.table).unwrap_or_default(),
        false => run.node.clone(),
    };
    move_to(attempt, node, desk);
}
