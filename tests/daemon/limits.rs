//! Overload: a run beyond a limit is refused, and its row says why.

use crate::support::daemon::{Node, counters};
use crate::support::process::children;
use crate::support::row::Row;
use crate::support::time::{pass_until, second};
use crate::support::{free_port, wait_to_see};

#[test]
fn no_more_than_max_running_run_at_once_and_a_run_that_cannot_even_wait_is_shed() {
    let debug = format!("127.0.0.1:{}", free_port());
    let node = Node::started(&format!("max_running = 2\nmax_pending = 3\npprof_listen = \"{debug}\"\n"));
    let witness = node.witness("seen");
    let gate = node.gate();
    let id = node.api.add_every_second(&witness.around(&gate.wait()), "");
    let shed = node.api.wait_for_rows(id, "shed", 3);
    assert_eq!(witness.count("begin"), 2);
    assert_eq!(children(node.daemon_pid()).len(), 2);
    assert_eq!(shed.last().unwrap()["time"], witness.read()[0].scheduled_at + 5, "two run and three wait");
    assert!(shed[0].output().contains("max_pending"));
    let told = shed[0].time() - shed.last().unwrap().time() + 1;
    assert!(told as u64 <= counters(&debug)["runs_shed"], "a row that stands for many runs counts as many");
    gate.open();
    witness.wait_count("end", 5);
    witness.attempts("begin");
}

#[test]
fn a_run_that_waits_for_others_beyond_the_grace_is_missed() {
    let node = Node::started("max_running = 1\nmisfire_grace = 1\n");
    let gate = node.gate();
    let id = node.api.add_every_second(&gate.wait(), "");
    // One run blocks all others, and each second adds one that waits; some wait beyond the grace.
    let other = node.api.add_every_second("true", "is_mutex=1");
    pass_until(second() + 7);
    gate.open();
    let missed = node.api.wait_for_rows(id, "missed", 2);
    assert!(missed[0].output().contains("misfire_grace"), "{missed:?}");
    assert_eq!(
        node.api.rows_with(other, "missed").len(),
        0,
        "a run of a mutex job is not missed, however long it waits"
    );
}

#[test]
fn runs_of_one_job_beyond_max_pending_per_job_are_skipped_and_told() {
    let node = Node::started("max_running = 1\nmax_pending_per_job = 2\n");
    let witness = node.witness("seen");
    let gate = node.gate();
    let id = node.api.add_every_second(&witness.around(&gate.wait()), "");
    let rows = node.api.wait_for_rows(id, "skipped", 2);
    let first = witness.read()[0].scheduled_at + 3;
    assert_eq!(rows[1]["time"], first, "one runs and two wait");
    let text = |at: usize| rows[at].output();
    assert!(text(1).contains("max_pending_per_job") && !text(1).contains("runs from"), "{rows:?}");
    assert!(text(0).contains(&format!("runs from {} to ", first + 1)), "later ones share a row: {rows:?}");
    let refused = node.api.get("/cluster").ok()["nodes"][0]["refused"].as_u64();
    assert!(refused > Some(2), "{refused:?}");
    // Two runs of another job may wait as well, before one is skipped.
    let other = node.api.add_every_second(&witness.write("other"), "");
    node.api.wait_for_rows(other, "skipped", 1);
    gate.open();
    witness.wait_count("end", 3);
    witness.wait_count("other", 2);
    witness.attempts("begin");
}

#[test]
fn a_flood_does_not_delay_a_run_that_is_due_after_it() {
    const FLOOD: usize = 60;
    let node = Node::started("max_running = 2\n");
    let at = second() + 8;
    for _ in 0..FLOOD {
        node.api.add_once(at, "sleep 0.3 # flood", "");
    }
    let later = node.api.add_once(at + 3, "true", "");
    let started = |row: &Row| row["start_time"].as_i64().unwrap();
    let row = node.api.wait_for_row(later, "ok");
    let rows = wait_to_see("a row of each run", || node.api.logs(""), |rows| rows.len() > FLOOD);
    let after = rows.iter().filter(|flood| started(&row) < started(flood)).count();
    assert!(after >= 10, "only {after} runs of the flood started after it");
}
