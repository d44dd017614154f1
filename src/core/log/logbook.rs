//! Log rows on their way to the store: collected for a moment, written in groups, kept until they are committed.
//!
//! Rows come from the executor (what ran) and from the leader (what was refused, missed or cancelled). While the store is
//! away they go to the spool, and with it they outlive the daemon.
//!
//! Invariants: one group is under way at a time; a row leaves only when the store has said that it is committed.

use crate::core::io::Effects;
use crate::core::log::spooler::{Fate, Spooler};
use crate::core::ports::{Chunk, GROUP_BYTES_MAX, GROUP_ROWS_MAX, Log, SpoolLeft, Spooled, StoreError, Work, WorkId};
use crate::core::time::{Backoff, Timer, Timers};
use crate::model::{Attempt, LogRow, Mono, Now, RunState};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// How long a first row waits for others: long enough that the rows of one second's runs share a statement and do not
/// take processor time from their start, short enough for "visible within a second".
const GATHER_MS: u64 = 150;
/// A store that has not answered for so long is taken to be away: the rows that it was given go to the spool as well.
const SILENT_MS: u64 = 2_000;
/// Output kept in memory while neither the store nor the spool takes it. Beyond it rows are kept and their output is not.
const BACKLOG_BYTES_MAX: usize = 256 << 20;

#[derive(Debug, Default)]
pub struct Logbook {
    /// In memory and nowhere else.
    rows: VecDeque<LogRow>,
    bytes: usize,
    attempts: BTreeSet<Attempt>,
    flush_at: Option<Mono>,
    in_flight: Option<InFlight>,
    backoff: Backoff,
    /// What the store said when it last failed; none while it takes rows.
    trouble: Option<String>,
    spooler: Spooler,
    /// The store has been reached in this life.
    is_open: bool,
    /// The group before came off the disk: rows of now have the next turn.
    was_page: bool,
    /// How many runs came to which end since the daemon's start, in the order of `RunState::ALL`.
    outcomes: [u64; RunState::ALL.len()],
}

/// A group that is with the store.
#[derive(Debug)]
struct InFlight {
    id: WorkId,
    group: Arc<[LogRow]>,
    sent_at: Mono,
    /// Where it is on the disk, if it is.
    chunk: Option<Chunk>,
}

impl Logbook {
    /// With what former lives have left in the spool.
    pub fn new(kept: SpoolLeft) -> Logbook {
        Logbook {
            attempts: kept.attempts.into_iter().collect(),
            spooler: Spooler::new(kept.chunks),
            ..Logbook::default()
        }
    }

    /// The store is there, for the first time in this life.
    pub fn on_opened(&mut self) {
        self.is_open = true;
    }

    pub fn push(&mut self, mut row: LogRow, now: Now) {
        if self.bytes + row.output.len() > BACKLOG_BYTES_MAX {
            row.output = format!(
                "[output of {} bytes not kept: neither the store nor the spool has taken it for too long]",
                row.output.len()
            );
        }
        self.bytes += row.output.len();
        self.outcomes[row.state as usize] += 1;
        self.attempts.insert(row.attempt);
        self.rows.push_back(row);
        self.flush_at.get_or_insert(now.mono.plus_ms(GATHER_MS));
    }

    /// The row that was pushed stands for so many more runs of the same end.
    pub fn count_coalesced(&mut self, state: RunState, more: u64) {
        self.outcomes[state as usize] += more;
    }

    /// How many runs came to which end, as far as this daemon has told it.
    pub fn outcomes(&self) -> impl Iterator<Item = (RunState, u64)> {
        RunState::ALL.into_iter().zip(self.outcomes)
    }

    /// How many runs were told as not run for want of room or time.
    pub fn refused(&self) -> u64 {
        let is_one = |state| matches!(state, RunState::Skipped | RunState::Shed | RunState::Missed);
        self.outcomes().filter(|(state, _)| is_one(*state)).map(|(_, count)| count).sum()
    }

    /// Whether a row of this attempt waits to be committed.
    pub fn has(&self, attempt: Attempt) -> bool {
        self.attempts.contains(&attempt)
    }

    /// Whether the store did not take rows the last time.
    pub fn is_failing(&self) -> bool {
        self.backoff.is_failing()
    }

    /// What the store said when it did not take rows the last time.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.in_flight.is_none() && self.spooler.is_empty()
    }

    /// Whether the store has failed, or has been silent for too long.
    pub fn is_store_away(&self, now: Now) -> bool {
        let is_silent = |in_flight: &InFlight| in_flight.sent_at.plus_ms(SILENT_MS) <= now.mono;
        !self.is_open || self.backoff.is_failing() || self.in_flight.as_ref().is_some_and(is_silent)
    }

    /// Whether the store is being asked, or is about to be.
    pub fn is_asking(&self) -> bool {
        self.in_flight.is_some() || self.backoff.is_failing()
    }

    /// Do not gather any longer: the node is about to leave.
    pub fn hurry(&mut self, now: Now) {
        if self.flush_at.is_some() {
            self.flush_at = Some(now.mono);
        }
    }

    /// Sends the next group where one is due: to the spool while the store is away, and to the store.
    pub fn poll(&mut self, fx: &mut Effects, now: Now) {
        if self.is_store_away(now) && self.spooler.is_free(now) {
            self.spool(fx, now);
        }
        if self.is_open && self.in_flight.is_none() && self.backoff.is_over(now) {
            self.write(fx, now);
        }
        if self.is_open {
            self.spooler.poll(self.writing(), fx, now);
        }
    }

    pub fn timers(&self, timers: &mut Timers) {
        let may_write = self.is_open && self.in_flight.is_none();
        let write = if self.spooler.has_loaded() { Some(Mono(0)) } else { self.due_at() };
        timers.set(Timer::LogWrite, write.filter(|_| may_write).map(|at| at.max(self.backoff.ready_at())));
        let sent_at = self.in_flight.as_ref().map(|in_flight| in_flight.sent_at);
        timers.set_ahead(Timer::LogSilence, sent_at.map(|at| at.plus_ms(SILENT_MS)));
        let with_store = self.in_flight.as_ref().filter(|in_flight| in_flight.chunk.is_none());
        let unsaved = with_store.map_or(self.due_at(), |_| Some(Mono(0))).filter(|_| self.is_store_away(timers.now()));
        timers.set(Timer::LogSpool, unsaved.zip(self.spooler.free_at()).map(|(at, free_at)| at.max(free_at)));
        if self.is_open {
            self.spooler.timers(self.writing(), timers);
        }
    }

    /// The attempts whose rows are committed by this answer.
    pub fn on_written(
        &mut self,
        id: WorkId,
        result: Result<(), StoreError>,
        fx: &mut Effects,
        now: Now,
    ) -> Vec<Attempt> {
        let Some(InFlight { group, chunk, .. }) = self.in_flight.take_if(|in_flight| in_flight.id == id) else {
            return Vec::new();
        };
        if let Err(error) = result {
            if !self.backoff.is_failing() {
                let waiting = group.len();
                fx.notice(
                    log::Level::Error,
                    format!("{waiting} log rows wait: {error}; asking again until it works, spooled meanwhile"),
                );
            }
            self.trouble = Some(error.to_string());
            self.backoff.fail(now);
            match chunk {
                Some(chunk) => self.spooler.put_back(chunk, group),
                None if self.spooler.is_appending(&group) => {}
                None => self.take_back(&group, now),
            }
            return Vec::new();
        }
        if self.backoff.is_failing() {
            fx.notice(log::Level::Info, "log rows are written again");
        }
        self.backoff.reset();
        self.trouble = None;
        self.spooler.on_committed(&group, chunk);
        self.flush_at = (!self.rows.is_empty()).then_some(now.mono);
        let attempts: Vec<Attempt> = group.iter().map(|row| row.attempt).collect();
        attempts.iter().for_each(|attempt| {
            self.attempts.remove(attempt);
        });
        attempts
    }

    pub fn on_spooled(&mut self, id: WorkId, result: Result<Spooled, String>, fx: &mut Effects, now: Now) {
        let is_with_store = |in_flight: &&mut InFlight, rows| Arc::ptr_eq(&in_flight.group, rows);
        match self.spooler.on_spooled(id, result, fx, now) {
            Fate::Nothing => {}
            Fate::OnDisk(chunk, rows) => {
                if let Some(in_flight) = self.in_flight.as_mut().filter(|in_flight| is_with_store(in_flight, &rows)) {
                    in_flight.chunk = Some(chunk);
                }
            }
            Fate::NotOnDisk(rows) => {
                if self.in_flight.as_mut().filter(|in_flight| is_with_store(in_flight, &rows)).is_none() {
                    self.take_back(&rows, now);
                }
            }
            // Of rows that could not be read back nothing more will be heard.
            Fate::Emptied => {
                let in_flight = self.in_flight.iter().flat_map(|in_flight| in_flight.group.iter());
                self.attempts = self.rows.iter().chain(in_flight).map(|row| row.attempt).collect();
            }
        }
    }

    /// The page of the spool that is with the store.
    fn writing(&self) -> Option<Chunk> {
        self.in_flight.as_ref().and_then(|in_flight| in_flight.chunk)
    }

    /// Puts onto the disk what is in memory only; first what the store was given and may not have taken.
    fn spool(&mut self, fx: &mut Effects, now: Now) {
        let with_store = self.in_flight.as_ref().filter(|in_flight| in_flight.chunk.is_none());
        if let Some(in_flight) = with_store {
            self.spooler.append(Arc::clone(&in_flight.group), fx);
        } else if self.due_at().is_some_and(|at| at <= now.mono) {
            let group = self.next_group(now);
            self.spooler.append(group, fx);
        }
    }

    /// To the store in turn: rows of now, and rows that wait on the disk.
    fn write(&mut self, fx: &mut Effects, now: Now) {
        let is_due = self.due_at().is_some_and(|at| at <= now.mono);
        let chunk = if is_due && self.was_page { None } else { self.spooler.take_loaded() };
        self.was_page = chunk.is_some();
        let (chunk, group) = match chunk {
            Some((chunk, group)) => (Some(chunk), group),
            None if is_due => (None, self.next_group(now)),
            None => return,
        };
        let id = fx.work(Work::Log(Log::Write(Arc::clone(&group))));
        self.in_flight = Some(InFlight { id, group, sent_at: now.mono, chunk });
    }

    /// When the rows in memory are to be sent: once they are gathered, or fill a group.
    fn due_at(&self) -> Option<Mono> {
        if GROUP_ROWS_MAX <= self.rows.len() { Some(Mono(0)) } else { self.flush_at }
    }

    fn take_back(&mut self, rows: &[LogRow], now: Now) {
        self.bytes += rows.iter().map(|row| row.output.len()).sum::<usize>();
        rows.iter().rev().for_each(|row| self.rows.push_front(row.clone()));
        self.flush_at = Some(now.mono);
    }

    fn next_group(&mut self, now: Now) -> Arc<[LogRow]> {
        let mut bytes = 0;
        let fits = |row: &&LogRow| {
            bytes += row.output.len();
            bytes <= GROUP_BYTES_MAX
        };
        let rows = self.rows.iter().take(GROUP_ROWS_MAX).take_while(fits).count().max(1);
        let group: Arc<[LogRow]> = self.rows.drain(..rows).collect();
        self.bytes -= group.iter().map(|row| row.output.len()).sum::<usize>();
        self.flush_at = (!self.rows.is_empty()).then_some(now.mono);
        group
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::io::Effect;
    use crate::core::ports::Spool;
    use crate::model::{JobId, RunKey, RunState, Second, Server, Version};

    fn row(id: u32, bytes: usize) -> LogRow {
        LogRow {
            attempt: attempt(id),
            version: Version(1),
            state: RunState::Ok,
            exit_code: Some(0),
            output: "x".repeat(bytes),
            start_time_ms: 0,
            use_time_ms: 0,
            dispatch_time: Second(1),
            dispatch_server: Server::default(),
            run_server: Server::default(),
        }
    }

    fn attempt(id: u32) -> Attempt {
        Attempt { run: RunKey::scheduled(JobId(id), Second(1)), number: 1 }
    }

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

    /// What the book asks for next, in words, with the number of rows.
    fn asked(logbook: &mut Logbook, fx: &mut Effects, now: Now) -> Option<(WorkId, &'static str, usize)> {
        logbook.poll(fx, now);
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

    /// A book that was told that the store is away while it had this row, and has it on the disk as page 7.
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
        // The first page is what the store is asked with; what comes meanwhile is spooled.
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
    fn rows_of_now_and_rows_of_the_spool_take_turns() {
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
    fn a_store_that_says_nothing_is_away_and_what_it_was_given_is_spooled() {
        for is_taken in [true, false] {
            let (mut logbook, mut fx) = open();
            logbook.push(row(1, 5), at(0));
            let write = expect(&mut logbook, &mut fx, at(GATHER_MS), "write", 1);
            let silent = at(GATHER_MS + SILENT_MS);
            assert!(!logbook.is_store_away(at(GATHER_MS + SILENT_MS - 1)));
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
            let silent = at(GATHER_MS + SILENT_MS);
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
    fn a_disk_that_takes_nothing_is_said_once_and_the_rows_wait_in_memory() {
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
        assert!(logbook.has(attempt(1)) && logbook.rows.is_empty() && logbook.bytes == 0);
    }

    #[test]
    fn a_page_that_cannot_be_read_is_passed_over_and_waited_for_no_longer() {
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

    #[test]
    fn beyond_the_backlog_a_row_is_kept_without_its_output() {
        let mut logbook = Logbook { bytes: BACKLOG_BYTES_MAX - 5, ..Logbook::default() };
        logbook.push(row(1, 5), at(0));
        assert_eq!(logbook.rows[0].output, "xxxxx");
        logbook.push(row(2, 1), at(0));
        assert!(logbook.rows[1].output.contains("not kept"));
    }
}
