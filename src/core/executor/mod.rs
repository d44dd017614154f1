//! The node's part of a run: it takes runs, starts each at its second, and tells the leader how each ended.
//!
//! ```text
//! Dispatch -> Armed -> Ready (in the ready queue) -> Spawning -> Running -> [Ending] -> Over -> (row committed) gone
//!                        ^  ^   |                     |  |
//!                        |  |   v no lease   no lease v  | the host can start no process
//!                        |  +--- Parked <-------------+  |
//!                        +-------------------------------+
//! Cancel takes a run out of any phase before Spawning.
//! Found (a mark of a former incarnation) -> Dispatch as above, or a log row says what became of it.
//! ```
//!
//! A parked mutex run starts only by a new order: meanwhile its mutex may have gone to another run.
//!
//! Not the leader: it never decides that a run is due, and it may start one only during its lease. `table` owns the
//! runs and their phases, `orders` takes runs and gives them back, `ready_queue` says which run starts next, `starting`
//! gives runs to the spawning threads, `stopping` ends them.
//!
//! Invariants: every held run has a mark; an attempt is handed to the spawning threads again only when they have said
//! that it was not started; at most `max_running` processes run, and at most `SPAWNS_MAX` runs are with the threads, so
//! that a cancel finds all others here; only an input that changes all held runs looks at all of them.

mod index;
mod orders;
mod ready_queue;
mod run;
mod starting;
mod stopping;
mod table;
#[cfg(test)]
mod tests;
mod throttle;

use crate::core::Context;
use crate::core::io::ports::WorkId;
use crate::core::io::{Effect, Effects, FoundMark, FoundState, MarkOp};
use crate::core::log::ending::{EndedBy, Ending, RowHead};
use crate::core::log::logbook::Logbook;
use crate::core::time::{Timer, Timers};
use crate::model::config::Limits;
use crate::model::message::{Heartbeat, Held, HeldRun, ToLeader};
use crate::model::{Attempt, Mono, Now, Server, Wall};
use orders::Cancel;
use run::{Phase, Run};
use std::collections::BTreeSet;
use table::HeldRuns;
use throttle::Throttle;

/// The most runs with the two spawning threads at one time: enough to keep both busy, and so few that a cancel does not
/// wait long for them. Runs whose user is looked up are not with them.
const SPAWNS_MAX: usize = 4;

/// The node's part of all its runs: it arms, starts, ends and tells them.
#[derive(Debug)]
pub struct Executor {
    server: Server,
    limits: Limits,
    held: HeldRuns,
    /// How many orders this node took: the number of the next one.
    arrivals: u64,
    /// Of the runs that are being started, those whose user is looked up. At most `max_running`, as all that are active.
    looking_up: BTreeSet<WorkId>,
    throttle: Throttle,
    /// When the first run in the ready queue will have waited for longer than the grace.
    expires_at: Option<Mono>,
    /// Cancels that are not answered yet.
    cancels: Vec<Cancel>,
    /// Runs may start before this moment.
    lease: Mono,
    is_draining: bool,
    counters: Counters,
}

/// Starts of processes since the daemon's own start. How the runs ended is counted with their log rows.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    pub started: u64,
    /// Starts that had to be put off because the host could start no further process.
    pub put_off: u64,
}

/// How far this node was with an attempt when its log row was committed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Committed {
    Over,
    StillHeld,
    /// This node does not have the attempt: a leader wrote the row, and gave it to no node or to another one.
    NotHeld,
}

impl Executor {
    /// An executor that begins with the runs that the marks of the former daemon tell of.
    pub fn new(server: Server, limits: Limits, found: &[FoundMark]) -> Executor {
        let mut held = HeldRuns::default();
        for mark in found {
            held.insert(mark.attempt, Run::found(mark.version, mark.state));
        }
        Executor {
            server,
            limits,
            held,
            arrivals: 0,
            looking_up: BTreeSet::new(),
            throttle: Throttle::default(),
            expires_at: None,
            cancels: Vec::new(),
            lease: Mono(0),
            is_draining: false,
            counters: Counters::default(),
        }
    }

    /// A run whose log row is on its way to the store is over, whatever its mark says.
    pub fn mark_logged(&mut self, logbook: &Logbook) {
        let attempts = self.held.iter().map(|(attempt, _)| attempt);
        let logged: Vec<Attempt> = attempts.filter(|attempt| logbook.has(*attempt)).collect();
        for attempt in logged {
            self.held.set_phase(attempt, Phase::Over);
        }
    }

    /// What this node holds of the attempt; none where it knows nothing of it.
    pub fn held(&self, attempt: Attempt) -> Option<Held> {
        self.held.get(attempt).map(Run::held)
    }

    /// All runs that this node has, those that are over included.
    pub fn holdings(&self) -> Vec<(Attempt, Held)> {
        self.held.iter().map(|(attempt, run)| (attempt, run.held())).collect()
    }

    /// The runs that this node has and that are not over, for people: the running ones first, at most `LIST_MAX`.
    pub fn runs(&self) -> Vec<HeldRun> {
        self.held.views(HeldRun::LIST_MAX)
    }

    /// How much this node has to do, for the leader.
    pub fn load(&self) -> Heartbeat {
        Heartbeat {
            running: self.active(),
            waiting: self.held.waiting(),
            is_draining: self.is_draining,
            is_full: self.throttle.is_on(),
            ..Heartbeat::default()
        }
    }

    /// Counts since the start, and of the runs held now.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// No process runs or is being started, and every run that ran has its log row.
    pub fn is_idle(&self) -> bool {
        self.active() == 0 && self.held.ending() == 0
    }

    /// Runs may start until `until`; a lease is only ever made longer. Where the former lease was over, the mutex of a
    /// run that waits here may have gone to another run: only a new order lets such a run start.
    pub fn extend_lease(&mut self, until: Mono, cx: &mut Context) {
        if until <= self.lease {
            return;
        }
        let was_over = self.lease <= cx.now.mono;
        self.lease = until;
        cx.fx.mark(MarkOp::Lease { until });
        for attempt in self.held.parked() {
            self.held.set_phase(attempt, Phase::Ready);
        }
        if was_over {
            let waits = |run: &Run| matches!(run.phase, Phase::Armed { .. } | Phase::Ready);
            let doubtful = self.held.iter().filter(|(_, run)| run.is_mutex() && waits(run));
            let doubtful: Vec<Attempt> = doubtful.map(|(attempt, _)| attempt).collect();
            for attempt in doubtful {
                self.held.set_phase(attempt, Phase::Parked);
            }
        }
    }

    /// The log row of the attempt is committed. `StillHeld` means that the row does not tell how the run ended: this
    /// node wrote it when it led, and the run has yet to begin or to end here.
    pub fn on_committed(&mut self, attempt: Attempt, fx: &mut Effects) -> Committed {
        match self.held.phase(attempt) {
            None => Committed::NotHeld,
            Some(Phase::Found(_) | Phase::Over) => {
                self.forget(attempt, fx);
                Committed::Over
            }
            Some(_) => Committed::StillHeld,
        }
    }

    /// Drops the run and its mark: its log row is committed, or the leader does not want the run.
    fn forget(&mut self, attempt: Attempt, fx: &mut Effects) {
        if self.held.remove(attempt).is_some() {
            fx.mark(MarkOp::Clear { attempt });
        }
    }

    /// Starts the due runs, and ends those whose time is over.
    pub fn poll(&mut self, leaders_wall: Wall, cx: &mut Context) {
        for attempt in self.held.due(cx.now.mono) {
            self.on_due(attempt, cx);
        }
        for (attempt, alarm) in self.held.take_due_alarms(cx.now.mono) {
            self.end(attempt, alarm.how, alarm.ended_by, cx);
        }
        self.miss_expired(leaders_wall, cx);
        self.start_ready(leaders_wall, cx);
        self.debug_assert_nothing_is_due(cx.now);
    }

    /// A timer that is still due after a poll would wake the node again and again.
    fn debug_assert_nothing_is_due(&self, now: Now) {
        let is_ahead = |at: Option<Mono>| at.is_none_or(|at| now.mono < at);
        debug_assert!(is_ahead(self.held.first_armed()), "a run stays armed though its second has begun");
        debug_assert!(is_ahead(self.held.first_alarm()), "a due alarm was not taken");
        debug_assert!(is_ahead(self.expires_at), "a run that may no longer start stays in the ready queue");
    }

    /// Adds when this part has to be woken.
    pub fn timers(&self, timers: &mut Timers) {
        timers.set(Timer::ArmedRun, self.held.first_armed());
        timers.set(Timer::RunLimit, self.held.first_alarm());
        timers.set(Timer::RunExpiry, self.expires_at);
        self.throttle.timers(self.held.ready() != 0 && self.has_capacity(), timers);
    }

    /// No further run is taken or started.
    pub fn drain(&mut self) {
        self.is_draining = true;
    }

    /// Writes the log rows of runs that former incarnations began, and drops the runs that they only held: no leader
    /// has ordered those anew.
    pub fn explain_found(&mut self, cx: &mut Context) {
        let found = self.held.iter().filter_map(|(attempt, run)| match run.phase {
            Phase::Found(state) => Some((attempt, state)),
            _ => None,
        });
        for (attempt, state) in found.collect::<Vec<(Attempt, FoundState)>>() {
            match state {
                FoundState::Held => self.forget(attempt, cx.fx),
                FoundState::Started | FoundState::Unknown | FoundState::Ended(_) => {
                    self.finish(attempt, Ending::OfMark(state), cx);
                }
            }
        }
    }

    /// How many processes run or are being started.
    fn active(&self) -> usize {
        self.held.running().len() + self.held.spawning().len()
    }

    /// The run is over: writes its log row and tells the leader.
    fn finish(&mut self, attempt: Attempt, ending: Ending, cx: &mut Context) {
        self.held.set_phase(attempt, Phase::Over);
        self.report(attempt, ending, cx);
    }

    /// Writes the log row of a run that is over, and tells the leader.
    fn report(&self, attempt: Attempt, ending: Ending, cx: &mut Context) {
        let Some(run) = self.held.get(attempt) else { return };
        debug_assert!(matches!(run.phase, Phase::Over), "{attempt} is reported as over and is {:?}", run.phase);
        let bytes_written = ending.output_bytes();
        let left = ending.left();
        let head = RowHead { attempt, version: run.version, order: run.order.as_ref(), server: &self.server };
        let row = head.row(ending, cx.now);
        let state = row.state;
        let last_lines = row.output.get(bytes_written..).unwrap_or_default().to_string();
        cx.fx.push(Effect::Ended { attempt, state, last_lines });
        cx.logbook.push(row, cx.now);
        cx.fx.tell_leader(ToLeader::Finished { attempt, state, left });
    }

    /// Counts everything again, as of the end of an input. Costs a look at every run.
    pub fn check_invariants(&self) {
        self.held.check_invariants();
        let (active, spawning) = (self.active(), self.with_threads());
        assert!(
            self.looking_up.iter().all(|work| self.held.spawned_by(*work).is_some()),
            "a user is looked up for no run"
        );
        assert!(active <= self.limits.max_running, "{active} processes run: more than max_running");
        assert!(spawning <= SPAWNS_MAX, "{spawning} runs are with the spawning threads: more than {SPAWNS_MAX}");
        let can_expire = self.held.first_expiring().is_some();
        assert!(self.expires_at.is_some() || !can_expire, "the first run that may come too late has no timer");
        for cancel in &self.cancels {
            assert!(self.waits_for_threads(cancel), "a cancel has nothing to wait for and is not answered: {cancel:?}");
        }
    }
}
