//! The embedded store: one SQLite file in data_dir, for a node that stands alone with nothing beside it.
//!
//! WAL, and `synchronous=FULL` on every connection: what is answered is on the disk, the journal's entries and the log
//! rows alike. Each call is one transaction.

mod jobs;
mod journal;

use self::jobs::{JOB_COLUMNS, JOB_IDS, differences, job, job_params, jobs};
use self::journal::{check_epoch, insert_entry, last_leader, newest_entry, open_entries, parse_body};
use super::{
    DELETE_ENTRIES_MAX, DELETE_ROWS_MAX, Hand, Store, coalesced, edited_by_hand, foreign_lock_key, not_alone, note,
    outcomes, row_state,
};
use crate::core::ports::{
    Bump, Bumped, Change, Differences, JobBatch, Journaled, Loaded, Opened, Since, StoreError, StoredLeader,
};
use crate::model::command::RequestKey;
use crate::model::job::{JobFilter, JobPage};
use crate::model::journal::{Body, Entry, EntryId};
use crate::model::log_row::{LastRun, LogFilter, LogPage, StoredLog};
use crate::model::{Attempt, Epoch, Job, JobId, LogRow, RunKey, RunState, Second, Wall};
use rusqlite::types::Value;
use rusqlite::{
    Connection, ErrorCode, OptionalExtension, Row, Transaction, TransactionBehavior, params, params_from_iter,
};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// In order; the number of a file is its place here, from 1.
const MIGRATIONS: &[&str] =
    &[include_str!("../../../../sql/sqlite/0001_tables.sql"), include_str!("../../../../sql/sqlite/0002_control.sql")];
/// How long a statement waits for another connection's.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Whose turn it is to write. SQLite would let one writer wait for another by sleeping, and a busy one go on for ever:
/// the journal would wait behind ten thousand log rows.
#[derive(Debug, Default)]
pub struct WriteTurns {
    state: Mutex<Turns>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Turns {
    is_taken: bool,
    /// Writers that go before the others.
    urgent: usize,
}

/// A turn, until it is dropped.
struct Turn<'a>(&'a WriteTurns);

impl WriteTurns {
    fn take(&self, is_urgent: bool) -> Turn<'_> {
        let mut turns = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        turns.urgent += usize::from(is_urgent);
        while turns.is_taken || !is_urgent && turns.urgent != 0 {
            turns = self.changed.wait(turns).unwrap_or_else(PoisonError::into_inner);
        }
        turns.urgent -= usize::from(is_urgent);
        turns.is_taken = true;
        Turn(self)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).is_taken = false;
        self.0.changed.notify_all();
    }
}

pub struct SqliteStore {
    hand: Hand,
    turns: Arc<WriteTurns>,
    path: PathBuf,
    connection: Option<Connection>,
}

impl SqliteStore {
    /// `turns` is shared by all that write to the file.
    pub fn new(path: &Path, hand: Hand, turns: Arc<WriteTurns>) -> SqliteStore {
        SqliteStore { hand, turns, path: path.to_path_buf(), connection: None }
    }

    /// Runs `action` in one transaction; `what` names it in errors. After an error the file is opened anew.
    fn transact<T>(
        &mut self,
        what: &str,
        action: impl FnOnce(&Transaction) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        let turns = Arc::clone(&self.turns);
        let _turn = turns.take(self.hand == Hand::Lead);
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
    fn read<T>(
        &mut self,
        what: &str,
        action: impl FnOnce(&Transaction) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        let result = self.connection().and_then(|connection| action(&connection.transaction()?));
        result.map_err(|failure| {
            self.connection = None;
            self.error(what, failure)
        })
    }

    fn connection(&mut self) -> Result<&mut Connection, Failure> {
        if self.connection.is_none() {
            let connection = Connection::open(&self.path)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            self.connection = Some(connection);
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
                "{message}; the file is damaged: move it away to begin with an empty one, or restore a copy"
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

/// What ends a transaction early.
enum Failure {
    Store(StoreError),
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Failure {
        Failure::Sqlite(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure::Store(error)
    }
}

impl Store for SqliteStore {
    fn open(&mut self) -> Result<Opened, StoreError> {
        self.transact("apply the migrations", |transaction| {
            let applied: u32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
            for (at, migration) in MIGRATIONS.iter().enumerate().skip(applied as usize) {
                transaction.execute_batch(migration)?;
                transaction.pragma_update(None, "user_version", at as u32 + 1)?;
            }
            Ok(Opened { clock: None, advice: Vec::new() })
        })
    }

    fn ping(&mut self) -> Result<(), StoreError> {
        self.read("ask for an answer", |transaction| Ok(transaction.query_row("SELECT 1", [], |_| Ok(()))?))
    }

    fn bump(&mut self, bump: &Bump) -> Result<Bumped, StoreError> {
        self.transact("take the lead", |transaction| {
            let former = last_leader(transaction)?;
            let Epoch(epoch) = former.as_ref().map_or(Epoch(0), |former| former.epoch);
            if let Some(former) = former.as_ref().filter(|former| former.lock_key != bump.lock_key) {
                return Err(foreign_lock_key(&bump.lock_key, &former.lock_key).into());
            }
            if let Some(former) = former.filter(|former| bump.alone && former.node_id != bump.node_id) {
                let newest = "SELECT unixepoch() - max(created_at) / 1000 FROM journal WHERE node_id = ?";
                let age_secs: Option<i64> = transaction.query_row(newest, [&*former.node_id.0], |row| row.get(0))?;
                if let Some(age_secs) = age_secs.filter(|age| age * 1_000 < bump.lease_ms as i64) {
                    return Err(not_alone(&former.server, age_secs).into());
                }
            }
            transaction.execute(
                "INSERT INTO scheduler (id, lock_key, epoch, leader, node_id) VALUES (1, ?1, ?2, ?3, ?4)
                 ON CONFLICT (id) DO UPDATE SET epoch = ?2, leader = ?3, node_id = ?4",
                params![bump.lock_key, epoch + 1, &*bump.server.0, &*bump.node_id.0],
            )?;
            Ok(Bumped { epoch: Epoch(epoch + 1) })
        })
    }

    fn load(&mut self, epoch: Epoch, since: &Since) -> Result<Loaded, StoreError> {
        self.read("read the journal", |transaction| {
            check_epoch(transaction, epoch)?;
            let watermark = "SELECT max(tick) FROM journal WHERE part = 0";
            let watermark: Option<i64> = transaction.query_row(watermark, [], |row| row.get(0))?;
            let open = open_entries(transaction)?;
            let differences = differences(transaction, since)?;
            let mut rows = logged(transaction, &outcomes(&open))?;
            rows.extend(logged(transaction, &coalesced(&open, &rows))?);
            let is_paused = transaction.query_row("SELECT paused <> 0 FROM scheduler", [], |row| row.get(0))?;
            Ok(Loaded { differences, watermark: watermark.map(Second), open, logged: rows, is_paused })
        })
    }

    fn journal(&mut self, entry: &Entry) -> Result<Journaled, StoreError> {
        self.transact("write the journal", |transaction| {
            check_epoch(transaction, entry.epoch)?;
            let known = "SELECT id FROM journal WHERE epoch = ? AND request = ?";
            let known =
                transaction.query_row(known, params![entry.epoch.0, entry.request], |row| row.get(0)).optional()?;
            if let Some(id) = known {
                return Ok(Journaled::Entry(EntryId(id)));
            }
            if let Some(RequestKey(key)) = &entry.request_key {
                let asked = "SELECT id, body FROM journal WHERE request_key = ?";
                let asked: Option<(i64, String)> =
                    transaction.query_row(asked, [key], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
                if let Some((id, body)) = asked {
                    return Ok(Journaled::Known(parse_body(id, &body)?));
                }
            }
            let taken = "SELECT 1 FROM journal WHERE tick = ? AND part = ?";
            let tick = entry.tick.map(|tick| tick.0);
            if transaction.query_row(taken, params![tick, entry.part], |_| Ok(())).optional()?.is_some() {
                return Ok(Journaled::TickTaken);
            }
            Ok(Journaled::Entry(insert_entry(transaction, entry, false)?))
        })
    }

    fn change(&mut self, epoch: Epoch, request: u64, change: &Change) -> Result<JobId, StoreError> {
        self.transact("write the job", |transaction| {
            check_epoch(transaction, epoch)?;
            if let Some(note) = note(change) {
                let body = Body { changes: vec![note], ..Body::default() };
                // In one transaction with the row, so it is done as soon as it is there.
                let entry = Entry { epoch, request, tick: None, part: 0, body, request_key: None };
                insert_entry(transaction, &entry, true)?;
            }
            match change {
                Change::Add(job, RequestKey(key)) => {
                    let known = "SELECT id FROM cron WHERE request_key = ?";
                    let known: Option<u32> = transaction.query_row(known, [key], |row| row.get(0)).optional()?;
                    if let Some(id) = known {
                        return Ok(JobId(id));
                    }
                    let places = vec!["?"; JOB_COLUMNS.len()].join(", ");
                    let columns = JOB_COLUMNS.join(", ");
                    let insert = format!("INSERT INTO cron ({columns}, request_key) VALUES ({places}, ?)");
                    let values = job_params(job).into_iter().chain([key.clone().into()]);
                    transaction.execute(&insert, params_from_iter(values))?;
                    Ok(JobId(transaction.last_insert_rowid() as u32))
                }
                Change::Put(job) => {
                    let sets = JOB_COLUMNS.map(|column| format!("{column} = ?")).join(", ");
                    let mut values = job_params(job);
                    values.extend([job.id.0.into(), (job.version.0 as i64 - 1).into()]);
                    let update = format!("UPDATE cron SET {sets} WHERE id = ? AND version = ?");
                    match transaction.execute(&update, params_from_iter(values))? {
                        1 => Ok(job.id),
                        _ => Err(edited_by_hand(job.id).into()),
                    }
                }
                Change::Delete { id, version } => {
                    match transaction
                        .execute("DELETE FROM cron WHERE id = ? AND version = ?", params![id.0, version.0])?
                    {
                        1 => Ok(*id),
                        _ => Err(edited_by_hand(*id).into()),
                    }
                }
            }
        })
    }

    fn find_logs(&mut self, epoch: Epoch, attempts: &[Attempt]) -> Result<BTreeMap<Attempt, RunState>, StoreError> {
        self.read("read log rows", |transaction| {
            check_epoch(transaction, epoch)?;
            logged(transaction, &attempts.iter().map(|attempt| attempt.run).collect())
        })
    }

    fn pause(&mut self, epoch: Epoch, paused: bool) -> Result<(), StoreError> {
        self.transact("pause or resume", |transaction| {
            check_epoch(transaction, epoch)?;
            transaction.execute("UPDATE scheduler SET paused = ?", [paused])?;
            Ok(())
        })
    }

    fn close(&mut self, epoch: Epoch, entries: &[EntryId], delete_before: Wall) -> Result<(), StoreError> {
        self.transact("close journal entries", |transaction| {
            check_epoch(transaction, epoch)?;
            let mut close = transaction.prepare_cached("UPDATE journal SET done = 1 WHERE id = ?")?;
            for entry in entries {
                close.execute([entry.0])?;
            }
            transaction.execute(
                "DELETE FROM journal WHERE id IN (SELECT id FROM journal WHERE done = 1 AND created_at < ?1
                   AND (tick IS NULL OR tick < (SELECT max(tick) FROM journal WHERE part = 0)) ORDER BY id LIMIT ?2)",
                params![delete_before.ms(), DELETE_ENTRIES_MAX],
            )?;
            Ok(())
        })
    }

    fn write_logs(&mut self, rows: &[LogRow]) -> Result<(), StoreError> {
        self.transact("write log rows", |transaction| {
            let mut upsert = transaction.prepare_cached(UPSERT_LOG)?;
            for row in rows {
                upsert.execute(params![
                    row.attempt.run.cron_id.0,
                    row.attempt.run.scheduled_at.0,
                    row.output,
                    row.use_time_ms,
                    row.dispatch_time.0,
                    &*row.dispatch_server.0,
                    &*row.run_server.0,
                    row.attempt.run.to_string(),
                    row.attempt.number,
                    row.state.as_str(),
                    row.exit_code,
                    row.start_time_ms,
                    row.version.0,
                ])?;
            }
            Ok(())
        })
    }

    fn retain_logs(&mut self, before: Second) -> Result<(), StoreError> {
        let sql = "DELETE FROM log WHERE id IN (SELECT id FROM log WHERE time < ? LIMIT ?)";
        // Each portion is a transaction of its own, so that log rows of runs get in between.
        while 0 < self.transact("delete old log rows", |transaction| {
            Ok(transaction.execute(sql, params![before.0, DELETE_ROWS_MAX])?)
        })? {}
        Ok(())
    }

    fn list_logs(&mut self, filter: &LogFilter) -> Result<LogPage, StoreError> {
        self.read("read log rows", |transaction| {
            let cron_id = filter.cron_id.map(|id| id.0);
            let mut wanted: Vec<(&str, &dyn rusqlite::ToSql)> = Vec::new();
            if let Some(id) = &cron_id {
                wanted.push(("cron_id = ?", id));
            }
            if let Some(search) = &filter.search {
                wanted.push(("instr(lower(output), lower(?)) > 0", search));
            }
            if let Some(server) = &filter.dispatch_server {
                wanted.push(("dispatch_server = ?", server));
            }
            if let Some(server) = &filter.run_server {
                wanted.push(("run_server = ?", server));
            }
            let conditions: Vec<&str> =
                std::iter::once("1").chain(wanted.iter().map(|(condition, _)| *condition)).collect();
            let conditions = conditions.join(" AND ");
            let mut values: Vec<&dyn rusqlite::ToSql> = wanted.iter().map(|(_, value)| *value).collect();
            let total = transaction.query_row(
                &format!("SELECT count(*) FROM log WHERE {conditions}"),
                values.as_slice(),
                |row| row.get(0),
            )?;
            let offset = (filter.page - 1).saturating_mul(filter.limit).min(i64::MAX as u64) as i64;
            values.push(&filter.limit);
            values.push(&offset);
            let sql = format!("SELECT {LOG_COLUMNS} FROM log WHERE {conditions} ORDER BY id DESC LIMIT ? OFFSET ?");
            let rows =
                transaction.prepare(&sql)?.query_map(values.as_slice(), stored_log)?.collect::<Result<_, _>>()?;
            Ok(LogPage { rows, total })
        })
    }

    fn list_jobs(&mut self) -> Result<Vec<Job>, StoreError> {
        self.read("read the jobs", |transaction| jobs(transaction, "1 ORDER BY id"))
    }

    fn read_batch(&mut self, after: JobId, limit: usize) -> Result<JobBatch, StoreError> {
        self.read("read the jobs", |transaction| {
            let as_of = newest_entry(transaction)?;
            let jobs = jobs(transaction, &format!("id > {after} ORDER BY id LIMIT {limit}"))?;
            // A note and its row are written together: no row is on its way.
            Ok(JobBatch { as_of, last: None, jobs })
        })
    }

    fn differences(&mut self, since: &Since) -> Result<Option<Differences>, StoreError> {
        self.read("read what jobs have changed", |transaction| differences(transaction, since))
    }

    fn leader(&mut self) -> Result<Option<StoredLeader>, StoreError> {
        self.read("read who leads", last_leader)
    }

    fn find_log(&mut self, run: RunKey, attempt: Option<u32>) -> Result<Option<StoredLog>, StoreError> {
        self.read("read a log row", |transaction| {
            let sql = format!(
                "SELECT {LOG_COLUMNS} FROM log WHERE run_key = ?1 AND attempt = ifnull(?2, attempt) ORDER BY attempt DESC LIMIT 1"
            );
            Ok(transaction.query_row(&sql, params![run.to_string(), attempt], stored_log).optional()?)
        })
    }

    fn find_jobs(&mut self, filter: &JobFilter) -> Result<JobPage, StoreError> {
        self.read("read the jobs", |transaction| {
            let (conditions, values) = match &filter.search {
                None => (String::new(), Vec::new()),
                Some(text) => {
                    let has = |column| format!("instr(lower({column}), lower(?1)) > 0");
                    let texts = ["cron_set", "command", "remark"].map(has).join(" OR ");
                    let values = vec![Value::from(text.clone()), filter.id().map_or(Value::Null, Value::from)];
                    (format!("AND ({texts} OR id = ?2)"), values)
                }
            };
            let total = format!("SELECT count(*) FROM cron WHERE {JOB_IDS} {conditions}");
            let total = transaction.query_row(&total, params_from_iter(&values), |row| row.get(0))?;
            let (columns, offset) = (JOB_COLUMNS.join(", "), filter.offset().min(i64::MAX as u64));
            let sql = format!(
                "SELECT {columns}, id FROM cron WHERE {JOB_IDS} {conditions} ORDER BY id LIMIT {} OFFSET {offset}",
                filter.limit
            );
            let mut statement = transaction.prepare(&sql)?;
            let jobs = statement.query_map(params_from_iter(&values), job)?.collect::<Result<_, _>>()?;
            Ok(JobPage { jobs, total: Some(total) })
        })
    }

    fn last_runs(&mut self, ids: &[JobId]) -> Result<BTreeMap<JobId, LastRun>, StoreError> {
        self.read("read the last runs", |transaction| {
            let newest = "SELECT state, time, use_time FROM log WHERE cron_id = ? ORDER BY id DESC LIMIT 1";
            let mut newest = transaction.prepare_cached(newest)?;
            let mut last_runs = BTreeMap::new();
            for id in ids {
                let last_run =
                    |row: &Row| Ok(LastRun { state: row.get(0)?, time: row.get(1)?, use_time_ms: row.get(2)? });
                if let Some(last_run) = newest.query_row([id.0], last_run).optional()? {
                    last_runs.insert(*id, last_run);
                }
            }
            Ok(last_runs)
        })
    }
}

const UPSERT_LOG: &str = "INSERT INTO log (cron_id, time, output, use_time, dispatch_time, dispatch_server, run_server, run_key, attempt,
    state, exit_code, start_time, version) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (run_key, attempt) DO UPDATE SET output = excluded.output, use_time = excluded.use_time,
    dispatch_time = excluded.dispatch_time, dispatch_server = excluded.dispatch_server, run_server = excluded.run_server,
    state = excluded.state, exit_code = excluded.exit_code, start_time = excluded.start_time, version = excluded.version
    WHERE excluded.state <> 'lost' AND (log.state = 'lost' OR log.start_time = 0 AND excluded.start_time <> 0)";
const LOG_COLUMNS: &str =
    "id, cron_id, time, output, use_time, dispatch_time, dispatch_server, run_server, run_key, attempt, state,
    exit_code, start_time, version";

fn logged(transaction: &Transaction, runs: &BTreeSet<RunKey>) -> Result<BTreeMap<Attempt, RunState>, Failure> {
    let mut find = transaction.prepare_cached("SELECT attempt, state FROM log WHERE run_key = ?")?;
    let mut logged = BTreeMap::new();
    for run in runs {
        let key = run.to_string();
        let mut rows = find.query([&key])?;
        while let Some(row) = rows.next()? {
            logged.extend(row_state(&key, row.get(0)?, &row.get::<_, String>(1)?));
        }
    }
    Ok(logged)
}

fn stored_log(row: &Row) -> rusqlite::Result<StoredLog> {
    Ok(StoredLog {
        id: row.get(0)?,
        cron_id: JobId(row.get(1)?),
        time: row.get(2)?,
        output: row.get(3)?,
        use_time_ms: row.get(4)?,
        dispatch_time: row.get(5)?,
        dispatch_server: row.get(6)?,
        run_server: row.get(7)?,
        run_key: row.get(8)?,
        attempt: row.get(9)?,
        state: row.get(10)?,
        exit_code: row.get(11)?,
        start_time_ms: row.get(12)?,
        version: row.get(13)?,
    })
}
