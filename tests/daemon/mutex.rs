//! Runs of one job: with `is_mutex=1` never two at once, with `is_mutex=0` side by side.

use crate::support::daemon::Node;
use crate::support::time::check_gapless;
use crate::support::witness::overlap_max;

#[test]
fn a_mutex_job_never_overlaps_itself_and_its_due_runs_wait_in_order() {
    let node = Node::started("");
    let witness = node.witness("seen");
    let id = node.api.add_every_second(&witness.around("sleep 1.4"), "is_mutex=1");
    witness.wait_count("end", 6);
    node.api.stop_job(id);
    let seen = witness.read();
    assert_eq!(overlap_max(&seen), 1);
    check_gapless(&witness.seconds("begin"));
    witness.attempts("begin");
    let cancelled = node.api.wait_for_rows(id, "cancelled", 1);
    assert!(cancelled[0].output().contains("stopped, changed or deleted"));
}

#[test]
fn without_a_mutex_runs_go_side_by_side() {
    let node = Node::started("");
    let witness = node.witness("seen");
    node.api.add_every_second(&witness.around("sleep 4"), "is_mutex=0");
    witness.wait_count("end", 2);
    assert!(overlap_max(&witness.read()) >= 3);
}

#[test]
fn a_run_beyond_the_limit_of_waiting_runs_is_skipped_and_told() {
    let node = Node::started("max_pending_per_job = 2\n");
    let gate = node.gate();
    let witness = node.witness("seen");
    let id = node.api.add_every_second(&witness.around(&gate.wait()), "is_mutex=1");
    let skipped = node.api.wait_for_rows(id, "skipped", 2);
    let begun = witness.read()[0].scheduled_at;
    let first_skipped = skipped.last().unwrap();
    assert_eq!(first_skipped["time"], begun + 3, "one runs, two wait, the next is skipped");
    assert!(first_skipped.output().contains("max_pending_per_job"));
    gate.open();
    witness.wait_count("end", 3);
    assert_eq!(witness.seconds("begin")[..3], [begun, begun + 1, begun + 2]);
    assert_eq!(overlap_max(&witness.read()), 1);
}

#[test]
fn a_run_that_holds_its_lock_too_long_is_ended_whole() {
    let node = Node::started("");
    let witness = node.witness("seen");
    // The run ignores TERM. So does its child, which has a session of its own and an empty environment.
    let command = format!(
        "trap '' TERM; echo caught; {}; setsid env -i /bin/sh -c 'trap \"\" TERM; sleep 300' & sleep 301; sleep 302",
        witness.write("begin")
    );
    let id = node.api.add_every_second(&command, "is_mutex=1&lock_limit=1");
    let timeouts = node.api.wait_for_rows(id, "timeout", 2);
    node.api.stop_job(id);
    assert!(timeouts[0].output().starts_with("caught\n[ended: it held its lock longer than lock_limit"));
    assert!(timeouts.iter().all(|row| row.use_time() >= 1_000), "{timeouts:?}");
    witness.attempts("begin");
}

#[test]
fn a_run_that_holds_its_lock_too_long_is_asked_to_end_before_it_is_killed() {
    let node = Node::started("");
    let polite = "trap 'echo thanks; exit 0' TERM; while :; do sleep 0.05; done";
    let id = node.api.add_every_second(polite, "is_mutex=1&lock_limit=1");
    let timeouts = node.api.wait_for_rows(id, "timeout", 1);
    let last = timeouts.last().unwrap();
    assert!(last.output().contains("thanks\n[ended"), "{last}");
    assert_eq!(last["exit_code"], 0);
    assert!(last.use_time() < 5_000, "no KILL was needed: {last}");
}
