//! Which call a path means, and the methods that it takes.
//!
//! Not the parameters of a call. Invariant: one spelling of a path is one call; any other, such as one with a further
//! slash, is none.

/// A call, with the part of its path that changes from request to request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Route<'a> {
    ListJobs,
    AddJob,
    UpdateJob,
    StopJob(&'a str),
    StartJob(&'a str),
    DeleteJob(&'a str),
    RunJob(&'a str),
    ListRuns,
    ReadOutput(&'a str),
    KillRun(&'a str),
    ListLogs,
    ShowCluster,
    DrainNode,
    Pause(bool),
    ShowHealth,
}

pub const PATHS: &str = "GET /cron/list, GET /cron/stop/{id}, GET /cron/start/{id}, GET /cron/delete/{id}, POST /cron/add, \
                         POST /cron/update, POST /cron/run/{id}, GET /run/list, POST /run/kill/{run_key}, \
                         GET /run/output/{run_key}, GET /log/list, GET /cluster, POST /cluster/drain, \
                         POST /cluster/pause, POST /cluster/resume, GET /health, GET /whoami";

/// What reads takes HEAD too: the answer to GET without its body.
pub const READS: &[&str] = &["GET", "HEAD"];
const CHANGES: &[&str] = &["POST"];
/// The older system takes GET here; POST is what HTTP would have. HEAD is not taken: it must not change anything.
const OLDER_CHANGES: &[&str] = &["GET", "POST"];

impl<'a> Route<'a> {
    pub fn of(path: &'a str) -> Option<Route<'a>> {
        let mut parts = path.strip_prefix('/')?.split('/');
        let names = (parts.next(), parts.next(), parts.next(), parts.next());
        Some(match names {
            (Some("cron"), Some("list"), None, None) => Route::ListJobs,
            (Some("cron"), Some("add"), None, None) => Route::AddJob,
            (Some("cron"), Some("update"), None, None) => Route::UpdateJob,
            (Some("cron"), Some("stop"), Some(id), None) => Route::StopJob(id),
            (Some("cron"), Some("start"), Some(id), None) => Route::StartJob(id),
            (Some("cron"), Some("delete"), Some(id), None) => Route::DeleteJob(id),
            (Some("cron"), Some("run"), Some(id), None) => Route::RunJob(id),
            (Some("run"), Some("list"), None, None) => Route::ListRuns,
            (Some("run"), Some("output"), Some(run_key), None) => Route::ReadOutput(run_key),
            (Some("run"), Some("kill"), Some(run_key), None) => Route::KillRun(run_key),
            (Some("log"), Some("list"), None, None) => Route::ListLogs,
            (Some("cluster"), None, None, None) => Route::ShowCluster,
            (Some("cluster"), Some("drain"), None, None) => Route::DrainNode,
            (Some("cluster"), Some("pause"), None, None) => Route::Pause(true),
            (Some("cluster"), Some("resume"), None, None) => Route::Pause(false),
            (Some("health"), None, None, None) => Route::ShowHealth,
            _ => return None,
        })
    }

    /// The methods that it takes, beside OPTIONS.
    pub fn methods(self) -> &'static [&'static str] {
        match self {
            Route::ListJobs
            | Route::ListRuns
            | Route::ReadOutput(_)
            | Route::ListLogs
            | Route::ShowCluster
            | Route::ShowHealth => READS,
            Route::StopJob(_) | Route::StartJob(_) | Route::DeleteJob(_) => OLDER_CHANGES,
            Route::AddJob
            | Route::UpdateJob
            | Route::RunJob(_)
            | Route::KillRun(_)
            | Route::DrainNode
            | Route::Pause(_) => CHANGES,
        }
    }
}
