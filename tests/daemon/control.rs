//! Runs under control: time-outs, ends by an operator, and a host without room for another process.

use crate::support::daemon::{Node, is_alive};
use crate::support::witness::Witness;
use crate::support::{wait_for, wait_until};
use serde_json::json;

#[test]
fn a_run_that_takes_longer_than_its_timeout_is_ended_whole() {
    let node = Node::started("kill_grace = 1\n");
    let witness = Witness::new(node.folder.path(), "seen");
    let child = node.path("child");
    // It ignores TERM, and a child of its in a session of its own with an empty environment does so too.
    let command = format!(
        "trap '' TERM; echo so far; {}; \
         setsid env -i /bin/sh -c 'trap \"\" TERM; echo $$ >{}; while :; do sleep 300; done' & \
         while :; do sleep 301; done",
        witness.write("begin"),
        child.display()
    );
    let at = wing_crontab::worker::clock::now().wall.second().0 + 3;
    let id =
        node.api.add("* * * * * *", &command, &format!("is_mutex=0&timeout=1&start_time={at}&end_time={}", at + 1));
    let rows = wait_for("a time-out", || Some(node.api.logs_with(id, "timeout")).filter(|rows| !rows.is_empty()));
    assert_eq!(rows[0]["output"], "so far\n[ended: it ran longer than its job's timeout]\n");
    assert!(
        rows[0]["use_time"].as_i64().unwrap() >= 2_000,
        "it was asked first, and made to after kill_grace: {rows:?}"
    );
    let child: u32 = std::fs::read_to_string(child).unwrap().trim().parse().unwrap();
    assert!(!is_alive(child), "what has left the group is ended as well");
    witness.attempts("begin");
}

#[test]
fn a_run_that_ends_when_asked_is_logged_at_once_and_one_within_its_timeout_is_let_be() {
    let node = Node::started("");
    let at = wing_crontab::worker::clock::now().wall.second().0 + 3;
    let once = format!("start_time={at}&end_time={}", at + 1);
    let polite = "trap 'echo thanks; exit 0' TERM; while :; do sleep 0.05; done";
    let polite = node.api.add("* * * * * *", polite, &format!("timeout=1&{once}"));
    let quick = node.api.add("* * * * * *", "sleep 1.2; echo done", &format!("timeout=30&{once}"));
    let rows = wait_for("a time-out", || Some(node.api.logs_with(polite, "timeout")).filter(|rows| !rows.is_empty()));
    // The shell may have a word of its own about its sleep, which got the signal as well.
    let output = rows[0]["output"].as_str().unwrap();
    assert!(output.ends_with("thanks\n[ended: it ran longer than its job's timeout]\n"), "{output}");
    assert!((1_000..5_000).contains(&rows[0]["use_time"].as_i64().unwrap()), "nobody had to wait for KILL: {rows:?}");
    let rows = wait_for("the other", || Some(node.api.logs_with(quick, "ok")).filter(|rows| !rows.is_empty()));
    assert_eq!(rows[0]["output"], "done\n");
}

#[test]
fn what_a_shell_has_started_has_the_whole_grace_to_clean_up() {
    let node = Node::started("");
    // The shell dies of the TERM at once; the command that it waited for takes its time over it.
    let cleaner = "trap 'sleep 0.5; echo cleaned; exit 0' TERM; echo up; while :; do sleep 0.05; done";
    let id = node.api.add("0 0 0 1 1 *", &format!("sh -c \"{cleaner}\"; true"), "");
    let run = node.api.post(&format!("/cron/run/{id}"), "").ok()["run_key"].as_str().unwrap().to_string();
    let output = || node.api.get(&format!("/run/output/{run}")).ok()["output"].as_str().unwrap().to_string();
    wait_until("it is up", || output().contains("up"));
    assert_eq!(node.api.post(&format!("/run/kill/{run}"), "").ok()["state"], "killed");
    let rows = wait_for("its row", || Some(node.api.logs_with(id, "killed")).filter(|rows| !rows.is_empty()));
    let output = rows[0]["output"].as_str().unwrap();
    assert!(output.ends_with("cleaned\n[killed: by an operator]\n"), "{output}");
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
    let id = node.api.add("0 0 0 1 1 *", &command, "");
    let run = node.api.post(&format!("/cron/run/{id}"), "").ok()["run_key"].as_str().unwrap().to_string();
    let read = |path| std::fs::read_to_string(path).ok().and_then(|text: String| text.trim().parse::<u32>().ok());
    let child = wait_for("its child", || read(&child));
    let list = node.api.get("/run/list").ok()["list"].clone();
    assert_eq!((&list[0]["run_key"], &list[0]["state"]), (&json!(run), &json!("running")), "{list}");
    assert!(list[0]["pid"].as_u64().is_some() && list[0]["started"].as_i64().is_some(), "{list}");
    assert_eq!(node.api.post(&format!("/run/kill/{run}"), "").ok()["state"], "killed");
    assert!(!is_alive(child), "what has left the group is ended before the answer");
    let rows = wait_for("its row", || Some(node.api.logs_with(id, "killed")).filter(|rows| !rows.is_empty()));
    assert_eq!(rows[0]["output"], "so far\n[killed: by an operator]\n");
    assert_eq!(node.api.get("/run/list").ok()["list"], json!([]));
}

#[test]
fn a_run_that_waits_for_a_place_is_cancelled_by_an_operator() {
    let node = Node::started("max_running = 1\n");
    let witness = Witness::new(node.folder.path(), "seen");
    let gate = node.path("gate");
    let wait = format!("while [ ! -e {} ]; do sleep 0.1; done", gate.display());
    let first = node.api.add("0 0 0 1 1 *", &witness.around(&wait), "");
    node.api.post(&format!("/cron/run/{first}"), "").ok();
    wait_until("the first has the place", || witness.count("begin") == 1);
    let second = node.api.add("0 0 0 1 1 *", &witness.write("second"), "");
    let run = node.api.post(&format!("/cron/run/{second}"), "").ok()["run_key"].as_str().unwrap().to_string();
    wait_until("it waits there", || {
        node.api.get("/run/list").ok()["list"].as_array().unwrap().iter().any(|run| run["state"] == "queued")
    });
    assert_eq!(node.api.post(&format!("/run/kill/{run}"), "").ok()["state"], "cancelled");
    let rows = wait_for("its row", || Some(node.api.logs_with(second, "cancelled")).filter(|rows| !rows.is_empty()));
    assert_eq!(rows[0]["output"], "[cancelled: an operator ended it before it began]\n");
    std::fs::write(&gate, "").unwrap();
    wait_until("the first is over", || witness.count("end") == 1);
    assert_eq!(witness.count("second"), 0);
}

#[test]
fn time_outs_do_not_keep_the_daemon_busy() {
    let node = Node::started("");
    let witness = Witness::new(node.folder.path(), "seen");
    for _ in 0..5 {
        node.api.add("* * * * * *", &witness.write("x"), "timeout=86400");
    }
    node.api.add("* * * * * *", "sleep 2.5", "timeout=60");
    wait_until("some have come and gone", || witness.count("x") >= 10);
    let daemon = node.daemon_pid();
    let (before, count) = (main_thread_ticks(daemon), witness.count("x"));
    wait_until("six seconds of runs", || witness.count("x") >= count + 30);
    let ticks = main_thread_ticks(daemon) - before;
    assert!(ticks < 200, "{ticks} hundredths of a second of processor time in six seconds");
}

#[test]
fn a_host_without_free_memory_is_given_nothing_to_start_and_it_is_said() {
    let node = Node::started("min_free_memory_mb = 1000000000\nmisfire_grace = 2\n");
    let witness = Witness::new(node.folder.path(), "seen");
    let id = node.api.add("* * * * * *", &witness.write("x"), "");
    let failed = wait_for("a failure", || Some(node.api.logs_with(id, "failed")).filter(|rows| !rows.is_empty()));
    let output = failed[0]["output"].as_str().unwrap();
    assert!(output.contains("MB of memory are free, and min_free_memory_mb = 1000000000"), "{output}");
    assert_eq!(node.api.get("/cluster").ok()["nodes"][0]["throttled"], json!(true));
    let missed = wait_for("a missed one", || Some(node.api.logs_with(id, "missed")).filter(|rows| !rows.is_empty()));
    assert!(missed[0]["output"].as_str().unwrap().contains("misfire_grace"), "{missed:?}");
    assert_eq!(witness.count("x"), 0);
    assert_eq!(node.said().matches("fewer runs are started").count(), 1, "{}", node.said());
}

/// Processor time of the daemon's own loop, in hundredths of a second.
fn main_thread_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
