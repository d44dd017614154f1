//! Recovery of runs whose leader or node was lost.
//!
//! A run that a former leader left open, or that was sent to a node which was cut off, may have been started. It is
//! given to a node again only when the node that the last entry names has said, under this leader, that it neither
//! holds nor started it, and its log row, read after that, is not there. Where that node has said nothing by the end of
//! the grace, the run is `lost`.
//!
//! Not the retries of attempts that failed: those are `retry`'s.
//!
//! Invariant: a run of a mutex job that may be running keeps its permit until it is known to be over.

use super::in_flight::{InFlightRun, Stage, WaitsFor};
use super::retry::Ended;
use super::sending::Orders;
use super::{Runs, rows, settled_to};
use crate::core::Context;
use crate::core::ledger::Ledger;
use crate::model::journal::{EntryId, StoredEntry};
use crate::model::message::{Held, ToNode};
use crate::model::{Attempt, Job, JobId, NodeId, Now, RunKey, RunState, Second, Version};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A former leader's runs, as the store tells them.
pub struct Left<'a> {
    /// The entries that are not done.
    pub open: &'a [StoredEntry],
    /// The rows of the runs that the open entries name, of all attempts.
    pub logged: &'a BTreeMap<Attempt, RunState>,
    /// The last tick whose entry is whole.
    pub watermark: Option<Second>,
}

/// A run as an open entry names it.
struct LeftRun {
    entry: EntryId,
    attempt: Attempt,
    version: Version,
    node: NodeId,
    stage: Stage,
    due: Second,
}

/// Attempts that their node neither holds nor started. Their log rows have to be read now.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Unknown {
    pub attempts: Vec<Attempt>,
    /// The number of that question.
    pub question: u64,
}

impl Runs {
    /// Takes in the entries that a former leader left open. Every run without a row may be on the node that the last
    /// entry names.
    pub fn recover(&mut self, left: &Left, ledger: &mut Ledger, cx: &mut Context) {
        self.recovery.away_secs = left.watermark.map_or(0, |watermark| cx.now.wall.second().0 - watermark.0);
        left.open.iter().for_each(|stored| self.recover_entry(stored, left, ledger, cx));
        let logged: BTreeSet<Attempt> = left.logged.keys().copied().collect();
        self.table.followed_by(&logged).into_iter().for_each(|attempt| self.table.set_followed(attempt));
        left.open.iter().for_each(|stored| self.recover_follower(stored, left, ledger, cx.now));
        left.open.iter().for_each(|stored| self.entries.close_if_settled(stored.id, &self.table));
    }

    fn recover_entry(&mut self, stored: &StoredEntry, left: &Left, ledger: &Ledger, cx: &mut Context) {
        let (id, entry, body) = (stored.id, &stored.entry, &stored.entry.body);
        let begun = entry.tick.filter(|_| entry.tick > left.watermark);
        if begun.is_some() {
            let missed = body.missed.iter().map(|gap| RunKey::scheduled(gap.cron_id, gap.last));
            let refused = body.refused.iter().map(|refused| refused.run);
            self.planning.named.extend(body.runs.iter().map(|run| run.attempt.run).chain(missed).chain(refused));
        }
        self.entries.open(id, begun.max(settled_to(body).filter(|last| left.watermark < Some(*last))));
        for run in &body.runs {
            let node = body.nodes.get(usize::from(run.node)).cloned().unwrap_or_default();
            let stage = if node.is_nobody() { Stage::Waiting(WaitsFor::Node) } else { Stage::Sent };
            // The entry does not say when a further attempt was due, so its grace begins anew.
            let due = if run.attempt.number == 1 { run.attempt.run.scheduled_at } else { cx.now.wall.second() };
            let run = LeftRun { entry: id, attempt: run.attempt, version: run.version, node, stage, due };
            self.recover_run(run, left, ledger, cx.now);
        }
        for delayed in &body.delayed {
            let (attempt, version, due) = (delayed.attempt, delayed.version, delayed.due);
            let (node, stage) = (NodeId::default(), Stage::Delayed);
            self.recover_run(LeftRun { entry: id, attempt, version, node, stage, due }, left, ledger, cx.now);
        }
        self.write_outcomes(id, body, left.logged, cx);
        self.drop_refused(id, body);
    }

    fn recover_run(&mut self, found: LeftRun, left: &Left, ledger: &Ledger, now: Now) {
        let LeftRun { entry, attempt, version, node, stage, due } = found;
        // A row `lost` may have been written by a leader that did not know yet that it was deposed. So the run may
        // still be on its node, and have its permit.
        let logged = left.logged.get(&attempt);
        if logged.is_some_and(|state| *state != RunState::Lost || stage != Stage::Sent) {
            return;
        }
        let current = ledger.jobs.job(attempt.run.cron_id);
        // No run of a definition that is gone will be sent, so its id, version and mutex are enough.
        let is_mutex = current.is_some_and(|job| job.is_mutex);
        let gone = || Job { id: attempt.run.cron_id, version, is_mutex, ..Job::default() };
        let job = current.filter(|job| job.version == version).cloned().unwrap_or_else(|| Arc::new(gone()));
        let is_limited = job.parallel_max().is_some();
        let stage = if stage.is_waiting() && is_limited { Stage::Waiting(WaitsFor::PermitAndNode) } else { stage };
        // An entry says the end of a delay in whole seconds, rounded up.
        let ready_at = now.mono_at(due.wall());
        let planned = InFlightRun::planned(job, node, true, due.wall());
        let former = self.table.insert(attempt, planned.left_by(entry, stage, ready_at));
        if let Some(earlier) = former.and_then(|run| run.entry) {
            self.entries.close_if_settled(earlier, &self.table);
        }
    }

    /// Plans the next attempt after one that failed or was lost, where a former leader had not yet journaled it.
    fn recover_follower(&mut self, stored: &StoredEntry, left: &Left, ledger: &mut Ledger, now: Now) {
        let body = &stored.entry.body;
        let runs = body.runs.iter().map(|run| (run.attempt, run.version));
        let named = runs.chain(body.delayed.iter().map(|delayed| (delayed.attempt, delayed.version)));
        for (attempt, version) in named {
            let Some(state) = left.logged.get(&attempt).copied() else { continue };
            let next = Attempt { number: attempt.number + 1, ..attempt };
            let has_later = left.logged.range(next..).next().is_some_and(|(later, _)| later.run == attempt.run);
            if !has_later {
                self.follow(Ended { attempt, version, entry: Some(stored.id), state }, ledger, now);
            }
        }
    }

    /// The node has told its holdings. It is told which of them not to start, which to give back, and which to start.
    /// Answers the attempts that it should have and does not.
    pub fn on_holdings(
        &mut self,
        node: &NodeId,
        held: &BTreeMap<Attempt, Held>,
        ledger: &mut Ledger,
        cx: &mut Context,
    ) -> Unknown {
        self.set_released(node, false);
        let (mut drop, mut to_return, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
        let (mut orders, mut jobs) = (Orders::default(), BTreeSet::new());
        let sent = self.table.sent_to(node);
        for attempt in sent.iter().copied() {
            self.table.set_question(attempt, 0);
            let is_mutex = self.table.get(attempt).is_some_and(|run| run.job.is_mutex);
            match held.get(&attempt) {
                Some(Held::Begun | Held::Unknown) => {}
                // The run is of an old definition and will start by itself at its second. Only the node can say whether
                // it has begun.
                Some(Held::Waiting) if !self.is_current(attempt, ledger) => to_return.push(attempt),
                // The run will start by itself at its second. An order that came after its end would start it again.
                Some(Held::Waiting) => {}
                Some(Held::Parked) if !self.is_current(attempt, ledger) => {
                    drop.push(attempt);
                    self.reassign(attempt, ledger, cx);
                }
                // Its mutex may have gone to another run meanwhile, so it has to wait for a permit once more.
                Some(Held::Parked) if is_mutex => {
                    drop.push(attempt);
                    self.wait_for_permit(attempt);
                    jobs.insert(attempt.run.cron_id);
                }
                Some(Held::Parked) => self.order(attempt, node.clone(), &mut orders, cx.now),
                None => unknown.push(attempt),
            }
        }
        // An attempt that is over has a row, but the node's word of it may be lost. Rows in this node's own logbook
        // need no question.
        let over = self.table.over_on(node).into_iter();
        unknown.extend(over.filter(|attempt| !held.contains_key(attempt) && !cx.logbook.has(*attempt)));
        // Runs that wait there and must not start there: another node has them meanwhile, or their entry is closed.
        let is_waiting = |held: &Held| matches!(held, Held::Waiting | Held::Parked);
        let strays = held.iter().filter(|(attempt, held)| is_waiting(held) && sent.binary_search(attempt).is_err());
        drop.extend(strays.map(|(attempt, _)| *attempt));
        orders.send(cx.fx);
        cx.fx.tell_node(node, ToNode::Settled { drop });
        if !to_return.is_empty() {
            cx.fx.tell_node(node, ToNode::Return(to_return));
        }
        // The node was told to drop these runs, so now their permits may go to other runs.
        jobs.into_iter().for_each(|id: JobId| self.grant_permits(id, ledger, cx));
        self.ask_for(unknown)
    }

    /// Numbers the question for the rows of these attempts.
    fn ask_for(&mut self, attempts: Vec<Attempt>) -> Unknown {
        self.recovery.questions += 1;
        let question = self.recovery.questions;
        attempts.iter().for_each(|attempt| self.table.set_question(*attempt, question));
        Unknown { attempts, question }
    }

    /// The log rows of attempts that their node neither holds nor started were read: an attempt without a row is given
    /// to a node again. An answer to an older question is passed over.
    pub fn on_checked(
        &mut self,
        unknown: Unknown,
        logged: &BTreeMap<Attempt, RunState>,
        ledger: &mut Ledger,
        cx: &mut Context,
    ) {
        let Unknown { mut attempts, question } = unknown;
        let is_asked = |run: &InFlightRun| question != 0 && run.question == question;
        attempts.retain(|attempt| self.table.get(*attempt).is_some_and(is_asked));
        self.give_again(attempts, logged, ledger, cx);
    }

    /// The node gives these attempts back, and will not start them.
    pub fn on_returned(&mut self, node: &NodeId, mut attempts: Vec<Attempt>, ledger: &mut Ledger, cx: &mut Context) {
        attempts.retain(|attempt| self.table.get(*attempt).is_some_and(|run| run.node == *node));
        self.give_again(attempts, &BTreeMap::new(), ledger, cx);
    }

    fn give_again(
        &mut self,
        attempts: Vec<Attempt>,
        logged: &BTreeMap<Attempt, RunState>,
        ledger: &mut Ledger,
        cx: &mut Context,
    ) {
        let mut orders = Orders::default();
        let mut jobs = BTreeSet::new();
        for attempt in attempts {
            let Some(run) = self.table.get(attempt) else { continue };
            let (stage, version) = (run.stage, run.job.version);
            if !matches!(stage, Stage::Sent | Stage::Over) {
                continue;
            }
            jobs.insert(attempt.run.cron_id);
            if let Some(state) = logged.get(&attempt) {
                self.on_finished(attempt, *state, ledger, cx);
                self.on_logged(attempt, ledger, cx);
            } else if cx.logbook.has(attempt) {
                self.table.set_stage(attempt, Stage::Over);
            } else if stage == Stage::Over {
                self.push_row(attempt, version, rows::ROW_LOST, cx);
            } else if !self.is_current(attempt, ledger) {
                self.reassign(attempt, ledger, cx);
            } else if run.is_killed {
                self.drop_killed(attempt, cx);
            } else if run.is_limited() {
                self.wait_for_permit(attempt);
            } else {
                self.send_or_move(attempt, &mut orders, ledger, cx);
            }
        }
        orders.send(cx.fx);
        jobs.into_iter().for_each(|id| self.grant_permits(id, ledger, cx));
    }

    /// The node's lease is surely over: its mutex runs have ended.
    pub fn on_released(&mut self, node: &NodeId, ledger: &mut Ledger, cx: &mut Context) {
        self.set_released(node, true);
        let jobs: BTreeSet<_> = self.table.sent_to(node).iter().map(|attempt| attempt.run.cron_id).collect();
        jobs.into_iter().for_each(|id| self.grant_permits(id, ledger, cx));
    }

    /// The node is silent since `silent_since`: its runs are lost when the grace after that is over.
    pub fn give_up(&mut self, node: &NodeId, silent_since: Second, ledger: &mut Ledger, cx: &mut Context) {
        let now = cx.now.wall.second();
        let over = self.table.over_on(node).into_iter().filter(|attempt| !cx.logbook.has(*attempt));
        for attempt in self.table.sent_to(node).into_iter().chain(over.collect::<Vec<_>>()) {
            let Some(run) = self.table.get(attempt) else { continue };
            let (due, version) = (run.due.second(), run.job.version);
            if silent_since.max(due).plus(self.limits.grace_secs) < now {
                self.table.set_stage(attempt, Stage::Over);
                self.push_row(attempt, version, rows::LOST, cx);
                self.follow_up(attempt, RunState::Lost, ledger, cx);
                self.grant_permits_after(attempt.run.cron_id, true, ledger, cx);
            }
        }
    }
}
