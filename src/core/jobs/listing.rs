//! Job lists on their way to the clients that asked for them.
//!
//! ```text
//! wanted (until the jobs in memory are as new as the question) -> waiting -> its jobs' last runs are read -> answered
//! ```
//!
//! The jobs come from memory: a leader's are always new, a replica is brought up to date first. How each job's last run
//! ended is read from the store. One read is under way at a time, and lists that are asked for meanwhile share the next
//! one: many clients cost the store little more than one.
//!
//! Not the place that searches: a list with a search is read from the store, not from memory.
//!
//! Invariants: every list is answered exactly once, and within twice its patience. Where the store does not answer, the
//! list has the jobs in memory as they are, without last runs. The last runs in a list were read after the client asked
//! for it.

use crate::core::Context;
use crate::core::io::Effects;
use crate::core::io::ports::{Read, StoreError, Work, WorkId};
use crate::core::jobs::schedule::Schedule;
use crate::core::jobs::schedule::jitter::{Shifted, offset_secs};
use crate::core::jobs::scheduler::Scheduler;
use crate::core::time::bounds::JOB_LIST_MS;
use crate::core::time::{Timer, Timers};
use crate::model::command::{Answer, JobList, ListedJob, RequestId};
use crate::model::job::JobFilter;
use crate::model::log_row::LastRun;
use crate::model::{Job, JobId, Mono, Now, Second, Zones};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// A list waits a millisecond longer for every so many jobs.
const JOBS_PER_MS: u64 = 20;
/// Lists that wait for the store at one time. Further lists are answered without waiting.
const WAITING_MAX: usize = 1_000;

/// The lists of jobs that clients wait for.
#[derive(Debug, Default)]
pub struct Listing {
    /// Lists for which the jobs in memory may be too old, in the order in which they came.
    wanted: VecDeque<Wanted>,
    /// Lists for the next read of last runs.
    waiting: Vec<PendingList>,
    /// Lists of the read that is under way.
    in_flight: Option<(WorkId, Vec<PendingList>)>,
}

#[derive(Debug)]
struct Wanted {
    client: RequestId,
    filter: Option<JobFilter>,
    since: Mono,
}

impl Wanted {
    fn answer_by(&self) -> Mono {
        self.since.plus_ms(JOB_LIST_MS)
    }
}

#[derive(Debug)]
struct PendingList {
    client: RequestId,
    list: JobList,
    answer_by: Mono,
}

impl Listing {
    /// A client asks for a page of the jobs, or for all of them.
    pub fn want(&mut self, client: RequestId, filter: Option<JobFilter>, now: Now) {
        self.wanted.push_back(Wanted { client, filter, since: now.mono });
    }

    /// How new the jobs in memory must be for the newest wanted list; none where no list is wanted.
    pub fn wanted_since(&self) -> Option<Mono> {
        self.wanted.back().map(|wanted| wanted.since)
    }

    /// Fills the wanted lists for which the jobs are new enough, or that have waited for long enough. `is_of` says
    /// whether the jobs are as new as the given moment.
    pub fn take(&mut self, jobs: &Scheduler, is_of: impl Fn(Mono) -> bool, cx: &mut Context) {
        let now = cx.now;
        let is_ready = |wanted: &Wanted| is_of(wanted.since) || wanted.answer_by() <= now.mono;
        while self.wanted.front().is_some_and(is_ready) || WAITING_MAX < self.wanted.len() {
            let Some(Wanted { client, filter, .. }) = self.wanted.pop_front() else { return };
            self.push(client, page(jobs, filter.as_ref(), now), cx);
        }
    }

    /// Takes a filled list, to add its last runs.
    pub fn push(&mut self, client: RequestId, list: JobList, cx: &mut Context) {
        if list.jobs.is_empty() || WAITING_MAX <= self.waiting.len() {
            return cx.fx.reply(client, Ok(Answer::Jobs(list)));
        }
        let answer_by = cx.now.mono.plus_ms(JOB_LIST_MS + list.jobs.len() as u64 / JOBS_PER_MS);
        self.waiting.push(PendingList { client, list, answer_by });
    }

    /// Asks the store where lists wait, and answers the lists that have waited for long enough.
    pub fn poll(&mut self, cx: &mut Context) {
        if self.in_flight.is_none() && !self.waiting.is_empty() {
            let asked = std::mem::take(&mut self.waiting);
            let jobs = asked.iter().flat_map(|asked| &asked.list.jobs);
            let mut ids: Vec<JobId> = jobs.map(|listed| listed.job.id).collect();
            ids.sort_unstable();
            ids.dedup();
            self.in_flight = Some((cx.fx.work(Work::Read(Read::LastRuns(ids))), asked));
        }
        let in_flight = self.in_flight.iter_mut().map(|(_, asked)| asked);
        for asked in in_flight.chain([&mut self.waiting]) {
            for PendingList { client, list, .. } in asked.extract_if(.., |asked| asked.answer_by <= cx.now.mono) {
                cx.fx.reply(client, Ok(Answer::Jobs(list)));
            }
        }
    }

    /// Adds when this part has to be woken.
    pub fn timers(&self, timers: &mut Timers) {
        let in_flight = self.in_flight.iter().flat_map(|(_, asked)| asked);
        timers.set(Timer::JobList, in_flight.chain(&self.waiting).map(|asked| asked.answer_by).min());
        timers.set(Timer::WantedJobList, self.wanted.front().map(Wanted::answer_by));
    }

    /// The store has answered with the last runs of listed jobs, or failed.
    pub fn on_last_runs(&mut self, id: WorkId, result: Result<BTreeMap<JobId, LastRun>, StoreError>, fx: &mut Effects) {
        let Some((_, asked)) = self.in_flight.take_if(|(in_flight, _)| *in_flight == id) else { return };
        let last_runs = result.unwrap_or_default();
        for PendingList { client, mut list, .. } in asked {
            list.jobs.iter_mut().for_each(|listed| listed.last = last_runs.get(&listed.job.id).cloned());
            fx.reply(client, Ok(Answer::Jobs(list)));
        }
    }
}

/// The jobs of a page, or all of them. A filter's search is not applied here.
fn page(jobs: &Scheduler, filter: Option<&JobFilter>, now: Now) -> JobList {
    let (offset, limit) = filter.map_or((0, u64::MAX), |filter| (filter.offset(), filter.limit));
    let (offset, limit) = (offset.min(usize::MAX as u64) as usize, limit.min(usize::MAX as u64) as usize);
    let listed = |job: &Arc<Job>| {
        let next_time = jobs.next_time(job.id, now.wall.second());
        ListedJob { job: Arc::clone(job), next_time, last: None, error: jobs.why_never(job.id) }
    };
    let total = filter.map(|_| jobs.job_count() as u64);
    JobList { jobs: jobs.jobs().skip(offset).take(limit).map(listed).collect(), total }
}

/// Jobs that were read from the store, each with its next due second after `after`.
pub fn listed(jobs: Vec<Job>, zones: &Zones, after: Second) -> Vec<ListedJob> {
    let mut schedules: BTreeMap<String, Result<Arc<Schedule>, String>> = BTreeMap::new();
    let mut listed = |job: Job| {
        let parse =
            || Schedule::parse(&job.cron_set, zones).map(Arc::new).map_err(|error| format!("cron_set: {error}"));
        let schedule = schedules.entry(job.cron_set.clone()).or_insert_with(parse).clone();
        let next = |schedule| Shifted::new(schedule, offset_secs(job.id, job.jitter)).next_due(&job, after);
        let (next_time, error) = match schedule {
            Ok(schedule) => (next(schedule), None),
            Err(error) => (None, Some(error)),
        };
        ListedJob { next_time, last: None, error, job: Arc::new(job) }
    };
    jobs.into_iter().map(&mut listed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Lender;
    use crate::core::io::Effect;

    fn list(ids: &[u32]) -> JobList {
        let job = |id: &u32| Job { id: JobId(*id), cron_set: "*/10 * * * * *".into(), ..Job::default() };
        JobList { jobs: listed(ids.iter().map(job).collect(), &Zones::default(), Second(100)), total: None }
    }

    fn at(ms: u64) -> Now {
        Now { mono: Mono(0).plus_ms(ms), ..Now::default() }
    }

    fn due(listing: &Listing, now: Now) -> Option<Mono> {
        Timers::first(now, |timers| listing.timers(timers)).map(|(_, at)| at)
    }

    fn last_runs(ids: &[u32]) -> BTreeMap<JobId, LastRun> {
        let last = LastRun { state: Some("ok".into()), time: 90, use_time_ms: 5 };
        ids.iter().map(|id| (JobId(*id), last.clone())).collect()
    }

    /// The ids that the store is asked for.
    fn asked(lender: &mut Lender) -> (WorkId, Vec<u32>) {
        match lender.fx.take() {
            Some(Effect::Work(id, Work::Read(Read::LastRuns(ids)))) => (id, ids.iter().map(|id| id.0).collect()),
            other => panic!("{other:?}"),
        }
    }

    /// Who was answered, with the ids whose last runs were told.
    fn answered(lender: &mut Lender) -> (u64, Vec<u32>) {
        match lender.fx.take() {
            Some(Effect::Reply(client, Ok(Answer::Jobs(list)))) => {
                let told = list.jobs.iter().filter(|listed| listed.last.is_some());
                (client.0, told.map(|listed| listed.job.id.0).collect())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn lists_that_are_asked_for_together_share_a_read_that_begins_after_them() {
        let (mut listing, mut lender) = (Listing::default(), Lender::default());
        listing.push(RequestId(1), list(&[1, 2]), &mut lender.at(at(0)));
        listing.poll(&mut lender.at(at(0)));
        let (first, ids) = asked(&mut lender);
        assert_eq!(ids, [1, 2]);
        listing.push(RequestId(2), list(&[3, 1]), &mut lender.at(at(1)));
        listing.push(RequestId(3), list(&[1, 2]), &mut lender.at(at(1)));
        listing.poll(&mut lender.at(at(1)));
        assert!(lender.fx.take().is_none(), "one read at a time");
        listing.on_last_runs(first, Ok(last_runs(&[1])), &mut lender.fx);
        assert_eq!(answered(&mut lender), (1, vec![1]));
        listing.poll(&mut lender.at(at(2)));
        let (second, ids) = asked(&mut lender);
        assert_eq!(ids, [1, 2, 3]);
        listing.on_last_runs(first, Ok(last_runs(&[1])), &mut lender.fx);
        assert!(lender.fx.take().is_none(), "an older read says nothing of them");
        listing.on_last_runs(second, Ok(last_runs(&[2, 3])), &mut lender.fx);
        assert_eq!(answered(&mut lender), (2, vec![3]));
        assert_eq!(answered(&mut lender), (3, vec![2]));
        assert_eq!(due(&listing, at(2)), None);
    }

    #[test]
    fn a_list_waits_for_jobs_as_new_as_its_question_but_not_for_long() {
        let (mut listing, mut lender, mut jobs) =
            (Listing::default(), Lender::default(), Scheduler::new(Zones::default(), Second(0)));
        listing.want(RequestId(1), None, at(0));
        listing.want(RequestId(2), None, at(100));
        assert_eq!(listing.wanted_since(), Some(at(100).mono));
        listing.take(&jobs, |then| then < at(100).mono, &mut lender.at(at(200)));
        assert_eq!(answered(&mut lender), (1, vec![]), "nothing to ask of the store");
        assert_eq!(due(&listing, at(200)), Some(at(100 + JOB_LIST_MS).mono));
        listing.take(&jobs, |_| false, &mut lender.at(at(100 + JOB_LIST_MS - 1)));
        assert!(lender.fx.take().is_none());
        jobs.put(Job { id: JobId(7), cron_set: "* * * * * *".into(), ..Job::default() }).unwrap();
        listing.take(&jobs, |_| false, &mut lender.at(at(100 + JOB_LIST_MS)));
        listing.poll(&mut lender.at(at(100 + JOB_LIST_MS)));
        assert_eq!(asked(&mut lender).1, [7], "the jobs as they are when its patience is over");
        assert_eq!(listing.wanted_since(), None);
    }

    #[test]
    fn without_the_store_a_list_is_answered_soon_and_without_last_runs() {
        let (mut listing, mut lender) = (Listing::default(), Lender::default());
        listing.push(RequestId(1), list(&[1]), &mut lender.at(at(0)));
        listing.poll(&mut lender.at(at(0)));
        let (id, _) = asked(&mut lender);
        listing.on_last_runs(id, Err(StoreError::Away("away".into())), &mut lender.fx);
        assert_eq!(answered(&mut lender), (1, vec![]));
        listing.push(RequestId(2), list(&[1]), &mut lender.at(at(0)));
        listing.poll(&mut lender.at(at(0)));
        let (id, _) = asked(&mut lender);
        listing.push(RequestId(3), list(&[1]), &mut lender.at(at(500)));
        assert_eq!(due(&listing, at(500)), Some(at(JOB_LIST_MS).mono));
        listing.poll(&mut lender.at(at(JOB_LIST_MS)));
        assert_eq!(answered(&mut lender), (2, vec![]));
        listing.poll(&mut lender.at(at(JOB_LIST_MS + 500)));
        assert_eq!(answered(&mut lender), (3, vec![]));
        listing.on_last_runs(id, Ok(last_runs(&[1])), &mut lender.fx);
        assert!(lender.fx.take().is_none(), "too late for anybody");
        listing.push(RequestId(4), JobList::default(), &mut lender.at(at(0)));
        assert_eq!(answered(&mut lender), (4, vec![]), "nothing to ask");
    }

    #[test]
    fn the_next_seconds_are_those_of_the_leader() {
        let job = |id: u32, cron_set: &str| Job { id: JobId(id), cron_set: cron_set.into(), ..Job::default() };
        let jobs = vec![
            job(1, "*/10 * * * * *"),
            Job { jitter: 9, ..job(2, "*/10 * * * * *") },
            job(3, "no schedule"),
            Job { stop: true, ..job(4, "*/10 * * * * *") },
        ];
        let mut scheduler = crate::core::jobs::scheduler::Scheduler::new(Zones::default(), Second(0));
        jobs.iter().for_each(|job| drop(scheduler.put(job.clone())));
        let listed = listed(jobs, &Zones::default(), Second(100));
        let next: Vec<Option<i64>> = listed.iter().map(|listed| listed.next_time.map(|next| next.0)).collect();
        assert_eq!(next, [Some(110), Some(102), None, None]);
        let of_leader = listed.iter().map(|listed| scheduler.next_time(listed.job.id, Second(100)));
        assert!(of_leader.eq(listed.iter().map(|listed| listed.next_time)));
    }
}
