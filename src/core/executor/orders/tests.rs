//! Tests of orders, of cancels, and of runs that are given back.

use crate::core::executor::tests::{Bench, T, attempt, limits, order, order_of};
use crate::model::config::Limits;
use crate::model::message::{Order, ToLeader};
use crate::model::run::Manual;
use crate::model::{Attempt, Job, JobId, RunKey, RunState};

#[test]
fn too_many_of_one_job_are_refused_and_another_job_is_not() {
    let mut bench = Bench::new(Limits { max_running: 1, max_pending_per_job: 3, ..Limits::default() });
    bench.dispatch(vec![order(7, T)]);
    bench.start_all();
    let by_hand =
        Attempt { run: RunKey { manual: Some(Manual { epoch: 1, count: 1 }), ..attempt(1, T).run }, number: 1 };
    let asked = Order { attempt: by_hand, ..order(1, T) };
    bench.dispatch((0..5).map(|at| order(1, T - at)).chain([asked]).collect());
    for at in [3, 4] {
        assert!(bench.told.contains(&ToLeader::Refused(vec![attempt(1, T - at)])), "{:?}", bench.told);
    }
    assert_eq!(bench.states(), [RunState::Skipped], "what was asked for by hand has a row of its own");
    assert_eq!(bench.finished(by_hand), Some(RunState::Skipped));
    assert!(bench.rows[0].output.contains("(max_pending_per_job)"), "{:?}", bench.rows[0]);
    bench.dispatch(vec![order(2, T)]);
    let mutex = Job { id: JobId(3), is_mutex: true, ..Job::default() };
    bench.dispatch((0..5).map(|at| order_of(mutex.clone(), T - at)).collect());
    assert_eq!((bench.rows.len(), bench.executor.load().waiting), (1, 3 + 1 + 5));
    // A repeated order does not add a second run.
    bench.dispatch((0..3).map(|at| order(1, T - at)).collect());
    assert_eq!(bench.rows.len(), 1);
}

#[test]
fn runs_that_are_over_and_have_no_row_yet_count_as_held_as_well() {
    let limits = Limits { max_running: 1, max_pending: 1, ..Limits::default() };
    let mut bench = Bench::new(limits);
    bench.dispatch((0..limits.held_max() as u32 + 2).map(|at| order(at + 1, T + 9)).collect());
    bench.poll();
    assert_eq!(bench.states(), [RunState::Shed; 2]);
    assert!(bench.rows[0].output.contains("wait for the store"), "{:?}", bench.rows[0]);
}

#[test]
fn a_draining_node_gives_back_what_comes_to_it_all_the_same() {
    let mut bench = Bench::new(limits(9));
    bench.dispatch(vec![order(1, T)]);
    bench.poll();
    bench.executor.drain();
    bench.executor.hand_back(&mut bench.lender.fx);
    bench.dispatch(vec![order(1, T), order(2, T + 1)]);
    bench.poll();
    let returned = bench.told.iter().any(|told| *told == ToLeader::Returned(vec![attempt(2, T + 1)]));
    assert!(returned, "{:?}", bench.told);
    assert_eq!(bench.executor.load().waiting, 0);
}

#[test]
fn a_run_that_the_host_refused_is_dropped_by_a_cancel_and_given_back_by_a_drain() {
    let mut bench = Bench::new(limits(9));
    bench.dispatch(vec![order(1, T), order(2, T)]);
    bench.executor.on_cancel(JobId(1), None, &mut bench.lender.fx);
    bench.executor.drain();
    bench.poll();
    assert_eq!(bench.told, [], "the threads have them");
    bench.refuse_all();
    let cancelled = ToLeader::Cancelled { cron_id: JobId(1), dropped: vec![attempt(1, T)] };
    assert_eq!(bench.told, [cancelled, ToLeader::Returned(vec![attempt(2, T)])]);
    assert_eq!(bench.executor.holdings(), []);
}
