//! Table `cron` in MySQL.
//!
//! Invariant: a statement that changes a row names the leader's epoch and the row's version, and changes nothing where
//! one of them is another.

use super::journal::{check_epoch, is_epoch, last_noted, newest_entry};
use super::outcome::{DUPLICATE_KEY, INT_MAX, Outcome, sql_value};
use super::schema::{self, Charset};
use crate::core::io::ports::{Differences, JobBatch, Since, StoreError};
use crate::model::columns::{COLUMNS, Column};
use crate::model::command::RequestKey;
use crate::model::job::{JobFilter, JobPage};
use crate::model::journal::EntryId;
use crate::model::value::{Cell, Value};
use crate::model::{Epoch, Job, JobId, Version};
use crate::worker::store::rows::{self, SEARCHED, job_columns, job_values, list, written_job_columns};
use crate::worker::store::{self, DIFFERENCES_MAX, NOTED, edited_by_hand, noted};
use mysql::prelude::Queryable;
use mysql::{Conn, Params};
use std::collections::BTreeMap;

/// The condition of an id that a job can have: rows written by hand may have others.
const JOB_IDS: &str = "id > 0";
/// An entry gets its id before it is committed, so it may become visible after an entry with a larger id. Therefore the
/// last so many ids that were read before are read again.
const OVERLAP: i64 = 100;

/// All jobs, by id.
pub fn all(conn: &mut Conn) -> Outcome<Vec<Job>> {
    jobs(conn, "TRUE ORDER BY id", Params::Empty)
}

/// The first `limit` jobs with ids larger than `after`.
pub fn batch(conn: &mut Conn, after: JobId, limit: usize) -> Outcome<JobBatch> {
    let as_of = newest_entry(conn)?;
    let last = if after == JobId(0) { last_noted(conn)? } else { None };
    let jobs = jobs(conn, &format!("id > {after} ORDER BY id LIMIT {limit}"), Params::Empty)?;
    Ok(JobBatch { as_of, last, jobs })
}

/// The changes that a replica lacks; none where it must be read anew.
pub fn differences(conn: &mut Conn, since: &Since) -> Outcome<Option<Differences>> {
    let as_of = newest_entry(conn)?;
    // Where housekeeping has deleted the entry that the replica read last, it may have deleted later ones too.
    let is_there: Option<u8> = conn.exec_first("SELECT 1 FROM journal WHERE id = ?", (since.as_of.0,))?;
    if since.as_of != EntryId(0) && is_there.is_none() {
        return Ok(None);
    }
    let limit = DIFFERENCES_MAX + 1;
    let sql = format!("SELECT id, body FROM journal WHERE id > ? AND {NOTED} ORDER BY id LIMIT {limit}");
    let entries: Vec<(i64, String)> = conn.exec(sql, (since.as_of.0.saturating_sub(OVERLAP),))?;
    // The rows are read after the notes. A note is written before its row, so only the last note's row may be missing
    // still: the replica reads that one again.
    let Some(noted) = noted(&entries, since)? else { return Ok(None) };
    let ids = list(noted.jobs.iter().map(JobId::to_string));
    let rows = if ids.is_empty() { Vec::new() } else { jobs(conn, &format!("id IN ({ids})"), Params::Empty)? };
    let new = jobs(conn, &format!("id > {} ORDER BY id LIMIT {limit}", since.newest), Params::Empty)?;
    Ok(store::differences(as_of, &noted, rows, new))
}

/// A page of the jobs that the filter lets through, by id.
pub fn find(conn: &mut Conn, filter: &JobFilter) -> Outcome<JobPage> {
    let has = |column| format!("LOCATE(?, {column}) > 0");
    let (condition, values) = match &filter.search {
        None => ("TRUE".into(), Params::Empty),
        Some(text) => {
            let texts = SEARCHED.map(|_| mysql::Value::from(text));
            let values = texts.into_iter().chain([filter.id().into()]).collect();
            (format!("({} OR id = ?)", SEARCHED.map(has).join(" OR ")), Params::Positional(values))
        }
    };
    let count = format!("SELECT COUNT(*) FROM cron WHERE {JOB_IDS} AND {condition}");
    let total = conn.exec_first(count, values.clone())?;
    let (limit, offset) = (filter.limit, filter.offset());
    let jobs = jobs(conn, &format!("{condition} ORDER BY id LIMIT {limit} OFFSET {offset}"), values)?;
    Ok(JobPage { jobs, total: Some(total.unwrap_or(0)) })
}

/// Inserts the job, or finds the one that an earlier call with this key inserted.
pub fn add(conn: &mut Conn, epoch: Epoch, job: &Job, RequestKey(key): &RequestKey) -> Outcome<JobId> {
    let columns = list(written_job_columns().map(|column| column.name()).chain(["request_key"]));
    let placeholders = list(written_job_columns().map(|_| "?").chain(["?"]));
    let values = job_values(job).chain([key.as_str().into(), epoch.0.value()]).map(sql_value).collect();
    let sql = format!("INSERT INTO cron ({columns}) SELECT {placeholders} FROM scheduler WHERE id = 1 AND epoch = ?");
    match conn.exec_drop(sql, Params::Positional(values)) {
        Ok(()) if conn.affected_rows() == 0 => Err(StoreError::Deposed.into()),
        Ok(()) => Ok(JobId(conn.last_insert_id() as u32)),
        // The client asked twice, or we did because an answer was lost: the first call counts.
        Err(mysql::Error::MySqlError(error)) if error.code == DUPLICATE_KEY => {
            let id: Option<u32> = conn.exec_first("SELECT id FROM cron WHERE request_key = ?", (key,))?;
            id.map(JobId).ok_or_else(|| mysql::Error::MySqlError(error).into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Replaces the job's previous version. It may be called again where the answer was lost.
pub fn put(conn: &mut Conn, epoch: Epoch, job: &Job) -> Outcome<JobId> {
    let sets = list(written_job_columns().map(|column| format!("{} = ?", column.name())));
    let values = job_values(job).chain([job.id.value(), Value::Number(job.version.0 as i64 - 1)]);
    let sql = format!("UPDATE cron SET {sets} WHERE id = ? AND version = ? AND {}", is_epoch(epoch));
    conn.exec_drop(sql, Params::Positional(values.map(sql_value).collect()))?;
    if conn.affected_rows() == 1 {
        return Ok(job.id);
    }
    check_epoch(conn, epoch)?;
    let version: Option<u64> = conn.exec_first("SELECT version FROM cron WHERE id = ?", (job.id.0,))?;
    // Where the row has the new version already, an earlier call wrote it and its answer was lost.
    if version == Some(job.version.0) { Ok(job.id) } else { Err(edited_by_hand(job.id).into()) }
}

/// Deletes this version of the job. It is no error where the job is gone already.
pub fn delete(conn: &mut Conn, epoch: Epoch, id: JobId, version: Version) -> Outcome<JobId> {
    let sql = format!("DELETE FROM cron WHERE id = ? AND version = ? AND {}", is_epoch(epoch));
    conn.exec_drop(sql, (id.0, version.0))?;
    if conn.affected_rows() == 1 {
        return Ok(id);
    }
    check_epoch(conn, epoch)?;
    let is_there: Option<u8> = conn.exec_first("SELECT 1 FROM cron WHERE id = ?", (id.0,))?;
    if is_there.is_none() { Ok(id) } else { Err(edited_by_hand(id).into()) }
}

/// An error where the columns cannot hold every time and every character of the job. To be called before anything is
/// written.
pub fn check_storable(conn: &mut Conn, job: &Job) -> Outcome<()> {
    check_times(conn, job)?;
    check_texts(conn, job)
}

fn check_times(conn: &mut Conn, job: &Job) -> Outcome<()> {
    let is_late = |column: &&Column| matches!(column.value(job), Value::Number(time) if INT_MAX < time);
    let mut times = COLUMNS.iter().filter(|column| schema::may_be_narrow("cron", column.name()));
    let Some(column) = times.find(is_late) else { return Ok(()) };
    match schema::widening(conn, "cron")? {
        None => Ok(()),
        Some(statement) => Err(StoreError::Permanent(format!(
            "{}: {} is beyond {INT_MAX} (2038-01-19), where table cron's times end in this database; widen them: {statement}",
            column.parameter(),
            sql_value(column.value(job)).as_sql(true)
        ))
        .into()),
    }
}

fn check_texts(conn: &mut Conn, job: &Job) -> Outcome<()> {
    let texts = COLUMNS.iter().filter_map(|column| match column.value(job) {
        Value::Text(text) if !text.is_ascii() => Some((column, text)),
        _ => None,
    });
    let mut texts = texts.peekable();
    if texts.peek().is_none() {
        return Ok(());
    }
    let sql = "SELECT column_name, character_set_name FROM information_schema.columns
               WHERE table_schema = DATABASE() AND table_name = 'cron' AND character_set_name IS NOT NULL";
    let charsets: BTreeMap<String, String> = conn.query::<(String, String), _>(sql)?.into_iter().collect();
    for (column, text) in texts {
        let charset = charsets.get(column.name()).map(String::as_str).unwrap_or_default();
        if let Some(character) = text.chars().find(|character| !Charset::of(charset).holds(*character)) {
            return Err(StoreError::Permanent(format!(
                "{}: {character:?} is not in {charset}, the charset of column {}; \
                 widen it: ALTER TABLE cron CONVERT TO CHARACTER SET utf8mb4",
                column.parameter(),
                column.name()
            ))
            .into());
        }
    }
    Ok(())
}

/// The jobs that fulfil this condition.
fn jobs(conn: &mut Conn, which: &str, values: Params) -> Outcome<Vec<Job>> {
    let sql = format!("SELECT {} FROM cron WHERE {JOB_IDS} AND {which}", job_columns());
    let job = |row: mysql::Row| {
        let Ok(job) = rows::job(&row);
        job
    };
    Ok(if matches!(values, Params::Empty) { conn.query_map(sql, job)? } else { conn.exec_map(sql, values, job)? })
}
