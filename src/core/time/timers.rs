//! The node's timers: one table in which each timer has an entry of its own.
//!
//! After every input the parts write the table anew, so that no entry outlives its wait. A part lists a timer only
//! where it would act at that moment: a part that waits for an answer, or for another part, lists nothing.
//!
//! How an input that brings no progress on a due timer is caught, for every timer: after the input all parts have acted
//! (`Node::advance`), and then the table is written anew. `set` lists a timer wherever its owner would act, due or not,
//! so one that is still due had an owner that did not act: `Node::checked_timers` counts and reports it. The simulator
//! asserts after each input that there is none, and the tests with real daemons that none was reported. The few timers
//! of `set_ahead` only wake the node at a limit: every input makes their owners judge anew. A timer that its owner
//! forgets to list is caught as well: the simulator wakes a node by listed timers alone (`EveryTimerWakes`).
//!
//! Not a clock, and not a queue of tasks: each part finds for itself what it has to do.
//!
//! Invariants: no entry hides another; the node wakes at the next second at the latest. A timer that was due at the
//! last input and is still listed is stalled: its owner could act and did not. That is an error in the owner, never a
//! reason to wait longer.

use crate::model::{Mono, Now};
use std::collections::BTreeSet;

/// Every timer of the node.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Timer {
    /// The node itself.
    OpenStore,
    TakeLead,
    Retention,
    WaitingChange,
    /// Reads of the jobs and job lists.
    ReplicaRefresh,
    WantedJobList,
    JobList,
    /// The executor.
    ArmedRun,
    RunLimit,
    RunExpiry,
    StartProbe,
    ThrottleEnd,
    /// Log rows and the spool.
    LogWrite,
    LogSilence,
    LogSpool,
    SpoolRead,
    /// Whether the store answers.
    StorePing,
    StoreSilence,
    ReadSilence,
    /// The election: the next try with Consul, its watch, the service's check, the lock's value, the end of an
    /// abstention.
    ConsulRetry,
    ConsulWatch,
    ConsulPass,
    LockValue,
    Abstention,
    /// The link to the leader, and the search for a leader.
    LinkRetry,
    Heartbeat,
    LeaderSilence,
    ForwardedCall,
    LeaderLookup,
    /// The shutdown.
    ShutdownKill,
    ShutdownStore,
    /// The leader: its next tick, the entry of a quiet journal, the end of a retry's delay, the next runs of a large
    /// tick to send, and so on.
    Tick,
    QuietEntry,
    Delayed,
    Release,
    CloseEntries,
    Housekeeping,
    LeaseEnd,
    JournalRetry,
    ChangeRetry,
    ChangeAnswer,
    ChangeSilence,
    ChangePatience,
    QueuedChange,
    RunAnswer,
    KillAnswer,
    RunList,
    PauseAnswer,
    /// The next whole second; it is always listed. It must stay the last one: `COUNT` is derived from it.
    NextSecond,
}

const COUNT: usize = Timer::NextSecond as usize + 1;

/// The table, as of one input.
#[derive(Debug)]
pub struct Timers {
    now: Now,
    entries: [Option<(Timer, Mono)>; COUNT],
}

impl Timers {
    /// `now`: the time of the last input.
    pub fn new(now: Now) -> Timers {
        let mut timers = Timers { now, entries: [None; COUNT] };
        timers.set(Timer::NextSecond, now.mono_at(now.wall.second().plus(1).wall()));
        timers
    }

    /// The moment that the timers are asked for.
    pub fn now(&self) -> Now {
        self.now
    }

    /// Lists the timer, unless `at` is none or `Mono::NEVER`.
    pub fn set(&mut self, timer: Timer, at: impl Into<Option<Mono>>) {
        let entry = &mut self.entries[timer as usize];
        debug_assert!(entry.is_none(), "{timer:?} is listed twice");
        *entry = at.into().filter(|at| *at != Mono::NEVER).map(|at| (timer, at));
    }

    /// Lists the moment from which on something counts as silent or over. The owner does nothing at that moment but
    /// judge anew, so the timer is not listed once it is past, and cannot be stalled.
    pub fn set_ahead(&mut self, timer: Timer, at: impl Into<Option<Mono>>) {
        let now = self.now.mono;
        self.set(timer, at.into().filter(|at| now < *at));
    }

    /// When the node must wake.
    pub fn next(&self) -> Mono {
        self.ahead(COUNT).unwrap_or(Mono::NEVER)
    }

    /// When the parts themselves want to wake; none where no part does. The simulator wakes the node only then, and so
    /// finds timers that a part forgot to list.
    pub fn next_listed(&self) -> Option<Mono> {
        self.ahead(Timer::NextSecond as usize)
    }

    /// The first moment ahead among the first `kinds` timers.
    fn ahead(&self, kinds: usize) -> Option<Mono> {
        self.entries[..kinds].iter().flatten().map(|(_, at)| *at).filter(|at| self.now.mono < *at).min()
    }

    /// The timers that were due at the last input and are still listed.
    pub fn stalled(&self) -> impl Iterator<Item = Timer> {
        let due = self.entries.iter().flatten().filter(|(_, at)| *at <= self.now.mono);
        due.map(|(timer, _)| *timer)
    }

    /// The first timer that one part lists.
    #[cfg(test)]
    pub fn first(now: Now, list: impl FnOnce(&mut Timers)) -> Option<(Timer, Mono)> {
        let mut timers = Timers { now, entries: [None; COUNT] };
        list(&mut timers);
        timers.entries.into_iter().flatten().min_by_key(|(_, at)| *at)
    }
}

/// The timers that were found stalled since the start.
#[derive(Debug, Default)]
pub struct Stalled {
    count: u64,
    said: BTreeSet<Timer>,
}

impl Stalled {
    /// Counts a stalled timer. Answers a message the first time for each timer.
    pub fn note(&mut self, timer: Timer) -> Option<String> {
        self.count += 1;
        self.said.insert(timer).then(|| {
            format!(
                "{STALLED} {timer:?} was due and no part acted on it: this is an error of the program, please report it; it is tried \
                 again every second"
            )
        })
    }

    /// How many stalled timers there were since the start.
    pub fn count(&self) -> u64 {
        self.count
    }
}

/// How the log line of a stalled timer begins.
pub const STALLED: &str = "stalled timer:";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Second;

    fn at(ms: u64) -> Now {
        let wall = Second(100).wall();
        Now { mono: Mono(0).plus_ms(ms), wall: crate::model::Wall(wall.0 + ms as i64 * 1_000_000) }
    }

    #[test]
    fn a_stalled_timer_hides_no_other_and_is_reported_once() {
        let mut timers = Timers::new(at(250));
        timers.set(Timer::Delayed, at(200).mono);
        timers.set(Timer::Tick, at(900).mono);
        assert_eq!(timers.next(), at(900).mono);
        assert_eq!(timers.stalled().collect::<Vec<Timer>>(), [Timer::Delayed]);
        let mut stalled = Stalled::default();
        assert!(stalled.note(Timer::Delayed).is_some_and(|text| text.starts_with(STALLED)));
        assert_eq!((stalled.note(Timer::Delayed), stalled.count()), (None, 2));
    }

    #[test]
    fn the_next_second_is_always_listed_and_a_moment_that_never_comes_is_not() {
        let mut timers = Timers::new(at(250));
        assert_eq!(timers.next(), at(1_000).mono);
        timers.set(Timer::Retention, Mono::NEVER);
        timers.set(Timer::Heartbeat, None);
        timers.set_ahead(Timer::LogSilence, at(250).mono);
        timers.set_ahead(Timer::StoreSilence, at(251).mono);
        assert_eq!((timers.next(), timers.stalled().count()), (at(251).mono, 0));
    }
}
