//! The leader's runs: from the decision, through the journal, to a node, until their log rows are committed.
//!
//! ```text
//! plan -> Planned -> (entry in the journal) -> Waiting (mutex taken) -> Sent -> Over -> (row committed) gone
//!              \________________________________/  |  ^
//!               a change of the job: given anew,   v  |  its node is not there: another one is named, journaled,
//!               or a `cancelled` row             Moving   and only then told
//! ```
//!
//! Not the scheduler: it does not know what is due. Not the journal: it says what an entry must name and hears when it
//! is in. `recovery` says what becomes of runs whose node or leader was lost.
//!
//! Invariants: no run is sent before its entry is in; of a mutex job at most one run is `Sent` to a node that may still
//! run it; an entry is closed only when every outcome that it names is committed or has moved to a later entry.

mod flights;
pub mod recovery;
mod rows;

pub use flights::Place;

use super::effects::Effects;
use super::journaler::Journaler;
use super::logbook::Logbook;
use super::scheduler::Scheduler;
use crate::model::journal::{Body, Entry, EntryId, PlannedRun, RefusedRun};
use crate::model::message::{Order, ToNode};
use crate::model::{Attempt, Job, JobId, NodeId, Now, RunKey, RunState, Second, Server, Version};
use flights::{Flight, Flights, Stage};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

#[derive(Debug)]
pub struct Dispatch {
    server: Server,
    node_id: NodeId,
    limits: DispatchLimits,
    flights: Flights,
    /// Outcomes of each entry that are not committed yet.
    open: BTreeMap<EntryId, usize>,
    /// Refused and missed runs whose rows are on their way.
    outcomes: BTreeMap<Attempt, EntryId>,
    to_close: Vec<EntryId>,
    /// Runs of the parts of a tick whose part 0 is not in yet.
    held_back: Vec<Attempt>,
    /// Runs that a former leader had named for ticks that it did not complete.
    named: BTreeSet<RunKey>,
    /// Runs and mutexes for which no node was there.
    unplaced: BTreeSet<Attempt>,
    /// How long nobody led before this leader.
    away_secs: i64,
}

#[derive(Clone, Copy, Debug)]
pub struct DispatchLimits {
    pub max_pending_per_job: usize,
    pub grace_secs: i64,
    /// Runs in one part of a tick.
    pub part_runs_max: usize,
}

/// The runs of a mutex job that may not go yet.
#[derive(Debug, Default)]
pub struct Mutex {
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
    /// The nodes that can be spoken to.
    pub places: &'a [Place],
}

impl Around<'_> {
    fn takes_new(&self, node: &NodeId) -> bool {
        self.places.iter().any(|place| place.takes_new && place.node == *node)
    }

    fn is_linked(&self, node: &NodeId) -> bool {
        self.places.iter().any(|place| place.node == *node)
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

impl Dispatch {
    pub fn new(server: Server, node_id: NodeId, limits: DispatchLimits) -> Dispatch {
        Dispatch {
            server,
            node_id,
            limits,
            flights: Flights::default(),
            open: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            to_close: Vec::new(),
            held_back: Vec::new(),
            named: BTreeSet::new(),
            unplaced: BTreeSet::new(),
            away_secs: 0,
        }
    }

    /// Decides on the runs of the jobs that are due: the parts of the tick, in the order in which they must be written.
    pub fn plan(&mut self, due: Vec<Arc<Job>>, tick: Second, now: Now, places: &[Place]) -> Vec<(u32, Body)> {
        let late = tick < now.wall.second();
        let (mut runs, mut refused) = (Vec::new(), Vec::new());
        for job in due {
            let run = RunKey::scheduled(job.id, tick);
            let attempt = Attempt { run, number: 1 };
            if self.named.contains(&run) || self.flights.has(attempt) {
                continue;
            }
            match self.place(&job, places) {
                Err(state) => refused.push(RefusedRun { run, version: job.version, state }),
                Ok(node) => {
                    runs.push((attempt, job.version, node.clone()));
                    self.flights.insert(attempt, Flight { job, entry: None, node, stage: Stage::Planned, late });
                }
            }
        }
        // What a former leader began in parts is completed by one part 0: the other numbers may be taken.
        let is_begun = self.named.iter().any(|run| run.scheduled_at == tick);
        self.named.retain(|run| run.scheduled_at != tick);
        let runs_max = if is_begun { usize::MAX } else { self.limits.part_runs_max };
        let mut bodies: Vec<Body> = runs.chunks(runs_max).map(body).collect();
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
            *self.open.entry(id).or_default() += 1;
            // The run is an outcome of this entry from now on, and of no earlier one.
            if let Some(earlier) = self.flights.rename(run.attempt, id) {
                self.settle(earlier);
            }
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
            self.flights.remove(run.attempt);
        }
    }

    /// The process is over: its mutex is free for the next.
    pub fn on_finished(&mut self, attempt: Attempt, around: &mut Around) {
        if self.flights.is(attempt, Stage::Sent) {
            self.flights.set_stage(attempt, Stage::Over);
        }
        self.next_of_mutex(attempt.run.cron_id, around);
    }

    /// The row is committed: the entry that names it is one outcome nearer to its end.
    pub fn on_logged(&mut self, attempt: Attempt, around: &mut Around) {
        let entry = self.flights.remove(attempt).and_then(|flight| flight.entry);
        if let Some(entry) = entry.or_else(|| self.outcomes.remove(&attempt)) {
            self.settle(entry);
        }
        self.next_of_mutex(attempt.run.cron_id, around);
    }

    /// Takes back the job's runs of older versions (with none: of all). Those that wait here are done anew; nodes that
    /// have some are told.
    pub fn cancel(&mut self, cron_id: JobId, below: Option<Version>, around: &mut Around) -> Cancelling {
        let waiting = self.old_flights(cron_id, below, Stage::Waiting);
        if let Some(mutex) = self.flights.mutexes.get_mut(&cron_id) {
            mutex.waiting.retain(|attempt| !waiting.contains(attempt));
        }
        waiting.into_iter().for_each(|attempt| self.redo(attempt, around));
        let mut cancelling = Cancelling::default();
        for attempt in self.old_flights(cron_id, below, Stage::Sent) {
            let Some(flight) = self.flights.get(attempt) else { continue };
            let nodes = if around.is_linked(&flight.node) { &mut cancelling.told } else { &mut cancelling.silent };
            nodes.insert(flight.node.clone());
        }
        for node in &cancelling.told {
            around.fx.tell_node(node, ToNode::Cancel { cron_id, below });
        }
        cancelling
    }

    /// The node has dropped these without starting them.
    pub fn on_dropped(&mut self, cron_id: JobId, dropped: Vec<Attempt>, around: &mut Around) {
        for attempt in dropped {
            if self.flights.is(attempt, Stage::Sent) {
                self.redo(attempt, around);
            }
        }
        self.next_of_mutex(cron_id, around);
    }

    /// Finds places for what had none.
    pub fn place_waiting(&mut self, around: &mut Around) {
        if self.unplaced.is_empty() || !around.places.iter().any(|place| place.takes_new) {
            return;
        }
        let mut orders = Orders::new();
        for attempt in std::mem::take(&mut self.unplaced) {
            match self.flights.get(attempt).map(|flight| (flight.stage, flight.job.is_mutex)) {
                Some((Stage::Waiting, true)) => self.next_of_mutex(attempt.run.cron_id, around),
                Some((Stage::Waiting, false)) => self.send_or_move(attempt, around, &mut orders),
                _ => {}
            }
        }
        send(orders, around);
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

    /// The node for a run of the job that is due now, or why there is none.
    fn place(&mut self, job: &Job, places: &[Place]) -> Result<NodeId, RunState> {
        if !job.is_mutex {
            return self.flights.choose(places).ok_or(RunState::Shed);
        }
        // One of these runs or will go, and the others wait with this one: what a former leader sent too, which is asked for.
        let others = self.flights.of_job(job.id).filter(|(_, flight)| flight.stage != Stage::Over).count();
        if self.limits.max_pending_per_job < others {
            return Err(RunState::Skipped);
        }
        Ok(self.flights.choose(places).unwrap_or_else(|| self.node_id.clone()))
    }

    /// Sends the planned runs, or lets them wait for their mutex; one whose job has changed meanwhile is done anew.
    fn release(&mut self, attempts: Vec<Attempt>, around: &mut Around) {
        let mut orders = Orders::new();
        for attempt in attempts {
            let Some(flight) = self.flights.get(attempt).cloned() else { continue };
            let job = flight.job;
            if !matches!(flight.stage, Stage::Planned | Stage::Moving) {
                continue;
            }
            if around.job(job.id).is_none_or(|now| now.version != job.version) {
                self.redo(attempt, around);
                self.next_of_mutex(job.id, around);
            } else if job.is_mutex && flight.stage == Stage::Planned && !self.may_take_mutex(job.id) {
                self.wait_for_mutex(attempt);
                self.next_of_mutex(job.id, around);
            } else {
                self.send_or_move(attempt, around, &mut orders);
            }
        }
        send(orders, around);
    }

    /// Free by the word of whoever had it, and nobody is ahead.
    fn may_take_mutex(&self, id: JobId) -> bool {
        let is_held = |stage| matches!(stage, Stage::Sent | Stage::Moving);
        self.flights.of_job(id).all(|(_, flight)| !is_held(flight.stage))
            && self.flights.mutexes.get(&id).is_none_or(|mutex| mutex.waiting.is_empty())
    }

    /// Into the queue of its mutex, in the order of the seconds.
    fn wait_for_mutex(&mut self, attempt: Attempt) {
        self.flights.set_stage(attempt, Stage::Waiting);
        let mutex = self.flights.mutexes.entry(attempt.run.cron_id).or_default();
        let at = mutex.waiting.partition_point(|earlier| *earlier < attempt);
        mutex.waiting.insert(at, attempt);
    }

    /// To the node that its entry names, where that is there; else another one is journaled first.
    fn send_or_move(&mut self, attempt: Attempt, around: &mut Around, orders: &mut Orders) {
        let Some(flight) = self.flights.get(attempt).cloned() else { return };
        if self.is_too_late(attempt, &flight.job, around.now) {
            self.flights.set_stage(attempt, Stage::Over);
            self.push_row(attempt, flight.job.version, RunState::Missed, rows::MISSED, around);
            self.next_of_mutex(attempt.run.cron_id, around);
        } else if around.takes_new(&flight.node) {
            self.flights.set_stage(attempt, Stage::Sent);
            let order = self.order(attempt, &flight, around.now);
            orders.entry(flight.node).or_default().push(order);
        } else if let Some(node) = self.flights.choose(around.places) {
            self.flights.move_to(attempt, node.clone());
            around.journaler.push(None, 0, body(&[(attempt, flight.job.version, node)]));
        } else if flight.job.is_mutex {
            self.wait_for_mutex(attempt);
            self.unplaced.insert(attempt);
        } else {
            self.flights.set_stage(attempt, Stage::Waiting);
            self.unplaced.insert(attempt);
        }
    }

    /// A run that waited for its mutex is as late as that wait, which is no fault: of it only the time in which nobody
    /// led counts.
    fn is_too_late(&self, attempt: Attempt, job: &Job, now: Now) -> bool {
        let late_secs = now.wall.second().0 - attempt.run.scheduled_at.0;
        self.limits.grace_secs < if job.is_mutex { late_secs.min(self.away_secs) } else { late_secs }
    }

    fn order(&self, attempt: Attempt, flight: &Flight, now: Now) -> Order {
        let expires = (!flight.job.is_mutex).then(|| attempt.run.scheduled_at.plus(self.limits.grace_secs));
        Order {
            attempt,
            job: Arc::clone(&flight.job),
            late: flight.late || attempt.run.scheduled_at < now.wall.second(),
            expires,
            dispatch_time: now.wall.second(),
            dispatch_server: self.server.clone(),
        }
    }

    /// A run that was not started under its old definition: given anew where the present one is due then too, else told
    /// as cancelled.
    fn redo(&mut self, attempt: Attempt, around: &mut Around) {
        let Some(flight) = self.flights.get(attempt).cloned() else { return };
        self.flights.set_stage(attempt, Stage::Over);
        let id = attempt.run.cron_id;
        let is_due = around.scheduler.is_due(id, attempt.run.scheduled_at);
        match around.job(id).filter(|_| is_due).cloned() {
            Some(job) => {
                let node = self.flights.choose(around.places).unwrap_or_else(|| self.node_id.clone());
                around.journaler.push(None, 0, body(&[(attempt, job.version, node.clone())]));
                self.flights.insert(attempt, Flight { job, node, stage: Stage::Planned, ..flight });
            }
            None => self.push_row(attempt, flight.job.version, RunState::Cancelled, rows::CANCELLED, around),
        }
    }

    fn next_of_mutex(&mut self, id: JobId, around: &mut Around) {
        let is_by_lease = self.flights.of_job(id).any(|(_, flight)| flight.stage == Stage::Sent);
        self.next_after(id, is_by_lease, around);
    }

    /// `is_by_lease`: the mutex is free because a lease is over, and not by its holder's word. Another leader, of which we
    /// have not heard, may have made that lease longer; so the next run goes into the journal once more, which tells.
    fn next_after(&mut self, id: JobId, is_by_lease: bool, around: &mut Around) {
        if !self.flights.mutexes.contains_key(&id) || !self.flights.is_mutex_free(id) {
            return;
        }
        let Some(mutex) = self.flights.mutexes.get_mut(&id) else { return };
        if let Some(next) = mutex.waiting.pop_front() {
            let mut orders = Orders::new();
            match is_by_lease {
                true => self.move_anew(next, around),
                false => self.send_or_move(next, around, &mut orders),
            }
            send(orders, around);
        } else if mutex.planned == 0 {
            self.flights.mutexes.remove(&id);
        }
    }

    fn move_anew(&mut self, attempt: Attempt, around: &mut Around) {
        let Some(flight) = self.flights.get(attempt) else { return };
        let (version, node) = (flight.job.version, flight.node.clone());
        self.flights.move_to(attempt, node.clone());
        around.journaler.push(None, 0, body(&[(attempt, version, node)]));
    }

    fn old_flights(&self, cron_id: JobId, below: Option<Version>, stage: Stage) -> Vec<Attempt> {
        self.flights
            .of_job(cron_id)
            .filter(|(_, flight)| flight.stage == stage && below.is_none_or(|below| flight.job.version < below))
            .map(|(attempt, _)| *attempt)
            .collect()
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
