//! The leader's runs: from the decision, through the journal, to the node, until their log rows are committed.
//!
//! ```text
//! plan -> Planned -> (entry in the journal) -> Waiting (mutex taken) -> Sent -> Over -> (row committed) gone
//!              \________________________________/  a change of the job: given anew, or a `cancelled` row
//! ```
//!
//! Not the scheduler: it does not know what is due. Not the journal: it says what an entry must name and hears when it
//! is in. `recovery` takes up what a former leader left open.
//!
//! Invariants: no run is sent before its entry is in; of a mutex job at most one run is `Sent`; an entry is closed only
//! when every outcome that it names is committed or has moved to a later entry.

pub mod recovery;

use super::effects::Effects;
use super::ending;
use super::journaler::Journaler;
use super::logbook::Logbook;
use super::scheduler::Scheduler;
use crate::model::journal::{Body, Entry, EntryId, MissedGap, PlannedRun, RefusedRun};
use crate::model::message::{Order, ToNode};
use crate::model::{Attempt, Job, JobId, NodeId, Now, RunKey, RunState, Second, Server, Version};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

#[derive(Debug)]
pub struct Dispatch {
    server: Server,
    node_id: NodeId,
    limits: DispatchLimits,
    flights: BTreeMap<Attempt, Flight>,
    mutexes: BTreeMap<JobId, Mutex>,
    /// Outcomes of each entry that are not committed yet.
    open: BTreeMap<EntryId, usize>,
    /// Refused and missed runs whose rows are on their way.
    outcomes: BTreeMap<Attempt, EntryId>,
    to_close: Vec<EntryId>,
    /// Runs of the parts of a tick whose part 0 is not in yet.
    held_back: Vec<Attempt>,
    /// Runs that a former leader had named for ticks that it did not complete.
    named: BTreeSet<RunKey>,
    /// Places taken on the node: runs sent, and planned ones that need no mutex.
    taken: usize,
}

/// Runs in one part of a tick: a part is one statement, and stays well below what a store takes.
const PART_RUNS_MAX: usize = 5_000;

#[derive(Clone, Copy, Debug)]
pub struct DispatchLimits {
    /// Runs that the node may have at one time, waiting or running.
    pub room: usize,
    pub max_pending_per_job: usize,
    pub grace_secs: i64,
}

#[derive(Debug)]
struct Flight {
    job: Arc<Job>,
    entry: Option<EntryId>,
    stage: Stage,
    late: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    /// Its entry is on the way into the journal.
    Planned,
    /// Its mutex is another's.
    Waiting,
    Sent,
    Over,
}

/// The runs of a mutex job that may not go yet. Who holds the mutex is not stored: it is whatever is `Sent`, so nothing
/// can be left set by mistake.
#[derive(Debug, Default)]
struct Mutex {
    waiting: VecDeque<Attempt>,
    /// Runs whose entry is on the way; each will go or wait.
    planned: usize,
}

/// The rooms that the leader's runs need beside their own.
pub struct Around<'a> {
    pub scheduler: &'a Scheduler,
    pub journaler: &'a mut Journaler,
    pub logbook: &'a mut Logbook,
    pub fx: &'a mut Effects,
    pub now: Now,
}

impl Dispatch {
    pub fn new(server: Server, node_id: NodeId, limits: DispatchLimits) -> Dispatch {
        Dispatch {
            server,
            node_id,
            limits,
            flights: BTreeMap::new(),
            mutexes: BTreeMap::new(),
            open: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            to_close: Vec::new(),
            held_back: Vec::new(),
            named: BTreeSet::new(),
            taken: 0,
        }
    }

    /// Decides on the runs of the jobs that are due: the parts of the tick, in the order in which they must be written.
    pub fn plan(&mut self, due: Vec<Arc<Job>>, tick: Second, now: Now) -> Vec<(u32, Body)> {
        let late = tick < now.wall.second();
        let (mut runs, mut refused) = (Vec::new(), Vec::new());
        for job in due {
            let run = RunKey::scheduled(job.id, tick);
            let attempt = Attempt { run, number: 1 };
            if self.named.contains(&run) || self.flights.contains_key(&attempt) {
                continue;
            }
            match self.refusal(&job) {
                Some(state) => refused.push(RefusedRun { run, version: job.version, state }),
                None => {
                    runs.push(PlannedRun { attempt, version: job.version, node: 0 });
                    self.take_off(attempt, job, None, late);
                }
            }
        }
        // What a former leader began in parts is completed by one part 0: the other numbers may be taken.
        let is_begun = self.named.iter().any(|run| run.scheduled_at == tick);
        self.named.retain(|run| run.scheduled_at != tick);
        let runs_max = if is_begun { usize::MAX } else { PART_RUNS_MAX };
        let mut bodies: Vec<Body> = runs.chunks(runs_max).map(|runs| self.body(runs.to_vec())).collect();
        if bodies.is_empty() {
            bodies.push(Body::default());
        }
        bodies[0].refused = refused;
        (0..bodies.len() as u32).zip(bodies).rev().collect()
    }

    /// The entry is in: its runs may go, its refusals get their rows.
    pub fn on_entry(&mut self, id: EntryId, entry: &Entry, around: &mut Around) {
        self.open.insert(id, 0);
        for run in &entry.body.runs {
            self.name(run.attempt, id);
        }
        self.write_outcomes(id, &entry.body, &BTreeSet::new(), around);
        self.held_back.extend(entry.body.runs.iter().map(|run| run.attempt));
        if entry.part == 0 {
            let attempts = std::mem::take(&mut self.held_back);
            self.release(attempts, around);
        }
        self.close_if_empty(id);
    }

    /// A former leader had journaled this part of the tick: its runs are not ours to give.
    pub fn on_tick_taken(&mut self, entry: &Entry) {
        for run in &entry.body.runs {
            let Some(flight) = self.flights.remove(&run.attempt) else { continue };
            match self.mutexes.get_mut(&flight.job.id) {
                Some(mutex) if flight.job.is_mutex => mutex.planned -= 1,
                _ => self.taken -= 1,
            }
        }
    }

    /// The process is over: its mutex is free for the next.
    pub fn on_finished(&mut self, attempt: Attempt, around: &mut Around) {
        self.land(attempt);
        self.next_of_mutex(attempt.run.cron_id, around);
    }

    /// The row is committed: the entry that names it is one outcome nearer to its end.
    pub fn on_logged(&mut self, attempt: Attempt, around: &mut Around) {
        self.on_finished(attempt, around);
        let flight = self.flights.remove(&attempt).and_then(|flight| flight.entry);
        if let Some(entry) = flight.or_else(|| self.outcomes.remove(&attempt)) {
            self.settle(entry);
        }
    }

    /// Takes back the job's runs of older versions (with none: of all) that wait here. True: the node has some too, has
    /// been told, and will answer.
    pub fn cancel(&mut self, cron_id: JobId, below: Option<Version>, around: &mut Around) -> bool {
        let waiting: Vec<Attempt> = self.old_flights(cron_id, below, Stage::Waiting);
        if let Some(mutex) = self.mutexes.get_mut(&cron_id) {
            mutex.waiting.retain(|attempt| !waiting.contains(attempt));
        }
        waiting.into_iter().for_each(|attempt| self.redo(attempt, around));
        let is_sent = !self.old_flights(cron_id, below, Stage::Sent).is_empty();
        if is_sent {
            around.fx.tell_node(ToNode::Cancel { cron_id, below });
        }
        is_sent
    }

    /// The node has dropped these without starting them.
    pub fn on_dropped(&mut self, cron_id: JobId, dropped: Vec<Attempt>, around: &mut Around) {
        for attempt in dropped {
            self.land(attempt);
            self.redo(attempt, around);
        }
        self.next_of_mutex(cron_id, around);
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

    fn refusal(&self, job: &Job) -> Option<RunState> {
        if !job.is_mutex {
            return (self.limits.room <= self.taken).then_some(RunState::Shed);
        }
        let ahead = self.mutexes.get(&job.id).map_or(0, |mutex| mutex.waiting.len() + mutex.planned);
        // With the mutex free, the first of those ahead will go and not wait.
        let waiting = ahead + 1 - usize::from(self.is_mutex_free(job.id));
        (self.limits.max_pending_per_job < waiting).then_some(RunState::Skipped)
    }

    fn is_mutex_free(&self, id: JobId) -> bool {
        self.flights_of(id).all(|(_, flight)| flight.stage != Stage::Sent)
    }

    fn take_off(&mut self, attempt: Attempt, job: Arc<Job>, entry: Option<EntryId>, late: bool) {
        match job.is_mutex {
            true => self.mutexes.entry(job.id).or_default().planned += 1,
            false => self.taken += 1,
        }
        self.flights.insert(attempt, Flight { job, entry, stage: Stage::Planned, late });
    }

    /// The run is an outcome of this entry from now on, and of no earlier one.
    fn name(&mut self, attempt: Attempt, entry: EntryId) {
        *self.open.entry(entry).or_default() += 1;
        let earlier = self.flights.get_mut(&attempt).and_then(|flight| flight.entry.replace(entry));
        if let Some(earlier) = earlier {
            self.settle(earlier);
        }
    }

    fn body(&self, runs: Vec<PlannedRun>) -> Body {
        Body { nodes: vec![self.node_id.clone()], runs, ..Body::default() }
    }

    /// Sends the planned runs, or lets them wait for their mutex; one whose job has changed meanwhile is done anew.
    fn release(&mut self, attempts: Vec<Attempt>, around: &mut Around) {
        let mut orders = Vec::with_capacity(attempts.len());
        for attempt in attempts {
            let Some(flight) = self.flights.get(&attempt).filter(|flight| flight.stage == Stage::Planned) else {
                continue;
            };
            let job = Arc::clone(&flight.job);
            let is_current = around.scheduler.job(job.id).is_some_and(|now| now.version == job.version);
            if job.is_mutex {
                let is_free = self.is_mutex_free(job.id);
                let mutex = self.mutexes.entry(job.id).or_default();
                mutex.planned -= 1;
                if is_current && !(is_free && mutex.waiting.is_empty()) {
                    mutex.waiting.push_back(attempt);
                    self.set_stage(attempt, Stage::Waiting);
                    continue;
                }
                self.taken += usize::from(is_current);
            }
            if is_current {
                self.set_stage(attempt, Stage::Sent);
                orders.extend(self.order(attempt, around.now));
            } else {
                self.set_stage(attempt, Stage::Over);
                self.taken -= usize::from(!job.is_mutex);
                self.redo(attempt, around);
                self.next_of_mutex(job.id, around);
            }
        }
        if !orders.is_empty() {
            around.fx.tell_node(ToNode::Dispatch(orders));
        }
    }

    fn order(&self, attempt: Attempt, now: Now) -> Option<Order> {
        let flight = self.flights.get(&attempt)?;
        let expires = (!flight.job.is_mutex).then(|| attempt.run.scheduled_at.plus(self.limits.grace_secs));
        Some(Order {
            attempt,
            job: Arc::clone(&flight.job),
            late: flight.late,
            expires,
            dispatch_time: now.wall.second(),
            dispatch_server: self.server.clone(),
        })
    }

    /// A run that was not started under its old definition: given anew where the present one is due then too, else told
    /// as cancelled.
    fn redo(&mut self, attempt: Attempt, around: &mut Around) {
        let Some(flight) = self.flights.get_mut(&attempt) else { return };
        flight.stage = Stage::Over;
        let (version, entry, late) = (flight.job.version, flight.entry, flight.late);
        let id = attempt.run.cron_id;
        let is_due = around.scheduler.is_due(id, attempt.run.scheduled_at);
        match around.scheduler.job(id).filter(|_| is_due) {
            Some(job) => {
                let run = PlannedRun { attempt, version: job.version, node: 0 };
                around.journaler.push(None, 0, self.body(vec![run]));
                self.take_off(attempt, Arc::clone(job), entry, late);
            }
            None => self.push_row(attempt, version, RunState::Cancelled, CANCELLED, around),
        }
    }

    /// The run is on the node no longer: its place and its mutex are free.
    fn land(&mut self, attempt: Attempt) {
        if self.flights.get(&attempt).is_some_and(|flight| flight.stage == Stage::Sent) {
            self.set_stage(attempt, Stage::Over);
            self.taken -= 1;
        }
    }

    fn next_of_mutex(&mut self, id: JobId, around: &mut Around) {
        if !self.mutexes.contains_key(&id) || !self.is_mutex_free(id) {
            return;
        }
        let Some(mutex) = self.mutexes.get_mut(&id) else { return };
        if let Some(next) = mutex.waiting.pop_front() {
            self.taken += 1;
            self.set_stage(next, Stage::Sent);
            around.fx.tell_node(ToNode::Dispatch(self.order(next, around.now).into_iter().collect()));
        } else if mutex.planned == 0 {
            self.mutexes.remove(&id);
        }
    }

    fn set_stage(&mut self, attempt: Attempt, stage: Stage) {
        if let Some(flight) = self.flights.get_mut(&attempt) {
            flight.stage = stage;
        }
    }

    fn flights_of(&self, id: JobId) -> impl Iterator<Item = (&Attempt, &Flight)> {
        let first = Attempt { run: RunKey::scheduled(id, Second(i64::MIN)), number: 0 };
        self.flights.range(first..).take_while(move |(attempt, _)| attempt.run.cron_id == id)
    }

    fn old_flights(&self, cron_id: JobId, below: Option<Version>, stage: Stage) -> Vec<Attempt> {
        self.flights_of(cron_id)
            .filter(|(_, flight)| flight.stage == stage && below.is_none_or(|below| flight.job.version < below))
            .map(|(attempt, _)| *attempt)
            .collect()
    }

    /// Rows for what the entry itself decided: refusals and gaps.
    fn write_outcomes(&mut self, id: EntryId, body: &Body, logged: &BTreeSet<Attempt>, around: &mut Around) {
        let refused = body
            .refused
            .iter()
            .map(|refused| (refused.run, refused.version, refused.state, refusal_text(refused.state)));
        let missed = body
            .missed
            .iter()
            .map(|gap| (RunKey::scheduled(gap.cron_id, gap.last), gap.version, RunState::Missed, gap_text(gap)));
        for (run, version, state, text) in refused.chain(missed) {
            let attempt = Attempt { run, number: 0 };
            if logged.contains(&attempt) {
                continue;
            }
            self.outcomes.insert(attempt, id);
            *self.open.entry(id).or_default() += 1;
            self.push_row(attempt, version, state, &text, around);
        }
    }

    fn push_row(&mut self, attempt: Attempt, version: Version, state: RunState, reason: &str, around: &mut Around) {
        let row = ending::unstarted_row(attempt, version, state, reason, &self.server);
        around.logbook.push(row, around.now);
    }

    fn settle(&mut self, entry: EntryId) {
        if let Some(left) = self.open.get_mut(&entry) {
            *left = left.saturating_sub(1);
        }
        self.close_if_empty(entry);
    }

    fn close_if_empty(&mut self, entry: EntryId) {
        if self.open.get(&entry) == Some(&0) {
            self.open.remove(&entry);
            self.to_close.push(entry);
        }
    }
}

const CANCELLED: &str = "cancelled: the job was stopped, changed or deleted before the run began";

fn refusal_text(state: RunState) -> String {
    match state {
        RunState::Skipped => {
            "skipped: too many earlier runs of this mutex job are waiting (max_pending_per_job)".into()
        }
        _ => "shed: this node has as many runs waiting and running as it may (max_pending, max_running)".into(),
    }
}

fn gap_text(gap: &MissedGap) -> String {
    let at_least = if gap.at_least { "at least " } else { "" };
    format!(
        "missed: {at_least}{} runs from {} to {} (unix seconds) were due while nobody was there, and the grace (misfire_grace) is over",
        gap.count, gap.first.0, gap.last.0
    )
}
