//! Runs with and without the shell: where the daemon starts a command directly, nobody can tell the difference.

use super::spawning::not_started;
use crate::support::daemon::Node;
use crate::support::jobs::encoded;
use crate::support::row::Row;
use rustix::process::Signal;
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Commands whose runs can tell how they were started: by the shell, or directly.
const PLAIN: [&str; 32] = [
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

/// These commands, and some that start a script of the test's own.
fn commands(node: &Node) -> Vec<String> {
    let leader = node
        .script("leader", "read pid name state parent group rest < /proc/$$/stat; [ $pid = $group ] && echo leads\n");
    let text = node.script("text", "echo $0 $# \"$1\"\n");
    let lost = node.script("lost", "#!/no/such/program\n");
    let segv = node.script("segv", "echo so far; kill -SEGV $$\n");
    let environment = node.script(
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
    own.into_iter().chain(PLAIN.map(String::from)).collect()
}

/// Checks that rows are equal whether the daemon chooses how to start the commands, or has to use the shell.
#[track_caller]
fn compare(node: &Node, shell: &str) {
    let commands = commands(node);
    let rest = format!("shell={shell}");
    let jobs = commands.iter().flat_map(|command| [(&command[..], ""), (&command[..], &rest[..])]);
    let rows = node.api.run_each(&jobs.collect::<Vec<_>>());
    for (command, pair) in commands.iter().zip(rows.chunks(2)) {
        let told = |row: &Row| json!([row["state"], row["exit_code"], row["output"]]);
        assert_eq!(told(&pair[0]), told(&pair[1]), "{command}");
    }
}

#[test]
fn a_run_is_the_same_with_and_without_the_shell() {
    let node = Node::started("");
    compare(&node, "/bin/sh");
}

#[test]
fn a_shell_that_would_only_become_its_command_is_left_out_and_nobody_can_tell() {
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
    // Without the shell, a command that needs it cannot start; the first one needs none.
    std::fs::remove_file(node.path("bash")).unwrap();
    let rows = node.api.run_each(&[("cat /proc/self/comm", ""), ("cat /proc/self/comm;", ""), ("no-such-command", "")]);
    assert_eq!(rows[0]["output"], "cat\n");
    not_started(&rows[1], "is the config key shell right?");
    not_started(&rows[2], "is the config key shell right?");
}

#[test]
fn the_line_ends_of_a_command_are_the_shells_however_it_was_sent() {
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
    // A row as an earlier version wrote it, or as somebody writes it by hand.
    let database = node.database();
    database.execute("INSERT INTO cron (id, cron_set, command) VALUES (77, '@yearly', ?)", [sent]).unwrap();
    node.signal(Signal::HUP);
    node.wait_said("reloaded: 1 jobs changed or new");
    for (id, expect) in [(added["id"].as_u64().unwrap(), format!("before\n{expect}")), (77, expect.into())] {
        node.api.run_job(id);
        let row = node.api.wait_for_first_row(id);
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
        let rows = node.api.run_each(&jobs);
        for (row, expect) in rows.iter().zip(["-x of ours: a\n", "+x of ours: b\n", "--help of ours: c\n"]) {
            assert!(row.output().starts_with(expect), "{shell}: {row}");
        }
        assert_eq!((&rows[0]["state"], &rows[2]["exit_code"]), (&json!("ok"), &json!(3)), "{shell}");
    }
    // A program that is no shell gets the command, too.
    if Path::new("/usr/bin/python3").exists() {
        assert_eq!(
            node.api.run_once("-print('py')if 0 else print('thon')", "shell=/usr/bin/python3")["output"],
            "thon\n"
        );
    }
}
