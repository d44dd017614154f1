//! A clean shutdown: no run begins, the running ones get their time, and every row is stored.

use crate::support::daemon::Node;
use crate::support::process::is_alive;
use crate::support::time::check_gapless;
use crate::support::wait_to_see;
use rustix::process::Signal;

#[test]
fn a_run_that_ends_in_time_is_waited_for_and_logged() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut node = Node::started("drain_timeout = 60\nlog_level = 5\n");
        let witness = node.witness("seen");
        let id = node.api.add_every_second(&witness.around("sleep 2"), "");
        witness.wait_count("begin", 1);
        node.signal(signal);
        node.wait_said("shutdown: nothing new is started");
        let begun = witness.count("begin");
        node.api.post("/cron/add", "cronSet=* * * * * *&command=true").refused(503, "shutting down");
        assert_eq!(node.wait().code(), Some(0), "{}", node.said());
        assert!(witness.count("begin") <= begun + 1, "at most one run was about to start when the signal came");
        assert_eq!(witness.count("begin"), witness.count("end"), "{} {:?}", node.said(), witness.read());
        node.start();
        node.api.wait_for_rows(id, "ok", begun);
        assert_eq!(node.api.rows_with(id, "lost").len(), 0);
    }
}

#[test]
fn a_run_that_does_not_end_is_asked_and_then_killed_with_all_processes_that_it_started() {
    let mut node = Node::started("drain_timeout = 1\n");
    let pids = node.path("pids");
    let command = format!(
        "trap '' TERM; echo $$ >> {0}; setsid sleep 300 & echo $! >> {0}; sleep 301; sleep 302",
        pids.display()
    );
    let id = node.api.add_every_second(&command, "is_mutex=1");
    let read = || -> Vec<u32> {
        std::fs::read_to_string(&pids).unwrap_or_default().lines().filter_map(|line| line.parse().ok()).collect()
    };
    wait_to_see("two processes of a run", read, |pids| pids.len() >= 2);
    assert_eq!(node.stop().code(), Some(0), "{}", node.said());
    assert!(read().iter().all(|pid| !is_alive(*pid)));
    node.start();
    let killed = node.api.wait_for_row(id, "killed");
    assert!(killed.output().contains("drain_timeout"));
}

#[test]
fn a_second_signal_ends_the_runs_at_once() {
    let mut node = Node::started("drain_timeout = 3600\n");
    let witness = node.witness("seen");
    node.api.add_every_second(&witness.around("sleep 3000"), "");
    witness.wait_count("begin", 1);
    node.signal(Signal::TERM);
    node.wait_said("shutdown: nothing new is started");
    node.signal(Signal::TERM);
    assert_eq!(node.wait().code(), Some(0), "{}", node.said());
}

#[test]
fn a_restart_within_the_grace_misses_no_second() {
    let mut node = Node::started("");
    let witness = node.witness("seen");
    let id = node.api.add_every_second(&witness.write("x"), "");
    witness.wait_count("x", 2);
    node.stop();
    node.start();
    witness.wait_more("x", 2);
    node.api.stop_job(id);
    check_gapless(&witness.sorted_seconds("x"));
    witness.attempts("x");
}

#[test]
fn without_time_to_drain_a_run_is_still_asked_to_end_first() {
    let mut node = Node::started("drain_timeout = 0\n");
    let witness = node.witness("seen");
    let command = format!("trap 'echo asked; exit 0' TERM; {}; while :; do sleep 0.05; done", witness.write("begin"));
    let id = node.api.add_every_second(&command, "is_mutex=1");
    witness.wait_count("begin", 1);
    assert_eq!(node.stop().code(), Some(0));
    node.start();
    let killed = node.api.wait_for_row(id, "killed");
    assert!(killed.output().contains("asked\n"), "{killed}");
}

#[test]
fn a_daemon_that_is_told_to_end_while_it_starts_is_not_started_again() {
    let mut node = Node::new("");
    for _ in 0..5 {
        node.launch();
        // There is a daemon. Chance decides whether it listens already.
        node.daemon_pid();
        assert_eq!(node.stop().code(), Some(0), "{}", node.said());
    }
    assert!(!node.said().contains("started again"), "{}", node.said());
}
