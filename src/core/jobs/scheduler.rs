//! The jobs in memory, and which of them are due at a tick.
//!
//! Jobs that share a schedule's text and their offset (`jitter`) share one entry of the wheel, so a tick costs what is due
//! and never what is stored.
//! Not the place where a due job becomes a run: that is `dispatch`'s, after the journal.
//!
//! Invariants: every schedule has at least one job; a schedule that will fire again lies in the wheel at its `next`.

use crate::core::schedule::jitter::{Shifted, offset_secs};
use crate::core::schedule::wheel::{Item, Wheel};
use crate::core::schedule::{Schedule, ScheduleError};
use crate::model::journal::{MissedGap, MissedWhy};
use crate::model::{Job, JobId, Second, Zones};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

/// How many fire times all schedules together may step through to count what a gap swallowed; beyond it the count is
/// a lower bound. A million steps take well under a second.
const GAP_STEPS_MAX: u64 = 1_000_000;
/// The same limit for one job; so many steps take about a millisecond.
const OWED_STEPS_MAX: u64 = 2_000;
/// And for a job that begins where the steps of its schedule have ended.
const STEPS_BEYOND_MAX: u64 = 100;

/// So far ahead the wheel is turned, at the cost of what fires on the way; beyond it, it is filled anew from every schedule.
const TURNS_MAX: i64 = 60;

#[derive(Debug)]
pub struct Scheduler {
    zones: Zones,
    jobs: BTreeMap<JobId, Planned>,
    schedules: Vec<Option<Shared>>,
    free: Vec<Item>,
    by_text: BTreeMap<Arc<str>, Text>,
    wheel: Wheel,
    /// Jobs of which seconds ahead of the cursor are decided already, up to and with these.
    settled: BTreeMap<JobId, Second>,
}

#[derive(Debug)]
struct Planned {
    job: Arc<Job>,
    /// None where the text cannot be understood: the job is never due.
    schedule: Option<Item>,
}

/// What jobs with one text have in common.
#[derive(Debug)]
struct Text {
    schedule: Arc<Schedule>,
    by_offset: BTreeMap<u32, Item>,
}

#[derive(Debug)]
struct Shared {
    text: Arc<str>,
    offset_secs: u32,
    schedule: Shifted,
    jobs: BTreeSet<JobId>,
    next: Option<Second>,
}

impl Scheduler {
    /// The first tick will be the one after `cursor`. Their zones are found in `zones`.
    pub fn new(zones: Zones, cursor: Second) -> Scheduler {
        Scheduler {
            zones,
            jobs: BTreeMap::new(),
            schedules: Vec::new(),
            free: Vec::new(),
            by_text: BTreeMap::new(),
            wheel: Wheel::new(cursor),
            settled: BTreeMap::new(),
        }
    }

    /// Whether the text is a schedule that can match.
    pub fn check(&self, cron_set: &str) -> Result<(), ScheduleError> {
        match self.by_text.contains_key(cron_set) {
            true => Ok(()),
            false => Schedule::parse(cron_set, &self.zones).map(|_| ()),
        }
    }

    /// Takes the job in, in place of an older definition. With an error the job is kept, and never due.
    pub fn put(&mut self, job: Job) -> Result<Arc<Job>, ScheduleError> {
        let is_same = |old: &Job| old.cron_set == job.cron_set && old.jitter == job.jitter;
        let kept = self.jobs.get(&job.id).filter(|planned| is_same(&planned.job));
        let schedule = match kept.map(|planned| planned.schedule) {
            Some(Some(item)) => Ok(item),
            _ => {
                self.remove(job.id);
                self.share(&job)
            }
        };
        let job = Arc::new(job);
        self.jobs.insert(job.id, Planned { job: Arc::clone(&job), schedule: schedule.as_ref().ok().copied() });
        schedule.map(|_| job)
    }

    pub fn remove(&mut self, id: JobId) -> Option<Arc<Job>> {
        let planned = self.jobs.remove(&id)?;
        if let Some(item) = planned.schedule {
            self.unshare(item, id);
        }
        Some(planned.job)
    }

    pub fn job(&self, id: JobId) -> Option<&Arc<Job>> {
        self.jobs.get(&id).map(|planned| &planned.job)
    }

    /// The largest id.
    pub fn newest(&self) -> JobId {
        self.jobs.last_key_value().map_or(JobId(0), |(id, _)| *id)
    }

    /// The ids after `after`, up to and with `last`, in order.
    pub fn ids_between(&self, after: JobId, last: JobId) -> impl Iterator<Item = JobId> {
        self.jobs.range((Bound::Excluded(after), Bound::Included(last))).map(|(id, _)| *id)
    }

    pub fn jobs(&self) -> impl Iterator<Item = &Arc<Job>> {
        self.jobs.values().map(|planned| &planned.job)
    }

    pub fn job_count(&self) -> usize {
        self.jobs.len()
    }

    /// Whether the job, as it is defined now, has a run at `second`.
    pub fn is_due(&self, id: JobId, second: Second) -> bool {
        let Some(planned) = self.jobs.get(&id) else { return false };
        let shared = planned.schedule.and_then(|item| self.schedules[item as usize].as_ref());
        self.may_run_at(&planned.job, second) && shared.is_some_and(|shared| shared.schedule.matches(second))
    }

    /// The first second after this one at which the job, as it is defined now, has a run.
    pub fn next_time(&self, id: JobId, after: Second) -> Option<Second> {
        let planned = self.jobs.get(&id)?;
        self.schedules[planned.schedule? as usize].as_ref()?.schedule.next_due(&planned.job, after)
    }

    /// Why the job is never due, where its schedule cannot be read.
    pub fn why_never(&self, id: JobId) -> Option<String> {
        let planned = self.jobs.get(&id).filter(|planned| planned.schedule.is_none())?;
        Schedule::parse(&planned.job.cron_set, &self.zones).err().map(|error| format!("cron_set: {error}"))
    }

    /// The last tick that was taken.
    pub fn cursor(&self) -> Second {
        self.wheel.cursor()
    }

    /// Takes the next tick: the jobs that are due in it, by id.
    pub fn tick(&mut self) -> Vec<Arc<Job>> {
        let fired = self.turn();
        let tick = self.wheel.cursor();
        let shared = fired.into_iter().filter_map(|item| self.schedules[item as usize].as_ref());
        let jobs = shared.flat_map(|shared| shared.jobs.iter().map(|id| &self.jobs[id].job));
        let mut due: Vec<Arc<Job>> = jobs.filter(|job| self.may_run_at(job, tick)).cloned().collect();
        due.sort_unstable_by_key(|job| job.id);
        self.settled.retain(|_, last| tick < *last);
        due
    }

    /// What the job, as it is defined now, has due after the cursor up to and with `last`; none where that is nothing.
    pub fn owed(&self, id: JobId, last: Second) -> Option<MissedGap> {
        let planned = self.jobs.get(&id)?;
        let shared = self.schedules[planned.schedule? as usize].as_ref()?;
        self.gap_of(&planned.job, shared, last, OWED_STEPS_MAX)
    }

    /// Whether that is anything.
    pub fn owes(&self, id: JobId, last: Second) -> bool {
        let gap = || {
            let planned = self.jobs.get(&id)?;
            self.gap_of(&planned.job, self.schedules[planned.schedule? as usize].as_ref()?, last, 1)
        };
        gap().is_some()
    }

    /// What a gap swallowed of one job, counted from the first second that it can have.
    fn gap_of(&self, job: &Job, shared: &Shared, last: Second, steps_max: u64) -> Option<MissedGap> {
        let next = shared.next.filter(|next| self.first_of(job) <= *next);
        let next = next.or_else(|| shared.schedule.next_after(self.first_of(job).max(self.cursor().plus(1)).plus(-1)));
        self.missed_gap(job, &fires_until(shared, next, last, steps_max))
    }

    /// The first second that the job can have, as far as it and what is settled of it say.
    fn first_of(&self, job: &Job) -> Second {
        Second(job.since.0.max(job.start_time).max(self.settled_to(job.id).0.saturating_add(1)))
    }

    /// The job's seconds up to and with `last` are decided: its ticks pass over them, however it is defined.
    pub fn settle(&mut self, id: JobId, last: Second) {
        let settled = self.settled.entry(id).or_insert(last);
        *settled = last.max(*settled);
    }

    /// Forgets the settled seconds. A new leader reads them from the open entries of the journal; what memory says may never have
    /// been stored.
    pub fn forget_settled(&mut self) {
        self.settled.clear();
    }

    fn may_run_at(&self, job: &Job, second: Second) -> bool {
        job.may_run_at(second) && self.settled_to(job.id) < second
    }

    fn settled_to(&self, id: JobId) -> Second {
        self.settled.get(&id).copied().unwrap_or(Second(i64::MIN))
    }

    /// Moves on by one tick: the schedules that fire in it, each at its next one already.
    fn turn(&mut self) -> Vec<Item> {
        let mut fired = self.wheel.tick();
        let tick = self.wheel.cursor();
        fired.retain(|item| {
            // A schedule that was dropped may still lie in the wheel, and its index may be another's by now.
            let Some(shared) = self.schedules[*item as usize].as_mut().filter(|shared| shared.next == Some(tick))
            else {
                return false;
            };
            shared.next = shared.schedule.next_after(tick);
            if let Some(next) = shared.next {
                self.wheel.insert(*item, next);
            }
            true
        });
        fired
    }

    /// Passes over the ticks up to and with `last` and says, by job id, what would have been due in them.
    pub fn skip_to(&mut self, last: Second) -> Vec<MissedGap> {
        let mut gaps = Vec::new();
        let mut steps_left = GAP_STEPS_MAX;
        for shared in self.schedules.iter().flatten() {
            // Each schedule may use its share of the steps that are left, and one at the least.
            let steps_max = (steps_left / (self.schedules.len() - self.free.len()) as u64).max(1);
            let fires = fires_until(shared, shared.next, last, steps_max);
            steps_left = steps_left.saturating_sub(fires.seconds.len() as u64);
            let jobs = shared.jobs.iter().map(|id| &self.jobs[id].job);
            // Where the steps did not reach as far as the job begins, a few of its own tell that it has missed some.
            let is_beyond =
                |job: &Job| fires.is_cut && fires.seconds.last().is_none_or(|end| *end < self.first_of(job));
            gaps.extend(jobs.filter_map(|job| match is_beyond(job) {
                true => self.gap_of(job, shared, last, STEPS_BEYOND_MAX),
                false => self.missed_gap(job, &fires),
            }));
        }
        gaps.sort_unstable_by_key(|gap| gap.cron_id);
        self.wind_to(last);
        gaps
    }

    /// Makes the tick after `cursor` the next one, whatever came before.
    pub fn wind_to(&mut self, cursor: Second) {
        if (self.cursor().0..self.cursor().0 + TURNS_MAX).contains(&cursor.0) {
            while self.cursor() < cursor {
                self.turn();
            }
            return;
        }
        self.wheel = Wheel::new(cursor);
        for (item, shared) in self.schedules.iter_mut().enumerate() {
            let Some(shared) = shared else { continue };
            shared.next = shared.schedule.next_after(cursor);
            if let Some(next) = shared.next {
                self.wheel.insert(item as Item, next);
            }
        }
    }

    fn share(&mut self, job: &Job) -> Result<Item, ScheduleError> {
        let offset_secs = offset_secs(job.id, job.jitter);
        let known = self.by_text.get_key_value(job.cron_set.as_str());
        if let Some(&item) = known.and_then(|(_, text)| text.by_offset.get(&offset_secs)) {
            if let Some(shared) = &mut self.schedules[item as usize] {
                shared.jobs.insert(job.id);
            }
            return Ok(item);
        }
        let (text, schedule) = match known {
            Some((text, known)) => (Arc::clone(text), Arc::clone(&known.schedule)),
            None => (job.cron_set.as_str().into(), Arc::new(Schedule::parse(&job.cron_set, &self.zones)?)),
        };
        let shifted = Shifted::new(Arc::clone(&schedule), offset_secs);
        let next = shifted.next_after(self.wheel.cursor());
        let jobs = BTreeSet::from([job.id]);
        let shared = Shared { text: Arc::clone(&text), offset_secs, schedule: shifted, jobs, next };
        let item = self.free.pop().unwrap_or(self.schedules.len() as Item);
        match self.schedules.get_mut(item as usize) {
            Some(place) => *place = Some(shared),
            None => self.schedules.push(Some(shared)),
        }
        let new = || Text { schedule, by_offset: BTreeMap::new() };
        self.by_text.entry(text).or_insert_with(new).by_offset.insert(offset_secs, item);
        if let Some(next) = next {
            self.wheel.insert(item, next);
        }
        Ok(item)
    }

    /// What a gap swallowed of one job. The fires are in order, so the job's window is cut out of them without a walk: many jobs
    /// may share many fires.
    fn missed_gap(&self, job: &Job, fires: &Fires) -> Option<MissedGap> {
        let before = |bound: i64| fires.seconds.partition_point(|second| second.0 < bound);
        let from = before(self.first_of(job).0);
        let to = if job.end_time == 0 { fires.seconds.len() } else { before(job.end_time) };
        let missed = fires.seconds.get(from..to).filter(|missed| !job.stop && !missed.is_empty())?;
        let last = if fires.is_cut { fires.last } else { missed[missed.len() - 1] };
        let count = missed.len() as u64;
        let (first, at_least, why) = (missed[0], fires.is_cut, MissedWhy::Grace);
        Some(MissedGap { cron_id: job.id, version: job.version, first, last, count, at_least, why })
    }

    fn unshare(&mut self, item: Item, id: JobId) {
        let Some(shared) = &mut self.schedules[item as usize] else { return };
        shared.jobs.remove(&id);
        if !shared.jobs.is_empty() {
            return;
        }
        if let Some(text) = self.by_text.get_mut(&shared.text) {
            text.by_offset.remove(&shared.offset_secs);
            if text.by_offset.is_empty() {
                self.by_text.remove(&shared.text);
            }
        }
        self.schedules[item as usize] = None;
        self.free.push(item);
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

/// From `next` on.
fn fires_until(shared: &Shared, mut next: Option<Second>, last: Second, steps_max: u64) -> Fires {
    let mut seconds = Vec::new();
    while let Some(second) = next.filter(|second| *second <= last) {
        if seconds.len() as u64 == steps_max {
            return Fires { seconds, is_cut: true, last };
        }
        seconds.push(second);
        next = shared.schedule.next_after(second);
    }
    Fires { seconds, is_cut: false, last }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Version;

    fn job(id: u32, cron_set: &str) -> Job {
        Job { id: JobId(id), cron_set: cron_set.into(), ..Job::default() }
    }

    fn scheduler(jobs: &[(u32, &str)]) -> Scheduler {
        let mut scheduler = Scheduler::new(Zones::default(), Second(1_000_000));
        for (id, cron_set) in jobs {
            let _ = scheduler.put(job(*id, cron_set));
        }
        scheduler
    }

    /// The ids due in each of the next ticks.
    fn due(scheduler: &mut Scheduler, ticks: usize) -> Vec<Vec<u32>> {
        (0..ticks).map(|_| scheduler.tick().iter().map(|job| job.id.0).collect()).collect()
    }

    #[test]
    fn jobs_with_one_text_share_a_schedule_and_come_by_id() {
        let mut scheduler = scheduler(&[(9, "* * * * * *"), (2, "* * * * * *"), (5, "*/2 * * * * *")]);
        assert_eq!(scheduler.by_text.len(), 2);
        assert_eq!(due(&mut scheduler, 3), [vec![2, 9], vec![2, 5, 9], vec![2, 9]]);
    }

    #[test]
    fn jobs_with_jitter_come_at_their_own_seconds_and_move_when_it_changes() {
        let jittered = |id: u32, jitter: u32| Job { jitter, ..job(id, "0 0 0 * * *") };
        let offsets = [1, 2, 3].map(|id| i64::from(offset_secs(JobId(id), 9)));
        assert_eq!(offsets, [6, 2, 8], "the check below needs them to differ");
        let midnight = 86_400 * 20;
        let mut scheduler = Scheduler::new(Zones::default(), Second(midnight - 1));
        [1, 2, 3].into_iter().for_each(|id| drop(scheduler.put(jittered(id, 9)).unwrap()));
        scheduler.put(jittered(4, 0)).unwrap();
        assert_eq!((scheduler.by_text.len(), scheduler.schedules.len()), (1, 4));
        assert_eq!(
            due(&mut scheduler, 10),
            [vec![4], vec![], vec![2], vec![], vec![], vec![], vec![1], vec![], vec![3], vec![]]
        );
        assert!(scheduler.is_due(JobId(1), Second(midnight + 6)) && !scheduler.is_due(JobId(1), Second(midnight)));
        assert_eq!(scheduler.next_time(JobId(1), Second(midnight + 6)), Some(Second(midnight + 86_406)));

        // Without it they all share the one entry that is there.
        [1, 2, 3].into_iter().for_each(|id| drop(scheduler.put(jittered(id, 0)).unwrap()));
        assert_eq!((scheduler.by_text.len(), scheduler.schedules.len() - scheduler.free.len()), (1, 1));
        scheduler.wind_to(Second(midnight + 86_399));
        assert_eq!(due(&mut scheduler, 2), [vec![1, 2, 3, 4], vec![]]);
        (1..=4).for_each(|id| drop(scheduler.remove(JobId(id))));
        assert_eq!((scheduler.by_text.len(), scheduler.schedules.len() - scheduler.free.len()), (0, 0));
    }

    #[test]
    fn a_gap_counts_what_is_due_with_its_jitter() {
        let mut scheduler = scheduler(&[]);
        scheduler.put(Job { jitter: 9, ..job(1, "0 * * * * *") }).unwrap();
        // 1,000,020 is a whole minute; its run is due six seconds later.
        let gaps = scheduler.skip_to(Second(1_000_025));
        assert_eq!(gaps, []);
        let gaps = scheduler.skip_to(Second(1_000_090));
        assert_eq!((gaps[0].first, gaps[0].last, gaps[0].count), (Second(1_000_026), Second(1_000_086), 2));
    }

    #[test]
    fn a_job_has_no_run_for_a_second_before_it_was_there() {
        let mut scheduler = scheduler(&[]);
        scheduler.put(Job { since: Second(1_000_004), ..job(1, "* * * * * *") }).unwrap();
        assert_eq!(due(&mut scheduler, 4), [vec![], vec![], vec![], vec![1]]);
        scheduler.put(Job { since: Second(1_000_010), ..job(1, "* * * * * *") }).unwrap();
        let gaps = scheduler.skip_to(Second(1_000_012));
        assert_eq!((gaps[0].first, gaps[0].last, gaps[0].count), (Second(1_000_010), Second(1_000_012), 3));
    }

    #[test]
    fn a_dropped_schedule_fires_no_more_and_its_place_is_used_again_without_a_double() {
        let mut scheduler = scheduler(&[(1, "* * * * * *")]);
        scheduler.remove(JobId(1));
        assert!(due(&mut scheduler, 1)[0].is_empty());
        scheduler.put(job(1, "* * * * * *")).unwrap();
        scheduler.remove(JobId(1));
        scheduler.put(job(2, "*/1 * * * * *")).unwrap();
        assert_eq!(scheduler.schedules.len(), 1);
        assert_eq!(due(&mut scheduler, 3), [[2], [2], [2]]);
    }

    #[test]
    fn a_changed_schedule_replaces_the_old_one() {
        let mut scheduler = scheduler(&[(1, "* * * * * *")]);
        scheduler.put(job(1, "*/4 * * * * *")).unwrap();
        assert_eq!(due(&mut scheduler, 4), [vec![], vec![], vec![], vec![1]]);
        scheduler.put(Job { stop: true, ..job(1, "*/4 * * * * *") }).unwrap();
        assert!(due(&mut scheduler, 4).concat().is_empty());
    }

    #[test]
    fn a_job_with_a_text_that_is_no_schedule_is_kept_and_never_due() {
        let mut scheduler = scheduler(&[]);
        assert!(scheduler.put(job(1, "99 * * * * *")).is_err());
        assert!(scheduler.job(JobId(1)).is_some());
        assert!(due(&mut scheduler, 2).concat().is_empty());
        scheduler.put(job(1, "* * * * * *")).unwrap();
        assert_eq!(due(&mut scheduler, 1), [[1]]);
    }

    #[test]
    fn a_gap_is_told_job_by_job_and_then_passed_over() {
        let mut scheduler = scheduler(&[(1, "* * * * * *"), (2, "*/7 * * * * *"), (3, "0 0 0 1 1 *")]);
        scheduler.put(Job { start_time: 1_000_096, ..job(4, "* * * * * *") }).unwrap();
        let gaps = scheduler.skip_to(Second(1_000_100));
        let told: Vec<_> = gaps.iter().map(|gap| (gap.cron_id.0, gap.first.0, gap.last.0, gap.count)).collect();
        assert_eq!(told[0], (1, 1_000_001, 1_000_100, 100));
        assert_eq!(told[1].0, 2);
        assert_eq!(told[2], (4, 1_000_096, 1_000_100, 5));
        assert_eq!(told.len(), 3);
        assert!(gaps.iter().all(|gap| !gap.at_least));
        assert_eq!(scheduler.cursor(), Second(1_000_100));
        assert_eq!(due(&mut scheduler, 1)[0][0], 1);
    }

    #[test]
    fn counting_a_gap_of_years_ends_at_a_limit_and_says_so() {
        let mut scheduler = scheduler(&[(1, "* * * * * *")]);
        let gaps = scheduler.skip_to(Second(1_000_000 + 100_000_000));
        assert_eq!(gaps[0].count, GAP_STEPS_MAX);
        assert!(gaps[0].at_least);
        assert_eq!(gaps[0].last, Second(101_000_000));
    }

    #[test]
    fn due_is_what_the_present_definition_says() {
        let mut scheduler = scheduler(&[(1, "*/2 * * * * *")]);
        assert!(scheduler.is_due(JobId(1), Second(1_000_002)));
        assert!(!scheduler.is_due(JobId(1), Second(1_000_003)));
        scheduler.put(Job { since: Second(1_000_004), ..job(1, "*/2 * * * * *") }).unwrap();
        assert!(!scheduler.is_due(JobId(1), Second(1_000_002)));
        assert!(!scheduler.is_due(JobId(2), Second(1_000_002)));
    }

    #[test]
    fn what_a_job_owes_is_counted_from_where_it_begins_however_long_the_gap() {
        let mut scheduler = scheduler(&[(1, "* * * * * *"), (2, "0 0 0 1 1 *")]);
        let later = Second(1_000_000 + 3 * OWED_STEPS_MAX as i64);
        let owed = scheduler.owed(JobId(1), later).unwrap();
        assert_eq!((owed.first, owed.last, owed.at_least), (Second(1_000_001), later, true));
        assert!(scheduler.owes(JobId(1), later) && !scheduler.owes(JobId(2), later));
        scheduler.settle(JobId(1), later);
        assert!(!scheduler.owes(JobId(1), later));
        let next = scheduler.owed(JobId(1), later.plus(7)).unwrap();
        assert_eq!((next.first, next.last, next.count), (later.plus(1), later.plus(7), 7));
        // A new definition begins where it says, not where the steps from the cursor end.
        scheduler.forget_settled();
        scheduler.put(Job { since: later.plus(1), version: Version(2), ..job(1, "* * * * * *") }).unwrap();
        assert!(!scheduler.owes(JobId(1), later));
        assert_eq!(scheduler.owed(JobId(1), later.plus(7)).unwrap().count, 7);
    }

    #[test]
    fn a_gap_names_jobs_that_begin_beyond_the_steps_of_their_schedule() {
        let mut scheduler = scheduler(&[]);
        // Three hundred schedules share the steps.
        (1..=300).for_each(|id| drop(scheduler.put(Job { jitter: 3_000, ..job(id, "* * * * * *") }).unwrap()));
        let begins = Second(1_000_000 + 8_000);
        scheduler.put(Job { jitter: 3_000, since: begins, ..job(7, "* * * * * *") }).unwrap();
        let gaps = scheduler.skip_to(Second(1_000_000 + 10_000));
        assert_eq!(gaps.len(), 300);
        let gap = gaps.iter().find(|gap| gap.cron_id == JobId(7)).unwrap();
        assert_eq!((gap.first, gap.last, gap.at_least), (begins, Second(1_000_000 + 10_000), true));
    }
}
