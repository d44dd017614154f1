//! Table `cron` in MySQL.
//!
//! Invariant: whatever changes a row names the epoch, and the version that the row has.

use super::schema::{self, Charset};
use super::{DUPLICATE_KEY, INT_MAX, Outcome, check_epoch, is_epoch};
use crate::core::ports::{Differences, Since, StoreError};
use crate::model::command::RequestKey;
use crate::model::job::{JobFilter, JobPage};
use crate::model::journal::EntryId;
use crate::model::{Epoch, Job, JobId, Misfire, OnLost, Second, Version};
use crate::worker::store::{self, DIFFERENCES_MAX, NOTED, edited_by_hand, noted};
use mysql::prelude::Queryable;
use mysql::{Conn, Params, Row, Value};
use std::collections::BTreeMap;

const JOB_COLUMNS: &str = "cron_set, start_time, end_time, command, is_mutex, stop, remark, lock_limit, misfire, on_lost, max_parallel, \
                           timeout, retry_times, retry_delay, run_as, work_dir, env, shell, node, jitter, version, since";

pub fn job_values(job: &Job) -> Vec<Value> {
    vec![
        (&job.cron_set).into(),
        job.start_time.into(),
        job.end_time.into(),
        (&job.command).into(),
        job.is_mutex.into(),
        job.stop.into(),
        (&job.remark).into(),
        job.lock_limit.into(),
        job.misfire.as_str().into(),
        job.on_lost.as_str().into(),
        job.max_parallel.into(),
        job.timeout.into(),
        job.retry_times.into(),
        job.retry_delay.into(),
        (&job.run_as).into(),
        (&job.work_dir).into(),
        (&job.env).into(),
        (&job.shell).into(),
        (&job.node).into(),
        job.jitter.into(),
        job.version.0.into(),
        job.since.0.into(),
    ]
}

/// Before anything is written: whether the columns have a place for every time and every character.
pub fn check_storable(conn: &mut Conn, job: &Job) -> Outcome<()> {
    check_times(conn, job)?;
    check_texts(conn, job)
}

fn check_times(conn: &mut Conn, job: &Job) -> Outcome<()> {
    let times = [("start_time", job.start_time), ("end_time", job.end_time)];
    let Some((name, time)) = times.into_iter().find(|(_, time)| INT_MAX < *time) else { return Ok(()) };
    match schema::widening(conn, "cron")? {
        None => Ok(()),
        Some(statement) => Err(StoreError::Permanent(format!(
            "{name}: {time} is beyond {INT_MAX} (2038-01-19), where table cron's times end in this database; {statement} mends that"
        ))
        .into()),
    }
}

fn check_texts(conn: &mut Conn, job: &Job) -> Outcome<()> {
    let texts = [
        ("cron_set", "cronSet", &job.cron_set),
        ("command", "command", &job.command),
        ("remark", "remark", &job.remark),
        ("run_as", "run_as", &job.run_as),
        ("work_dir", "work_dir", &job.work_dir),
        ("env", "env", &job.env),
        ("shell", "shell", &job.shell),
        ("node", "node", &job.node),
    ];
    if texts.iter().all(|(_, _, text)| text.is_ascii()) {
        return Ok(());
    }
    let sql = "SELECT column_name, character_set_name FROM information_schema.columns
               WHERE table_schema = DATABASE() AND table_name = 'cron' AND character_set_name IS NOT NULL";
    let charsets: BTreeMap<String, String> = conn.query::<(String, String), _>(sql)?.into_iter().collect();
    for (column, parameter, text) in texts {
        let charset = charsets.get(column).map(String::as_str).unwrap_or_default();
        if let Some(character) = text.chars().find(|character| !Charset::of(charset).holds(*character)) {
            return Err(StoreError::Permanent(format!(
                "{parameter}: {character:?} has no place in the charset of column {column}, {charset}; \
                 ALTER TABLE cron CONVERT TO CHARACTER SET utf8mb4 mends that"
            ))
            .into());
        }
    }
    Ok(())
}

pub fn add(conn: &mut Conn, epoch: Epoch, job: &Job, RequestKey(key): &RequestKey) -> Outcome<JobId> {
    let mut values = job_values(job);
    values.extend([key.into(), epoch.0.into()]);
    let places = JOB_COLUMNS.split(", ").map(|_| "?").collect::<Vec<_>>().join(", ");
    let sql = format!(
        "INSERT INTO cron ({JOB_COLUMNS}, request_key) SELECT {places}, ? FROM scheduler WHERE id = 1 AND epoch = ?"
    );
    match conn.exec_drop(sql, values) {
        Ok(()) if conn.affected_rows() == 0 => Err(StoreError::Deposed.into()),
        Ok(()) => Ok(JobId(conn.last_insert_id() as u32)),
        // Asked again by the client, or by us after an answer that was lost: the first one counts.
        Err(mysql::Error::MySqlError(error)) if error.code == DUPLICATE_KEY => {
            let id: Option<u32> = conn.exec_first("SELECT id FROM cron WHERE request_key = ?", (key,))?;
            id.map(JobId).ok_or_else(|| mysql::Error::MySqlError(error).into())
        }
        Err(error) => Err(error.into()),
    }
}

pub fn put(conn: &mut Conn, epoch: Epoch, job: &Job) -> Outcome<JobId> {
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

/// Those that fulfil the condition. Rows written by hand may hold anything that their columns take.
pub fn jobs(conn: &mut Conn, which: &str) -> Outcome<Vec<Job>> {
    let sql = format!("SELECT {JOB_COLUMNS}, id FROM cron WHERE id > 0 AND {which}");
    Ok(conn.query_map(sql, job)?)
}

pub fn find(conn: &mut Conn, filter: &JobFilter) -> Outcome<JobPage> {
    let (conditions, params) = match &filter.search {
        None => ("id > 0", Params::Empty),
        Some(text) => (
            "id > 0 AND (LOCATE(?, cron_set) > 0 OR LOCATE(?, command) > 0 OR LOCATE(?, remark) > 0 OR id = ?)",
            Params::from((text, text, text, filter.id())),
        ),
    };
    let total = conn.exec_first(format!("SELECT COUNT(*) FROM cron WHERE {conditions}"), params.clone())?;
    let sql = format!(
        "SELECT {JOB_COLUMNS}, id FROM cron WHERE {conditions} ORDER BY id LIMIT {} OFFSET {}",
        filter.limit,
        filter.offset()
    );
    Ok(JobPage { jobs: conn.exec_map(sql, params, job)?, total: Some(total.unwrap_or(0)) })
}

/// The ids of entries are given before they are committed: one that took its time may come in behind a later one, so
/// so many are looked through once more.
const OVERLAP: i64 = 100;

pub fn differences(conn: &mut Conn, since: &Since) -> Outcome<Option<Differences>> {
    let as_of = newest_entry(conn)?;
    // Without the entry that the copy is as new as, later ones may be missing too.
    let is_there: Option<u8> = conn.exec_first("SELECT 1 FROM journal WHERE id = ?", (since.as_of.0,))?;
    if since.as_of != EntryId(0) && is_there.is_none() {
        return Ok(None);
    }
    let limit = DIFFERENCES_MAX + 1;
    let sql = format!("SELECT id, body FROM journal WHERE id > ? AND {NOTED} ORDER BY id LIMIT {limit}");
    let entries: Vec<(i64, String)> = conn.exec(sql, (since.as_of.0.saturating_sub(OVERLAP),))?;
    // The rows after the notes: what is noted is there, or was the last and is read again the next time.
    let Some(noted) = noted(&entries, since)? else { return Ok(None) };
    let ids: Vec<String> = noted.jobs.iter().map(JobId::to_string).collect();
    let rows = if ids.is_empty() { Vec::new() } else { jobs(conn, &format!("id IN ({})", ids.join(",")))? };
    let new = jobs(conn, &format!("id > {} ORDER BY id LIMIT {limit}", since.newest))?;
    Ok(store::differences(as_of, &noted, rows, new))
}

/// The job that was noted last.
pub fn last_noted(conn: &mut Conn) -> Outcome<Option<JobId>> {
    let sql = format!("SELECT id, body FROM journal WHERE {NOTED} ORDER BY id DESC LIMIT 1");
    let entries: Vec<(i64, String)> = conn.query(sql)?;
    Ok(noted(&entries, &Since::default())?.and_then(|noted| noted.last))
}

pub fn newest_entry(conn: &mut Conn) -> Outcome<EntryId> {
    let newest: Option<Option<i64>> = conn.query_first("SELECT MAX(id) FROM journal")?;
    Ok(EntryId(newest.flatten().unwrap_or(0)))
}

fn job(row: Row) -> Job {
    let number = |at: usize| row.get_opt::<i64, usize>(at).and_then(Result::ok).unwrap_or(0);
    let count = |at: usize| number(at).clamp(0, i64::from(u32::MAX)) as u32;
    let text = |at: usize| {
        row.get_opt::<Vec<u8>, usize>(at)
            .and_then(Result::ok)
            .map_or(String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    };
    Job {
        cron_set: text(0),
        start_time: number(1).max(0),
        end_time: number(2).max(0),
        command: text(3),
        is_mutex: number(4) != 0,
        stop: number(5) != 0,
        remark: text(6),
        lock_limit: count(7),
        misfire: Misfire::parse(&text(8)).unwrap_or_default(),
        on_lost: OnLost::parse(&text(9)).unwrap_or_default(),
        max_parallel: count(10),
        timeout: count(11),
        retry_times: count(12),
        retry_delay: count(13),
        run_as: text(14),
        work_dir: text(15),
        env: text(16),
        shell: text(17),
        node: text(18),
        jitter: count(19),
        version: Version(number(20).max(1) as u64),
        since: Second(number(21)),
        id: JobId(number(22) as u32),
    }
}
