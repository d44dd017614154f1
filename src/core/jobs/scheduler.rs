//! The jobs in memory, and which of them are due at a tick.
//!
//! Not the place where a due job becomes a run: that is `runs`, after the journal. `timetable` has the schedules and
//! when they fire, `gaps` counts the runs that a gap of ticks passed over.
//!
//! Invariant: the timetable lists exactly the jobs whose schedule can be read, each with its own schedule.

#[cfg(test)]
mod tests;

use crate::core::jobs::schedule::wheel::Item;
use crate::core::jobs::schedule::{Schedule, ScheduleError};
use crate::core::jobs::timetable::{Entry, Timetable};
use crate::model::{Job, JobId, Second, Zones};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// The jobs in force, and the second up to which ticks were taken.
#[derive(Debug)]
pub struct Scheduler {
    zones: Zones,
    jobs: BTreeMap<JobId, Planned>,
    timetable: Timetable,
    /// The jobs of which seconds ahead of the cursor are decided already, each with the last such second.
    settled: BTreeMap<JobId, Second>,
}

#[derive(Debug)]
struct Planned {
    job: Arc<Job>,
    /// None where the schedule cannot be read: the job is never due.
    schedule: Option<Item>,
}

impl Scheduler {
    /// The first tick will be the one after `cursor`. `zones` has the time zones that schedules name.
    pub fn new(zones: Zones, cursor: Second) -> Scheduler {
        Scheduler { zones, jobs: BTreeMap::new(), timetable: Timetable::new(cursor), settled: BTreeMap::new() }
    }

    /// An error where the text is no schedule, or one that can never match.
    pub fn check(&self, cron_set: &str) -> Result<(), ScheduleError> {
        match self.timetable.has_text(cron_set) {
            true => Ok(()),
            false => Schedule::parse(cron_set, &self.zones).map(|_| ()),
        }
    }

    /// Takes the job in; it replaces an older definition. After an error the job is there and never due.
    pub fn put(&mut self, job: Job) -> Result<Arc<Job>, ScheduleError> {
        let is_same = |old: &Job| old.cron_set == job.cron_set && old.jitter == job.jitter;
        let kept = self.jobs.get(&job.id).filter(|planned| is_same(&planned.job));
        let schedule = match kept.map(|planned| planned.schedule) {
            Some(Some(item)) => Ok(item),
            _ => {
                self.remove(job.id);
                self.timetable.share(&job, &self.zones)
            }
        };
        let job = Arc::new(job);
        self.jobs.insert(job.id, Planned { job: Arc::clone(&job), schedule: schedule.as_ref().ok().copied() });
        schedule.map(|_| job)
    }

    /// Takes a job out; none where there is no such job.
    pub fn remove(&mut self, id: JobId) -> Option<Arc<Job>> {
        let planned = self.jobs.remove(&id)?;
        if let Some(item) = planned.schedule {
            self.timetable.unshare(item, id);
        }
        Some(planned.job)
    }

    /// The definition in force; none where there is no such job.
    pub fn job(&self, id: JobId) -> Option<&Arc<Job>> {
        self.jobs.get(&id).map(|planned| &planned.job)
    }

    /// The largest id; 0 where there is no job.
    pub fn newest(&self) -> JobId {
        self.jobs.last_key_value().map_or(JobId(0), |(id, _)| *id)
    }

    /// The ids after `after`, up to and with `last`, in order.
    pub fn ids_between(&self, after: JobId, last: JobId) -> impl Iterator<Item = JobId> {
        self.jobs.range((Bound::Excluded(after), Bound::Included(last))).map(|(id, _)| *id)
    }

    /// All jobs, by their ids.
    pub fn jobs(&self) -> impl Iterator<Item = &Arc<Job>> {
        self.jobs.values().map(|planned| &planned.job)
    }

    /// How many jobs there are, stopped ones included.
    pub fn job_count(&self) -> usize {
        self.jobs.len()
    }

    /// Whether the job, as it is defined now, has a run at `second`.
    pub fn is_due(&self, id: JobId, second: Second) -> bool {
        let matches =
            |(job, entry): (&Arc<Job>, &Entry)| self.may_run_at(job, second) && entry.schedule.matches(second);
        self.planned(id).is_some_and(matches)
    }

    /// The first second after this one at which the job, as it is defined now, has a run.
    pub fn next_time(&self, id: JobId, after: Second) -> Option<Second> {
        let (job, entry) = self.planned(id)?;
        entry.schedule.next_due(job, after)
    }

    /// Why the job is never due, where its schedule cannot be read.
    pub fn why_never(&self, id: JobId) -> Option<String> {
        let planned = self.jobs.get(&id).filter(|planned| planned.schedule.is_none())?;
        Schedule::parse(&planned.job.cron_set, &self.zones).err().map(|error| format!("cron_set: {error}"))
    }

    /// The last tick that was taken.
    pub fn cursor(&self) -> Second {
        self.timetable.cursor()
    }

    /// Takes the next tick, and answers its due jobs in order of their ids.
    pub fn tick(&mut self) -> Vec<Arc<Job>> {
        let fired = self.timetable.advance();
        let tick = self.cursor();
        let jobs = fired.into_iter().flat_map(|item| self.jobs_of(item));
        let mut due: Vec<Arc<Job>> = jobs.filter(|job| self.may_run_at(job, tick)).cloned().collect();
        due.sort_unstable_by_key(|job| job.id);
        debug_assert!(due.is_sorted_by(|one, next| one.id < next.id), "a job is due twice at {tick:?}");
        self.settled.retain(|_, last| tick < *last);
        due
    }

    /// Makes the tick after `cursor` the next one. It may go forwards or backwards, and answers no due jobs.
    pub fn wind_to(&mut self, cursor: Second) {
        self.timetable.wind_to(cursor);
        debug_assert_eq!(self.cursor(), cursor, "the timetable is at another second than it was wound to");
    }

    /// The job's seconds up to and with `last` are decided: its ticks pass over them, however it is defined.
    pub fn settle(&mut self, id: JobId, last: Second) {
        let settled = self.settled.entry(id).or_insert(last);
        *settled = last.max(*settled);
    }

    /// Forgets the settled seconds. A new leader reads them from the open entries of the journal; those in memory may
    /// never have been stored.
    pub fn forget_settled(&mut self) {
        self.settled.clear();
    }

    pub(super) fn timetable(&self) -> &Timetable {
        &self.timetable
    }

    /// The job with its schedule; none where the schedule cannot be read.
    pub(super) fn planned(&self, id: JobId) -> Option<(&Arc<Job>, &Entry)> {
        let planned = self.jobs.get(&id)?;
        Some((&planned.job, self.timetable.entry(planned.schedule?)?))
    }

    /// The jobs that have this schedule.
    fn jobs_of(&self, item: Item) -> impl Iterator<Item = &Arc<Job>> {
        self.timetable.entry(item).into_iter().flat_map(|entry| self.jobs_with(entry))
    }

    pub(super) fn jobs_with<'a>(&'a self, entry: &'a Entry) -> impl Iterator<Item = &'a Arc<Job>> {
        entry.jobs.iter().filter_map(|id| self.job(*id))
    }

    /// The first second in which the job can have a run: in force, in its window, and after its settled seconds.
    pub(super) fn first_of(&self, job: &Job) -> Second {
        Second(job.since.0.max(job.start_time).max(self.settled_to(job.id).0.saturating_add(1)))
    }

    fn may_run_at(&self, job: &Job, second: Second) -> bool {
        job.may_run_at(second) && self.settled_to(job.id) < second
    }

    fn settled_to(&self, id: JobId) -> Second {
        self.settled.get(&id).copied().unwrap_or(Second(i64::MIN))
    }

    /// Counts everything again. Costs a look at every job.
    pub fn check_invariants(&self) {
        self.timetable.check_invariants();
        let mut with_schedule = 0;
        for (id, Planned { job, schedule }) in &self.jobs {
            assert_eq!(job.id, *id, "a job lies under another's id");
            let Some(item) = schedule else { continue };
            let entry = self.timetable.entry(*item);
            let is_there = entry.is_some_and(|entry| entry.jobs.contains(id) && *entry.text == *job.cron_set);
            assert!(is_there, "job {id} is not in the timetable with {:?}", job.cron_set);
            with_schedule += 1;
        }
        let in_timetable: usize = self.timetable.entries().map(|(_, entry)| entry.jobs.len()).sum();
        assert_eq!(in_timetable, with_schedule, "the timetable has other jobs than there are");
    }
}
