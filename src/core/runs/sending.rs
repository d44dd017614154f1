//! Sending: one run whose entry is in goes to its node, or to another one, or waits for one.
//!
//! Not the choice of a node: that is `candidates`'. Not the decision that the run may go: that is the gate's.
//!
//! Invariants: no run is sent before its entry is in; of a mutex job at most one run is `Sent` to a node that may still
//! run it.

use super::desk::Desk;
use super::in_flight::{InFlightRun, Stage, WaitsFor};
use super::rows;
use crate::core::io::Effects;
use crate::model::journal::Body;
use crate::model::message::{Order, ToNode};
use crate::model::{Attempt, JobId, NodeId};
use std::collections::BTreeMap;
use std::sync::Arc;

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

/// What sending remembers for as long as the leader leads.
#[derive(Debug, Default)]
pub struct Sending {
    /// How long no node led before this leader.
    away_secs: i64,
}

impl Sending {
    /// No node led for so long before this leader.
    pub fn set_away(&mut self, away_secs: i64) {
        self.away_secs = away_secs;
    }

    /// Sends the run to the node that its entry names. Where that node cannot take it, journals another one first;
    /// where no node can, the run waits. A run that is too late ends here: answers its job where that sets a permit
    /// free, which the caller grants.
    pub fn send_or_move(&self, attempt: Attempt, orders: &mut Orders, desk: &mut Desk) -> Option<JobId> {
        let run = desk.table.get(attempt)?;
        let (job, had_permit) = (Arc::clone(&run.job), !run.stage().is_waiting());
        if self.is_too_late(attempt, run, desk) {
            desk.table.set_stage(attempt, Stage::Over);
            desk.push_row(attempt, job.version, rows::MISSED);
            return had_permit.then_some(job.id);
        }
        if desk.candidates.may_send(&job, &run.node, desk.table) {
            let node = run.node.clone();
            desk.table.set_stage(attempt, Stage::Sent);
            order(attempt, node, orders, desk);
        } else if let Some(node) = desk.candidates.choose(&job, desk.table) {
            move_to(attempt, node, desk);
        } else {
            let waits_for = if job.parallel_max().is_some() { WaitsFor::PermitAndNode } else { WaitsFor::Node };
            desk.table.set_stage(attempt, Stage::Waiting(waits_for));
        }
        None
    }

    /// Whether the grace is over. A run that waits for a permit is late because its job wants that; for such a run only
    /// the time without a leader counts.
    fn is_too_late(&self, attempt: Attempt, run: &InFlightRun, desk: &Desk) -> bool {
        let late_secs = desk.cx.now.wall.second().0 - run.due.second().0;
        let waits_for_permit = run.is_limited() && attempt.number == 1;
        desk.limits.grace_secs < if waits_for_permit { late_secs.min(self.away_secs) } else { late_secs }
    }
}

/// Names another node for the run, by an entry that must be in before the run is sent.
pub fn move_to(attempt: Attempt, node: NodeId, desk: &mut Desk) {
    let Some(version) = desk.table.get(attempt).map(|run| run.job.version) else { return };
    desk.table.move_to(attempt, node.clone());
    desk.ledger.journal.push(None, 0, Body::naming(&[(attempt, version, node)]));
}

/// Adds the order for a run in stage `Sent`.
pub fn order(attempt: Attempt, node: NodeId, orders: &mut Orders, desk: &Desk) {
    let Some(run) = desk.table.get(attempt) else { return };
    let now = desk.cx.now.wall.second();
    orders.push(
        node,
        Order {
            attempt,
            job: Arc::clone(&run.job),
            late: run.late || run.due.second() < now && attempt.run.manual.is_none(),
            expires: (!run.is_limited()).then(|| run.due.second().plus(desk.limits.grace_secs)),
            dispatch_time: now,
            dispatch_server: desk.server.clone(),
        },
    );
}
