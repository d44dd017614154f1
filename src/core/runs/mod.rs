//! The leader's runs: from the decision, through the journal, to a node, until their log rows are committed.
//!
//! ```text
//! plan -> Planned -> (entry in the journal) -> Waiting (its turn) -> Sent -> Over -> (row committed) gone
//!              \________________________________/  |  ^               |
//!               a change of the job: given anew,   v  |               +-> a further attempt: Delayed -> Waiting
//!               or a `cancelled` row             Moving
//!                       its node is not there: another one is named, journaled, and only then told
//! ```
//!
//! Not the scheduler: it does not know what is due. Not the journal: it says what an entry must name and hears when it
//! is in. `turns` says how many runs of a job may go at one time, `attempts` what follows an attempt that failed or was
//! lost, `recovery` what becomes of runs whose node or leader was lost, `folds` how refusals become rows.
//!
//! Invariants: no run is sent before its entry is in; of a mutex job at most one run is `Sent` to a node that may still
//! run it; an entry is closed only when every outcome that it names is committed or has moved to a later entry.

mod coalesce;
mod permits;
pub mod recovery;
mod retry;
mod rows;
mod table;
mod undecided;

pub use permits::PermitQueue;
pub use table::{Candidate, InFlightRun, Stage};

use crate::core::io::Effects;
use crate::core::jobs::scheduler::Scheduler;
use crate::core::journaler::Journaler;
use crate::core::log::logbook::Logbook;
use crate::model::journal::{Body, Entry, EntryId, MissedGap, PlannedRun, RefusedRun};
use crate::model::message::{Order, ToNode};
use crate::model::run::Manual;
use crate::model::{Attempt, Job, JobId, Mono, NodeId, Now, RunKey, RunState, Second, Server, Version};
use coalesce::Coalescer;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use table::RunTable;

/// Runs sent within one input.
const RELEASE_MAX: usize = 1_000;

#[derive(Debug)]
pub struct Runs {
    server: Server,
    limits: RunLimits,
    table: RunTable,
    /// Outcomes of each entry that are not committed yet.
    open: BTreeMap<EntryId, usize>,
    /// Rows of refused and missed runs that are on their way, with the entries that they explain.
    outcomes: BTreeMap<Attempt, Vec<EntryId>>,
    coalescer: Coalescer,
    to_close: Vec<EntryId>,
    /// Runs of the parts of a tick whose part 0 is not in yet.
    held_back: Vec<Attempt>,
    /// Runs whose tick is whole and that are yet to be sent: of many, some at each input, so that none takes long.
    releasing: VecDeque<Attempt>,
    released_at: Mono,
    /// Runs that a former leader had named, to be run or missed, for ticks that it did not complete.
    named: BTreeSet<RunKey>,
    /// The entries that name them, or seconds that are settled: the only record of that, so they stay open until these ticks are
    /// whole.
    begun: BTreeMap<EntryId, Second>,
    /// Entries that stay open until this one is closed.
    outlasting: BTreeMap<EntryId, Vec<EntryId>>,
    /// Numbers the questions for log rows.
    questions: u64,
    /// Runs for which no node was there.
    unplaced: BTreeSet<Attempt>,
    /// Jobs whose stop is in force and not stored.
    undecided: BTreeSet<JobId>,
    /// Further attempts whose entry is in, by the moment at which their delay is over.
    delayed: BTreeSet<(Mono, Attempt)>,
    /// Further attempts whose entry is on its way, with the entries that stay open until it is in.
    follows: BTreeMap<Attempt, EntryId>,
    /// The first job that found no room in the last tick that was short of it: the next such tick begins there.
    refused_from: Option<JobId>,
    /// How long nobody led before this leader.
    away_secs: i64,
}

#[derive(Clone, Copy, Debug)]
pub struct RunLimits {
    pub max_pending_per_job: usize,
    /// Runs that wait for any node to be there.
    pub unplaced_max: usize,
    pub grace_secs: i64,
    /// Runs in one part of a tick.
    pub part_runs_max: usize,
}

/// The rooms that the leader's runs need beside their own.
pub struct Around<'a> {
    pub scheduler: &'a Scheduler,
    pub journaler: &'a mut Journaler,
    pub logbook: &'a mut Logbook,
    pub fx: &'a mut Effects,
    pub now: Now,
    /// The nodes that can be spoken to.
    pub candidates: &'a [Candidate],
}

impl Around<'_> {
    fn is_linked(&self, node: &NodeId) -> bool {
        self.candidates.iter().any(|candidate| candidate.node == *node)
    }

    fn job(&self, id: JobId) -> Option<&Arc<Job>> {
        self.scheduler.job(id)
    }
}

/// Which nodes have old runs of a job that is being changed.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Cancelling {
    /// They will answer.
    pub told: BTreeSet<NodeId>,
    /// They cannot be reached: what they have may start until their leases are over.
    pub silent: BTreeSet<NodeId>,
}

/// Orders on their way, by node.
type Orders = BTreeMap<NodeId, Vec<Order>>;

impl Runs {
    pub fn new(server: Server, limits: RunLimits) -> Runs {
        Runs {
            server,
            limits,
            table: RunTable::default(),
            open: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            coalescer: Coalescer::default(),
            to_close: Vec::new(),
            held_back: Vec::new(),
            releasing: VecDeque::new(),
            released_at: Mono(0),
            named: BTreeSet::new(),
            begun: BTreeMap::new(),
            outlasting: BTreeMap::new(),
            questions: 0,
            unplaced: BTreeSet::new(),
            undecided: BTreeSet::new(),
            delayed: BTreeSet::new(),
            follows: BTreeMap::new(),
            refused_from: None,
            away_secs: 0,
        }
    }

    /// Decides on the runs of the jobs that are due: the parts of the tick, in the order in which they must be written.
    /// `missed` are those of its runs that are too late for their jobs.
    pub fn plan(
        &mut self,
        due: Vec<Arc<Job>>,
        mut missed: Vec<MissedGap>,
        tick: Second,
        now: Now,
        candidates: &[Candidate],
    ) -> Vec<(u32, Body)> {
        let late = tick < now.wall.second();
        let (mut runs, mut refused) = (Vec::new(), Vec::new());
        let mut refused_from = None;
        for job in self.in_turn(due) {
            let run = RunKey::scheduled(job.id, tick);
            let attempt = Attempt { run, number: 1 };
            if self.named.contains(&run) || self.table.has(attempt) {
                continue;
            }
            match self.place(&job, candidates) {
                Err(state) => {
                    refused_from.get_or_insert(job.id);
                    refused.push(RefusedRun { run, version: job.version, state });
                }
                Ok(node) => {
                    runs.push((attempt, job.version, node.clone()));
                    self.table.insert(attempt, InFlightRun::planned(job, node, late, tick.wall()));
                }
            }
        }
        self.refused_from = refused_from.or(self.refused_from);
        missed.retain(|gap| !self.named.contains(&RunKey::scheduled(gap.cron_id, tick)));
        // What a former leader began in parts is completed by one part 0: the other numbers may be taken.
        let is_begun = self.named.iter().any(|run| run.scheduled_at == tick);
        self.named.retain(|run| run.scheduled_at != tick);
        let runs_max = if is_begun { usize::MAX } else { self.limits.part_runs_max };
        let mut bodies: Vec<Body> = runs.chunks(runs_max).map(body).collect();
        if bodies.is_empty() {
            bodies.push(Body::default());
        }
        for (at, missed) in missed.chunks(runs_max).enumerate() {
            bodies.resize_with(bodies.len().max(at + 1), Body::default);
            bodies[at].missed = missed.to_vec();
        }
        for (at, refused) in refused.chunks(runs_max).enumerate() {
            bodies.resize_with(bodies.len().max(at + 1), Body::default);
            bodies[at].refused = refused.to_vec();
        }
        (0..bodies.len() as u32).zip(bodies).rev().collect()
    }

    /// Decides on a run that an operator wants now. The error says why it cannot be: nothing is kept of it then.
    pub fn plan_manual(
        &mut self,
        job: &Arc<Job>,
        manual: Manual,
        now: Now,
        candidates: &[Candidate],
    ) -> Result<(RunKey, Body), RunState> {
        let second = now.wall.second();
        let run = RunKey { cron_id: job.id, scheduled_at: second, manual: Some(manual) };
        let attempt = Attempt { run, number: 1 };
        let node = self.place(job, candidates)?;
        self.table.insert(attempt, InFlightRun::planned(Arc::clone(job), node.clone(), false, second.wall()));
        Ok((run, body(&[(attempt, job.version, node)])))
    }

    /// It was asked for before, under the same key: the first one counts.
    pub fn forget_planned(&mut self, entry: &Entry, around: &mut Around) {
        for run in &entry.body.runs {
            self.table.remove(run.attempt);
            self.grant_permits(run.attempt.run.cron_id, around);
        }
    }

    /// The entry is in: its runs may go, its refusals get their rows.
    pub fn on_entry(&mut self, id: EntryId, entry: &Entry, around: &mut Around) {
        self.open.insert(id, 0);
        // A part that is in without the last one must be found by the next leader, lest that plans it anew under its number.
        if let Some(tick) = entry.tick.filter(|_| entry.part != 0) {
            self.begun.insert(id, tick);
        }
        // And what is settled must be found until its ticks are past.
        if let Some(last) = settled_to(&entry.body) {
            self.begun.insert(id, last);
        }
        for run in &entry.body.runs {
            self.take_over(run.attempt, id);
        }
        for delayed in &entry.body.delayed {
            self.take_over(delayed.attempt, id);
            if let Some(in_flight) = self.table.get(delayed.attempt) {
                self.delayed.insert((in_flight.ready_at, delayed.attempt));
            }
        }
        self.write_outcomes(id, &entry.body, &BTreeMap::new(), around);
        let freed = self.drop_refused(id, &entry.body);
        freed.into_iter().for_each(|id| self.grant_permits(id, around));
        // Parts are written from the highest number down: the first of the tick come last, and are sent first all the same.
        self.held_back.splice(0..0, entry.body.runs.iter().map(|run| run.attempt));
        if entry.part == 0 {
            self.close_begun(entry.tick);
            self.releasing.extend(self.held_back.drain(..));
            self.release_some(around);
        }
        self.start_delayed(around);
        self.close_if_empty(id);
    }

    /// Sends what waits to be sent, so many at a time and once within one input.
    pub fn release_some(&mut self, around: &mut Around) {
        if self.release_at().is_some_and(|at| at <= around.now.mono) {
            self.released_at = around.now.mono;
            let some = self.releasing.len().min(RELEASE_MAX);
            let attempts = self.releasing.drain(..some).collect();
            self.release(attempts, around);
        }
    }

    /// When more is to be sent: at once, and after whatever else has come.
    pub fn release_at(&self) -> Option<Mono> {
        (!self.releasing.is_empty()).then_some(Mono(self.released_at.0 + 1))
    }

    /// The attempt is an outcome of this entry from now on, and of no earlier one.
    fn take_over(&mut self, attempt: Attempt, entry: EntryId) {
        *self.open.entry(entry).or_default() += 1;
        let earlier = self.table.rename(attempt, entry);
        earlier.into_iter().chain(self.follows.remove(&attempt)).for_each(|earlier| self.settle(earlier));
    }

    /// A former leader had journaled this part of the tick: its runs are not ours to give.
    pub fn on_tick_taken(&mut self, entry: &Entry) {
        for run in &entry.body.runs {
            self.table.remove(run.attempt);
        }
    }

    /// The process is over: its place among its job's runs is free for the next, where no further attempt takes it.
    pub fn on_finished(&mut self, attempt: Attempt, state: RunState, around: &mut Around) {
        if self.table.is(attempt, Stage::Sent) {
            self.table.set_stage(attempt, Stage::Over);
            self.follow_up(attempt, state, around);
        }
        self.grant_permits(attempt.run.cron_id, around);
    }

    /// The node has a row of the attempt committed. The row of one that does not have the attempt is what it wrote when it led,
    /// and may be wrong: whoever has it will tell.
    pub fn on_told_logged(&mut self, node: &NodeId, attempt: Attempt, around: &mut Around) {
        let is_elsewhere = |in_flight: &InFlightRun| in_flight.stage != Stage::Over && in_flight.node != *node;
        if !self.table.get(attempt).is_some_and(is_elsewhere) {
            self.on_logged(attempt, around);
        }
    }

    /// The row is committed: the entry that names it is one outcome nearer to its end.
    pub fn on_logged(&mut self, attempt: Attempt, around: &mut Around) {
        match self.table.remove(attempt).and_then(|in_flight| in_flight.entry) {
            Some(entry) => self.settle(entry),
            None => {
                let entries = self.outcomes.remove(&attempt).unwrap_or_default();
                entries.into_iter().for_each(|entry| self.settle(entry));
            }
        }
        self.grant_permits(attempt.run.cron_id, around);
    }

    /// Takes back the job's runs of older versions (with none: of all). Those that wait here are done anew; nodes that
    /// have some are told.
    pub fn cancel(&mut self, cron_id: JobId, below: Option<Version>, around: &mut Around) -> Cancelling {
        let waiting = self.of_older_versions(cron_id, below, Stage::Waiting);
        self.leave_queue(cron_id, &waiting);
        // One whose entry is still on its way is looked at when that is in.
        let delayed = self.of_older_versions(cron_id, below, Stage::Delayed);
        let delayed = delayed.into_iter().filter(|attempt| !self.follows.contains_key(attempt));
        waiting.into_iter().chain(delayed.collect::<Vec<_>>()).for_each(|attempt| self.reassign(attempt, around));
        let mut cancelling = Cancelling::default();
        for attempt in self.of_older_versions(cron_id, below, Stage::Sent) {
            let Some(in_flight) = self.table.get(attempt) else { continue };
            let nodes = if around.is_linked(&in_flight.node) { &mut cancelling.told } else { &mut cancelling.silent };
            nodes.insert(in_flight.node.clone());
        }
        for node in &cancelling.told {
            around.fx.tell_node(node, ToNode::Cancel { cron_id, below });
        }
        cancelling
    }

    /// The node has dropped these without starting them.
    pub fn on_dropped(&mut self, cron_id: JobId, dropped: Vec<Attempt>, around: &mut Around) {
        for attempt in dropped {
            if self.table.is(attempt, Stage::Sent) {
                self.reassign(attempt, around);
            }
        }
        self.grant_permits(cron_id, around);
    }

    /// Looks after what waits: for a node, for its fold.
    pub fn look_after(&mut self, around: &mut Around) {
        self.flush_refusals(false, around);
        if self.unplaced.is_empty() || !around.candidates.iter().any(|candidate| candidate.takes_new) {
            return;
        }
        let mut orders = Orders::new();
        for attempt in std::mem::take(&mut self.unplaced) {
            match self.table.get(attempt).map(|in_flight| (in_flight.stage, in_flight.job.parallel_max())) {
                Some((Stage::Waiting, Some(_))) => self.grant_permits(attempt.run.cron_id, around),
                Some((Stage::Waiting, None)) => self.send_or_move(attempt, around, &mut orders),
                _ => {}
            }
        }
        send(orders, around);
    }

    /// Of a run that is in hand the attempt with this number, or without one the latest.
    pub fn find(&self, run: RunKey, number: Option<u32>) -> Option<(Attempt, &InFlightRun)> {
        let is_meant = |attempt: &Attempt| number.is_none_or(|number| attempt.number == number);
        let found = self.table.of_run(run).filter(|(attempt, _)| is_meant(attempt)).last()?;
        Some((*found.0, found.1))
    }

    pub fn table(&self) -> impl Iterator<Item = (&Attempt, &InFlightRun)> {
        self.table.all()
    }

    /// The attempts of a run that are not over.
    pub fn of_run(&self, run: RunKey) -> Vec<(Attempt, InFlightRun)> {
        let open = self.table.of_run(run).filter(|(_, in_flight)| in_flight.stage != Stage::Over);
        open.map(|(attempt, in_flight)| (*attempt, in_flight.clone())).collect()
    }

    /// Ends an attempt that no node has: it will not begin.
    pub fn kill_here(&mut self, attempt: Attempt, around: &mut Around) {
        self.table.set_killed(attempt);
        let is_journaled = !self.follows.contains_key(&attempt);
        if is_journaled && (self.table.is(attempt, Stage::Waiting) || self.table.is(attempt, Stage::Delayed)) {
            self.leave_queue(attempt.run.cron_id, &[attempt]);
            self.drop_killed(attempt, around);
            self.grant_permits(attempt.run.cron_id, around);
        }
        // Else its entry is on its way: it is dropped when that is in.
    }

    /// The node that has it is told to end it.
    pub fn set_killed(&mut self, attempt: Attempt) {
        self.table.set_killed(attempt);
    }

    /// The entries that may be set done, each told once.
    pub fn take_closable(&mut self) -> Vec<EntryId> {
        std::mem::take(&mut self.to_close)
    }

    pub fn has_closable(&self) -> bool {
        !self.to_close.is_empty()
    }

    /// They could not be set done; they come again.
    pub fn put_back_closable(&mut self, mut entries: Vec<EntryId>) {
        self.to_close.append(&mut entries);
    }

    /// Those that hold up others first; then round robin from whom the last tick had no room for.
    fn in_turn(&self, mut due: Vec<Arc<Job>>) -> impl Iterator<Item = Arc<Job>> + use<> {
        if let Some(from) = self.refused_from {
            let at = due.partition_point(|job| job.id < from);
            due.rotate_left(at);
        }
        let (limited, others): (Vec<_>, Vec<_>) = due.into_iter().partition(|job| job.parallel_max().is_some());
        limited.into_iter().chain(others)
    }

    /// The node for a run of the job that is due now (or nobody yet), or why there is none.
    fn place(&mut self, job: &Job, candidates: &[Candidate]) -> Result<NodeId, RunState> {
        if !self.has_permit(job) {
            return Err(RunState::Skipped);
        }
        if let Some(node) = self.table.choose(job, candidates) {
            return Ok(node);
        }
        let is_anyone_there = candidates.iter().any(|candidate| candidate.takes_new && candidate.suits(job));
        let may_wait = job.parallel_max().is_some() || !is_anyone_there;
        if may_wait && self.unplaced.len() < self.limits.unplaced_max {
            return Ok(NodeId::default());
        }
        Err(RunState::Shed)
    }

    /// Sends the planned runs, or lets them wait for their turn; one whose job has changed meanwhile is done anew.
    fn release(&mut self, attempts: Vec<Attempt>, around: &mut Around) {
        let mut orders = Orders::new();
        for attempt in attempts {
            let Some(in_flight) = self.table.get(attempt).cloned() else { continue };
            let job = in_flight.job;
            if !matches!(in_flight.stage, Stage::Planned | Stage::Moving) {
                continue;
            }
            if in_flight.is_killed {
                self.drop_killed(attempt, around);
                self.grant_permits(job.id, around);
            } else if around.job(job.id).is_none_or(|now| now.version != job.version) {
                self.reassign(attempt, around);
                self.grant_permits(job.id, around);
            } else if in_flight.stage == Stage::Planned && !self.may_go_at_once(&job) {
                self.wait_for_permit(attempt);
                self.grant_permits(job.id, around);
            } else {
                self.send_or_move(attempt, around, &mut orders);
            }
        }
        send(orders, around);
    }

    /// To the node that its entry names, where that is there; else another one is journaled first.
    fn send_or_move(&mut self, attempt: Attempt, around: &mut Around, orders: &mut Orders) {
        let Some(in_flight) = self.table.get(attempt).cloned() else { return };
        if self.is_too_late(attempt, &in_flight, around.now) {
            self.table.set_stage(attempt, Stage::Over);
            self.push_row(attempt, in_flight.job.version, RunState::Missed, rows::MISSED, around);
            self.grant_permits(attempt.run.cron_id, around);
        } else if self.table.may_send(&in_flight.job, &in_flight.node, around.candidates) {
            self.table.set_stage(attempt, Stage::Sent);
            let order = self.order(attempt, &in_flight, around.now);
            orders.entry(in_flight.node).or_default().push(order);
        } else if let Some(node) = self.table.choose(&in_flight.job, around.candidates) {
            self.table.move_to(attempt, node.clone());
            around.journaler.push(None, 0, body(&[(attempt, in_flight.job.version, node)]));
        } else {
            match in_flight.job.parallel_max() {
                Some(_) => self.wait_for_permit(attempt),
                None => self.table.set_stage(attempt, Stage::Waiting),
            }
            self.unplaced.insert(attempt);
        }
    }

    /// A run that waited for its turn is as late as that wait, which is no fault: of it only the time in which nobody
    /// led counts.
    fn is_too_late(&self, attempt: Attempt, in_flight: &InFlightRun, now: Now) -> bool {
        let late_secs = now.wall.second().0 - in_flight.due.second().0;
        let waits_for_permit = in_flight.job.parallel_max().is_some() && attempt.number == 1;
        self.limits.grace_secs < if waits_for_permit { late_secs.min(self.away_secs) } else { late_secs }
    }

    fn order(&self, attempt: Attempt, in_flight: &InFlightRun, now: Now) -> Order {
        let has_permits = in_flight.job.parallel_max().is_some();
        Order {
            attempt,
            job: Arc::clone(&in_flight.job),
            late: in_flight.late || in_flight.due.second() < now.wall.second() && attempt.run.manual.is_none(),
            expires: (!has_permits).then(|| in_flight.due.second().plus(self.limits.grace_secs)),
            dispatch_time: now.wall.second(),
            dispatch_server: self.server.clone(),
        }
    }

    /// A run that was not started under its old definition: given anew where the present one is due then too, else told
    /// as cancelled. Further attempts and manual runs were asked of the old definition only.
    fn reassign(&mut self, attempt: Attempt, around: &mut Around) {
        let Some(in_flight) = self.table.get(attempt).cloned() else { return };
        self.table.set_stage(attempt, Stage::Over);
        let id = attempt.run.cron_id;
        let is_first = attempt.run.manual.is_none() && attempt.number == 1;
        let is_due = is_first && !in_flight.is_killed && around.scheduler.is_due(id, attempt.run.scheduled_at);
        match around.job(id).filter(|_| is_due).cloned() {
            Some(job) => {
                let node = self.table.choose(&job, around.candidates).unwrap_or_default();
                around.journaler.push(None, 0, body(&[(attempt, job.version, node.clone())]));
                self.table.insert(attempt, InFlightRun { job, node, stage: Stage::Planned, ..in_flight });
            }
            None if self.is_undecided(attempt) => self.keep_undecided(attempt),
            None => self.push_row(attempt, in_flight.job.version, RunState::Cancelled, rows::CANCELLED, around),
        }
    }

    fn drop_killed(&mut self, attempt: Attempt, around: &mut Around) {
        let Some(version) = self.table.get(attempt).map(|in_flight| in_flight.job.version) else { return };
        self.table.set_stage(attempt, Stage::Over);
        self.push_row(attempt, version, RunState::Cancelled, rows::KILLED_BEFORE, around);
    }

    fn of_older_versions(&self, cron_id: JobId, below: Option<Version>, stage: Stage) -> Vec<Attempt> {
        self.table
            .of_job(cron_id)
            .filter(|(_, in_flight)| {
                in_flight.stage == stage && below.is_none_or(|below| in_flight.job.version < below)
            })
            .map(|(attempt, _)| *attempt)
            .collect()
    }

    fn settle(&mut self, entry: EntryId) {
        if let Some(left) = self.open.get_mut(&entry) {
            *left = left.saturating_sub(1);
        }
        self.close_if_empty(entry);
    }

    /// All ticks up to this one are whole.
    fn close_begun(&mut self, tick: Option<Second>) {
        let whole = self.begun.extract_if(.., |_, begun| Some(*begun) <= tick);
        let whole: Vec<EntryId> = whole.map(|(entry, _)| entry).collect();
        whole.into_iter().for_each(|entry| self.close_if_empty(entry));
    }

    fn close_if_empty(&mut self, entry: EntryId) {
        if self.open.get(&entry) == Some(&0) && !self.begun.contains_key(&entry) {
            self.open.remove(&entry);
            self.to_close.push(entry);
            self.outlasting.remove(&entry).into_iter().flatten().for_each(|later| self.settle(later));
        }
    }
}

/// The last second that the entry settles.
fn settled_to(body: &Body) -> Option<Second> {
    body.settled.iter().map(|gap| gap.last).chain(body.decided_to).max()
}

/// The body that names these runs.
fn body(runs: &[(Attempt, Version, NodeId)]) -> Body {
    let mut nodes: Vec<NodeId> = Vec::new();
    let mut index = |node: &NodeId| {
        let at = nodes.iter().position(|known| known == node).unwrap_or_else(|| {
            nodes.push(node.clone());
            nodes.len() - 1
        });
        at as u16
    };
    let runs = runs.iter().map(|(attempt, version, node)| PlannedRun {
        attempt: *attempt,
        version: *version,
        node: index(node),
    });
    let runs = runs.collect();
    Body { nodes, runs, ..Body::default() }
}

fn send(orders: Orders, around: &mut Around) {
    for (node, orders) in orders {
        around.fx.tell_node(&node, ToNode::Dispatch(orders));
    }
}
