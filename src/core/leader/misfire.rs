//! Misfires: ticks that were not handled in their second, and are caught up on within the grace.
//!
//! Not the ticks beyond the grace: those are missed by every policy, and `Scheduler::skip_to` counts them.
//!
//! Invariant: of the ticks in one gap, a job with `misfire=once` runs exactly its last.

use crate::core::jobs::scheduler::Scheduler;
use crate::model::journal::{MissedGap, MissedWhy};
use crate::model::{Job, Misfire, Second};
use std::sync::Arc;

/// The seconds that passed without being handled, and are being caught up on.
#[derive(Clone, Copy, Debug)]
pub struct Gap {
    /// The first second that is on time again.
    end: Second,
}

impl Default for Gap {
    fn default() -> Gap {
        Gap { end: Second(i64::MIN) }
    }
}

impl Gap {
    /// Whether the tick, which is being taken, is late. The first tick after a gap may be one second late only because
    /// the gap took time to catch up on. It counts as on time: otherwise the gap would grow by it, after `once` jobs
    /// have already had their last tick of the gap.
    pub fn is_late(&mut self, tick: Second, now: Second) -> bool {
        let caught_up_secs = i64::from(tick == self.end);
        if self.end <= tick && tick.plus(caught_up_secs) < now {
            self.end = now;
        }
        tick < self.end
    }

    /// Takes the jobs out of `due` that do not run at the late `tick`; answers them with the reason.
    pub fn sort_out(self, due: &mut Vec<Arc<Job>>, tick: Second, scheduler: &Scheduler) -> Vec<MissedGap> {
        let missed = |job: &mut Arc<Job>| {
            let next = || scheduler.next_time(job.id, tick);
            let why = why_not(job.misfire, next, self.end)?;
            let (cron_id, version) = (job.id, job.version);
            Some(MissedGap { cron_id, version, first: tick, last: tick, count: 1, at_least: false, why })
        };
        let mut gaps = Vec::new();
        due.retain_mut(|job| match missed(job) {
            Some(gap) => {
                gaps.push(gap);
                false
            }
            None => true,
        });
        gaps
    }
}

/// Why a job does not run at a late tick; none where it does. `next`: the job's next tick; `end`: the end of the gap.
fn why_not(misfire: Misfire, next: impl FnOnce() -> Option<Second>, end: Second) -> Option<MissedWhy> {
    match misfire {
        Misfire::All => None,
        Misfire::Once => next().is_some_and(|next| next < end).then_some(MissedWhy::Once),
        Misfire::Skip => Some(MissedWhy::Skip),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Lender;
    use crate::core::runs::ledger::Ledger;
    use crate::core::runs::ledger::journaler::Journaler;
    use crate::core::runs::{Left, RunLimits, Runs};
    use crate::model::journal::{Body, Entry, EntryId, StoredEntry};
    use crate::model::{Attempt, Epoch, JobId, Now, RunKey, Server, Version, Zones};
    use std::collections::BTreeMap;

    #[track_caller]
    fn check_why(misfire: Misfire, next: Option<i64>, expect: Option<MissedWhy>) {
        assert_eq!(why_not(misfire, || next.map(Second), Second(100)), expect);
    }

    #[test]
    fn a_late_tick_runs_by_its_jobs_policy() {
        check_why(Misfire::All, Some(99), None);
        check_why(Misfire::All, None, None);
        check_why(Misfire::Skip, Some(99), Some(MissedWhy::Skip));
        check_why(Misfire::Skip, None, Some(MissedWhy::Skip));
        check_why(Misfire::Once, Some(99), Some(MissedWhy::Once));
        check_why(Misfire::Once, Some(100), None);
        check_why(Misfire::Once, Some(5_000), None);
        check_why(Misfire::Once, None, None);
    }

    /// Takes the ticks from 10 on, each at its second of `nows`, and compares the late ones.
    #[track_caller]
    fn check_late(nows: &[i64], late: &[i64]) {
        let mut gap = Gap::default();
        let ticks = (10..).zip(nows).filter(|(tick, now)| gap.is_late(Second(*tick), Second(**now)));
        assert_eq!(ticks.map(|(tick, _)| tick).collect::<Vec<i64>>(), late, "{nows:?}");
    }

    #[test]
    fn a_gap_ends_with_the_second_in_which_it_was_found() {
        check_late(&[9, 10, 12], &[]);
        check_late(&[9, 11, 13, 13, 14], &[12]);
        check_late(&[14, 14, 14, 14, 14, 14], &[10, 11, 12, 13]);
        // Catching up went over the end of a second.
        check_late(&[14, 14, 14, 14, 15, 15, 16], &[10, 11, 12, 13]);
        // It took so long that there was another gap.
        check_late(&[14, 14, 14, 14, 16, 16, 16], &[10, 11, 12, 13, 14, 15]);
        check_late(&[14, 14, 14, 14, 14, 18, 18, 18, 18], &[10, 11, 12, 13, 15, 16, 17]);
    }

    #[test]
    fn of_each_gap_a_job_runs_all_one_or_none() {
        let job = |id: u32, cron_set: &str, misfire| Job {
            id: JobId(id),
            cron_set: cron_set.into(),
            misfire,
            ..Job::default()
        };
        let mut scheduler = Scheduler::new(Zones::default(), Second(99));
        let jobs = [
            job(1, "* * * * * *", Misfire::All),
            job(2, "* * * * * *", Misfire::Once),
            job(3, "* * * * * *", Misfire::Skip),
            job(4, "*/3 * * * * *", Misfire::Once),
            // Its window ends in the gap, so the last tick of the window is its last one.
            Job { end_time: 103, ..job(5, "* * * * * *", Misfire::Once) },
        ];
        jobs.into_iter().for_each(|job| drop(scheduler.put(job).unwrap()));
        let mut gap = Gap::default();
        let (mut runs, mut missed) = (Vec::new(), Vec::new());
        for tick in (100..107).map(Second) {
            let mut due = scheduler.tick();
            if gap.is_late(tick, Second(105)) {
                let gaps = gap.sort_out(&mut due, tick, &scheduler);
                missed.extend(gaps.iter().map(|gap| (gap.cron_id.0, gap.last.0)));
            }
            runs.extend(due.iter().map(|job| (job.id.0, tick.0)));
        }
        let of = |pairs: &[(u32, i64)], id: u32| {
            pairs.iter().filter(|(of, _)| *of == id).map(|(_, tick)| *tick).collect::<Vec<i64>>()
        };
        assert_eq!((of(&runs, 1), of(&missed, 1)), (vec![100, 101, 102, 103, 104, 105, 106], vec![]));
        assert_eq!((of(&runs, 2), of(&missed, 2)), (vec![104, 105, 106], vec![100, 101, 102, 103]));
        assert_eq!((of(&runs, 3), of(&missed, 3)), (vec![105, 106], vec![100, 101, 102, 103, 104]));
        assert_eq!((of(&runs, 4), of(&missed, 4)), (vec![102, 105], vec![]));
        assert_eq!((of(&runs, 5), of(&missed, 5)), (vec![102], vec![100, 101]));
    }

    fn skipped(id: u32) -> MissedGap {
        let (cron_id, version, tick) = (JobId(id), Version(1), Second(100));
        MissedGap { cron_id, version, first: tick, last: tick, count: 1, at_least: false, why: MissedWhy::Skip }
    }

    fn runs() -> Runs {
        let limits = RunLimits { max_pending_per_job: 60, unplaced_max: 100, grace_secs: 60, part_runs_max: 5_000 };
        Runs::new(Server("a:1".into()), limits)
    }

    #[test]
    fn many_missed_ones_are_cut_in_parts() {
        let missed: Vec<MissedGap> = (1..=12_000).map(skipped).collect();
        let parts = runs().plan(Vec::new(), missed.clone(), Second(100), Now::default());
        let counts: Vec<(u32, usize)> = parts.iter().map(|(part, body)| (*part, body.missed.len())).collect();
        assert_eq!(counts, [(2, 2_000), (1, 5_000), (0, 5_000)], "the last to be written is part 0");
        let all: Vec<MissedGap> = parts.into_iter().rev().flat_map(|(_, body)| body.missed).collect();
        assert_eq!(all, missed);
    }

    #[test]
    fn the_missed_runs_of_a_tick_that_a_former_leader_did_not_complete_are_told_once() {
        let body = Body { missed: vec![skipped(7)], ..Body::default() };
        let entry = Entry { epoch: Epoch(1), request: 1, tick: Some(Second(100)), part: 1, body, request_key: None };
        let (logged, open) = (BTreeMap::new(), [StoredEntry { id: EntryId(1), entry }]);
        let (mut runs, mut lender) = (runs(), Lender::default());
        let jobs = Scheduler::new(Zones::default(), Second(99));
        let mut ledger = Ledger { jobs, journal: Journaler::new(Epoch(2)) };
        let mut cx = lender.at(Now::default());
        runs.recover(&Left { open: &open, logged: &logged, watermark: Some(Second(99)) }, &mut ledger, &mut cx);
        assert!(lender.logbook.has(Attempt { run: RunKey::scheduled(JobId(7), Second(100)), number: 0 }));
        let parts = runs.plan(Vec::new(), vec![skipped(7), skipped(8)], Second(100), Now::default());
        let told: Vec<u32> = parts.iter().flat_map(|(_, body)| &body.missed).map(|gap| gap.cron_id.0).collect();
        assert_eq!((parts.len(), told), (1, vec![8]));
    }
}
