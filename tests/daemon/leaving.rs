//! A clean end: nothing new, what runs gets its time, everything is stored.

use crate::support::daemon::{Node, is_alive};
use crate::support::witness::Witness;
use crate::support::{wait_for, wait_until};
use rustix::process::Signal;

#[test]
fn a_run_that_ends_in_time_is_waited_for_and_logged() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut node = Node::started("drain_timeout = 60\nlog_level = 5\n");
        let witness = Witness::new(node.folder.path(), "seen");
        let id = node.api.add("* * * * * *", &witness.around("sleep 2"), "");
        wait_until("a run is under way", || witness.count("begin") > 0);
        node.signal(signal);
        node.wait_said("shutdown: nothing new is started");
        let begun = witness.count("begin");
        node.api.post("/cron/add", "cronSet=* * * * * *&command=true").refused(503, "leaving");
        assert_eq!(node.wait().code(), Some(0), "{}", node.said());
        assert!(witness.count("begin") <= begun + 1, "at most one was being started when the signal came");
        assert_eq!(witness.count("begin"), witness.count("end"), "{} {:?}", node.said(), witness.read());
        node.start();
        let rows = wait_for("their rows", || Some(node.api.logs_with(id, "ok")).filter(|rows| rows.len() >= begun));
        assert!(rows.len() >= begun);
        assert_eq!(node.api.logs_with(id, "lost").len(), 0);
    }
}

#[test]
fn a_run_that_does_not_end_is_asked_and_then_killed_with_all_that_it_started() {
    let mut node = Node::started("drain_timeout = 1\n");
    let pids = node.path("pids");
    let command = format!(
        "trap '' TERM; echo $$ >> {0}; setsid sleep 300 & echo $! >> {0}; sleep 301; sleep 302",
        pids.display()
    );
    let id = node.api.add("* * * * * *", &command, "is_mutex=1");
    let read = || -> Vec<u32> {
        std::fs::read_to_string(&pids).unwrap_or_default().lines().filter_map(|line| line.parse().ok()).collect()
    };
    wait_until("a run is under way", || read().len() >= 2);
    assert_eq!(node.stop().code(), Some(0), "{}", node.said());
    assert!(read().iter().all(|pid| !is_alive(*pid)));
    node.start();
    let killed = wait_for("its row", || node.api.logs_with(id, "killed").pop());
    assert!(killed["output"].as_str().unwrap().contains("drain_timeout"));
}

#[test]
fn a_second_signal_leaves_no_time() {
    let mut node = Node::started("drain_timeout = 3600\n");
    let witness = Witness::new(node.folder.path(), "seen");
    node.api.add("* * * * * *", &witness.around("sleep 3000"), "");
    wait_until("a run is under way", || witness.count("begin") > 0);
    node.signal(Signal::TERM);
    node.wait_said("shutdown: nothing new is started");
    node.signal(Signal::TERM);
    assert_eq!(node.wait().code(), Some(0), "{}", node.said());
}

#[test]
fn a_clean_end_says_nothing_of_missed_runs_when_it_is_short() {
    let mut node = Node::started("");
    let witness = Witness::new(node.folder.path(), "seen");
    let id = node.api.add("* * * * * *", &witness.write("x"), "");
    wait_until("it runs", || witness.count("x") >= 2);
    node.stop();
    node.start();
    let before = witness.count("x");
    wait_until("it runs again", || before + 2 <= witness.count("x"));
    node.api.get(&format!("/cron/stop/{id}")).ok();
    let mut seconds: Vec<i64> = witness.read().iter().map(|seen| seen.scheduled_at).collect();
    seconds.sort();
    assert!(seconds.windows(2).all(|pair| pair[1] == pair[0] + 1), "the gap was caught up: {seconds:?}");
    witness.attempts("x");
}

#[test]
fn with_no_time_to_drain_a_run_is_still_asked_first() {
    let mut node = Node::started("drain_timeout = 0\n");
    let witness = Witness::new(node.folder.path(), "seen");
    let command = format!("trap 'echo asked; exit 0' TERM; {}; while :; do sleep 0.05; done", witness.write("begin"));
    let id = node.api.add("* * * * * *", &command, "is_mutex=1");
    wait_until("a run is under way", || witness.count("begin") > 0);
    assert_eq!(node.stop().code(), Some(0));
    node.start();
    let killed = wait_for("its row", || node.api.logs_with(id, "killed").pop());
    assert!(killed["output"].as_str().unwrap().contains("asked\n"), "{killed}");
}

#[test]
fn a_daemon_that_is_told_to_end_while_it_starts_is_not_started_again() {
    let mut node = Node::new("");
    for _ in 0..5 {
        node.launch();
        // It has only just become what it is: whether it listens already is a matter of chance.
        node.daemon_pid();
        assert_eq!(node.stop().code(), Some(0), "{}", node.said());
    }
    assert!(!node.said().contains("started again"), "{}", node.said());
}
