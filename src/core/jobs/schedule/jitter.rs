//! Jitter: jobs that share a schedule are each due some seconds later, by an offset of their own.
//!
//! Not chance: the offset follows from the job's id and its `jitter` alone. Every node, every release and every restart
//! finds the same one, so the job of a daily schedule is due at the same second of every day, and a new leader agrees
//! with the former one.
//!
//! Invariant: a shifted schedule fires exactly `by_secs` after the schedule itself does.

use super::Schedule;
use crate::model::{Job, JobId, Second};
use std::sync::Arc;

/// 2^64 divided by the golden ratio: its multiples, taken as fractions of 2^64, lie as far apart as multiples can.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// How many seconds after its schedule a job is due: 0..=jitter.
///
/// It is the fraction of `id * GOLDEN / 2^64`, in its upper 32 bits, times `jitter + 1`. Jobs with consecutive ids are
/// spread evenly over 0..=jitter, where random numbers would be only roughly even. This function must never change: a
/// job would have a day with two runs or with none.
pub fn offset_secs(id: JobId, jitter: u32) -> u32 {
    let fraction = u64::from(id.0).wrapping_mul(GOLDEN) >> 32;
    // At most (2^32 - 1) * 2^32, shifted back: it fits.
    ((fraction * (u64::from(jitter) + 1)) >> 32) as u32
}

/// A schedule that fires `by_secs` later.
#[derive(Clone, Debug)]
pub struct Shifted {
    schedule: Arc<Schedule>,
    by_secs: i64,
}

impl Shifted {
    /// The schedule, later by so many seconds.
    pub fn new(schedule: Arc<Schedule>, by_secs: u32) -> Shifted {
        Shifted { schedule, by_secs: by_secs.into() }
    }

    /// The first due second after this one; none where there is no further one.
    pub fn next_after(&self, after: Second) -> Option<Second> {
        Some(self.schedule.next_after(after.plus(-self.by_secs))?.plus(self.by_secs))
    }

    /// Whether this second is due.
    pub fn matches(&self, second: Second) -> bool {
        self.schedule.matches(second.plus(-self.by_secs))
    }

    /// The first second after `after` at which the job has a run, its window and its `stop` considered.
    pub fn next_due(&self, job: &Job, after: Second) -> Option<Second> {
        let from = after.max(job.since.plus(-1)).max(Second(job.start_time).plus(-1));
        self.next_after(from).filter(|next| job.may_run_at(*next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Zones;

    fn shifted(text: &str, by_secs: u32) -> Shifted {
        Shifted::new(Arc::new(Schedule::parse(text, &Zones::default()).unwrap()), by_secs)
    }

    #[test]
    fn an_offset_is_the_same_in_every_release() {
        let offsets = [1, 2, 3, 1538, i32::MAX as u32].map(|id| offset_secs(JobId(id), 3_600));
        assert_eq!(offsets, [2225, 850, 3075, 1931, 470]);
        assert_eq!(offset_secs(JobId(7), 0), 0);
        assert_eq!(offset_secs(JobId(7), 1), 0);
        assert!(offset_secs(JobId(u32::MAX), u32::MAX) < u32::MAX);
    }

    /// So many jobs, `step` ids apart: the fewest and the most in any of `parts` parts of the hour.
    fn spread(jobs: u32, step: u32, parts: u32) -> (u32, u32) {
        let mut counts = vec![0; parts as usize];
        (1..=jobs).for_each(|at| {
            let offset = offset_secs(JobId(at * step), 3_599);
            counts[(offset / (3_600 / parts)) as usize] += 1;
        });
        (counts.iter().copied().min().unwrap(), counts.iter().copied().max().unwrap())
    }

    #[test]
    fn thousands_of_jobs_spread_evenly() {
        let (fewest, most) = spread(36_000, 1, 3_600);
        assert!(8 <= fewest && most <= 12, "{fewest} to {most} a second, 10 would be even");
        let (fewest, most) = spread(3_000, 1, 60);
        assert!(48 <= fewest && most <= 52, "{fewest} to {most} a minute, 50 would be even");
        for step in [2, 3, 7, 10, 100, 1_000] {
            let (fewest, most) = spread(6_000, step, 60);
            assert!(85 <= fewest && most <= 115, "every {step}th: {fewest} to {most} a minute, 100 would be even");
        }
    }

    #[test]
    fn what_is_shifted_fires_so_much_later_and_at_no_other_time() {
        let (plain, later) = (shifted("*/7 30 2 * * *", 0), shifted("*/7 30 2 * * *", 100));
        let start = Second(1_700_000_000);
        let mut at = start;
        for _ in 0..20 {
            let next = later.next_after(at).unwrap();
            assert_eq!(plain.next_after(at.plus(-100)).unwrap().plus(100), next);
            assert!(later.matches(next) && !later.matches(next.plus(1)));
            at = next;
        }
    }

    #[track_caller]
    fn check_due(job: Job, after: i64, expect: Option<i64>) {
        assert_eq!(shifted("*/10 * * * * *", 3).next_due(&job, Second(after)), expect.map(Second));
    }

    #[test]
    fn the_next_due_second_lies_in_the_jobs_window() {
        check_due(Job::default(), 100, Some(103));
        check_due(Job::default(), 103, Some(113));
        check_due(Job { stop: true, ..Job::default() }, 100, None);
        check_due(Job { start_time: 113, ..Job::default() }, 100, Some(113));
        check_due(Job { start_time: 114, ..Job::default() }, 100, Some(123));
        check_due(Job { since: Second(114), ..Job::default() }, 100, Some(123));
        check_due(Job { end_time: 103, ..Job::default() }, 100, None);
        check_due(Job { end_time: 104, ..Job::default() }, 100, Some(103));
        check_due(Job { start_time: 104, end_time: 113, ..Job::default() }, 0, None);
    }
}
