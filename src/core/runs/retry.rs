//! Retries: the next attempt after one that failed or was lost, where the job wants one.
//!
//! The next attempt goes into the journal at once, without a node; when its delay is over it is given to a node like
//! any run that waited. So an open entry is the only record of a delayed retry, and a new leader finds it.
//!
//! Not the recovery of runs that may have started: that is `recovery`'s.
//!
//! Invariant: the entry of an attempt stays open until the attempt that follows it is in the journal.

use super::in_flight::{InFlightRun, Stage};
use super::sending::Orders;
use super::{Runs, rows};
use crate::core::Context;
use crate::core::ledger::Ledger;
use crate::model::journal::{Body, DelayedRun, EntryId};
use crate::model::{Attempt, Job, Mono, Now, OnLost, RunState, Version};
use std::sync::Arc;

/// The longest delay, however often it was doubled.
const DELAY_SECS_MAX: i64 = 3_600;
/// The most further attempts of a lost run, beyond `retry_times`. There is a limit because a command may kill its node
/// each time.
const RERUNS_MAX: u32 = 10;

/// The delay of the next attempt after attempt `number`; none where there is no next attempt.
fn delay_secs(job: &Job, number: u32, state: RunState) -> Option<i64> {
    match state {
        RunState::Failed | RunState::Timeout if number <= job.retry_times => {
            let doubled = i64::from(job.retry_delay).saturating_mul(1 << (number - 1).min(32));
            Some(doubled.min(DELAY_SECS_MAX))
        }
        RunState::Lost if job.on_lost == OnLost::Rerun && number <= job.retry_times.saturating_add(RERUNS_MAX) => {
            Some(0)
        }
        _ => None,
    }
}

/// An attempt that is over, and how.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    pub attempt: Attempt,
    /// The definition under which it ran.
    pub version: Version,
    /// The entry that names it.
    pub entry: Option<EntryId>,
    pub state: RunState,
}

impl Runs {
    /// The attempt is over, with this state: plans the next one, where there is one.
    pub(super) fn follow_up(&mut self, attempt: Attempt, state: RunState, ledger: &mut Ledger, cx: &mut Context) {
        let Some(run) = self.table.get(attempt).filter(|run| !run.is_followed) else { return };
        let (version, entry) = (run.job.version, run.entry);
        if !run.is_killed {
            self.follow(Ended { attempt, version, entry, state }, ledger, cx.now);
        } else if delay_secs(&run.job, attempt.number, state).is_some() {
            // It ended by itself before the operator's kill reached it: a row tells later leaders that there is no next
            // attempt.
            self.table.set_followed(attempt);
            let next = Attempt { number: attempt.number + 1, ..attempt };
            self.push_row(next, version, rows::KILLED_BEFORE, cx);
        }
    }

    /// Plans the next attempt after one that may be of a former leader.
    pub(super) fn follow(&mut self, ended: Ended, ledger: &mut Ledger, now: Now) {
        let Ended { attempt, version, entry, state } = ended;
        let is_wanted = |job: &&Arc<Job>| job.version == version && (!job.stop || attempt.run.manual.is_some());
        let Some(job) = ledger.jobs.job(attempt.run.cron_id).filter(is_wanted).cloned() else { return };
        let Some(delay_secs) = delay_secs(&job, attempt.number, state) else { return };
        let next = Attempt { number: attempt.number + 1, ..attempt };
        if self.table.has(next) {
            return;
        }
        // The leader hears of the end only after it, so the delay is never shorter than it should be.
        let due = now.wall.plus_secs(delay_secs);
        let ready_at = now.mono.plus_ms(delay_secs as u64 * 1_000);
        self.table.set_followed(attempt);
        self.table.insert(next, InFlightRun::delayed(job, due, ready_at, entry));
        let delayed = vec![DelayedRun { attempt: next, version, due: due.second_after() }];
        ledger.journal.push(None, 0, Body { delayed, ..Body::default() });
    }

    /// Starts the attempts whose delay is over.
    pub fn start_delayed(&mut self, ledger: &mut Ledger, cx: &mut Context) {
        let mut orders = Orders::default();
        for attempt in self.table.delayed_until(cx.now.mono) {
            self.start_attempt(attempt, &mut orders, ledger, cx);
            debug_assert!(!self.table.is(attempt, Stage::Delayed), "{attempt}: its delay is over, and it still waits");
        }
        orders.send(cx.fx);
    }

    /// When the next delay is over.
    pub fn next_delayed(&self) -> Option<Mono> {
        self.table.next_delayed()
    }

    fn start_attempt(&mut self, attempt: Attempt, orders: &mut Orders, ledger: &mut Ledger, cx: &mut Context) {
        let Some(run) = self.table.get(attempt) else { return };
        let (id, job) = (attempt.run.cron_id, Arc::clone(&run.job));
        if run.is_killed {
            self.drop_killed(attempt, cx);
        } else if ledger.jobs.job(id).is_none_or(|now| now.version != job.version) {
            self.reassign(attempt, ledger, cx);
        } else if job.parallel_max().is_some() && !self.has_kept_mutex(&job) {
            self.wait_for_permit(attempt);
        } else {
            return self.send_or_move(attempt, orders, ledger, cx);
        }
        self.grant_permits(id, ledger, cx);
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(retry_times: u32, on_lost: OnLost, number: u32, state: RunState, expect: Option<i64>) {
        let job = Job { retry_times, retry_delay: 10, on_lost, ..Job::default() };
        assert_eq!(delay_secs(&job, number, state), expect);
    }

    #[test]
    fn a_failed_run_has_as_many_retries_as_wanted_after_delays_that_double() {
        check(0, OnLost::Skip, 1, RunState::Failed, None);
        check(2, OnLost::Skip, 1, RunState::Failed, Some(10));
        check(2, OnLost::Skip, 2, RunState::Timeout, Some(20));
        check(2, OnLost::Skip, 3, RunState::Failed, None);
        check(1_000, OnLost::Skip, 9, RunState::Failed, Some(2_560));
        check(1_000, OnLost::Skip, 10, RunState::Failed, Some(3_600));
        check(1_000, OnLost::Skip, 1_000, RunState::Failed, Some(3_600));
        for state in [RunState::Ok, RunState::Killed, RunState::Cancelled, RunState::Missed, RunState::Lost] {
            check(2, OnLost::Skip, 1, state, None);
        }
    }

    #[test]
    fn a_lost_run_is_repeated_only_where_that_is_wanted_and_not_for_ever() {
        check(0, OnLost::Rerun, 1, RunState::Lost, Some(0));
        check(0, OnLost::Rerun, RERUNS_MAX, RunState::Lost, Some(0));
        check(0, OnLost::Rerun, RERUNS_MAX + 1, RunState::Lost, None);
        check(0, OnLost::Rerun, 1, RunState::Failed, None);
    }
}
