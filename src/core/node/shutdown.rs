//! The way out: nothing new, wait for what runs, ask it to end, make it end, store what is left, go.
//!
//! Invariant: each step comes at most once, and the last one always comes: no process, store or Consul can hold it up
//! for longer than the limits here.

use crate::core::io::{ExitReason, Signal};
use crate::core::ports::KillHow;
use crate::core::time::{Timer, Timers};
use crate::model::{Mono, Now};

/// Between asking the runs to end and ending them.
const KILL_GRACE_MS: u64 = 5_000;
/// How long a store that is away is waited for once nothing runs any more.
const STORE_MS: u64 = 10_000;

#[derive(Debug)]
pub struct Shutdown {
    reason: Signal,
    /// The next step against what still runs, and when.
    next_kill: Option<(Mono, KillHow)>,
    store_by: Option<Mono>,
    is_unstored_said: bool,
    is_gone: bool,
}

impl Shutdown {
    pub fn new(reason: Signal) -> Shutdown {
        Shutdown { reason, next_kill: None, store_by: None, is_unstored_said: false, is_gone: false }
    }

    /// What runs is asked to end after so long; told a second time, it is made to at once.
    pub fn hurry(&mut self, timeout_ms: u64, now: Now) {
        self.next_kill = Some(match self.next_kill {
            None => (now.mono.plus_ms(timeout_ms), KillHow::Ask),
            Some(_) => (now.mono, KillHow::Force),
        });
    }

    /// What is to be done to the runs now.
    pub fn kill_now(&mut self, now: Now) -> Option<KillHow> {
        let (_, how) = self.next_kill.take_if(|(at, _)| *at <= now.mono)?;
        // Asked again from time to time: a process may have been on its way when the last signal went out.
        self.next_kill = Some((now.mono.plus_ms(KILL_GRACE_MS), KillHow::Force));
        Some(how)
    }

    /// Nothing runs: whether the node may go, with everything stored or with its patience at an end.
    pub fn may_go(&mut self, is_stored: bool, now: Now) -> bool {
        let store_by = *self.store_by.get_or_insert(now.mono.plus_ms(STORE_MS));
        is_stored || store_by <= now.mono
    }

    /// True once: that something could not be stored is still to be said.
    pub fn say_unstored(&mut self) -> bool {
        !std::mem::replace(&mut self.is_unstored_said, true)
    }

    /// The reason to exit with, once.
    pub fn go(&mut self) -> Option<ExitReason> {
        let is_first = !std::mem::replace(&mut self.is_gone, true);
        is_first.then_some(match self.reason {
            Signal::Orphaned => ExitReason::Orphaned,
            _ => ExitReason::Clean,
        })
    }

    pub fn timers(&self, timers: &mut Timers) {
        timers.set(Timer::ShutdownKill, self.next_kill.map(|(at, _)| at));
        timers.set_ahead(Timer::ShutdownStore, self.store_by);
    }
}
