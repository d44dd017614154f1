//! Table `log` in MySQL.
//!
//! Invariants: a row is written whatever its values are. A definite state replaces `lost`; only the row of a run that
//! was started replaces a definite state, and only one by which the run was not started.

use super::connection::Connection;
use super::outcome::{INT_MAX, Outcome, cell, sql_value};
use super::schema::{self, LogTable};
use crate::model::log_row::{LastRun, LogFilter, LogPage, PAGE_BYTES_MAX, StoredLog};
use crate::model::value::Value;
use crate::model::{Attempt, JobId, LogRow, RunKey, RunState, Second};
use crate::worker::store::rows::{changed_log_columns, list, log_columns, log_values, stored_log, written_log_columns};
use crate::worker::store::{DELETE_ROWS_MAX, row_state};
use mysql::prelude::Queryable;
use mysql::{Conn, Params, Row};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// The most rows in one INSERT.
const INSERT_ROWS_MAX: usize = 500;
/// An INSERT of several rows takes at most this part (one in four) of the server's largest packet.
const PACKET_SHARE: usize = 4;
/// How many bytes of a packet are left for everything but the output of a row.
const ROW_BYTES: usize = 32 << 10;
/// The most keys that one statement looks up.
const LOOKUP_MAX: usize = 500;
/// Rows of a page that are read by one statement before their size is known.
const BATCH_ROWS: usize = 16;
/// The server has no key of the name that a statement wants to use.
const NO_SUCH_KEY: u16 = 1176;

pub fn write(connection: &mut Connection, rows: &[LogRow]) -> Outcome<()> {
    if connection.log.is_none() {
        // A row is always written: a value that its column cannot hold is cut or replaced, not refused.
        connection.conn.query_drop("SET SESSION sql_mode = ''")?;
        tell_cut_times(&mut connection.conn, rows)?;
    }
    let log = match connection.log {
        Some(log) if log.has_unique_key => log,
        _ => schema::log_table(&mut connection.conn)?,
    };
    connection.log = Some(log);
    let insert_bytes_max = connection.packet_bytes / PACKET_SHARE;
    // Quoting may make a text twice as long.
    let output_bytes_max = (connection.packet_bytes / 2).saturating_sub(ROW_BYTES);
    let mut group: Vec<String> = Vec::new();
    let mut bytes = 0;
    for row in rows {
        if !log.has_unique_key && must_not_replace(&mut connection.conn, row)? {
            continue;
        }
        let values = insert_values(row, &log, output_bytes_max);
        if INSERT_ROWS_MAX <= group.len() || insert_bytes_max < bytes + values.len() {
            insert(&mut connection.conn, &group)?;
            group.clear();
            bytes = 0;
        }
        bytes += values.len();
        group.push(values);
    }
    insert(&mut connection.conn, &group)
}

/// Deletes some of the rows of runs before this second. Answers whether more may be left.
pub fn retain(conn: &mut Conn, before: Second) -> Outcome<bool> {
    // The older system's table has no key on `time`. Ids and times grow together, so the rows with the smallest ids are
    // the oldest.
    let oldest = "SELECT id, time FROM log ORDER BY id LIMIT ?";
    let mut rows: Vec<(i64, i64)> = conn.exec(oldest, (DELETE_ROWS_MAX,))?;
    rows.truncate(rows.iter().take_while(|(_, time)| *time < before.0).count());
    if let Some((last, _)) = rows.last() {
        conn.exec_drop("DELETE FROM log WHERE id <= ? AND time < ? LIMIT ?", (last, before.0, DELETE_ROWS_MAX))?;
    }
    Ok(rows.len() == DELETE_ROWS_MAX as usize)
}

pub fn page(conn: &mut Conn, filter: &LogFilter) -> Outcome<LogPage> {
    let wanted = [
        ("cron_id = ?", filter.cron_id.map(|id| mysql::Value::from(id.0))),
        ("LOCATE(?, output) > 0", filter.search.as_ref().map(mysql::Value::from)),
        ("dispatch_server = ?", filter.dispatch_server.as_ref().map(mysql::Value::from)),
        ("run_server = ?", filter.run_server.as_ref().map(mysql::Value::from)),
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
    let total = conn.exec_first(format!("SELECT COUNT(*) FROM log WHERE {conditions}"), params())?.unwrap_or(0);
    let (mut page, mut bytes) = (LogPage { total, ..LogPage::default() }, 0);
    let mut wanted = filter.limit as usize;
    let mut batch = BATCH_ROWS;
    while 0 < wanted && !page.is_truncated {
        // The rows of a statement all cross the network, also those that have no place: a batch is not large.
        let rows = wanted.min(batch);
        let (after, offset) = match page.rows.last() {
            Some(last) => (format!(" AND id < {}", last.id), 0),
            None => (String::new(), (filter.page - 1).saturating_mul(filter.limit)),
        };
        let sql = format!(
            "SELECT {} FROM log WHERE {conditions}{after} ORDER BY id DESC LIMIT {rows} OFFSET {offset}",
            log_columns(),
        );
        let before = page.rows.len();
        for row in conn.exec_iter(sql, params())? {
            if !page.push(read(&row?), &mut bytes) {
                break;
            }
        }
        let found = page.rows.len() - before;
        wanted = if found < rows { 0 } else { wanted - found };
        batch = (PAGE_BYTES_MAX.saturating_sub(bytes) / (bytes / page.rows.len().max(1)).max(1)).max(BATCH_ROWS);
    }
    Ok(page)
}

pub fn find(conn: &mut Conn, run: RunKey, attempt: Option<u32>) -> Outcome<Option<StoredLog>> {
    let sql = format!(
        "SELECT {} FROM log WHERE run_key = ? AND attempt = IFNULL(?, attempt) ORDER BY attempt DESC LIMIT 1",
        log_columns()
    );
    let row: Option<Row> = conn.exec_first(sql, (run.to_string(), attempt))?;
    Ok(row.as_ref().map(read))
}

/// The newest log row of each of these jobs. The answer is empty while the key (cron_id, id) of a large log is still
/// being built: without it the server would have to read the whole log.
pub fn last_runs(conn: &mut Conn, ids: &[JobId]) -> Outcome<BTreeMap<JobId, LastRun>> {
    let mut last_runs = BTreeMap::new();
    for chunk in ids.chunks(LOOKUP_MAX) {
        let ids: Vec<String> = chunk.iter().map(|id| id.0.to_string()).collect();
        let newest = "SELECT id FROM log FORCE INDEX (cron_id_id) WHERE cron_id = cron.id ORDER BY id DESC LIMIT 1";
        let sql = format!(
            "SELECT log.cron_id, log.state, log.time, log.use_time FROM cron JOIN log ON log.id = ({newest}) WHERE cron.id IN ({})",
            ids.join(",")
        );
        match conn.query_map(sql, last_run) {
            Ok(rows) => last_runs.extend(rows),
            Err(mysql::Error::MySqlError(error)) if error.code == NO_SUCH_KEY => return Ok(BTreeMap::new()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(last_runs)
}

/// The states of all attempts of these runs that have a row.
pub fn logged(conn: &mut Conn, runs: &BTreeSet<RunKey>) -> Outcome<BTreeMap<Attempt, RunState>> {
    let mut logged = BTreeMap::new();
    // Run keys need no quoting: they consist of digits, dashes, dots and the letter m.
    let keys: Vec<String> = runs.iter().map(|run| format!("'{run}'")).collect();
    for chunk in keys.chunks(LOOKUP_MAX) {
        let sql = format!("SELECT run_key, attempt, state FROM log WHERE run_key IN ({})", chunk.join(","));
        let rows = conn.query::<(String, u32, String), _>(sql)?;
        logged.extend(rows.iter().filter_map(|(run_key, number, state)| row_state(run_key, *number, state)));
    }
    Ok(logged)
}

/// Logs an error where the rows have times that their column cannot hold.
fn tell_cut_times(conn: &mut Conn, rows: &[LogRow]) -> Outcome<()> {
    let is_late = rows.iter().any(|row| INT_MAX < row.dispatch_time.0);
    if let Some(statement) = if is_late { schema::widening(conn, "log")? } else { None } {
        log::error!(
            "log rows lose their dispatch_time: the column ends at {INT_MAX} (2038-01-19); widen it: {statement}"
        );
    }
    Ok(())
}

/// Does by hand what the unique key does, while that key of a large log is still being built. True where the log has
/// the row and must keep it; a stored row that the new one replaces is deleted. Only recent rows are ever written
/// again, so it looks at the newest ids only.
fn must_not_replace(conn: &mut Conn, row: &LogRow) -> Outcome<bool> {
    let sql = "SELECT id, state = 'lost', start_time = 0 FROM log WHERE id > (SELECT MAX(id) FROM log) - 100000 AND run_key = ? AND attempt = ? LIMIT 1";
    let found: Option<(i64, Option<bool>, Option<bool>)> =
        conn.exec_first(sql, (row.attempt.run.to_string(), row.attempt.number))?;
    let Some((id, is_lost, is_unstarted)) = found else { return Ok(false) };
    let knows_more = is_lost == Some(true) || is_unstarted == Some(true) && row.start_time_ms != 0;
    if knows_more && row.state != RunState::Lost {
        conn.exec_drop("DELETE FROM log WHERE id = ?", (id,))?;
        return Ok(false);
    }
    Ok(true)
}

/// The values of one row, in brackets, as an INSERT has them.
fn insert_values(row: &LogRow, log: &LogTable, output_bytes_max: usize) -> String {
    let output = log.storable(&row.output, output_bytes_max);
    let values = written_log_columns().zip(log_values(row));
    let stored =
        values.map(|(name, value)| if name == "output" { Value::Text(Cow::Borrowed(&*output)) } else { value });
    format!("({})", list(stored.map(|value| sql_value(value).as_sql(false))))
}

fn insert(conn: &mut Conn, rows: &[String]) -> Outcome<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let knows_more = "VALUES(state) <> 'lost' AND (state = 'lost' OR start_time = 0 AND VALUES(start_time) <> 0)";
    let set = |column| format!("{column} = IF({knows_more}, VALUES({column}), {column})");
    let (columns, sets) = (list(written_log_columns()), list(changed_log_columns().map(set)));
    let rows = rows.join(",");
    Ok(conn.query_drop(format!("INSERT INTO log ({columns}) VALUES {rows} ON DUPLICATE KEY UPDATE {sets}"))?)
}

fn last_run(row: Row) -> (JobId, LastRun) {
    let number = |name: &str| cell(&row, name).unwrap_or(0);
    let last_run = LastRun { state: cell(&row, "state").ok(), time: number("time"), use_time_ms: number("use_time") };
    (JobId(number("cron_id") as u32), last_run)
}

fn read(row: &Row) -> StoredLog {
    let Ok(log) = stored_log(row);
    log
}
