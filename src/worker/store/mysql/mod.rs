//! The store in MySQL or MariaDB. Every statement is its own transaction.
//!
//! When the answer to a statement is lost, nobody knows whether the server carried the statement out. So each call can
//! be made twice:
//!
//! * reads and the ping change nothing;
//! * a journal entry has a unique key of epoch and request number;
//! * a change journals its note under such a key; then it updates the row only from the version before, or inserts it
//!   under a unique request key, or deletes it;
//! * `bump` makes the epoch larger twice, and answers with the second one;
//! * `close`, `pause` and `retain_logs` say which state to reach;
//! * a log row has a unique key of run and attempt. While that key of a large log is still being built, each row is
//!   looked up before it is written.
//!
//! Not here: the SQL of a table; it is in `journal`, `jobs` and `logs`.
//!
//! Invariant: a connection that was closed between two calls (by the server, an operator or a firewall) is no error:
//! the call is made again on a new connection.

mod connection;
mod jobs;
mod journal;
mod lead;
mod links;
mod logs;
mod outcome;
mod schema;

use super::{Hand, Store};
use crate::core::io::ports::{
    Bump, Bumped, Change, Differences, JobBatch, Journaled, Loaded, Opened, Since, StoreError, StoredLeader,
};
use crate::core::time::bounds::MYSQL_READ_SECS;
use crate::model::config::MysqlConfig;
use crate::model::job::{JobFilter, JobPage};
use crate::model::journal::{Entry, EntryId};
use crate::model::log_row::{LastRun, LogFilter, LogPage, StoredLog};
use crate::model::{Attempt, Epoch, Job, JobId, LogRow, RunKey, RunState, Second, Wall};
use crate::worker::tls;
use connection::{Connection, Dialer, connect_error};
use mysql::prelude::Queryable;
use outcome::{Failure, Outcome, is_out_of_time, system_error, tls_error};
use std::collections::BTreeMap;

/// Done entries are deleted with one of so many closings.
const CLOSES_PER_DELETION: u32 = 60;
/// Errors of the server that no repetition will mend: a character or a length that a column does not take.
const DATA_ERRORS: [u16; 4] = [1264, 1366, 1406, 3988];
const UNKNOWN_DATABASE: u16 = 1049;
/// The server ended a statement that took too long: MariaDB's error, and MySQL's.
const STATEMENT_TIMEOUTS: [u16; 2] = [1969, 3024];

/// The store of one hand: at most one connection.
pub struct MysqlStore {
    dialer: Dialer,
    connection: Option<Connection>,
    /// How often `close` was called.
    closes: u32,
}

impl MysqlStore {
    /// A store that connects with its first call.
    pub fn new(config: &MysqlConfig, hand: Hand) -> MysqlStore {
        MysqlStore { dialer: Dialer::new(config, hand), connection: None, closes: 0 }
    }

    /// Runs `action` on the connection; `what` names it in errors. After an error of the connection the next action
    /// connects anew. Where the connection was only closed since the last action, this one runs again at once.
    fn with<T>(&mut self, what: &str, action: impl Fn(&mut Connection) -> Outcome<T>) -> Result<T, StoreError> {
        let had_connection = self.connection.is_some();
        match self.once(&action) {
            Err(failure) if had_connection && failure.is_closed() => {
                self.once(&action).map_err(|failure| match self.error(what, failure) {
                    // The server may have carried the action out the first time, so `Away` would be wrong.
                    StoreError::Away(reason) => StoreError::Unavailable(reason),
                    error => error,
                })
            }
            result => result.map_err(|failure| self.error(what, failure)),
        }
    }

    fn once<T>(&mut self, action: impl Fn(&mut Connection) -> Outcome<T>) -> Outcome<T> {
        let result = match &mut self.connection {
            Some(connection) => action(connection),
            None => self.dialer.connect().and_then(|connection| action(self.connection.insert(connection))),
        };
        if result.as_ref().is_err_and(|failure| !matches!(failure, Failure::Store(_))) {
            self.connection = None;
        }
        result
    }

    fn error(&self, what: &str, failure: Failure) -> StoreError {
        let (config, server) = (&self.dialer.config, self.dialer.server());
        match failure {
            Failure::Store(error) => error,
            Failure::Connect(error) => StoreError::Away(format!(
                "{what}: connect to MySQL at {server} as {}: {}",
                config.user,
                connect_error(config, &error)
            )),
            Failure::Mysql(mysql::Error::MySqlError(error)) => {
                if STATEMENT_TIMEOUTS.contains(&error.code) {
                    return StoreError::Away(format!(
                        "{what}: it took longer than {MYSQL_READ_SECS} s and was ended; narrow it, e.g. with cron_id"
                    ));
                }
                let message = format!("{what} in MySQL at {server}: {} ({})", error.message, error.code);
                // A statement with an error has changed nothing.
                if DATA_ERRORS.contains(&error.code) {
                    StoreError::Permanent(message)
                } else {
                    StoreError::Away(message)
                }
            }
            Failure::Mysql(error) if is_out_of_time(&error) => {
                StoreError::Unavailable(format!("{what} in MySQL at {server}: no answer in time"))
            }
            Failure::Mysql(error) => {
                let tls = tls_error(&error).map(|error| tls::told(error, "mysql", &config.tls_files));
                let system = || system_error(&error).map(|error| error.to_string());
                let reason = tls.or_else(system).unwrap_or_else(|| error.to_string());
                StoreError::Unavailable(format!("{what} in MySQL at {server}: {reason}"))
            }
        }
    }
}

impl Store for MysqlStore {
    fn open(&mut self) -> Result<Opened, StoreError> {
        let connected = match self.dialer.connect() {
            Err(Failure::Connect(mysql::Error::MySqlError(error))) if error.code == UNKNOWN_DATABASE => {
                self.dialer.create_database().and_then(|()| self.dialer.connect())
            }
            connected => connected,
        };
        self.connection = Some(connected.map_err(|failure| self.error("open the store", failure))?);
        let server = self.dialer.server();
        self.with("apply the migrations", |connection| {
            log::info!("MySQL at {server}: {}", connection::encryption(&mut connection.conn)?);
            let advice = schema::migrate(&mut connection.conn, connection.options.clone())?;
            let clock: Option<i64> =
                connection.conn.query_first("SELECT CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED)")?;
            let link_secret = Some(links::link_secret(&mut connection.conn)?);
            Ok(Opened { clock: clock.map(|ms| Wall(ms * 1_000_000)), advice, link_secret })
        })
    }

    /// Explains an INSERT into the journal, which changes nothing and needs the same rights as the INSERT.
    fn ping(&mut self) -> Result<(), StoreError> {
        let sql = "EXPLAIN INSERT INTO journal (epoch, request, node_id, body, created_at) SELECT epoch, 0, node_id, '', 0 FROM scheduler";
        self.with("ask for an answer", |connection| Ok(connection.conn.query_drop(sql)?))
    }

    fn leader(&mut self) -> Result<Option<StoredLeader>, StoreError> {
        let leader = self.with("read who leads", |connection| journal::last_leader(&mut connection.conn))?;
        Ok(Some(leader).filter(|leader| leader.epoch != Epoch(0)))
    }

    fn bump(&mut self, bump: &Bump) -> Result<Bumped, StoreError> {
        self.with("take the lead", |connection| journal::bump(&mut connection.conn, bump))
    }

    fn load(&mut self, epoch: Epoch, since: &Since) -> Result<Loaded, StoreError> {
        self.with("read the journal", |connection| lead::load(&mut connection.conn, epoch, since))
    }

    fn journal(&mut self, entry: &Entry) -> Result<Journaled, StoreError> {
        self.with("write the journal", |connection| journal::write(&mut connection.conn, entry, false))
    }

    fn close(&mut self, epoch: Epoch, entries: &[EntryId], delete_before: Wall) -> Result<(), StoreError> {
        self.closes += 1;
        let must_delete = self.closes % CLOSES_PER_DELETION == 1;
        let delete_before = Some(delete_before).filter(|_| must_delete);
        self.with("close journal entries", |connection| {
            journal::close(&mut connection.conn, epoch, entries, delete_before)
        })
    }

    fn pause(&mut self, epoch: Epoch, paused: bool) -> Result<(), StoreError> {
        self.with("pause or resume", |connection| journal::pause(&mut connection.conn, epoch, paused))
    }

    fn change(&mut self, epoch: Epoch, request: u64, change: &Change) -> Result<JobId, StoreError> {
        self.with("write the job", |connection| lead::change(&mut connection.conn, epoch, request, change))
    }

    fn list_jobs(&mut self) -> Result<Vec<Job>, StoreError> {
        self.with("read the jobs", |connection| jobs::all(&mut connection.conn))
    }

    fn read_batch(&mut self, after: JobId, limit: usize) -> Result<JobBatch, StoreError> {
        self.with("read the jobs", |connection| jobs::batch(&mut connection.conn, after, limit))
    }

    fn differences(&mut self, since: &Since) -> Result<Option<Differences>, StoreError> {
        self.with("read what jobs have changed", |connection| jobs::differences(&mut connection.conn, since))
    }

    fn find_jobs(&mut self, filter: &JobFilter) -> Result<JobPage, StoreError> {
        self.with("read the jobs", |connection| jobs::find(&mut connection.conn, filter))
    }

    fn write_logs(&mut self, rows: &[LogRow]) -> Result<(), StoreError> {
        self.with("write log rows", |connection| logs::write(connection, rows))
    }

    fn retain_logs(&mut self, before: Second) -> Result<bool, StoreError> {
        self.with("delete old log rows", |connection| logs::retain(&mut connection.conn, before))
    }

    fn list_logs(&mut self, filter: &LogFilter) -> Result<LogPage, StoreError> {
        self.with("read log rows", |connection| logs::page(&mut connection.conn, filter))
    }

    fn find_log(&mut self, run: RunKey, attempt: Option<u32>) -> Result<Option<StoredLog>, StoreError> {
        self.with("read a log row", |connection| logs::find(&mut connection.conn, run, attempt))
    }

    fn find_logs(&mut self, epoch: Epoch, attempts: &[Attempt]) -> Result<BTreeMap<Attempt, RunState>, StoreError> {
        self.with("read log rows", |connection| {
            journal::check_epoch(&mut connection.conn, epoch)?;
            logs::logged(&mut connection.conn, &attempts.iter().map(|attempt| attempt.run).collect())
        })
    }

    fn last_runs(&mut self, ids: &[JobId]) -> Result<BTreeMap<JobId, LastRun>, StoreError> {
        self.with("read the last runs", |connection| logs::last_runs(&mut connection.conn, ids))
    }
}
