//! kill -9 at any time: nothing of a run is left behind, nothing starts twice, nothing that was armed is missed.

use crate::support::daemon::{Node, is_alive, send_signal};
use crate::support::witness::Witness;
use crate::support::{wait_for, wait_until};
use rustix::process::Signal;

/// A command that writes down the pids of children that hide in every way there is, and then sleeps.
pub fn hiding(node: &Node) -> String {
    let pids = node.path("pids");
    let pids = pids.display();
    format!(
        "echo $$ >> {pids}; sleep 300 & echo $! >> {pids}; \
         setsid sh -c 'echo $$ >> {pids}; sleep 301' & env -i /bin/sh -c 'echo $$ >> {pids}; setsid sleep 302' & sleep 303"
    )
}

pub fn pids(node: &Node) -> Vec<u32> {
    let text = std::fs::read_to_string(node.path("pids")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

#[test]
fn a_daemon_that_is_killed_leaves_none_of_its_runs_behind_and_is_back() {
    let node = Node::started("");
    let witness = Witness::new(node.folder.path(), "seen");
    let hidden = node.api.add("* * * * * *", &hiding(&node), "is_mutex=1");
    let seconds = node.api.add("* * * * * *", &witness.write("x"), "");
    wait_until("four processes of the run are there", || pids(&node).len() >= 4 && witness.count("x") >= 2);
    let first: Vec<u32> = pids(&node)[..4].to_vec();
    assert!(first.iter().all(|pid| is_alive(*pid)));
    let daemon = node.daemon_pid();
    send_signal(Signal::KILL, daemon);
    wait_until("another daemon is there", || {
        let is_new = node.daemon_pid() != daemon;
        // What hid is dead before the next daemon is started.
        assert!(!is_new || first.iter().all(|pid| !is_alive(*pid)));
        is_new
    });
    wait_until("it answers", || node.api.is_up());
    let before = witness.count("x");
    wait_until("it goes on", || before + 3 <= witness.count("x"));
    node.api.get(&format!("/cron/stop/{seconds}")).ok();
    let lost =
        wait_for("what ran is lost", || Some(node.api.logs_with(hidden, "lost")).filter(|rows| !rows.is_empty()));
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert!(lost[0]["output"].as_str().unwrap().contains("the daemon died while it ran"));
    let seen: Vec<i64> = witness.read().iter().map(|seen| seen.scheduled_at).collect();
    witness.attempts("x");
    let attempts = witness.attempts("x").len();
    wait_until("each run has its row", || {
        let rows = node.api.logs(&format!("cron_id={seconds}"));
        let (first, last) = (seen[0], *seen.last().unwrap());
        attempts <= rows.len() && (first..=last).all(|second| rows.iter().any(|row| row["time"] == second))
    });
}

#[test]
fn killed_again_and_again_it_starts_nothing_twice_and_explains_every_second() {
    let node = Node::started("");
    let witness = Witness::new(node.folder.path(), "seen");
    let ids: Vec<u64> = (0..5).map(|_| node.api.add("* * * * * *", &witness.write("x"), "")).collect();
    for round in 1..=6 {
        // At odd moments: after so many runs, in the middle of a group of starts.
        let seen = witness.count("x");
        wait_until("more runs", || seen + 4 + round <= witness.count("x"));
        send_signal(Signal::KILL, node.daemon_pid());
    }
    wait_until("it is back", || node.api.is_up());
    ids.iter().for_each(|id| drop(node.api.get(&format!("/cron/stop/{id}")).ok()));
    let attempts = witness.attempts("x");
    for id in ids {
        let prefix = format!("{id}-");
        let seconds: Vec<i64> = witness
            .read()
            .iter()
            .filter(|seen| seen.attempt.starts_with(&prefix))
            .map(|seen| seen.scheduled_at)
            .collect();
        let (first, last) = (*seconds.iter().min().unwrap(), *seconds.iter().max().unwrap());
        wait_until("every second has an outcome", || {
            let rows = node.api.logs(&format!("cron_id={id}"));
            (first..=last).all(|second| rows.iter().filter(|row| row["time"] == second).count() == 1)
        });
        for row in node.api.logs_with(id, "missed") {
            assert!(!attempts.contains(&format!("{}#1", row["run_key"].as_str().unwrap())), "{row}");
        }
    }
}

#[test]
fn a_guardian_that_is_killed_takes_its_daemon_and_the_runs_with_it() {
    let mut node = Node::started("");
    node.api.add("* * * * * *", &hiding(&node), "is_mutex=1");
    wait_until("four processes of the run are there", || pids(&node).len() >= 4);
    let (daemon, first) = (node.daemon_pid(), pids(&node)[..4].to_vec());
    node.signal(Signal::KILL);
    node.wait();
    wait_until("daemon and runs are gone", || !is_alive(daemon) && first.iter().all(|pid| !is_alive(*pid)));
    node.start();
    assert_eq!(node.api.get("/cron/list").ok().as_array().unwrap().len(), 1);
}

#[test]
fn a_start_right_after_the_guardians_death_waits_for_the_daemon_to_be_gone() {
    let mut node = Node::started("");
    node.api.add("* * * * * *", &hiding(&node), "is_mutex=1");
    wait_until("four processes of the run are there", || pids(&node).len() >= 4);
    let daemon = node.daemon_pid();
    node.signal(Signal::KILL);
    node.wait();
    node.launch();
    node.daemon_pid();
    assert!(!is_alive(daemon), "no daemon is started beside the old one");
    node.wait_up();
}

#[test]
fn what_was_left_by_both_being_killed_is_ended_at_the_next_start() {
    let mut node = Node::started("");
    let id = node.api.add("* * * * * *", &hiding(&node), "is_mutex=1");
    wait_until("four processes of the run are there", || pids(&node).len() >= 4);
    let first = pids(&node)[..4].to_vec();
    node.kill_whole();
    assert!(first.iter().all(|pid| is_alive(*pid)), "what ran goes on until the next start");
    node.start();
    assert!(first.iter().all(|pid| !is_alive(*pid)));
    wait_until("it is told as lost", || node.api.logs_with(id, "lost").len() == 1);
}

#[test]
fn a_second_one_on_the_same_data_dir_is_refused_with_the_reason() {
    let node = Node::started("");
    let (code, _, stderr) =
        crate::support::daemon::run(node.folder.path(), &["--config", node.config().to_str().unwrap()]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(
        stderr.contains("is in use by another wing-crontab") && stderr.contains(&node.guardian_pid().to_string()),
        "{stderr}"
    );
    assert!(node.api.is_up());
}

#[test]
fn a_daemon_ends_its_own_runs_and_never_those_of_another_on_the_same_host() {
    let mut nodes = [Node::started(""), Node::started("")];
    for node in &mut nodes {
        node.stop();
        // The next tag that it gives: the same for both, which by itself would be chance.
        let marks = std::fs::OpenOptions::new().write(true).open(node.path("data/marks")).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&marks, &7_u64.to_le_bytes(), 6 * 8).unwrap();
        node.start();
        node.api.add("* * * * * *", &hiding(node), "is_mutex=1");
    }
    nodes.iter().for_each(|node| wait_until("its run is there", || pids(node).len() >= 4));
    // A process that has nothing to do with either, and by chance the slack that is the first run's tag.
    let mut stranger = std::thread::spawn(|| {
        rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(50_001 + 7)).unwrap();
        std::process::Command::new("sleep").arg("300").spawn().unwrap()
    })
    .join()
    .unwrap();
    let [mine, others] = [0, 1].map(|at| pids(&nodes[at])[..4].to_vec());
    send_signal(Signal::KILL, nodes[0].daemon_pid());
    wait_until("its own run is ended", || mine.iter().all(|pid| !is_alive(*pid)));
    wait_until("it is back", || nodes[0].api.is_up());
    assert!(others.iter().all(|pid| is_alive(*pid)), "the other's run goes on");
    assert!(matches!(stranger.try_wait(), Ok(None)), "and so does the stranger");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[test]
fn without_being_root_nothing_is_left_behind_either() {
    if !rustix::process::getuid().is_root() {
        eprintln!("SKIPPED: only root can become another user");
        return;
    }
    let mut node = Node::new("").by_user(65_534).env("WING_CONSUL_TOKEN", "its-token");
    node.start();
    let spy = format!("cat /proc/$PPID/environ /proc/{}/environ", node.guardian_pid());
    let spy = node.api.add("* * * * * *", &spy, "");
    let row = wait_for("the spy has tried", || node.api.logs(&format!("cron_id={spy}")).pop());
    assert!(!row["output"].as_str().unwrap().contains("its-token"), "{row}");
    node.api.get(&format!("/cron/delete/{spy}")).ok();
    node.api.add("* * * * * *", &hiding(&node), "is_mutex=1");
    wait_until("four processes of the run are there", || pids(&node).len() >= 4);
    let first = pids(&node)[..4].to_vec();
    send_signal(Signal::KILL, node.daemon_pid());
    wait_until("all of the run is ended", || first.iter().all(|pid| !is_alive(*pid)));
    wait_until("it is back", || node.api.is_up());
}

#[test]
fn a_daemon_that_cannot_be_started_again_just_now_is_tried_until_it_can() {
    let mut node = Node::started("");
    node.api.add("0 0 0 1 1 *", "true", "");
    node.edit(|text| format!("{text}no_such_key = 1\n"));
    send_signal(Signal::KILL, node.daemon_pid());
    node.wait_said("no_such_key");
    node.wait_said("the daemon could not be started; it is tried again");
    node.edit(|text| text.replace("no_such_key = 1\n", ""));
    wait_until("it is back", || node.api.is_up());
    assert_eq!(node.api.get("/cron/list").ok().as_array().unwrap().len(), 1);
    node.edit(|text| format!("{text}no_such_key = 1\n"));
    send_signal(Signal::KILL, node.daemon_pid());
    wait_until("it is tried again", || node.said().matches("it is tried again").count() >= 2);
    assert_eq!(node.stop().code(), Some(0), "told to end while no daemon runs, it ends");
}
