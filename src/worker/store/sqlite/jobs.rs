//! The embedded store's rows of `cron`: how a job is written and read, and what has changed since a copy was made.
//!
//! Invariant: one list of columns, in whose order parameters are given and rows are read.

use super::journal::newest_entry;
use super::{Failure, Transaction};
use crate::core::ports::{Differences, Since};
use crate::model::journal::EntryId;
use crate::model::{Job, JobId, Misfire, OnLost, Second, Version};
use crate::worker::store::{DIFFERENCES_MAX, NOTED, noted};
use rusqlite::Row;
use rusqlite::types::Value;

/// Of `cron`, without its id, in the order of `job_params`.
pub(super) const JOB_COLUMNS: [&str; 22] = [
    "cron_set",
    "start_time",
    "end_time",
    "command",
    "is_mutex",
    "stop",
    "remark",
    "lock_limit",
    "misfire",
    "on_lost",
    "max_parallel",
    "timeout",
    "retry_times",
    "retry_delay",
    "run_as",
    "work_dir",
    "env",
    "shell",
    "node",
    "jitter",
    "version",
    "since",
];
/// Rows written by hand may have any id.
pub(super) const JOB_IDS: &str = "id BETWEEN 1 AND 2147483647";

pub(super) fn job_params(job: &Job) -> Vec<Value> {
    vec![
        job.cron_set.clone().into(),
        job.start_time.into(),
        job.end_time.into(),
        job.command.clone().into(),
        job.is_mutex.into(),
        job.stop.into(),
        job.remark.clone().into(),
        job.lock_limit.into(),
        job.misfire.as_str().to_string().into(),
        job.on_lost.as_str().to_string().into(),
        job.max_parallel.into(),
        job.timeout.into(),
        job.retry_times.into(),
        job.retry_delay.into(),
        job.run_as.clone().into(),
        job.work_dir.clone().into(),
        job.env.clone().into(),
        job.shell.clone().into(),
        job.node.clone().into(),
        job.jitter.into(),
        (job.version.0 as i64).into(),
        job.since.0.into(),
    ]
}

pub(super) fn differences(transaction: &Transaction, since: &Since) -> Result<Option<Differences>, Failure> {
    let as_of = newest_entry(transaction)?;
    // Without the entry that the copy is as new as, later ones may be missing too.
    let is_there = "SELECT 1 FROM journal WHERE id = ?";
    if since.as_of != EntryId(0) && !transaction.prepare_cached(is_there)?.exists([since.as_of.0])? {
        return Ok(None);
    }
    let sql =
        format!("SELECT id, body FROM journal WHERE id > ? AND {NOTED} ORDER BY id LIMIT {}", DIFFERENCES_MAX + 1);
    let columns = |row: &Row| Ok((row.get(0)?, row.get(1)?));
    let entries = transaction.prepare(&sql)?.query_map([since.as_of.0], columns)?.collect::<Result<Vec<_>, _>>()?;
    let Some(noted) = noted(&entries, since)? else { return Ok(None) };
    let ids: Vec<String> = noted.jobs.iter().map(JobId::to_string).collect();
    let rows = jobs(transaction, &format!("id IN ({})", ids.join(",")))?;
    let new = format!("id > {} ORDER BY id LIMIT {}", since.newest, DIFFERENCES_MAX + 1);
    Ok(crate::worker::store::differences(as_of, &noted, rows, jobs(transaction, &new)?))
}

/// Those that fulfil the condition.
pub(super) fn jobs(transaction: &Transaction, which: &str) -> Result<Vec<Job>, Failure> {
    let columns = JOB_COLUMNS.join(", ");
    let sql = format!("SELECT {columns}, id FROM cron WHERE {JOB_IDS} AND {which}");
    Ok(transaction.prepare(&sql)?.query_map([], job)?.collect::<Result<_, _>>()?)
}

/// Rows written by hand may hold any number.
pub(super) fn job(row: &Row) -> rusqlite::Result<Job> {
    let number = |at: usize| row.get::<_, i64>(at);
    let count = |at: usize| Ok::<_, rusqlite::Error>(number(at)?.clamp(0, i64::from(u32::MAX)) as u32);
    let text = |at: usize| row.get::<_, String>(at);
    Ok(Job {
        cron_set: text(0)?,
        start_time: number(1)?.max(0),
        end_time: number(2)?.max(0),
        command: text(3)?,
        is_mutex: number(4)? != 0,
        stop: number(5)? != 0,
        remark: text(6)?,
        lock_limit: count(7)?,
        misfire: Misfire::parse(&text(8)?).unwrap_or_default(),
        on_lost: OnLost::parse(&text(9)?).unwrap_or_default(),
        max_parallel: count(10)?,
        timeout: count(11)?,
        retry_times: count(12)?,
        retry_delay: count(13)?,
        run_as: text(14)?,
        work_dir: text(15)?,
        env: text(16)?,
        shell: text(17)?,
        node: text(18)?,
        jitter: count(19)?,
        version: Version(number(20)?.max(1) as u64),
        since: Second(number(21)?),
        id: JobId(row.get(22)?),
    })
}
