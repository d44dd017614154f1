//! How commands are started: what they get from their job, and that they get nothing else.

use super::api::encoded;
use super::crash::{hiding, pids};
use crate::support::daemon::{Node, is_alive, send_signal};
use crate::support::{wait_for, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Runs each of these once (a command, and more of its form) and gives their rows.
fn run_all(node: &Node, jobs: &[(&str, &str)]) -> Vec<Value> {
    let ids: Vec<u64> = jobs.iter().map(|(command, rest)| node.api.add("* * * * * *", command, rest)).collect();
    let first = |id: &u64| {
        let what = format!("a row of job {id}");
        let rows = wait_for(&what, || Some(node.api.logs(&format!("cron_id={id}"))).filter(|rows| !rows.is_empty()));
        rows.last().expect("it is not empty").clone()
    };
    let rows = ids.iter().map(first).collect();
    ids.iter().for_each(|id| drop(node.api.get(&format!("/cron/delete/{id}")).ok()));
    rows
}

fn run(node: &Node, command: &str, rest: &str) -> Value {
    run_all(node, &[(command, rest)]).remove(0)
}

#[track_caller]
fn says(row: &Value, words: &str) {
    let output = row["output"].as_str().expect("it is a text");
    assert!(output.contains(words), "{output:?} does not say {words:?}");
}

/// A run that failed before its command was there.
#[track_caller]
fn not_started(row: &Value, words: &str) {
    assert_eq!(row["state"], "failed", "{row}");
    says(row, "not started: ");
    says(row, words);
}

fn is_root() -> bool {
    let is_root = rustix::process::getuid().is_root();
    if !is_root {
        eprintln!("SKIPPED: only root can become another user");
    }
    is_root
}

/// A file that may be executed.
fn script(node: &Node, name: &str, text: &str) -> String {
    let path = node.path(name);
    std::fs::write(&path, text).expect("the folder takes a file");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("it is ours");
    path.display().to_string()
}

/// Opens a folder to every user.
fn open_to_all(folder: &Path) {
    std::fs::set_permissions(folder, PermissionsExt::from_mode(0o777)).expect("it is ours");
}

#[test]
fn nothing_that_the_daemon_inherited_comes_to_a_run() {
    let mut node = Node::new("")
        .after("exec 7</dev/null 9>/dev/null\nexec env --block-signal --ignore-signal \"$0\" \"$@\"")
        .env("SECRET", "no");
    node.start();
    let command = "grep -E 'Sig(Blk|Ign)' /proc/self/status | tr '\\n\\t' '  '; \
        i=0; while [ $i -lt 64 ]; do [ ! -e /proc/$$/fd/$i ] || echo $i; i=$((i+1)); done";
    let none = "0000000000000000";
    // The C library's own three, which posix_spawn leaves ignored in every child.
    const OWN: u64 = 0b111 << 31;
    for row in run_all(&node, &[(command, ""), (command, "work_dir=/")]) {
        let output = row["output"].as_str().unwrap();
        let rest = output.strip_prefix(&format!("SigBlk: {none} SigIgn: ")).unwrap_or_else(|| panic!("{output}"));
        let (ignored, descriptors) = rest.split_once(' ').unwrap();
        assert_eq!(u64::from_str_radix(ignored, 16).unwrap() & !OWN, 0, "{output}");
        assert_eq!(descriptors, "0\n1\n2\n");
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.guardian_pid())).unwrap();
    assert!(status.contains(&format!("SigBlk:\t{none}")), "{status}");
    assert!(node.stop().success(), "a signal that was ignored is heard");
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
    assert_eq!(limit(daemon), "256", "nothing needs more yet");
    let at = wing_crontab::worker::clock::now().wall.second().0 + 8;
    let window = format!("start_time={at}&end_time={}", at + 1);
    let command = format!("ulimit -Sn; echo started >&2; read line < {}", fifo.display());
    let ids: Vec<u64> = (0..RUNS).map(|_| node.api.add("* * * * * *", &command, &window)).collect();
    wait_until("all of them run", || crate::support::daemon::children(daemon).len() >= RUNS);
    assert_ne!(limit(daemon), "256", "it was not enough");
    let writer = std::fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    std::io::Write::write_all(&mut &writer, "go\n".repeat(RUNS).as_bytes()).unwrap();
    for id in ids {
        let rows = wait_for("its row", || Some(node.api.logs(&format!("cron_id={id}"))).filter(|rows| rows.len() == 1));
        assert_eq!(rows[0]["output"], "256\nstarted\n");
    }
    assert_eq!(run(&node, "ulimit -Sn", "")["output"], "256\n");
    assert_eq!(limit(daemon), "256", "it is given back");
}

#[test]
fn work_dir_env_and_shell_are_the_jobs() {
    let mut node = Node::new("").env("KEPT", "kept").env("CHANGED", "before");
    node.start();
    let folder = node.path("a folder");
    std::fs::create_dir(&folder).unwrap();
    let work_dir = format!("work_dir={}", encoded(folder.to_str().unwrap()));
    let env = format!("env={}", encoded(r#"{"CHANGED":"a b","NEW":"","HOME":"/h"}"#));
    let shell = script(&node, "shell", "#!/bin/sh\necho \"$0 <$1> <$2> $# $CHANGED\"\n");
    let rows = run_all(
        &node,
        &[
            ("pwd; echo $PWD; readlink /proc/$$/cwd; echo $KEPT", &work_dir),
            ("echo $KEPT \"$CHANGED\" ${NEW-not there} $HOME $WING_ATTEMPT; env | grep '^[.]'", &env),
            ("a  'command'", &format!("shell={shell}")),
            ("echo $WING_CRON_ID; ps -o pgid= $$ | tr -d ' '; echo $$", &work_dir),
            ("a command", &format!("shell={shell}&{env}&{work_dir}")),
            ("kill -SEGV $$", &work_dir),
            (":", &format!("{work_dir}&env={}", encoded(r#"{"LD_PRELOAD":"/no/such/library"}"#))),
        ],
    );
    let folder = folder.display();
    assert_eq!(rows[0]["output"], format!("{folder}\n{folder}\n{folder}\nkept\n"));
    assert_eq!(rows[1]["output"], "kept a b /h 1\n[exit code 1]\n");
    assert_eq!(rows[2]["output"], format!("{shell} <-c> <a  'command'> 2 before\n"));
    let lines: Vec<&str> = rows[3]["output"].as_str().unwrap().lines().collect();
    assert_eq!((lines[0], lines[1]), (&*rows[3]["cron_id"].to_string(), lines[2]), "a group of its own");
    assert_eq!(rows[4]["output"], format!("{shell} <-c> <a command> 2 a b\n"));
    assert_eq!(rows[5]["output"], "[killed by signal 11]\n");
    let loaded = rows[6]["output"].as_str().unwrap().matches("/no/such/library").count();
    assert_eq!(loaded, 1, "by the shell alone, and by nothing of ours before it: {}", rows[6]);
}

#[test]
fn what_a_job_asks_for_and_cannot_have_fails_its_run_with_the_reason() {
    let node = Node::started("");
    std::fs::write(node.path("file"), "").unwrap();
    let file = format!("work_dir={}", node.path("file").display());
    let rows = run_all(
        &node,
        &[
            ("echo no", "work_dir=/no/such/folder"),
            ("echo no", &file),
            ("echo no", "shell=/no/such/shell"),
            ("echo no", "run_as=no-such-user"),
            ("echo no", "run_as=4294967295"),
            ("echo no", "run_as=-1"),
        ],
    );
    not_started(&rows[0], "work_dir /no/such/folder: No such file or directory");
    assert_eq!(rows[0]["exit_code"], 125);
    not_started(&rows[1], "Not a directory");
    not_started(&rows[2], "/no/such/shell");
    if is_root() {
        not_started(&rows[3], "run_as no-such-user: there is no such user in /etc/passwd");
        not_started(&rows[4], "run_as 4294967295: there is no such user");
        not_started(&rows[5], "run_as -1: there is no such user");
    }
    assert!(rows.iter().all(|row| !row["output"].as_str().unwrap().contains("no\n[")), "{rows:?}");
}

#[test]
fn an_environment_written_by_hand_that_is_none_fails_its_run_with_the_reason() {
    let node = Node::started("");
    let ids = [r#"{"A":1}"#, "A=b", r#"{"WING_ATTEMPT":"9"}"#].map(|env| {
        let id = node.api.add("* * * * * *", "echo no", "stop=true");
        let database = rusqlite::Connection::open(node.path("data/wing-crontab.db")).unwrap();
        database.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
        database.execute("UPDATE cron SET env = ?, stop = 0 WHERE id = ?", (env, id as i64)).unwrap();
        id
    });
    node.signal(Signal::HUP);
    for (id, words) in ids.into_iter().zip(["a JSON object of texts", "a JSON object of texts", "the daemon's own"]) {
        let row = wait_for("its row", || node.api.logs(&format!("cron_id={id}")).pop());
        not_started(&row, words);
        not_started(&row, "env: ");
    }
}

#[test]
fn a_run_as_a_user_has_all_that_is_the_users_and_nothing_of_the_daemons() {
    if !is_root() {
        return;
    }
    let mut node = Node::new("").env("WING_MYSQL_PASSWORD", "its-password").env("HOME", "/root").env("KEPT", "kept");
    let lines = |path: &str, line: &str| format!("{}{line}\n", std::fs::read_to_string(path).unwrap());
    std::fs::write(node.path("passwd"), lines("/etc/passwd", "wing-test:x:12345:12346:,,,:/home/wing:/bin/false"))
        .unwrap();
    std::fs::write(node.path("group"), lines("/etc/group", "first:x:777:root,wing-test\nsecond:x:778:wing-test"))
        .unwrap();
    // Users of its own, in a mount namespace of its own.
    let users = "mount --bind passwd /etc/passwd && mount --bind group /etc/group || exit 9";
    node = node.after(&format!(
        "[ -n \"$INSIDE\" ] || INSIDE=1 exec unshare -m /bin/sh -c '{users}\nexec \"$0\" \"$@\"' \"$0\" \"$@\""
    ));
    open_to_all(node.folder.path());
    node.start();
    let identity = "echo $(id -un) $(id -u) $(id -g) $(id -G) $HOME $USER $LOGNAME $SHELL $KEPT; grep -E 'Cap(Prm|Eff|Inh|Amb)|Uid' /proc/self/status | tr '\\n\\t' '  '";
    let spy = format!(
        "cat /proc/{guardian}/environ /proc/$PPID/environ; ls -l /proc/$PPID/fd; ls {data}; cat {data}/wing-crontab.db; \
         kill $PPID {guardian}; ps -o user= $PPID",
        guardian = node.guardian_pid(),
        data = node.path("data").display()
    );
    let env = format!("env={}", encoded(r#"{"HOME":"/tmp","LOGNAME":"x"}"#));
    let secret = node.path("secret");
    std::fs::create_dir(&secret).unwrap();
    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o700)).unwrap();
    let rows = run_all(
        &node,
        &[
            (identity, "run_as=wing-test"),
            (identity, &format!("run_as=12345&{env}&shell=/bin/bash")),
            (&spy, "run_as=wing-test"),
            ("pwd", &format!("run_as=wing-test&work_dir={}", secret.display())),
            ("id -u; echo $HOME", "run_as=root"),
            (
                "touch made; stat -c '%u %g' made",
                &format!("run_as=wing-test&work_dir={}", node.folder.path().display()),
            ),
        ],
    );
    let none = "0000000000000000";
    let powers = format!("Uid: 12345 12345 12345 12345 CapInh: {none} CapPrm: {none} CapEff: {none} CapAmb: {none} ");
    let who = "wing-test 12345 12346 12346 777 778";
    assert_eq!(rows[0]["output"], format!("{who} /home/wing wing-test wing-test /bin/sh kept\n{powers}"));
    assert_eq!(rows[1]["output"], format!("{who} /tmp wing-test x /bin/bash kept\n{powers}"));
    let spied = rows[2]["output"].as_str().unwrap();
    assert!(!spied.contains("its-password") && !spied.contains("SQLite") && !spied.contains("socket:"), "{spied}");
    assert!(spied.matches("ermission denied").count() >= 4 && spied.contains("ot permitted"), "{spied}");
    not_started(&rows[3], "Permission denied");
    assert_eq!(rows[4]["output"], "0\n/root\n");
    assert_eq!(rows[5]["output"], "12345 12346\n");
}

#[test]
fn a_daemon_that_is_not_root_starts_nothing_as_a_user() {
    if !is_root() {
        return;
    }
    let mut node = Node::new("").by_user(65_534);
    node.start();
    for row in run_all(&node, &[("echo no", "run_as=root"), ("echo no", "run_as=nobody"), ("echo no", "run_as=65534")])
    {
        not_started(&row, "only a daemon that runs as root");
    }
    let row = run(&node, "id -u; pwd", "work_dir=/");
    assert_eq!(row["output"], "65534\n/\n", "for the rest it needs no root");
}

#[test]
fn a_run_as_a_user_is_ended_whole() {
    if !is_root() {
        return;
    }
    let node = Node::started("");
    open_to_all(node.folder.path());
    node.api.add("* * * * * *", &hiding(&node), "is_mutex=1&run_as=nobody&work_dir=/tmp");
    wait_until("four processes of the run are there", || pids(&node).len() >= 4);
    let first: Vec<u32> = pids(&node)[..4].to_vec();
    send_signal(Signal::KILL, node.daemon_pid());
    wait_until("all of the run is ended", || first.iter().all(|pid| !is_alive(*pid)));
    wait_until("it is back", || node.api.is_up());
}

/// Commands that need no shell and some that do, with what can be told of how they were started.
fn commands(node: &Node) -> Vec<String> {
    let leader = script(
        node,
        "leader",
        "read pid name state parent group rest < /proc/$$/stat; [ $pid = $group ] && echo leads\n",
    );
    let text = script(node, "text", "echo $0 $# \"$1\"\n");
    let lost = script(node, "lost", "#!/no/such/program\n");
    let segv = script(node, "segv", "echo so far; kill -SEGV $$\n");
    let environment = script(
        node,
        "environment",
        "tr '\\0' '\\n' < /proc/$$/environ | grep -vE '^WING_(CRON_ID|RUN_KEY|SCHED)' | LC_ALL=C sort\n",
    );
    let folder = node.folder.path().display();
    let own = [
        format!("sh {leader} a  b"),
        format!("setsid -w sh {leader}"),
        format!("/bin/sh {segv}"),
        format!("sh {environment}"),
        format!("{text} one"),
        format!("{lost} one"),
        format!("{folder}"),
        format!("cat {text} {folder}/none"),
    ];
    let plain = [
        "cat /proc/self/cmdline",
        "  cat\t/proc/self/cmdline  ",
        "/bin/cat /proc/self/cmdline /proc/self/comm",
        "sleep 0",
        "ls /no/such",
        "timeout 0.1 sleep 5",
        "no-such-command one two",
        "/no/such/command",
        "/etc/passwd",
        "expr 1 + 1",
        "expr a = b",
        "echo -e a",
        "printf a",
        "kill -l 9",
        "env A=b cat",
        "A=b cat",
        "cat < /etc/hostname",
        "cat 'a b'",
        "cat a*",
        "cat $HOME",
        "cat `true`",
        "cat ~",
        "cat # x",
        "exec cat /proc/self/cmdline",
        "%1",
        "-c",
        "true; cat /proc/self/cmdline",
        "cat /proc/self/cmdline | cat",
        "readlink /proc/self/fd/0",
        "dd if=/dev/null of=/dev/null bs=1 status=none",
        "{ sleep 0; }",
        "! sleep 0",
    ];
    own.into_iter().chain(plain.map(String::from)).collect()
}

/// Whether rows of the same commands, started as the daemon likes and surely by the shell, are equal.
#[track_caller]
fn compare(node: &Node, shell: &str) {
    let commands = commands(node);
    let rest = format!("shell={shell}");
    let jobs = commands.iter().flat_map(|command| [(&command[..], ""), (&command[..], &rest[..])]);
    let rows = run_all(node, &jobs.collect::<Vec<_>>());
    for (command, pair) in commands.iter().zip(rows.chunks(2)) {
        let told = |row: &Value| json!([row["state"], row["exit_code"], row["output"]]);
        assert_eq!(told(&pair[0]), told(&pair[1]), "{command}");
    }
}

#[test]
fn a_run_is_the_same_with_and_without_the_shell() {
    let node = Node::started("");
    compare(&node, "/bin/sh");
}

#[test]
fn a_shell_that_becomes_its_command_is_spared_and_nobody_can_tell() {
    if !Path::new("/bin/bash").exists() {
        return eprintln!("SKIPPED: there is no bash here");
    }
    let node = Node::new("");
    std::os::unix::fs::symlink("/bin/bash", node.path("bash")).unwrap();
    let shell = node.path("bash").display().to_string();
    node.edit(|text| format!("{text}shell = \"{shell}\"\n"));
    let mut node = node.env("A.B", "no name for a variable").env("SHLVL", "7");
    node.start();
    compare(&node, &shell);
    // Without the shell, what needs it cannot start, and what does not goes on.
    std::fs::remove_file(node.path("bash")).unwrap();
    let rows = run_all(&node, &[("cat /proc/self/comm", ""), ("cat /proc/self/comm;", ""), ("no-such-command", "")]);
    assert_eq!(rows[0]["output"], "cat\n");
    not_started(&rows[1], "is the config key shell right?");
    not_started(&rows[2], "is the config key shell right?");
}

#[test]
fn a_commands_lines_end_as_the_shell_has_them_however_they_came() {
    let node = Node::started("");
    let sent = "for x in a b\r\ndo\r\n  echo $x\r\ndone\r\nprintf 'c\rd'\r\n";
    let (kept, expect) = (sent.replace("\r\n", "\n"), "a\nb\nc\rd");
    let draft = json!({"cronSet": "@yearly", "command": sent});
    let added = node.api.post_json("/cron/add", &draft).ok();
    assert_eq!(added["command"], kept);
    let form = format!("id={}&cronSet=@yearly&command={}", added["id"], encoded(&format!("echo before\r\n{sent}")));
    let updated = node.api.post("/cron/update", &form).ok();
    assert_eq!(updated["command"], format!("echo before\n{kept}"));
    let long = format!("true\r\n{}", "x".repeat(2_043));
    node.api.post_json("/cron/add", &json!({"cronSet": "@yearly", "command": long})).ok();
    // A row as an earlier version, or somebody by hand, has left it.
    let database = rusqlite::Connection::open(node.path("data/wing-crontab.db")).unwrap();
    database.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    database.execute("INSERT INTO cron (id, cron_set, command) VALUES (77, '@yearly', ?)", [sent]).unwrap();
    node.signal(Signal::HUP);
    node.wait_said("reloaded: 1 jobs changed or new");
    for (id, expect) in [(added["id"].as_u64().unwrap(), format!("before\n{expect}")), (77, expect.into())] {
        node.api.post(&format!("/cron/run/{id}"), "").ok();
        let row = wait_for("its row", || node.api.logs(&format!("cron_id={id}")).pop());
        assert_eq!((&row["output"], &row["state"]), (&json!(expect), &json!("ok")), "{row}");
    }
}

#[test]
fn a_command_is_never_taken_for_the_shells_options() {
    let folder = tempfile::tempdir().unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let mut node = Node::new("").env("PATH", &path);
    for name in ["-x", "+x", "--help", "-"] {
        let program = folder.path().join(name);
        std::fs::write(&program, "#!/bin/sh\necho \"$(basename -- \"$0\")\" of ours: \"$@\"\n").unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    }
    node.start();
    let shells = ["", "/bin/sh", "/bin/dash", "/bin/bash", "/bin/zsh", "/bin/ksh", "/bin/mksh", "/usr/bin/yash"];
    for shell in shells.iter().filter(|shell| shell.is_empty() || Path::new(shell).exists()) {
        let rest = format!("shell={shell}");
        let jobs = [("-x a", &*rest), ("+x b", &rest), ("--help c; exit 3", &rest)];
        let rows = run_all(&node, &jobs);
        for (row, expect) in rows.iter().zip(["-x of ours: a\n", "+x of ours: b\n", "--help of ours: c\n"]) {
            assert!(row["output"].as_str().unwrap().starts_with(expect), "{shell}: {row}");
        }
        assert_eq!((&rows[0]["state"], &rows[2]["exit_code"]), (&json!("ok"), &json!(3)), "{shell}");
    }
    // What is no shell gets its own as well.
    if Path::new("/usr/bin/python3").exists() {
        assert_eq!(run(&node, "-print('py')if 0 else print('thon')", "shell=/usr/bin/python3")["output"], "thon\n");
    }
}
