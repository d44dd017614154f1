//! Signals: those that mean something, and all others, which end nothing.

use crate::support::daemon::Node;
use crate::support::process::{is_alive, send_signal};
use crate::support::wait_until;
use rustix::process::Signal;

#[test]
fn a_log_file_that_was_moved_is_opened_again_at_usr1_and_at_hup() {
    let node = Node::started("log_file = \"lines\"\n");
    for (at, signal) in [Signal::USR1, Signal::HUP].into_iter().enumerate() {
        let moved = node.path(&format!("lines.{at}"));
        std::fs::rename(node.path("lines"), &moved).unwrap();
        node.signal(signal);
        // Daemon and guardian hear the signal one after the other, so lines are made until one is in the new file.
        wait_until("the daemon's lines go to the new file", || {
            node.api.add_idle("true", "");
            std::fs::read_to_string(node.path("lines")).is_ok_and(|lines| lines.contains("added"))
        });
    }
    let daemon = node.daemon_pid();
    node.kill_daemon();
    node.wait_for_other_daemon(daemon);
    let lines = std::fs::read_to_string(node.path("lines")).unwrap();
    assert!(lines.contains("the daemon died"), "the guardian's lines as well: {lines}");
}

#[test]
fn no_signal_ends_guardian_or_daemon_by_surprise() {
    let node = Node::started("");
    let (guardian, daemon) = (node.guardian_pid(), node.daemon_pid());
    let names = [
        Signal::USR1,
        Signal::USR2,
        Signal::HUP,
        Signal::ALARM,
        Signal::VTALARM,
        Signal::PROF,
        Signal::IO,
        Signal::POWER,
        Signal::STKFLT,
        Signal::XCPU,
        Signal::XFSZ,
        Signal::PIPE,
        Signal::WINCH,
    ];
    for signal in names {
        send_signal(signal, guardian);
        send_signal(signal, daemon);
    }
    for number in 34..=64 {
        let pids = [guardian, daemon].map(|pid| pid.to_string());
        let status = std::process::Command::new("kill").arg(format!("-{number}")).args(pids).status();
        assert!(status.unwrap().success());
    }
    assert_eq!(node.api.run_once("echo it runs", "")["output"], "it runs\n");
    assert!(is_alive(guardian) && node.daemon_pid() == daemon, "{}", node.said());
}

#[test]
fn quit_of_a_terminal_shuts_down_in_order() {
    let mut node = Node::started("");
    node.signal(Signal::QUIT);
    assert_eq!(node.wait().code(), Some(0), "{}", node.said());
    assert!(node.said().contains("shutdown: nothing new is started"), "{}", node.said());
}
