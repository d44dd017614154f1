//! The embedded store: one SQLite file in data_dir, for a node that stands alone and has no database server.
//!
//! The file has a write-ahead log (WAL). Each call is one transaction.
//!
//! Not for several nodes: the file is on one host.
//!
//! Invariant: a call is answered when its changes are on the disk (`synchronous=FULL`), those of the journal and of the
//! log alike.

mod connection;
mod jobs;
mod journal;
mod lead;
mod logs;
mod outcome;
mod schema;

pub use connection::WriteOrder;

use super::{Hand, Store};
use crate::core::io::ports::{
    Bump, Bumped, Change, Differences, JobBatch, Journaled, Loaded, Opened, Since, StoreError, StoredLeader,
};
use crate::model::job::{JobFilter, JobPage};
use crate::model::journal::{Entry, EntryId};
use crate::model::log_row::{LastRun, LogFilter, LogPage, StoredLog};
use crate::model::{Attempt, Epoch, Job, JobId, LogRow, RunKey, RunState, Second, Wall};
use outcome::{Failure, Outcome};
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The store of one hand: at most one connection.
pub struct SqliteStore {
    hand: Hand,
    write_order: Arc<WriteOrder>,
    path: PathBuf,
    connection: Option<Connection>,
}

impl SqliteStore {
    /// A store in this file; each of them must get the same `write_order`.
    pub fn new(path: &Path, hand: Hand, write_order: Arc<WriteOrder>) -> SqliteStore {
        SqliteStore { hand, write_order, path: path.to_path_buf(), connection: None }
    }

    /// Runs `action` in one transaction; `what` names it in errors. After an error the file is opened anew.
    fn transact<T>(&mut self, what: &str, action: impl FnOnce(&Transaction) -> Outcome<T>) -> Result<T, StoreError> {
        let write_order = Arc::clone(&self.write_order);
        let _write = write_order.take(self.hand == Hand::Lead);
        let result = self.connection().and_then(|connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = action(&transaction)?;
            transaction.commit()?;
            Ok(value)
        });
        result.map_err(|failure| {
            self.connection = None;
            self.error(what, failure)
        })
    }

    /// Reads without taking the writers' lock.
    fn read<T>(&mut self, what: &str, action: impl FnOnce(&Transaction) -> Outcome<T>) -> Result<T, StoreError> {
        let result = self.connection().and_then(|connection| action(&connection.transaction()?));
        result.map_err(|failure| {
            self.connection = None;
            self.error(what, failure)
        })
    }

    fn connection(&mut self) -> Outcome<&mut Connection> {
        if self.connection.is_none() {
            self.connection = Some(connection::open(&self.path)?);
        }
        // It was put there just above.
        self.connection.as_mut().ok_or_else(|| Failure::Store(StoreError::Away("no connection".into())))
    }

    fn error(&self, what: &str, failure: Failure) -> StoreError {
        let error = match failure {
            Failure::Store(error) => return error,
            Failure::Sqlite(error) => error,
        };
        let message = format!("{what} in {}: {error}", self.path.display());
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => StoreError::Permanent(format!(
                "{message}; the file is damaged: restore a copy, or move it and had_store away to begin with an empty one"
            )),
            Some(
                ErrorCode::CannotOpen
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::DiskFull
                | ErrorCode::PermissionDenied
                | ErrorCode::ReadOnly,
            ) => StoreError::Away(message),
            _ => StoreError::Unavailable(message),
        }
    }
}

impl Store for SqliteStore {
    fn open(&mut self) -> Result<Opened, StoreError> {
        self.transact("apply the migrations", schema::migrate)?;
        Ok(Opened { clock: None, advice: Vec::new(), link_secret: None })
    }

    fn ping(&mut self) -> Result<(), StoreError> {
        self.read("ask for an answer", |transaction| Ok(transaction.query_row("SELECT 1", [], |_| Ok(()))?))
    }

    fn leader(&mut self) -> Result<Option<StoredLeader>, StoreError> {
        self.read("read who leads", journal::last_leader)
    }

    fn bump(&mut self, bump: &Bump) -> Result<Bumped, StoreError> {
        self.transact("take the lead", |transaction| journal::bump(transaction, bump))
    }

    fn load(&mut self, epoch: Epoch, since: &Since) -> Result<Loaded, StoreError> {
        self.read("read the journal", |transaction| lead::load(transaction, epoch, since))
    }

    fn journal(&mut self, entry: &Entry) -> Result<Journaled, StoreError> {
        self.transact("write the journal", |transaction| journal::write(transaction, entry))
    }

    fn close(&mut self, epoch: Epoch, entries: &[EntryId], delete_before: Wall) -> Result<(), StoreError> {
        self.transact("close journal entries", |transaction| journal::close(transaction, epoch, entries, delete_before))
    }

    fn pause(&mut self, epoch: Epoch, paused: bool) -> Result<(), StoreError> {
        self.transact("pause or resume", |transaction| journal::pause(transaction, epoch, paused))
    }

    fn change(&mut self, epoch: Epoch, request: u64, change: &Change) -> Result<JobId, StoreError> {
        self.transact("write the job", |transaction| lead::change(transaction, epoch, request, change))
    }

    fn list_jobs(&mut self) -> Result<Vec<Job>, StoreError> {
        self.read("read the jobs", jobs::all)
    }

    fn read_batch(&mut self, after: JobId, limit: usize) -> Result<JobBatch, StoreError> {
        self.read("read the jobs", |transaction| jobs::batch(transaction, after, limit))
    }

    fn differences(&mut self, since: &Since) -> Result<Option<Differences>, StoreError> {
        self.read("read what jobs have changed", |transaction| jobs::differences(transaction, since))
    }

    fn find_jobs(&mut self, filter: &JobFilter) -> Result<JobPage, StoreError> {
        self.read("read the jobs", |transaction| jobs::find(transaction, filter))
    }

    fn write_logs(&mut self, rows: &[LogRow]) -> Result<(), StoreError> {
        self.transact("write log rows", |transaction| logs::write(transaction, rows))
    }

    fn retain_logs(&mut self, before: Second) -> Result<bool, StoreError> {
        self.transact("delete old log rows", |transaction| logs::retain(transaction, before))
    }

    fn list_logs(&mut self, filter: &LogFilter) -> Result<LogPage, StoreError> {
        self.read("read log rows", |transaction| logs::page(transaction, filter))
    }

    fn find_log(&mut self, run: RunKey, attempt: Option<u32>) -> Result<Option<StoredLog>, StoreError> {
        self.read("read a log row", |transaction| logs::find(transaction, run, attempt))
    }

    fn find_logs(&mut self, epoch: Epoch, attempts: &[Attempt]) -> Result<BTreeMap<Attempt, RunState>, StoreError> {
        self.read("read log rows", |transaction| {
            journal::check_epoch(transaction, epoch)?;
            logs::logged(transaction, &attempts.iter().map(|attempt| attempt.run).collect())
        })
    }

    fn last_runs(&mut self, ids: &[JobId]) -> Result<BTreeMap<JobId, LastRun>, StoreError> {
        self.read("read the last runs", |transaction| logs::last_runs(transaction, ids))
    }
}
