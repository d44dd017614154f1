//! The node's part: it takes runs, starts each at its second, and tells what became of it.
//!
//! ```text
//! Dispatch -> Armed -> Ready (or Late) -> Spawning -> Running -> [Ending] -> Over -> (row committed) gone
//!                        ^      |             |
//!                        |      v no lease    v no lease
//!                        +--- Parked <--------+          Cancel takes a run out of any stage before Spawning.
//! Found (a mark of a former incarnation) -> Dispatch as above, or explained by a row. A mutex run that is parked starts
//! only by a new order: its mutex may be another's by then.
//! ```
//!
//! Not the leader: it never decides that a run is due, and it may start one only while the lease holds.
//!
//! Invariants: what it holds is in the marks; an attempt is handed to the spawning threads at most once; at most
//! `max_running` processes run, and at most `SPAWNS_MAX` are with the threads, so that a cancel finds the rest here.

use super::effects::Effects;
use super::ending::{self, EndedBy, Ending};
use super::logbook::Logbook;
use super::work::{Kill, KillHow, Spawn, SpawnError, Started, Work, WorkId};
use super::{FoundMark, FoundState, MarkOp};
use crate::model::message::{Heartbeat, Held, Order, ToLeader};
use crate::model::{Attempt, Exit, JobId, Mono, Now, RunKey, RunState, Second, Server, Version, Wall};
use std::collections::{BTreeMap, VecDeque};

/// Runs with the two spawning threads at one time: enough that no thread waits for us, few enough that a cancel has
/// little to wait for.
const SPAWNS_MAX: usize = 4;
/// The number of the signal KILL.
const KILLED: i32 = 9;
/// Between TERM and KILL.
const KILL_GRACE_MS: u64 = 5_000;

#[derive(Debug)]
pub struct Executor {
    server: Server,
    max_running: usize,
    holdings: BTreeMap<Attempt, Holding>,
    armed: BTreeMap<Mono, Vec<Attempt>>,
    ready: VecDeque<Attempt>,
    late: VecDeque<Attempt>,
    spawning: BTreeMap<WorkId, Attempt>,
    running: usize,
    endings: BTreeMap<WorkId, Attempt>,
    alarms: BTreeMap<Mono, Vec<(Attempt, KillHow, EndedBy)>>,
    cancels: Vec<Cancel>,
    lease: Mono,
    is_draining: bool,
}

#[derive(Debug)]
struct Holding {
    /// None for a mark that was found and that no leader has spoken of yet.
    order: Option<Order>,
    version: Version,
    stage: Stage,
    /// Where somebody ends it.
    ended_by: Option<EndedBy>,
}

#[derive(Clone, Debug)]
enum Stage {
    Found(FoundState),
    Armed,
    Ready,
    Parked,
    Spawning,
    Running(Started),
    /// The main process is over, what is left of its run is being killed.
    Ending(Started, Exit, String),
    Over,
}

/// A cancel that waits for the runs of its job that are with the spawning threads.
#[derive(Debug)]
struct Cancel {
    cron_id: JobId,
    below: Option<Version>,
    dropped: Vec<Attempt>,
}

impl Executor {
    pub fn new(server: Server, max_running: usize, found: &[FoundMark]) -> Executor {
        let holding = |mark: &FoundMark| Holding {
            order: None,
            version: mark.version,
            stage: Stage::Found(mark.state),
            ended_by: None,
        };
        Executor {
            server,
            max_running,
            holdings: found.iter().map(|mark| (mark.attempt, holding(mark))).collect(),
            armed: BTreeMap::new(),
            ready: VecDeque::new(),
            late: VecDeque::new(),
            spawning: BTreeMap::new(),
            running: 0,
            endings: BTreeMap::new(),
            alarms: BTreeMap::new(),
            cancels: Vec::new(),
            lease: Mono(0),
            is_draining: false,
        }
    }

    /// What has its log row on the way is over, whatever its mark says.
    pub fn on_kept(&mut self, logbook: &Logbook) {
        let kept = self.holdings.iter_mut().filter(|(attempt, _)| logbook.has(**attempt));
        kept.for_each(|(_, holding)| holding.stage = Stage::Over);
    }

    pub fn held(&self, attempt: Attempt) -> Option<Held> {
        let holding = self.holdings.get(&attempt)?;
        let is_mutex = holding.order.as_ref().is_some_and(|order| order.job.is_mutex);
        Some(match holding.stage {
            Stage::Parked if is_mutex => Held::Parked,
            Stage::Found(FoundState::Held) => Held::Parked,
            Stage::Armed | Stage::Ready | Stage::Parked => Held::Waiting,
            Stage::Found(FoundState::Unknown) => Held::Unknown,
            _ => Held::Begun,
        })
    }

    /// All that this node has.
    pub fn holdings(&self) -> Vec<(Attempt, Held)> {
        self.holdings.keys().filter_map(|attempt| Some((*attempt, self.held(*attempt)?))).collect()
    }

    /// How much it has to do, for the leader.
    pub fn load(&self) -> Heartbeat {
        let running = self.running + self.spawning.len();
        let waiting = self.holdings.keys().filter(|attempt| self.held(**attempt).is_some_and(is_unstarted)).count();
        Heartbeat { running, waiting, is_draining: self.is_draining, ..Heartbeat::default() }
    }

    /// The leader will not have these started.
    pub fn on_settled(&mut self, drop: Vec<Attempt>, fx: &mut Effects) {
        for attempt in drop {
            if self.held(attempt).is_some_and(is_unstarted) {
                self.forget(attempt, fx);
            }
        }
    }

    /// Gives back what was not started: this node is leaving.
    pub fn hand_back(&mut self, fx: &mut Effects) {
        let waiting: Vec<Attempt> =
            self.holdings.keys().copied().filter(|attempt| self.held(*attempt).is_some_and(is_unstarted)).collect();
        waiting.iter().for_each(|attempt| self.forget(*attempt, fx));
        if !waiting.is_empty() {
            fx.tell_leader(ToLeader::Returned(waiting));
        }
    }

    /// Nothing runs, nothing is about to, and what did has its row.
    pub fn is_idle(&self) -> bool {
        self.running == 0 && self.spawning.is_empty() && self.endings.is_empty()
    }

    /// Runs may start until then; a lease is only ever made longer. After one that was over, the mutex of what waits here
    /// may be another's by now: only a new order lets that start.
    pub fn extend_lease(&mut self, until: Mono, fx: &mut Effects, now: Now) {
        if until <= self.lease {
            return;
        }
        let was_over = self.lease <= now.mono;
        self.lease = until;
        fx.mark(MarkOp::Lease { until });
        for (attempt, holding) in &mut self.holdings {
            let is_mutex = holding.order.as_ref().is_some_and(|order| order.job.is_mutex);
            match holding.stage {
                Stage::Armed | Stage::Ready if was_over && is_mutex => holding.stage = Stage::Parked,
                Stage::Parked if !is_mutex => {
                    holding.stage = Stage::Ready;
                    self.ready.push_back(*attempt);
                }
                _ => {}
            }
        }
    }

    /// Takes runs. One that is held already is only told its order again. `leaders_now`: the leader's clock decides when
    /// a run starts.
    pub fn on_dispatch(&mut self, orders: Vec<Order>, fx: &mut Effects, leaders_now: Now) {
        for order in orders {
            let attempt = order.attempt;
            if self.held(attempt).is_some_and(|held| !is_unstarted(held)) {
                continue;
            }
            let (version, is_mutex) = (order.job.version, order.job.is_mutex);
            fx.mark(MarkOp::Hold { attempt, version, is_mutex });
            let at = leaders_now.mono_at(attempt.run.scheduled_at.wall());
            let stage = if at <= leaders_now.mono {
                if order.late {
                    self.late.push_back(attempt)
                } else {
                    self.ready.push_back(attempt)
                }
                Stage::Ready
            } else {
                self.armed.entry(at).or_default().push(attempt);
                Stage::Armed
            };
            self.holdings.insert(attempt, Holding { order: Some(order), version, stage, ended_by: None });
        }
    }

    /// Drops the job's runs that are not spawned yet and of a version below; answers when none is with the threads.
    pub fn on_cancel(&mut self, cron_id: JobId, below: Option<Version>, fx: &mut Effects) {
        let dropped: Vec<Attempt> =
            self.of_job(cron_id, below).filter(|attempt| self.held(*attempt).is_some_and(is_unstarted)).collect();
        dropped.iter().for_each(|attempt| self.forget(*attempt, fx));
        self.cancels.push(Cancel { cron_id, below, dropped });
        self.answer_cancels(fx);
    }

    /// The log row is committed, or the leader has dropped the run.
    pub fn forget(&mut self, attempt: Attempt, fx: &mut Effects) {
        if self.holdings.remove(&attempt).is_some() {
            fx.mark(MarkOp::Clear { attempt });
        }
    }

    pub fn on_spawned(
        &mut self,
        id: WorkId,
        result: Result<Started, SpawnError>,
        logbook: &mut Logbook,
        fx: &mut Effects,
        now: Now,
    ) {
        let Some(attempt) = self.spawning.remove(&id) else { return };
        let Some(holding) = self.holdings.get_mut(&attempt) else { return };
        match result {
            Ok(started) => {
                holding.stage = Stage::Running(started);
                self.running += 1;
                let lock_limit = holding
                    .order
                    .as_ref()
                    .map(|order| &order.job)
                    .filter(|job| job.is_mutex)
                    .map_or(0, |job| job.lock_limit);
                if lock_limit != 0 {
                    let at = now.mono_at(started.at).plus_ms(u64::from(lock_limit) * 1_000);
                    self.alarms.entry(at).or_default().push((attempt, KillHow::Ask, EndedBy::LockLimit));
                }
            }
            Err(SpawnError::NoLease) => holding.stage = Stage::Parked,
            Err(SpawnError::Failed(reason)) => {
                self.finish(attempt, Ending::NotStarted(RunState::Failed, reason), logbook, fx, now);
            }
        }
        self.answer_cancels(fx);
    }

    /// The main process is over. Where somebody ended the run, what is left of it is killed before it counts as over.
    pub fn on_exited(
        &mut self,
        attempt: Attempt,
        exit: Exit,
        output: String,
        logbook: &mut Logbook,
        fx: &mut Effects,
        now: Now,
    ) {
        let Some(holding) = self.holdings.get_mut(&attempt) else { return };
        let Stage::Running(started) = holding.stage else { return };
        self.running -= 1;
        fx.mark(MarkOp::Ended { attempt, exit });
        // The guardian kills a mutex run whose lease is over, and can tell us only by that.
        let is_mutex = holding.order.as_ref().is_some_and(|order| order.job.is_mutex);
        if is_mutex && self.lease <= now.mono && exit == Exit::Signal(KILLED) {
            holding.ended_by.get_or_insert(EndedBy::LeaseEnd);
        }
        if holding.ended_by.is_some() {
            holding.stage = Stage::Ending(started, exit, output);
            let id = fx.work(Work::Kill(Kill { attempt, how: KillHow::Force }));
            self.endings.insert(id, attempt);
        } else {
            self.finish(attempt, Ending::Exited { started, exit, output, ended_by: None }, logbook, fx, now);
        }
    }

    /// The processes of an attempt have been signalled.
    pub fn on_killed(&mut self, id: WorkId, logbook: &mut Logbook, fx: &mut Effects, now: Now) {
        let Some(attempt) = self.endings.remove(&id) else { return };
        let Some(holding) = self.holdings.get_mut(&attempt) else { return };
        let ended_by = holding.ended_by;
        if let Stage::Ending(started, exit, output) = std::mem::replace(&mut holding.stage, Stage::Over) {
            self.finish(attempt, Ending::Exited { started, exit, output, ended_by }, logbook, fx, now);
        }
    }

    /// Starts what is due and rings what has run out of time.
    pub fn poll(&mut self, logbook: &mut Logbook, fx: &mut Effects, now: Now, leaders_wall: Wall) {
        while let Some(entry) = self.armed.first_entry().filter(|entry| *entry.key() <= now.mono) {
            for attempt in entry.remove() {
                if let Some(holding) = self.holdings.get_mut(&attempt)
                    && matches!(holding.stage, Stage::Armed)
                {
                    holding.stage = Stage::Ready;
                    self.ready.push_back(attempt);
                }
            }
        }
        while let Some(entry) = self.alarms.first_entry().filter(|entry| *entry.key() <= now.mono) {
            for (attempt, how, ended_by) in entry.remove() {
                self.end(attempt, how, ended_by, fx, now);
            }
        }
        self.start_ready(logbook, fx, now, leaders_wall);
    }

    /// When `poll` has something to do.
    pub fn deadline(&self) -> Option<Mono> {
        let armed = self.armed.first_key_value().map(|(at, _)| *at);
        let alarm = self.alarms.first_key_value().map(|(at, _)| *at);
        armed.into_iter().chain(alarm).min()
    }

    /// Starts nothing more.
    pub fn drain(&mut self) {
        self.is_draining = true;
    }

    /// Ends everything that runs.
    pub fn end_all(&mut self, how: KillHow, fx: &mut Effects, now: Now) {
        let running: Vec<Attempt> = self
            .holdings
            .iter()
            .filter(|(_, holding)| matches!(holding.stage, Stage::Running(_)))
            .map(|(attempt, _)| *attempt)
            .collect();
        running.into_iter().for_each(|attempt| self.end(attempt, how, EndedBy::Leaving, fx, now));
    }

    /// Writes the rows of what former incarnations had begun, and drops what they held and no leader has asked for.
    pub fn explain_found(&mut self, logbook: &mut Logbook, fx: &mut Effects, now: Now) {
        let found: Vec<(Attempt, FoundState)> = self
            .holdings
            .iter()
            .filter_map(|(attempt, holding)| match holding.stage {
                Stage::Found(state) => Some((*attempt, state)),
                _ => None,
            })
            .collect();
        for (attempt, state) in found {
            match state {
                FoundState::Held => self.forget(attempt, fx),
                FoundState::Started | FoundState::Unknown | FoundState::Ended(_) => {
                    self.finish(attempt, Ending::Found(state), logbook, fx, now);
                }
            }
        }
    }

    fn start_ready(&mut self, logbook: &mut Logbook, fx: &mut Effects, now: Now, leaders_wall: Wall) {
        while !self.is_draining
            && self.spawning.len() < SPAWNS_MAX
            && self.running + self.spawning.len() < self.max_running
        {
            let Some(attempt) = self.ready.pop_front().or_else(|| self.late.pop_front()) else { return };
            let Some(holding) = self.holdings.get_mut(&attempt).filter(|holding| matches!(holding.stage, Stage::Ready))
            else {
                continue;
            };
            let Some(order) = &holding.order else { continue };
            if order.expires.is_some_and(|expires| expires < leaders_wall.second()) {
                let reason = "not started: its turn came only when the grace (misfire_grace) was over";
                self.finish(attempt, Ending::NotStarted(RunState::Missed, reason.into()), logbook, fx, now);
            } else if self.lease <= now.mono {
                holding.stage = Stage::Parked;
            } else {
                let id = fx.work(Work::Spawn(Spawn { attempt, job: order.job.clone() }));
                holding.stage = Stage::Spawning;
                self.spawning.insert(id, attempt);
            }
        }
    }

    /// Signals a run, and sees to it that a gentle signal is followed by the one that cannot be refused.
    fn end(&mut self, attempt: Attempt, how: KillHow, ended_by: EndedBy, fx: &mut Effects, now: Now) {
        let Some(holding) = self.holdings.get_mut(&attempt) else { return };
        if !matches!(holding.stage, Stage::Running(_)) {
            return;
        }
        holding.ended_by.get_or_insert(ended_by);
        fx.work(Work::Kill(Kill { attempt, how }));
        if how == KillHow::Ask {
            let at = now.mono.plus_ms(KILL_GRACE_MS);
            self.alarms.entry(at).or_default().push((attempt, KillHow::Force, ended_by));
        }
    }

    fn finish(&mut self, attempt: Attempt, ending: Ending, logbook: &mut Logbook, fx: &mut Effects, now: Now) {
        let Some(holding) = self.holdings.get_mut(&attempt) else { return };
        holding.stage = Stage::Over;
        let row = ending::row(attempt, holding.version, holding.order.as_ref(), &self.server, ending, now);
        let state = row.state;
        logbook.push(row, now);
        fx.tell_leader(ToLeader::Finished { attempt, state });
    }

    fn answer_cancels(&mut self, fx: &mut Effects) {
        let mut waiting = Vec::new();
        for mut cancel in std::mem::take(&mut self.cancels) {
            let is_with_threads = self
                .spawning
                .values()
                .any(|attempt| attempt.run.cron_id == cancel.cron_id && self.is_below(*attempt, cancel.below));
            // A run that came back from the threads without a lease is waiting again, and is dropped like the others.
            let returned: Vec<Attempt> = self
                .of_job(cancel.cron_id, cancel.below)
                .filter(|attempt| matches!(self.holdings[attempt].stage, Stage::Parked))
                .collect();
            for attempt in returned {
                self.forget(attempt, fx);
                cancel.dropped.push(attempt);
            }
            if is_with_threads {
                waiting.push(cancel);
            } else {
                fx.tell_leader(ToLeader::Cancelled { cron_id: cancel.cron_id, dropped: cancel.dropped });
            }
        }
        self.cancels = waiting;
    }

    fn is_below(&self, attempt: Attempt, below: Option<Version>) -> bool {
        let version = self.holdings.get(&attempt).map(|holding| holding.version);
        below.is_none_or(|below| version.is_some_and(|version| version < below))
    }

    fn of_job(&self, cron_id: JobId, below: Option<Version>) -> impl Iterator<Item = Attempt> {
        let first = Attempt { run: RunKey::scheduled(cron_id, Second(i64::MIN)), number: 0 };
        self.holdings
            .range(first..)
            .take_while(move |(attempt, _)| attempt.run.cron_id == cron_id)
            .filter(move |(_, holding)| below.is_none_or(|below| holding.version < below))
            .map(|(attempt, _)| *attempt)
    }
}

fn is_unstarted(held: Held) -> bool {
    matches!(held, Held::Waiting | Held::Parked)
}
