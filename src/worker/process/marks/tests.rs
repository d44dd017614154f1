//! Tests of the marks: what the next incarnation reads, and that no two runs share a slot or a tag.

use super::layout::LAYOUT_WITHOUT_CHECKSUMS;
use super::*;
use crate::core::io::FoundState;
use crate::model::run::RunKey;
use crate::model::{Exit, JobId, Second};

fn attempt(id: u32) -> Attempt {
    Attempt { run: RunKey::scheduled(JobId(id), Second(1_700_000_000)), number: 1 }
}

fn open(dir: &tempfile::TempDir, capacity: usize) -> (MarkBook, Vec<FoundMark>, Option<String>) {
    let OpenedMarks { book, found, notice, .. } = MarkBook::open(dir.path(), capacity, false).unwrap();
    (book, found, notice)
}

fn hold(book: &mut MarkBook, id: u32) -> bool {
    book.apply(MarkOp::Hold { attempt: attempt(id), version: Version(3), is_mutex: true })
}

#[test]
fn every_state_is_found_by_the_next_incarnation_and_by_the_one_after() {
    let dir = tempfile::tempdir().unwrap();
    let (mut book, found, notice) = open(&dir, 8);
    assert_eq!((found.len(), notice), (0, None));
    (1..=6).for_each(|id| assert!(hold(&mut book, id)));
    for id in 2..=5 {
        let ticket = book.ticket(attempt(id)).unwrap();
        book.marks().starting(ticket);
        if id != 2 {
            book.marks().started(ticket, 1_000 + id, 7);
        }
    }
    book.apply(MarkOp::Ended { attempt: attempt(4), exit: Exit::Code(3) });
    book.apply(MarkOp::Ended { attempt: attempt(5), exit: Exit::Signal(9) });
    book.apply(MarkOp::Clear { attempt: attempt(6) });
    book.apply(MarkOp::Lease { until: Mono(77) });
    for capacity in [2, 100] {
        let (book, found, _) = open(&dir, capacity);
        let states: Vec<_> = found.iter().map(|mark| (mark.attempt.run.cron_id.0, mark.state)).collect();
        let expect = [
            (1, FoundState::Held),
            (2, FoundState::Started),
            (3, FoundState::Started),
            (4, FoundState::Ended(Exit::Code(3))),
            (5, FoundState::Ended(Exit::Signal(9))),
        ];
        assert_eq!(states, expect);
        assert_eq!(found[0].version, Version(3));
        assert_eq!(book.read(attempt(3)).unwrap().pid, 1_003);
        assert_eq!(book.marks().lease(), Mono(77));
    }
}

#[test]
fn the_marks_have_an_end_and_a_cleared_slot_is_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut book, _, _) = open(&dir, 2);
    assert!(hold(&mut book, 1) && hold(&mut book, 2));
    assert!(hold(&mut book, 2), "told again, it keeps its slot");
    assert!(!hold(&mut book, 3));
    book.apply(MarkOp::Clear { attempt: attempt(1) });
    assert!(hold(&mut book, 3));
}

#[test]
fn under_another_boot_nothing_is_known_and_the_lease_is_void() {
    let dir = tempfile::tempdir().unwrap();
    let (mut book, _, _) = open(&dir, 2);
    hold(&mut book, 1);
    book.apply(MarkOp::Lease { until: Mono::NEVER });
    book.marks.set(header::BOOT, 1);
    for _ in 0..2 {
        let (book, found, _) = open(&dir, 2);
        assert_eq!(found[0].state, FoundState::Unknown, "in the boot after, and later in it");
        assert_eq!(book.marks().lease(), Mono(0));
    }
}

#[test]
fn a_damaged_file_is_set_aside_and_said() {
    let dir = tempfile::tempdir().unwrap();
    for rubbish in [&b""[..], b"rubbish", &[7; 4_096]] {
        fs::write(path(dir.path()), rubbish).unwrap();
        let (mut book, found, notice) = open(&dir, 2);
        assert_eq!(found.len(), 0);
        assert!(notice.unwrap().contains("set aside"));
        assert!(hold(&mut book, 1));
    }
}

#[test]
fn no_two_live_runs_have_the_same_tag() {
    let dir = tempfile::tempdir().unwrap();
    let (mut book, _, _) = open(&dir, 3);
    hold(&mut book, 1);
    hold(&mut book, 2);
    let long_lived = book.ticket(attempt(1)).unwrap().tag;
    for _ in 0..TAG_COUNT + 5 {
        assert_ne!(book.ticket(attempt(2)).unwrap().tag, long_lived);
    }
}

/// A reading of this boot, 100 ticks after it.
const READING: Reading = Reading { has_checksums: true, is_this_boot: true, now: 100 };

fn started(tag: u64, pid: u32, pid_start: u64) -> Mark {
    Mark { tag, pid, pid_start, state: slot::STARTED, ..Mark::held(attempt(1), Version(3), true) }
}

#[test]
fn a_slot_with_what_cannot_be_true_is_refused() {
    let good = started(TAG_FIRST, 7, 100);
    assert!(slot::read(&good.words(), READING).is_ok());
    for (bad, reason) in [
        (started(TAG_FIRST - 1, 7, 100), "tag"),
        (started(TAG_FIRST + TAG_COUNT, 7, 100), "tag"),
        (started(TAG_FIRST, 0, 100), "pid"),
        (started(TAG_FIRST, (1 << 22) + 1, 100), "pid"),
        (started(TAG_FIRST, 7, 102), "future"),
        (Mark { attempt: attempt(0), ..good }, "run"),
        (Mark { attempt: attempt(1 << 31), ..good }, "run"),
        (Mark { state: 6, ..good }, "state"),
    ] {
        let refused = slot::read(&bad.words(), READING).unwrap_err();
        assert!(refused.contains(reason), "{refused}");
        let unknown = Reading { is_this_boot: false, ..READING };
        let is_about_processes = ["tag", "pid", "future"].contains(&reason);
        assert_eq!(slot::read(&bad.words(), unknown).is_ok(), is_about_processes, "after another boot: {reason}");
    }
}

#[test]
fn each_word_that_a_state_stands_on_is_under_its_checksum_and_no_other_is() {
    let states = [(slot::HELD, 7), (slot::STARTING, 9), (slot::STARTED, 10), (slot::ENDED, 8), (slot::UNKNOWN, 7)];
    for (state, count) in states {
        let words = Mark { state, exit: 1, ..started(TAG_FIRST, 7, 50) }.words();
        let is_covered = |at: &usize| {
            let mut changed = words;
            changed[*at] ^= 1 << 5;
            slot::sealed(&changed, state) != words[word::STATE]
        };
        assert_eq!((1..SLOT_WORDS).filter(is_covered).count(), count, "state {state}");
    }
}

#[test]
fn a_damaged_slot_is_not_believed_and_the_others_are() {
    let dir = tempfile::tempdir().unwrap();
    let (mut book, _, _) = open(&dir, 3);
    (1..=3).for_each(|id| assert!(hold(&mut book, id)));
    let slot = book.slots[&attempt(2)];
    book.marks.set_slot(slot, word::CRON_ID, 9);
    let (book, found, notice) = open(&dir, 3);
    let ids: Vec<u32> = found.iter().map(|mark| mark.attempt.run.cron_id.0).collect();
    assert_eq!(ids.len(), 2, "{ids:?}");
    assert!(!ids.contains(&9) && notice.unwrap().contains("1 slots are damaged"), "{ids:?}");
    assert!(dir.path().join("marks.damaged").is_file());
    drop(book);
    assert_eq!(open(&dir, 3).2, None, "said once");
}

#[test]
fn of_two_marks_of_one_run_the_one_that_has_come_further_counts() {
    for started_first in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (mut book, _, _) = open(&dir, 3);
        (1..=2).for_each(|id| assert!(hold(&mut book, id)));
        let (copied, other) = if started_first { (2, 1) } else { (1, 2) };
        let ticket = book.ticket(attempt(copied)).unwrap();
        book.marks().starting(ticket);
        book.marks().started(ticket, 1_000, 7);
        let slot = book.slots[&attempt(other)];
        book.marks.write(slot, &Mark::held(attempt(copied), Version(3), true));
        let (_, found, notice) = open(&dir, 3);
        assert_eq!(
            found.iter().map(|mark| (mark.attempt, mark.state)).collect::<Vec<_>>(),
            [(attempt(copied), FoundState::Started)]
        );
        assert!(notice.unwrap().contains("1 runs have a second mark"));
        assert!(dir.path().join("marks.damaged").is_file());
        assert_eq!(open(&dir, 3).2, None, "said once");
    }
}

#[test]
fn a_file_of_the_version_before_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let (mut book, _, _) = open(&dir, 2);
    hold(&mut book, 1);
    let ticket = book.ticket(attempt(1)).unwrap();
    book.marks.starting(ticket);
    let first = HEADER_WORDS + ticket.slot as usize * SLOT_WORDS;
    for (state, pid) in [(slot::STARTING, 0), (slot::STARTED, 1_000)] {
        book.marks.started(ticket, pid, 7);
        book.marks.set(first, state);
        book.marks.set(header::LAYOUT, LAYOUT_WITHOUT_CHECKSUMS);
        let snapshot = Snapshot::read(&path(dir.path())).unwrap().unwrap();
        assert_eq!((snapshot.marks[0].tag, snapshot.marks[0].pid), (ticket.tag, pid));
        assert!(snapshot.marks[0].may_run());
    }
    let (_, found, notice) = open(&dir, 2);
    assert_eq!((found[0].state, notice), (FoundState::Started, None));
    assert!(open(&dir, 2).2.is_none(), "the file is of this version now");
}

#[test]
fn marks_that_may_lack_runs_say_so_until_they_are_explained() {
    let dir = tempfile::tempdir().unwrap();
    let opened = |is_first_start| MarkBook::open(dir.path(), 2, is_first_start).unwrap();
    assert!(!opened(true).has_forgotten);
    assert!(!opened(false).has_forgotten, "the file is whole");
    let explained = |said: &str| {
        assert!(opened(false).has_forgotten, "{said}");
        let mut again = opened(false);
        assert!(again.has_forgotten, "the next start knows no more: {said}");
        again.book.apply(MarkOp::Remember);
        assert!(!opened(false).has_forgotten, "{said}");
    };
    fs::remove_file(path(dir.path())).unwrap();
    explained("a file was there before");
    opened(false).book.marks.set(header::BOOT, 1);
    explained("the host was started since");
    let mut book = opened(false).book;
    hold(&mut book, 1);
    book.marks.set_slot(book.slots[&attempt(1)], word::CRON_ID, 9);
    explained("a slot is damaged");
}
