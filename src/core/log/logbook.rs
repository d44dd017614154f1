//! Log rows on their way to the store: written in groups, kept until they are committed.
//!
//! Rows come from the executor (runs that ended) and from the leader (runs that were refused, missed or cancelled).
//! While the store is away they go to the spool, and there they outlive the daemon.
//!
//! Not the place where rows wait: that is `backlog` in memory and `spooler` on the disk.
//!
//! Invariants: one group is under way at a time; a row leaves only when the store has said that it is committed.

#[cfg(test)]
mod tests;

use crate::core::io::Effects;
use crate::core::io::ports::{Chunk, Log, SpoolLeft, Spooled, StoreError, Work, WorkId};
use crate::core::log::backlog::Backlog;
use crate::core::log::spooler::{Fate, Spooler};
use crate::core::time::bounds::LOG_SILENT_MS;
use crate::core::time::{Backoff, Timer, Timers};
use crate::model::{Attempt, LogRow, Mono, Now, RunState};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The log rows that the store has not committed yet.
#[derive(Debug, Default)]
pub struct Logbook {
    backlog: Backlog,
    /// The attempts whose rows wait, in memory or on the disk.
    attempts: BTreeSet<Attempt>,
    in_flight: Option<InFlight>,
    backoff: Backoff,
    /// The store's last error; none while it takes rows.
    trouble: Option<String>,
    spooler: Spooler,
    /// The store has been reached in this incarnation.
    is_open: bool,
    /// The last group came from the disk, so the next one comes from memory.
    was_spooled: bool,
    /// How many runs ended in each state since the daemon's start, in the order of `RunState::ALL`.
    outcomes: [u64; RunState::ALL.len()],
}

/// A group that is with the store.
#[derive(Debug)]
struct InFlight {
    id: WorkId,
    group: Arc<[LogRow]>,
    sent_at: Mono,
    /// Its chunk in the spool; none where it is not on the disk.
    chunk: Option<Chunk>,
}

impl Logbook {
    /// `left`: the rows that former incarnations left in the spool.
    pub fn new(left: SpoolLeft) -> Logbook {
        Logbook {
            attempts: left.attempts.into_iter().collect(),
            spooler: Spooler::new(left.chunks),
            ..Logbook::default()
        }
    }

    /// The store is reached for the first time in this incarnation.
    pub fn on_opened(&mut self) {
        self.is_open = true;
    }

    /// Takes a row, to be written with others.
    pub fn push(&mut self, row: LogRow, now: Now) {
        self.outcomes[row.state as usize] += 1;
        self.attempts.insert(row.attempt);
        self.backlog.push(row, now);
    }

    /// The row that was pushed stands for `more` further runs of the same state.
    pub fn count_coalesced(&mut self, state: RunState, more: u64) {
        self.outcomes[state as usize] += more;
    }

    /// How many runs ended in each state, as far as this daemon wrote their rows since its start.
    pub fn outcomes(&self) -> impl Iterator<Item = (RunState, u64)> {
        RunState::ALL.into_iter().zip(self.outcomes)
    }

    /// How many runs were skipped, shed or missed.
    pub fn refused(&self) -> u64 {
        let is_refused = |state| matches!(state, RunState::Skipped | RunState::Shed | RunState::Missed);
        self.outcomes().filter(|(state, _)| is_refused(*state)).map(|(_, count)| count).sum()
    }

    /// Whether a row of this attempt waits to be committed.
    pub fn has(&self, attempt: Attempt) -> bool {
        self.attempts.contains(&attempt)
    }

    /// Whether the store did not take rows the last time.
    pub fn is_failing(&self) -> bool {
        self.backoff.is_failing()
    }

    /// The store's last error; none while it takes rows.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Whether every row is committed.
    pub fn is_empty(&self) -> bool {
        self.backlog.is_empty() && self.in_flight.is_none() && self.spooler.is_empty()
    }

    /// Whether the store has failed, or has been silent for too long.
    pub fn is_store_away(&self, now: Now) -> bool {
        let is_silent = |in_flight: &InFlight| in_flight.sent_at.plus_ms(LOG_SILENT_MS) <= now.mono;
        !self.is_open || self.backoff.is_failing() || self.in_flight.as_ref().is_some_and(is_silent)
    }

    /// Whether the store is being asked, or is about to be.
    pub fn is_asking(&self) -> bool {
        self.in_flight.is_some() || self.backoff.is_failing()
    }

    /// Gathers no longer: the node shuts down.
    pub fn hurry(&mut self, now: Now) {
        self.backlog.flush(now);
    }

    /// Sends the next group where there is one: to the store, and while that is away to the spool.
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

    /// Adds when this part has to be woken.
    pub fn timers(&self, timers: &mut Timers) {
        let may_write = self.is_open && self.in_flight.is_none();
        let write = if self.spooler.has_loaded() { Some(Mono(0)) } else { self.backlog.due_at() };
        timers.set(Timer::LogWrite, write.filter(|_| may_write).map(|at| at.max(self.backoff.ready_at())));
        let sent_at = self.in_flight.as_ref().map(|in_flight| in_flight.sent_at);
        timers.set_ahead(Timer::LogSilence, sent_at.map(|at| at.plus_ms(LOG_SILENT_MS)));
        let with_store = self.in_flight.as_ref().filter(|in_flight| in_flight.chunk.is_none());
        let unsaved =
            with_store.map_or(self.backlog.due_at(), |_| Some(Mono(0))).filter(|_| self.is_store_away(timers.now()));
        timers.set(Timer::LogSpool, unsaved.zip(self.spooler.free_at()).map(|(at, free_at)| at.max(free_at)));
        if self.is_open {
            self.spooler.timers(self.writing(), timers);
        }
    }

    /// The store has answered. Answers the attempts whose rows are committed now.
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
                    format!("{waiting} log rows wait: {error}; trying again until it works, spooled meanwhile"),
                );
            }
            self.trouble = Some(error.to_string());
            self.backoff.fail(now);
            match chunk {
                Some(chunk) => self.spooler.put_back(chunk, group),
                None if self.spooler.is_appending(&group) => {}
                None => self.backlog.take_back(&group, now),
            }
            return Vec::new();
        }
        if self.backoff.is_failing() {
            fx.notice(log::Level::Info, "log rows are written again");
        }
        self.backoff.reset();
        self.trouble = None;
        self.spooler.on_committed(&group, chunk);
        self.backlog.flush(now);
        let attempts: Vec<Attempt> = group.iter().map(|row| row.attempt).collect();
        attempts.iter().for_each(|attempt| {
            self.attempts.remove(attempt);
        });
        attempts
    }

    /// Work of the spool was done, or failed with this reason.
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
                    self.backlog.take_back(&rows, now);
                }
            }
            // The file is empty, so nobody needs to wait for rows that could not be read back.
            Fate::Emptied => {
                let in_flight = self.in_flight.iter().flat_map(|in_flight| in_flight.group.iter());
                self.attempts = self.backlog.rows().chain(in_flight).map(|row| row.attempt).collect();
            }
        }
    }

    /// The chunk of the spool that is with the store.
    fn writing(&self) -> Option<Chunk> {
        self.in_flight.as_ref().and_then(|in_flight| in_flight.chunk)
    }

    /// Appends to the spool rows that are only in memory: first those that the store was given and may not have taken.
    fn spool(&mut self, fx: &mut Effects, now: Now) {
        let with_store = self.in_flight.as_ref().filter(|in_flight| in_flight.chunk.is_none());
        if let Some(in_flight) = with_store {
            self.spooler.append(Arc::clone(&in_flight.group), fx);
        } else if self.backlog.due_at().is_some_and(|at| at <= now.mono) {
            let group = self.backlog.next_group(now);
            self.spooler.append(group, fx);
        }
    }

    /// Gives the store a group: rows from memory and rows from the disk alternate.
    fn write(&mut self, fx: &mut Effects, now: Now) {
        let is_due = self.backlog.due_at().is_some_and(|at| at <= now.mono);
        let chunk = if is_due && self.was_spooled { None } else { self.spooler.take_loaded() };
        self.was_spooled = chunk.is_some();
        let (chunk, group) = match chunk {
            Some((chunk, group)) => (Some(chunk), group),
            None if is_due => (None, self.backlog.next_group(now)),
            None => return,
        };
        debug_assert!(self.in_flight.is_none(), "a second group is given to the store");
        debug_assert!(!group.is_empty(), "a group without a row is given to the store");
        let id = fx.work(Work::Log(Log::Write(Arc::clone(&group))));
        self.in_flight = Some(InFlight { id, group, sent_at: now.mono, chunk });
    }

    /// Counts everything again. Costs a look at every row in memory.
    pub fn check_invariants(&self) {
        self.backlog.check_invariants();
        self.spooler.check_invariants();
        if let Some(InFlight { group, chunk, .. }) = &self.in_flight {
            assert!(self.is_open, "rows are with a store that was never open");
            assert!(!group.is_empty(), "a group without a row is with the store");
            assert!(
                chunk.is_none_or(|chunk| self.spooler.has(chunk)),
                "{chunk:?} is with the store and not on the disk"
            );
        }
        // The rows of a chunk that is not read back are not known here.
        if self.spooler.is_empty() {
            let in_flight = self.in_flight.iter().flat_map(|in_flight| in_flight.group.iter());
            let waiting: BTreeSet<Attempt> = self.backlog.rows().chain(in_flight).map(|row| row.attempt).collect();
            let without: Vec<&Attempt> = self.attempts.difference(&waiting).collect();
            assert!(without.is_empty(), "these attempts are waited for and have no row: {without:?}");
        }
    }
}
