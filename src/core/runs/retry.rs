//! What follows an attempt that did not end well: another one, where the job wants it.
//!
//! A further attempt goes into the journal at once, given to nobody; when its delay is over it is given to a node like
//! any run that waited. So an entry that is not done is the only record of a retry that waits, and a new leader finds it.
//!
//! Invariant: the entry of an attempt stays open until the attempt that follows it is in the journal.

use super::table::{InFlightRun, Stage};
use super::{Around, Orders, Runs, rows, send};
use crate::model::journal::{Body, DelayedRun, EntryId};
use crate::model::{Attempt, Job, Mono, NodeId, OnLost, RunState};
use std::sync::Arc;

/// No delay is longer, however often it was doubled.
const DELAY_SECS_MAX: i64 = 3_600;
/// A command that kills its node each time must end somewhere.
const RERUNS_MAX: u32 = 10;

/// How long after the attempt the next one is due; none where there is none.
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

impl Runs {
    /// The attempt is over, with this state.
    pub fn follow_up(&mut self, attempt: Attempt, state: RunState, around: &mut Around) {
        let Some(in_flight) = self.table.get(attempt).filter(|in_flight| !in_flight.is_followed).cloned() else {
            return;
        };
        if !in_flight.is_killed {
            self.follow(attempt, &in_flight.job, in_flight.entry, state, around);
        } else if delay_secs(&in_flight.job, attempt.number, state).is_some() {
            // It ended by itself before it could be ended: a row tells later leaders that there is no further attempt.
            self.table.set_followed(attempt);
            let next = Attempt { number: attempt.number + 1, ..attempt };
            self.push_row(next, in_flight.job.version, RunState::Cancelled, rows::KILLED_BEFORE, around);
        }
    }

    /// The same of an attempt that a former leader knew. `entry` names it.
    pub fn follow(
        &mut self,
        attempt: Attempt,
        job: &Arc<Job>,
        entry: Option<EntryId>,
        state: RunState,
        around: &mut Around,
    ) {
        let is_wanted = |now: &&Arc<Job>| now.version == job.version && (!now.stop || attempt.run.manual.is_some());
        let Some(job) = around.job(attempt.run.cron_id).filter(is_wanted).cloned() else { return };
        let Some(delay_secs) = delay_secs(&job, attempt.number, state) else { return };
        let next = Attempt { number: attempt.number + 1, ..attempt };
        if self.table.has(next) {
            return;
        }
        // We hear of an end after it, so the delay is never shorter than it should be.
        let due = around.now.wall.plus_secs(delay_secs);
        let ready_at = around.now.mono.plus_ms(delay_secs as u64 * 1_000);
        let version = job.version;
        self.table.set_followed(attempt);
        let planned = InFlightRun::planned(job, NodeId::default(), false, due);
        self.table.insert(next, InFlightRun { stage: Stage::Delayed, ready_at, ..planned });
        around.journaler.push(
            None,
            0,
            Body { delayed: vec![DelayedRun { attempt: next, version, due: due.second_after() }], ..Body::default() },
        );
        if let Some(entry) = entry {
            *self.open.entry(entry).or_default() += 1;
            self.follows.insert(next, entry);
        }
    }

    /// Gives out what has waited long enough.
    pub fn start_delayed(&mut self, around: &mut Around) {
        let mut orders = Orders::new();
        let now = around.now.mono;
        while let Some((_, attempt)) = self.delayed.first().copied().filter(|(due, _)| *due <= now) {
            self.delayed.pop_first();
            self.start_attempt(attempt, around, &mut orders);
        }
        send(orders, around);
    }

    /// When the next delay is over.
    pub fn next_delayed(&self) -> Option<Mono> {
        self.delayed.first().map(|(due, _)| *due)
    }

    /// A mutex is kept over a delay; but where a lease had ended meanwhile, another run may have it too.
    fn has_kept_mutex(&self, job: &Job) -> bool {
        job.is_mutex && self.table.held(job.id) == 1
    }

    fn start_attempt(&mut self, attempt: Attempt, around: &mut Around, orders: &mut Orders) {
        let Some(in_flight) = self.table.get(attempt).filter(|in_flight| in_flight.stage == Stage::Delayed).cloned()
        else {
            return;
        };
        if in_flight.is_killed {
            self.drop_killed(attempt, around);
            self.grant_permits(attempt.run.cron_id, around);
        } else if around.job(in_flight.job.id).is_none_or(|now| now.version != in_flight.job.version) {
            self.reassign(attempt, around);
            self.grant_permits(attempt.run.cron_id, around);
        } else if in_flight.job.parallel_max().is_some() && !self.has_kept_mutex(&in_flight.job) {
            self.wait_for_permit(attempt);
            self.grant_permits(attempt.run.cron_id, around);
        } else {
            self.send_or_move(attempt, around, orders);
        }
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
    fn failures_are_retried_as_often_as_wanted_after_delays_that_double() {
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
    fn what_is_lost_runs_again_only_where_that_is_wanted_and_not_for_ever() {
        check(0, OnLost::Rerun, 1, RunState::Lost, Some(0));
        check(0, OnLost::Rerun, RERUNS_MAX, RunState::Lost, Some(0));
        check(0, OnLost::Rerun, RERUNS_MAX + 1, RunState::Lost, None);
        check(0, OnLost::Rerun, 1, RunState::Failed, None);
    }
}
