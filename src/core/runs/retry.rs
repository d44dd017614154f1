//! Retries: the next attempt after one that failed or was lost, where the job wants one.
//!
//! The next attempt goes into the journal at once, without a node; when its delay is over it is given to a node like
//! any run that waited. So an open entry is the only record of a delayed retry, and a new leader finds it.
//!
//! Not the recovery of runs that may have started: that is `recovery`'s.
//!
//! Invariant: the entry of an attempt stays open until the attempt that follows it is in the journal.

use super::desk::Desk;
use super::gate::Gate;
use super::in_flight::{InFlightRun, Stage};
use super::rows;
use super::sending::Orders;
use crate::model::journal::{Body, DelayedRun, EntryId};
use crate::model::{Attempt, Job, OnLost, RunState, Version};
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

/// The attempt is over: its permit is free for the next run of its job, unless a further attempt keeps it.
pub fn on_finished(attempt: Attempt, state: RunState, gate: &Gate, desk: &mut Desk) {
    if desk.table.is(attempt, Stage::Sent) {
        desk.table.set_stage(attempt, Stage::Over);
        follow_up(attempt, state, desk);
    }
    gate.grant(attempt.run.cron_id, desk);
}

/// The attempt is over, with this state: plans the next one, where there is one.
pub fn follow_up(attempt: Attempt, state: RunState, desk: &mut Desk) {
    let Some(run) = desk.table.get(attempt).filter(|run| !run.is_followed) else { return };
    let (version, entry) = (run.job.version, run.entry);
    if !run.is_killed {
        follow(Ended { attempt, version, entry, state }, desk);
    } else if delay_secs(&run.job, attempt.number, state).is_some() {
        // It ended by itself before the operator's kill reached it: a row tells later leaders that there is no next
        // attempt.
        desk.table.set_followed(attempt);
        let next = Attempt { number: attempt.number + 1, ..attempt };
        desk.push_row(next, version, rows::KILLED_BEFORE);
    }
}

/// Plans the next attempt after one that may be of a former leader.
pub fn follow(ended: Ended, desk: &mut Desk) {
    let Ended { attempt, version, entry, state } = ended;
    let now = desk.cx.now;
    let is_wanted = |job: &&Arc<Job>| job.version == version && (!job.stop || attempt.run.manual.is_some());
    let Some(job) = desk.ledger.jobs.job(attempt.run.cron_id).filter(is_wanted).cloned() else { return };
    let Some(delay_secs) = delay_secs(&job, attempt.number, state) else { return };
    let next = Attempt { number: attempt.number + 1, ..attempt };
    if desk.table.has(next) {
        return;
    }
    // The leader hears of the end only after it, so the delay is never shorter than it should be.
    let due = now.wall.plus_secs(delay_secs);
    let ready_at = now.mono.plus_ms(delay_secs as u64 * 1_000);
    desk.table.set_followed(attempt);
    desk.table.insert(next, InFlightRun::delayed(job, due, ready_at, entry));
    let delayed = vec![DelayedRun { attempt: next, version, due: due.second_after() }];
    desk.ledger.journal.push(None, 0, Body { delayed, ..Body::default() });
}

/// Starts the attempts whose delay is over.
pub fn start_delayed(gate: &Gate, desk: &mut Desk) {
    let mut orders = Orders::default();
    for attempt in desk.table.delayed_until(desk.cx.now.mono) {
        let Some(job) = desk.table.get(attempt).map(|run| Arc::clone(&run.job)) else { continue };
        let has_permit = job.parallel_max().is_none() || gate.permits.has_kept_mutex(&job, desk.table);
        gate.pass(attempt, has_permit, &mut orders, desk);
        debug_assert!(!desk.table.is(attempt, Stage::Delayed), "{attempt}: its delay is over, and it still waits");
    }
    orders.send(desk.cx.fx);
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
