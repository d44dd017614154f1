//! The operator's terminal: no run can type into it, and its Ctrl-C still ends the daemon.

use crate::support::daemon::{BINARY, Node};
use crate::support::process::{children, send_signal};
use crate::support::{wait_for, wait_until};
use rustix::process::Signal;
use std::process::{Child, Command, Stdio};

/// A daemon that is started from a terminal of its own, as `make run` does it.
struct Started {
    node: Node,
    script: Child,
}

impl Started {
    fn new() -> Started {
        let node = Node::new("");
        let command = format!("exec {BINARY} --config app.toml 2> stderr");
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--command", &command, "/dev/null"]);
        script.current_dir(node.folder.path()).stdin(Stdio::piped()).stdout(Stdio::null());
        let script = script.spawn().expect("util-linux has it");
        wait_until("the API answers", || node.api.is_up());
        Started { node, script }
    }

    fn guardian(&self) -> u32 {
        let text = std::fs::read_to_string(self.node.path("data/lock")).unwrap();
        text.trim().parse().unwrap()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // The terminal's end alone is no order to end.
        if matches!(self.script.try_wait(), Ok(None)) {
            send_signal(Signal::TERM, self.guardian());
        }
        let _ = self.script.wait();
    }
}

/// The device number of the process's terminal; 0: it has none.
fn terminal(pid: u32) -> i64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process is there");
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(4).unwrap().parse().unwrap()
}

#[test]
fn a_run_has_no_terminal_to_type_into_and_neither_has_the_daemon() {
    let started = Started::new();
    let guardian = started.guardian();
    assert_ne!(terminal(guardian), 0, "the guardian has the terminal");
    let daemon = wait_for("the daemon", || children(guardian).into_iter().next());
    assert_eq!(terminal(daemon), 0);
    let tries = "exec 2>&1; sh -c ': < /dev/tty && echo opened'; ps -o tty= $$";
    let work_dir = "work_dir=/";
    let as_user = if rustix::process::getuid().is_root() { "run_as=nobody" } else { "" };
    for row in started.node.api.run_each(&[(tries, ""), (tries, work_dir), (tries, as_user)]) {
        assert!(!row.output().contains("opened"), "{row}");
        assert!(row.output().contains("/dev/tty") && row.output().contains('?'), "{row}");
    }
}

#[test]
fn ctrl_c_of_the_terminal_ends_the_daemon_in_order() {
    let mut started = Started::new();
    let input = started.script.stdin.as_mut().unwrap();
    std::io::Write::write_all(input, b"\x03").unwrap();
    let status = wait_for("the daemon ends", || started.script.try_wait().unwrap());
    assert_eq!(status.code(), Some(0), "{}", started.node.said());
    assert!(started.node.said().contains("shutdown: nothing new is started"), "{}", started.node.said());
}
