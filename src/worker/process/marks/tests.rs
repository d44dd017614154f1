//! Tests of the marks: what the next incarnation reads, and that no two runs share a slot or a tag.

use super::*;

fn attempt(id: u32) -> Attempt {
    Attempt { run: RunKey::scheduled(JobId(id), Second(1_700_000_000)), number: 1 }
}

fn hold(book: &mut MarkBook, id: u32) -> bool {
    book.apply(MarkOp::Hold { attempt: attempt(id), version: Version(3), is_mutex: true })
}

#[test]
fn every_state_is_found_by_the_next_incarnation_and_by_the_one_after() {
    let dir = tempfile::tempdir().unwrap();
    let (mut book, found, notice) = MarkBook::open(dir.path(), 8).unwrap();
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
        let (book, found, _) = MarkBook::open(dir.path(), capacity).unwrap();
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
    let (mut book, _, _) = MarkBook::open(dir.path(), 2).unwrap();
    assert!(hold(&mut book, 1) && hold(&mut book, 2));
    assert!(hold(&mut book, 2), "told again, it keeps its slot");
    assert!(!hold(&mut book, 3));
    book.apply(MarkOp::Clear { attempt: attempt(1) });
    assert!(hold(&mut book, 3));
}

#[test]
fn under_another_boot_nothing_is_known_and_the_lease_is_void() {
    let dir = tempfile::tempdir().unwrap();
    let (mut book, _, _) = MarkBook::open(dir.path(), 2).unwrap();
    hold(&mut book, 1);
    book.apply(MarkOp::Lease { until: Mono::NEVER });
    book.marks.set(header::BOOT, 1);
    for _ in 0..2 {
        let (book, found, _) = MarkBook::open(dir.path(), 2).unwrap();
        assert_eq!(found[0].state, FoundState::Unknown, "in the boot after, and later in it");
        assert_eq!(book.marks().lease(), Mono(0));
    }
}

#[test]
fn a_damaged_file_is_set_aside_and_said() {
    let dir = tempfile::tempdir().unwrap();
    for rubbish in [&b""[..], b"rubbish", &[7; 4_096]] {
        fs::write(path(dir.path()), rubbish).unwrap();
        let (mut book, found, notice) = MarkBook::open(dir.path(), 2).unwrap();
        assert_eq!(found.len(), 0);
        assert!(notice.unwrap().contains("set aside"));
        assert!(hold(&mut book, 1));
    }
}

#[test]
fn no_two_live_runs_have_the_same_tag() {
    let dir = tempfile::tempdir().unwrap();
    let (mut book, _, _) = MarkBook::open(dir.path(), 3).unwrap();
    hold(&mut book, 1);
    hold(&mut book, 2);
    let long_lived = book.ticket(attempt(1)).unwrap().tag;
    for _ in 0..TAG_COUNT + 5 {
        assert_ne!(book.ticket(attempt(2)).unwrap().tag, long_lived);
    }
}
