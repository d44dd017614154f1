//! Log rows that are only in memory: gathered for a moment, then taken in groups.
//!
//! Not limited in rows, because the runs of a node are limited; limited in the bytes of their output.
//!
//! Invariants: rows leave in the order in which they came; while there is a row, `flush_at` says when to send it.

use crate::core::io::ports::{GROUP_BYTES_MAX, GROUP_ROWS_MAX};
use crate::core::time::bounds::GATHER_MS;
use crate::model::{LogRow, Mono, Now};
use std::collections::VecDeque;
use std::sync::Arc;

/// Bytes of output kept in memory while neither the store nor the spool takes rows. Beyond it rows are kept without
/// their output.
const BACKLOG_BYTES_MAX: usize = 256 << 20;

#[derive(Debug, Default)]
pub struct Backlog {
    rows: VecDeque<LogRow>,
    /// The bytes of output of all rows.
    bytes: usize,
    flush_at: Option<Mono>,
}

impl Backlog {
    pub fn push(&mut self, mut row: LogRow, now: Now) {
        if self.bytes + row.output.len() > BACKLOG_BYTES_MAX {
            row.output = format!(
                "[output of {} bytes not kept: neither the store nor the spool has taken it for too long]",
                row.output.len()
            );
        }
        self.bytes += row.output.len();
        self.rows.push_back(row);
        self.flush_at.get_or_insert(now.mono.plus_ms(GATHER_MS));
    }

    /// Takes back rows that neither the store nor the disk has taken: they will be sent next.
    pub fn take_back(&mut self, rows: &[LogRow], now: Now) {
        self.bytes += rows.iter().map(|row| row.output.len()).sum::<usize>();
        rows.iter().rev().for_each(|row| self.rows.push_front(row.clone()));
        self.flush(now);
    }

    /// Gathers no longer: the rows may go now.
    pub fn flush(&mut self, now: Now) {
        self.flush_at = (!self.rows.is_empty()).then_some(now.mono);
    }

    /// When rows are to be sent: at the end of the gathering, or at once where they fill a group.
    pub fn due_at(&self) -> Option<Mono> {
        if GROUP_ROWS_MAX <= self.rows.len() { Some(Mono(0)) } else { self.flush_at }
    }

    /// Takes the first rows, as many as make a group. There must be at least one row.
    pub fn next_group(&mut self, now: Now) -> Arc<[LogRow]> {
        debug_assert!(!self.rows.is_empty(), "a group is wanted and no row waits");
        let mut bytes = 0;
        let fits = |row: &&LogRow| {
            bytes += row.output.len();
            bytes <= GROUP_BYTES_MAX
        };
        let rows = self.rows.iter().take(GROUP_ROWS_MAX).take_while(fits).count().max(1);
        let group: Arc<[LogRow]> = self.rows.drain(..rows).collect();
        let bytes = bytes_of(group.iter());
        debug_assert!(group.len() <= GROUP_ROWS_MAX, "a group has too many rows: {}", group.len());
        debug_assert!(bytes <= GROUP_BYTES_MAX || group.len() == 1, "a group is too large: {bytes} bytes");
        debug_assert!(bytes <= self.bytes, "more is taken out than was counted: {bytes} of {} bytes", self.bytes);
        self.bytes -= bytes;
        self.flush(now);
        group
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn rows(&self) -> impl Iterator<Item = &LogRow> {
        self.rows.iter()
    }

    /// Counts the bytes again. Costs a look at every row.
    pub fn check_invariants(&self) {
        assert_eq!(self.bytes, bytes_of(&self.rows), "the bytes that wait are counted wrongly");
        assert_eq!(
            self.flush_at.is_some(),
            !self.rows.is_empty(),
            "rows wait without a moment, or a moment without rows"
        );
    }
}

fn bytes_of<'a>(rows: impl IntoIterator<Item = &'a LogRow>) -> usize {
    rows.into_iter().map(|row| row.output.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::log::sample::row;

    #[test]
    fn beyond_the_backlog_a_row_is_kept_without_its_output() {
        let mut backlog = Backlog { bytes: BACKLOG_BYTES_MAX - 5, ..Backlog::default() };
        backlog.push(row(1, 5), Now::default());
        assert_eq!(backlog.rows[0].output, "xxxxx");
        backlog.push(row(2, 1), Now::default());
        assert!(backlog.rows[1].output.contains("not kept"));
    }

    #[test]
    fn rows_that_come_back_are_the_next_and_are_counted_once() {
        let mut backlog = Backlog::default();
        (1..=3).for_each(|id| backlog.push(row(id, id as usize), Now::default()));
        let group = backlog.next_group(Now::default());
        backlog.push(row(4, 4), Now::default());
        backlog.take_back(&group, Now::default());
        backlog.check_invariants();
        let ids: Vec<u32> = backlog.rows().map(|row| row.attempt.run.cron_id.0).collect();
        assert_eq!((ids, backlog.bytes), (vec![1, 2, 3, 4], 10));
    }
}
