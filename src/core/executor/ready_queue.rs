//! Whose turn it is among the runs whose time has come: by turns those that somebody waits for and those that are on time,
//! each in the order in which they came; then the backlog, job by job in turn, of each job the oldest first. So a flood
//! delays neither a mutex nor what falls due after it, and one job's backlog does not starve another's. One turn in four
//! is the backlog's, lest jobs that take all the places there are starve it.
//!
//! Not exact about removal: an attempt that its owner no longer wants comes out all the same, and the owner passes over
//! it. Not the place that counts or limits.
//!
//! Invariant: what was put in comes out.

use crate::model::{Attempt, JobId, Second};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// While a backlog waits, it has one turn in so many.
const BACKLOG_EVERY: u32 = 4;

/// How a run takes its turn.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rank {
    /// Never of the backlog: others wait for it (a mutex run), or somebody does (a manual one).
    Urgent,
    /// On time, until its second is over.
    Prompt,
    /// Its second was over when it came.
    Late,
}

#[derive(Debug, Default)]
pub struct ReadyQueue {
    urgent: VecDeque<Attempt>,
    /// The last turn was one of these, and the next is another's.
    was_urgent: bool,
    on_time: VecDeque<Attempt>,
    /// No job here is without a run.
    backlog: BTreeMap<JobId, BTreeSet<Attempt>>,
    /// Turns since the backlog had one.
    passed_over: u32,
    /// The first job from here on is the next of the backlog.
    next_job: JobId,
}

impl ReadyQueue {
    /// It waits behind those that came before it.
    pub fn push(&mut self, attempt: Attempt, rank: Rank) {
        match rank {
            Rank::Urgent => self.urgent.push_back(attempt),
            Rank::Prompt => self.on_time.push_back(attempt),
            Rank::Late => self.fall_back(attempt),
        }
    }

    /// It had its turn and could not use it: it is the next of its kind.
    pub fn put_back(&mut self, attempt: Attempt, rank: Rank) {
        match rank {
            Rank::Urgent => self.urgent.push_front(attempt),
            Rank::Prompt => self.on_time.push_front(attempt),
            Rank::Late => self.fall_back(attempt),
        }
        self.next_job = attempt.run.cron_id;
    }

    /// The next one.
    pub fn take(&mut self, now: Second) -> Option<Attempt> {
        if BACKLOG_EVERY <= self.passed_over + 1
            && let Some(attempt) = self.take_backlog()
        {
            return Some(attempt);
        }
        self.was_urgent = !self.was_urgent && !self.urgent.is_empty();
        let next = if self.was_urgent { self.urgent.pop_front() } else { self.take_on_time(now) };
        let next = next.or_else(|| self.urgent.pop_front());
        if next.is_none() {
            return self.take_backlog();
        }
        self.passed_over += u32::from(!self.backlog.is_empty());
        next
    }

    fn take_on_time(&mut self, now: Second) -> Option<Attempt> {
        while let Some(attempt) = self.on_time.pop_front() {
            if now <= attempt.run.scheduled_at {
                return Some(attempt);
            }
            self.fall_back(attempt);
        }
        None
    }

    pub fn is_empty(&self) -> bool {
        self.urgent.is_empty() && self.on_time.is_empty() && self.backlog.is_empty()
    }

    fn fall_back(&mut self, attempt: Attempt) {
        self.backlog.entry(attempt.run.cron_id).or_default().insert(attempt);
    }

    fn take_backlog(&mut self) -> Option<Attempt> {
        self.passed_over = 0;
        let next = self.backlog.range(self.next_job..).next().or_else(|| self.backlog.first_key_value());
        let job = *next?.0;
        self.next_job = JobId(job.0.wrapping_add(1));
        let runs = self.backlog.get_mut(&job)?;
        let oldest = runs.pop_first();
        if runs.is_empty() {
            self.backlog.remove(&job);
        }
        oldest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RunKey;

    fn attempt(job: u32, second: i64) -> Attempt {
        Attempt { run: RunKey::scheduled(JobId(job), Second(second)), number: 1 }
    }

    /// Puts them in and takes all at `now`: (job, second) each.
    #[track_caller]
    fn check(put: &[(u32, i64, Rank)], now: i64, expect: &[(u32, i64)]) {
        let mut ready = ReadyQueue::default();
        put.iter().for_each(|(job, second, rank)| ready.push(attempt(*job, *second), *rank));
        let taken: Vec<(u32, i64)> = std::iter::from_fn(|| ready.take(Second(now)))
            .map(|attempt| (attempt.run.cron_id.0, attempt.run.scheduled_at.0))
            .collect();
        assert_eq!(taken, expect);
        assert!(ready.is_empty());
    }

    #[test]
    fn on_time_is_in_the_order_of_coming() {
        use Rank::Prompt;
        check(&[(3, 10, Prompt), (1, 10, Prompt), (2, 10, Prompt)], 10, &[(3, 10), (1, 10), (2, 10)]);
        check(&[(3, 10, Prompt), (1, 11, Prompt)], 10, &[(3, 10), (1, 11)]);
        // A flood of the second before does not hold up what is due in this one.
        check(&[(3, 10, Prompt), (2, 10, Prompt), (1, 11, Prompt)], 11, &[(1, 11), (2, 10), (3, 10)]);
    }

    #[test]
    fn what_is_late_comes_after_what_is_on_time() {
        use Rank::{Late, Prompt};
        check(&[(1, 9, Late), (2, 10, Prompt)], 10, &[(2, 10), (1, 9)]);
        check(&[(1, 8, Prompt), (2, 10, Prompt)], 10, &[(2, 10), (1, 8)]);
    }

    #[test]
    fn the_backlog_goes_job_by_job_and_oldest_first_within_a_job() {
        use Rank::Late;
        check(
            &[(1, 3, Late), (1, 1, Late), (1, 2, Late), (2, 9, Late), (3, 5, Late), (3, 4, Late)],
            20,
            &[(1, 1), (2, 9), (3, 4), (1, 2), (3, 5), (1, 3)],
        );
    }

    #[test]
    fn what_others_wait_for_never_falls_back() {
        use Rank::{Late, Prompt, Urgent};
        check(&[(1, 1, Prompt), (2, 1, Urgent), (3, 1, Late)], 50, &[(2, 1), (1, 1), (3, 1)]);
    }

    #[test]
    fn what_others_wait_for_takes_turns_with_a_flood_that_came_before() {
        let mut ready = ReadyQueue::default();
        (0..4).for_each(|job| ready.push(attempt(10 + job, 100), Rank::Prompt));
        (0..2).for_each(|job| ready.push(attempt(20 + job, 100), Rank::Urgent));
        let jobs: Vec<u32> = (0..6).map(|_| ready.take(Second(100)).unwrap().run.cron_id.0).collect();
        assert_eq!(jobs, [20, 10, 21, 11, 12, 13]);
        assert!(ready.is_empty());
    }

    #[test]
    fn a_flood_does_not_delay_what_falls_due_after_it() {
        let mut ready = ReadyQueue::default();
        (1..=11_000).for_each(|job| ready.push(attempt(job, 100), Rank::Prompt));
        for _ in 0..500 {
            ready.take(Second(100)).unwrap();
        }
        ready.push(attempt(20_000, 110), Rank::Prompt);
        assert_eq!(ready.take(Second(110)), Some(attempt(20_000, 110)));
        assert_eq!(ready.take(Second(110)), Some(attempt(501, 100)));
    }

    #[test]
    fn a_backlog_has_its_share_beside_what_is_always_on_time() {
        let mut ready = ReadyQueue::default();
        (0..3).for_each(|second| ready.push(attempt(7, second), Rank::Late));
        (0..12).for_each(|job| ready.push(attempt(10 + job, 100), Rank::Prompt));
        let jobs: Vec<u32> = (0..15).map(|_| ready.take(Second(100)).unwrap().run.cron_id.0).collect();
        assert_eq!(jobs, [10, 11, 12, 7, 13, 14, 15, 7, 16, 17, 18, 7, 19, 20, 21]);
    }

    #[test]
    fn what_could_not_use_its_turn_is_the_next_of_its_kind() {
        let mut ready = ReadyQueue::default();
        for (job, second) in [(1, 1), (2, 1), (3, 1), (1, 2), (2, 2), (3, 2)] {
            ready.push(attempt(job, second), Rank::Late);
        }
        assert_eq!(ready.take(Second(9)), Some(attempt(1, 1)));
        assert_eq!(ready.take(Second(9)), Some(attempt(2, 1)));
        ready.put_back(attempt(2, 1), Rank::Late);
        assert_eq!(ready.take(Second(9)), Some(attempt(2, 1)));
        assert_eq!(ready.take(Second(9)), Some(attempt(3, 1)));
        // What was on time at its turn and no longer is has its job's next turn in the backlog.
        ready.push(attempt(7, 9), Rank::Prompt);
        assert_eq!(ready.take(Second(9)), Some(attempt(7, 9)));
        ready.put_back(attempt(7, 9), Rank::Prompt);
        assert_eq!(ready.take(Second(20)), Some(attempt(7, 9)));
        assert_eq!(ready.take(Second(20)), Some(attempt(1, 2)));
    }
}
