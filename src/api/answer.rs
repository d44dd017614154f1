//! Replies as JSON: `{"code", "data", "message"}`.
//!
//! Not the decision about the answer: that is the node's.
//!
//! Invariant: the fields of the older system come first and in its order, ours behind them.

use super::access::Denied;
use crate::model::Job;
use crate::model::access::Caller;
use crate::model::columns::{COLUMNS, Kind};
use crate::model::command::{Answer, CallError, HealthView, JobList, ListedJob, Reply, RunOutput};
use crate::model::log_row::{LogPage, StoredLog};
use crate::model::output::OutputState;
use crate::model::value::Value as Cell;
use crate::wire::http::Response;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;
use std::io;

/// The most bytes of an answer.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;

#[derive(Serialize)]
struct Envelope<'a, T: Serialize> {
    code: u16,
    data: T,
    message: &'a str,
}

/// A job's shown columns, in the order of the table in `model::columns`.
struct JobView<'a>(&'a Job);

impl Serialize for JobView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for column in COLUMNS.iter().filter(|column| column.is_shown()) {
            match (column.kind, column.value(self.0)) {
                (Kind::Env { .. }, Cell::Text(env)) => map.serialize_entry(column.name(), &env_view(&env))?,
                (_, value) => map.serialize_entry(column.name(), &value)?,
            }
        }
        map.end()
    }
}

/// A job of a list: its columns, its next due second, and its last run.
#[derive(Serialize)]
struct ListedJobView<'a> {
    #[serde(flatten)]
    job: JobView<'a>,
    next_time: Option<i64>,
    last_state: Option<&'a str>,
    last_time: Option<i64>,
    last_use_time: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct JobPageView<'a> {
    list: Vec<ListedJobView<'a>>,
    total: u64,
}

#[derive(Serialize)]
struct LogPageView<'a> {
    list: Vec<LogView<'a>>,
    total: u64,
    #[serde(skip_serializing_if = "is_false")]
    truncated: bool,
}

#[derive(Serialize)]
struct LogView<'a> {
    id: i64,
    cron_id: u32,
    time: i64,
    output: &'a str,
    use_time: i64,
    dispatch_server: &'a str,
    run_server: &'a str,
    dispatch_time: i64,
    state: Option<&'a str>,
    exit_code: Option<i32>,
    start_time: Option<i64>,
    run_key: Option<&'a str>,
    attempt: Option<u32>,
    version: Option<u64>,
    cpu_ms: Option<u64>,
    memory_kb_max: Option<u64>,
}

#[derive(Serialize)]
struct OutputView<'a> {
    run_key: String,
    attempt: u32,
    server: &'a str,
    state: OutputState,
    from: u64,
    next: u64,
    output: String,
    is_over: bool,
}

/// The response with the answer to a command.
pub fn reply(reply: &Reply) -> Response {
    match reply {
        Ok(Answer::Job(job)) => ok(JobView(job)),
        Ok(Answer::Jobs(JobList { jobs, total: None })) => ok(jobs.iter().map(listed_view).collect::<Vec<_>>()),
        Ok(Answer::Jobs(JobList { jobs, total: Some(total) })) => {
            ok(JobPageView { list: jobs.iter().map(listed_view).collect(), total: *total })
        }
        Ok(Answer::Logs(page)) => ok(page_view(page)),
        Ok(Answer::Cluster(cluster)) => ok(cluster),
        Ok(Answer::Output(output)) => ok(output_view(output)),
        Ok(Answer::Run(run)) => ok(run),
        Ok(Answer::Runs(page)) => ok(page),
        Ok(Answer::Health(health)) => health_reply(health),
        Ok(Answer::Paused { paused }) => ok(serde_json::json!({ "paused": paused })),
        Err(error) => failure(error),
    }
}

/// The response to a request that was not carried out.
pub fn failure(error: &CallError) -> Response {
    json(error.status, (), &error.message)
}

/// The answer to a request that the door does not let in.
pub fn denied(denied: Denied) -> Response {
    let response = json(denied.status, (), &denied.message);
    match denied.header {
        Some((name, value)) => response.with(name, value),
        None => response,
    }
}

/// The answer to who asks for its own name.
pub fn who(caller: &Caller) -> Response {
    ok(caller)
}

/// The health without its reasons, for a caller who is not known.
pub fn status_only(reply: &Reply) -> Response {
    match reply {
        Ok(Answer::Health(health)) if health.wrong.is_none() => ok(()),
        Err(error) => json(error.status, (), "not healthy"),
        Ok(_) => json(503, (), "not healthy"),
    }
}

/// The status is 503 where the node cannot do its work, because probes read nothing but the status.
fn health_reply(health: &HealthView) -> Response {
    match &health.wrong {
        None => ok(health),
        Some(wrong) => json(503, health, wrong),
    }
}

fn ok(data: impl Serialize) -> Response {
    json(200, data, "ok")
}

fn json(status: u16, data: impl Serialize, message: &str) -> Response {
    let mut body = Bounded { bytes: Vec::new(), bytes_max: ANSWER_BYTES_MAX };
    // Strings and numbers always have a JSON form, so there is one reason only why this can fail.
    match serde_json::to_writer(&mut body, &Envelope { code: status, data, message }) {
        Ok(()) => Response::json(status, body.bytes),
        Err(_) => failure(&CallError::bad(TOO_LARGE)),
    }
}

const TOO_LARGE: &str = "the answer would be larger than 64 MiB; ask for it page by page, with page and limit";

/// A text that does not grow beyond its bound.
struct Bounded {
    bytes: Vec<u8>,
    bytes_max: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes_max - self.bytes.len() < bytes.len() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn listed_view(listed: &ListedJob) -> ListedJobView<'_> {
    let last = listed.last.as_ref();
    ListedJobView {
        job: JobView(&listed.job),
        next_time: listed.next_time.map(|next| next.0),
        last_state: last.and_then(|last| last.state.as_deref()),
        last_time: last.map(|last| last.time),
        last_use_time: last.map(|last| last.use_time_ms),
        error: listed.error.as_deref(),
    }
}

/// The environment as an object. A row written by hand may have another text, which is shown as it is.
fn env_view(env: &str) -> Value {
    match env.is_empty() {
        true => Value::Object(serde_json::Map::new()),
        false => serde_json::from_str(env).unwrap_or_else(|_| Value::String(env.into())),
    }
}

fn output_view(output: &RunOutput) -> OutputView<'_> {
    let part = &output.part;
    // Where the part ends within a character, the character comes with the next part.
    let left = if part.is_over { 0 } else { begun_character(&part.bytes) };
    OutputView {
        run_key: output.attempt.run.to_string(),
        attempt: output.attempt.number,
        server: &output.server.0,
        state: part.state,
        from: part.from,
        next: part.next - left as u64,
        output: String::from_utf8_lossy(&part.bytes[..part.bytes.len() - left]).into_owned(),
        is_over: part.is_over,
    }
}

/// How many bytes at the end are the beginning of a character that is not complete.
fn begun_character(bytes: &[u8]) -> usize {
    let end = bytes.utf8_chunks().last().map_or(&[][..], |chunk| chunk.invalid());
    let is_begun = std::str::from_utf8(end).is_err_and(|error| error.error_len().is_none());
    if is_begun { end.len() } else { 0 }
}

fn page_view(page: &LogPage) -> LogPageView<'_> {
    LogPageView { list: page.rows.iter().map(log_view).collect(), total: page.total, truncated: page.is_truncated }
}

fn is_false(flag: &bool) -> bool {
    !flag
}

fn log_view(row: &StoredLog) -> LogView<'_> {
    LogView {
        id: row.id,
        cron_id: row.cron_id.0,
        time: row.time,
        output: &row.output,
        use_time: row.use_time_ms,
        dispatch_server: &row.dispatch_server,
        run_server: &row.run_server,
        dispatch_time: row.dispatch_time,
        state: row.state.as_deref(),
        exit_code: row.exit_code,
        start_time: row.start_time_ms,
        run_key: row.run_key.as_deref(),
        attempt: row.attempt,
        version: row.version,
        cpu_ms: row.cpu_ms,
        memory_kb_max: row.memory_kb_max,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_its_largest_size() {
        let mut bounded = Bounded { bytes: Vec::new(), bytes_max: 5 };
        assert!(serde_json::to_writer(&mut bounded, "abc").is_ok());
        assert!(serde_json::to_writer(&mut bounded, &1).is_err());
        assert_eq!(bounded.bytes, b"\"abc\"");
        let text = |chars: usize| json(200, "x".repeat(chars), "ok");
        let beside = text(0).body.len();
        assert_eq!(text(ANSWER_BYTES_MAX - beside).body.len(), ANSWER_BYTES_MAX);
        let refused = text(ANSWER_BYTES_MAX - beside + 1);
        assert!(refused.status == 400 && refused.body.len() < 200, "{}", refused.status);
    }
}
