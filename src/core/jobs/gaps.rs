//! The runs that would have been due in a gap of ticks: counted from the schedules, with a limit to the work.
//!
//! Not the decision about the missed runs: the leader makes it.
//!
//! Invariant: a count is exact, or it says that it is a lower bound.

use crate::core::jobs::scheduler::Scheduler;
use crate::core::jobs::timetable::Entry;
use crate::model::journal::{MissedGap, MissedWhy};
use crate::model::{Job, JobId, Second};

/// How many fire times of all schedules together may be counted in a gap; beyond it a count is a lower bound. A million
/// steps take well under a second.
pub(super) const GAP_STEPS_MAX: u64 = 1_000_000;
/// The same limit for a question about one job; so many steps take about a millisecond.
pub(super) const OWED_STEPS_MAX: u64 = 2_000;
/// The same limit for a job that begins only after the steps that were counted of its schedule.
const STEPS_BEYOND_MAX: u64 = 100;

impl Scheduler {
    /// The due runs of the job by its present definition, after the cursor and up to `last`; none where it has none.
    pub fn owed(&self, id: JobId, last: Second) -> Option<MissedGap> {
        let (job, entry) = self.planned(id)?;
        self.gap_of(job, entry, last, OWED_STEPS_MAX)
    }

    /// Whether the job has a due run after the cursor up to and with `last`.
    pub fn owes(&self, id: JobId, last: Second) -> bool {
        self.planned(id).is_some_and(|(job, entry)| self.gap_of(job, entry, last, 1).is_some())
    }

    /// Passes over the ticks up to and with `last`. Answers the runs that would have been due in them, in order of job
    /// ids.
    pub fn skip_to(&mut self, last: Second) -> Vec<MissedGap> {
        let mut gaps = Vec::new();
        let mut steps_left = GAP_STEPS_MAX;
        for (_, entry) in self.timetable().entries() {
            // Each schedule may use its share of the remaining steps, and at least one.
            let steps_max = (steps_left / self.timetable().count() as u64).max(1);
            let fires = Fires::until(entry, entry.next, last, steps_max);
            steps_left = steps_left.saturating_sub(fires.seconds.len() as u64);
            gaps.extend(self.jobs_with(entry).filter_map(|job| self.gap_in(job, entry, &fires)));
        }
        gaps.sort_unstable_by_key(|gap| gap.cron_id);
        self.wind_to(last);
        gaps
    }

    /// The job's missed runs in a gap. Where the counted fires end before the job begins, a few steps from its own
    /// first second tell whether it missed any.
    fn gap_in(&self, job: &Job, entry: &Entry, fires: &Fires) -> Option<MissedGap> {
        let is_before = |end: &Second| *end < self.first_of(job);
        let is_beyond = fires.is_cut && fires.seconds.last().is_none_or(is_before);
        match is_beyond {
            true => self.gap_of(job, entry, fires.last, STEPS_BEYOND_MAX),
            false => fires.missed_by(job, self.first_of(job)),
        }
    }

    /// The job's missed runs in a gap, counted from the first second that it can have.
    fn gap_of(&self, job: &Job, entry: &Entry, last: Second, steps_max: u64) -> Option<MissedGap> {
        let first = self.first_of(job);
        let next = entry.next.filter(|next| first <= *next);
        let next = next.or_else(|| entry.schedule.next_after(first.max(self.cursor().plus(1)).plus(-1)));
        Fires::until(entry, next, last, steps_max).missed_by(job, first)
    }
}

/// The fire times of a schedule in a gap.
struct Fires {
    seconds: Vec<Second>,
    /// There are more after the last of `seconds`: the steps were used up.
    is_cut: bool,
    /// The last second of the gap.
    last: Second,
}

impl Fires {
    /// The fires from `next` up to and with `last`.
    fn until(entry: &Entry, mut next: Option<Second>, last: Second, steps_max: u64) -> Fires {
        let mut seconds = Vec::new();
        while let Some(second) = next.filter(|second| *second <= last) {
            if seconds.len() as u64 == steps_max {
                return Fires { seconds, is_cut: true, last };
            }
            seconds.push(second);
            next = entry.schedule.next_after(second);
            debug_assert!(next.is_none_or(|next| second < next), "{:?} does not get beyond {second:?}", entry.text);
        }
        Fires { seconds, is_cut: false, last }
    }

    /// The fires in the job's window. They are in order, so the window is found without a look at each: many jobs may
    /// share many fires.
    fn missed_by(&self, job: &Job, first: Second) -> Option<MissedGap> {
        let before = |bound: i64| self.seconds.partition_point(|second| second.0 < bound);
        let from = before(first.0);
        let to = if job.end_time == 0 { self.seconds.len() } else { before(job.end_time) };
        let missed = self.seconds.get(from..to).filter(|missed| !job.stop && !missed.is_empty())?;
        let last = if self.is_cut { self.last } else { missed[missed.len() - 1] };
        let count = missed.len() as u64;
        let (first, at_least, why) = (missed[0], self.is_cut, MissedWhy::Grace);
        debug_assert!(first <= last, "the gap of job {} ends before it begins: {first:?}, {last:?}", job.id);
        Some(MissedGap { cron_id: job.id, version: job.version, first, last, count, at_least, why })
    }
}
