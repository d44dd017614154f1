//! kill -9 at any time: no process of a run is left behind, no run starts twice, and no second is without outcome.

use crate::support::daemon::{Node, run};
use crate::support::process::{is_alive, send_signal};
use crate::support::{wait_to_see, wait_until};
use rustix::process::Signal;

/// A run of a mutex job whose processes hide in every way that is known.
pub struct Hidden {
    pub id: u64,
    pids: Vec<u32>,
}

impl Hidden {
    /// Adds the job and waits until four processes of its run are there. `rest` is more of the job's form.
    pub fn started(node: &Node, rest: &str) -> Hidden {
        let path = node.path("pids");
        let pids = path.display();
        let command = format!(
            "echo $$ >> {pids}; sleep 300 & echo $! >> {pids}; \
             setsid sh -c 'echo $$ >> {pids}; sleep 301' & \
             env -i /bin/sh -c 'echo $$ >> {pids}; setsid sleep 302' & sleep 303"
        );
        let id = node.api.add_every_second(&command, &format!("is_mutex=1{rest}"));
        let read = || -> Vec<u32> {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            text.lines().filter_map(|line| line.parse().ok()).collect()
        };
        let pids = wait_to_see("four processes of the run", read, |pids| pids.len() >= 4);
        Hidden { id, pids: pids[..4].to_vec() }
    }

    pub fn all_live(&self) -> bool {
        self.pids.iter().all(|pid| is_alive(*pid))
    }

    pub fn all_are_gone(&self) -> bool {
        !self.pids.iter().any(|pid| is_alive(*pid))
    }

    #[track_caller]
    pub fn wait_gone(&self) {
        wait_until("all processes of the run are gone", || self.all_are_gone());
    }
}

#[test]
fn a_daemon_that_is_killed_leaves_none_of_its_runs_behind_and_is_back() {
    let node = Node::started("");
    let witness = node.witness("seen");
    let hidden = Hidden::started(&node, "");
    let seconds = node.api.add_every_second(&witness.write("x"), "");
    witness.wait_count("x", 2);
    assert!(hidden.all_live());
    let daemon = node.daemon_pid();
    send_signal(Signal::KILL, daemon);
    node.wait_for_other_daemon(daemon);
    assert!(hidden.all_are_gone(), "the run is ended before the next daemon is started");
    node.wait_up_again();
    witness.wait_more("x", 3);
    node.api.stop_job(seconds);
    let lost = node.api.wait_for_rows(hidden.id, "lost", 1);
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert!(lost[0].output().contains("the daemon died while it ran"));
    let attempts = witness.attempts("x").len();
    let seen = witness.seconds("x");
    let rows = node.api.wait_for_one_row_each(seconds, seen[0], *seen.last().unwrap());
    assert!(attempts <= rows.len(), "{attempts} runs: {rows:?}");
}

#[test]
fn a_daemon_that_is_killed_again_and_again_starts_nothing_twice_and_explains_every_second() {
    let node = Node::started("");
    let witness = node.witness("seen");
    let ids: Vec<u64> = (0..5).map(|_| node.api.add_every_second(&witness.write("x"), "")).collect();
    for round in 1..=6 {
        // The number of runs grows, so that the daemon also dies in the middle of a group of starts.
        witness.wait_more("x", 4 + round);
        node.kill_daemon();
    }
    node.wait_up_again();
    ids.iter().for_each(|id| drop(node.api.stop_job(*id)));
    let attempts = witness.attempts("x");
    for id in ids {
        let prefix = format!("{id}-");
        let seen = witness.read().into_iter().filter(|seen| seen.attempt.starts_with(&prefix));
        let seconds: Vec<i64> = seen.map(|seen| seen.scheduled_at).collect();
        let (first, last) = (*seconds.iter().min().unwrap(), *seconds.iter().max().unwrap());
        node.api.wait_for_one_row_each(id, first, last);
        for row in node.api.rows_with(id, "missed") {
            assert!(!attempts.contains(&row.attempt()), "{row} was run");
        }
    }
}

#[test]
fn a_guardian_that_is_killed_takes_its_daemon_and_the_runs_with_it() {
    let mut node = Node::started("");
    let hidden = Hidden::started(&node, "");
    let daemon = node.daemon_pid();
    node.signal(Signal::KILL);
    node.wait();
    wait_until("the daemon is gone", || !is_alive(daemon));
    hidden.wait_gone();
    node.start();
    assert_eq!(node.api.jobs().len(), 1);
}

#[test]
fn a_start_right_after_the_guardians_death_waits_for_the_daemon_to_be_gone() {
    let mut node = Node::started("");
    Hidden::started(&node, "");
    let daemon = node.daemon_pid();
    node.signal(Signal::KILL);
    node.wait();
    node.launch();
    node.daemon_pid();
    assert!(!is_alive(daemon), "no daemon is started beside the former one");
    node.wait_up();
}

#[test]
fn runs_left_behind_by_a_killed_daemon_and_its_killed_guardian_are_ended_at_the_next_start() {
    let mut node = Node::started("");
    let hidden = Hidden::started(&node, "");
    node.kill_whole();
    assert!(hidden.all_live(), "the run goes on until the next start");
    node.start();
    assert!(hidden.all_are_gone());
    assert_eq!(node.api.wait_for_rows(hidden.id, "lost", 1).len(), 1);
}

#[test]
fn a_second_daemon_on_the_same_data_dir_is_refused_with_the_reason() {
    let node = Node::started("");
    let (code, _, stderr) = run(node.folder.path(), &["--config", node.config().to_str().unwrap()]);
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
        // Both daemons will give the same tag next, which otherwise would happen rarely.
        let marks = std::fs::OpenOptions::new().write(true).open(node.path("data/marks")).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&marks, &7_u64.to_le_bytes(), 6 * 8).unwrap();
        node.start();
    }
    let [mine, others] = nodes.each_ref().map(|node| Hidden::started(node, ""));
    // A process that neither daemon has started, but whose timer slack is the first run's tag.
    let mut stranger = std::thread::spawn(|| {
        rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(50_001 + 7)).unwrap();
        std::process::Command::new("sleep").arg("300").spawn().unwrap()
    })
    .join()
    .unwrap();
    nodes[0].kill_daemon();
    mine.wait_gone();
    nodes[0].wait_up_again();
    assert!(others.all_live(), "the other daemon's run goes on");
    assert!(matches!(stranger.try_wait(), Ok(None)), "the stranger goes on");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[test]
fn a_daemon_that_is_not_root_leaves_nothing_behind_either() {
    if !rustix::process::getuid().is_root() {
        eprintln!("SKIPPED: only root can become another user");
        return;
    }
    let mut node = Node::new("").by_user(65_534).env("WING_CONSUL_TOKEN", "its-token");
    node.start();
    let spy = format!("cat /proc/$PPID/environ /proc/{}/environ", node.guardian_pid());
    let spy = node.api.add_every_second(&spy, "");
    let row = node.api.wait_for_first_row(spy);
    assert!(!row.output().contains("its-token"), "{row}");
    node.api.delete_job(spy);
    let hidden = Hidden::started(&node, "");
    node.kill_daemon();
    hidden.wait_gone();
    node.wait_up_again();
}

#[test]
fn a_daemon_that_cannot_be_started_again_just_now_is_tried_until_it_can() {
    let mut node = Node::started("");
    node.api.add_idle("true", "");
    node.edit(|text| format!("{text}no_such_key = 1\n"));
    node.kill_daemon();
    node.wait_said("no_such_key");
    node.wait_said("the daemon could not be started; it is tried again");
    node.edit(|text| text.replace("no_such_key = 1\n", ""));
    node.wait_up_again();
    assert_eq!(node.api.jobs().len(), 1);
    node.edit(|text| format!("{text}no_such_key = 1\n"));
    node.kill_daemon();
    node.wait_said_times("it is tried again", 2);
    assert_eq!(node.stop().code(), Some(0), "a guardian without a daemon ends when it is told to");
}
