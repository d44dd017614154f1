//! Recovery of runs whose leader or node was lost.
//!
//! A run that a former leader left open, or that was sent to a node which was cut off, may have been started. It is
//! given to a node again only when the node that the last entry names has said, under this leader, that it neither
//! holds nor started it, and its log row, read after that, is not there. A node that may have forgotten runs cannot say
//! so: what it does not name is `lost`. Where the node has said nothing by the end of the grace, the run is `lost`, too.
//!
//! Not the retries of attempts that failed: those are `retry`'s.
//!
//! Invariant: a run of a mutex job that may be running keeps its permit until it is known to be over.

use super::desk::Desk;
use super::entries::settled_to;
use super::gate::Gate;
use super::in_flight::{InFlightRun, Stage, WaitsFor};
use super::permits::wait_for_permit;
use super::reassign::drop_killed;
use super::retry::{Ended, follow, follow_up, on_finished};
use super::rows;
use super::sending::{Orders, order};
use super::table::RunTable;
use crate::model::journal::{EntryId, StoredEntry};
use crate::model::message::{Held, ToNode};
use crate::model::{Attempt, Job, JobId, NodeId, RunState, Second, Version};
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
    /// Their node, where it may have forgotten them; none where it remembers all.
    pub forgetful: Option<NodeId>,
}

/// What recovery remembers for as long as the leader leads.
#[derive(Debug, Default)]
pub struct Recovery {
    /// Numbers the questions for log rows.
    questions: u64,
    /// Nodes that may have forgotten runs, and those of them that are lost and have no row yet.
    forgotten: BTreeMap<NodeId, BTreeSet<Attempt>>,
}

/// Takes in an entry that a former leader left open. Every run without a row may be on the node that the last entry
/// names.
pub fn recover_entry(stored: &StoredEntry, left: &Left, desk: &mut Desk) {
    let (id, entry, body) = (stored.id, &stored.entry, &stored.entry.body);
    let begun = entry.tick.filter(|_| entry.tick > left.watermark);
    desk.entries.open(id, begun.max(settled_to(body).filter(|last| left.watermark < Some(*last))));
    for run in &body.runs {
        let node = body.nodes.get(usize::from(run.node)).cloned().unwrap_or_default();
        let stage = if node.is_nobody() { Stage::Waiting(WaitsFor::Node) } else { Stage::Sent };
        // The entry does not say when a further attempt was due, so its grace begins anew.
        let due = if run.attempt.number == 1 { run.attempt.run.scheduled_at } else { desk.cx.now.wall.second() };
        let run = LeftRun { entry: id, attempt: run.attempt, version: run.version, node, stage, due };
        recover_run(run, left, desk);
    }
    for delayed in &body.delayed {
        let (attempt, version, due) = (delayed.attempt, delayed.version, delayed.due);
        let (node, stage) = (NodeId::default(), Stage::Delayed);
        recover_run(LeftRun { entry: id, attempt, version, node, stage, due }, left, desk);
    }
}

fn recover_run(found: LeftRun, left: &Left, desk: &mut Desk) {
    let LeftRun { entry, attempt, version, node, stage, due } = found;
    // A row `lost` may have been written by a leader that did not know yet that it was deposed. So the run may still be
    // on its node, and have its permit.
    let logged = left.logged.get(&attempt);
    if logged.is_some_and(|state| *state != RunState::Lost || stage != Stage::Sent) {
        return;
    }
    let current = desk.ledger.jobs.job(attempt.run.cron_id);
    // No run of a definition that is gone will be sent, so its id, version and mutex are enough.
    let is_mutex = current.is_some_and(|job| job.is_mutex);
    let gone = || Job { id: attempt.run.cron_id, version, is_mutex, ..Job::default() };
    let job = current.filter(|job| job.version == version).cloned().unwrap_or_else(|| Arc::new(gone()));
    let is_limited = job.parallel_max().is_some();
    let stage = if stage.is_waiting() && is_limited { Stage::Waiting(WaitsFor::PermitAndNode) } else { stage };
    // An entry says the end of a delay in whole seconds, rounded up.
    let ready_at = desk.cx.now.mono_at(due.wall());
    let planned = InFlightRun::planned(job, node, true, due.wall());
    let former = desk.table.insert(attempt, planned.left_by(entry, stage, ready_at));
    if let Some(earlier) = former.and_then(|run| run.entry) {
        desk.entries.close_if_settled(earlier, desk.table);
    }
}

/// Plans the next attempt after one that failed or was lost, where a former leader had not yet journaled it.
fn recover_follower(stored: &StoredEntry, left: &Left, desk: &mut Desk) {
    let body = &stored.entry.body;
    let runs = body.runs.iter().map(|run| (run.attempt, run.version));
    let named = runs.chain(body.delayed.iter().map(|delayed| (delayed.attempt, delayed.version)));
    for (attempt, version) in named {
        let Some(state) = left.logged.get(&attempt).copied() else { continue };
        let next = Attempt { number: attempt.number + 1, ..attempt };
        let has_later = left.logged.range(next..).next().is_some_and(|(later, _)| later.run == attempt.run);
        if !has_later {
            follow(Ended { attempt, version, entry: Some(stored.id), state }, desk);
        }
    }
}

/// Once every entry is taken in: plans the attempts that should follow and are not journaled, and closes what nothing
/// keeps open.
pub fn finish(left: &Left, desk: &mut Desk) {
    let logged: BTreeSet<Attempt> = left.logged.keys().copied().collect();
    desk.table.followed_by(&logged).into_iter().for_each(|attempt| desk.table.set_followed(attempt));
    left.open.iter().for_each(|stored| recover_follower(stored, left, desk));
    left.open.iter().for_each(|stored| desk.entries.close_if_settled(stored.id, desk.table));
}

impl Recovery {
    /// The node has told its holdings. It is told which of them not to start, which to give back, and which to start.
    /// Answers the attempts that it should have and does not.
    pub fn on_holdings(
        &mut self,
        node: &NodeId,
        held: &BTreeMap<Attempt, Held>,
        gate: &mut Gate,
        desk: &mut Desk,
    ) -> Unknown {
        gate.permits.set_released(node, false);
        let (mut drop, mut to_return, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
        let (mut orders, mut jobs) = (Orders::default(), BTreeSet::new());
        let sent = desk.table.sent_to(node);
        for attempt in sent.iter().copied() {
            desk.table.set_question(attempt, 0);
            let is_mutex = desk.table.get(attempt).is_some_and(|run| run.job.is_mutex);
            match held.get(&attempt) {
                Some(Held::Begun | Held::Unknown) => {}
                // The run is of an old definition and will start by itself at its second. Only the node can say whether
                // it has begun.
                Some(Held::Waiting) if !is_current(attempt, desk) => to_return.push(attempt),
                // The run will start by itself at its second. An order that came after its end would start it again.
                Some(Held::Waiting) => {}
                Some(Held::Parked) if !is_current(attempt, desk) => {
                    drop.push(attempt);
                    gate.reassigning.reassign(attempt, desk);
                }
                // Its mutex may have gone to another run meanwhile, so it has to wait for a permit once more.
                Some(Held::Parked) if is_mutex => {
                    drop.push(attempt);
                    wait_for_permit(attempt, desk.table);
                    jobs.insert(attempt.run.cron_id);
                }
                Some(Held::Parked) => order(attempt, node.clone(), &mut orders, desk),
                None => unknown.push(attempt),
            }
        }
        // An attempt that is over has a row, but the node's word of it may be lost. Rows in this node's own logbook
        // need no question.
        let over = desk.table.over_on(node).into_iter();
        unknown.extend(over.filter(|attempt| !held.contains_key(attempt) && !desk.cx.logbook.has(*attempt)));
        // Runs that wait there and must not start there: another node has them meanwhile, or their entry is closed.
        let is_waiting = |held: &Held| matches!(held, Held::Waiting | Held::Parked);
        let strays = held.iter().filter(|(attempt, held)| is_waiting(held) && sent.binary_search(attempt).is_err());
        drop.extend(strays.map(|(attempt, _)| *attempt));
        orders.send(desk.cx.fx);
        desk.cx.fx.tell_node(node, ToNode::Settled { drop });
        if !to_return.is_empty() {
            desk.cx.fx.tell_node(node, ToNode::Return(to_return));
        }
        // The node was told to drop these runs, so now their permits may go to other runs.
        jobs.into_iter().for_each(|id: JobId| gate.grant(id, desk));
        self.ask_for(unknown, desk.table)
    }

    /// The log rows of attempts that their node neither holds nor started were read: an attempt without a row is given to
    /// a node again, or lost where its node may have forgotten it. An answer to an older question is passed over. Answers
    /// the forgetful node.
    pub fn on_checked(
        &mut self,
        unknown: Unknown,
        logged: &BTreeMap<Attempt, RunState>,
        gate: &Gate,
        desk: &mut Desk,
    ) -> Option<NodeId> {
        let Unknown { mut attempts, question, forgetful } = unknown;
        let is_asked = |run: &InFlightRun| question != 0 && run.question == question;
        attempts.retain(|attempt| desk.table.get(*attempt).is_some_and(is_asked));
        if attempts.is_empty() {
            return None;
        }
        if let Some(node) = &forgetful {
            let is_lost = |attempt: &Attempt| {
                let is_sent = desk.table.get(*attempt).is_some_and(|run| run.stage() == Stage::Sent);
                is_sent && !logged.contains_key(attempt) && !desk.cx.logbook.has(*attempt)
            };
            let (forgotten, others): (Vec<Attempt>, Vec<Attempt>) = attempts.into_iter().partition(is_lost);
            forgotten.iter().for_each(|attempt| lose(*attempt, rows::FORGOTTEN, desk));
            forgotten.iter().for_each(|attempt| gate.grant(attempt.run.cron_id, desk));
            self.forgotten.entry(node.clone()).or_default().extend(forgotten);
            attempts = others;
        }
        give_again(attempts, logged, gate, desk);
        forgetful
    }

    /// The node is told once every run that it may have forgotten has its row.
    pub fn explain_to(&mut self, node: &NodeId) {
        self.forgotten.entry(node.clone()).or_default();
    }

    /// Tells nodes that every run which they may have forgotten has its row, where that is so.
    pub fn explain(&mut self, desk: &mut Desk) {
        for attempts in self.forgotten.values_mut() {
            attempts.retain(|attempt| desk.table.get(*attempt).is_some());
        }
        for (node, _) in self.forgotten.extract_if(.., |_, attempts| attempts.is_empty()) {
            desk.cx.fx.tell_node(&node, ToNode::Explained);
        }
    }

    /// Numbers the question for the rows of these attempts.
    fn ask_for(&mut self, attempts: Vec<Attempt>, table: &mut RunTable) -> Unknown {
        self.questions += 1;
        let question = self.questions;
        attempts.iter().for_each(|attempt| table.set_question(*attempt, question));
        Unknown { attempts, question, ..Unknown::default() }
    }
}

/// The node gives these attempts back, and will not start them.
pub fn on_returned(node: &NodeId, mut attempts: Vec<Attempt>, gate: &Gate, desk: &mut Desk) {
    attempts.retain(|attempt| desk.table.get(*attempt).is_some_and(|run| run.node == *node));
    give_again(attempts, &BTreeMap::new(), gate, desk);
}

fn give_again(attempts: Vec<Attempt>, logged: &BTreeMap<Attempt, RunState>, gate: &Gate, desk: &mut Desk) {
    let mut orders = Orders::default();
    let mut jobs = BTreeSet::new();
    for attempt in attempts {
        let Some(run) = desk.table.get(attempt) else { continue };
        let (stage, version) = (run.stage(), run.job.version);
        if !matches!(stage, Stage::Sent | Stage::Over) {
            continue;
        }
        jobs.insert(attempt.run.cron_id);
        if let Some(state) = logged.get(&attempt) {
            on_finished(attempt, *state, gate, desk);
            gate.on_logged(attempt, desk);
        } else if desk.cx.logbook.has(attempt) {
            desk.table.set_stage(attempt, Stage::Over);
        } else if stage == Stage::Over {
            desk.push_row(attempt, version, rows::ROW_LOST);
        } else if !is_current(attempt, desk) {
            gate.reassigning.reassign(attempt, desk);
        } else if run.is_killed {
            drop_killed(attempt, desk);
        } else if run.is_limited() {
            wait_for_permit(attempt, desk.table);
        } else {
            gate.send(attempt, &mut orders, desk);
        }
    }
    orders.send(desk.cx.fx);
    jobs.into_iter().for_each(|id| gate.grant(id, desk));
}

/// The node's lease is surely over: its mutex runs have ended.
pub fn on_released(node: &NodeId, gate: &mut Gate, desk: &mut Desk) {
    gate.permits.set_released(node, true);
    let jobs: BTreeSet<_> = desk.table.sent_to(node).iter().map(|attempt| attempt.run.cron_id).collect();
    jobs.into_iter().for_each(|id| gate.grant(id, desk));
}

/// The node is silent since `silent_since`: its runs are lost when the grace after that is over.
pub fn give_up(node: &NodeId, silent_since: Second, gate: &Gate, desk: &mut Desk) {
    let now = desk.cx.now.wall.second();
    let over = desk.table.over_on(node).into_iter().filter(|attempt| !desk.cx.logbook.has(*attempt));
    for attempt in desk.table.sent_to(node).into_iter().chain(over.collect::<Vec<_>>()) {
        let Some(run) = desk.table.get(attempt) else { continue };
        if silent_since.max(run.due.second()).plus(desk.limits.grace_secs) < now {
            lose(attempt, rows::LOST, desk);
            gate.grant_by_lease(attempt.run.cron_id, desk);
        }
    }
}

/// Nobody can tell any more what became of the run: it has its row, and what follows a lost run.
fn lose(attempt: Attempt, why: rows::Why, desk: &mut Desk) {
    let Some(version) = desk.table.get(attempt).map(|run| run.job.version) else { return };
    desk.table.set_stage(attempt, Stage::Over);
    desk.push_row(attempt, version, why);
    follow_up(attempt, RunState::Lost, desk);
}

/// Whether the run was planned under the job's present definition, and may run under it.
fn is_current(attempt: Attempt, desk: &Desk) -> bool {
    let version = desk.table.get(attempt).map(|run| run.job.version);
    let may_run = |job: &&Arc<Job>| !job.stop || attempt.run.manual.is_some();
    desk.ledger.jobs.job(attempt.run.cron_id).filter(may_run).is_some_and(|job| Some(job.version) == version)
}
