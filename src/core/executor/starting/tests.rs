//! Tests of the starts: which run starts when, and which one waits.

use crate::core::executor::tests::{Bench, T, attempt, limits, order, order_of};
use crate::core::io::ports::SpawnError;
use crate::model::config::Limits;
use crate::model::run::Manual;
use crate::model::{Attempt, Job, JobId, RunState};

#[test]
fn late_runs_start_after_those_on_time_and_their_jobs_alternate() {
    let mut bench = Bench::new(limits(1));
    let mutex = order_of(Job { id: JobId(9), is_mutex: true, ..Job::default() }, T - 30);
    let mut manual = order(8, T - 30);
    manual.attempt.run.manual = Some(Manual { epoch: 1, count: 1 });
    let manual_attempt = manual.attempt;
    let late = [order(1, T - 9), order(1, T - 8), order(2, T - 3)];
    bench.dispatch(late.into_iter().chain([order(3, T), mutex, manual, order(4, T + 5)]).collect());
    let mut started: Vec<Attempt> = Vec::new();
    for _ in 0..6 {
        let run = bench.start_all();
        assert_eq!(run.len(), 1, "there is capacity for one");
        started.extend(&run);
        bench.exit(run[0]);
    }
    assert_eq!(
        started,
        [attempt(9, T - 30), attempt(3, T), manual_attempt, attempt(1, T - 9), attempt(2, T - 3), attempt(1, T - 8)]
    );
    assert_eq!(bench.executor.load().waiting, 1);
    assert_eq!(bench.due(), Some(bench.now.mono.plus_ms(5_000)), "armed");
    bench.pass_ms(5_000);
    assert_eq!(bench.start_all(), [attempt(4, T + 5)]);
    assert_eq!(bench.executor.counters().started, 7);
}

#[test]
fn runs_whose_user_is_looked_up_keep_no_others_waiting_and_count_as_active() {
    let mut bench = Bench::new(limits(6));
    bench.dispatch((1..=9).map(|job| order(job, T)).collect());
    assert_eq!(bench.spawns.len(), 4, "as many as the threads take");
    let looked_up = bench.look_up_all();
    assert_eq!(bench.spawns.len(), 2, "as many as max_running leaves");
    bench.start_all();
    assert_eq!(bench.executor.load().running, 6);
    for (id, _) in looked_up {
        bench.spawned(id, Err(SpawnError::Failed("not started: no such user".into())));
    }
    assert_eq!(bench.start_all(), [7, 8, 9].map(|job| attempt(job, T)));
    assert_eq!(bench.states(), [RunState::Failed; 4]);
}

#[test]
fn a_look_up_that_is_told_after_its_answer_changes_nothing() {
    let mut bench = Bench::new(limits(6));
    bench.dispatch(vec![order(1, T)]);
    let (id, _) = bench.spawns[0];
    bench.start_all();
    bench.spawns.push((id, attempt(1, T)));
    bench.look_up_all();
    bench.dispatch((2..=9).map(|job| order(job, T)).collect());
    assert_eq!(bench.spawns.len(), 4);
}

#[test]
fn a_flood_does_not_delay_runs_that_are_due_later() {
    let mut bench = Bench::new(limits(2));
    bench.dispatch((1..=5_000).map(|job| order(job, T)).chain([order(9_000, T + 10)]).collect());
    bench.pass_ms(10_000);
    assert_eq!(bench.start_all(), [attempt(1, T), attempt(2, T)]);
    bench.exit(attempt(1, T));
    assert_eq!(bench.start_all(), [attempt(9_000, T + 10)]);
    bench.exit(attempt(2, T));
    assert_eq!(bench.start_all(), [attempt(3, T)]);
}

#[test]
fn a_run_that_the_host_refused_waits_at_the_front_until_the_host_can_start_it() {
    let mut bench = Bench::new(limits(100));
    bench.dispatch((1..=3).map(|job| order(job, T)).collect());
    bench.start_all();
    bench.dispatch((4..=20).map(|job| order(job, T)).collect());
    let refused = bench.refuse_all();
    assert_eq!(refused, [4, 5, 6, 7].map(|job| attempt(job, T)), "those that were on their way");
    assert!(bench.spawns.is_empty(), "then it waits");
    assert!(bench.executor.load().is_full);
    assert_eq!(bench.notices.len(), 1, "{:?}", bench.notices);
    bench.exit(attempt(1, T));
    assert_eq!(bench.refuse_all(), [attempt(7, T)], "instead of the one that has ended");
    bench.pass_ms(100);
    assert_eq!(bench.refuse_all(), [attempt(7, T)], "one tries after the pause");
    bench.pass_ms(199);
    assert!(bench.spawns.is_empty());
    bench.pass_ms(1);
    let probe = std::mem::take(&mut bench.spawns);
    assert_eq!(probe.len(), 1);
    bench.spawned(probe[0].0, Ok(5));
    let started = bench.start_all();
    assert_eq!(started.len(), 16, "the host can start more again");
    assert_eq!(bench.notices.len(), 1);
    bench.pass_ms(5_000);
    assert!(!bench.executor.load().is_full);
    assert_eq!(bench.notices.len(), 2, "{:?}", bench.notices);
    assert_eq!((bench.rows.len(), bench.executor.counters().put_off), (1, 6));
}

#[test]
fn a_run_that_the_host_refused_is_missed_when_its_time_is_over_while_others_run() {
    let mut bench = Bench::new(limits(100));
    bench.dispatch(vec![order(1, T)]);
    bench.start_all();
    bench.dispatch(vec![order(2, T)]);
    for _ in 0..70 {
        bench.refuse_all();
        bench.pass_ms(1_000);
    }
    assert_eq!(bench.states(), [RunState::Missed]);
    assert!(bench.executor.counters().put_off < 70);
}

#[test]
fn where_nothing_runs_and_nothing_can_a_run_fails_with_the_reason() {
    let mut bench = Bench::new(Limits { misfire_grace_secs: 10, ..Limits::default() });
    bench.dispatch(vec![order_of(Job { id: JobId(1), is_mutex: true, ..Job::default() }, T)]);
    while bench.rows.is_empty() {
        bench.refuse_all();
        bench.pass_ms(100);
        assert!(bench.now.wall.second().0 < T + 15);
    }
    assert_eq!(bench.states(), [RunState::Failed]);
    assert_eq!(bench.rows[0].output, "[not started: no memory]\n");
    assert!(T + 10 <= bench.now.wall.second().0);
}

#[test]
fn a_run_that_waits_for_too_long_is_missed_though_there_is_no_capacity() {
    let mut bench = Bench::new(limits(1));
    bench.dispatch(vec![order(1, T)]);
    bench.start_all();
    let mutex = Job { id: JobId(4), is_mutex: true, ..Job::default() };
    bench.dispatch(vec![order(2, T), order(3, T - 20), order_of(mutex, T)]);
    assert_eq!(bench.due(), Some(bench.now.mono.plus_ms(41_000)));
    bench.pass_ms(40_999);
    assert_eq!(bench.rows.len(), 0);
    bench.pass_ms(1);
    assert_eq!((bench.rows[0].attempt, bench.rows[0].state), (attempt(3, T - 20), RunState::Missed));
    bench.pass_ms(100_000);
    assert_eq!((bench.rows[1].attempt, bench.rows.len()), (attempt(2, T), 2), "a mutex run waits however long");
    assert_eq!(bench.due(), None);
}
