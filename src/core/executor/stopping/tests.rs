//! Tests of the ending of runs: by their limits, by operators, and while they are being started.

use crate::core::executor::tests::{Bench, T, attempt, limits, order, order_of};
use crate::core::io::MarkOp;
use crate::core::io::ports::{KillHow, Left, SpawnError, WorkId};
use crate::model::config::Limits;
use crate::model::message::ToLeader;
use crate::model::{Job, JobId, RunState};

#[test]
fn a_run_that_takes_too_long_is_asked_then_made_to_end() {
    let mut bench = Bench::new(limits(9));
    bench.dispatch(vec![order_of(Job { id: JobId(1), timeout: 3, ..Job::default() }, T)]);
    bench.start_all();
    bench.pass_ms(2_999);
    assert_eq!(bench.take_kills(), []);
    assert_eq!(bench.due(), Some(bench.now.mono.plus_ms(1)));
    bench.pass_ms(1);
    assert_eq!(bench.take_kills(), [KillHow::Ask]);
    bench.pass_ms(5_000);
    assert_eq!(bench.take_kills(), [KillHow::Force]);
    assert_eq!(bench.due(), None);
    bench.exit(attempt(1, T));
    assert_eq!(bench.rows, [], "what is left of it comes first");
    bench.killed();
    assert_eq!(bench.states(), [RunState::Timeout]);
    assert_eq!(bench.rows[0].output, "said\n[ended: it ran longer than its job's timeout]\n");
    assert_eq!(bench.rows[0].use_time_ms, 8_000);
}

#[test]
fn the_mark_of_a_run_that_is_ended_says_that_processes_may_run_until_none_does() {
    let mut bench = Bench::new(limits(9));
    bench.dispatch(vec![order(1, T), order(2, T)]);
    bench.start_all();
    let is_ended = |bench: &Bench, job| {
        let of = attempt(job, T);
        bench.marks.iter().any(|op| matches!(op, MarkOp::Ended { attempt, .. } if *attempt == of))
    };
    bench.exit(attempt(2, T));
    assert!(is_ended(&bench, 2), "nobody ended it: what it leaves behind is on purpose");
    bench.kill(attempt(1, T));
    bench.take_kills();
    bench.exit(attempt(1, T));
    assert!(!is_ended(&bench, 1));
    bench.killed();
    assert!(is_ended(&bench, 1));
}

#[test]
fn what_is_left_of_a_run_is_told_to_the_leader_and_in_the_row() {
    let mut bench = Bench::new(limits(9));
    bench.dispatch(vec![order(1, T), order(2, T), order(3, T)]);
    bench.start_all();
    for (job, left, expect_told, expect_row) in [
        (1, Left { pids: Vec::new(), is_sure: true }, None, ""),
        (2, Left::default(), Some("perhaps processes that hid"), ""),
        (
            3,
            Left { pids: (7..13).collect(), is_sure: false },
            Some("6 processes were killed and are still there"),
            "(uninterruptible sleep?): 7, 8, 9, 10, 11, ...]\n",
        ),
    ] {
        bench.kill(attempt(job, T));
        bench.take_kills();
        bench.exit(attempt(job, T));
        bench.killed_but(left);
        let told = bench.told.iter().find_map(|message| match message {
            ToLeader::Finished { attempt: of, left, .. } if *of == attempt(job, T) => Some(left.clone()),
            _ => None,
        });
        let (told, row) = (told.unwrap(), &bench.rows.last().unwrap().output);
        assert_eq!(told.is_some(), expect_told.is_some());
        assert!(told.unwrap_or_default().starts_with(expect_told.unwrap_or_default()));
        assert!(row.ends_with(expect_row) && row.contains("[left: ") != expect_row.is_empty(), "{row}");
    }
}

#[track_caller]
fn check_limit(job: Job, expect_ms: Option<u64>, expect_line: &str) {
    let mut bench = Bench::new(limits(9));
    bench.dispatch(vec![order_of(Job { id: JobId(1), ..job }, T)]);
    bench.start_all();
    let at = bench.due();
    assert_eq!(at, expect_ms.map(|ms| bench.now.mono.plus_ms(ms)));
    bench.pass_ms(expect_ms.unwrap_or(100_000));
    bench.exit(attempt(1, T));
    bench.killed();
    assert!(bench.rows[0].output.contains(expect_line), "{:?}", bench.rows[0]);
}

#[test]
fn the_shorter_of_two_limits_counts_and_lock_limit_is_for_mutex_runs() {
    let job = |is_mutex, lock_limit, timeout| Job { is_mutex, lock_limit, timeout, ..Job::default() };
    check_limit(job(true, 2, 5), Some(2_000), "longer than lock_limit");
    check_limit(job(true, 5, 2), Some(2_000), "its job's timeout");
    check_limit(job(true, 5, 0), Some(5_000), "longer than lock_limit");
    check_limit(job(false, 2, 5), Some(5_000), "its job's timeout");
    check_limit(job(false, 2, 0), None, "said");
}

#[test]
fn alarms_of_runs_that_are_over_are_gone() {
    let mut bench = Bench::new(limits(9));
    for second in T..T + 100 {
        bench.dispatch(vec![order_of(Job { id: JobId(1), timeout: 86_400, ..Job::default() }, second)]);
        bench.start_all();
        bench.exit(attempt(1, second));
        assert_eq!(bench.due(), None);
        bench.pass_ms(1_000);
    }
    assert_eq!(bench.states(), [RunState::Ok; 100]);
}

#[test]
fn an_operator_ends_a_run_and_asking_again_changes_nothing() {
    let mut bench = Bench::new(limits(9));
    bench.dispatch(vec![order_of(Job { id: JobId(1), timeout: 6, ..Job::default() }, T)]);
    bench.start_all();
    bench.pass_ms(2_000);
    bench.kill(attempt(1, T));
    bench.kill(attempt(1, T));
    assert_eq!(bench.take_kills(), [KillHow::Ask]);
    bench.pass_ms(4_999);
    bench.kill(attempt(1, T));
    assert_eq!(bench.take_kills(), [], "its timeout is over, but it is being ended already");
    bench.pass_ms(1);
    assert_eq!(bench.take_kills(), [KillHow::Force]);
    bench.kill(attempt(1, T));
    assert_eq!(bench.take_kills(), [KillHow::Force], "it was asked to end, and is still there");
    bench.exit(attempt(1, T));
    bench.kill(attempt(1, T));
    bench.killed();
    bench.kill(attempt(1, T));
    assert_eq!(bench.states(), [RunState::Killed]);
    assert_eq!(bench.rows[0].output, "said\n[killed: by an operator]\n");
}

#[test]
fn without_a_grace_a_run_is_made_to_end_at_once() {
    let mut bench = Bench::new(Limits { kill_grace_ms: 0, ..Limits::default() });
    bench.dispatch(vec![order(1, T)]);
    bench.start_all();
    bench.kill(attempt(1, T));
    assert_eq!(bench.take_kills(), [KillHow::Force]);
}

#[test]
fn a_kill_cancels_a_run_that_has_not_begun() {
    let mut bench = Bench::new(limits(1));
    bench.dispatch(vec![order(1, T)]);
    bench.start_all();
    bench.dispatch(vec![order(2, T), order(3, T + 50)]);
    bench.kill(attempt(2, T));
    bench.kill(attempt(3, T + 50));
    assert_eq!(bench.states(), [RunState::Cancelled; 2]);
    assert!(bench.rows[0].output.contains("cancelled: an operator ended it before it began"));
    assert_eq!(bench.finished(attempt(3, T + 50)), Some(RunState::Cancelled));
    bench.kill(attempt(99, T));
    assert_eq!(bench.told.len(), 2, "a run that is not held is not reported");
    bench.exit(attempt(1, T));
    bench.pass_ms(60_000);
    assert!(bench.spawns.is_empty());
}

#[test]
fn a_run_killed_while_it_is_being_started_is_ended_as_soon_as_it_runs() {
    let mut bench = Bench::new(limits(9));
    bench.dispatch(vec![order(1, T), order(2, T), order(3, T)]);
    (1..=3).for_each(|job| bench.kill(attempt(job, T)));
    assert_eq!((bench.take_kills(), bench.rows.len()), (vec![], 0));
    let ids: Vec<WorkId> = std::mem::take(&mut bench.spawns).into_iter().map(|(id, _)| id).collect();
    bench.spawned(ids[0], Ok(7));
    assert_eq!(bench.take_kills(), [KillHow::Ask]);
    bench.spawned(ids[1], Err(SpawnError::NoLease));
    bench.spawned(ids[2], Err(SpawnError::Exhausted("no memory".into())));
    assert_eq!(bench.states(), [RunState::Cancelled; 2]);
}
