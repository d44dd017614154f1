//! Sending: runs whose entry is in go to their nodes, a limited number within one input.
//!
//! Not the choice of a node: that is `candidates`'.
//!
//! Invariants: no run is sent before its entry is in, and none of a tick before its part 0 is; of a mutex job at most
//! one run is `Sent` to a node that may still run it. A run in stage `Planned` or `Moving` is never forgotten: either an
//! entry under way names it, or one of the lists here has it. A further attempt in stage `Delayed` is named by its first
//! entry, while that is under way. No other run is named or listed.

use super::in_flight::{InFlightRun, Stage, WaitsFor};
use super::memory::Sending;
use super::planning::body;
use super::{Runs, rows};
use crate::core::Context;
use crate::core::io::Effects;
use crate::core::ledger::Ledger;
use crate::core::ledger::journaler::Journaler;
use crate::model::journal::Body;
use crate::model::message::{Order, ToNode};
use crate::model::{Attempt, Job, Mono, NodeId, Now};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Limit of the runs that are sent within one input, so that no input takes long.
const RELEASE_MAX: usize = 1_000;

impl Sending {
    /// Holds the runs of a part back until the tick is whole. Parts are written from the highest number down, so a
    /// later part goes in front.
    pub fn hold_back(&mut self, attempts: impl Iterator<Item = Attempt>) {
        self.held_back.splice(0..0, attempts);
    }

    /// The tick is whole: its runs may be sent.
    pub fn release_held_back(&mut self) {
        self.releasing.extend(self.held_back.drain(..));
    }

    /// When the next runs are sent: at once, but with a later input than the last ones.
    pub fn next_at(&self) -> Option<Mono> {
        (!self.releasing.is_empty()).then_some(Mono(self.released_at.0 + 1))
    }
}

/// Orders on their way, by node.
#[derive(Debug, Default)]
pub struct Orders(BTreeMap<NodeId, Vec<Order>>);

impl Orders {
    /// Adds an order; it goes with the others to its node.
    pub fn push(&mut self, node: NodeId, order: Order) {
        self.0.entry(node).or_default().push(order);
    }

    /// Sends one message to each node.
    pub fn send(self, fx: &mut Effects) {
        for (node, orders) in self.0 {
            fx.tell_node(&node, ToNode::Dispatch(orders));
        }
    }
}

impl Runs {
    /// When `release_some` has runs to send; none where there are none.
    pub fn release_at(&self) -> Option<Mono> {
        self.sending.next_at()
    }

    /// Sends runs that may be sent, at most `RELEASE_MAX`, and once within one input.
    pub fn release_some(&mut self, ledger: &mut Ledger, cx: &mut Context) {
        if self.sending.next_at().is_none_or(|at| cx.now.mono < at) {
            return;
        }
        self.sending.released_at = cx.now.mono;
        let mut orders = Orders::default();
        for _ in 0..RELEASE_MAX {
            let Some(attempt) = self.sending.releasing.pop_front() else { break };
            self.release(attempt, &mut orders, ledger, cx);
        }
        orders.send(cx.fx);
    }

    /// Sends a planned run, or lets it wait for a permit. Where its job has changed meanwhile, the run is reassigned.
    fn release(&mut self, attempt: Attempt, orders: &mut Orders, ledger: &mut Ledger, cx: &mut Context) {
        let Some(run) = self.table.get(attempt) else { return };
        let (stage, job) = (run.stage, Arc::clone(&run.job));
        if !matches!(stage, Stage::Planned | Stage::Moving) {
            return;
        }
        if run.is_killed {
            self.drop_killed(attempt, cx);
        } else if ledger.jobs.job(job.id).is_none_or(|now| now.version != job.version) {
            self.reassign(attempt, ledger, cx);
        } else if stage == Stage::Planned && !self.may_go_at_once(&job) {
            self.wait_for_permit(attempt);
        } else {
            return self.send_or_move(attempt, orders, ledger, cx);
        }
        self.grant_permits(job.id, ledger, cx);
    }

    /// Sends the run to the node that its entry names. Where that node cannot take it, journals another one first;
    /// where no node can, the run waits.
    pub(super) fn send_or_move(
        &mut self,
        attempt: Attempt,
        orders: &mut Orders,
        ledger: &mut Ledger,
        cx: &mut Context,
    ) {
        let Some(run) = self.table.get(attempt) else { return };
        let (job, had_permit) = (Arc::clone(&run.job), !run.stage.is_waiting());
        if self.is_too_late(attempt, run, cx.now) {
            self.table.set_stage(attempt, Stage::Over);
            self.push_row(attempt, job.version, rows::MISSED, cx);
            if had_permit {
                self.grant_permits(job.id, ledger, cx);
            }
        } else if self.candidates.may_send(&job, &run.node, &self.table) {
            let node = run.node.clone();
            self.table.set_stage(attempt, Stage::Sent);
            self.order(attempt, node, orders, cx.now);
        } else if let Some(node) = self.candidates.choose(&job, &self.table) {
            self.move_to(attempt, node, ledger);
        } else {
            let waits_for = if job.parallel_max().is_some() { WaitsFor::PermitAndNode } else { WaitsFor::Node };
            self.table.set_stage(attempt, Stage::Waiting(waits_for));
        }
    }

    /// Names another node for the run, by an entry that must be in before the run is sent.
    pub(super) fn move_to(&mut self, attempt: Attempt, node: NodeId, ledger: &mut Ledger) {
        let Some(version) = self.table.get(attempt).map(|run| run.job.version) else { return };
        self.table.move_to(attempt, node.clone());
        ledger.journal.push(None, 0, body(&[(attempt, version, node)]));
    }

    /// Adds the order for a run in stage `Sent`.
    pub(super) fn order(&self, attempt: Attempt, node: NodeId, orders: &mut Orders, now: Now) {
        let Some(run) = self.table.get(attempt) else { return };
        orders.push(
            node,
            Order {
                attempt,
                job: Arc::clone(&run.job),
                late: run.late || run.due.second() < now.wall.second() && attempt.run.manual.is_none(),
                expires: (!run.is_limited()).then(|| run.due.second().plus(self.limits.grace_secs)),
                dispatch_time: now.wall.second(),
                dispatch_server: self.server.clone(),
            },
        );
    }

    /// Finds nodes for the runs that had none.
    pub(super) fn place_unplaced(&mut self, ledger: &mut Ledger, cx: &mut Context) {
        if self.table.unplaced().is_empty() || !self.candidates.takes_any(None) {
            return;
        }
        let mut orders = Orders::default();
        let unplaced: Vec<Attempt> = self.table.unplaced().iter().copied().collect();
        for attempt in unplaced {
            match self.table.stage(attempt) {
                Some(Stage::Waiting(WaitsFor::PermitAndNode)) => {
                    self.wait_for_permit(attempt);
                    self.grant_permits(attempt.run.cron_id, ledger, cx);
                }
                Some(Stage::Waiting(WaitsFor::Node)) => self.send_or_move(attempt, &mut orders, ledger, cx),
                _ => {}
            }
        }
        orders.send(cx.fx);
    }

    /// Whether the grace is over. A run that waits for a permit is late because its job wants that; for such a run only
    /// the time without a leader counts.
    fn is_too_late(&self, attempt: Attempt, run: &InFlightRun, now: Now) -> bool {
        let late_secs = now.wall.second().0 - run.due.second().0;
        let waits_for_permit = run.is_limited() && attempt.number == 1;
        self.limits.grace_secs < if waits_for_permit { late_secs.min(self.recovery.away_secs) } else { late_secs }
    }

    /// Recounts the runs that go on by themselves, and compares: none is forgotten, and none goes on twice.
    pub(super) fn check_sending(&self, journal: &Journaler) {
        let Sending { held_back, releasing, .. } = &self.sending;
        let listed: BTreeSet<Attempt> = held_back.iter().chain(releasing).copied().collect();
        assert_eq!(listed.len(), held_back.len() + releasing.len(), "a run is to be sent twice: {:?}", self.sending);
        let under_way: BTreeSet<Attempt> = journal.under_way().flat_map(|entry| named(&entry.body)).collect();
        for (attempt, run) in self.table.all() {
            let is_journaled = run.entry.is_some();
            let expect = match run.stage {
                Stage::Planned | Stage::Moving if listed.contains(attempt) => (is_journaled, false),
                Stage::Planned | Stage::Moving => (false, true),
                Stage::Delayed => (false, !is_journaled),
                Stage::Waiting(_) | Stage::Sent | Stage::Over => (false, false),
            };
            let found = (listed.contains(attempt), under_way.contains(attempt));
            assert_eq!(found, expect, "{attempt}: {run:?}: whether it is listed, whether an entry under way names it");
        }
    }

    /// Whether the run was planned under the job's present definition, and may run under it.
    pub(super) fn is_current(&self, attempt: Attempt, ledger: &Ledger) -> bool {
        let version = self.table.get(attempt).map(|run| run.job.version);
        let may_run = |job: &&Arc<Job>| !job.stop || attempt.run.manual.is_some();
        ledger.jobs.job(attempt.run.cron_id).filter(may_run).is_some_and(|job| Some(job.version) == version)
    }
}

/// The attempts that go on when an entry with this body is in, the refused ones to their end.
fn named(body: &Body) -> impl Iterator<Item = Attempt> {
    let refused = body.refused.iter().map(|refused| Attempt { run: refused.run, number: 1 });
    let delayed = body.delayed.iter().map(|delayed| delayed.attempt);
    body.runs.iter().map(|run| run.attempt).chain(delayed).chain(refused)
}
