//! The marks file as input: whatever stands in it, nothing is killed that no run of this daemon has started.

use crate::support::daemon::{BINARY, Node};
use std::process::Command;

const STARTED: u64 = 3;
/// The words of the header and of a slot, and some of them by their places.
const HEADER_WORDS: usize = 16;
const SLOT_WORDS: usize = 16;
const TAG: usize = 8;
const PID: usize = 9;
const PID_START: usize = 10;

/// Starts the daemon beside a stranger, in a PID namespace of their own, and says what has become of both.
const INSIDE: &str = r#"
    [ -z "$SLACK" ] || echo "$SLACK" > /proc/$$/timerslack_ns
    sleep 300 &
    stranger=$!
    "$0" --config app.toml 2> stderr &
    guardian=$!
    i=0
    while [ $i -lt 300 ] && ! grep -q 'leading: ' stderr && kill -0 $guardian 2> /dev/null; do i=$((i+1)); sleep 0.1; done
    kill -0 $stranger && echo the stranger lives
    grep -q 'leading: ' stderr && kill -TERM $guardian && wait $guardian && echo the daemon has led and ended
    cat stderr
"#;

fn boot_id() -> [u64; 2] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let number = u128::from_str_radix(&text.trim().replace('-', ""), 16).unwrap();
    [number as u64, (number >> 64) as u64]
}

/// A slot of a run of job 1 that is started.
fn slot(tag: u64, pid: u64, pid_start: u64) -> [u64; SLOT_WORDS] {
    let mut slot = [STARTED, 1, 1_700_000_000, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    (slot[TAG], slot[PID], slot[PID_START]) = (tag, pid, pid_start);
    slot
}

/// The same with the checksum that it must have.
fn sealed(mut slot: [u64; SLOT_WORDS]) -> [u64; SLOT_WORDS] {
    let covered = [&slot[..8], &slot[TAG..=PID_START]].concat();
    let bytes: Vec<u8> = covered.iter().flat_map(|word| word.to_le_bytes()).collect();
    slot[0] |= u64::from(crc32fast::hash(&bytes)) << 8;
    slot
}

/// What the daemon and the script say, after a start with this slot in the marks.
fn start_with(layout: u64, slot: [u64; SLOT_WORDS], slack: &str) -> String {
    let node = Node::new("");
    let [low, high] = boot_id();
    let mut words = vec![0; HEADER_WORDS];
    words[..5].copy_from_slice(&[u64::from_le_bytes(*b"wingmark"), layout, 1, low, high]);
    words.extend(slot);
    let bytes: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
    std::fs::create_dir(node.path("data")).unwrap();
    std::fs::write(node.path("data/marks"), bytes).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child", "/bin/sh", "-c", INSIDE, BINARY]);
    let output = command.env("SLACK", slack).current_dir(node.folder.path()).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn is_root() -> bool {
    let is_root = rustix::process::getuid().is_root();
    if !is_root {
        eprintln!("SKIPPED: only root can make a PID namespace");
    }
    is_root
}

#[track_caller]
fn nothing_is_killed(said: &str) {
    assert!(said.contains("the stranger lives"), "{said}");
    assert!(said.contains("the daemon has led and ended"), "{said}");
}

#[test]
fn a_mark_with_the_timer_slack_of_every_process_kills_nothing() {
    if !is_root() {
        return;
    }
    for (layout, slot) in [(1, slot(50_000, 7_777, 0)), (2, sealed(slot(50_000, 7_777, 0)))] {
        let said = start_with(layout, slot, "");
        nothing_is_killed(&said);
        assert!(said.contains("1 slots are damaged and not believed (slot 0: its tag is not one of ours)"), "{said}");
        assert!(said.contains("marks.damaged"), "{said}");
    }
}

#[test]
fn a_mark_that_cannot_be_true_is_refused_with_the_reason() {
    if !is_root() {
        return;
    }
    let mut damaged = sealed(slot(50_001, 7_777, 0));
    damaged[TAG] += 1;
    for (slot, reason) in [
        (damaged, "its checksum is another one"),
        (sealed(slot(50_001, 1 << 40, 0)), "its pid is out of range"),
        (sealed(slot(50_001, 7_777, u64::MAX - 1)), "its process starts in the future"),
    ] {
        let said = start_with(2, slot, "");
        nothing_is_killed(&said);
        assert!(said.contains(reason), "{said}");
    }
}

#[test]
fn a_mark_whose_tag_the_guardian_itself_has_does_not_end_it() {
    if !is_root() {
        return;
    }
    for (layout, slot) in [(1, slot(50_006, 7_777, 0)), (2, sealed(slot(50_006, 7_777, 0)))] {
        let said = start_with(layout, slot, "50006");
        assert!(said.contains("ending 1 runs left by an earlier daemon"), "{said}");
        assert!(said.contains("the daemon has led and ended"), "{said}");
    }
}
