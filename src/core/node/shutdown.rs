//! A shutdown: start nothing new, wait for the runs, ask them to end, force them to end, store the rows, exit.
//!
//! Not here: the carrying out of the steps; see the node's `shut_down`.
//!
//! Invariant: the node exits exactly once; no process, store or Consul delays that for longer than the limits here.

use crate::core::io::ports::KillHow;
use crate::core::io::{ExitReason, Signal};
use crate::core::time::bounds::{SHUTDOWN_KILL_MS, SHUTDOWN_STORE_MS};
use crate::core::time::{Timer, Timers};
use crate::model::{Mono, Now};

/// How far a shutdown has come.
#[derive(Debug)]
pub struct Shutdown {
    reason: Signal,
    /// The next step against the runs that are left, and when.
    next_kill: Option<(Mono, KillHow)>,
    store_by: Option<Mono>,
    is_unstored_said: bool,
    is_gone: bool,
}

impl Shutdown {
    /// A shutdown for this signal. `hurry` sets its first step.
    pub fn new(reason: Signal) -> Shutdown {
        Shutdown { reason, next_kill: None, store_by: None, is_unstored_said: false, is_gone: false }
    }

    /// Asks the runs to end after `timeout_ms`; called a second time, forces them to end at once.
    pub fn hurry(&mut self, timeout_ms: u64, now: Now) {
        self.next_kill = Some(match self.next_kill {
            None => (now.mono.plus_ms(timeout_ms), KillHow::Ask),
            Some(_) => (now.mono, KillHow::Force),
        });
    }

    /// The step to take against the runs now, if any.
    pub fn kill_now(&mut self, now: Now) -> Option<KillHow> {
        let (_, how) = self.next_kill.take_if(|(at, _)| *at <= now.mono)?;
        // The step is repeated from time to time, because a process may have been started after the last signal.
        self.next_kill = Some((now.mono.plus_ms(SHUTDOWN_KILL_MS), KillHow::Force));
        Some(how)
    }

    /// Whether a node without runs may exit: everything is stored, or it has waited for the store for `SHUTDOWN_STORE_MS`.
    pub fn may_go(&mut self, is_stored: bool, now: Now) -> bool {
        let store_by = *self.store_by.get_or_insert(now.mono.plus_ms(SHUTDOWN_STORE_MS));
        is_stored || store_by <= now.mono
    }

    /// Whether to tell the operator that something could not be stored; true once.
    pub fn say_unstored(&mut self) -> bool {
        !std::mem::replace(&mut self.is_unstored_said, true)
    }

    /// The reason to exit with; none when it was given before.
    pub fn go(&mut self) -> Option<ExitReason> {
        let is_first = !std::mem::replace(&mut self.is_gone, true);
        is_first.then_some(match self.reason {
            Signal::Orphaned => ExitReason::Orphaned,
            _ => ExitReason::Clean,
        })
    }

    /// Lists when the next step is due.
    pub fn timers(&self, timers: &mut Timers) {
        timers.set(Timer::ShutdownKill, self.next_kill.map(|(at, _)| at));
        timers.set_ahead(Timer::ShutdownStore, self.store_by);
    }
}
