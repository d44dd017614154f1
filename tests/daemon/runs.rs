//! A run: its environment, its row in the log, its output.

use crate::support::daemon::Node;
use crate::support::process::{children, threads};
use crate::support::row::Row;
use crate::support::time::check_gapless;
use crate::support::wait_to_see;
use serde_json::{Value, json};

#[test]
fn a_row_tells_when_and_where_a_run_went_and_how_it_ended() {
    let node = Node::started("");
    let row = node.api.run_once("echo out; echo err >&2; echo out again", "");
    assert_eq!(row["output"], "out\nerr\nout again\n", "both streams, in the order of writing");
    assert_eq!((&row["state"], &row["exit_code"], &row["attempt"]), (&json!("ok"), &json!(0), &json!(1)));
    assert_eq!((&row["dispatch_server"], &row["run_server"]), (&json!(node.server), &json!(node.server)));
    let time = row.time();
    assert_eq!(row["run_key"], format!("{}-{time}", row["cron_id"]));
    assert!((0..=1).contains(&(time - row["dispatch_time"].as_i64().unwrap())), "{row}");
    assert!(time * 1_000 <= row["start_time"].as_i64().unwrap(), "{row}");
    assert!(row["use_time"].as_i64().is_some_and(|ms| ms >= 0), "{row}");
}

#[test]
fn a_run_has_its_environment_and_none_of_the_secrets() {
    let secrets = [("WING_MYSQL_PASSWORD", "its-password"), ("WING_CONSUL_TOKEN", "its-token")];
    let mut node = Node::new("").env("OTHER", "kept");
    for (name, value) in secrets {
        node = node.env(name, value);
    }
    node.start();
    let row = node.api.run_once("env; echo pgid=$(ps -o pgid= $$ 2>/dev/null || cut -d' ' -f5 /proc/$$/stat) pid=$$; cat; readlink /proc/$$/fd/0", "");
    let output = row.output();
    for line in [
        format!("WING_CRON_ID={}", row["cron_id"]),
        format!("WING_SCHEDULED_AT={}", row["time"]),
        format!("WING_RUN_KEY={}", row.run_key()),
        "WING_ATTEMPT=1".into(),
        "OTHER=kept".into(),
        "/dev/null".into(),
    ] {
        assert!(output.lines().any(|had| had == line), "{line} is not in {output}");
    }
    assert!(!output.contains("its-password") && !output.contains("its-token"), "{output}");
    let ids = output.lines().find(|line| line.starts_with("pgid=")).unwrap().replace(' ', "");
    let (group, pid) = ids.strip_prefix("pgid=").unwrap().split_once("pid=").unwrap();
    assert_eq!(group, pid, "the run has a process group of its own");
}

#[test]
fn a_failure_is_told_in_the_row_and_in_the_last_line_of_output() {
    let node = Node::started("");
    let row = node.api.run_once("echo before; exit 3", "");
    assert_eq!((&row["state"], &row["exit_code"]), (&json!("failed"), &json!(3)));
    assert_eq!(row["output"], "before\n[exit code 3]\n");
    let row = node.api.run_once("printf half; kill -SEGV $$", "");
    assert_eq!((&row["state"], &row["exit_code"]), (&json!("failed"), &Value::Null));
    assert_eq!(row["output"], "half\n[killed by signal 11]\n");
    let row = node.api.run_once("no-such-command-anywhere", "");
    assert_eq!((&row["state"], &row["exit_code"]), (&json!("failed"), &json!(127)));
    let row = node.api.run_once("printf '\\377\\376 caf\\303\\251'", "");
    assert_eq!(row["output"], "\u{fffd}\u{fffd} café", "bytes that are not UTF-8 are replaced");
}

#[test]
fn a_missing_shell_fails_the_run_and_the_daemon_lives_on() {
    let mut node = Node::new("");
    let shell = node.script("shell", "#!/bin/sh\nexec /bin/sh \"$@\"\n");
    node.edit(|text| format!("{text}shell = \"{shell}\"\n"));
    node.start();
    assert_eq!(node.api.run_once("echo fine", "")["output"], "fine\n");
    std::fs::remove_file(shell).unwrap();
    let row = node.api.run_once("echo fine", "");
    assert_eq!(row["state"], "failed");
    assert!(row.output().contains("is the config key shell right?"), "{row}");
}

#[test]
fn output_is_capped_head_and_tail() {
    let node = Node::started("max_output_bytes = 1000\n");
    let row = node.api.run_once("i=0; while [ $i -lt 1000 ]; do echo line $i; i=$((i+1)); done", "");
    let output = row.output();
    assert!(output.starts_with("line 0\nline 1\n") && output.ends_with("line 998\nline 999\n"), "{output}");
    assert!(output.contains("[... 7890 bytes left out ...]"), "{output}");
    let row = node.api.run_once("head -c 1000 /dev/zero | tr '\\0' x", "");
    assert_eq!(row["output"], "x".repeat(1_000), "an output as long as the cap is kept whole");
    let row = node.api.run_once("head -c 300000000 /dev/zero", "");
    assert_eq!(row["state"], "ok", "a longer output is read to its end all the same");
}

#[test]
fn a_process_that_a_run_leaves_behind_on_purpose_lives_on_and_delays_nothing() {
    let node = Node::started("");
    let witness = node.witness("left");
    // The remaining process keeps the run's output open.
    let row = node.api.run_once(&format!("(sleep 3; echo late; {}) & echo done", witness.write("left")), "");
    assert_eq!((&row["state"], &row["output"]), (&json!("ok"), &json!("done\n")));
    assert_eq!(witness.count("left"), 0, "the run ends before the process that it left");
    witness.wait_count("left", 1);
}

#[test]
fn thousands_of_sleeping_commands_cost_no_threads() {
    const JOBS: usize = 1_500;
    let node = Node::started("max_running = 6000\nmax_pending = 6000\nmax_pending_per_job = 6000\n");
    let id = node.api.add_idle("exec sleep 1000", "");
    for _ in 0..JOBS {
        node.api.run_job(id);
    }
    let daemon = node.daemon_pid();
    wait_to_see("all of them sleep", || children(daemon).len(), |count| *count >= JOBS);
    assert!(threads(daemon) < 20, "{} threads", threads(daemon));
    assert!(node.api.is_up());
}

#[test]
fn each_second_has_its_row_and_none_has_two() {
    let node = Node::started("");
    let witness = node.witness("seen");
    let id = node.api.add_every_second(&witness.write("x"), "");
    witness.wait_count("x", 5);
    node.api.stop_job(id);
    let attempts = witness.attempts("x");
    let rows = node.api.wait_for_rows(id, "ok", attempts.len());
    let mut logged: Vec<String> = rows.iter().map(Row::attempt).collect();
    logged.sort();
    assert_eq!(logged, attempts);
    check_gapless(&witness.seconds("x"));
}
