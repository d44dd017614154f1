//! Runs that are ended, by their time-out or by an operator, and runs that are not begun because the host has no memory left.

use crate::support::daemon::Node;
use crate::support::process::{is_alive, main_thread_ticks};
use crate::support::time::second;
use crate::support::{wait_for, wait_to_see};
use serde_json::{Value, json};

#[test]
fn a_run_that_takes_longer_than_its_timeout_is_ended_whole() {
    let node = Node::started("kill_grace = 1\n");
    let witness = node.witness("seen");
    let child = node.path("child");
    // The run ignores TERM. So does its child, which has a session of its own and an empty environment.
    let command = format!(
        "trap '' TERM; echo so far; {}; \
         setsid env -i /bin/sh -c 'trap \"\" TERM; echo $$ >{}; while :; do sleep 300; done' & \
         while :; do sleep 301; done",
        witness.write("begin"),
        child.display()
    );
    let id = node.api.add_once(second() + 3, &command, "is_mutex=0&timeout=1");
    let row = node.api.wait_for_row(id, "timeout");
    assert_eq!(row["output"], "so far\n[ended: it ran longer than its job's timeout]\n");
    assert!(row.use_time() >= 2_000, "KILL comes kill_grace after TERM: {row}");
    let child: u32 = std::fs::read_to_string(child).unwrap().trim().parse().unwrap();
    assert!(!is_alive(child), "a child that has left the group is ended as well");
    witness.attempts("begin");
}

#[test]
fn a_run_that_ends_when_asked_is_logged_at_once_and_a_run_within_its_timeout_is_left_alone() {
    let node = Node::started("");
    let at = second() + 3;
    let polite = "trap 'echo thanks; exit 0' TERM; while :; do sleep 0.05; done";
    let polite = node.api.add_once(at, polite, "timeout=1");
    let quick = node.api.add_once(at, "sleep 1.2; echo done", "timeout=30");
    let row = node.api.wait_for_row(polite, "timeout");
    // The signal also ends the shell's sleep, and the shell may say so first.
    assert!(row.output().ends_with("thanks\n[ended: it ran longer than its job's timeout]\n"), "{row}");
    assert!((1_000..5_000).contains(&row.use_time()), "no KILL was needed: {row}");
    assert_eq!(node.api.wait_for_row(quick, "ok")["output"], "done\n");
}

#[test]
fn a_command_that_a_shell_has_started_has_the_whole_grace_to_clean_up() {
    let node = Node::started("");
    // TERM ends the shell at once. The command that the shell waited for needs half a second more.
    let cleaner = "trap 'sleep 0.5; echo cleaned; exit 0' TERM; echo up; while :; do sleep 0.05; done";
    let id = node.api.add_idle(&format!("sh -c \"{cleaner}\"; true"), "");
    let run = node.api.run_job(id);
    let read = || node.api.get(&format!("/run/output/{run}")).ok()["output"].clone();
    wait_to_see("the run says that it is up", read, |output| output.as_str().is_some_and(|text| text.contains("up")));
    assert_eq!(node.api.kill_run(&run), "killed");
    let row = node.api.wait_for_row(id, "killed");
    assert!(row.output().ends_with("cleaned\n[killed: by an operator]\n"), "{row}");
}

#[test]
fn a_run_is_ended_by_an_operator_with_all_that_it_started() {
    let node = Node::started("kill_grace = 1\n");
    let child = node.path("child");
    let command = format!(
        "trap '' TERM; echo so far; setsid env -i /bin/sh -c 'echo $$ >{}; while :; do sleep 300; done' & \
         while :; do sleep 301; done",
        child.display()
    );
    let id = node.api.add_idle(&command, "");
    let run = node.api.run_job(id);
    let read = |path| std::fs::read_to_string(path).ok().and_then(|text: String| text.trim().parse::<u32>().ok());
    let child = wait_for("the pid of the run's child", || read(&child));
    let shown = node.api.runs()[0].clone();
    assert_eq!((&shown["run_key"], &shown["state"]), (&json!(run), &json!("running")), "{shown}");
    assert!(shown["pid"].as_u64().is_some() && shown["started"].as_i64().is_some(), "{shown}");
    assert_eq!(node.api.kill_run(&run), "killed");
    assert!(!is_alive(child), "a child that has left the group is ended before the answer");
    assert_eq!(node.api.wait_for_row(id, "killed")["output"], "so far\n[killed: by an operator]\n");
    assert_eq!(node.api.runs(), [] as [Value; 0]);
}

#[test]
fn a_run_that_waits_for_another_to_end_is_cancelled_by_an_operator() {
    let node = Node::started("max_running = 1\n");
    let witness = node.witness("seen");
    let gate = node.gate();
    let first = node.api.add_idle(&witness.around(&gate.wait()), "");
    node.api.run_job(first);
    witness.wait_count("begin", 1);
    let second = node.api.add_idle(&witness.write("second"), "");
    let run = node.api.run_job(second);
    node.api.wait_for_runs("queued", 1);
    assert_eq!(node.api.kill_run(&run), "cancelled");
    assert_eq!(
        node.api.wait_for_row(second, "cancelled")["output"],
        "[cancelled: an operator ended it before it began]\n"
    );
    gate.open();
    witness.wait_count("end", 1);
    assert_eq!(witness.count("second"), 0);
}

#[test]
fn time_outs_do_not_keep_the_daemon_busy() {
    let node = Node::started("");
    let witness = node.witness("seen");
    for _ in 0..5 {
        node.api.add_every_second(&witness.write("x"), "timeout=86400");
    }
    node.api.add_every_second("sleep 2.5", "timeout=60");
    witness.wait_count("x", 10);
    let daemon = node.daemon_pid();
    let before = main_thread_ticks(daemon);
    // Five jobs for six seconds.
    witness.wait_more("x", 30);
    let ticks = main_thread_ticks(daemon) - before;
    assert!(ticks < 200, "{ticks} hundredths of a second of processor time in six seconds");
}

#[test]
fn a_host_without_free_memory_starts_no_run_and_says_so() {
    let node = Node::started("min_free_memory_mb = 1000000000\nmisfire_grace = 2\n");
    let witness = node.witness("seen");
    let id = node.api.add_every_second(&witness.write("x"), "");
    let failed = node.api.wait_for_row(id, "failed");
    let why = "MB of memory are free, fewer than min_free_memory_mb = 1000000000";
    assert!(failed.output().contains(why), "{failed}");
    assert_eq!(node.api.get("/cluster").ok()["nodes"][0]["throttled"], json!(true));
    let missed = node.api.wait_for_row(id, "missed");
    assert!(missed.output().contains("misfire_grace"), "{missed}");
    assert_eq!(witness.count("x"), 0);
    assert_eq!(node.said().matches("fewer runs are started").count(), 1, "{}", node.said());
}
