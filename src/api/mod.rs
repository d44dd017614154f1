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
mod json;
mod params;
mod route;

use crate::model::access::Caller;
use crate::model::command::{CallError, Command, OutputQuery, REQUEST_KEY_CHARS_MAX, RequestKey};
use crate::model::job::JobFilter;
use crate::model::log_row::LogFilter;
use crate::model::{JobId, RunKey, Server};
use crate::wire::http::{BadRequest, Request, Response};
use params::Params;
use route::{PATHS, Route};
use std::collections::BTreeMap;

pub use answer::{ANSWER_BYTES_MAX, denied, failure, reply, status_only};

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

/// The command of a caller's request; or the response, where the request is wrong, not allowed, or answered here.
pub fn command(request: &Request, caller: &Caller) -> Result<Command, Response> {
    if request.path == "*" {
        return Err(options(&["GET", "HEAD", "POST"]));
    }
    if request.path == "/whoami" {
        check_method(request, route::READS)?;
        return Err(answer::who(caller));
    }
    let Some(route) = Route::of(&request.path) else {
        let message = format!("there is no {:?}; there are {PATHS}", request.path);
        return Err(failure(&CallError { status: 404, message }));
    };
    check_method(request, route.methods())?;
    let command = of_route(request, route).map_err(|error| failure(&error))?;
    access::permit(caller, &command, request).map_err(denied)?;
    Ok(command)
}

/// Whether the request asks for the health, of which everybody may learn the status.
pub fn asks_for_health(request: &Request) -> bool {
    Route::of(&request.path) == Some(Route::ShowHealth) && route::READS.contains(&request.method.as_str())
}

fn of_route(request: &Request, route: Route) -> Result<Command, CallError> {
    match route {
        Route::ListJobs => list_jobs(request),
        Route::AddJob => add(request),
        Route::UpdateJob => update(request),
        Route::StopJob(id) => path_id(id).map(Command::StopJob),
        Route::StartJob(id) => path_id(id).map(Command::StartJob),
        Route::DeleteJob(id) => path_id(id).map(Command::DeleteJob),
        Route::RunJob(id) => without_params(request, Command::RunJob(path_id(id)?, request_key(request)?)),
        Route::ListRuns => list_runs(request),
        Route::ReadOutput(key) => read_output(request, key),
        Route::KillRun(key) => without_params(request, Command::KillRun(run_key(key)?)),
        Route::ListLogs => list_logs(request),
        Route::ShowCluster => Ok(Command::ShowCluster),
        Route::DrainNode => drain(request),
        Route::Pause(paused) => without_params(request, Command::Pause(paused)),
        Route::ShowHealth => Ok(Command::ShowHealth),
    }
}

/// The answer to a request of the debug listener. `vars`: what the daemon counts, by name.
pub fn debug(request: &Request, vars: impl FnOnce() -> BTreeMap<String, u64>) -> Response {
    if request.path != "/debug/vars" {
        let message = format!("there is no {:?}; there is /debug/vars", request.path);
        return failure(&CallError { status: 404, message });
    }
    match check_method(request, route::READS) {
        Ok(()) => Response::json(200, serde_json::to_vec(&vars()).unwrap_or_default()),
        Err(response) => response,
    }
}

/// The response to bytes that are not an HTTP request.
pub fn bad_request(bad: BadRequest) -> Response {
    failure(&CallError { status: bad.status, message: bad.reason.into() })
}

/// The response to a request that a limit of the whole node does not allow just now.
pub fn busy(message: impl Into<String>) -> Response {
    failure(&CallError::unavailable(message)).with("Retry-After", "1")
}

/// The error is the response to a method that the call does not take, or to OPTIONS, which asks for those that it takes.
fn check_method(request: &Request, methods: &[&str]) -> Result<(), Response> {
    if methods.contains(&request.method.as_str()) {
        return Ok(());
    }
    if request.method == "OPTIONS" {
        return Err(options(methods));
    }
    let wanted: Vec<&str> = methods.iter().filter(|method| **method != "HEAD").copied().collect();
    let message = format!("{} is not taken here; send {}", request.method, wanted.join(" or "));
    Err(failure(&CallError { status: 405, message }).with("Allow", allow(methods)))
}

fn options(methods: &[&str]) -> Response {
    Response::no_content().with("Allow", allow(methods))
}

fn allow(methods: &[&str]) -> String {
    [methods, &["OPTIONS"]].concat().join(", ")
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
    if request.has_body || !request.query.is_empty() {
        return Ok(());
    }
    let message =
        "the parameters are missing: send them as a body with a Content-Length or in chunks, or in the query string"
            .into();
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
