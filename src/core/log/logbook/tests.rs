//! Tests of the logbook, with a store and a disk that answer step by step.

use super::*;
use crate::core::io::Effect;
use crate::core::io::ports::{GROUP_BYTES_MAX, GROUP_ROWS_MAX, Spool};
use crate::core::log::sample::{attempt, row};
use crate::core::time::bounds::GATHER_MS;

fn at(ms: u64) -> Now {
    Now { mono: Mono(0).plus_ms(ms), ..Now::default() }
}

fn away() -> Result<(), StoreError> {
    Err(StoreError::Unavailable("away".into()))
}

fn chunk(at: u64) -> Chunk {
    Chunk { at, bytes: 1 }
}

/// A book whose store is open.
fn open() -> (Logbook, Effects) {
    let mut logbook = Logbook::default();
    logbook.on_opened();
    (logbook, Effects::default())
}

fn due(logbook: &Logbook, now: Now) -> Option<Mono> {
    Timers::first(now, |timers| logbook.timers(timers)).map(|(_, at)| at)
}

/// The logbook's next piece of work, in a word, with the number of rows.
fn asked(logbook: &mut Logbook, fx: &mut Effects, now: Now) -> Option<(WorkId, &'static str, usize)> {
    logbook.poll(fx, now);
    logbook.check_invariants();
    loop {
        return match fx.take()? {
            Effect::Work(id, Work::Log(Log::Write(rows))) => Some((id, "write", rows.len())),
            Effect::Work(id, Work::Spool(Spool::Append(rows))) => Some((id, "append", rows.len())),
            Effect::Work(id, Work::Spool(Spool::Read(chunk))) => Some((id, "read", chunk.at as usize)),
            Effect::Work(id, Work::Spool(Spool::Empty)) => Some((id, "empty", 0)),
            Effect::Notice(_) => continue,
            other => panic!("{other:?}"),
        };
    }
}

#[track_caller]
fn expect(logbook: &mut Logbook, fx: &mut Effects, now: Now, what: &str, count: usize) -> WorkId {
    let (id, asked, rows) = asked(logbook, fx, now).expect(what);
    assert_eq!((asked, rows), (what, count));
    id
}

/// A logbook with one row, which the store did not take, and which is on the disk as chunk 7.
fn spooled(id: u32) -> (Logbook, Effects) {
    let (mut logbook, mut fx) = open();
    logbook.push(row(id, 5), at(0));
    let write = expect(&mut logbook, &mut fx, at(GATHER_MS), "write", 1);
    assert!(logbook.on_written(write, away(), &mut fx, at(GATHER_MS)).is_empty());
    let append = expect(&mut logbook, &mut fx, at(GATHER_MS), "append", 1);
    logbook.on_spooled(append, Ok(Spooled::Chunk(chunk(7))), &mut fx, at(GATHER_MS));
    (logbook, fx)
}

#[test]
fn rows_of_a_moment_go_together_and_leave_when_committed() {
    let (mut logbook, mut fx) = open();
    logbook.push(row(1, 5), at(0));
    logbook.push(row(2, 5), at(GATHER_MS - 1));
    assert_eq!(asked(&mut logbook, &mut fx, at(GATHER_MS - 1)), None);
    let id = expect(&mut logbook, &mut fx, at(GATHER_MS), "write", 2);
    logbook.push(row(3, 5), at(GATHER_MS));
    assert_eq!(asked(&mut logbook, &mut fx, at(GATHER_MS + 1_000)), None, "one group at a time");
    assert_eq!(logbook.on_written(id, Ok(()), &mut fx, at(1_200)).len(), 2);
    assert!(!logbook.is_empty());
    expect(&mut logbook, &mut fx, at(1_200), "write", 1);
}

#[test]
fn rows_that_the_store_has_refused_go_to_the_spool_and_from_there_to_the_store() {
    let (mut logbook, mut fx) = spooled(1);
    assert!(logbook.has(attempt(1)) && !logbook.is_empty());
    logbook.push(row(2, 5), at(200));
    let read = expect(&mut logbook, &mut fx, at(200), "read", 7);
    logbook.on_spooled(read, Ok(Spooled::Rows(vec![row(1, 5)])), &mut fx, at(200));
    // The store gets the first chunk; a row that comes meanwhile is spooled.
    let append = expect(&mut logbook, &mut fx, at(350), "append", 1);
    let write = expect(&mut logbook, &mut fx, at(350), "write", 1);
    logbook.on_spooled(append, Ok(Spooled::Chunk(chunk(8))), &mut fx, at(350));
    assert!(logbook.on_written(write, away(), &mut fx, at(350)).is_empty());
    assert_eq!(asked(&mut logbook, &mut fx, at(350)), None, "not read a second time");
    let again = due(&logbook, at(350)).unwrap();
    let write = expect(&mut logbook, &mut fx, Now { mono: again, ..Now::default() }, "write", 1);
    assert_eq!(logbook.on_written(write, Ok(()), &mut fx, at(1_000)), [attempt(1)]);
    let read = expect(&mut logbook, &mut fx, at(1_000), "read", 8);
    logbook.on_spooled(read, Ok(Spooled::Rows(vec![row(2, 5)])), &mut fx, at(1_000));
    let write = expect(&mut logbook, &mut fx, at(1_000), "write", 1);
    assert_eq!(asked(&mut logbook, &mut fx, at(1_000)), None, "emptied only when all of it is committed");
    assert_eq!(logbook.on_written(write, Ok(()), &mut fx, at(1_000)), [attempt(2)]);
    let empty = expect(&mut logbook, &mut fx, at(1_000), "empty", 0);
    logbook.on_spooled(empty, Ok(Spooled::Emptied), &mut fx, at(1_000));
    assert!(logbook.is_empty());
    assert_eq!(due(&logbook, at(1_000)), None);
}

#[test]
fn rows_from_memory_and_rows_from_the_spool_alternate() {
    let mut fx = Effects::default();
    let mut logbook =
        Logbook { is_open: true, ..Logbook::new(SpoolLeft { attempts: vec![attempt(1)], chunks: vec![chunk(0)] }) };
    assert!(logbook.has(attempt(1)));
    let read = expect(&mut logbook, &mut fx, at(0), "read", 0);
    logbook.on_spooled(read, Ok(Spooled::Rows(vec![row(1, 0), row(2, 0)])), &mut fx, at(0));
    logbook.push(row(3, 0), at(0));
    let write = expect(&mut logbook, &mut fx, at(GATHER_MS), "write", 2);
    logbook.on_written(write, Ok(()), &mut fx, at(GATHER_MS));
    let write = expect(&mut logbook, &mut fx, at(GATHER_MS), "write", 1);
    assert_eq!(logbook.on_written(write, Ok(()), &mut fx, at(GATHER_MS)), [attempt(3)]);
}

#[test]
fn a_store_that_does_not_answer_is_away_and_the_rows_that_it_was_given_are_spooled() {
    for is_taken in [true, false] {
        let (mut logbook, mut fx) = open();
        logbook.push(row(1, 5), at(0));
        let write = expect(&mut logbook, &mut fx, at(GATHER_MS), "write", 1);
        let silent = at(GATHER_MS + LOG_SILENT_MS);
        assert!(!logbook.is_store_away(at(GATHER_MS + LOG_SILENT_MS - 1)));
        assert_eq!(due(&logbook, at(GATHER_MS)), Some(silent.mono));
        let append = expect(&mut logbook, &mut fx, silent, "append", 1);
        logbook.on_spooled(append, Ok(Spooled::Chunk(chunk(7))), &mut fx, silent);
        assert_eq!(asked(&mut logbook, &mut fx, silent), None, "spooled once, and not read while it is asked");
        let result = if is_taken { Ok(()) } else { away() };
        assert_eq!(logbook.on_written(write, result, &mut fx, silent).len(), usize::from(is_taken));
        if is_taken {
            expect(&mut logbook, &mut fx, silent, "empty", 0);
        } else {
            assert_eq!(asked(&mut logbook, &mut fx, silent), None);
            let again = Now { mono: due(&logbook, silent).unwrap(), ..silent };
            expect(&mut logbook, &mut fx, again, "write", 1);
        }
    }
}

#[test]
fn a_group_that_is_answered_while_it_is_being_spooled_is_neither_lost_nor_kept_for_ever() {
    for (is_taken, is_spooled) in [(true, true), (true, false), (false, true), (false, false)] {
        let (mut logbook, mut fx) = open();
        logbook.push(row(1, 5), at(0));
        let write = expect(&mut logbook, &mut fx, at(GATHER_MS), "write", 1);
        let silent = at(GATHER_MS + LOG_SILENT_MS);
        let append = expect(&mut logbook, &mut fx, silent, "append", 1);
        logbook.on_written(write, if is_taken { Ok(()) } else { away() }, &mut fx, silent);
        assert!(!logbook.is_empty());
        let disk = if is_spooled { Ok(Spooled::Chunk(chunk(7))) } else { Err("full".into()) };
        logbook.on_spooled(append, disk, &mut fx, silent);
        let later = at(60_000);
        let (_, asked, rows) = asked(&mut logbook, &mut fx, later).unwrap();
        let expected = match (is_taken, is_spooled) {
            (true, _) => ("empty", 0),
            (false, true) => ("read", 7),
            (false, false) => ("append", 1),
        };
        assert_eq!((asked, rows), expected, "taken {is_taken}, spooled {is_spooled}");
    }
}

#[test]
fn before_the_store_was_ever_open_rows_go_to_the_spool() {
    let (mut logbook, mut fx) = (Logbook::default(), Effects::default());
    logbook.push(row(1, 5), at(0));
    assert_eq!(asked(&mut logbook, &mut fx, at(GATHER_MS - 1)), None);
    let append = expect(&mut logbook, &mut fx, at(GATHER_MS), "append", 1);
    logbook.on_spooled(append, Ok(Spooled::Chunk(chunk(0))), &mut fx, at(GATHER_MS));
    assert_eq!(asked(&mut logbook, &mut fx, at(GATHER_MS)), None);
    logbook.on_opened();
    expect(&mut logbook, &mut fx, at(GATHER_MS), "read", 0);
}

#[test]
fn a_disk_that_takes_nothing_is_reported_once_and_the_rows_wait_in_memory() {
    let (mut logbook, mut fx) = open();
    logbook.push(row(1, 5), at(0));
    let write = expect(&mut logbook, &mut fx, at(GATHER_MS), "write", 1);
    logbook.on_written(write, away(), &mut fx, at(GATHER_MS));
    let mut said = 0;
    let mut now = at(GATHER_MS);
    for _ in 0..5 {
        logbook.poll(&mut fx, now);
        while let Some(output) = fx.take() {
            match output {
                Effect::Work(id, Work::Log(_)) => drop(logbook.on_written(id, away(), &mut fx, now)),
                Effect::Work(id, _) => logbook.on_spooled(id, Err("no space left".into()), &mut fx, now),
                Effect::Notice(notice) => said += usize::from(notice.text.contains("no space left")),
                other => panic!("{other:?}"),
            }
        }
        now.mono = due(&logbook, now).unwrap();
    }
    assert_eq!(said, 1);
    let write = expect(&mut logbook, &mut fx, at(60_000), "append", 1);
    logbook.on_spooled(write, Ok(Spooled::Chunk(chunk(0))), &mut fx, at(60_000));
    assert!(logbook.has(attempt(1)) && logbook.backlog.is_empty());
}

#[test]
fn a_chunk_that_cannot_be_read_is_left_out_and_its_rows_are_not_waited_for() {
    let (mut logbook, mut fx) = spooled(1);
    let read = expect(&mut logbook, &mut fx, at(200), "read", 7);
    logbook.on_spooled(read, Err("it is damaged".into()), &mut fx, at(200));
    let empty = expect(&mut logbook, &mut fx, at(60_000), "empty", 0);
    logbook.on_spooled(empty, Ok(Spooled::Emptied), &mut fx, at(60_000));
    assert!(logbook.is_empty() && !logbook.has(attempt(1)));
}

#[test]
fn a_group_has_an_end_in_rows_and_in_bytes() {
    let (mut logbook, mut fx) = open();
    (0..=GROUP_ROWS_MAX as u32).for_each(|id| logbook.push(row(id, 0), at(0)));
    expect(&mut logbook, &mut fx, at(0), "write", GROUP_ROWS_MAX);

    let (mut logbook, mut fx) = open();
    logbook.push(row(1, GROUP_BYTES_MAX + 1), at(0));
    logbook.push(row(2, GROUP_BYTES_MAX), at(0));
    logbook.push(row(3, 1), at(0));
    for _ in 0..3 {
        let id = expect(&mut logbook, &mut fx, at(GATHER_MS), "write", 1);
        logbook.on_written(id, Ok(()), &mut fx, at(GATHER_MS));
    }
}
