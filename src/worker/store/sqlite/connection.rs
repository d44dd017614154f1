//! A connection to the SQLite file: how it is made, and in which order the connections of one file write.
//!
//! Not here: when a new one is made; `SqliteStore` knows that.
//!
//! Invariant: what a connection has committed is on the disk.

use super::outcome::Outcome;
use crate::core::time::bounds::SQLITE_BUSY_MS;
use rusqlite::Connection;
use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Opens the file, or makes it.
pub fn open(path: &Path) -> Outcome<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_millis(SQLITE_BUSY_MS))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

/// The order in which the connections write: the leader's statements first. SQLite itself lets a waiting writer sleep
/// while a busy one goes on, so the journal could wait behind ten thousand log rows.
#[derive(Debug, Default)]
pub struct WriteOrder {
    state: Mutex<Writers>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Writers {
    is_taken: bool,
    /// How many of the leader's statements wait: other writers let them go first.
    leaders_waiting: usize,
}

/// The right to write, until it is dropped.
pub struct Write<'a>(&'a WriteOrder);

impl WriteOrder {
    /// Waits for the right to write.
    pub fn take(&self, is_leader: bool) -> Write<'_> {
        let mut writers = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        writers.leaders_waiting += usize::from(is_leader);
        while writers.is_taken || !is_leader && writers.leaders_waiting != 0 {
            writers = self.changed.wait(writers).unwrap_or_else(PoisonError::into_inner);
        }
        writers.leaders_waiting -= usize::from(is_leader);
        writers.is_taken = true;
        Write(self)
    }
}

impl Drop for Write<'_> {
    fn drop(&mut self) {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).is_taken = false;
        self.0.changed.notify_all();
    }
}
