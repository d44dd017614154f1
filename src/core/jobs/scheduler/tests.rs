//! Tests of the scheduler: which jobs are due, tick by tick.

use super::*;
use crate::core::jobs::gaps::{GAP_STEPS_MAX, OWED_STEPS_MAX};
use crate::core::jobs::schedule::jitter::offset_secs;
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
    let tick = |_| {
        let due = scheduler.tick().iter().map(|job| job.id.0).collect();
        scheduler.check_invariants();
        due
    };
    (0..ticks).map(tick).collect()
}

#[test]
fn jobs_with_one_text_share_a_schedule_and_come_by_id() {
    let mut scheduler = scheduler(&[(9, "* * * * * *"), (2, "* * * * * *"), (5, "*/2 * * * * *")]);
    assert_eq!(scheduler.timetable.text_count(), 2);
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
    assert_eq!((scheduler.timetable.text_count(), scheduler.timetable.count()), (1, 4));
    assert_eq!(
        due(&mut scheduler, 10),
        [vec![4], vec![], vec![2], vec![], vec![], vec![], vec![1], vec![], vec![3], vec![]]
    );
    assert!(scheduler.is_due(JobId(1), Second(midnight + 6)) && !scheduler.is_due(JobId(1), Second(midnight)));
    assert_eq!(scheduler.next_time(JobId(1), Second(midnight + 6)), Some(Second(midnight + 86_406)));

    // Without it they all share the one entry that is there.
    [1, 2, 3].into_iter().for_each(|id| drop(scheduler.put(jittered(id, 0)).unwrap()));
    assert_eq!((scheduler.timetable.text_count(), scheduler.timetable.count()), (1, 1));
    scheduler.wind_to(Second(midnight + 86_399));
    assert_eq!(due(&mut scheduler, 2), [vec![1, 2, 3, 4], vec![]]);
    (1..=4).for_each(|id| drop(scheduler.remove(JobId(id))));
    assert_eq!((scheduler.timetable.text_count(), scheduler.timetable.count()), (0, 0));
}

#[test]
fn a_gap_counts_due_runs_with_their_jitter() {
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
fn a_dropped_schedule_fires_no_more_and_its_index_is_used_again_without_a_double() {
    let mut scheduler = scheduler(&[(1, "* * * * * *")]);
    scheduler.remove(JobId(1));
    assert!(due(&mut scheduler, 1)[0].is_empty());
    scheduler.put(job(1, "* * * * * *")).unwrap();
    scheduler.remove(JobId(1));
    scheduler.put(job(2, "*/1 * * * * *")).unwrap();
    assert_eq!(scheduler.timetable.index_count(), 1);
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
fn a_job_is_due_by_its_present_definition() {
    let mut scheduler = scheduler(&[(1, "*/2 * * * * *")]);
    assert!(scheduler.is_due(JobId(1), Second(1_000_002)));
    assert!(!scheduler.is_due(JobId(1), Second(1_000_003)));
    scheduler.put(Job { since: Second(1_000_004), ..job(1, "*/2 * * * * *") }).unwrap();
    assert!(!scheduler.is_due(JobId(1), Second(1_000_002)));
    assert!(!scheduler.is_due(JobId(2), Second(1_000_002)));
}

#[test]
fn owed_runs_are_counted_from_the_begin_of_the_job_however_long_the_gap() {
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
