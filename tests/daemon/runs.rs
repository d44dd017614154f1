//! What a run gets, and what becomes of it in the log.

use crate::support::daemon::{Node, threads};
use crate::support::witness::Witness;
use crate::support::{wait_for, wait_until};
use serde_json::{Value, json};

/// Adds a job that is due every second, waits for its first log row, and removes it.
fn run_once(node: &Node, command: &str) -> Value {
    let id = node.api.add("* * * * * *", command, "");
    let rows = wait_for("a log row", || Some(node.api.logs(&format!("cron_id={id}"))).filter(|rows| !rows.is_empty()));
    node.api.get(&format!("/cron/delete/{id}")).ok();
    rows.last().expect("it is not empty").clone()
}

#[test]
fn a_row_says_all_of_a_run() {
    let node = Node::started("");
    let row = run_once(&node, "echo out; echo err >&2; echo out again");
    assert_eq!(row["output"], "out\nerr\nout again\n", "both streams, in their order");
    assert_eq!((&row["state"], &row["exit_code"], &row["attempt"]), (&json!("ok"), &json!(0), &json!(1)));
    assert_eq!((&row["dispatch_server"], &row["run_server"]), (&json!(node.server), &json!(node.server)));
    let time = row["time"].as_i64().unwrap();
    assert_eq!(row["run_key"], format!("{}-{time}", row["cron_id"]));
    assert!((0..=1).contains(&(time - row["dispatch_time"].as_i64().unwrap())), "{row}");
    assert!(time * 1_000 <= row["start_time"].as_i64().unwrap(), "{row}");
    assert!(row["use_time"].as_i64().is_some_and(|ms| ms >= 0), "{row}");
}

#[test]
fn a_run_has_its_environment_and_none_of_the_secrets() {
    let node = Node::new("")
        .env("WING_MYSQL_PASSWORD", "its-password")
        .env("WING_CONSUL_TOKEN", "its-token")
        .env("OTHER", "kept");
    let mut node = node;
    node.start();
    let row = run_once(
        &node,
        "env; echo pgid=$(ps -o pgid= $$ 2>/dev/null || cut -d' ' -f5 /proc/$$/stat) pid=$$; cat; readlink /proc/$$/fd/0",
    );
    let output = row["output"].as_str().unwrap();
    for line in [
        format!("WING_CRON_ID={}", row["cron_id"]),
        format!("WING_SCHEDULED_AT={}", row["time"]),
        format!("WING_RUN_KEY={}", row["run_key"].as_str().unwrap()),
        "WING_ATTEMPT=1".into(),
        "OTHER=kept".into(),
        "/dev/null".into(),
    ] {
        assert!(output.lines().any(|had| had == line), "{line} is not in {output}");
    }
    assert!(!output.contains("its-password") && !output.contains("its-token"), "{output}");
    let ids = output.lines().find(|line| line.starts_with("pgid=")).unwrap().replace(' ', "");
    let (group, pid) = ids.strip_prefix("pgid=").unwrap().split_once("pid=").unwrap();
    assert_eq!(group, pid, "a group of its own");
}

#[test]
fn a_failure_is_told_in_the_row_and_as_a_last_line() {
    let node = Node::started("");
    let row = run_once(&node, "echo before; exit 3");
    assert_eq!((&row["state"], &row["exit_code"]), (&json!("failed"), &json!(3)));
    assert_eq!(row["output"], "before\n[exit code 3]\n");
    let row = run_once(&node, "printf half; kill -SEGV $$");
    assert_eq!((&row["state"], &row["exit_code"]), (&json!("failed"), &Value::Null));
    assert_eq!(row["output"], "half\n[killed by signal 11]\n");
    let row = run_once(&node, "no-such-command-anywhere");
    assert_eq!((&row["state"], &row["exit_code"]), (&json!("failed"), &json!(127)));
    let row = run_once(&node, "printf '\\377\\376 caf\\303\\251'");
    assert_eq!(row["output"], "\u{fffd}\u{fffd} café", "bytes that are no UTF-8 lose no row");
}

#[test]
fn a_shell_that_is_not_there_fails_the_run_and_the_daemon_lives_on() {
    let node = Node::new("");
    std::fs::write(node.path("shell"), "#!/bin/sh\nexec /bin/sh \"$@\"\n").unwrap();
    std::os::unix::fs::PermissionsExt::set_mode(
        &mut std::fs::metadata(node.path("shell")).unwrap().permissions(),
        0o755,
    );
    std::fs::set_permissions(node.path("shell"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    node.edit(|text| format!("{text}shell = \"{}\"\n", node.path("shell").display()));
    let mut node = node;
    node.start();
    assert_eq!(run_once(&node, "echo fine")["output"], "fine\n");
    std::fs::remove_file(node.path("shell")).unwrap();
    let row = run_once(&node, "echo fine");
    assert_eq!(row["state"], "failed");
    assert!(row["output"].as_str().unwrap().contains("is the config key shell right?"), "{row}");
}

#[test]
fn output_is_capped_head_and_tail() {
    let node = Node::started("max_output_bytes = 1000\n");
    let row = run_once(&node, "i=0; while [ $i -lt 1000 ]; do echo line $i; i=$((i+1)); done");
    let output = row["output"].as_str().unwrap();
    assert!(output.starts_with("line 0\nline 1\n") && output.ends_with("line 998\nline 999\n"), "{output}");
    assert!(output.contains("[... 7890 bytes left out ...]"), "{output}");
    let row = run_once(&node, "head -c 1000 /dev/zero | tr '\\0' x");
    assert_eq!(row["output"], "x".repeat(1_000), "up to the cap all is kept");
    let row = run_once(&node, "head -c 300000000 /dev/zero");
    assert_eq!(row["state"], "ok", "a flood is read to its end");
}

#[test]
fn what_a_run_leaves_behind_on_purpose_lives_on_and_holds_nothing_up() {
    let node = Node::started("");
    let witness = Witness::new(node.folder.path(), "left");
    // It keeps the run's output open, too.
    let row = run_once(&node, &format!("(sleep 3; echo late; {}) & echo done", witness.write("left")));
    assert_eq!((&row["state"], &row["output"]), (&json!("ok"), &json!("done\n")));
    assert_eq!(witness.count("left"), 0, "the run is over before what it left");
    wait_until("what was left has lived on", || witness.count("left") == 1);
}

#[test]
fn thousands_of_sleeping_commands_cost_no_threads() {
    const JOBS: usize = 1_500;
    let node = Node::started("max_running = 6000\nmax_pending = 6000\nmax_pending_per_job = 6000\n");
    let id = node.api.add("0 0 0 1 1 *", "exec sleep 1000", "");
    for _ in 0..JOBS {
        node.api.post(&format!("/cron/run/{id}"), "").ok();
    }
    let daemon = node.daemon_pid();
    wait_until("all of them sleep", || crate::support::daemon::children(daemon).len() >= JOBS);
    assert!(threads(daemon) < 20, "{} threads", threads(daemon));
    assert!(node.api.is_up());
}

#[test]
fn a_log_row_of_each_second_is_there_and_none_twice() {
    let node = Node::started("");
    let witness = Witness::new(node.folder.path(), "seen");
    let id = node.api.add("* * * * * *", &witness.write("x"), "");
    wait_until("five runs", || witness.count("x") >= 5);
    node.api.get(&format!("/cron/stop/{id}")).ok();
    let attempts = witness.attempts("x");
    let rows =
        wait_for("a row each", || Some(node.api.logs_with(id, "ok")).filter(|rows| rows.len() >= attempts.len()));
    let mut logged: Vec<String> = rows.iter().map(|row| format!("{}#1", row["run_key"].as_str().unwrap())).collect();
    logged.sort();
    assert_eq!(logged, attempts);
    let seconds: Vec<i64> = witness.read().iter().map(|seen| seen.scheduled_at).collect();
    assert!(seconds.windows(2).all(|pair| pair[1] == pair[0] + 1), "{seconds:?}");
}
