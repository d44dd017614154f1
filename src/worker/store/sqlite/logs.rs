//! Table `log` in SQLite.
//!
//! Invariant: a definite state replaces `lost`; only the row of a run that was started replaces a definite state, and
//! only one by which the run was not started.

use super::outcome::{Outcome, Sql, only};
use crate::model::log_row::{LastRun, LogFilter, LogPage, StoredLog};
use crate::model::{Attempt, JobId, LogRow, RunKey, RunState, Second};
use crate::worker::store::rows::{changed_log_columns, list, log_columns, log_values, stored_log, written_log_columns};
use crate::worker::store::{DELETE_ROWS_MAX, row_state};
use rusqlite::{OptionalExtension, Row, ToSql, Transaction, params, params_from_iter};
use std::collections::{BTreeMap, BTreeSet};

pub fn write(transaction: &Transaction, rows: &[LogRow]) -> Outcome<()> {
    let mut upsert = transaction.prepare_cached(&upsert())?;
    for row in rows {
        upsert.execute(params_from_iter(log_values(row).map(Sql)))?;
    }
    Ok(())
}

/// Deletes some of the rows of runs before this second. Answers whether more may be left.
pub fn retain(transaction: &Transaction, before: Second) -> Outcome<bool> {
    let sql = "DELETE FROM log WHERE id IN (SELECT id FROM log WHERE time < ? LIMIT ?)";
    Ok(transaction.execute(sql, params![before.0, DELETE_ROWS_MAX])? == DELETE_ROWS_MAX as usize)
}

pub fn page(transaction: &Transaction, filter: &LogFilter) -> Outcome<LogPage> {
    let cron_id = filter.cron_id.map(|id| id.0);
    let wanted: [(&str, Option<&dyn ToSql>); 4] = [
        ("cron_id = ?", cron_id.as_ref().map(|id| id as _)),
        ("instr(lower(output), lower(?)) > 0", filter.search.as_ref().map(|text| text as _)),
        ("dispatch_server = ?", filter.dispatch_server.as_ref().map(|server| server as _)),
        ("run_server = ?", filter.run_server.as_ref().map(|server| server as _)),
    ];
    let wanted = wanted.into_iter().filter_map(|(condition, value)| Some((condition, value?)));
    let (conditions, mut values): (Vec<&str>, Vec<&dyn ToSql>) = wanted.unzip();
    let conditions = [vec!["1"], conditions].concat().join(" AND ");
    let count = format!("SELECT count(*) FROM log WHERE {conditions}");
    let total = transaction.query_row(&count, values.as_slice(), only)?;
    let offset = (filter.page - 1).saturating_mul(filter.limit).min(i64::MAX as u64) as i64;
    values.extend([&filter.limit as &dyn ToSql, &offset]);
    let columns = log_columns();
    let sql = format!("SELECT {columns} FROM log WHERE {conditions} ORDER BY id DESC LIMIT ? OFFSET ?");
    let mut statement = transaction.prepare(&sql)?;
    let (mut page, mut bytes) = (LogPage { total, ..LogPage::default() }, 0);
    let mut rows = statement.query(values.as_slice())?;
    while let Some(row) = rows.next()? {
        if !page.push(stored_log(row)?, &mut bytes) {
            break;
        }
    }
    Ok(page)
}

pub fn find(transaction: &Transaction, run: RunKey, attempt: Option<u32>) -> Outcome<Option<StoredLog>> {
    let sql = format!(
        "SELECT {} FROM log WHERE run_key = ?1 AND attempt = ifnull(?2, attempt) ORDER BY attempt DESC LIMIT 1",
        log_columns()
    );
    Ok(transaction.query_row(&sql, params![run.to_string(), attempt], |row| stored_log(row)).optional()?)
}

pub fn last_runs(transaction: &Transaction, ids: &[JobId]) -> Outcome<BTreeMap<JobId, LastRun>> {
    let newest = "SELECT state, time, use_time FROM log WHERE cron_id = ? ORDER BY id DESC LIMIT 1";
    let mut newest = transaction.prepare_cached(newest)?;
    let last_run =
        |row: &Row| Ok(LastRun { state: row.get("state")?, time: row.get("time")?, use_time_ms: row.get("use_time")? });
    let mut last_runs = BTreeMap::new();
    for id in ids {
        if let Some(last_run) = newest.query_row([id.0], last_run).optional()? {
            last_runs.insert(*id, last_run);
        }
    }
    Ok(last_runs)
}

/// The states of all attempts of these runs that have a row.
pub fn logged(transaction: &Transaction, runs: &BTreeSet<RunKey>) -> Outcome<BTreeMap<Attempt, RunState>> {
    let mut find = transaction.prepare_cached("SELECT attempt, state FROM log WHERE run_key = ?")?;
    let mut logged = BTreeMap::new();
    for run in runs {
        let key = run.to_string();
        let mut rows = find.query([&key])?;
        while let Some(row) = rows.next()? {
            logged.extend(row_state(&key, row.get("attempt")?, &row.get::<_, String>("state")?));
        }
    }
    Ok(logged)
}

fn upsert() -> String {
    let (columns, placeholders) = (list(written_log_columns()), list(written_log_columns().map(|_| "?")));
    let sets = list(changed_log_columns().map(|column| format!("{column} = excluded.{column}")));
    format!(
        "INSERT INTO log ({columns}) VALUES ({placeholders}) ON CONFLICT (run_key, attempt) DO UPDATE SET {sets}
         WHERE excluded.state <> 'lost' AND (log.state = 'lost' OR log.start_time = 0 AND excluded.start_time <> 0)"
    )
}
