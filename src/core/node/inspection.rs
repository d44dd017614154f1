//! The counters of a node, for operators; and the recounts of its state, for tests and the simulator.
//!
//! Not here: changes of that state.
//!
//! Invariant: a recount that differs from what was counted along the way is an error in this program, and panics.

use super::{Leadership, Node};
use crate::core::executor::Counters;

impl Node {
    /// Counters since this node's start, by name: starts, outcomes told by this node's log rows, stalled timers.
    pub fn counters(&self) -> impl Iterator<Item = (String, u64)> {
        let Counters { started, put_off } = self.executor.counters();
        let outcomes = self.lender.logbook.outcomes().map(|(state, count)| (format!("runs_{}", state.as_str()), count));
        let own = [("runs_started", started), ("starts_put_off", put_off), ("timers_stalled", self.stalled.count())];
        own.map(|(name, count)| (name.into(), count)).into_iter().chain(outcomes)
    }

    /// How often a timer was due and no part acted on it. More than 0 means an error in this program.
    pub fn stalled(&self) -> u64 {
        self.stalled.count()
    }

    /// Recounts everything that is counted along the way, and compares; for tests and the simulator, after each input.
    pub fn check_invariants(&self) {
        if let Leadership::Leading(leader) = &self.lead {
            leader.check_invariants();
        }
        self.executor.check_invariants();
        self.lender.logbook.check_invariants();
    }

    /// Recounts the jobs with their schedules, which takes as long as there are jobs; for tests and the simulator, now
    /// and then.
    pub fn check_jobs(&self) {
        match &self.lead {
            Leadership::Leading(leader) => leader.jobs().check_invariants(),
            _ => self.replica.check_invariants(),
        }
    }
}
