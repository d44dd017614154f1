//! Overload: what is beyond a limit is refused, and said.

use crate::support::daemon::{Node, children};
use crate::support::witness::Witness;
use crate::support::{wait_for, wait_until};

#[test]
fn no_more_than_max_running_run_and_what_has_no_place_is_shed() {
    let node = Node::started("max_running = 2\nmax_pending = 3\n");
    let witness = Witness::new(node.folder.path(), "seen");
    let gate = node.path("gate");
    let wait = format!("while [ ! -e {} ]; do sleep 0.1; done", gate.display());
    let id = node.api.add("* * * * * *", &witness.around(&wait), "");
    let shed = wait_for("some are shed", || Some(node.api.logs_with(id, "shed")).filter(|rows| rows.len() >= 3));
    assert_eq!(witness.count("begin"), 2);
    assert_eq!(children(node.daemon_pid()).len(), 2);
    assert_eq!(shed.last().unwrap()["time"], witness.read()[0].scheduled_at + 5, "two run and three wait");
    assert!(shed[0]["output"].as_str().unwrap().contains("max_pending"));
    std::fs::write(&gate, "").unwrap();
    wait_until("those that waited have run", || witness.count("end") >= 5);
    witness.attempts("begin");
}

#[test]
fn a_run_whose_turn_comes_after_the_grace_is_told_as_missed() {
    let node = Node::started("max_running = 1\nmisfire_grace = 1\n");
    let gate = node.path("gate");
    let wait = format!("while [ ! -e {} ]; do sleep 0.1; done", gate.display());
    let id = node.api.add("* * * * * *", &wait, "");
    // Every second one more waits for the only place; after some of them their time is over.
    let other = node.api.add("* * * * * *", "true", "is_mutex=1");
    let start = wing_crontab::worker::clock::now().wall.second().0;
    wait_until("six seconds pass", || start + 6 < wing_crontab::worker::clock::now().wall.second().0);
    std::fs::write(&gate, "").unwrap();
    let missed = wait_for("missed ones", || Some(node.api.logs_with(id, "missed")).filter(|rows| rows.len() >= 2));
    assert!(missed[0]["output"].as_str().unwrap().contains("misfire_grace"), "{missed:?}");
    assert_eq!(node.api.logs_with(other, "missed").len(), 0, "a mutex run waits its turn however long");
}
