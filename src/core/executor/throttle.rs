//! The throttle: it limits the number of processes while the host can start no more. As many may run as ran when the
//! host refused one, and after each pause one more as a probe, which shows whether the host can start processes again.
//!
//! Not an estimate of the host's resources: the probes find out, at most ten times a second and at least every two
//! seconds.
//!
//! Invariant: without a further refusal the throttle ends by itself.

use crate::core::time::bounds::THROTTLE_QUIET_MS;
use crate::core::time::{Backoff, Timer, Timers};
use crate::model::{Attempt, Mono, Now};

/// The throttle of one node; it has a state while it is on.
#[derive(Debug, Default)]
pub struct Throttle {
    state: Option<State>,
}

#[derive(Debug)]
struct State {
    /// How many processes the host could run when it last refused one.
    limit: usize,
    /// The time before the next probe.
    pause: Backoff,
    /// The run that is being started beyond the limit.
    probe: Option<Attempt>,
    /// When the host last refused a process.
    exhausted_at: Mono,
    /// Since when the host has not run a single process of ours.
    nothing_since: Option<Mono>,
}

/// The host has refused to start a process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Shortage {
    /// It is the first refusal: the throttle was not on.
    pub is_new: bool,
    /// For how long the host has not run a single process of ours, in milliseconds.
    pub nothing_for_ms: u64,
}

impl Throttle {
    pub fn is_on(&self) -> bool {
        self.state.is_some()
    }

    /// Whether one more may be started beside the `active` processes that run or are being started.
    pub fn may_start(&self, active: usize, now: Now) -> bool {
        self.state.as_ref().is_none_or(|state| active < state.limit || state.pause.is_over(now))
    }

    /// One more process is being started beside `active` others.
    pub fn on_start(&mut self, attempt: Attempt, active: usize, now: Now) {
        if let Some(state) = self.state.as_mut().filter(|state| state.limit <= active) {
            state.limit = active + 1;
            state.probe = Some(attempt);
            state.pause.fail(now);
        }
    }

    pub fn on_started(&mut self, attempt: Attempt) {
        let Some(state) = &mut self.state else { return };
        state.nothing_since = None;
        // The host could run one more, so perhaps it can run another.
        if state.probe.take_if(|probe| *probe == attempt).is_some() {
            state.pause.reset();
        }
    }

    /// The host has refused one more process beside `active` others.
    pub fn on_no_resources(&mut self, active: usize, now: Now) -> Shortage {
        let is_new = self.state.is_none();
        let state = self.state.get_or_insert_with(|| State {
            limit: 0,
            pause: Backoff::default(),
            probe: None,
            exhausted_at: now.mono,
            nothing_since: None,
        });
        state.limit = active;
        state.probe = None;
        state.exhausted_at = now.mono;
        // Several starts that were under way together count as one refusal.
        if state.pause.is_over(now) {
            state.pause.fail(now);
        }
        state.nothing_since = (active == 0).then(|| state.nothing_since.unwrap_or(now.mono));
        let nothing_for_ms = state.nothing_since.map_or(0, |since| now.mono.since(since).as_millis() as u64);
        Shortage { is_new, nothing_for_ms }
    }

    /// Ends the throttle where the host has refused nothing for `THROTTLE_QUIET_MS`; true where it does.
    pub fn end_if_quiet(&mut self, now: Now) -> bool {
        self.state.take_if(|state| state.exhausted_at.plus_ms(THROTTLE_QUIET_MS) <= now.mono).is_some()
    }

    /// `is_waiting`: a run would be started now if there were no pause.
    pub fn timers(&self, is_waiting: bool, timers: &mut Timers) {
        let Some(state) = &self.state else { return };
        timers.set(Timer::StartProbe, is_waiting.then(|| state.pause.ready_at()));
        timers.set(Timer::ThrottleEnd, state.exhausted_at.plus_ms(THROTTLE_QUIET_MS));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{JobId, RunKey, Second};

    fn at(ms: u64) -> Now {
        Now { mono: Mono(0).plus_ms(ms), ..Now::default() }
    }

    fn first(throttle: &Throttle, is_waiting: bool) -> Option<(Timer, Mono)> {
        Timers::first(at(0), |timers| throttle.timers(is_waiting, timers))
    }

    fn attempt(second: i64) -> Attempt {
        Attempt { run: RunKey::scheduled(JobId(1), Second(second)), number: 1 }
    }

    #[test]
    fn as_many_processes_may_run_as_ran_at_the_refusal_and_one_more_after_a_pause() {
        let mut throttle = Throttle::default();
        assert!(throttle.may_start(1_000, at(0)));
        assert_eq!(throttle.on_no_resources(50, at(0)), Shortage { is_new: true, nothing_for_ms: 0 });
        assert!(!throttle.may_start(50, at(0)), "the host has refused the 51st");
        assert!(throttle.may_start(49, at(0)), "one has ended, and another may begin");
        assert_eq!(first(&throttle, true), Some((Timer::StartProbe, at(100).mono)));
        assert!(throttle.may_start(50, at(100)), "a probe");
        throttle.on_start(attempt(1), 50, at(100));
        assert!(!throttle.may_start(51, at(100)), "one at a time");
        throttle.on_started(attempt(1));
        assert!(throttle.may_start(51, at(101)), "the probe was started, so one more may try");
    }

    #[test]
    fn pauses_grow_and_several_refusals_of_a_moment_are_one() {
        let mut throttle = Throttle::default();
        throttle.on_no_resources(3, at(0));
        assert_eq!(throttle.on_no_resources(2, at(1)), Shortage { is_new: false, nothing_for_ms: 0 });
        throttle.on_start(attempt(1), 2, at(100));
        throttle.on_no_resources(2, at(101));
        assert!(!throttle.may_start(2, at(299)));
        assert!(throttle.may_start(2, at(300)));
    }

    #[test]
    fn it_ends_by_itself_and_reports_that_once() {
        let mut throttle = Throttle::default();
        throttle.on_no_resources(3, at(0));
        throttle.on_no_resources(3, at(2_000));
        assert!(!throttle.end_if_quiet(at(6_999)));
        assert_eq!(first(&throttle, false), Some((Timer::ThrottleEnd, at(7_000).mono)));
        assert!(throttle.end_if_quiet(at(7_000)));
        assert!(!throttle.end_if_quiet(at(7_000)));
        assert_eq!(first(&throttle, true), None);
    }

    #[test]
    fn it_knows_for_how_long_not_a_single_run_could_start() {
        let mut throttle = Throttle::default();
        throttle.on_no_resources(1, at(0));
        assert_eq!(throttle.on_no_resources(0, at(1_000)).nothing_for_ms, 0);
        assert_eq!(throttle.on_no_resources(0, at(3_000)).nothing_for_ms, 2_000);
        throttle.on_started(attempt(1));
        assert_eq!(throttle.on_no_resources(0, at(4_000)).nothing_for_ms, 0);
    }
}
