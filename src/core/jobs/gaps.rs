//! What a gap of ticks swallowed: counted from the schedules, and never without end.
//!
//! Not the place that decides what becomes of it: that is the leader's.
//!
//! Invariant: a count is exact, or it says that it is a lower bound.

use crate::core::jobs::scheduler::Scheduler;
use crate::core::jobs::timetable::Entry;
use crate::model::journal::{MissedGap, MissedWhy};
use crate::model::{Job, JobId, Second};

/// How many fire times all schedules together may step through to count what a gap swallowed; beyond it the count is
/// a lower bound. A million steps take well under a second.
pub(super) const GAP_STEPS_MAX: u64 = 1_000_000;
/// The same limit for one job; so many steps take about a millisecond.
pub(super) const OWED_STEPS_MAX: u64 = 2_000;
/// And for a job that begins where the steps of its schedule have ended.
const STEPS_BEYOND_MAX: u64 = 100;

impl Scheduler {
    /// What the job, as it is defined now, has due after the cursor up to and with `last`; none where that is nothing.
    pub fn owed(&self, id: JobId, last: Second) -> Option<MissedGap> {
        let (job, entry) = self.planned(id)?;
        self.gap_of(job, entry, last, OWED_STEPS_MAX)
    }

    /// Whether that is anything.
    pub fn owes(&self, id: JobId, last: Second) -> bool {
        self.planned(id).is_some_and(|(job, entry)| self.gap_of(job, entry, last, 1).is_some())
    }

    /// Passes over the ticks up to and with `last` and says, by job id, what would have been due in them.
    pub fn skip_to(&mut self, last: Second) -> Vec<MissedGap> {
        let mut gaps = Vec::new();
        let mut steps_left = GAP_STEPS_MAX;
        for (_, entry) in self.timetable().entries() {
            // Each schedule may use its share of the steps that are left, and one at the least.
            let steps_max = (steps_left / self.timetable().count() as u64).max(1);
            let fires = Fires::until(entry, entry.next, last, steps_max);
            steps_left = steps_left.saturating_sub(fires.seconds.len() as u64);
            gaps.extend(self.jobs_with(entry).filter_map(|job| self.gap_in(job, entry, &fires)));
        }
        gaps.sort_unstable_by_key(|gap| gap.cron_id);
        self.wind_to(last);
        gaps
    }

    /// What a gap swallowed of one job. Where the steps did not reach as far as the job begins, a few of its own tell that it
    /// has missed some.
    fn gap_in(&self, job: &Job, entry: &Entry, fires: &Fires) -> Option<MissedGap> {
        let is_before = |end: &Second| *end < self.first_of(job);
        let is_beyond = fires.is_cut && fires.seconds.last().is_none_or(is_before);
        match is_beyond {
            true => self.gap_of(job, entry, fires.last, STEPS_BEYOND_MAX),
            false => fires.missed_by(job, self.first_of(job)),
        }
    }

    /// The same, counted from the first second that the job can have.
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
    /// There are more, after the last one listed.
    is_cut: bool,
    /// The last second of the gap.
    last: Second,
}

impl Fires {
    /// From `next` on.
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

    /// The fires are in order, so the job's window is cut out of them without a look at each: many jobs may share many fires.
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
