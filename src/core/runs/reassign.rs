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

use super::in_flight::{InFlightRun, Stage, WaitsFor};
use super::planning::body;
use super::{Runs, rows};
use crate::core::Context;
use crate::core::ledger::Ledger;
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

impl Runs {
    /// Takes back the job's runs of versions below `below`, or of all versions. Runs that wait here are reassigned;
    /// nodes that have such runs are told to cancel them.
    pub fn cancel(
        &mut self,
        cron_id: JobId,
        below: Option<Version>,
        ledger: &mut Ledger,
        cx: &mut Context,
    ) -> Cancelling {
        let is_waiting = |run: &InFlightRun| run.stage.is_waiting();
        let waiting = self.older(cron_id, below, is_waiting);
        // A run whose entry is still on the way is looked at again when the entry is in.
        let delayed = self.older(cron_id, below, InFlightRun::is_delayed_and_journaled);
        for attempt in waiting.into_iter().chain(delayed) {
            self.reassign(attempt, ledger, cx);
        }
        let mut cancelling = Cancelling::default();
        for attempt in self.older(cron_id, below, |run| run.stage == Stage::Sent) {
            let Some(run) = self.table.get(attempt) else { continue };
            let is_linked = self.candidates.has(&run.node);
            let nodes = if is_linked { &mut cancelling.told } else { &mut cancelling.silent };
            nodes.insert(run.node.clone());
        }
        for node in &cancelling.told {
            cx.fx.tell_node(node, ToNode::Cancel { cron_id, below });
        }
        cancelling
    }

    /// A node has dropped these attempts without starting them.
    pub fn on_dropped(&mut self, cron_id: JobId, dropped: Vec<Attempt>, ledger: &mut Ledger, cx: &mut Context) {
        for attempt in dropped {
            if self.table.is(attempt, Stage::Sent) {
                self.reassign(attempt, ledger, cx);
            }
        }
        self.grant_permits(cron_id, ledger, cx);
    }

    /// Gives a run that has not begun to a node once more, or cancels it. Only first attempts of scheduled runs are
    /// given again: retries and manual runs belong to the old definition.
    pub(super) fn reassign(&mut self, attempt: Attempt, ledger: &mut Ledger, cx: &mut Context) {
        let Some(run) = self.table.get(attempt) else { return };
        let (id, version) = (attempt.run.cron_id, run.job.version);
        let is_first = attempt.run.manual.is_none() && attempt.number == 1;
        let is_due = is_first && !run.is_killed && ledger.jobs.is_due(id, attempt.run.scheduled_at);
        match ledger.jobs.job(id).filter(|_| is_due).cloned() {
            Some(job) => {
                // Without a node it takes no capacity, so that every node can be chosen for it.
                self.table.plan_again(attempt, Arc::clone(&job), NodeId::default());
                let node = self.candidates.choose(&job, &self.table).unwrap_or_default();
                ledger.journal.push(None, 0, body(&[(attempt, job.version, node.clone())]));
                self.table.plan_again(attempt, job, node);
            }
            None if self.undecided.contains(&id) => {
                self.table.set_stage(attempt, Stage::Waiting(WaitsFor::Decision));
            }
            None => {
                self.table.set_stage(attempt, Stage::Over);
                self.push_row(attempt, version, rows::CANCELLED, cx);
            }
        }
    }

    /// The job's stop is in force and not stored: its runs that are taken back from now on wait for `decide`.
    pub fn leave_undecided(&mut self, id: JobId) {
        self.undecided.insert(id);
    }

    /// The job's stop is stored, or never will be: the runs that it took back are cancelled.
    pub fn decide(&mut self, id: JobId, ledger: &mut Ledger, cx: &mut Context) {
        if !self.undecided.remove(&id) {
            return;
        }
        let below = ledger.jobs.job(id).map(|job| job.version);
        for attempt in self.older(id, below, |run| run.stage.is_waiting()) {
            self.reassign(attempt, ledger, cx);
        }
    }

    /// Ends an attempt that no node has.
    pub fn kill_here(&mut self, attempt: Attempt, ledger: &mut Ledger, cx: &mut Context) {
        self.table.set_killed(attempt);
        let Some(run) = self.table.get(attempt) else { return };
        if run.stage.is_waiting() || run.is_delayed_and_journaled() {
            self.drop_killed(attempt, cx);
            self.grant_permits(attempt.run.cron_id, ledger, cx);
        }
        // Otherwise its entry is on the way, and the run is dropped when the entry is in.
    }

    /// Notes that an operator has ended the attempt, which a node has.
    pub fn set_killed(&mut self, attempt: Attempt) {
        self.table.set_killed(attempt);
    }

    /// Writes the row of an attempt that an operator ended before it began.
    pub(super) fn drop_killed(&mut self, attempt: Attempt, cx: &mut Context) {
        let Some(version) = self.table.get(attempt).map(|run| run.job.version) else { return };
        self.table.set_stage(attempt, Stage::Over);
        self.push_row(attempt, version, rows::KILLED_BEFORE, cx);
    }

    /// The job's runs of versions below `below`, or of all versions, for which `is_so` holds.
    fn older(&self, id: JobId, below: Option<Version>, is_so: impl Fn(&InFlightRun) -> bool) -> Vec<Attempt> {
        let is_older = |run: &InFlightRun| below.is_none_or(|below| run.job.version < below);
        let of_job = self.table.of_job(id).filter(|(_, run)| is_so(run) && is_older(run));
        of_job.map(|(attempt, _)| *attempt).collect()
    }
}
