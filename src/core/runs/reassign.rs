//! Taking runs back, because their job was changed or an operator wants them ended.
//!
//! A run that has not begun under its old definition is reassigned: it is given to a node once more where the present
//! definition is due at its second too, and cancelled otherwise.
//!
//! A stop can be in force and not stored. Another node that takes the lead before it is stored does not know of it, and
//! sends the runs; a log row that calls them cancelled would then be false. So these runs wait, in no queue, until the
//! stop is stored.
//!
//! Not here: changes of jobs; see the leader's `changes`.
//!
//! Invariant: a run that a node may have is reassigned only after the node has said that the run has not begun.

use super::desk::Desk;
use super::in_flight::{InFlightRun, Stage, WaitsFor};
use super::rows;
use super::table::RunTable;
use crate::model::journal::Body;
use crate::model::message::ToNode;
use crate::model::{Attempt, JobId, NodeId, Version};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The nodes that have old runs of a job that is being changed.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Cancelling {
    /// Nodes that were told, and will answer.
    pub told: BTreeSet<NodeId>,
    /// Nodes that cannot be reached: their runs may start until their leases are over.
    pub silent: BTreeSet<NodeId>,
}

/// What reassigning remembers.
#[derive(Debug, Default)]
pub struct Reassigning {
    /// Jobs whose stop is in force and not stored.
    undecided: BTreeSet<JobId>,
}

impl Reassigning {
    /// Takes back the job's runs of versions below `below`, or of all versions. Runs that wait here are reassigned;
    /// nodes that have such runs are told to cancel them.
    pub fn cancel(&self, cron_id: JobId, below: Option<Version>, desk: &mut Desk) -> Cancelling {
        let is_waiting = |run: &InFlightRun| run.stage().is_waiting();
        let waiting = older(desk.table, cron_id, below, is_waiting);
        // A run whose entry is still on the way is looked at again when the entry is in.
        let delayed = older(desk.table, cron_id, below, InFlightRun::is_delayed_and_journaled);
        for attempt in waiting.into_iter().chain(delayed) {
            self.reassign(attempt, desk);
        }
        let mut cancelling = Cancelling::default();
        for attempt in older(desk.table, cron_id, below, |run| run.stage() == Stage::Sent) {
            let Some(run) = desk.table.get(attempt) else { continue };
            let is_linked = desk.candidates.has(&run.node);
            let nodes = if is_linked { &mut cancelling.told } else { &mut cancelling.silent };
            nodes.insert(run.node.clone());
        }
        for node in &cancelling.told {
            desk.cx.fx.tell_node(node, ToNode::Cancel { cron_id, below });
        }
        cancelling
    }

    /// A node has dropped these attempts without starting them.
    pub fn on_dropped(&self, dropped: Vec<Attempt>, desk: &mut Desk) {
        for attempt in dropped {
            if desk.table.is(attempt, Stage::Sent) {
                self.reassign(attempt, desk);
            }
        }
    }

    /// Gives a run that has not begun to a node once more, or cancels it. Only first attempts of scheduled runs are
    /// given again: retries and manual runs belong to the old definition.
    pub fn reassign(&self, attempt: Attempt, desk: &mut Desk) {
        let Some(run) = desk.table.get(attempt) else { return };
        let (id, version) = (attempt.run.cron_id, run.job.version);
        let is_first = attempt.run.manual.is_none() && attempt.number == 1;
        let is_due = is_first && !run.is_killed && desk.ledger.jobs.is_due(id, attempt.run.scheduled_at);
        match desk.ledger.jobs.job(id).filter(|_| is_due).cloned() {
            Some(job) => {
                // Without a node it takes no capacity, so that every node can be chosen for it.
                desk.table.plan_again(attempt, Arc::clone(&job), NodeId::default());
                let node = desk.candidates.choose(&job, desk.table).unwrap_or_default();
                desk.ledger.journal.push(None, 0, Body::naming(&[(attempt, job.version, node.clone())]));
                desk.table.plan_again(attempt, job, node);
            }
            None if self.undecided.contains(&id) => {
                desk.table.set_stage(attempt, Stage::Waiting(WaitsFor::Decision));
            }
            None => {
                desk.table.set_stage(attempt, Stage::Over);
                desk.push_row(attempt, version, rows::CANCELLED);
            }
        }
    }

    /// The job's stop is in force and not stored: its runs that are taken back from now on wait for `decide`.
    pub fn leave_undecided(&mut self, id: JobId) {
        self.undecided.insert(id);
    }

    /// The job's stop is stored, or never will be: the runs that it took back are cancelled.
    pub fn decide(&mut self, id: JobId, desk: &mut Desk) {
        if !self.undecided.remove(&id) {
            return;
        }
        let below = desk.ledger.jobs.job(id).map(|job| job.version);
        for attempt in older(desk.table, id, below, |run| run.stage().is_waiting()) {
            self.reassign(attempt, desk);
        }
    }

    /// The jobs whose stop is in force and not stored.
    pub fn undecided(&self) -> impl Iterator<Item = JobId> {
        self.undecided.iter().copied()
    }

    /// Each run that waits for a decision is of a job on which there is one to come.
    pub fn check_invariants(&self, table: &RunTable) {
        let waits = |run: &InFlightRun| run.stage() == Stage::Waiting(WaitsFor::Decision);
        let mut waiting = table.all().filter(|(_, run)| waits(run));
        let is_undecided = |(attempt, _): (&Attempt, _)| self.undecided.contains(&attempt.run.cron_id);
        assert!(waiting.all(is_undecided), "a run waits for a decision that nobody will make");
    }
}

/// Ends an attempt that no node has. Answers whether it is over, so that its permit is free; otherwise its entry is on
/// the way, and the run is dropped when the entry is in.
pub fn kill_here(attempt: Attempt, desk: &mut Desk) -> bool {
    desk.table.set_killed(attempt);
    let may_end = |run: &InFlightRun| run.stage().is_waiting() || run.is_delayed_and_journaled();
    let is_over = desk.table.get(attempt).is_some_and(may_end);
    if is_over {
        drop_killed(attempt, desk);
    }
    is_over
}

/// Writes the row of an attempt that an operator ended before it began.
pub fn drop_killed(attempt: Attempt, desk: &mut Desk) {
    let Some(version) = desk.table.get(attempt).map(|run| run.job.version) else { return };
    desk.table.set_stage(attempt, Stage::Over);
    desk.push_row(attempt, version, rows::KILLED_BEFORE);
}

/// The job's runs of versions below `below`, or of all versions, for which `is_so` holds.
fn older(table: &RunTable, id: JobId, below: Option<Version>, is_so: impl Fn(&InFlightRun) -> bool) -> Vec<Attempt> {
    let is_older = |run: &InFlightRun| below.is_none_or(|below| run.job.version < below);
    let of_job = table.of_job(id).filter(|(_, run)| is_so(run) && is_older(run));
    of_job.map(|(attempt, _)| *attempt).collect()
}
