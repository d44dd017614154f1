//! Overload: what is beyond a limit is refused, and said.

use crate::support::daemon::{Node, children, counters};
use crate::support::witness::Witness;
use crate::support::{free_port, wait_for, wait_until};

#[test]
fn no_more_than_max_running_run_and_what_has_no_place_is_shed() {
    let debug = format!("127.0.0.1:{}", free_port());
    let node = Node::started(&format!("max_running = 2\nmax_pending = 3\npprof_listen = \"{debug}\"\n"));
    let witness = Witness::new(node.folder.path(), "seen");
    let gate = node.path("gate");
    let wait = format!("while [ ! -e {} ]; do sleep 0.1; done", gate.display());
    let id = node.api.add("* * * * * *", &witness.around(&wait), "");
    let shed = wait_for("some are shed", || Some(node.api.logs_with(id, "shed")).filter(|rows| rows.len() >= 3));
    assert_eq!(witness.count("begin"), 2);
    assert_eq!(children(node.daemon_pid()).len(), 2);
    assert_eq!(shed.last().unwrap()["time"], witness.read()[0].scheduled_at + 5, "two run and three wait");
    assert!(shed[0]["output"].as_str().unwrap().contains("max_pending"));
    let told = shed[0]["time"].as_i64().unwrap() - shed.last().unwrap()["time"].as_i64().unwrap() + 1;
    assert!(told as u64 <= counters(&debug)["runs_shed"], "a row that stands for many counts as many");
    std::fs::write(&gate, "").unwrap();
    wait_until("those that waited have run", || witness.count("end") >= 5);
    witness.attempts("begin");
}

#[test]
fn a_run_whose_turn_comes_after_the_grace_is_told_as_missed() {
    let node = Node::started("max_running = 1\nmisfire_grace = 1\n");
    let gate = node.path("gate");
    let wait = format!("while [ ! -e {} ]; do sleep 0.1; done", gate.display());
    let id = node.api.add("* * * * * *", &wait, "");
    // Every second one more waits for the only place; after some of them their time is over.
    let other = node.api.add("* * * * * *", "true", "is_mutex=1");
    let start = wing_crontab::worker::clock::now().wall.second().0;
    wait_until("six seconds pass", || start + 6 < wing_crontab::worker::clock::now().wall.second().0);
    std::fs::write(&gate, "").unwrap();
    let missed = wait_for("missed ones", || Some(node.api.logs_with(id, "missed")).filter(|rows| rows.len() >= 2));
    assert!(missed[0]["output"].as_str().unwrap().contains("misfire_grace"), "{missed:?}");
    assert_eq!(node.api.logs_with(other, "missed").len(), 0, "a mutex run waits its turn however long");
}

#[test]
fn more_waiting_runs_of_one_job_than_may_be_are_skipped_and_said() {
    let node = Node::started("max_running = 1\nmax_pending_per_job = 2\n");
    let witness = Witness::new(node.folder.path(), "seen");
    let gate = node.path("gate");
    let wait = format!("while [ ! -e {} ]; do sleep 0.1; done", gate.display());
    let id = node.api.add("* * * * * *", &witness.around(&wait), "");
    let skipped = |id: u64| node.api.logs_with(id, "skipped");
    let rows = wait_for("some are skipped", || Some(skipped(id)).filter(|rows| rows.len() >= 2));
    let first = witness.read()[0].scheduled_at + 3;
    assert_eq!(rows[1]["time"], first, "one runs and two wait");
    let text = |at: usize| rows[at]["output"].as_str().unwrap();
    assert!(text(1).contains("max_pending_per_job") && !text(1).contains("runs from"), "{rows:?}");
    assert!(text(0).contains(&format!("runs from {} to ", first + 1)), "those that follow share a row: {rows:?}");
    let refused = node.api.get("/cluster").ok()["nodes"][0]["refused"].as_u64();
    assert!(refused > Some(2), "{refused:?}");
    // Of another job there is room to wait.
    let other = node.api.add("* * * * * *", &witness.write("other"), "");
    wait_until("the other is refused only when two of it wait", || !skipped(other).is_empty());
    std::fs::write(&gate, "").unwrap();
    wait_until("those that waited have run", || witness.count("end") >= 3 && witness.count("other") >= 2);
    witness.attempts("begin");
}

#[test]
fn a_flood_does_not_delay_what_falls_due_after_it() {
    const FLOOD: usize = 60;
    let node = Node::started("max_running = 2\n");
    let at = wing_crontab::worker::clock::now().wall.second().0 + 8;
    let once = |at: i64| format!("start_time={at}&end_time={}", at + 1);
    for _ in 0..FLOOD {
        node.api.add("* * * * * *", "sleep 0.3 # flood", &once(at));
    }
    let later = node.api.add("* * * * * *", "true", &once(at + 3));
    let started = |row: &serde_json::Value| row["start_time"].as_i64().unwrap();
    let row = wait_for("the later one", || node.api.logs_with(later, "ok").pop());
    wait_until("all have run", || node.api.logs("").len() > FLOOD);
    let after = node.api.logs("").iter().filter(|flood| started(&row) < started(flood)).count();
    assert!(after >= 10, "only {after} of the flood had to wait for it");
}
