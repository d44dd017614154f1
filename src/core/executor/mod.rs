//! The node's part: it takes runs, starts each at its second, and tells what became of it.
//!
//! ```text
//! Dispatch -> Armed -> Ready (it waits for its turn) -> Spawning -> Running -> [Ending] -> Over -> (row committed) gone
//!                        ^  ^   |                        |  |
//!                        |  |   v no lease      no lease v  | no room for a process
//!                        |  +--- Parked <----------------+  |
//!                        +----------------------------------+        Cancel takes a run out of any phase before Spawning.
//! Found (a mark of a former incarnation) -> Dispatch as above, or explained by a row. A mutex run that is parked starts
//! only by a new order: its mutex may be another's by then.
//! ```
//!
//! Not the leader: it never decides that a run is due, and it may start one only while the lease holds. `table` owns the
//! runs and their phases, `orders` takes them and gives them back, `ready_queue` says whose turn it is, `starting` gives
//! runs to the threads, `stopping` ends them.
//!
//! Invariants: what it holds is in the marks; an attempt is handed to the spawning threads again only when they have said
//! that it was not started; at most `max_running` processes run, and at most `SPAWNS_MAX` are with the threads, so that a
//! cancel finds the rest here; no input costs a look at all that is held, save those that change all of it.

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
use crate::core::io::{Effect, Effects, FoundMark, FoundState, MarkOp};
use crate::core::log::ending::{EndedBy, Ending, RowHead};
use crate::core::log::logbook::Logbook;
use crate::core::time::{Timer, Timers};
use crate::model::config::Limits;
use crate::model::message::{Heartbeat, Held, HeldRun, ToLeader};
use crate::model::{Attempt, Mono, Now, Server, Wall};
use orders::Cancel;
use run::{Phase, Run};
use table::HeldRuns;
use throttle::Throttle;

/// Runs with the two spawning threads at one time: enough that no thread waits for us, few enough that a cancel has
/// little to wait for.
const SPAWNS_MAX: usize = 4;

#[derive(Debug)]
pub struct Executor {
    server: Server,
    limits: Limits,
    held: HeldRuns,
    /// How many orders it took.
    arrivals: u64,
    throttle: Throttle,
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

impl Executor {
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
            throttle: Throttle::default(),
            expires_at: None,
            cancels: Vec::new(),
            lease: Mono(0),
            is_draining: false,
            counters: Counters::default(),
        }
    }

    /// What has its log row on the way is over, whatever its mark says.
    pub fn mark_logged(&mut self, logbook: &Logbook) {
        let attempts = self.held.iter().map(|(attempt, _)| attempt);
        let logged: Vec<Attempt> = attempts.filter(|attempt| logbook.has(*attempt)).collect();
        for attempt in logged {
            self.held.set_phase(attempt, Phase::Over);
        }
    }

    pub fn held(&self, attempt: Attempt) -> Option<Held> {
        self.held.get(attempt).map(Run::held)
    }

    /// All that this node has.
    pub fn holdings(&self) -> Vec<(Attempt, Held)> {
        self.held.iter().map(|(attempt, run)| (attempt, run.held())).collect()
    }

    /// What this node has and is not over, for people: what runs first, and not without end.
    pub fn runs(&self) -> Vec<HeldRun> {
        self.held.views(HeldRun::LIST_MAX)
    }

    /// How much it has to do, for the leader.
    pub fn load(&self) -> Heartbeat {
        Heartbeat {
            running: self.active(),
            waiting: self.held.waiting(),
            is_draining: self.is_draining,
            is_full: self.throttle.is_on(),
            ..Heartbeat::default()
        }
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Nothing runs, nothing is about to, and what did has its row.
    pub fn is_idle(&self) -> bool {
        self.active() == 0 && self.held.ending() == 0
    }

    /// Runs may start until then; a lease is only ever made longer. After one that was over, the mutex of what waits here
    /// may be another's by now: only a new order lets that start.
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

    /// The log row is committed. Answers what this node had of the attempt: the row of one that is about to begin here or has
    /// not ended is what this node wrote when it led, and not the whole truth.
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

    /// The log row is committed, or the leader has dropped the run.
    fn forget(&mut self, attempt: Attempt, fx: &mut Effects) {
        if self.held.remove(attempt).is_some() {
            fx.mark(MarkOp::Clear { attempt });
        }
    }

    /// Starts what is due and rings what has run out of time.
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

    /// A timer that is still due after a poll would wake the node again at once, for ever.
    fn debug_assert_nothing_is_due(&self, now: Now) {
        let is_ahead = |at: Option<Mono>| at.is_none_or(|at| now.mono < at);
        debug_assert!(is_ahead(self.held.first_armed()), "a run stays armed though its second has begun");
        debug_assert!(is_ahead(self.held.first_alarm()), "an alarm that was due did not ring");
        debug_assert!(is_ahead(self.expires_at), "a run that may no longer start stays in the ready queue");
    }

    pub fn timers(&self, timers: &mut Timers) {
        timers.set(Timer::ArmedRun, self.held.first_armed());
        timers.set(Timer::RunLimit, self.held.first_alarm());
        timers.set(Timer::RunExpiry, self.expires_at);
        self.throttle.timers(self.held.ready() != 0 && self.has_capacity(), timers);
    }

    /// Starts nothing more.
    pub fn drain(&mut self) {
        self.is_draining = true;
    }

    /// Writes the rows of what former incarnations had begun, and drops what they held and no leader has asked for.
    pub fn explain_found(&mut self, cx: &mut Context) {
        let found = self.held.iter().filter_map(|(attempt, run)| match run.phase {
            Phase::Found(state) => Some((attempt, state)),
            _ => None,
        });
        for (attempt, state) in found.collect::<Vec<(Attempt, FoundState)>>() {
            match state {
                FoundState::Held => self.forget(attempt, cx.fx),
                FoundState::Started | FoundState::Unknown | FoundState::Ended(_) => {
                    self.finish(attempt, Ending::Found(state), cx);
                }
            }
        }
    }

    /// Processes that run or are being started.
    fn active(&self) -> usize {
        self.held.running().len() + self.held.spawning().len()
    }

    /// It is over, in this way.
    fn finish(&mut self, attempt: Attempt, ending: Ending, cx: &mut Context) {
        self.held.set_phase(attempt, Phase::Over);
        self.report(attempt, ending, cx);
    }

    /// Writes the log row of a run that is over, and tells the leader.
    fn report(&self, attempt: Attempt, ending: Ending, cx: &mut Context) {
        let Some(run) = self.held.get(attempt) else { return };
        debug_assert!(matches!(run.phase, Phase::Over), "the end of {attempt} is told and it is {:?}", run.phase);
        let bytes_written = ending.output_bytes();
        let head = RowHead { attempt, version: run.version, order: run.order.as_ref(), server: &self.server };
        let row = head.row(ending, cx.now);
        let state = row.state;
        let last_lines = row.output.get(bytes_written..).unwrap_or_default().to_string();
        cx.fx.push(Effect::Ended { attempt, state, last_lines });
        cx.logbook.push(row, cx.now);
        cx.fx.tell_leader(ToLeader::Finished { attempt, state });
    }

    /// Counts everything again, as of the end of an input. Costs a look at every run.
    pub fn check_invariants(&self) {
        self.held.check_invariants();
        let (active, spawning) = (self.active(), self.held.spawning().len());
        assert!(active <= self.limits.max_running, "{active} processes run: more than max_running");
        assert!(spawning <= SPAWNS_MAX, "{spawning} runs are with the spawning threads: more than {SPAWNS_MAX}");
        let can_expire = self.held.first_expiring().is_some();
        assert!(self.expires_at.is_some() || !can_expire, "the first run that may come too late has no timer");
        for cancel in &self.cancels {
            assert!(self.waits_for_threads(cancel), "a cancel has nothing to wait for and is not answered: {cancel:?}");
        }
    }
}
