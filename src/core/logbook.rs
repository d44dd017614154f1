//! Log rows on their way to the store: collected for a moment, written in groups, kept until they are committed.
//!
//! Rows come from the executor (what ran) and from the leader (what was refused, missed or cancelled).
//!
//! Invariants: one group is under way at a time; a row leaves only when the store has said that it is committed.

use super::backoff::Backoff;
use super::effects::Effects;
use super::work::{Log, StoreError, Work, WorkId};
use crate::model::{Attempt, LogRow, Mono, Now};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// How long a first row waits for others: long enough that the rows of one second's runs share a statement and do not
/// take processor time from their start, short enough for "visible within a second".
const GATHER_MS: u64 = 150;
/// Rows in one group at most.
const GROUP_ROWS_MAX: usize = 1_000;
/// Bytes of output in one group at most; a single larger row goes alone.
const GROUP_BYTES_MAX: usize = 8 << 20;
/// Output kept in memory while the store is away. Beyond it rows are kept and their output is not.
pub const BACKLOG_BYTES_MAX: usize = 256 << 20;

#[derive(Debug, Default)]
pub struct Logbook {
    rows: VecDeque<LogRow>,
    attempts: BTreeSet<Attempt>,
    bytes: usize,
    flush_at: Option<Mono>,
    in_flight: Option<(WorkId, Arc<[LogRow]>)>,
    backoff: Backoff,
}

impl Logbook {
    pub fn push(&mut self, mut row: LogRow, now: Now) {
        if self.bytes + row.output.len() > BACKLOG_BYTES_MAX {
            row.output = format!("[output of {} bytes not kept: the store was away for too long]", row.output.len());
        }
        self.bytes += row.output.len();
        self.attempts.insert(row.attempt);
        self.rows.push_back(row);
        self.flush_at.get_or_insert(now.mono.plus_ms(GATHER_MS));
    }

    /// Whether a row of this attempt waits to be committed.
    pub fn has(&self, attempt: Attempt) -> bool {
        self.attempts.contains(&attempt)
    }

    /// Whether the store did not take rows the last time.
    pub fn is_failing(&self) -> bool {
        self.backoff.is_failing()
    }

    pub fn is_empty(&self) -> bool {
        self.attempts.is_empty()
    }

    /// Do not gather any longer: the node is about to leave.
    pub fn hurry(&mut self, now: Now) {
        if self.flush_at.is_some() {
            self.flush_at = Some(now.mono);
        }
    }

    /// Sends the next group where one is due.
    pub fn poll(&mut self, fx: &mut Effects, now: Now) {
        if self.in_flight.is_some() || !self.backoff.is_over(now) || self.deadline().is_none_or(|at| now.mono < at) {
            return;
        }
        let group = self.next_group();
        let id = fx.work(Work::Log(Log::Write(Arc::clone(&group))));
        self.in_flight = Some((id, group));
    }

    /// When `poll` has something to do.
    pub fn deadline(&self) -> Option<Mono> {
        if self.in_flight.is_some() || self.rows.is_empty() {
            return None;
        }
        let flush_at = if GROUP_ROWS_MAX <= self.rows.len() { Some(Mono(0)) } else { self.flush_at };
        flush_at.max(self.backoff.deadline())
    }

    /// The attempts whose rows are committed by this answer.
    pub fn on_written(
        &mut self,
        id: WorkId,
        result: Result<(), StoreError>,
        fx: &mut Effects,
        now: Now,
    ) -> Vec<Attempt> {
        let Some((_, group)) = self.in_flight.take_if(|(in_flight, _)| *in_flight == id) else { return Vec::new() };
        if let Err(error) = result {
            if !self.backoff.is_failing() {
                fx.notice(
                    log::Level::Error,
                    format!("{} log rows wait: {error}; asking again until it works", group.len()),
                );
            }
            self.backoff.fail(now);
            group.iter().rev().for_each(|row| self.rows.push_front(row.clone()));
            self.flush_at = Some(now.mono);
            return Vec::new();
        }
        if self.backoff.is_failing() {
            fx.notice(log::Level::Info, "log rows are written again");
        }
        self.backoff.reset();
        self.flush_at = (!self.rows.is_empty()).then_some(now.mono);
        let attempts: Vec<Attempt> = group.iter().map(|row| row.attempt).collect();
        self.bytes -= group.iter().map(|row| row.output.len()).sum::<usize>();
        attempts.iter().for_each(|attempt| {
            self.attempts.remove(attempt);
        });
        attempts
    }

    fn next_group(&mut self) -> Arc<[LogRow]> {
        let mut bytes = 0;
        let fits = |row: &&LogRow| {
            bytes += row.output.len();
            bytes <= GROUP_BYTES_MAX
        };
        let rows = self.rows.iter().take(GROUP_ROWS_MAX).take_while(fits).count().max(1);
        self.rows.drain(..rows).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Output;
    use crate::model::{JobId, RunKey, RunState, Second, Server, Version};

    fn row(id: u32, bytes: usize) -> LogRow {
        LogRow {
            attempt: Attempt { run: RunKey::scheduled(JobId(id), Second(1)), number: 1 },
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

    fn at(ms: u64) -> Now {
        Now { mono: Mono(0).plus_ms(ms), ..Now::default() }
    }

    fn sent(logbook: &mut Logbook, fx: &mut Effects, now: Now) -> Option<(WorkId, usize)> {
        logbook.poll(fx, now);
        match fx.take()? {
            Output::Work(id, Work::Log(Log::Write(rows))) => Some((id, rows.len())),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn rows_of_a_moment_go_together_and_leave_when_committed() {
        let (mut logbook, mut fx) = (Logbook::default(), Effects::default());
        logbook.push(row(1, 5), at(0));
        logbook.push(row(2, 5), at(GATHER_MS - 1));
        assert_eq!(sent(&mut logbook, &mut fx, at(GATHER_MS - 1)), None);
        let (id, rows) = sent(&mut logbook, &mut fx, at(GATHER_MS)).unwrap();
        assert_eq!(rows, 2);
        logbook.push(row(3, 5), at(GATHER_MS));
        assert_eq!(sent(&mut logbook, &mut fx, at(10_000)), None, "one group at a time");
        assert_eq!(logbook.on_written(id, Ok(()), &mut fx, at(10_000)).len(), 2);
        assert!(!logbook.is_empty());
        assert_eq!(sent(&mut logbook, &mut fx, at(10_000)).unwrap().1, 1);
    }

    #[test]
    fn a_store_that_is_away_delays_rows_and_loses_none() {
        let (mut logbook, mut fx) = (Logbook::default(), Effects::default());
        logbook.push(row(1, 5), at(0));
        let (id, _) = sent(&mut logbook, &mut fx, at(GATHER_MS)).unwrap();
        let away = Err(StoreError::Unavailable("away".into()));
        assert!(logbook.on_written(id, away, &mut fx, at(1_000)).is_empty());
        assert!(matches!(fx.take(), Some(Output::Notice(_))));
        assert!(logbook.has(row(1, 5).attempt));
        let again = logbook.deadline().unwrap();
        assert!(at(1_000).mono < again);
        let (id, rows) = sent(&mut logbook, &mut fx, Now { mono: again, ..Now::default() }).unwrap();
        assert_eq!(rows, 1);
        assert_eq!(logbook.on_written(id, Ok(()), &mut fx, at(9_000)).len(), 1);
        assert!(logbook.is_empty());
        assert_eq!(logbook.deadline(), None);
    }

    #[test]
    fn a_group_has_an_end_in_rows_and_in_bytes() {
        let (mut logbook, mut fx) = (Logbook::default(), Effects::default());
        (0..=GROUP_ROWS_MAX as u32).for_each(|id| logbook.push(row(id, 0), at(0)));
        assert_eq!(sent(&mut logbook, &mut fx, at(0)).unwrap().1, GROUP_ROWS_MAX, "a full group does not wait");

        let (mut logbook, mut fx) = (Logbook::default(), Effects::default());
        logbook.push(row(1, GROUP_BYTES_MAX + 1), at(0));
        logbook.push(row(2, GROUP_BYTES_MAX), at(0));
        logbook.push(row(3, 1), at(0));
        for _ in 0..3 {
            let (id, rows) = sent(&mut logbook, &mut fx, at(GATHER_MS)).unwrap();
            assert_eq!(rows, 1);
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
