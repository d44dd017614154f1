//! `is_mutex=1`: never two at once; `is_mutex=0`: side by side.

use crate::support::daemon::Node;
use crate::support::witness::{Seen, Witness};
use crate::support::{wait_for, wait_until};

/// The largest number of runs that were between `begin` and `end` at one time.
fn overlap_max(seen: &[Seen]) -> i32 {
    let mut events: Vec<(i128, i32)> =
        seen.iter().map(|seen| (seen.at_ns, if seen.word == "begin" { 1 } else { -1 })).collect();
    events.sort();
    let mut running = 0;
    events.iter().fold(0, |most, (_, change)| {
        running += change;
        most.max(running)
    })
}

#[test]
fn a_mutex_job_never_overlaps_itself_and_what_is_due_meanwhile_waits_in_order() {
    let node = Node::started("");
    let witness = Witness::new(node.folder.path(), "seen");
    let id = node.api.add("* * * * * *", &witness.around("sleep 1.4"), "is_mutex=1");
    wait_until("six runs are over", || witness.count("end") >= 6);
    node.api.get(&format!("/cron/stop/{id}")).ok();
    let seen = witness.read();
    assert_eq!(overlap_max(&seen), 1);
    let begun: Vec<i64> = seen.iter().filter(|seen| seen.word == "begin").map(|seen| seen.scheduled_at).collect();
    assert!(begun.windows(2).all(|pair| pair[1] == pair[0] + 1), "in order, none left out: {begun:?}");
    witness.attempts("begin");
    let cancelled = wait_for("the waiting ones are told as cancelled", || {
        Some(node.api.logs_with(id, "cancelled")).filter(|rows| !rows.is_empty())
    });
    assert!(cancelled[0]["output"].as_str().unwrap().contains("stopped, changed or deleted"));
}

#[test]
fn without_a_mutex_runs_go_side_by_side() {
    let node = Node::started("");
    let witness = Witness::new(node.folder.path(), "seen");
    node.api.add("* * * * * *", &witness.around("sleep 4"), "is_mutex=0");
    wait_until("some are over", || witness.count("end") >= 2);
    assert!(overlap_max(&witness.read()) >= 3);
}

#[test]
fn beyond_the_limit_of_waiting_runs_one_is_skipped_and_said() {
    let node = Node::started("max_pending_per_job = 2\n");
    let gate = node.path("gate");
    let witness = Witness::new(node.folder.path(), "seen");
    let wait = format!("while [ ! -e {} ]; do sleep 0.1; done", gate.display());
    let id = node.api.add("* * * * * *", &witness.around(&wait), "is_mutex=1");
    let skipped =
        wait_for("some are skipped", || Some(node.api.logs_with(id, "skipped")).filter(|rows| rows.len() >= 2));
    let begun = witness.read()[0].scheduled_at;
    let first_skipped = skipped.last().unwrap();
    assert_eq!(first_skipped["time"], begun + 3, "one runs, two wait, the next is skipped");
    assert!(first_skipped["output"].as_str().unwrap().contains("max_pending_per_job"));
    std::fs::write(&gate, "").unwrap();
    wait_until("those that waited have run", || witness.count("end") >= 3);
    let begun: Vec<i64> =
        witness.read().iter().filter(|seen| seen.word == "begin").map(|seen| seen.scheduled_at).take(3).collect();
    assert_eq!(begun, [begun[0], begun[0] + 1, begun[0] + 2]);
    assert_eq!(overlap_max(&witness.read()), 1);
}

#[test]
fn a_run_that_holds_its_lock_too_long_is_ended_whole() {
    let node = Node::started("");
    let witness = Witness::new(node.folder.path(), "seen");
    // It ignores TERM, and a child of its in a session of its own with an empty environment does so too.
    let command = format!(
        "trap '' TERM; echo caught; {}; setsid env -i /bin/sh -c 'trap \"\" TERM; sleep 300' & sleep 301; sleep 302",
        witness.write("begin")
    );
    let id = node.api.add("* * * * * *", &command, "is_mutex=1&lock_limit=1");
    let timeouts = wait_for("two time-outs", || Some(node.api.logs_with(id, "timeout")).filter(|rows| rows.len() >= 2));
    node.api.get(&format!("/cron/stop/{id}")).ok();
    assert!(
        timeouts[0]["output"].as_str().unwrap().starts_with("caught\n[ended: it held its lock longer than lock_limit")
    );
    assert!(timeouts.iter().all(|row| row["use_time"].as_i64().unwrap() >= 1_000), "{timeouts:?}");
    witness.attempts("begin");
}

#[test]
fn a_polite_run_is_asked_first() {
    let node = Node::started("");
    let id = node.api.add(
        "* * * * * *",
        "trap 'echo thanks; exit 0' TERM; while :; do sleep 0.05; done",
        "is_mutex=1&lock_limit=1",
    );
    let timeouts = wait_for("a time-out", || Some(node.api.logs_with(id, "timeout")).filter(|rows| !rows.is_empty()));
    let last = timeouts.last().unwrap();
    assert!(last["output"].as_str().unwrap().contains("thanks\n[ended"), "{last}");
    assert_eq!(last["exit_code"], 0);
    assert!(last["use_time"].as_i64().unwrap() < 5_000, "nobody had to wait for KILL: {last}");
}
