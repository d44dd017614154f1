//! The node's part: it takes runs, starts each at its second, and tells what became of it.
//!
//! ```text
//! Dispatch -> Armed -> Ready (it waits for its turn) -> Spawning -> Running -> [Ending] -> Over -> (row committed) gone
//!                        ^  ^   |                        |  |
//!                        |  |   v no lease      no lease v  | no room for a process
//!                        |  +--- Parked <----------------+  |
//!                        +----------------------------------+        Cancel takes a run out of any stage before Spawning.
//! Found (a mark of a former incarnation) -> Dispatch as above, or explained by a row. A mutex run that is parked starts
//! only by a new order: its mutex may be another's by then.
//! ```
//!
//! Not the leader: it never decides that a run is due, and it may start one only while the lease holds. `turns` says
//! whose turn it is, `starting` gives runs to the threads, `stopping` ends them.
//!
//! Invariants: what it holds is in the marks; an attempt is handed to the spawning threads again only when they have said
//! that it was not started; at most `max_running` processes run, and at most `SPAWNS_MAX` are with the threads, so that a
//! cancel finds the rest here; no input costs a look at all that is held, save those that change all of it.

mod alarms;
mod holdings;
mod ready_queue;
mod starting;
mod stopping;
#[cfg(test)]
mod tests;
mod throttle;

use crate::core::io::{Effect, Effects, FoundMark, FoundState, MarkOp};
use crate::core::log::ending::{self, EndedBy, Ending};
use crate::core::log::logbook::Logbook;
use crate::core::ports::{SpawnError, Started, WorkId};
use crate::core::time::{Timer, Timers};
use crate::model::config::Limits;
use crate::model::message::{Heartbeat, Held, HeldRun, Order, ToLeader};
use crate::model::{Attempt, JobId, Mono, Now, RunState, Server, Version, Wall};
use alarms::Alarms;
use holdings::{Holding, Holdings, Phase};
use ready_queue::{Rank, ReadyQueue};
use std::collections::BTreeMap;
use throttle::Throttle;

/// Runs with the two spawning threads at one time: enough that no thread waits for us, few enough that a cancel has
/// little to wait for.
const SPAWNS_MAX: usize = 4;
const JOB_FULL: &str = "skipped: as many earlier runs of this job as may wait are waiting here (max_pending_per_job)";
const NODE_FULL: &str = "shed: too many runs of this node are over and wait for the store to take their log rows";

#[derive(Debug)]
pub struct Executor {
    server: Server,
    limits: Limits,
    holdings: Holdings,
    armed: BTreeMap<Mono, Vec<Attempt>>,
    ready: ReadyQueue,
    throttle: Throttle,
    spawning: BTreeMap<WorkId, Attempt>,
    endings: BTreeMap<WorkId, Attempt>,
    alarms: Alarms,
    /// When the first of those that wait for their turn has waited for too long.
    expires_at: Option<Mono>,
    cancels: Vec<Cancel>,
    lease: Mono,
    is_draining: bool,
    counters: Counters,
}

/// What this node was asked to start since its own start. What became of it is counted with the rows.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    pub started: u64,
    /// Starts that had to be put off: the system had no room for another process.
    pub put_off: u64,
}

/// What a node had of an attempt whose row is committed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Committed {
    Over,
    StillHeld,
    /// The row is a leader's, who gave the attempt to nobody or to another node.
    NotHeld,
}

/// A cancel that waits for the runs of its job that are with the spawning threads.
#[derive(Debug)]
struct Cancel {
    cron_id: JobId,
    below: Option<Version>,
    dropped: Vec<Attempt>,
}

impl Executor {
    pub fn new(server: Server, limits: Limits, found: &[FoundMark]) -> Executor {
        let mut holdings = Holdings::default();
        for mark in found {
            holdings.insert(mark.attempt, Holding::new(None, mark.version, Phase::Found(mark.state)));
        }
        Executor {
            server,
            limits,
            holdings,
            armed: BTreeMap::new(),
            ready: ReadyQueue::default(),
            throttle: Throttle::default(),
            spawning: BTreeMap::new(),
            endings: BTreeMap::new(),
            alarms: Alarms::default(),
            expires_at: None,
            cancels: Vec::new(),
            lease: Mono(0),
            is_draining: false,
            counters: Counters::default(),
        }
    }

    /// What has its log row on the way is over, whatever its mark says.
    pub fn mark_logged(&mut self, logbook: &Logbook) {
        let attempts = self.holdings.iter().map(|(attempt, _)| attempt);
        let logged: Vec<Attempt> = attempts.filter(|attempt| logbook.has(*attempt)).collect();
        for attempt in logged {
            self.holdings.set_phase(attempt, Phase::Over);
        }
    }

    pub fn held(&self, attempt: Attempt) -> Option<Held> {
        self.holdings.get(attempt).map(Holding::held)
    }

    /// All that this node has.
    pub fn holdings(&self) -> Vec<(Attempt, Held)> {
        self.holdings.iter().map(|(attempt, holding)| (attempt, holding.held())).collect()
    }

    /// What this node has and is not over, for people: what runs first, and not without end.
    pub fn runs(&self) -> Vec<HeldRun> {
        self.holdings.views(HeldRun::LIST_MAX)
    }

    /// How much it has to do, for the leader.
    pub fn load(&self) -> Heartbeat {
        Heartbeat {
            running: self.active(),
            waiting: self.holdings.waiting(),
            is_draining: self.is_draining,
            is_full: self.throttle.is_on(),
            ..Heartbeat::default()
        }
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The leader will not have these started.
    pub fn on_settled(&mut self, drop: Vec<Attempt>, fx: &mut Effects) {
        for attempt in drop {
            if self.is_unstarted(attempt) {
                self.forget(attempt, fx);
            }
        }
    }

    /// Gives back what was not started: this node is leaving.
    pub fn hand_back(&mut self, fx: &mut Effects) {
        let waiting = self.holdings.unstarted();
        self.give_back(waiting, fx);
    }

    /// The leader wants these back, where they have not begun meanwhile.
    pub fn give_back(&mut self, attempts: Vec<Attempt>, fx: &mut Effects) {
        let waiting: Vec<Attempt> = attempts.into_iter().filter(|attempt| self.is_unstarted(*attempt)).collect();
        waiting.iter().for_each(|attempt| self.forget(*attempt, fx));
        if !waiting.is_empty() {
            fx.tell_leader(ToLeader::Returned(waiting));
        }
    }

    /// Nothing runs, nothing is about to, and what did has its row.
    pub fn is_idle(&self) -> bool {
        self.active() == 0 && self.endings.is_empty()
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
        for attempt in self.holdings.parked() {
            self.enqueue(attempt);
        }
        if was_over {
            let waits = |holding: &Holding| matches!(holding.phase(), Phase::Armed | Phase::Ready);
            let doubtful = self.holdings.iter().filter(|(_, holding)| holding.is_mutex() && waits(holding));
            let doubtful: Vec<Attempt> = doubtful.map(|(attempt, _)| attempt).collect();
            for attempt in doubtful {
                self.holdings.set_phase(attempt, Phase::Parked);
            }
        }
    }

    /// Takes runs. One that is held already is only told its order again. `leaders_now`: the leader's clock decides when
    /// a run starts.
    pub fn on_dispatch(&mut self, orders: Vec<Order>, logbook: &mut Logbook, fx: &mut Effects, leaders_now: Now) {
        if self.is_draining {
            return self.refuse(orders, fx);
        }
        for order in orders {
            let attempt = order.attempt;
            if self.holdings.get(attempt).is_some_and(|holding| !holding.is_unstarted()) {
                continue;
            }
            let (version, is_mutex) = (order.job.version, order.job.is_mutex);
            if self.limits.held_max() <= self.holdings.count() && self.holdings.get(attempt).is_none() {
                self.holdings.insert(attempt, Holding::new(Some(order), version, Phase::Armed));
                self.finish(attempt, Ending::NotStarted(RunState::Shed, NODE_FULL.into()), logbook, fx, leaders_now);
                continue;
            }
            fx.mark(MarkOp::Hold { attempt, version, is_mutex });
            let at = leaders_now.mono_at(attempt.run.scheduled_at.wall());
            self.holdings.insert(attempt, Holding::new(Some(order), version, Phase::Armed));
            if at <= leaders_now.mono {
                self.on_due(attempt, logbook, fx, leaders_now);
            } else {
                self.armed.entry(at).or_default().push(attempt);
            }
        }
    }

    /// What was on its way while this node began to leave.
    fn refuse(&self, orders: Vec<Order>, fx: &mut Effects) {
        let attempts = orders.into_iter().map(|order| order.attempt);
        let refused: Vec<Attempt> = attempts.filter(|attempt| self.holdings.get(*attempt).is_none()).collect();
        if !refused.is_empty() {
            fx.tell_leader(ToLeader::Returned(refused));
        }
    }

    /// Drops the job's runs that are not spawned yet and of a version below; answers when none is with the threads.
    pub fn on_cancel(&mut self, cron_id: JobId, below: Option<Version>, fx: &mut Effects) {
        let waiting = self.holdings.of_job(cron_id, below).filter(|(_, holding)| holding.is_unstarted());
        let dropped: Vec<Attempt> = waiting.map(|(attempt, _)| attempt).collect();
        dropped.iter().for_each(|attempt| self.forget(*attempt, fx));
        self.cancels.push(Cancel { cron_id, below, dropped });
        self.answer_cancels(fx);
    }

    /// The log row is committed. Answers what this node had of the attempt: the row of one that is about to begin here or has
    /// not ended is what this node wrote when it led, and not the whole truth.
    pub fn on_committed(&mut self, attempt: Attempt, fx: &mut Effects) -> Committed {
        match self.holdings.phase(attempt) {
            None => Committed::NotHeld,
            Some(Phase::Found(_) | Phase::Over) => {
                self.forget(attempt, fx);
                Committed::Over
            }
            Some(_) => Committed::StillHeld,
        }
    }

    /// The log row is committed, or the leader has dropped the run.
    pub fn forget(&mut self, attempt: Attempt, fx: &mut Effects) {
        if self.holdings.remove(attempt).is_some() {
            fx.mark(MarkOp::Clear { attempt });
        }
    }

    /// Starts what is due and rings what has run out of time.
    pub fn poll(&mut self, logbook: &mut Logbook, fx: &mut Effects, now: Now, leaders_wall: Wall) {
        while let Some(entry) = self.armed.first_entry().filter(|entry| *entry.key() <= now.mono) {
            for attempt in entry.remove() {
                if matches!(self.holdings.phase(attempt), Some(Phase::Armed)) {
                    self.on_due(attempt, logbook, fx, now);
                }
            }
        }
        while let Some((attempt, alarm)) = self.alarms.take_due(now.mono) {
            self.end(attempt, alarm.how, alarm.ended_by, fx, now);
        }
        self.miss_expired(logbook, fx, now, leaders_wall);
        self.start_ready(fx, now, leaders_wall);
    }

    pub fn timers(&self, timers: &mut Timers) {
        timers.set(Timer::ArmedRun, self.armed.first_key_value().map(|(at, _)| *at));
        timers.set(Timer::RunLimit, self.alarms.first());
        timers.set(Timer::RunExpiry, self.expires_at);
        self.throttle.timers(!self.ready.is_empty() && self.has_room(), timers);
    }

    /// Starts nothing more.
    pub fn drain(&mut self) {
        self.is_draining = true;
    }

    /// Writes the rows of what former incarnations had begun, and drops what they held and no leader has asked for.
    pub fn explain_found(&mut self, logbook: &mut Logbook, fx: &mut Effects, now: Now) {
        let found = self.holdings.iter().filter_map(|(attempt, holding)| match holding.phase() {
            Phase::Found(state) => Some((attempt, *state)),
            _ => None,
        });
        for (attempt, state) in found.collect::<Vec<(Attempt, FoundState)>>() {
            match state {
                FoundState::Held => self.forget(attempt, fx),
                FoundState::Started | FoundState::Unknown | FoundState::Ended(_) => {
                    self.finish(attempt, Ending::Found(state), logbook, fx, now);
                }
            }
        }
    }

    /// Its time has come: it waits for its turn, unless too many of its job do so already.
    fn on_due(&mut self, attempt: Attempt, logbook: &mut Logbook, fx: &mut Effects, now: Now) {
        let is_full = self.limits.max_pending_per_job <= self.holdings.ready_of(attempt.run.cron_id);
        if is_full && attempt.number == 1 && attempt.run.manual.is_none() {
            // Those of a job share a row, and the leader writes it. Asked for by hand or a retry, it has one of its own.
            self.forget(attempt, fx);
            fx.push(Effect::Ended { attempt, state: RunState::Skipped, last_lines: JOB_FULL.into() });
            fx.tell_leader(ToLeader::Refused(vec![attempt]));
        } else if is_full {
            self.finish(attempt, Ending::NotStarted(RunState::Skipped, JOB_FULL.into()), logbook, fx, now);
        } else {
            self.enqueue(attempt);
        }
    }

    fn enqueue(&mut self, attempt: Attempt) {
        let Some(rank) = self.rank(attempt) else { return };
        self.holdings.set_phase(attempt, Phase::Ready);
        self.ready.push(attempt, rank);
    }

    fn rank(&self, attempt: Attempt) -> Option<Rank> {
        let order = self.holdings.get(attempt)?.order.as_ref()?;
        let waited_for_permit = order.expires.is_none();
        Some(if waited_for_permit || attempt.run.manual.is_some() {
            Rank::Urgent
        } else if order.late {
            Rank::Late
        } else {
            Rank::Prompt
        })
    }

    /// Processes that run or are being started.
    fn active(&self) -> usize {
        self.holdings.running() + self.spawning.len()
    }

    fn is_unstarted(&self, attempt: Attempt) -> bool {
        self.holdings.get(attempt).is_some_and(Holding::is_unstarted)
    }

    fn finish(&mut self, attempt: Attempt, ending: Ending, logbook: &mut Logbook, fx: &mut Effects, now: Now) {
        let Some(holding) = self.holdings.get(attempt) else { return };
        let bytes_written = ending.output_bytes();
        let row = ending::row(attempt, holding.version, holding.order.as_ref(), &self.server, ending, now);
        let state = row.state;
        self.holdings.set_phase(attempt, Phase::Over);
        let last_lines = row.output.get(bytes_written..).unwrap_or_default().to_string();
        fx.push(Effect::Ended { attempt, state, last_lines });
        logbook.push(row, now);
        fx.tell_leader(ToLeader::Finished { attempt, state });
    }

    fn answer_cancels(&mut self, fx: &mut Effects) {
        for cancel in std::mem::take(&mut self.cancels) {
            if self.spawning.values().any(|attempt| self.is_meant(&cancel, *attempt)) {
                self.cancels.push(cancel);
            } else {
                fx.tell_leader(ToLeader::Cancelled { cron_id: cancel.cron_id, dropped: cancel.dropped });
            }
        }
    }

    fn is_meant(&self, cancel: &Cancel, attempt: Attempt) -> bool {
        let version = self.holdings.get(attempt).map(|holding| holding.version);
        attempt.run.cron_id == cancel.cron_id
            && cancel.below.is_none_or(|below| version.is_some_and(|version| version < below))
    }
}
