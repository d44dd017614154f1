//! Table `cron` in SQLite.
//!
//! Invariant: a statement that changes a row names the row's version, and changes nothing where it is another. `lead`
//! has checked the epoch in the same transaction.

use super::journal::newest_entry;
use super::outcome::{Outcome, Sql, only};
use crate::core::io::ports::{Differences, JobBatch, Since};
use crate::model::command::RequestKey;
use crate::model::job::{JobFilter, JobPage};
use crate::model::journal::EntryId;
use crate::model::value::{Cell, Value};
use crate::model::{Job, JobId, Version};
use crate::worker::store::rows::{self, SEARCHED, job_columns, job_values, list, written_job_columns};
use crate::worker::store::{self, DIFFERENCES_MAX, NOTED, edited_by_hand, noted};
use rusqlite::{OptionalExtension, Params, Row, Transaction, params, params_from_iter};

/// The condition of an id that a job can have: rows written by hand may have others.
const JOB_IDS: &str = "id BETWEEN 1 AND 2147483647";

/// All jobs, by id.
pub fn all(transaction: &Transaction) -> Outcome<Vec<Job>> {
    jobs(transaction, "1 ORDER BY id", [])
}

/// The first `limit` jobs with ids larger than `after`.
pub fn batch(transaction: &Transaction, after: JobId, limit: usize) -> Outcome<JobBatch> {
    let as_of = newest_entry(transaction)?;
    let jobs = jobs(transaction, "id > ? ORDER BY id LIMIT ?", params![after.0, limit])?;
    // A note and its row are written in one transaction, so no row is missing still.
    Ok(JobBatch { as_of, last: None, jobs })
}

/// The changes that a replica lacks; none where it must be read anew.
pub fn differences(transaction: &Transaction, since: &Since) -> Outcome<Option<Differences>> {
    let as_of = newest_entry(transaction)?;
    // Where housekeeping has deleted the entry that the replica read last, it may have deleted later ones too.
    let is_there = "SELECT 1 FROM journal WHERE id = ?";
    if since.as_of != EntryId(0) && !transaction.prepare_cached(is_there)?.exists([since.as_of.0])? {
        return Ok(None);
    }
    let limit = DIFFERENCES_MAX + 1;
    let sql = format!("SELECT id, body FROM journal WHERE id > ? AND {NOTED} ORDER BY id LIMIT {limit}");
    let entry = |row: &Row| Ok((row.get("id")?, row.get("body")?));
    let entries = transaction.prepare(&sql)?.query_map([since.as_of.0], entry)?.collect::<Result<Vec<_>, _>>()?;
    let Some(noted) = noted(&entries, since)? else { return Ok(None) };
    let ids = list(noted.jobs.iter().map(JobId::to_string));
    let rows = jobs(transaction, &format!("id IN ({ids})"), [])?;
    let new = jobs(transaction, "id > ? ORDER BY id LIMIT ?", params![since.newest.0, limit])?;
    Ok(store::differences(as_of, &noted, rows, new))
}

/// A page of the jobs that the filter lets through, by id.
pub fn find(transaction: &Transaction, filter: &JobFilter) -> Outcome<JobPage> {
    let has = |column| format!("instr(lower({column}), lower(?1)) > 0");
    let (condition, values) = match &filter.search {
        None => ("1".into(), vec![]),
        Some(text) => {
            let values: Vec<rusqlite::types::Value> = vec![text.clone().into(), filter.id().into()];
            (format!("({} OR id = ?2)", SEARCHED.map(has).join(" OR ")), values)
        }
    };
    let count = format!("SELECT count(*) FROM cron WHERE {JOB_IDS} AND {condition}");
    let total = transaction.query_row(&count, params_from_iter(&values), only)?;
    let (limit, offset) = (filter.limit, filter.offset().min(i64::MAX as u64));
    let which = format!("{condition} ORDER BY id LIMIT {limit} OFFSET {offset}");
    Ok(JobPage { jobs: jobs(transaction, &which, params_from_iter(&values))?, total: Some(total) })
}

/// Inserts the job, or finds the one that an earlier call with this key inserted.
pub fn add(transaction: &Transaction, job: &Job, RequestKey(key): &RequestKey) -> Outcome<JobId> {
    let known = "SELECT id FROM cron WHERE request_key = ?";
    if let Some(id) = transaction.query_row(known, [key], only).optional()? {
        return Ok(JobId(id));
    }
    let columns = list(written_job_columns().map(|column| column.name()).chain(["request_key"]));
    let placeholders = list(written_job_columns().map(|_| "?").chain(["?"]));
    let values = job_values(job).chain([key.as_str().into()]).map(Sql);
    let insert = format!("INSERT INTO cron ({columns}) VALUES ({placeholders})");
    transaction.execute(&insert, params_from_iter(values))?;
    Ok(JobId(transaction.last_insert_rowid() as u32))
}

/// Replaces the job's previous version.
pub fn put(transaction: &Transaction, job: &Job) -> Outcome<JobId> {
    let sets = list(written_job_columns().map(|column| format!("{} = ?", column.name())));
    let values = job_values(job).chain([job.id.value(), Value::Number(job.version.0 as i64 - 1)]).map(Sql);
    let update = format!("UPDATE cron SET {sets} WHERE id = ? AND version = ?");
    match transaction.execute(&update, params_from_iter(values))? {
        1 => Ok(job.id),
        _ => Err(edited_by_hand(job.id).into()),
    }
}

/// Deletes this version of the job.
pub fn delete(transaction: &Transaction, id: JobId, version: Version) -> Outcome<JobId> {
    match transaction.execute("DELETE FROM cron WHERE id = ? AND version = ?", params![id.0, version.0])? {
        1 => Ok(id),
        _ => Err(edited_by_hand(id).into()),
    }
}

/// The jobs that fulfil this condition.
fn jobs(transaction: &Transaction, which: &str, values: impl Params) -> Outcome<Vec<Job>> {
    let sql = format!("SELECT {} FROM cron WHERE {JOB_IDS} AND {which}", job_columns());
    let mut statement = transaction.prepare(&sql)?;
    Ok(statement.query_map(values, |row| rows::job(row))?.collect::<Result<_, _>>()?)
}
