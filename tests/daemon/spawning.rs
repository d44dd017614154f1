//! The start of commands: they get what their job asks for, and nothing that belongs to the daemon.

use super::crash::Hidden;
use crate::support::daemon::Node;
use crate::support::jobs::encoded;
use crate::support::process::children;
use crate::support::row::Row;
use crate::support::time::second;
use crate::support::wait_to_see;
use rustix::process::Signal;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

#[track_caller]
fn says(row: &Row, words: &str) {
    assert!(row.output().contains(words), "{:?} does not say {words:?}", row.output());
}

/// Checks that the run failed before its command was started, with this reason.
#[track_caller]
pub fn not_started(row: &Row, words: &str) {
    assert_eq!(row["state"], "failed", "{row}");
    says(row, "not started: ");
    says(row, words);
}

pub fn is_root() -> bool {
    let is_root = rustix::process::getuid().is_root();
    if !is_root {
        eprintln!("SKIPPED: only root can become another user");
    }
    is_root
}

/// Opens a folder to every user.
pub fn open_to_all(folder: &Path) {
    std::fs::set_permissions(folder, PermissionsExt::from_mode(0o777)).expect("the folder is ours");
}

#[test]
fn a_run_inherits_nothing_that_the_daemon_inherited() {
    let mut node = Node::new("")
        .after("exec 7</dev/null 9>/dev/null\nexec env --block-signal --ignore-signal \"$0\" \"$@\"")
        .env("SECRET", "no");
    node.start();
    let command = "grep -E 'Sig(Blk|Ign)' /proc/self/status | tr '\\n\\t' '  '; \
        i=0; while [ $i -lt 64 ]; do [ ! -e /proc/$$/fd/$i ] || echo $i; i=$((i+1)); done";
    let none = "0000000000000000";
    // Signals that the C library keeps for itself: posix_spawn leaves these three ignored in every child.
    const OWN: u64 = 0b111 << 31;
    for row in node.api.run_each(&[(command, ""), (command, "work_dir=/")]) {
        let output = row.output();
        let rest = output.strip_prefix(&format!("SigBlk: {none} SigIgn: ")).unwrap_or_else(|| panic!("{output}"));
        let (ignored, descriptors) = rest.split_once(' ').unwrap();
        assert_eq!(u64::from_str_radix(ignored, 16).unwrap() & !OWN, 0, "{output}");
        assert_eq!(descriptors, "0\n1\n2\n");
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.guardian_pid())).unwrap();
    assert!(status.contains(&format!("SigBlk:\t{none}")), "{status}");
    assert!(node.stop().success(), "the daemon hears a signal that was ignored before it");
}

#[test]
fn a_run_has_the_limit_of_descriptors_that_the_daemon_was_given_however_many_run() {
    const RUNS: usize = 200;
    let mut node = Node::new("max_running = 300\n").after("ulimit -Sn 256");
    node.start();
    let fifo = node.path("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let limit = |pid: u32| {
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap().to_string();
        line.split_whitespace().nth(3).unwrap().to_string()
    };
    let daemon = node.daemon_pid();
    assert_eq!(limit(daemon), "256", "the daemon needs no more descriptors yet");
    let at = second() + 8;
    let command = format!("ulimit -Sn; echo started >&2; read line < {}", fifo.display());
    let ids: Vec<u64> = (0..RUNS).map(|_| node.api.add_once(at, &command, "")).collect();
    wait_to_see("all of them run", || children(daemon).len(), |count| *count >= RUNS);
    assert_ne!(limit(daemon), "256", "the daemon needs more descriptors now");
    let writer = std::fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    std::io::Write::write_all(&mut &writer, "go\n".repeat(RUNS).as_bytes()).unwrap();
    for id in ids {
        assert_eq!(node.api.wait_for_first_row(id)["output"], "256\nstarted\n");
        assert_eq!(node.api.rows(id).len(), 1);
    }
    assert_eq!(node.api.run_once("ulimit -Sn", "")["output"], "256\n");
    assert_eq!(limit(daemon), "256", "the daemon lowers its limit again");
}

#[test]
fn work_dir_env_and_shell_are_the_jobs() {
    let mut node = Node::new("").env("KEPT", "kept").env("CHANGED", "before");
    node.start();
    let folder = node.path("a folder");
    std::fs::create_dir(&folder).unwrap();
    let work_dir = format!("work_dir={}", encoded(folder.to_str().unwrap()));
    let env = format!("env={}", encoded(r#"{"CHANGED":"a b","NEW":"","HOME":"/h"}"#));
    let shell = node.script("shell", "#!/bin/sh\necho \"$0 <$1> <$2> $# $CHANGED\"\n");
    let rows = node.api.run_each(&[
        ("pwd; echo $PWD; readlink /proc/$$/cwd; echo $KEPT", &work_dir),
        ("echo $KEPT \"$CHANGED\" ${NEW-not there} $HOME $WING_ATTEMPT; env | grep '^[.]'", &env),
        ("a  'command'", &format!("shell={shell}")),
        ("echo $WING_CRON_ID; ps -o pgid= $$ | tr -d ' '; echo $$", &work_dir),
        ("a command", &format!("shell={shell}&{env}&{work_dir}")),
        ("kill -SEGV $$", &work_dir),
        (":", &format!("{work_dir}&env={}", encoded(r#"{"LD_PRELOAD":"/no/such/library"}"#))),
    ]);
    let folder = folder.display();
    assert_eq!(rows[0]["output"], format!("{folder}\n{folder}\n{folder}\nkept\n"));
    assert_eq!(rows[1]["output"], "kept a b /h 1\n[exit code 1]\n");
    assert_eq!(rows[2]["output"], format!("{shell} <-c> <a  'command'> 2 before\n"));
    let lines: Vec<&str> = rows[3].output().lines().collect();
    assert_eq!(
        (lines[0], lines[1]),
        (&*rows[3]["cron_id"].to_string(), lines[2]),
        "the run has a process group of its own"
    );
    assert_eq!(rows[4]["output"], format!("{shell} <-c> <a command> 2 a b\n"));
    assert_eq!(rows[5]["output"], "[killed by signal 11]\n");
    let loaded = rows[6].output().matches("/no/such/library").count();
    assert_eq!(loaded, 1, "the shell alone loads it, and no process of the daemon's before it: {}", rows[6]);
}

#[test]
fn a_job_that_asks_for_what_it_cannot_have_fails_with_the_reason() {
    let node = Node::started("");
    std::fs::write(node.path("file"), "").unwrap();
    let file = format!("work_dir={}", node.path("file").display());
    let rows = node.api.run_each(&[
        ("echo no", "work_dir=/no/such/folder"),
        ("echo no", &file),
        ("echo no", "shell=/no/such/shell"),
        ("echo no", "run_as=no-such-user"),
        ("echo no", "run_as=4294967295"),
        ("echo no", "run_as=-1"),
    ]);
    not_started(&rows[0], "work_dir /no/such/folder: No such file or directory");
    assert_eq!(rows[0]["exit_code"], 125);
    not_started(&rows[1], "Not a directory");
    not_started(&rows[2], "/no/such/shell");
    if is_root() {
        not_started(&rows[3], "run_as no-such-user: there is no such user in /etc/passwd");
        not_started(&rows[4], "run_as 4294967295: there is no such user");
        not_started(&rows[5], "run_as -1: there is no such user: a name does not begin with");
    }
    assert!(rows.iter().all(|row| !row.output().contains("no\n[")), "{rows:?}");
}

#[test]
fn an_invalid_environment_written_by_hand_fails_the_run_with_the_reason() {
    let node = Node::started("");
    let ids = [r#"{"A":1}"#, "A=b", r#"{"WING_ATTEMPT":"9"}"#].map(|env| {
        let id = node.api.add_every_second("echo no", "stop=true");
        let database = node.database();
        database.execute("UPDATE cron SET env = ?, stop = 0 WHERE id = ?", (env, id as i64)).unwrap();
        id
    });
    node.signal(Signal::HUP);
    for (id, words) in ids.into_iter().zip(["a JSON object of texts", "a JSON object of texts", "the daemon's own"]) {
        let row = node.api.wait_for_first_row(id);
        not_started(&row, words);
        not_started(&row, "env: ");
    }
}

pub const NO_POWERS: &str = "0000000000000000";

/// Starts the node, which is root's, on a host with a user of the test's own: wing-test, 12345, of group 12346 and two
/// others.
pub fn node_with_own_user(node: Node) -> Node {
    let add_to = |name: &str, lines: &str| {
        let text = std::fs::read_to_string(format!("/etc/{name}")).unwrap();
        std::fs::write(node.path(name), format!("{text}{lines}\n")).unwrap();
    };
    add_to("passwd", "wing-test:x:12345:12346:,,,:/home/wing:/bin/false");
    add_to("group", "first:x:777:root,wing-test\nsecond:x:778:wing-test");
    let users = "mount --bind passwd /etc/passwd && mount --bind group /etc/group || exit 9";
    let mut node = node.with_own_mounts(users);
    open_to_all(node.folder.path());
    node.start();
    node
}

#[test]
fn a_run_as_a_user_is_the_users_in_every_way() {
    if !is_root() {
        return;
    }
    let node = Node::new("").env("HOME", "/root").env("KEPT", "kept");
    let node = node_with_own_user(node);
    let identity = "echo $(id -un) $(id -u) $(id -g) $(id -G) $HOME $USER $LOGNAME $SHELL $KEPT; \
                    grep -E 'Cap(Prm|Eff|Inh|Amb)|Uid' /proc/self/status | tr '\\n\\t' '  '";
    let env = format!("env={}", encoded(r#"{"HOME":"/tmp","LOGNAME":"x"}"#));
    let folder = node.folder.path().display();
    let rows = node.api.run_each(&[
        (identity, "run_as=wing-test"),
        (identity, &format!("run_as=12345&{env}&shell=/bin/bash")),
        ("id -u; echo $HOME", "run_as=root"),
        ("touch made; stat -c '%u %g' made", &format!("run_as=wing-test&work_dir={folder}")),
    ]);
    let none = NO_POWERS;
    let powers = format!("Uid: 12345 12345 12345 12345 CapInh: {none} CapPrm: {none} CapEff: {none} CapAmb: {none} ");
    let who = "wing-test 12345 12346 12346 777 778";
    assert_eq!(rows[0]["output"], format!("{who} /home/wing wing-test wing-test /bin/sh\n{powers}"));
    assert_eq!(rows[1]["output"], format!("{who} /tmp wing-test x /bin/bash\n{powers}"));
    assert_eq!(rows[2]["output"], "0\n/root\n");
    assert_eq!(rows[3]["output"], "12345 12346\n");
}

#[test]
fn a_run_as_a_user_gets_at_nothing_of_the_daemons_or_roots() {
    if !is_root() {
        return;
    }
    let node = node_with_own_user(Node::new("").env("WING_MYSQL_PASSWORD", "its-password"));
    let spy = format!(
        "cat /proc/{guardian}/environ /proc/$PPID/environ; ls -l /proc/$PPID/fd; ls {data}; cat {data}/wing-crontab.db; \
         kill $PPID {guardian}; ps -o user= $PPID",
        guardian = node.guardian_pid(),
        data = node.path("data").display()
    );
    let secret = node.path("secret");
    std::fs::create_dir(&secret).unwrap();
    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o700)).unwrap();
    let in_secret = format!("run_as=wing-test&work_dir={}", secret.display());
    let rows = node.api.run_each(&[(&spy, "run_as=wing-test"), ("pwd", &in_secret)]);
    let spied = rows[0].output();
    assert!(!spied.contains("its-password") && !spied.contains("SQLite") && !spied.contains("socket:"), "{spied}");
    assert!(spied.matches("ermission denied").count() >= 4 && spied.contains("ot permitted"), "{spied}");
    not_started(&rows[1], "Permission denied");
}

#[test]
fn a_daemon_that_is_not_root_starts_nothing_as_a_user() {
    if !is_root() {
        return;
    }
    let mut node = Node::new("").by_user(65_534);
    node.start();
    for row in
        node.api.run_each(&[("echo no", "run_as=root"), ("echo no", "run_as=nobody"), ("echo no", "run_as=65534")])
    {
        not_started(&row, "only a daemon that runs as root");
    }
    let row = node.api.run_once("id -u; pwd", "work_dir=/");
    assert_eq!(row["output"], "65534\n/\n", "a run as the daemon's own user needs no root");
}

#[test]
fn a_run_as_a_user_is_ended_whole() {
    if !is_root() {
        return;
    }
    let node = Node::started("");
    open_to_all(node.folder.path());
    let hidden = Hidden::started(&node, "&run_as=nobody&work_dir=/tmp");
    node.kill_daemon();
    hidden.wait_gone();
    node.wait_up_again();
}
