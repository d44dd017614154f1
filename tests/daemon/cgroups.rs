//! Control groups: no process of a run escapes its end, whatever it does to hide; and what a run took is told.
//!
//! The pids are those that the jobs' own processes wrote down.

use crate::support::daemon::{BINARY, Node};
use crate::support::process::{is_alive, send_signal};
use crate::support::{required, wait_for, wait_to_see, wait_until};
use rustix::process::Signal;
use std::path::PathBuf;

/// The folder of the node's control groups; none where it has none here.
pub fn folder(node: &Node) -> Option<PathBuf> {
    let said = node.said();
    let line = said.lines().find(|line| line.contains("runs have "));
    let line = line.unwrap_or_else(|| panic!("the guardian says what runs have: {said}"));
    let path = line.split_once("runs have control groups").and_then(|(_, rest)| rest.split_once(" below "));
    required("a cgroup2 file system that can be written", path.map(|(_, path)| path.into()).ok_or(line.to_string()))
}

/// The groups of runs that are there.
fn groups(folder: &PathBuf) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("run-")).collect()
}

/// A command with which a run starts a process that hides in every way: it has the usual timer slack, a session of its
/// own, no parent and no environment. `what` is that process.
pub fn hidden(node: &Node, what: &str) -> String {
    let text = format!(
        "#!/bin/sh\necho 50000 > /proc/self/timerslack_ns\n\
         (setsid env -i /bin/sh -c 'echo $$ >> {}; {what}' &)\n",
        node.path("pids").display()
    );
    node.script("hide", &text)
}

/// The pids of the hidden processes, once there are so many.
pub fn pids(node: &Node, count: usize) -> Vec<u32> {
    let read = || -> Vec<u32> {
        let text = std::fs::read_to_string(node.path("pids")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    };
    let pids = wait_to_see("the hidden processes", read, |pids| count <= pids.len());
    wait_until("the parents of the hidden processes are gone", || {
        pids.iter().all(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
            parent.is_none_or(|parent: u32| parent == node.guardian_pid() || !is_alive(*pid))
        })
    });
    pids
}

#[test]
fn a_run_that_hides_is_dead_when_its_kill_is_answered() {
    let node = Node::started("kill_grace = 1\n");
    let Some(folder) = folder(&node) else { return };
    let hide = hidden(&node, "exec sleep 300");
    // The first ends when it is asked to; the second ignores that.
    for (count, rest) in [(1, "sleep 301"), (2, "trap \"\" TERM; while :; do sleep 302; done")] {
        let id = node.api.add_idle(&format!("{hide}; {rest}"), "");
        let run = node.api.run_job(id);
        let pid = pids(&node, count)[count - 1];
        let answer = node.api.post(&format!("/run/kill/{run}"), "").ok();
        assert!(!is_alive(pid), "{answer}");
        assert_eq!(answer, serde_json::json!({"run_key": run, "cron_id": id, "state": "killed"}));
        assert_eq!(node.api.wait_for_row(id, "killed")["output"], "[killed: by an operator]\n");
    }
    wait_to_see("the groups are removed", || groups(&folder), Vec::is_empty);
}

#[test]
fn a_hidden_process_is_asked_to_end_before_it_is_killed() {
    let node = Node::started("");
    if folder(&node).is_none() {
        return;
    }
    let told = node.path("told");
    let polite = format!("trap \"echo once >> {}; exit\" TERM; while :; do sleep 0.05; done", told.display());
    let id = node.api.add_idle(&format!("{}; sleep 301", hidden(&node, &polite)), "");
    let run = node.api.run_job(id);
    pids(&node, 1);
    assert_eq!(node.api.kill_run(&run), "killed");
    assert_eq!(std::fs::read_to_string(told).unwrap(), "once\n");
}

#[test]
fn a_run_that_hides_is_ended_by_its_timeout() {
    let node = Node::started("");
    if folder(&node).is_none() {
        return;
    }
    let id = node.api.add_idle(&format!("{}; sleep 301", hidden(&node, "exec sleep 300")), "timeout=1");
    node.api.run_job(id);
    let hidden = pids(&node, 1)[0];
    assert_eq!(node.api.wait_for_row(id, "timeout")["output"], "[ended: it ran longer than its job's timeout]\n");
    assert!(!is_alive(hidden));
}

#[test]
fn a_run_that_hides_ends_with_its_daemon() {
    let node = Node::started("");
    let Some(folder) = folder(&node) else { return };
    let id = node.api.add_idle(&format!("{}; sleep 301", hidden(&node, "exec sleep 300")), "");
    node.api.run_job(id);
    let hidden = pids(&node, 1)[0];
    let daemon = node.daemon_pid();
    node.kill_daemon();
    node.wait_for_other_daemon(daemon);
    assert!(!is_alive(hidden), "it is ended before the next daemon is started");
    node.wait_up_again();
    node.api.wait_for_row(id, "lost");
    wait_to_see("the groups are removed", || groups(&folder), Vec::is_empty);
}

#[test]
fn a_run_that_hides_from_a_killed_daemon_and_its_killed_guardian_is_ended_at_the_next_start_and_no_other_one() {
    let (mut node, other) = (Node::started(""), Node::started(""));
    let Some(folder) = folder(&node) else { return };
    for node in [&node, &other] {
        let id = node.api.add_idle(&format!("{}; sleep 301", hidden(node, "exec sleep 300")), "");
        node.api.run_job(id);
    }
    let [mine, others] = [&node, &other].map(|node| pids(node, 1)[0]);
    node.kill_whole();
    assert!(is_alive(mine), "the run goes on until the next start");
    node.start();
    assert!(!is_alive(mine));
    assert!(is_alive(others), "the other daemon's run goes on");
    wait_to_see("the groups are removed", || groups(&folder), Vec::is_empty);
    node.stop();
    assert!(!folder.exists(), "the folder goes with the guardian");
}

#[test]
fn what_a_run_leaves_behind_on_purpose_lives_on_and_its_group_goes_with_it() {
    let node = Node::started("");
    let Some(folder) = folder(&node) else { return };
    let gate = node.gate();
    let row = node.api.run_once(&hidden(&node, &gate.wait()), "");
    assert_eq!(row.state(), "ok");
    let left = pids(&node, 1)[0];
    // Many other runs, and another daemon, do not change that.
    node.api.run_once("true", "");
    assert_eq!(groups(&folder).len(), 1);
    let daemon = node.daemon_pid();
    node.kill_daemon();
    node.wait_for_other_daemon(daemon);
    node.wait_up_again();
    assert!(is_alive(left));
    gate.open();
    wait_until("it ends by itself", || !is_alive(left));
    wait_to_see("its group is removed", || groups(&folder), Vec::is_empty);
}

/// A group of the test's own, which is removed at its end.
struct Outer(PathBuf);

impl Outer {
    fn new(name: &str) -> Option<Outer> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let point = mounts.lines().find(|line| line.contains(" - cgroup2 ")).and_then(|line| line.split(' ').nth(4));
        let made = point.ok_or("no cgroup2 file system is mounted".to_string()).and_then(|point| {
            let path = PathBuf::from(format!("{point}/wing-test-{name}-{}", std::process::id()));
            std::fs::create_dir(&path).map(|()| Outer(path)).map_err(|error| error.to_string())
        });
        required("a cgroup2 file system that can be written", made)
    }

    fn pids(&self, group: &str) -> Vec<u32> {
        let text = std::fs::read_to_string(self.0.join(group).join("cgroup.procs")).unwrap_or_default();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }
}

impl Drop for Outer {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(self.0.join("daemon"));
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn in_a_delegated_group_guardian_and_daemon_go_into_one_below_it_and_nobody_else_is_moved() {
    let Some(outer) = Outer::new("delegated") else { return };
    let delegate = rustix::fs::setxattr(&outer.0, "user.delegate", b"1", rustix::fs::XattrFlags::empty());
    delegate.expect("systemd writes the same");
    let mut bystander = std::process::Command::new("sleep").arg("300").spawn().unwrap();
    std::fs::write(outer.0.join("cgroup.procs"), bystander.id().to_string()).unwrap();
    let mut node = Node::new("").after(&format!("echo 0 > {}/cgroup.procs", outer.0.display()));
    node.start();
    let folder = folder(&node).expect("groups can be made here");
    assert!(folder.starts_with(&outer.0), "{}", folder.display());
    assert_eq!(outer.pids("daemon"), [node.guardian_pid(), node.daemon_pid()]);
    assert_eq!(outer.pids(""), [bystander.id()]);
    let row = node.api.run_once("sed -n s/^0:://p /proc/self/cgroup", "");
    assert!(row.output().contains(&format!("{}/run-", folder.file_name().unwrap().display())), "{row}");
    node.stop();
    bystander.kill().unwrap();
    bystander.wait().unwrap();
    assert!(!folder.exists());
}

#[test]
fn a_run_of_another_user_can_leave_its_group_by_no_write() {
    if !rustix::process::getuid().is_root() {
        eprintln!("SKIPPED: only root can start commands as another user");
        return;
    }
    let node = Node::started("");
    let Some(folder) = folder(&node) else { return };
    let mount = folder.parent().unwrap().display();
    let command = format!(
        "for file in {}/run-*/cgroup.procs {}/cgroup.procs {mount}/cgroup.procs; do echo 0 > $file && echo left; done; \
         mkdir {}/run-own && echo made; ls /proc/self/fd | wc -l",
        folder.display(),
        folder.display(),
        folder.display()
    );
    let row = node.api.run_once(&command, "run_as=nobody");
    assert!(!row.output().contains("left\n") && !row.output().contains("made\n"), "{row}");
    assert_eq!(row.output().lines().last(), Some("4"), "its inputs and outputs, and the folder that ls reads: {row}");
}

/// A command that goes on until it has had half a second of processor time, as the kernel tells it.
const BUSY: &str = "u=0; while [ $u -lt 50 ]; do i=0; while [ $i -lt 10000 ]; do i=$((i+1)); done; \
                    read -r _ _ _ _ _ _ _ _ _ _ _ _ _ u _ < /proc/$$/stat; done";

#[test]
fn a_row_tells_the_processor_time_of_all_that_its_run_started() {
    let node = Node::started("");
    let Some(_) = folder(&node) else { return };
    // Nobody waits for the hidden one of the two, but for its word.
    let word = node.path("word");
    let word = word.display();
    let hide = hidden(&node, &format!("{BUSY}; echo > {word}"));
    let row = node.api.run_once(&format!("mkfifo {word}; {hide}; sh -c '{BUSY}'; cat {word}"), "");
    let cpu_ms = row["cpu_ms"].as_u64().unwrap();
    assert!((990..=1_200).contains(&cpu_ms), "{row}");
    let row = node.api.run_once("true", "");
    assert!(row["cpu_ms"].as_u64().unwrap() < 200, "{row}");
}

#[test]
fn a_thousand_quick_runs_leave_no_group_behind() {
    let node = Node::started("");
    let Some(folder) = folder(&node) else { return };
    let witness = node.witness("seen");
    let ids: Vec<u64> = (0..100).map(|_| node.api.add_every_second(&witness.write("x"), "")).collect();
    witness.wait_count("x", 1_000);
    ids.iter().for_each(|id| drop(node.api.stop_job(*id)));
    wait_to_see("the groups are removed", || groups(&folder).len(), |count| *count == 0);
    assert!(!node.said().contains("make the control group"), "{}", node.said());
}

/// Tells the usual of a node whose runs have no groups.
fn works_without_groups(node: &Node, why: &str) {
    node.wait_said(why);
    let row = node.api.run_once(&format!("sh -c '{BUSY}'; echo done"), "");
    assert!(row.output().contains("done"), "{row}");
    let cpu_ms = row["cpu_ms"].as_u64().unwrap();
    assert!((495..=600).contains(&cpu_ms), "the time of the processes that the command waited for: {row}");
    // It has left its process group, but has the run's tag.
    let child = node.path("child");
    let id = node.api.add_idle(&format!("setsid sh -c 'echo $$ > {}; sleep 300' & sleep 301", child.display()), "");
    let run = node.api.run_job(id);
    let read = || std::fs::read_to_string(&child).ok().and_then(|text| text.trim().parse::<u32>().ok());
    let child = wait_for("the pid of the run's child", read);
    let answer = node.api.post(&format!("/run/kill/{run}"), "").ok();
    assert!(!is_alive(child), "{answer}");
    let left = "perhaps processes that hid: its node has no control groups by which to find them";
    assert_eq!((&answer["state"], &answer["left"]), (&"killed".into(), &left.into()));
    assert_eq!(node.api.wait_for_row(id, "killed")["output"], "[killed: by an operator]\n");
}

#[test]
fn without_control_groups_all_else_works_and_the_limit_is_stated() {
    let node = Node::started("run_cgroup = \"off\"\n");
    works_without_groups(&node, "runs have no control groups: run_cgroup = \"off\"");
}

#[test]
fn where_groups_cannot_be_made_the_reason_is_told_and_all_else_works() {
    if !rustix::process::getuid().is_root() {
        eprintln!("SKIPPED: only root can make a mount namespace");
        return;
    }
    let Some(outer) = Outer::new("read-only") else { return };
    let point = outer.0.parent().unwrap().display();
    let mut node = Node::new("").with_own_mounts(&format!("mount -o remount,ro,bind {point}"));
    node.start();
    works_without_groups(&node, "Read-only file system");
}

#[test]
fn a_process_that_cannot_be_killed_is_told_with_the_answer_and_in_the_row() {
    // A frozen group of the first cgroup version keeps even KILL waiting.
    let made = PathBuf::from(format!("/sys/fs/cgroup/freezer/wing-test-{}", std::process::id()));
    let frozen = std::fs::create_dir(&made).map(|()| made.clone()).map_err(|error| error.to_string());
    let Ok(frozen) = frozen else {
        eprintln!("SKIPPED: no freezer of cgroup v1 is to be had: {frozen:?}");
        return;
    };
    let node = Node::started("kill_grace = 1\n");
    let id = node.api.add_idle(&format!("{}; sleep 301", hidden(&node, "exec sleep 300")), "");
    let run = node.api.run_job(id);
    let hidden = pids(&node, 1)[0];
    std::fs::write(frozen.join("cgroup.procs"), hidden.to_string()).unwrap();
    std::fs::write(frozen.join("freezer.state"), "FROZEN").unwrap();
    let state = || std::fs::read_to_string(frozen.join("freezer.state")).unwrap();
    wait_to_see("the process is frozen", state, |state| state == "FROZEN\n");
    let answer = node.api.post(&format!("/run/kill/{run}"), "");
    std::fs::write(frozen.join("freezer.state"), "THAWED").unwrap();
    wait_until("the process is dead once it can be", || !is_alive(hidden));
    wait_until("the frozen group is removed", || std::fs::remove_dir(&frozen).is_ok());
    let answer = answer.ok();
    if folder(&node).is_some() {
        let left = format!("1 processes were killed and are still there (uninterruptible sleep?): {hidden}");
        assert_eq!((&answer["state"], &answer["left"]), (&"killed".into(), &(*left).into()));
        let row = node.api.wait_for_row(id, "killed");
        assert_eq!(row["output"], format!("[killed: by an operator]\n[left: {left}]\n"));
    }
}

#[test]
fn a_daemon_that_a_run_of_another_one_starts_outlives_that_run() {
    let node = Node::started("");
    let Some(folder) = folder(&node) else { return };
    let inner = Node::new("");
    // The run starts the other guardian, as a deployment by a job does.
    let start = format!("setsid {BINARY} --config {} 2>> {}", inner.config().display(), inner.path("stderr").display());
    let id = node.api.add_idle(&format!("{start} & sleep 301"), &format!("work_dir={}", inner.folder.path().display()));
    let run = node.api.run_job(id);
    inner.wait_up_again();
    let guardian = std::fs::read_to_string(inner.path("data/lock")).unwrap().trim().parse().unwrap();
    assert_eq!(node.api.kill_run(&run), "killed");
    let is_up = inner.api.is_up();
    send_signal(Signal::TERM, guardian);
    wait_until("the inner daemon has ended", || !is_alive(guardian));
    assert!(is_up, "{}", inner.said());
    wait_to_see("the groups are removed", || groups(&folder), Vec::is_empty);
}

#[test]
fn a_process_that_takes_a_guardians_name_ends_with_its_run_without_control_groups_too() {
    let node = Node::started("run_cgroup = \"off\"\nkill_grace = 1\n");
    let (program, pid) = (node.path("wing-guardian"), node.path("pid"));
    std::fs::copy("/bin/sleep", &program).unwrap();
    let command = format!("trap '' TERM; {} 1000 & echo $! > {}; wait", program.display(), pid.display());
    let run = node.api.run_job(node.api.add_idle(&command, ""));
    let read = || std::fs::read_to_string(&pid).ok()?.trim().parse().ok();
    let pid: u32 = wait_for("the process runs", read);
    node.api.kill_run(&run);
    assert!(!is_alive(pid), "it has outlived its kill");
}
