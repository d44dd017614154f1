//! Runs as users who are not in /etc/passwd: users of a real module of the C library (libnss-extrausers), which stands for
//! LDAP, SSSD and all others.

use super::spawning::{is_root, not_started, open_to_all};
use crate::support::daemon::Node;
use crate::support::witness::Witness;
use crate::support::{required, wait_to_see};
use std::fs;
use std::time::{Duration, Instant};

/// nsswitch.conf, the module's users and groups, and what is more in /etc/passwd and /etc/group.
const OWN: &str = "mount --bind nsswitch.conf /etc/nsswitch.conf && mount --bind extrausers /var/lib/extrausers && \
    mount --bind passwd /etc/passwd && mount --bind group /etc/group || exit 9";
/// The node's own `getent` takes the place of the host's.
const OWN_GETENT: &str = "mount --bind getent /usr/bin/getent || exit 9";

fn module() -> Result<(), String> {
    let folders = ["/usr/lib", "/usr/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"];
    let is_there = folders.iter().any(|folder| fs::exists(format!("{folder}/libnss_extrausers.so.2")).unwrap_or(false));
    is_there.then_some(()).ok_or_else(|| "run scripts/install-test-services, which installs it".into())
}

/// A node on a host with two users of the test's own: `near` is in /etc/passwd, `far` is only the module's. Each is in a
/// group of /etc/group and in one of the module's. None: it is not to be had.
fn node_with_far_users(node: Node, mounts: &str) -> Option<Node> {
    if !is_root() {
        return None;
    }
    required("libnss-extrausers", module())?;
    let more = |name: &str, lines: &str| {
        let text = fs::read_to_string(format!("/etc/{name}")).unwrap();
        fs::write(node.path(name), format!("{text}{lines}\n")).unwrap();
    };
    more("passwd", "near:x:54300:54300::/home/near:/bin/sh");
    more("group", "near:x:54300:\nhere:x:54500:far,near");
    fs::write(node.path("nsswitch.conf"), "passwd: files extrausers\ngroup: files extrausers\n").unwrap();
    fs::create_dir(node.path("extrausers")).unwrap();
    fs::write(node.path("extrausers/passwd"), "far:x:54321:54322:,,,:/home/far:/bin/bash\n").unwrap();
    fs::write(node.path("extrausers/group"), "far:x:54322:\nthere:x:54400:far\nboth:x:54401:near,far\n").unwrap();
    let mut node = node.with_own_mounts(&format!("{OWN}\n{mounts}"));
    open_to_all(node.folder.path());
    node.start();
    Some(node)
}

/// Has the node ask a program of its own, which notes each question with its environment. `real` is the host's.
fn with_own_getent(node: Node, body: &str) -> Node {
    fs::copy("/usr/bin/getent", node.path("real")).unwrap();
    let folder = node.folder.path().display();
    let note = format!("echo \"$1 $2 $(env | sort | tr '\\n' ' ')\" >> {folder}/asked\nreal={folder}/real");
    node.script("getent", &format!("#!/bin/sh\n{note}\n{body}\n"));
    node
}

fn asked(node: &Node, question: &str) -> usize {
    let asked = fs::read_to_string(node.path("asked")).unwrap_or_default();
    asked.lines().filter(|line| line.starts_with(question)).count()
}

const IDENTITY: &str = "echo $(id -u) $(id -g) $(id -G) $HOME $USER $LOGNAME";

#[test]
fn a_run_as_a_user_of_any_directory_has_what_a_login_has() {
    let Some(node) = node_with_far_users(Node::new("").env("HOME", "/root"), "") else { return };
    let rows = node.api.run_each(&[
        (IDENTITY, "run_as=far"),
        (IDENTITY, "run_as=54321"),
        (IDENTITY, "run_as=near"),
        ("echo no", "run_as=nobody-at-all"),
        ("echo no", "run_as=54399"),
        ("echo no", "run_as=a:b"),
    ]);
    assert_eq!(rows[0]["output"], "54321 54322 54322 54400 54401 54500 /home/far far far\n");
    assert_eq!(rows[1]["output"], rows[0]["output"]);
    assert_eq!(rows[2]["output"], "54300 54300 54300 54401 54500 /home/near near near\n");
    not_started(
        &rows[3],
        "run_as nobody-at-all: there is no such user in /etc/passwd, nor in another directory of this host",
    );
    not_started(&rows[4], "run_as 54399: there is no such user");
    not_started(&rows[5], "run_as a:b: there is no such user: a name");
}

#[test]
fn many_runs_as_a_user_ask_few_questions_which_show_nothing_of_the_daemon() {
    let node = with_own_getent(Node::new("").env("SECRET", "its-own"), "exec $real \"$@\"");
    let Some(node) = node_with_far_users(node, OWN_GETENT) else { return };
    let witness = node.witness("far");
    fs::write(&witness.path, "").unwrap();
    open_to_all(&witness.path);
    let ids: Vec<u64> = (0..20).map(|_| node.api.add_every_second(&witness.write("far"), "run_as=far")).collect();
    witness.wait_count("far", 60);
    ids.iter().for_each(|id| drop(node.api.delete_job(*id)));
    let (users, groups) = (asked(&node, "passwd far "), asked(&node, "initgroups far "));
    assert!((1..=6).contains(&users) && users == groups, "{users} and {groups} questions for 60 runs");
    let questions = fs::read_to_string(node.path("asked")).unwrap();
    assert!(!questions.contains("its-own") && !questions.contains("WING"), "{questions}");
}

/// Checks that the job of every second ran once in each second, and in time.
#[track_caller]
fn check_steady(steady: &Witness) {
    let seen = steady.read();
    let (first, last) = (seen[0].scheduled_at, seen[seen.len() - 1].scheduled_at);
    let seconds: Vec<i64> = seen.iter().map(|seen| seen.scheduled_at).collect();
    assert!(seconds.iter().copied().eq(first..=last), "{seconds:?}");
    for run in seen {
        let late_ms = (run.at_ns - i128::from(run.scheduled_at) * 1_000_000_000) / 1_000_000;
        assert!(late_ms < 1_500, "{late_ms} ms late: {run:?}");
    }
}

/// Waits until neither the node's own `getent` nor what it has started is there.
#[track_caller]
fn wait_no_question_left() {
    let questions = || {
        let all = fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
        all.filter(|line| line.ends_with(b"sleep\x0086399\0")).count()
    };
    wait_to_see("no question is left", questions, |left| *left == 0);
}

#[test]
fn a_directory_that_hangs_costs_only_the_runs_that_need_it() {
    const HUNG: usize = 12;
    let hangs = "case $2 in slow*|near) sleep 86399;; esac\nexec $real \"$@\"";
    let Some(node) = node_with_far_users(with_own_getent(Node::new(""), hangs), OWN_GETENT) else { return };
    let steady = node.witness("steady");
    node.api.add_every_second(&steady.write("steady"), "");
    steady.wait_count("steady", 1);
    let add = |at: usize| node.api.add_every_second("echo no", &format!("run_as=slow{at}"));
    let since = Instant::now();
    let hung: Vec<u64> = (0..HUNG).map(add).collect();
    let row = node.api.run_once("echo no; id -G", "run_as=slow");
    not_started(
        &row,
        "run_as slow: there is no such user in /etc/passwd, and the host's directories (getent) do not answer",
    );
    let row = node.api.run_once("id -G", "run_as=near");
    assert_eq!(row["output"], "54300 54500\n", "a user of this host runs, with the groups of this host");
    for id in hung {
        let row = node.api.wait_for_first_row(id);
        not_started(&row, "do not answer in time");
    }
    // One after the other they would have waited for two seconds each.
    assert!(since.elapsed() < Duration::from_secs(15), "runs that wait together are refused together");
    steady.wait_more("steady", 4);
    node.wait_said("does not answer within 2000 ms");
    check_steady(&steady);
    node.api.jobs().iter().for_each(|job| drop(node.api.delete_job(job["id"].as_u64().unwrap())));
    wait_no_question_left();
}

#[test]
fn without_getent_the_users_of_passwd_run_and_others_fail_with_the_reason() {
    let node = Node::new("");
    node.script("getent", "#!/no/such/interpreter\n");
    let Some(node) = node_with_far_users(node, OWN_GETENT) else { return };
    let rows = node.api.run_each(&[(IDENTITY, "run_as=near"), ("echo no", "run_as=far")]);
    assert_eq!(rows[0]["output"], "54300 54300 54300 54500 /home/near near near\n");
    not_started(&rows[1], "run_as far: there is no such user in /etc/passwd, and other directories cannot be asked");
    not_started(&rows[1], "getent passwd far: No such file or directory");
}
