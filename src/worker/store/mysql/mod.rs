//! The store in MySQL or MariaDB. Every statement is committed by itself: no lock of ours outlives its round trip.
//!
//! A statement whose answer was lost may have been carried out, and may be carried out once more, because
//!
//! * reads and the ping change nothing;
//! * a journal entry has a unique key of epoch and request number;
//! * a change notes an entry, and then writes the row at the version before only, adds one under a new key only, or deletes;
//! * `bump` makes the epoch larger once more, and answers with the larger one;
//! * `close`, `pause` and `retain_logs` say how it is to be, and add nothing;
//! * a log row has a unique key of run and attempt; while that is still being built for a large log, it is looked up first.
//!
//! Invariant: that the server has closed an idle connection, or somebody has ended it, is no error: the work is done on a new
//! one.

mod jobs;
mod logs;
mod schema;

use super::{DELETE_ENTRIES_MAX, Hand, Store, coalesced, foreign_lock_key, not_alone, note, outcomes};
use crate::core::ports::{
    Bump, Bumped, Change, Differences, JobBatch, Journaled, Loaded, Opened, Since, StoreError, StoredLeader,
};
use crate::model::config::MysqlConfig;
use crate::model::job::{JobFilter, JobPage};
use crate::model::journal::{Body, Entry, EntryId, StoredEntry};
use crate::model::log_row::{LastRun, LogFilter, LogPage, StoredLog};
use crate::model::{Attempt, Epoch, Job, JobId, LogRow, NodeId, RunKey, RunState, Second, Server, Wall};
use mysql::prelude::Queryable;
use mysql::{Conn, OptsBuilder};
use schema::LogTable;
use std::collections::BTreeMap;
use std::error::Error as _;
use std::io::ErrorKind;
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A server whose host has not even taken our bytes for so long is cut off: a new connection will be there soon after the
/// heal, when this one would wait for as long as the cut has lasted before it sends them once more.
const UNHEARD_MS: u32 = 3_000;
/// A server that says nothing for so long is away. Migrations of large tables have connections of their own.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Reads of a large log may take so long; then the server ends them, and soon after we would.
const READ_SECS_MAX: u64 = 30;
const READ_TIMEOUT: Duration = Duration::from_secs(READ_SECS_MAX + 5);
/// Done entries are deleted with every so many closings.
const CLOSINGS_A_DELETION: u32 = 60;
/// Errors of the server that no repetition will mend: a character or a length that a column does not take.
const DATA_ERRORS: [u16; 4] = [1264, 1366, 1406, 3988];
/// Where an INT ends; as a time, 2038-01-19.
const INT_MAX: i64 = i32::MAX as i64;
const DUPLICATE_KEY: u16 = 1062;
const UNKNOWN_DATABASE: u16 = 1049;
/// MariaDB's and MySQL's own ends of a statement that took too long.
const STATEMENT_TIMEOUTS: [u16; 2] = [1969, 3024];
/// What a server says before it closes a connection: it shuts down, it ends the thread, somebody killed the connection
/// (MariaDB), it was idle for too long (MySQL).
const CLOSINGS: [u16; 4] = [1053, 1080, 1927, 4031];

pub struct MysqlStore {
    config: MysqlConfig,
    hand: Hand,
    connection: Option<Connection>,
    closings: u32,
}

struct Connection {
    conn: Conn,
    /// What the server takes in one statement.
    packet_bytes: usize,
    log: Option<LogTable>,
}

/// What ends a piece of work early.
enum Failure {
    Store(StoreError),
    Connect(mysql::Error),
    Mysql(mysql::Error),
}

impl From<mysql::Error> for Failure {
    fn from(error: mysql::Error) -> Failure {
        Failure::Mysql(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure::Store(error)
    }
}

impl Failure {
    /// The server has closed the connection. One that says nothing in time has not, and is not to be waited for twice.
    fn is_closed(&self) -> bool {
        match self {
            Failure::Mysql(mysql::Error::MySqlError(error)) => CLOSINGS.contains(&error.code),
            Failure::Mysql(error @ (mysql::Error::IoError(_) | mysql::Error::CodecError(_))) => !is_out_of_time(error),
            Failure::Mysql(_) | Failure::Connect(_) | Failure::Store(_) => false,
        }
    }
}

/// What the system calls a resource that is temporarily unavailable is our own time limit.
fn is_out_of_time(error: &mysql::Error) -> bool {
    let is_limit = |error: &std::io::Error| [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind());
    system_error(error).is_some_and(is_limit)
}

fn system_error(error: &mysql::Error) -> Option<&std::io::Error> {
    match error {
        mysql::Error::IoError(error) => Some(error),
        mysql::Error::CodecError(error) => error.source()?.downcast_ref(),
        _ => None,
    }
}

type Outcome<T> = Result<T, Failure>;

impl MysqlStore {
    pub fn new(config: &MysqlConfig, hand: Hand) -> MysqlStore {
        MysqlStore { config: config.clone(), hand, connection: None, closings: 0 }
    }

    /// Runs `action` on the connection; `what` names it in errors. After an error the next one connects anew, and where the
    /// server had only closed the connection that is done at once.
    fn with<T>(&mut self, what: &str, action: impl Fn(&mut Connection) -> Outcome<T>) -> Result<T, StoreError> {
        let had_connection = self.connection.is_some();
        match self.once(&action) {
            Err(failure) if had_connection && failure.is_closed() => {
                self.once(&action).map_err(|failure| match self.error(what, failure) {
                    // The first asking may have been carried out.
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
            None => connect(&self.config, self.hand).and_then(|connection| action(self.connection.insert(connection))),
        };
        if result.as_ref().is_err_and(|failure| !matches!(failure, Failure::Store(_))) {
            self.connection = None;
        }
        result
    }

    fn error(&self, what: &str, failure: Failure) -> StoreError {
        let server = format!("{}:{}", self.config.host, self.config.port);
        match failure {
            Failure::Store(error) => error,
            Failure::Connect(error) => {
                StoreError::Away(format!("{what}: connect to MySQL at {server} as {}: {error}", self.config.user))
            }
            Failure::Mysql(mysql::Error::MySqlError(error)) => {
                if STATEMENT_TIMEOUTS.contains(&error.code) {
                    return StoreError::Away(format!(
                        "{what}: it took longer than {READ_SECS_MAX} s and was ended; narrow it, e.g. with cron_id"
                    ));
                }
                let message = format!("{what} in MySQL at {server}: {} ({})", error.message, error.code);
                // What the server refuses it has not done.
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
                let reason = system_error(&error).map_or_else(|| error.to_string(), |error| error.to_string());
                StoreError::Unavailable(format!("{what} in MySQL at {server}: {reason}"))
            }
        }
    }
}

fn options(config: &MysqlConfig, hand: Hand) -> OptsBuilder {
    let read_timeout = if hand == Hand::Reader { READ_TIMEOUT } else { ANSWER_TIMEOUT };
    OptsBuilder::new()
        .ip_or_hostname(Some(&config.host))
        .tcp_port(config.port)
        .user(Some(&config.user))
        .pass(Some(&config.password.0))
        .prefer_socket(false)
        .tcp_connect_timeout(Some(CONNECT_TIMEOUT))
        .tcp_user_timeout_ms(Some(UNHEARD_MS))
        .read_timeout(Some(read_timeout))
        .write_timeout(Some(ANSWER_TIMEOUT))
        .tcp_nodelay(true)
        .init(vec![
            // A superset of utf8: what a table cannot hold is its own matter, not the connection's.
            "SET NAMES utf8mb4",
            "SET SESSION innodb_lock_wait_timeout = 2, SESSION sql_mode = 'STRICT_TRANS_TABLES'",
        ])
}

fn connect(config: &MysqlConfig, hand: Hand) -> Outcome<Connection> {
    let options = options(config, hand).db_name(Some(&config.database));
    let mut conn = Conn::new(options).map_err(Failure::Connect)?;
    let packet_bytes = conn.query_first("SELECT @@max_allowed_packet")?.unwrap_or(1 << 20);
    if hand == Hand::Reader {
        // MariaDB's name for it, or MySQL's. A server that is too old for either goes on until its client is gone.
        let _ = conn
            .query_drop(format!("SET SESSION max_statement_time = {READ_SECS_MAX}"))
            .or_else(|_| conn.query_drop(format!("SET SESSION max_execution_time = {}", READ_SECS_MAX * 1_000)));
    }
    Ok(Connection { conn, packet_bytes, log: None })
}

/// A database that is not there is made, where the user may.
fn create_database(config: &MysqlConfig) -> Outcome<()> {
    let mut conn = Conn::new(options(config, Hand::Lead)).map_err(Failure::Connect)?;
    let name = config.database.replace('`', "``");
    Ok(conn.query_drop(format!("CREATE DATABASE IF NOT EXISTS `{name}` CHARACTER SET utf8mb4"))?)
}

impl Store for MysqlStore {
    fn open(&mut self) -> Result<Opened, StoreError> {
        let connected = match connect(&self.config, self.hand) {
            Err(Failure::Connect(mysql::Error::MySqlError(error))) if error.code == UNKNOWN_DATABASE => {
                create_database(&self.config).and_then(|()| connect(&self.config, self.hand))
            }
            connected => connected,
        };
        self.connection = Some(connected.map_err(|failure| self.error("open the store", failure))?);
        let config = options(&self.config, self.hand).db_name(Some(&self.config.database));
        self.with("apply the migrations", |connection| {
            let advice = schema::migrate(&mut connection.conn, config.clone())?;
            let clock: Option<i64> =
                connection.conn.query_first("SELECT CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED)")?;
            Ok(Opened { clock: clock.map(|ms| Wall(ms * 1_000_000)), advice })
        })
    }

    /// Goes the way of the journal and writes nothing: to explain a statement takes the same rights as to carry it out.
    fn ping(&mut self) -> Result<(), StoreError> {
        let sql = "EXPLAIN INSERT INTO journal (epoch, request, node_id, body, created_at) SELECT epoch, 0, node_id, '', 0 FROM scheduler";
        self.with("ask for an answer", |connection| Ok(connection.conn.query_drop(sql)?))
    }

    fn bump(&mut self, bump: &Bump) -> Result<Bumped, StoreError> {
        self.with("take the lead", |connection| {
            let conn = &mut connection.conn;
            let first = "INSERT IGNORE INTO scheduler (id, lock_key, epoch, leader, node_id) VALUES (1, ?, 0, '', '')";
            conn.exec_drop(first, (&bump.lock_key,))?;
            let former = last_leader(conn)?;
            if former.lock_key != bump.lock_key {
                return Err(foreign_lock_key(&bump.lock_key, &former.lock_key).into());
            }
            if bump.alone && former.node_id != bump.node_id {
                let newest = "SELECT CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 - MAX(created_at) AS SIGNED) FROM journal WHERE node_id = ?";
                let age_ms: Option<Option<i64>> = conn.exec_first(newest, (&*former.node_id.0,))?;
                if let Some(age_ms) = age_ms.flatten().filter(|age_ms| *age_ms < bump.lease_ms as i64) {
                    return Err(not_alone(&former.server, age_ms / 1_000).into());
                }
            }
            conn.exec_drop(
                "UPDATE scheduler SET epoch = epoch + 1, leader = ?, node_id = ? WHERE id = 1 AND epoch = ?",
                (&*bump.server.0, &*bump.node_id.0, former.epoch.0),
            )?;
            match conn.affected_rows() {
                1 => Ok(Bumped { epoch: Epoch(former.epoch.0 + 1) }),
                _ => Err(StoreError::Unavailable("take the lead: another node was quicker".into()).into()),
            }
        })
    }

    fn load(&mut self, epoch: Epoch, since: &Since) -> Result<Loaded, StoreError> {
        self.with("read the journal", |connection| {
            let conn = &mut connection.conn;
            check_epoch(conn, epoch)?;
            let watermark: Option<Option<i64>> = conn.query_first("SELECT MAX(tick) FROM journal WHERE part = 0")?;
            let open = open_entries(conn)?;
            let differences = jobs::differences(conn, since)?;
            let mut logged = logs::logged(conn, &outcomes(&open))?;
            logged.extend(logs::logged(conn, &coalesced(&open, &logged))?);
            let is_paused = conn.query_first("SELECT paused <> 0 FROM scheduler WHERE id = 1")?.unwrap_or(false);
            Ok(Loaded { differences, watermark: watermark.flatten().map(Second), open, logged, is_paused })
        })
    }

    fn journal(&mut self, entry: &Entry) -> Result<Journaled, StoreError> {
        self.with("write the journal", |connection| insert_entry(&mut connection.conn, entry, false))
    }

    fn change(&mut self, epoch: Epoch, request: u64, change: &Change) -> Result<JobId, StoreError> {
        self.with("write the job", |connection| {
            let conn = &mut connection.conn;
            if let Change::Add(job, _) | Change::Put(job) = change {
                jobs::check_storable(conn, job)?;
            }
            if let Some(note) = note(change) {
                let body = Body { changes: vec![note], ..Body::default() };
                let entry = Entry { epoch, request, tick: None, part: 0, body, request_key: None };
                // It is needed as a record only, so nothing is open about it.
                insert_entry(conn, &entry, true)?;
            }
            match change {
                Change::Add(job, key) => jobs::add(conn, epoch, job, key),
                Change::Put(job) => jobs::put(conn, epoch, job),
                Change::Delete { id, version } => jobs::delete(conn, epoch, *id, *version),
            }
        })
    }

    fn find_logs(&mut self, epoch: Epoch, attempts: &[Attempt]) -> Result<BTreeMap<Attempt, RunState>, StoreError> {
        self.with("read log rows", |connection| {
            check_epoch(&mut connection.conn, epoch)?;
            logs::logged(&mut connection.conn, &attempts.iter().map(|attempt| attempt.run).collect())
        })
    }

    fn pause(&mut self, epoch: Epoch, paused: bool) -> Result<(), StoreError> {
        self.with("pause or resume", |connection| {
            let conn = &mut connection.conn;
            conn.exec_drop("UPDATE scheduler SET paused = ? WHERE id = 1 AND epoch = ?", (paused, epoch.0))?;
            // No row is changed where it was so before.
            if conn.affected_rows() == 0 { check_epoch(conn, epoch) } else { Ok(()) }
        })
    }

    fn close(&mut self, epoch: Epoch, entries: &[EntryId], delete_before: Wall) -> Result<(), StoreError> {
        self.closings += 1;
        let must_delete = self.closings % CLOSINGS_A_DELETION == 1;
        self.with("close journal entries", |connection| {
            let conn = &mut connection.conn;
            let ids: Vec<String> = entries.iter().map(|entry| entry.0.to_string()).collect();
            if !ids.is_empty() {
                let ids = ids.join(",");
                conn.query_drop(format!("UPDATE journal SET done = 1 WHERE id IN ({ids}) AND {}", is_epoch(epoch)))?;
                if conn.affected_rows() == 0 {
                    check_epoch(conn, epoch)?;
                }
            }
            if must_delete {
                let newest: Option<Option<i64>> = conn.query_first("SELECT MAX(tick) FROM journal WHERE part = 0")?;
                let delete = "DELETE FROM journal WHERE done = 1 AND created_at < ? AND (tick IS NULL OR tick < ?) ORDER BY id LIMIT ?";
                conn.exec_drop(delete, (delete_before.ms(), newest.flatten().unwrap_or(0), DELETE_ENTRIES_MAX))?;
            }
            Ok(())
        })
    }

    fn write_logs(&mut self, rows: &[LogRow]) -> Result<(), StoreError> {
        self.with("write log rows", |connection| logs::write(connection, rows))
    }

    fn retain_logs(&mut self, before: Second) -> Result<(), StoreError> {
        self.with("delete old log rows", |connection| logs::retain(&mut connection.conn, before))
    }

    fn list_logs(&mut self, filter: &LogFilter) -> Result<LogPage, StoreError> {
        self.with("read log rows", |connection| logs::list(&mut connection.conn, filter))
    }

    fn list_jobs(&mut self) -> Result<Vec<Job>, StoreError> {
        self.with("read the jobs", |connection| jobs::jobs(&mut connection.conn, "TRUE ORDER BY id"))
    }

    fn read_batch(&mut self, after: JobId, limit: usize) -> Result<JobBatch, StoreError> {
        self.with("read the jobs", |connection| {
            let conn = &mut connection.conn;
            let as_of = jobs::newest_entry(conn)?;
            let last = if after == JobId(0) { jobs::last_noted(conn)? } else { None };
            let jobs = jobs::jobs(conn, &format!("id > {after} ORDER BY id LIMIT {limit}"))?;
            Ok(JobBatch { as_of, last, jobs })
        })
    }

    fn differences(&mut self, since: &Since) -> Result<Option<Differences>, StoreError> {
        self.with("read what jobs have changed", |connection| jobs::differences(&mut connection.conn, since))
    }

    fn leader(&mut self) -> Result<Option<StoredLeader>, StoreError> {
        let leader = self.with("read who leads", |connection| last_leader(&mut connection.conn))?;
        Ok(Some(leader).filter(|leader| leader.epoch != Epoch(0)))
    }

    fn find_log(&mut self, run: RunKey, attempt: Option<u32>) -> Result<Option<StoredLog>, StoreError> {
        self.with("read a log row", |connection| logs::find(&mut connection.conn, run, attempt))
    }

    fn find_jobs(&mut self, filter: &JobFilter) -> Result<JobPage, StoreError> {
        self.with("read the jobs", |connection| jobs::find(&mut connection.conn, filter))
    }

    fn last_runs(&mut self, ids: &[JobId]) -> Result<BTreeMap<JobId, LastRun>, StoreError> {
        self.with("read the last runs", |connection| logs::last_runs(&mut connection.conn, ids))
    }
}

/// In a new database: nobody, under epoch 0.
fn last_leader(conn: &mut Conn) -> Outcome<StoredLeader> {
    let row: Option<(String, u64, String, String)> =
        conn.query_first("SELECT lock_key, epoch, leader, node_id FROM scheduler WHERE id = 1")?;
    let (lock_key, epoch, server, node_id) = row.unwrap_or_default();
    Ok(StoredLeader { lock_key, epoch: Epoch(epoch), server: Server(server.into()), node_id: NodeId(node_id.into()) })
}

fn is_epoch(epoch: Epoch) -> String {
    format!("EXISTS (SELECT 1 FROM scheduler WHERE id = 1 AND epoch = {})", epoch.0)
}

fn check_epoch(conn: &mut Conn, epoch: Epoch) -> Outcome<()> {
    let stored: Option<u64> = conn.query_first("SELECT epoch FROM scheduler WHERE id = 1")?;
    if stored == Some(epoch.0) { Ok(()) } else { Err(StoreError::Deposed.into()) }
}

fn insert_entry(conn: &mut Conn, entry: &Entry, is_done: bool) -> Outcome<Journaled> {
    let body = serde_json::to_string(&entry.body)
        .map_err(|error| StoreError::Permanent(format!("write a journal body: {error}")))?;
    let key = entry.request_key.as_ref().map(|key| &key.0);
    let inserted = conn.exec_drop(
        "INSERT INTO journal (epoch, request, tick, part, node_id, body, done, created_at, request_key)
         SELECT epoch, ?, ?, ?, node_id, ?, ?, CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED), ? FROM scheduler
         WHERE id = 1 AND epoch = ? LOCK IN SHARE MODE",
        (entry.request, entry.tick.map(|tick| tick.0), entry.part, body, is_done, key, entry.epoch.0),
    );
    match inserted {
        Ok(()) if conn.affected_rows() == 0 => Err(StoreError::Deposed.into()),
        Ok(()) => Ok(Journaled::Entry(EntryId(conn.last_insert_id() as i64))),
        Err(mysql::Error::MySqlError(error)) if error.code == DUPLICATE_KEY => {
            let known = "SELECT id FROM journal WHERE epoch = ? AND request = ?";
            let known: Option<i64> = conn.exec_first(known, (entry.epoch.0, entry.request))?;
            if let Some(id) = known {
                return Ok(Journaled::Entry(EntryId(id)));
            }
            let asked = "SELECT id, body FROM journal WHERE request_key = ?";
            let asked: Option<(i64, String)> = conn.exec_first(asked, (key,))?;
            asked.map_or(Ok(Journaled::TickTaken), |(id, body)| Ok(Journaled::Known(parse_body(id, &body)?)))
        }
        Err(error) => Err(error.into()),
    }
}

fn parse_body(id: i64, text: &str) -> Outcome<Body> {
    serde_json::from_str(text)
        .map_err(|error| StoreError::Permanent(format!("journal row {id}: its body cannot be read: {error}")).into())
}

fn open_entries(conn: &mut Conn) -> Outcome<Vec<StoredEntry>> {
    let sql = "SELECT id, epoch, request, tick, part, body FROM journal WHERE done = 0 ORDER BY id";
    let rows: Vec<(i64, u64, u64, Option<i64>, u32, String)> = conn.query(sql)?;
    let entry = |(id, epoch, request, tick, part, body): (i64, u64, u64, Option<i64>, u32, String)| {
        let body = parse_body(id, &body)?;
        let entry = Entry { epoch: Epoch(epoch), request, tick: tick.map(Second), part, body, request_key: None };
        Ok(StoredEntry { id: EntryId(id), entry })
    };
    rows.into_iter().map(entry).collect()
}
