//! Runs as another user: they have what a login of that user has, and nothing of the daemon's.

use super::spawning::{is_root, node_with_own_user, open_to_all};
use crate::support::daemon::Node;
use crate::support::jobs::encoded;
use rustix::process::Signal;

/// Variables of the daemon that no command may see, with a value each.
const OWN: [&str; 6] = [
    "WING_MYSQL_PASSWORD",
    "WING_CONSUL_TOKEN",
    "WING_CLUSTER_SECRET",
    "WING_HTTP_TOKENS",
    "WING_MYSQL_PASSWORD_FILE",
    "WING_OF_LATER",
];

/// Sets each of `OWN`. The tokens' value must be a token with its name and level.
fn with_secrets(mut node: Node) -> Node {
    for name in OWN {
        node = node.env(name, "ci admin its-secret-0123456789-0123456789-0123456789");
    }
    node
}

#[test]
fn a_run_as_a_user_has_a_clean_environment_with_what_env_pass_names() {
    if !is_root() {
        return;
    }
    let node = Node::new("env_pass = [\"KEPT\", \"NOT_SET\"]\n");
    let node = node.env("KEPT", "kept").env("AWS_SECRET", "roots").env("LANG", "C.UTF-8").env("HOME", "/root");
    let node = node_with_own_user(node);
    let env = format!("run_as=wing-test&env={}", encoded(r#"{"OWN":"of the job","PATH":"/bin"}"#));
    let rows = node.api.run_each(&[
        ("env | sort", "run_as=wing-test"),
        ("env | grep -E '^(OWN|PATH)=' | sort", &env),
        ("env | grep -c AWS_SECRET", "run_as=root"),
        ("echo $AWS_SECRET", ""),
    ]);
    let names = |text: &str| -> Vec<String> {
        let entries = text.lines().filter_map(|line| line.split_once('='));
        let told = entries.filter(|(name, _)| !["_", "PWD", "SHLVL", "OLDPWD"].contains(name));
        told.filter(|(name, _)| !name.starts_with("WING_")).map(|(name, value)| format!("{name}={value}")).collect()
    };
    assert_eq!(
        names(rows[0].output()),
        [
            "HOME=/home/wing",
            "KEPT=kept",
            "LANG=C.UTF-8",
            "LOGNAME=wing-test",
            "PATH=/usr/local/bin:/usr/bin:/bin",
            "SHELL=/bin/sh",
            "USER=wing-test",
        ]
    );
    assert_eq!(rows[0].output().matches("WING_").count(), 4, "{}", rows[0]);
    assert_eq!(names(rows[1].output()), ["OWN=of the job", "PATH=/bin"]);
    assert!(rows[2].output().starts_with("0\n"), "{}", rows[2]);
    assert_eq!(rows[3]["output"], "roots\n", "a run as the daemon's own user inherits its environment");
}

#[test]
fn no_process_shows_a_secret_of_the_environment_or_has_it_in_its_command() {
    let mut node = with_secrets(Node::new(""));
    node.start();
    let guardian = node.guardian_pid();
    let spy = format!(
        "cat /proc/{guardian}/environ /proc/$PPID/environ /proc/{guardian}/cmdline /proc/$PPID/cmdline; \
         env; cat /proc/$$/environ; echo seen"
    );
    let rows = node.api.run_each(&[(&spy, ""), (&spy, "work_dir=/"), ("/usr/bin/env", "")]);
    for row in rows {
        assert!(!row.output().contains("its-secret"), "{row}");
        assert!(row.output().contains("WING_RUN_KEY="), "{row}");
    }
    // The next daemon gets them as well.
    let daemon = node.daemon_pid();
    node.kill_daemon();
    node.wait_for_other_daemon(daemon);
    node.wait_up_again();
    assert!(!node.api.run_once(&spy, "")["output"].to_string().contains("its-secret"));
}

#[test]
fn a_variable_of_the_daemons_own_cannot_be_passed() {
    let node = Node::new("env_pass = [\"WING_CONSUL_TOKEN\", \"A=b\"]\n");
    let (code, _, stderr) =
        crate::support::daemon::run(node.folder.path(), &["--config", "app.toml", "--check-config"]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.matches("env_pass: ").count() == 2 && stderr.contains("WING_CONSUL_TOKEN"), "{stderr}");
}

#[test]
fn a_run_as_a_user_has_the_umask_and_the_powers_of_a_login_whatever_the_daemon_has() {
    if !is_root() {
        return;
    }
    // The daemon keeps its powers when it becomes another user, and hands all of them on.
    let powers = "umask 077; exec setpriv --securebits +no_setuid_fixup --inh-caps +chown,+kill --ambient-caps +chown,+kill \
                  \"$0\" \"$@\"";
    let mut node = Node::new("").after(powers);
    open_to_all(node.folder.path());
    node.start();
    let look = "umask; grep -E 'Cap(Prm|Eff|Inh|Amb)' /proc/self/status | tr -d '\\n\\t'; \
                i=0; while [ $i -lt 64 ]; do [ ! -e /proc/$$/fd/$i ] || printf ' %s' $i; i=$((i+1)); done";
    let row = node.api.run_once(look, "run_as=nobody&work_dir=/");
    let none = super::spawning::NO_POWERS;
    let lines: Vec<&str> = row.output().lines().collect();
    assert_eq!(lines[0], "0022", "{row}");
    assert_eq!(lines[1], format!("CapInh:{none}CapPrm:{none}CapEff:{none}CapAmb:{none} 0 1 2"), "{row}");
}

#[test]
fn a_run_as_a_user_cannot_read_or_write_a_file_of_the_daemons_or_signal_it() {
    if !is_root() {
        return;
    }
    let node = node_with_own_user(Node::new("spool_output = true\nmax_output_bytes = 100\n"));
    let data = node.path("data");
    node.api.run_once("seq 1000", "");
    let tries = format!(
        "exec 2>&1; cd {data} && echo entered; for file in lock marks spool node_id wing-crontab.db output had_store api.sock; do \
         cat {data}/$file > /dev/null && echo read $file; echo x >> {data}/$file && echo wrote $file; done; \
         kill -STOP {} && echo stopped; echo done",
        node.guardian_pid(),
        data = data.display()
    );
    let row = node.api.run_once(&tries, "run_as=wing-test");
    for word in ["entered", "read ", "wrote ", "stopped"] {
        assert!(!row.output().lines().any(|line| line.starts_with(word)), "{row}");
    }
    node.signal(Signal::HUP);
    assert!(node.api.is_up());
}
