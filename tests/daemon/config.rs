//! app.toml: all of its mistakes are said before anything is started.

use crate::support::daemon::{BINARY, Node, run};
use std::path::Path;

/// Checks a file with this text.
fn check(text: &str) -> (Option<i32>, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.toml");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    run(folder.path(), &["--check-config", "--config", "app.toml"])
}

#[test]
fn the_files_that_come_with_the_program_are_right() {
    for file in ["config/app.toml", "config/cluster.toml"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let (code, stdout, stderr) = run(Path::new("/"), &["--check-config", "--config", path.to_str().unwrap()]);
        assert_eq!(code, Some(0), "{file}: {stderr}");
        assert!(stdout.contains("node ") && stdout.contains("store: "), "{stdout}");
    }
}

#[test]
fn all_the_mistakes_are_said_at_once_with_file_key_and_what_is_expected() {
    let (code, _, stderr) = check(
        "bind_address = \"0.0.0.0:9991\"\nhttp_bind_address = 9990\nlog_level = 6\nmysql_prt = 3306\nmax_running = 0\nconsul_address = \"127.0.0.1\"\n",
    );
    assert_eq!(code, Some(2));
    for words in
        ["app.toml", "bind_address", "http_bind_address", "log_level", "mysql_prt", "max_running", "consul_address"]
    {
        assert!(stderr.contains(words), "{words} is not in {stderr}");
    }
    assert!(stderr.lines().count() >= 6, "a line each: {stderr}");
}

#[test]
fn a_daemon_with_a_mistake_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("app.toml"), "bind_address = \"0.0.0.0:9991\"\n").unwrap();
    let (code, _, stderr) = run(folder.path(), &["--config", "app.toml"]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("0.0.0.0"), "{stderr}");
    assert!(!folder.path().join("data").exists(), "nothing was made");
    let (code, _, stderr) = run(folder.path(), &[]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("config/app.toml"), "{stderr}");
    let (code, _, stderr) = run(folder.path(), &["--no-such-option"]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("--help"), "{stderr}");
}

#[test]
fn what_a_cluster_lacks_is_said_and_the_rest_is_not() {
    let host = "bind_address = \"10.10.62.33:9991\"\n";
    let consul = "consul_address = \"127.0.0.1:8500\"\n";
    let mysql = "mysql_host = \"127.0.0.1\"\nmysql_user = \"root\"\nmysql_database = \"cron\"\n";
    let no_secret = "cluster_secret: it is not set, so this node connects to no node";
    let no_mysql = "mysql_host: it is not set, so the jobs are in this node's own data_dir";
    for (lines, lacks) in [
        (vec![host, consul, mysql], &[no_secret][..]),
        (vec![host, consul], &[no_secret, no_mysql]),
        (vec![host, consul, mysql, "cluster_secret = \"sixteen letters!\""], &[]),
        (
            vec![host, consul, mysql, "cluster_insecure = true"],
            &["cluster_insecure: everybody who reaches 10.10.62.33:9991"],
        ),
        (vec![host, mysql], &[]),
        (vec![consul, mysql], &[]),
    ] {
        let (code, stdout, stderr) = check(&lines.concat());
        assert_eq!((code, stderr.lines().count()), (Some(0), lacks.len()), "{lines:?}: {stderr}");
        assert!(stdout.contains("node "), "{stdout}");
        for (line, words) in stderr.lines().zip(lacks) {
            assert!(line.starts_with("wing-crontab: warning: app.toml: ") && line.contains(words), "{line}");
        }
    }
}

#[test]
fn a_secret_may_stand_in_a_file_or_a_variable_and_is_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("secret"), "its-password\n").unwrap();
    let text = "bind_address = \"127.0.0.1:9991\"\nhttp_bind_address = \"127.0.0.1:9990\"\nmysql_host = \"127.0.0.1\"\nmysql_user = \"root\"\nmysql_database = \"cron\"\nmysql_password_file = \"secret\"\n";
    std::fs::write(folder.path().join("app.toml"), text).unwrap();
    let (code, stdout, stderr) = run(folder.path(), &["--check-config", "--config", "app.toml"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(!stdout.contains("its-password"), "{stdout}");
    std::fs::remove_file(folder.path().join("secret")).unwrap();
    let (code, _, stderr) = run(folder.path(), &["--check-config", "--config", "app.toml"]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("mysql_password_file"), "{stderr}");
}

#[test]
fn an_address_that_is_taken_or_a_folder_that_cannot_be_made_is_said() {
    let node = Node::new("");
    let taken = std::net::TcpListener::bind(&node.api.address).unwrap();
    let (code, _, stderr) = run(node.folder.path(), &["--config", "app.toml"]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("http_bind_address") && stderr.contains(&node.api.address), "{stderr}");
    drop(taken);
    std::fs::write(node.path("file"), "").unwrap();
    node.edit(|text| text.replace("/data\"", "/file/data\""));
    let (code, _, stderr) = run(node.folder.path(), &["--config", "app.toml"]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("data_dir") && stderr.contains("file/data"), "{stderr}");
}

#[test]
fn a_root_without_proc_is_said_to_need_it() {
    if !rustix::process::getuid().is_root() {
        return eprintln!("SKIPPED: only root can take /proc away");
    }
    let node = Node::new("");
    let script = "mount -t tmpfs none /proc && exec \"$0\" --config app.toml";
    let mut command = std::process::Command::new("unshare");
    let command = command.args(["-m", "/bin/sh", "-c", script, BINARY]).current_dir(node.folder.path());
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("/proc is needed") && stderr.contains("mount -t proc proc /proc"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(!node.path("data").exists(), "nothing was made");
}

#[test]
fn next_prints_times_and_refuses_what_is_no_schedule() {
    let next = |arguments: &[&str]| run(Path::new("/"), &[&["next"], arguments].concat());
    let (code, stdout, _) =
        next(&["0 30 2 * * *", "-n", "2", "--from", "2026-03-28T00:00:00Z", "--tz", "Europe/Berlin"]);
    assert_eq!((code, stdout.as_str()), (Some(0), "2026-03-28T02:30:00+01:00\n2026-03-29T03:00:00+02:00\n"));
    let (code, stdout, _) = next(&["TZ=Asia/Shanghai @daily", "-n", "1", "--from", "0"]);
    assert_eq!((code, stdout.as_str()), (Some(0), "1970-01-02T00:00:00+08:00\n"));
    let (code, stdout, stderr) = next(&["0 0 0 1 1 *", "-n", "80", "--from", "2090-06-01T00:00:00Z", "--tz", "UTC"]);
    assert_eq!((code, stdout.lines().count()), (Some(0), 10));
    assert!(stderr.contains("70 fewer than asked for"), "{stderr}");
    for (arguments, words) in [
        (&["* * * * * 8"][..], "day-of-week: 8 is beyond 7"),
        (&["0 0 0 30 2 *"], "can never match"),
        (&["* * * * * *", "--tz", "Nowhere/City"], "Nowhere/City"),
        (&["* * * * * *", "-n", "0"], "-n 0"),
        (&["* * * * * *", "--from", "yesterday"], "yesterday"),
        (&[], "which schedule?"),
    ] {
        let (code, _, stderr) = next(arguments);
        assert_eq!(code, Some(2), "{arguments:?}");
        assert!(stderr.contains(words), "{stderr}");
    }
}

#[test]
fn log_lines_go_to_the_file_as_well_and_runs_are_told_at_debug_only() {
    for (level, is_told) in [(4, false), (5, true)] {
        let mut node = Node::new("log_file = \"lines\"\n");
        node.edit(|text| format!("{text}log_level = {level}\n"));
        node.start();
        let id = node.api.add_every_second("echo its-output", "");
        node.api.wait_for_rows(id, "ok", 1);
        assert!(node.stop().success());
        let lines = std::fs::read_to_string(node.path("lines")).unwrap();
        assert!(lines.contains("leading: epoch=1"), "{lines}");
        assert_eq!(lines.contains(&format!("start attempt={id}-")), is_told, "{lines}");
        assert_eq!(lines, node.said(), "the same lines");
        lines.lines().for_each(is_stamped);
        assert!(lines.contains(&format!("job {id} added")), "{lines}");
        assert!(!lines.contains("its-output"), "no line shows what a command wrote");
    }
}

/// Each line opens with the time in UTC, to the millisecond and always in the same width.
#[track_caller]
fn is_stamped(line: &str) {
    let digits = |character: char| if character.is_ascii_digit() { '0' } else { character };
    let shape: String = line.chars().take(26).map(digits).collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000Z [", "{line}");
}
