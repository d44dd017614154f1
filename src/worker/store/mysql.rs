//! The store in MySQL or MariaDB. Every statement is committed by itself: no lock of ours outlives its round trip.
//!
//! A statement whose answer was lost may have been carried out; each can be asked again.

use super::mysql_schema::{self, LogTable};
use super::{DELETE_ENTRIES_MAX, DELETE_ROWS_MAX, Store, edited_by_hand, foreign_lock_key, not_alone, note, outcomes};
use crate::core::work::{Bump, Bumped, Change, Journaled, Loaded, Opened, StoreError};
use crate::model::config::MysqlConfig;
use crate::model::journal::{Body, Entry, EntryId, StoredEntry};
use crate::model::log_row::{LogFilter, LogPage, StoredLog};
use crate::model::{Attempt, Epoch, Job, JobId, LogRow, RunKey, Second, Version, Wall};
use mysql::prelude::Queryable;
use mysql::{Conn, OptsBuilder, Params, Row, Value};
use std::collections::BTreeSet;
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A server that says nothing for so long is away. Migrations of large tables have connections of their own.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Rows in one INSERT at most, and their bytes as a part of what the server takes in one packet.
const INSERT_ROWS_MAX: usize = 500;
const PACKET_SHARE: usize = 4;
/// What of a packet is not a row's output.
const ROW_BYTES: usize = 32 << 10;
/// Keys looked up by one statement.
const LOOKUP_MAX: usize = 500;
/// Done entries are deleted with every so many closings.
const CLOSINGS_A_DELETION: u32 = 60;
/// Errors of the server that no repetition will mend: a character or a length that a column does not take.
const DATA_ERRORS: [u16; 4] = [1264, 1366, 1406, 3988];
const DUPLICATE_KEY: u16 = 1062;
const UNKNOWN_DATABASE: u16 = 1049;

pub struct MysqlStore {
    config: MysqlConfig,
    connection: Option<Connection>,
    closings: u32,
    /// A new job whose answer was lost: it is looked for before it is inserted again.
    unanswered_add: Option<UnansweredAdd>,
}

struct Connection {
    conn: Conn,
    /// What the server takes in one statement.
    packet_bytes: usize,
    log: Option<LogTable>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct UnansweredAdd {
    epoch: Epoch,
    request: u64,
    /// Its id would be larger than this.
    after: u32,
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

type Outcome<T> = Result<T, Failure>;

impl MysqlStore {
    pub fn new(config: &MysqlConfig) -> MysqlStore {
        MysqlStore { config: config.clone(), connection: None, closings: 0, unanswered_add: None }
    }

    /// Runs `action` on the connection; `what` names it in errors. After an error the next one connects anew.
    fn with<T>(&mut self, what: &str, action: impl FnOnce(&mut Connection) -> Outcome<T>) -> Result<T, StoreError> {
        let result = match &mut self.connection {
            Some(connection) => action(connection),
            None => connect(&self.config).and_then(|connection| action(self.connection.insert(connection))),
        };
        result.map_err(|failure| {
            if !matches!(failure, Failure::Store(_)) {
                self.connection = None;
            }
            self.error(what, failure)
        })
    }

    fn error(&self, what: &str, failure: Failure) -> StoreError {
        let server = format!("{}:{}", self.config.host, self.config.port);
        match failure {
            Failure::Store(error) => error,
            Failure::Connect(error) => {
                StoreError::Away(format!("{what}: connect to MySQL at {server} as {}: {error}", self.config.user))
            }
            Failure::Mysql(mysql::Error::MySqlError(error)) => {
                let message = format!("{what} in MySQL at {server}: {} ({})", error.message, error.code);
                // What the server refuses it has not done.
                if DATA_ERRORS.contains(&error.code) { StoreError::Refused(message) } else { StoreError::Away(message) }
            }
            Failure::Mysql(error) => StoreError::Unavailable(format!("{what} in MySQL at {server}: {error}")),
        }
    }
}

fn options(config: &MysqlConfig) -> OptsBuilder {
    OptsBuilder::new()
        .ip_or_hostname(Some(&config.host))
        .tcp_port(config.port)
        .user(Some(&config.user))
        .pass(Some(&config.password.0))
        .prefer_socket(false)
        .tcp_connect_timeout(Some(CONNECT_TIMEOUT))
        .read_timeout(Some(ANSWER_TIMEOUT))
        .write_timeout(Some(ANSWER_TIMEOUT))
        .tcp_nodelay(true)
        .init(vec![
            // A superset of utf8: what a table cannot hold is its own matter, not the connection's.
            "SET NAMES utf8mb4",
            "SET SESSION innodb_lock_wait_timeout = 2, SESSION sql_mode = 'STRICT_TRANS_TABLES'",
        ])
}

fn connect(config: &MysqlConfig) -> Outcome<Connection> {
    let options = options(config).db_name(Some(&config.database));
    let mut conn = Conn::new(options).map_err(Failure::Connect)?;
    let packet_bytes = conn.query_first("SELECT @@max_allowed_packet")?.unwrap_or(1 << 20);
    Ok(Connection { conn, packet_bytes, log: None })
}

/// A database that is not there is made, where the user may.
fn create_database(config: &MysqlConfig) -> Outcome<()> {
    let mut conn = Conn::new(options(config)).map_err(Failure::Connect)?;
    let name = config.database.replace('`', "``");
    Ok(conn.query_drop(format!("CREATE DATABASE IF NOT EXISTS `{name}` CHARACTER SET utf8mb4"))?)
}

impl Store for MysqlStore {
    fn open(&mut self) -> Result<Opened, StoreError> {
        self.connection = None;
        if let Err(Failure::Connect(mysql::Error::MySqlError(error))) = connect(&self.config)
            && error.code == UNKNOWN_DATABASE
        {
            create_database(&self.config).map_err(|failure| self.error("make the database", failure))?;
        }
        let config = options(&self.config).db_name(Some(&self.config.database));
        self.with("apply the migrations", |connection| {
            let advice = mysql_schema::migrate(&mut connection.conn, config)?;
            let clock: Option<i64> =
                connection.conn.query_first("SELECT CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED)")?;
            Ok(Opened { clock: clock.map(|ms| Wall(ms * 1_000_000)), advice })
        })
    }

    fn bump(&mut self, bump: &Bump) -> Result<Bumped, StoreError> {
        self.with("take the lead", |connection| {
            let conn = &mut connection.conn;
            let first = "INSERT IGNORE INTO scheduler (id, lock_key, epoch, leader, node_id) VALUES (1, ?, 0, '', '')";
            conn.exec_drop(first, (&bump.lock_key,))?;
            let row: Option<(String, u64, String, String)> =
                conn.query_first("SELECT lock_key, epoch, leader, node_id FROM scheduler WHERE id = 1")?;
            let (lock_key, epoch, leader, node_id) = row.unwrap_or_default();
            if lock_key != bump.lock_key {
                return Err(foreign_lock_key(&bump.lock_key, &lock_key).into());
            }
            if bump.alone && node_id != *bump.node_id.0 {
                let newest = "SELECT CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 - MAX(created_at) AS SIGNED) FROM journal WHERE node_id = ?";
                let age_ms: Option<Option<i64>> = conn.exec_first(newest, (&node_id,))?;
                if let Some(age_ms) = age_ms.flatten().filter(|age_ms| *age_ms < bump.lease_ms as i64) {
                    return Err(not_alone(&leader, age_ms / 1_000).into());
                }
            }
            conn.exec_drop(
                "UPDATE scheduler SET epoch = epoch + 1, leader = ?, node_id = ? WHERE id = 1 AND epoch = ?",
                (&*bump.server.0, &*bump.node_id.0, epoch),
            )?;
            match conn.affected_rows() {
                1 => Ok(Bumped { epoch: Epoch(epoch + 1) }),
                _ => Err(StoreError::Unavailable("take the lead: another node was quicker".into()).into()),
            }
        })
    }

    fn load(&mut self, epoch: Epoch) -> Result<Loaded, StoreError> {
        self.with("read the jobs and the journal", |connection| {
            let conn = &mut connection.conn;
            check_epoch(conn, epoch)?;
            let watermark: Option<Option<i64>> = conn.query_first("SELECT MAX(tick) FROM journal WHERE part = 0")?;
            let open = open_entries(conn)?;
            let logged = logged(conn, &outcomes(&open))?;
            Ok(Loaded { jobs: jobs(conn)?, watermark: watermark.flatten().map(Second), open, logged })
        })
    }

    fn journal(&mut self, entry: &Entry) -> Result<Journaled, StoreError> {
        self.with("write the journal", |connection| insert_entry(&mut connection.conn, entry, false))
    }

    fn change(&mut self, epoch: Epoch, request: u64, change: &Change) -> Result<JobId, StoreError> {
        let unanswered = self.unanswered_add.take().filter(|add| (add.epoch, add.request) == (epoch, request));
        let mut asked = None;
        let result = self.with("write the job", |connection| {
            let conn = &mut connection.conn;
            if let Some(note) = note(change) {
                let body = Body { changes: vec![note], ..Body::default() };
                // It is needed as a record only, so nothing is open about it.
                insert_entry(conn, &Entry { epoch, request, tick: None, part: 0, body }, true)?;
            }
            match change {
                Change::Add(job) => {
                    if let Some(add) = unanswered
                        && let Some(id) = find_added(conn, job, add.after)?
                    {
                        return Ok(id);
                    }
                    let after: Option<Option<u32>> = conn.query_first("SELECT MAX(id) FROM cron")?;
                    let after = unanswered.map_or(after.flatten().unwrap_or(0), |add| add.after);
                    asked = Some(UnansweredAdd { epoch, request, after });
                    add(conn, epoch, job)
                }
                Change::Put(job) => put(conn, epoch, job),
                Change::Delete { id, version } => delete(conn, epoch, *id, *version),
            }
        });
        if matches!(result, Err(StoreError::Unavailable(_))) {
            self.unanswered_add = asked.or(unanswered);
        }
        result
    }

    fn find_logs(&mut self, epoch: Epoch, attempts: &[Attempt]) -> Result<BTreeSet<Attempt>, StoreError> {
        self.with("read log rows", |connection| {
            check_epoch(&mut connection.conn, epoch)?;
            logged(&mut connection.conn, attempts)
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
        self.with("write log rows", |connection| {
            if connection.log.is_none() {
                // Whatever else happens, a row is written: what a column cannot hold is cut or replaced, not refused.
                connection.conn.query_drop("SET SESSION sql_mode = ''")?;
            }
            let log = match connection.log {
                Some(log) if log.has_unique_key => log,
                _ => mysql_schema::log_table(&mut connection.conn)?,
            };
            connection.log = Some(log);
            let insert_bytes_max = connection.packet_bytes / PACKET_SHARE;
            // Quoted, a text may become twice as long.
            let output_bytes_max = (connection.packet_bytes / 2).saturating_sub(ROW_BYTES);
            let mut group: Vec<String> = Vec::new();
            let mut bytes = 0;
            for row in rows {
                if !log.has_unique_key && must_not_replace(&mut connection.conn, row)? {
                    continue;
                }
                let values = log_values(row, &log, output_bytes_max);
                if INSERT_ROWS_MAX <= group.len() || insert_bytes_max < bytes + values.len() {
                    insert_logs(&mut connection.conn, &group)?;
                    group.clear();
                    bytes = 0;
                }
                bytes += values.len();
                group.push(values);
            }
            insert_logs(&mut connection.conn, &group)
        })
    }

    fn retain_logs(&mut self, before: Second) -> Result<(), StoreError> {
        self.with("delete old log rows", |connection| {
            // `time` has no key in the older system's table. Ids and times grow together, so the oldest rows are first.
            let conn = &mut connection.conn;
            loop {
                let oldest = "SELECT id, time FROM log ORDER BY id LIMIT ?";
                let rows: Vec<(i64, i64)> = conn.exec(oldest, (DELETE_ROWS_MAX,))?;
                let Some((last, _)) = rows.iter().take_while(|(_, time)| *time < before.0).last() else {
                    return Ok(());
                };
                conn.exec_drop(
                    "DELETE FROM log WHERE id <= ? AND time < ? LIMIT ?",
                    (last, before.0, DELETE_ROWS_MAX),
                )?;
            }
        })
    }

    fn list_logs(&mut self, filter: &LogFilter) -> Result<LogPage, StoreError> {
        self.with("read log rows", |connection| {
            let wanted = [
                ("cron_id = ?", filter.cron_id.map(|id| Value::from(id.0))),
                ("LOCATE(?, output) > 0", filter.search.as_ref().map(Value::from)),
                ("dispatch_server = ?", filter.dispatch_server.as_ref().map(Value::from)),
                ("run_server = ?", filter.run_server.as_ref().map(Value::from)),
            ];
            let mut conditions = vec!["1 = 1"];
            let mut values = Vec::new();
            for (condition, value) in wanted {
                if let Some(value) = value {
                    conditions.push(condition);
                    values.push(value);
                }
            }
            let conditions = conditions.join(" AND ");
            let params = || if values.is_empty() { Params::Empty } else { Params::Positional(values.clone()) };
            let conn = &mut connection.conn;
            let total = conn.exec_first(format!("SELECT COUNT(*) FROM log WHERE {conditions}"), params())?.unwrap_or(0);
            let offset = (filter.page - 1).saturating_mul(filter.limit);
            let sql = format!(
                "SELECT {LOG_COLUMNS} FROM log WHERE {conditions} ORDER BY id DESC LIMIT {} OFFSET {offset}",
                filter.limit
            );
            let rows = conn.exec_map(sql, params(), stored_log)?;
            Ok(LogPage { rows, total })
        })
    }

    fn list_jobs(&mut self) -> Result<Vec<Job>, StoreError> {
        self.with("read the jobs", |connection| jobs(&mut connection.conn))
    }
}

const JOB_COLUMNS: &str = "cron_set, start_time, end_time, command, is_mutex, stop, remark, lock_limit, version, since";
const LOG_COLUMNS: &str = "id, cron_id, time, output, use_time, dispatch_time, dispatch_server, run_server, run_key, attempt, state, \
                           exit_code, start_time, version";

fn is_epoch(epoch: Epoch) -> String {
    format!("EXISTS (SELECT 1 FROM scheduler WHERE id = 1 AND epoch = {})", epoch.0)
}

fn check_epoch(conn: &mut Conn, epoch: Epoch) -> Outcome<()> {
    let stored: Option<u64> = conn.query_first("SELECT epoch FROM scheduler WHERE id = 1")?;
    if stored == Some(epoch.0) { Ok(()) } else { Err(StoreError::Deposed.into()) }
}

fn insert_entry(conn: &mut Conn, entry: &Entry, is_done: bool) -> Outcome<Journaled> {
    let body = serde_json::to_string(&entry.body)
        .map_err(|error| StoreError::Refused(format!("write a journal body: {error}")))?;
    let inserted = conn.exec_drop(
        "INSERT INTO journal (epoch, request, tick, part, node_id, body, done, created_at)
         SELECT epoch, ?, ?, ?, node_id, ?, ?, CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED) FROM scheduler
         WHERE id = 1 AND epoch = ? LOCK IN SHARE MODE",
        (entry.request, entry.tick.map(|tick| tick.0), entry.part, body, is_done, entry.epoch.0),
    );
    match inserted {
        Ok(()) if conn.affected_rows() == 0 => Err(StoreError::Deposed.into()),
        Ok(()) => Ok(Journaled::Entry(EntryId(conn.last_insert_id() as i64))),
        Err(mysql::Error::MySqlError(error)) if error.code == DUPLICATE_KEY => {
            let known = "SELECT id FROM journal WHERE epoch = ? AND request = ?";
            let known: Option<i64> = conn.exec_first(known, (entry.epoch.0, entry.request))?;
            Ok(known.map_or(Journaled::TickTaken, |id| Journaled::Entry(EntryId(id))))
        }
        Err(error) => Err(error.into()),
    }
}

fn job_values(job: &Job) -> Vec<Value> {
    vec![
        (&job.cron_set).into(),
        job.start_time.into(),
        job.end_time.into(),
        (&job.command).into(),
        job.is_mutex.into(),
        job.stop.into(),
        (&job.remark).into(),
        job.lock_limit.into(),
        job.version.0.into(),
        job.since.0.into(),
    ]
}

fn add(conn: &mut Conn, epoch: Epoch, job: &Job) -> Outcome<JobId> {
    let mut values = job_values(job);
    values.push(epoch.0.into());
    let sql = format!(
        "INSERT INTO cron ({JOB_COLUMNS}) SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ? FROM scheduler WHERE id = 1 AND epoch = ?"
    );
    conn.exec_drop(sql, values)?;
    match conn.affected_rows() {
        0 => Err(StoreError::Deposed.into()),
        _ => Ok(JobId(conn.last_insert_id() as u32)),
    }
}

/// The row of an insert whose answer was lost, if it was carried out.
fn find_added(conn: &mut Conn, job: &Job, after: u32) -> Outcome<Option<JobId>> {
    let sql = "SELECT id FROM cron WHERE id > ? AND version = ? AND since = ? AND cron_set = ? AND command = ? AND remark = ? ORDER BY id LIMIT 1";
    let id: Option<u32> =
        conn.exec_first(sql, (after, job.version.0, job.since.0, &job.cron_set, &job.command, &job.remark))?;
    Ok(id.map(JobId))
}

fn put(conn: &mut Conn, epoch: Epoch, job: &Job) -> Outcome<JobId> {
    let sets: Vec<String> = JOB_COLUMNS.split(", ").map(|column| format!("{column} = ?")).collect();
    let mut values = job_values(job);
    values.extend([job.id.0.into(), (job.version.0 - 1).into()]);
    conn.exec_drop(
        format!("UPDATE cron SET {} WHERE id = ? AND version = ? AND {}", sets.join(", "), is_epoch(epoch)),
        values,
    )?;
    if conn.affected_rows() == 1 {
        return Ok(job.id);
    }
    check_epoch(conn, epoch)?;
    let version: Option<u64> = conn.exec_first("SELECT version FROM cron WHERE id = ?", (job.id.0,))?;
    // At the new version already: an earlier asking did it, and its answer was lost.
    if version == Some(job.version.0) { Ok(job.id) } else { Err(edited_by_hand(job.id).into()) }
}

fn delete(conn: &mut Conn, epoch: Epoch, id: JobId, version: Version) -> Outcome<JobId> {
    let sql = format!("DELETE FROM cron WHERE id = ? AND version = ? AND {}", is_epoch(epoch));
    conn.exec_drop(sql, (id.0, version.0))?;
    if conn.affected_rows() == 1 {
        return Ok(id);
    }
    check_epoch(conn, epoch)?;
    let is_there: Option<u8> = conn.exec_first("SELECT 1 FROM cron WHERE id = ?", (id.0,))?;
    if is_there.is_none() { Ok(id) } else { Err(edited_by_hand(id).into()) }
}

fn open_entries(conn: &mut Conn) -> Outcome<Vec<StoredEntry>> {
    let sql = "SELECT id, epoch, request, tick, part, body FROM journal WHERE done = 0 ORDER BY id";
    let rows: Vec<(i64, u64, u64, Option<i64>, u32, String)> = conn.query(sql)?;
    let entry = |(id, epoch, request, tick, part, body): (i64, u64, u64, Option<i64>, u32, String)| {
        let body = serde_json::from_str(&body)
            .map_err(|error| StoreError::Refused(format!("journal row {id}: its body cannot be read: {error}")))?;
        let entry = Entry { epoch: Epoch(epoch), request, tick: tick.map(Second), part, body };
        Ok(StoredEntry { id: EntryId(id), entry })
    };
    rows.into_iter().map(entry).collect()
}

fn logged(conn: &mut Conn, attempts: &[Attempt]) -> Outcome<BTreeSet<Attempt>> {
    let mut logged = BTreeSet::new();
    let wanted: BTreeSet<Attempt> = attempts.iter().copied().collect();
    for chunk in attempts.chunks(LOOKUP_MAX) {
        // Run keys are digits, dashes, dots and an m.
        let keys: Vec<String> = chunk.iter().map(|attempt| format!("'{}'", attempt.run)).collect();
        let sql = format!("SELECT run_key, attempt FROM log WHERE run_key IN ({})", keys.join(","));
        for (key, number) in conn.query::<(String, u32), _>(sql)? {
            if let Ok(run) = key.parse::<RunKey>() {
                logged.insert(Attempt { run, number });
            }
        }
    }
    logged.retain(|attempt| wanted.contains(attempt));
    Ok(logged)
}

/// Before the unique key of a large log is built: whether the row is there and not to be replaced. A `lost` row is
/// deleted to make place. Rows that may be written again are recent, so the newest ids are enough.
fn must_not_replace(conn: &mut Conn, row: &LogRow) -> Outcome<bool> {
    let sql = "SELECT id, state FROM log WHERE id > (SELECT MAX(id) FROM log) - 100000 AND run_key = ? AND attempt = ? LIMIT 1";
    let found: Option<(i64, Option<String>)> =
        conn.exec_first(sql, (row.attempt.run.to_string(), row.attempt.number))?;
    match found {
        Some((id, Some(state))) if state == "lost" && row.state.as_str() != "lost" => {
            conn.exec_drop("DELETE FROM log WHERE id = ?", (id,))?;
            Ok(false)
        }
        found => Ok(found.is_some()),
    }
}

/// One row as `(..)` of an INSERT.
fn log_values(row: &LogRow, log: &LogTable, output_bytes_max: usize) -> String {
    let output = log.storable(&row.output, output_bytes_max);
    let values: [Value; 13] = [
        row.attempt.run.cron_id.0.into(),
        row.attempt.run.scheduled_at.0.into(),
        output.as_ref().into(),
        row.use_time_ms.into(),
        row.dispatch_time.0.into(),
        row.dispatch_server.0.as_ref().into(),
        row.run_server.0.as_ref().into(),
        row.attempt.run.to_string().into(),
        row.attempt.number.into(),
        row.state.as_str().into(),
        row.exit_code.into(),
        row.start_time_ms.into(),
        row.version.0.into(),
    ];
    let texts: Vec<String> = values.iter().map(|value| value.as_sql(false)).collect();
    format!("({})", texts.join(","))
}

fn insert_logs(conn: &mut Conn, rows: &[String]) -> Outcome<()> {
    if rows.is_empty() {
        return Ok(());
    }
    // `state` is assigned last: the conditions before it see the old one.
    let columns = [
        "output",
        "use_time",
        "dispatch_time",
        "dispatch_server",
        "run_server",
        "exit_code",
        "start_time",
        "version",
        "state",
    ];
    let sets = columns
        .map(|column| format!("{column} = IF(state = 'lost' AND VALUES(state) <> 'lost', VALUES({column}), {column})"));
    Ok(conn.query_drop(format!(
        "INSERT INTO log (cron_id, time, output, use_time, dispatch_time, dispatch_server, run_server, run_key, attempt, state, exit_code,
         start_time, version) VALUES {} ON DUPLICATE KEY UPDATE {}",
        rows.join(","),
        sets.join(", ")
    ))?)
}

/// Rows written by hand may hold anything that their columns take.
fn jobs(conn: &mut Conn) -> Outcome<Vec<Job>> {
    let sql = format!("SELECT id, {JOB_COLUMNS} FROM cron WHERE id > 0 ORDER BY id");
    let job = |row: Row| {
        let number = |at: usize| row.get_opt::<i64, usize>(at).and_then(Result::ok).unwrap_or(0);
        let text = |at: usize| {
            row.get_opt::<Vec<u8>, usize>(at)
                .and_then(Result::ok)
                .map_or(String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
        };
        Job {
            id: JobId(number(0) as u32),
            cron_set: text(1),
            start_time: number(2).max(0),
            end_time: number(3).max(0),
            command: text(4),
            is_mutex: number(5) != 0,
            stop: number(6) != 0,
            remark: text(7),
            lock_limit: number(8).clamp(0, i64::from(u32::MAX)) as u32,
            version: Version(number(9).max(1) as u64),
            since: Second(number(10)),
        }
    };
    Ok(conn.query_map(sql, job)?)
}

fn stored_log(row: Row) -> StoredLog {
    let number = |at: usize| row.get_opt::<i64, usize>(at).and_then(Result::ok);
    let text = |at: usize| {
        row.get_opt::<Vec<u8>, usize>(at).and_then(Result::ok).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    };
    StoredLog {
        id: number(0).unwrap_or(0),
        cron_id: JobId(number(1).unwrap_or(0) as u32),
        time: number(2).unwrap_or(0),
        output: text(3).unwrap_or_default(),
        use_time_ms: number(4).unwrap_or(0),
        dispatch_time: number(5).unwrap_or(0),
        dispatch_server: text(6).unwrap_or_default(),
        run_server: text(7).unwrap_or_default(),
        run_key: text(8),
        attempt: number(9).map(|attempt| attempt as u32),
        state: text(10),
        exit_code: number(11).map(|code| code as i32),
        start_time_ms: number(12),
        version: number(13).map(|version| version as u64),
    }
}
