//! The ready queue: the runs whose second has come, in the order in which they start. Urgent runs and runs on time
//! alternate, each kind in the order in which they came. After them comes the backlog, one run of each job after the
//! other, each job's oldest run first. So a flood of late runs delays neither a mutex run nor a run on time, and one
//! job's backlog does not starve another's. One start in four is the backlog's, so that it does not starve where the
//! other runs take all the capacity.
//!
//! Not here: counts, limits, and the runs themselves; `table` puts runs in and takes them out.
//!
//! Invariant: a run is in it once, in the line of its rank or, when its second is over, in the backlog.

use crate::model::{Attempt, JobId, Second};
use std::collections::{BTreeMap, BTreeSet};

/// While the backlog has runs, one start in so many is its own.
const BACKLOG_EVERY: u32 = 4;

/// How urgent a run is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rank {
    /// Never in the backlog: other runs wait for its end (a run that had a permit), or a person does (a manual run).
    Urgent,
    /// On time, until its second is over.
    Prompt,
    /// Its second was over when it came.
    Late,
}

#[derive(Debug, Default)]
pub struct ReadyQueue {
    /// Every run in the queue, with the line that it waits in.
    queued: BTreeMap<Attempt, Queued>,
    urgent: Line,
    /// The last pick was urgent, so the next is not.
    was_urgent: bool,
    on_time: Line,
    /// By job; a job without a run is not in it.
    backlog: BTreeMap<JobId, BTreeSet<Attempt>>,
    /// Picks since the last one from the backlog.
    passed_over: u32,
    /// The backlog goes on with the first job that has this id or a larger one.
    next_job: JobId,
}

/// The line that a run waits in, and its number there. The backlog has no numbers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Queued {
    Urgent(i64),
    OnTime(i64),
    Backlog,
}

/// Runs by number. A run that comes last gets the largest number, a run that is moved to the front the smallest.
#[derive(Debug, Default)]
struct Line(BTreeMap<i64, Attempt>);

impl ReadyQueue {
    /// Puts a run behind those of its rank.
    pub fn push(&mut self, attempt: Attempt, rank: Rank) {
        let queued = match rank {
            Rank::Urgent => Queued::Urgent(self.urgent.push_back(attempt)),
            Rank::Prompt => Queued::OnTime(self.on_time.push_back(attempt)),
            Rank::Late => self.fall_back(attempt),
        };
        let former = self.queued.insert(attempt, queued);
        debug_assert_eq!(former, None, "{attempt} is in the ready queue twice");
    }

    /// Makes a run that was picked and could not start the next of its kind.
    pub fn move_to_front(&mut self, attempt: Attempt) {
        let Some(queued) = self.queued.get_mut(&attempt) else { return };
        match queued {
            Queued::Urgent(number) => *number = self.urgent.move_to_front(*number, attempt),
            Queued::OnTime(number) => *number = self.on_time.move_to_front(*number, attempt),
            Queued::Backlog => {}
        }
        self.next_job = attempt.run.cron_id;
    }

    pub fn remove(&mut self, attempt: Attempt) {
        let was_there = match self.queued.remove(&attempt) {
            Some(Queued::Urgent(number)) => self.urgent.0.remove(&number).is_some(),
            Some(Queued::OnTime(number)) => self.on_time.0.remove(&number).is_some(),
            Some(Queued::Backlog) => self.leave_backlog(attempt),
            None => false,
        };
        debug_assert!(was_there, "{attempt} leaves the ready queue and is not where it should be");
    }

    /// Picks the run to start now. It stays in the queue until it is removed.
    pub fn next(&mut self, now: Second) -> Option<Attempt> {
        if BACKLOG_EVERY <= self.passed_over + 1
            && let Some(attempt) = self.next_of_backlog()
        {
            return Some(attempt);
        }
        self.was_urgent = !self.was_urgent && !self.urgent.0.is_empty();
        let next = if self.was_urgent { self.urgent.first() } else { self.next_on_time(now) };
        let next = next.or_else(|| self.urgent.first());
        if next.is_none() {
            return self.next_of_backlog();
        }
        self.passed_over += u32::from(!self.backlog.is_empty());
        next
    }

    /// The next run on time. Runs whose second is over fall back into the backlog.
    fn next_on_time(&mut self, now: Second) -> Option<Attempt> {
        while let Some((number, attempt)) = self.on_time.0.pop_first() {
            if now <= attempt.run.scheduled_at {
                self.on_time.0.insert(number, attempt);
                return Some(attempt);
            }
            let queued = self.fall_back(attempt);
            self.queued.insert(attempt, queued);
        }
        None
    }

    pub fn len(&self) -> usize {
        self.queued.len()
    }

    fn fall_back(&mut self, attempt: Attempt) -> Queued {
        self.backlog.entry(attempt.run.cron_id).or_default().insert(attempt);
        Queued::Backlog
    }

    fn leave_backlog(&mut self, attempt: Attempt) -> bool {
        let Some(runs) = self.backlog.get_mut(&attempt.run.cron_id) else { return false };
        let was_there = runs.remove(&attempt);
        if runs.is_empty() {
            self.backlog.remove(&attempt.run.cron_id);
        }
        was_there
    }

    fn next_of_backlog(&mut self) -> Option<Attempt> {
        self.passed_over = 0;
        let next = self.backlog.range(self.next_job..).next().or_else(|| self.backlog.first_key_value());
        let (job, runs) = next?;
        self.next_job = JobId(job.0.wrapping_add(1));
        runs.first().copied()
    }

    /// All runs in the queue, by attempt and not in the order of their starts.
    pub fn attempts(&self) -> impl Iterator<Item = Attempt> {
        self.queued.keys().copied()
    }

    /// Looks for every run in its line, and counts all runs again. Costs a look at every run.
    pub fn check_invariants(&self) {
        for (attempt, queued) in &self.queued {
            let is_there = match queued {
                Queued::Urgent(number) => self.urgent.0.get(number) == Some(attempt),
                Queued::OnTime(number) => self.on_time.0.get(number) == Some(attempt),
                Queued::Backlog => self.backlog.get(&attempt.run.cron_id).is_some_and(|runs| runs.contains(attempt)),
            };
            assert!(is_there, "{attempt} is not in its line, {queued:?}");
        }
        let backlog: usize = self.backlog.values().map(BTreeSet::len).sum();
        let counted = self.urgent.0.len() + self.on_time.0.len() + backlog;
        assert_eq!(counted, self.queued.len(), "some run in the ready queue is in two lines, or in none");
        assert!(self.backlog.values().all(|runs| !runs.is_empty()), "a job of the backlog has no run");
        assert!(self.passed_over < BACKLOG_EVERY, "the backlog is passed over: {} picks", self.passed_over);
    }
}

impl Line {
    /// Answers the run's number.
    fn push_back(&mut self, attempt: Attempt) -> i64 {
        let number = self.0.last_key_value().map_or(0, |(last, _)| last + 1);
        self.0.insert(number, attempt);
        number
    }

    /// Answers the run's new number.
    fn move_to_front(&mut self, number: i64, attempt: Attempt) -> i64 {
        self.0.remove(&number);
        let number = self.0.first_key_value().map_or(0, |(first, _)| first - 1);
        self.0.insert(number, attempt);
        number
    }

    fn first(&self) -> Option<Attempt> {
        self.0.first_key_value().map(|(_, attempt)| *attempt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RunKey;

    fn attempt(job: u32, second: i64) -> Attempt {
        Attempt { run: RunKey::scheduled(JobId(job), Second(second)), number: 1 }
    }

    fn take(ready: &mut ReadyQueue, now: i64) -> Option<Attempt> {
        let next = ready.next(Second(now))?;
        ready.remove(next);
        if ready.len() < 100 {
            ready.check_invariants();
        }
        Some(next)
    }

    /// Puts runs in, and takes all of them at `now`; each is a job and a second.
    #[track_caller]
    fn check(put: &[(u32, i64, Rank)], now: i64, expect: &[(u32, i64)]) {
        let mut ready = ReadyQueue::default();
        put.iter().for_each(|(job, second, rank)| ready.push(attempt(*job, *second), *rank));
        let taken: Vec<(u32, i64)> = std::iter::from_fn(|| take(&mut ready, now))
            .map(|attempt| (attempt.run.cron_id.0, attempt.run.scheduled_at.0))
            .collect();
        assert_eq!(taken, expect);
        assert_eq!(ready.len(), 0);
    }

    #[test]
    fn runs_on_time_start_in_the_order_in_which_they_came() {
        use Rank::Prompt;
        check(&[(3, 10, Prompt), (1, 10, Prompt), (2, 10, Prompt)], 10, &[(3, 10), (1, 10), (2, 10)]);
        check(&[(3, 10, Prompt), (1, 11, Prompt)], 10, &[(3, 10), (1, 11)]);
        // A flood in the second before does not delay the runs of this one.
        check(&[(3, 10, Prompt), (2, 10, Prompt), (1, 11, Prompt)], 11, &[(1, 11), (2, 10), (3, 10)]);
    }

    #[test]
    fn late_runs_come_after_runs_on_time() {
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
    fn an_urgent_run_never_falls_back() {
        use Rank::{Late, Prompt, Urgent};
        check(&[(1, 1, Prompt), (2, 1, Urgent), (3, 1, Late)], 50, &[(2, 1), (1, 1), (3, 1)]);
    }

    #[test]
    fn urgent_runs_alternate_with_a_flood_that_came_before() {
        let mut ready = ReadyQueue::default();
        (0..4).for_each(|job| ready.push(attempt(10 + job, 100), Rank::Prompt));
        (0..2).for_each(|job| ready.push(attempt(20 + job, 100), Rank::Urgent));
        let jobs: Vec<u32> = (0..6).map(|_| take(&mut ready, 100).unwrap().run.cron_id.0).collect();
        assert_eq!(jobs, [20, 10, 21, 11, 12, 13]);
        assert_eq!(ready.len(), 0);
    }

    #[test]
    fn a_flood_does_not_delay_runs_that_fall_due_after_it() {
        let mut ready = ReadyQueue::default();
        (1..=11_000).for_each(|job| ready.push(attempt(job, 100), Rank::Prompt));
        for _ in 0..500 {
            take(&mut ready, 100).unwrap();
        }
        ready.push(attempt(20_000, 110), Rank::Prompt);
        assert_eq!(take(&mut ready, 110), Some(attempt(20_000, 110)));
        assert_eq!(take(&mut ready, 110), Some(attempt(501, 100)));
    }

    #[test]
    fn a_backlog_has_its_share_beside_runs_on_time() {
        let mut ready = ReadyQueue::default();
        (0..3).for_each(|second| ready.push(attempt(7, second), Rank::Late));
        (0..12).for_each(|job| ready.push(attempt(10 + job, 100), Rank::Prompt));
        let jobs: Vec<u32> = (0..15).map(|_| take(&mut ready, 100).unwrap().run.cron_id.0).collect();
        assert_eq!(jobs, [10, 11, 12, 7, 13, 14, 15, 7, 16, 17, 18, 7, 19, 20, 21]);
    }

    #[test]
    fn a_run_that_could_not_start_is_the_next_of_its_kind() {
        let mut ready = ReadyQueue::default();
        for (job, second) in [(1, 1), (2, 1), (3, 1), (1, 2), (2, 2), (3, 2)] {
            ready.push(attempt(job, second), Rank::Late);
        }
        assert_eq!(take(&mut ready, 9), Some(attempt(1, 1)));
        assert_eq!(take(&mut ready, 9), Some(attempt(2, 1)));
        ready.push(attempt(2, 1), Rank::Late);
        ready.move_to_front(attempt(2, 1));
        assert_eq!(take(&mut ready, 9), Some(attempt(2, 1)));
        assert_eq!(take(&mut ready, 9), Some(attempt(3, 1)));
        // A run that was on time when it was picked, and is late now, is the next in the backlog.
        ready.push(attempt(7, 9), Rank::Prompt);
        assert_eq!(take(&mut ready, 9), Some(attempt(7, 9)));
        ready.push(attempt(7, 9), Rank::Prompt);
        ready.move_to_front(attempt(7, 9));
        assert_eq!(take(&mut ready, 20), Some(attempt(7, 9)));
        assert_eq!(take(&mut ready, 20), Some(attempt(1, 2)));
    }
}
