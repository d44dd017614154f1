//! Taking runs back: because their job was changed, or an operator wants them ended.
//!
//! A run that was not started under its old definition is reassigned: given anew where the present definition is due then
//! too, else told as cancelled.
//!
//! A stop can be in force and not stored. Should another node take the lead before it is stored, that node does not know of
//! it and gives the runs anew; a row of ours that calls them cancelled would then be false. So these runs wait, in no
//! queue, until the stop is stored.
//!
//! Invariant: a run that a node may have is never reassigned without the node's word that it has not begun.

use super::planning::body;
use super::table::{InFlightRun, Stage, WaitsFor};
use super::{Runs, rows};
use crate::core::Context;
use crate::core::ledger::Ledger;
use crate::model::message::ToNode;
use crate::model::{Attempt, JobId, NodeId, RunState, Version};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Which nodes have old runs of a job that is being changed.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Cancelling {
    /// They will answer.
    pub told: BTreeSet<NodeId>,
    /// They cannot be reached: what they have may start until their leases are over.
    pub silent: BTreeSet<NodeId>,
}

impl Runs {
    /// Takes back the job's runs of older versions (with none: of all). Those that wait here are reassigned; nodes that
    /// have some are told.
    pub fn cancel(
        &mut self,
        cron_id: JobId,
        below: Option<Version>,
        ledger: &mut Ledger,
        cx: &mut Context,
    ) -> Cancelling {
        let is_waiting = |run: &InFlightRun| run.stage.is_waiting();
        // One whose entry is still on its way is looked at when that is in.
        let is_delayed = |run: &InFlightRun| run.stage == Stage::Delayed && run.entry.is_some();
        let waiting = self.older(cron_id, below, is_waiting);
        for attempt in waiting.into_iter().chain(self.older(cron_id, below, is_delayed)) {
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

    /// The node has dropped these without starting them.
    pub fn on_dropped(&mut self, cron_id: JobId, dropped: Vec<Attempt>, ledger: &mut Ledger, cx: &mut Context) {
        for attempt in dropped {
            if self.table.is(attempt, Stage::Sent) {
                self.reassign(attempt, ledger, cx);
            }
        }
        self.grant_permits(cron_id, ledger, cx);
    }

    /// Further attempts and manual runs were asked of the old definition only.
    pub fn reassign(&mut self, attempt: Attempt, ledger: &mut Ledger, cx: &mut Context) {
        let Some(run) = self.table.get(attempt) else { return };
        let (id, version) = (attempt.run.cron_id, run.job.version);
        let is_first = attempt.run.manual.is_none() && attempt.number == 1;
        let is_due = is_first && !run.is_killed && ledger.jobs.is_due(id, attempt.run.scheduled_at);
        match ledger.jobs.job(id).filter(|_| is_due).cloned() {
            Some(job) => {
                // It takes no capacity while a node is chosen for it.
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
                self.push_row(attempt, version, RunState::Cancelled, rows::CANCELLED, cx);
            }
        }
    }

    /// What is taken back of this job from now on waits for `decide`: its stop is in force and not stored.
    pub fn leave_undecided(&mut self, id: JobId) {
        self.undecided.insert(id);
    }

    /// The stop is stored: what it took back is cancelled.
    pub fn decide(&mut self, id: JobId, ledger: &mut Ledger, cx: &mut Context) {
        if !self.undecided.remove(&id) {
            return;
        }
        let below = ledger.jobs.job(id).map(|job| job.version);
        for attempt in self.older(id, below, |run| run.stage.is_waiting()) {
            self.reassign(attempt, ledger, cx);
        }
    }

    /// Ends an attempt that no node has: it will not begin.
    pub fn kill_here(&mut self, attempt: Attempt, ledger: &mut Ledger, cx: &mut Context) {
        self.table.set_killed(attempt);
        let Some(run) = self.table.get(attempt) else { return };
        if run.stage.is_waiting() || run.stage == Stage::Delayed && run.entry.is_some() {
            self.drop_killed(attempt, cx);
            self.grant_permits(attempt.run.cron_id, ledger, cx);
        }
        // Else its entry is on its way: it is dropped when that is in.
    }

    /// The node that has it is told to end it.
    pub fn set_killed(&mut self, attempt: Attempt) {
        self.table.set_killed(attempt);
    }

    pub fn drop_killed(&mut self, attempt: Attempt, cx: &mut Context) {
        let Some(version) = self.table.get(attempt).map(|run| run.job.version) else { return };
        self.table.set_stage(attempt, Stage::Over);
        self.push_row(attempt, version, RunState::Cancelled, rows::KILLED_BEFORE, cx);
    }

    /// The job's runs of versions below this one (with none: of all) that are so.
    fn older(&self, id: JobId, below: Option<Version>, is_so: impl Fn(&InFlightRun) -> bool) -> Vec<Attempt> {
        let is_older = |run: &InFlightRun| below.is_none_or(|below| run.job.version < below);
        let of_job = self.table.of_job(id).filter(|(_, run)| is_so(run) && is_older(run));
        of_job.map(|(attempt, _)| *attempt).collect()
    }
}
