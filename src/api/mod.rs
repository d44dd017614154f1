//! The HTTP API: (method, path, parameters) to a `Command`, and a `Reply` to JSON.
//!
//! Not the check whether a command can be carried out (a known id, a schedule that can match): the node does that. Here
//! the form is checked (types, lengths, ranges, known names). Every answer is `{"code", "data", "message"}`.
//!
//! Invariant: a request gives either a command or an answer, and a bad one changes nothing.

pub mod access;
mod answer;
mod body;
mod draft;
mod params;

use crate::model::command::{CallError, Command, OutputQuery, REQUEST_KEY_CHARS_MAX, RequestKey};
use crate::model::job::JobFilter;
use crate::model::log_row::LogFilter;
use crate::model::{JobId, RunKey, Server};
use crate::wire::http::{BadRequest, Request, Response};
use params::Params;

pub use answer::{denied, failure, reply, status_only, who};

/// The largest id: the column is a signed 32-bit integer.
const INT_MAX: i64 = i32::MAX as i64;
/// The longest text to search for: no searched column of a job is longer.
const SEARCH_CHARS_MAX: usize = 2048;
const SERVER_CHARS_MAX: usize = 1024;
/// The rows or jobs of a page.
const LIMIT_DEFAULT: i64 = 50;
const LIMIT_MAX: i64 = 10_000;
/// The runs in a list.
const RUNS_DEFAULT: i64 = 1_000;

/// The command of a request; or the response, where the request is wrong.
pub fn command(request: &Request) -> Result<Command, Response> {
    let path = request.path.trim_end_matches('/');
    let mut parts = path.trim_start_matches('/').split('/');
    let route = (parts.next(), parts.next(), parts.next(), parts.next());
    let is_post = request.method == "POST";
    match route {
        (Some("cron"), Some("list"), None, None) => {
            only(request, "GET")?;
            list_jobs(request).map_err(|error| failure(&error))
        }
        (Some("log"), Some("list"), None, None) => {
            only(request, "GET")?;
            list_logs(request).map_err(|error| failure(&error))
        }
        (Some("cron"), Some("add"), None, None) => {
            only(request, "POST")?;
            add(request).map_err(|error| failure(&error))
        }
        (Some("cron"), Some("update"), None, None) => {
            only(request, "POST")?;
            update(request).map_err(|error| failure(&error))
        }
        (Some("run"), Some("output"), Some(key), None) => {
            only(request, "GET")?;
            read_output(request, key).map_err(|error| failure(&error))
        }
        (Some("health"), None, None, None) => only(request, "GET").map(|()| Command::ShowHealth),
        (Some("cluster"), Some(action @ ("pause" | "resume")), None, None) => {
            only(request, "POST")?;
            without_params(request, Command::Pause(action == "pause")).map_err(|error| failure(&error))
        }
        (Some("cron"), Some("run"), Some(id), None) => {
            only(request, "POST")?;
            run(request, id).map_err(|error| failure(&error))
        }
        (Some("run"), Some("list"), None, None) => {
            only(request, "GET")?;
            list_runs(request).map_err(|error| failure(&error))
        }
        (Some("run"), Some("kill"), Some(run), None) => {
            only(request, "POST")?;
            let command = run_key(run).map(Command::KillRun);
            command.and_then(|command| without_params(request, command)).map_err(|error| failure(&error))
        }
        (Some("cluster"), None, None, None) => only(request, "GET").map(|()| Command::ShowCluster),
        (Some("cluster"), Some("drain"), None, None) => {
            only(request, "POST")?;
            drain(request).map_err(|error| failure(&error))
        }
        (Some("cron"), Some(action @ ("stop" | "start" | "delete")), Some(id), None) => {
            // The older system takes GET here, but by HTTP a change is a POST: both are taken.
            if !is_post {
                only(request, "GET").map_err(|response| Response { allow: Some("GET, POST"), ..response })?;
            }
            let id = path_id(id).map_err(|error| failure(&error))?;
            Ok(match action {
                "stop" => Command::StopJob(id),
                "start" => Command::StartJob(id),
                _ => Command::DeleteJob(id),
            })
        }
        _ => Err(failure(&CallError {
            status: 404,
            message: format!("there is no {:?}; there are {PATHS}", request.path),
        })),
    }
}

/// Whether the caller asks for its own name and level.
pub fn asks_who(request: &Request) -> bool {
    request.method == "GET" && request.path == "/whoami"
}

pub fn asks_for_health(request: &Request) -> bool {
    request.method == "GET" && request.path == "/health"
}

const PATHS: &str = "GET /cron/list, GET /cron/stop/{id}, GET /cron/start/{id}, GET /cron/delete/{id}, POST /cron/add, \
                     POST /cron/update, POST /cron/run/{id}, GET /run/list, POST /run/kill/{run_key}, \
                     GET /run/output/{run_key}, GET /log/list, GET /cluster, POST /cluster/drain, POST /cluster/pause, POST /cluster/resume, GET /health, GET /whoami";

/// The response to bytes that are not an HTTP request.
pub fn bad_request(bad: BadRequest) -> Response {
    failure(&CallError { status: bad.status, message: bad.reason.into() })
}

fn only(request: &Request, method: &'static str) -> Result<(), Response> {
    if request.method == method {
        return Ok(());
    }
    let message = format!("{} is not taken here; send {method}", request.method);
    Err(Response { allow: Some(method), ..failure(&CallError { status: 405, message }) })
}

fn path_id(text: &str) -> Result<JobId, CallError> {
    let number = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    match number {
        Some(id @ 1..=INT_MAX) => Ok(JobId(id as u32)),
        _ => Err(CallError::bad(format!("id: {text:?} is not a whole number from 1 to {INT_MAX}"))),
    }
}

/// Refuses a request without body and query: its client most likely sent a body and left the length out.
fn wants_body(request: &Request) -> Result<(), CallError> {
    if request.has_length || !request.query.is_empty() {
        return Ok(());
    }
    let message =
        "the parameters are missing: send them as a body with a Content-Length, or in the query string".into();
    Err(CallError { status: 411, message })
}

fn without_params(request: &Request, command: Command) -> Result<Command, CallError> {
    let mut params = Params::of(request)?;
    params.allow(&[]);
    params.finish().map(|()| command)
}

fn add(request: &Request) -> Result<Command, CallError> {
    wants_body(request)?;
    let mut params = Params::of(request)?;
    params.allow(&draft::names());
    let draft = draft::read(&mut params);
    params.finish()?;
    Ok(Command::AddJob(draft, request_key(request)?))
}

fn run(request: &Request, id: &str) -> Result<Command, CallError> {
    without_params(request, Command::RunJob(path_id(id)?, request_key(request)?))
}

fn list_runs(request: &Request) -> Result<Command, CallError> {
    let mut params = Params::of(request)?;
    params.allow(&["limit", "_"]);
    let limit = params.integer("limit", 1, LIMIT_MAX).unwrap_or(RUNS_DEFAULT) as usize;
    params.finish()?;
    Ok(Command::ListRuns { limit })
}

fn run_key(text: &str) -> Result<RunKey, CallError> {
    text.parse().map_err(|error| CallError::bad(format!("run_key: {text:?}: {error}, see /run/list and /log/list")))
}

/// The header Idempotency-Key. When a client or proxy repeats a request with the key, it gets the first one's result.
fn request_key(request: &Request) -> Result<Option<RequestKey>, CallError> {
    let Some(key) = &request.request_key else { return Ok(None) };
    let is_right = (1..=REQUEST_KEY_CHARS_MAX).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    let wrong = || format!("Idempotency-Key: 1 to {REQUEST_KEY_CHARS_MAX} visible ASCII characters are expected");
    if is_right { Ok(Some(RequestKey(key.clone()))) } else { Err(CallError::bad(wrong())) }
}

fn update(request: &Request) -> Result<Command, CallError> {
    wants_body(request)?;
    let mut params = Params::of(request)?;
    params.allow(&[&["id"], &draft::names()[..]].concat());
    let id = params.integer("id", 1, INT_MAX);
    if id.is_none() {
        params.wrong("id", "it is required: the id of the job to update, see /cron/list");
    }
    let draft = draft::read(&mut params);
    params.finish()?;
    Ok(Command::UpdateJob(JobId(id.unwrap_or_default() as u32), draft))
}

fn read_output(request: &Request, key: &str) -> Result<Command, CallError> {
    let mut params = Params::of(request)?;
    params.allow(&["from", "attempt", "follow", "_"]);
    let query = OutputQuery {
        run: run_key(key)?,
        attempt: params.integer("attempt", 0, INT_MAX).map(|number| number as u32),
        from: params.integer("from", 0, i64::MAX).unwrap_or(0) as u64,
        follow: params.flag("follow").unwrap_or(false),
    };
    params.finish()?;
    Ok(Command::ReadOutput(query))
}

fn drain(request: &Request) -> Result<Command, CallError> {
    let mut params = Params::of(request)?;
    params.allow(&["server"]);
    let server = params.required_text("server", SERVER_CHARS_MAX, "a node's bind_address, see /cluster");
    params.finish()?;
    Ok(Command::DrainNode(Server(server.trim().into())))
}

/// Without page, limit and search the answer is the whole list, as in the older system.
fn list_jobs(request: &Request) -> Result<Command, CallError> {
    let mut params = Params::of(request)?;
    params.allow(&["search", "page", "limit", "_"]);
    let search = params.text("search", SEARCH_CHARS_MAX);
    let (page, limit) = (params.integer("page", 1, i64::MAX), params.integer("limit", 1, LIMIT_MAX));
    params.finish()?;
    let is_whole = search.is_none() && page.is_none() && limit.is_none();
    let filter = || JobFilter { search, page: page.unwrap_or(1) as u64, limit: limit.unwrap_or(LIMIT_DEFAULT) as u64 };
    Ok(Command::ListJobs((!is_whole).then(filter)))
}

fn list_logs(request: &Request) -> Result<Command, CallError> {
    let mut params = Params::of(request)?;
    // JavaScript libraries add the parameter `_` to get around caches.
    params.allow(&["cron_id", "search", "dispatch_server", "run_server", "page", "limit", "_"]);
    let filter = LogFilter {
        cron_id: params.integer("cron_id", 1, INT_MAX).map(|id| JobId(id as u32)),
        search: params.text("search", SEARCH_CHARS_MAX),
        dispatch_server: params.text("dispatch_server", SERVER_CHARS_MAX),
        run_server: params.text("run_server", SERVER_CHARS_MAX),
        page: params.integer("page", 1, i64::MAX).unwrap_or(1) as u64,
        limit: params.integer("limit", 1, LIMIT_MAX).unwrap_or(LIMIT_DEFAULT) as u64,
    };
    params.finish()?;
    Ok(Command::ListLogs(filter))
}

#[cfg(test)]
mod tests;
