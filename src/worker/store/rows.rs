//! The columns of jobs, log rows and entries, which are the same in both stores. Statements are made from these lists,
//! and rows are read by them.
//!
//! Not here: a database; each store implements `Cells` to read a cell of its rows.
//!
//! Invariant: a row is read by the same list that its SELECT was made from.

use crate::core::io::ports::StoreError;
use crate::model::columns::{COLUMNS, Column};
use crate::model::journal::Body;
use crate::model::log_row::StoredLog;
use crate::model::value::{Cell, CellKind, Value};
use crate::model::{Job, LogRow};

/// The columns of an open entry, which are read by name.
pub const ENTRY_COLUMNS: &str = "id, epoch, request, tick, part, body";
/// The columns of a job in which a text is searched.
pub const SEARCHED: [&str; 3] = ["cron_set", "command", "remark"];
/// The columns that identify a row of `log`: an upsert changes only the others.
const LOG_NAMES: [&str; 4] = ["cron_id", "time", "run_key", "attempt"];

/// A row of a database's answer.
pub trait Cells {
    /// Why a cell cannot be read.
    type Error;
    /// The cell of the SELECT's column number `at`, from 0.
    fn cell(&self, at: usize, kind: CellKind) -> Result<Value<'_>, Self::Error>;
}

/// The columns that a SELECT must list for `job`.
pub fn job_columns() -> String {
    list(COLUMNS.iter().map(Column::name))
}

/// Reads a job from a row whose SELECT lists `job_columns`.
pub fn job<C: Cells>(row: &C) -> Result<Job, C::Error> {
    let mut job = Job::default();
    for (at, column) in COLUMNS.iter().enumerate() {
        column.set(&mut job, row.cell(at, column.kind.cell())?);
    }
    Ok(job)
}

/// The columns whose values an INSERT or UPDATE gives; the database or another statement gives the rest.
pub fn written_job_columns() -> impl Iterator<Item = &'static Column> {
    COLUMNS.iter().filter(|column| column.is_written())
}

/// The values of the written columns, in their order.
pub fn job_values(job: &Job) -> impl Iterator<Item = Value<'_>> {
    written_job_columns().map(|column| column.value(job))
}

/// A column of table `log`.
pub struct LogColumn {
    pub name: &'static str,
    kind: CellKind,
    /// The value to write. None: the database gives it.
    get: Option<for<'a> fn(&'a LogRow) -> Value<'a>>,
    set: for<'a> fn(&mut StoredLog, Value<'a>),
}

macro_rules! log_column {
    ($name:literal, $kind:ident, $row:ident -> $value:expr, $field:ident) => {
        LogColumn {
            name: $name,
            kind: CellKind::$kind,
            get: Some(|$row| $value),
            set: |log, value| log.$field.set_value(value),
        }
    };
}

/// `state` and `start_time` come last. MySQL's upsert assigns the columns in this order, and its condition for each of
/// them must see the old values of these two.
pub static LOG_COLUMNS: &[LogColumn] = &[
    LogColumn { name: "id", kind: CellKind::Number, get: None, set: |log, value| log.id.set_value(value) },
    log_column!("cron_id", Number, row -> row.attempt.run.cron_id.value(), cron_id),
    log_column!("time", Number, row -> row.attempt.run.scheduled_at.value(), time),
    log_column!("output", Text, row -> row.output.value(), output),
    log_column!("use_time", Number, row -> row.use_time_ms.value(), use_time_ms),
    log_column!("dispatch_time", Number, row -> row.dispatch_time.value(), dispatch_time),
    log_column!("dispatch_server", Text, row -> (*row.dispatch_server.0).into(), dispatch_server),
    log_column!("run_server", Text, row -> (*row.run_server.0).into(), run_server),
    log_column!("run_key", Text, row -> row.attempt.run.to_string().into(), run_key),
    log_column!("attempt", Number, row -> row.attempt.number.value(), attempt),
    log_column!("exit_code", Number, row -> row.exit_code.value(), exit_code),
    log_column!("version", Number, row -> row.version.value(), version),
    log_column!("cpu_ms", Number, row -> row.usage.cpu_ms.value(), cpu_ms),
    log_column!("memory_kb_max", Number, row -> row.usage.memory_kb_max.value(), memory_kb_max),
    log_column!("state", Text, row -> row.state.as_str().into(), state),
    log_column!("start_time", Number, row -> row.start_time_ms.value(), start_time_ms),
];

/// The columns that a SELECT must list for `stored_log`.
pub fn log_columns() -> String {
    list(LOG_COLUMNS.iter().map(|column| column.name))
}

/// Reads a log row whose SELECT lists `log_columns`.
pub fn stored_log<C: Cells>(row: &C) -> Result<StoredLog, C::Error> {
    let mut log = StoredLog::default();
    for (at, column) in LOG_COLUMNS.iter().enumerate() {
        (column.set)(&mut log, row.cell(at, column.kind)?);
    }
    Ok(log)
}

/// The columns whose values an INSERT gives.
pub fn written_log_columns() -> impl Iterator<Item = &'static str> {
    LOG_COLUMNS.iter().filter(|column| column.get.is_some()).map(|column| column.name)
}

/// The columns that an upsert changes in an existing row.
pub fn changed_log_columns() -> impl Iterator<Item = &'static str> {
    written_log_columns().filter(|name| !LOG_NAMES.contains(name))
}

/// The values of the written columns, in their order.
pub fn log_values(row: &LogRow) -> impl Iterator<Item = Value<'_>> {
    LOG_COLUMNS.iter().filter_map(|column| column.get).map(|get| get(row))
}

/// The names as SQL lists them, with commas between.
pub fn list(names: impl Iterator<Item = impl AsRef<str>>) -> String {
    let mut list = String::new();
    for name in names {
        list.push_str(if list.is_empty() { "" } else { ", " });
        list.push_str(name.as_ref());
    }
    list
}

/// An entry's body as the JSON that is stored.
pub fn body_text(body: &Body) -> Result<String, StoreError> {
    serde_json::to_string(body).map_err(|error| StoreError::Permanent(format!("write a journal body: {error}")))
}

/// Reads the body of the journal's row `id`.
pub fn parse_body(id: i64, text: &str) -> Result<Body, StoreError> {
    serde_json::from_str(text)
        .map_err(|error| StoreError::Permanent(format!("journal row {id}: its body cannot be read: {error}")))
}
