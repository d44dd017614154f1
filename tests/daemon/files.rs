//! data_dir: its files are its owner's alone, and the daemon notices when they are not the ones that it began with.

use super::crash::Hidden;
use super::spawning::is_root;
use crate::support::daemon::{Node, run};
use crate::support::wait_until;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// Checks that everything in data_dir is closed to others.
#[track_caller]
fn is_closed(node: &Node) {
    assert_eq!(mode(&node.path("data")), 0o700);
    for entry in std::fs::read_dir(node.path("data")).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path) & 0o077, 0, "{} has {:o}", path.display(), mode(&path));
    }
}

#[test]
fn every_file_is_closed_to_others_whatever_the_umask_and_the_modes_of_before() {
    let mut node = Node::new("spool_output = true\nmax_output_bytes = 100\n").after("umask 000");
    std::fs::create_dir(node.path("data")).unwrap();
    set_mode(&node.path("data"), 0o755);
    node.start();
    node.api.run_once("seq 1000", "");
    is_closed(&node);
    node.stop();
    for name in ["lock", "marks", "spool", "node_id", "wing-crontab.db"] {
        set_mode(&node.path("data").join(name), 0o644);
    }
    set_mode(&node.path("data/spool"), 0o666);
    node.start();
    is_closed(&node);
    assert!(node.said().contains("spool could be written by other users (mode 666)"), "{}", node.said());
}

#[test]
fn a_data_dir_or_a_file_in_it_that_belongs_to_another_user_is_refused() {
    if !is_root() {
        return;
    }
    for name in ["data", "data/marks"] {
        let mut node = Node::started("");
        node.stop();
        std::os::unix::fs::chown(node.path(name), Some(65_534), None).unwrap();
        let (code, _, stderr) = run(node.folder.path(), &["--config", "app.toml"]);
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains(&format!("{name} belongs to user 65534")) && stderr.contains("chown"), "{stderr}");
    }
}

#[test]
fn another_user_who_holds_the_lock_of_an_open_data_dir_does_not_keep_the_daemon_from_starting() {
    if !is_root() {
        return;
    }
    let mut node = Node::new("");
    super::spawning::open_to_all(node.folder.path());
    std::fs::create_dir(node.path("data")).unwrap();
    set_mode(&node.path("data"), 0o755);
    std::fs::write(node.path("data/lock"), "").unwrap();
    set_mode(&node.path("data/lock"), 0o644);
    // The holder itself has the lock, or a child of a process that has ended.
    for script in ["exec flock -n $0 sh -c 'echo has it; read line'", "exec 9< $0; flock -n 9; echo has it; read line"]
    {
        let mut holder = Command::new("setpriv")
            .args(["--reuid", "65534", "--clear-groups", "/bin/sh", "-c", script])
            .arg(node.path("data/lock"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(holder.stdout.take().unwrap()), &mut said).unwrap();
        assert_eq!(said, "has it\n");
        node.start();
        node.wait_said("holds it, and has no right to");
        let (code, _, stderr) = run(node.folder.path(), &["--config", "app.toml"]);
        assert_eq!(code, Some(2), "{stderr}");
        drop(holder.stdin.take());
        holder.wait().unwrap();
        node.stop();
        set_mode(&node.path("data"), 0o755);
        set_mode(&node.path("data/lock"), 0o644);
    }
}

#[test]
fn a_file_with_secrets_that_all_can_read_is_warned_of() {
    let node = Node::new("cluster_secret = \"a-word-of-16-characters\"\nconsul_token_file = \"token\"\n");
    std::fs::write(node.path("token"), "its-token").unwrap();
    let check = |modes: [u32; 2]| {
        set_mode(&node.config(), modes[0]);
        set_mode(&node.path("token"), modes[1]);
        run(node.folder.path(), &["--check-config", "--config", "app.toml"]).2
    };
    assert_eq!(check([0o640, 0o600]), "");
    let said = check([0o644, 0o600]);
    assert!(
        said.contains("cluster_secret: every user of this host can read it") && said.lines().count() == 1,
        "{said}"
    );
    let said = check([0o600, 0o604]);
    assert!(said.contains("consul_token_file: every user") && said.contains("chmod o-r token"), "{said}");
}

#[test]
fn a_data_dir_that_is_removed_or_replaced_while_it_runs_takes_no_change_until_it_is_back() {
    let node = Node::started("");
    node.api.add_idle("true", "");
    let (data, aside) = (node.path("data"), node.path("aside"));
    for replace in [false, true] {
        std::fs::rename(&data, &aside).unwrap();
        if replace {
            std::fs::create_dir(&data).unwrap();
        }
        node.wait_health(503);
        let health = node.api.get("/health");
        assert!(health.body.to_string().contains("was removed or replaced while this daemon runs"), "{}", health.body);
        assert_eq!(node.api.post("/cron/add", "cronSet=0+0+0+1+1+*&command=true").status, 503);
        let _ = std::fs::remove_dir(&data);
        std::fs::rename(&aside, &data).unwrap();
        node.wait_health(200);
    }
    assert_eq!(node.api.jobs().len(), 1);
    assert!(node.said().contains("until then no change is taken"), "{}", node.said());
}

#[test]
fn a_daemon_that_dies_with_its_data_dir_replaced_begins_nothing_anew_in_the_other_one() {
    let node = Node::started("");
    let hidden = Hidden::started(&node, "");
    std::fs::rename(node.path("data"), node.path("aside")).unwrap();
    std::fs::create_dir(node.path("data")).unwrap();
    node.kill_daemon();
    node.wait_said("was removed or replaced while wing-crontab ran");
    assert_eq!(std::fs::read_dir(node.path("data")).unwrap().count(), 0, "nothing was made");
    std::fs::remove_dir(node.path("data")).unwrap();
    std::fs::rename(node.path("aside"), node.path("data")).unwrap();
    node.wait_up_again();
    hidden.wait_gone();
    assert_eq!(node.api.jobs().len(), 1);
}

#[test]
fn a_store_that_is_missing_or_empty_where_there_was_one_is_not_started_silently() {
    let mut node = Node::started("");
    node.api.add_idle("true", "");
    wait_until("the store is noted", || node.path("data/had_store").exists());
    node.stop();
    let store = node.path("data/wing-crontab.db");
    std::fs::copy(&store, node.path("backup")).unwrap();
    for text in [None, Some("")] {
        let _ = std::fs::remove_file(&store);
        if let Some(text) = text {
            std::fs::write(&store, text).unwrap();
        }
        let (code, _, stderr) = run(node.folder.path(), &["--config", "app.toml"]);
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains("wing-crontab.db is missing or empty") && stderr.contains("had_store"), "{stderr}");
    }
    std::fs::copy(node.path("backup"), &store).unwrap();
    node.start();
    assert_eq!(node.api.jobs().len(), 1);
    node.stop();
    std::fs::remove_file(&store).unwrap();
    std::fs::remove_file(node.path("data/had_store")).unwrap();
    node.start();
    assert_eq!(node.api.jobs().len(), 0, "the operator wants an empty one");
}
