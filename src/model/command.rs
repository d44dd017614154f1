//! The API's commands to the node, and their answers.
//!
//! Not HTTP or JSON: `api` turns requests into commands, and answers into responses.
//!
//! Invariant: a `Command` is well-formed (`api` checks types, lengths and ranges). The node checks whether it can be
//! carried out (a known id, a schedule that can match).

use super::columns::{self, Column, LeftOut, SetBy};
use super::job::JobFilter;
use super::log_row::{LastRun, LogFilter, LogPage};
use super::output::OutputPart;
use super::status::RunStatus;
use super::value::Value;
use super::{Attempt, Epoch, Job, JobId, RunKey, RunState, Second, Server};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Names the HTTP request that an answer belongs to; the reactor gives it and never reuses it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RequestId(pub u64);

/// A client's name for its request (header Idempotency-Key): 1 to `REQUEST_KEY_CHARS_MAX` visible ASCII characters. A
/// second request with the same key gets the result of the first.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct RequestKey(pub String);

/// The most characters of a request key.
pub const REQUEST_KEY_CHARS_MAX: usize = 200;

/// What a client asks for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Command {
    /// A page of the jobs, or all of them where there is no filter.
    ListJobs(Option<JobFilter>),
    /// Add a job; with a key, once only.
    AddJob(JobDraft, Option<RequestKey>),
    /// Change a job's columns that are in the draft.
    UpdateJob(JobId, JobDraft),
    /// The job has no further scheduled run.
    StopJob(JobId),
    /// The job has scheduled runs again.
    StartJob(JobId),
    /// Remove the job; its log rows stay.
    DeleteJob(JobId),
    /// A page of the log rows.
    ListLogs(LogFilter),
    /// The nodes of the cluster, as the leader sees them.
    ShowCluster,
    /// The node with this server takes no new runs.
    DrainNode(Server),
    /// Start a run now, even of a stopped job.
    RunJob(JobId, Option<RequestKey>),
    /// The running and waiting runs of the whole cluster, at most `limit`.
    ListRuns { limit: usize },
    /// End a run, or cancel it where it has not started.
    KillRun(RunKey),
    /// Pause (true) or resume (false) all scheduled runs.
    Pause(bool),
    /// The health of this node.
    ShowHealth,
    /// A part of a run's output.
    ReadOutput(OutputQuery),
}

impl Command {
    /// Whether the command only reads: a repetition is harmless, and a refusal need not say that nothing was changed.
    pub fn is_read(&self) -> bool {
        match self {
            Command::ListJobs(_)
            | Command::ListLogs(_)
            | Command::ListRuns { .. }
            | Command::ReadOutput(_)
            | Command::ShowCluster
            | Command::ShowHealth => true,
            Command::AddJob(..)
            | Command::UpdateJob(..)
            | Command::StopJob(_)
            | Command::StartJob(_)
            | Command::DeleteJob(_)
            | Command::DrainNode(_)
            | Command::RunJob(..)
            | Command::KillRun(_)
            | Command::Pause(_) => false,
        }
    }

    /// The refusal of a command that was not begun.
    pub fn not_taken(&self, why: &str) -> CallError {
        CallError::unavailable(if self.is_read() { why.into() } else { format!("nothing was changed: {why}") })
    }
}

/// A request for a part of a run's output.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct OutputQuery {
    pub run: RunKey,
    /// None: the run's latest attempt.
    pub attempt: Option<u32>,
    /// The position (see `model::output`) at which the part begins.
    pub from: u64,
    /// The client wants all further output too. Only the reactor reads this: it asks the node for one part after the
    /// other.
    pub follow: bool,
}

/// The columns of a job that a request gives, by their names. A column that the request leaves out is in the draft with
/// its default (`LeftOut::Default`), or is not in it, so that an update keeps the job's value (`LeftOut::Unchanged`).
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct JobDraft(BTreeMap<Cow<'static, str>, Value<'static>>);

impl Default for JobDraft {
    fn default() -> JobDraft {
        let is_set = |column: &&Column| column.set_by != SetBy::Request(LeftOut::Unchanged);
        JobDraft(columns::given().filter(is_set).map(|column| (column.name().into(), column.default.clone())).collect())
    }
}

impl JobDraft {
    /// Sets a column. `column` must be the name of one that a request may give.
    pub fn with(mut self, column: &'static str, value: impl Into<Value<'static>>) -> JobDraft {
        debug_assert!(columns::given().any(|given| given.name() == column), "no request may give {column}");
        self.0.insert(column.into(), value.into());
        self
    }

    /// The text that the client gave for the column; empty where it gave none.
    pub fn text(&self, column: &str) -> &str {
        match self.0.get(column) {
            Some(Value::Text(text)) => text,
            _ => "",
        }
    }

    /// The number that the client gave for the column; 0 where it gave none.
    pub fn number(&self, column: &str) -> i64 {
        match self.0.get(column) {
            Some(Value::Number(number)) => *number,
            _ => 0,
        }
    }

    /// Changes the job's columns that are in the draft.
    pub fn apply(mut self, job: &mut Job) {
        for column in columns::given() {
            if let Some(value) = self.0.remove(column.name()) {
                column.set(job, value);
            }
        }
    }
}

/// The answer to a command, or why there is none.
pub type Reply = Result<Answer, CallError>;

/// What a command that succeeded answers.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Answer {
    /// To `ListJobs`.
    Jobs(JobList),
    /// To a change: the job as it is in force now, or was when it was deleted.
    Job(Arc<Job>),
    /// To `ListLogs`.
    Logs(LogPage),
    /// To `ShowCluster` and `DrainNode`.
    Cluster(ClusterView),
    /// To `RunJob` and `KillRun`.
    Run(RunAnswer),
    /// To `ListRuns`.
    Runs(RunPage),
    /// To `ShowHealth`.
    Health(HealthView),
    /// To `Pause`: whether scheduled runs are paused now.
    Paused { paused: bool },
    /// To `ReadOutput`.
    Output(RunOutput),
}

/// A part of an attempt's output.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RunOutput {
    pub attempt: Attempt,
    /// The node that has the output; empty where no node has it.
    pub server: Server,
    /// Its bytes, and where the next part begins.
    pub part: OutputPart,
}

/// A run that was asked for or ended.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RunAnswer {
    pub run_key: RunKey,
    pub cron_id: JobId,
    /// How the run ended; none while it has not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<RunState>,
    /// What is or may be left of it although it was ended; none where surely nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<String>,
}

/// The running and waiting runs, running ones first.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct RunPage {
    pub list: Vec<RunView>,
    /// How many runs there are, listed or not.
    pub total: usize,
}

/// An in-flight run, as `/run/list` shows it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RunView {
    pub run_key: RunKey,
    pub attempt: u32,
    pub cron_id: JobId,
    /// The run's node; empty while it is given to no node.
    pub server: Server,
    /// How far it has come.
    pub state: RunStatus,
    /// When it started, in Unix milliseconds; none while it has not.
    pub started: Option<i64>,
    /// None while there is no process.
    pub pid: Option<u32>,
    /// For how many seconds it has run; none while it has not started.
    pub seconds: Option<u64>,
}

/// The answer to `/health`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct HealthView {
    /// This node.
    pub server: Server,
    /// Whether it leads.
    pub role: Role,
    /// The leader; empty where none is known.
    pub leader: Server,
    /// Scheduled runs are paused in the whole cluster.
    pub paused: bool,
    /// As in `NodeView`.
    pub store_ok: bool,
    /// Consul answers; none where the node stands alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consul_ok: Option<bool>,
    /// How many runs have a process here.
    pub running: usize,
    /// How many runs wait here for their start.
    pub queued: usize,
    /// The time since the leader wrote the journal, which it does at least every five seconds, or took the lead; none
    /// where there is no leader.
    pub journal_age_ms: Option<u64>,
    /// How far the watermark is behind the present; none where there is no leader.
    pub watermark_lag_secs: Option<u64>,
    /// The trouble that keeps the node from its work, in plain words; none where no trouble is known.
    #[serde(skip)]
    pub wrong: Option<String>,
}

/// The state of the leader's own work, as it tells its nodes.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Progress {
    /// None where the leader is of an earlier version, which does not tell it.
    pub journal_age_ms: Option<u64>,
    /// As in `HealthView`.
    pub watermark_lag_secs: u64,
    /// The leader's trouble, in plain words; none where no trouble is known.
    pub wrong: Option<String>,
}

/// A page of the jobs, or all of them.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct JobList {
    pub jobs: Vec<ListedJob>,
    /// How many jobs the filter matches in all; none where these are all jobs.
    pub total: Option<u64>,
}

/// A job of a list.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ListedJob {
    pub job: Arc<Job>,
    /// The next second at which the job is due; none where it never is again.
    pub next_time: Option<Second>,
    /// The job's last run; none where it never ran, or the store did not answer in time.
    pub last: Option<LastRun>,
    /// Why the job's schedule cannot be read; such a job is never due.
    #[serde(default)]
    pub error: Option<String>,
}

/// The cluster as its leader sees it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct ClusterView {
    /// The node that answers.
    pub leader: Server,
    /// The epoch that it leads under.
    pub epoch: Epoch,
    /// The last second whose entry is whole in the journal.
    pub watermark: Second,
    /// Scheduled runs are paused in the whole cluster until `/cluster/resume`.
    pub paused: bool,
    /// As in `HealthView`.
    #[serde(default)]
    pub journal_age_ms: Option<u64>,
    /// As in `HealthView`.
    #[serde(default)]
    pub watermark_lag_secs: u64,
    /// Every node that the leader knows, its own included.
    pub nodes: Vec<NodeView>,
}

/// A node, as `/cluster` shows it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct NodeView {
    /// Its bind_address.
    pub server: Server,
    /// Whether it leads.
    pub role: Role,
    /// Whether it is there, and takes runs.
    pub state: NodeState,
    /// How many of its runs have a process.
    pub running: usize,
    /// How many of its runs wait for their start.
    pub queued: usize,
    /// Its host can start no further process just now.
    #[serde(default)]
    pub throttled: bool,
    /// Skipped, shed and missed runs whose log rows this node wrote since its daemon's start. The leader writes most of
    /// them.
    #[serde(default)]
    pub refused: u64,
    /// How many runs it may have at one time, waiting or running.
    pub capacity: usize,
    /// Its clock minus the leader's.
    pub clock_offset_ms: i64,
    /// The time since the leader last heard of it.
    pub last_contact_ms: u64,
    /// The store answers this node, and takes its log rows and, where it leads, its journal entries.
    #[serde(default)]
    pub store_ok: bool,
}

/// Whether a node leads.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Leader,
    #[default]
    Follower,
}

/// How a leader sees a node.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// It is heard of, and takes runs.
    Alive,
    /// It takes no new runs.
    Draining,
    /// It has said nothing for a second: it gets no new runs.
    Suspect,
    /// Its lease is over.
    Lost,
}

/// Why a command was not carried out; `status` is the HTTP status.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CallError {
    /// From 400 to 599.
    pub status: u16,
    /// What is wrong, and what is expected or to be done.
    pub message: String,
}

impl CallError {
    /// 400: the request is wrong, for this reason.
    pub fn bad(message: impl Into<String>) -> CallError {
        CallError { status: 400, message: message.into() }
    }

    /// 404: there is no such job.
    pub fn unknown_job(id: JobId) -> CallError {
        CallError { status: 404, message: format!("id {id}: there is no such job; /cron/list shows the ids") }
    }

    /// 404: there is no such run.
    pub fn unknown_run(run: RunKey) -> CallError {
        CallError {
            status: 404,
            message: format!("run_key {run}: there is no such run; /run/list and /log/list show the runs"),
        }
    }

    /// The client gave the key of another request. The first request's answer would look like the success of this one.
    pub fn other_request(first: impl std::fmt::Display) -> CallError {
        let message = format!(
            "Idempotency-Key: another request had this key and made {first}: nothing was done; give this one a key of its own"
        );
        CallError { status: 409, message }
    }

    /// 503: it cannot be done now, for this reason.
    pub fn unavailable(message: impl Into<String>) -> CallError {
        CallError { status: 503, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Misfire;

    #[test]
    fn a_draft_of_a_node_of_an_earlier_version_is_understood_and_understands_ours() {
        let earlier = r#"{"cron_set":"@daily","command":"x","remark":"","stop":false,"start_time":0,"end_time":9,"is_mutex":true,
                          "lock_limit":null,"misfire":"once","timeout":7,"run_as":null}"#;
        let draft: JobDraft = serde_json::from_str(earlier).unwrap();
        let mut job = Job { lock_limit: 3, run_as: "nobody".into(), ..Job::default() };
        draft.apply(&mut job);
        let kept = Job { lock_limit: 3, run_as: "nobody".into(), ..Job::default() };
        let [cron_set, command] = ["@daily", "x"].map(String::from);
        let expect = Job { cron_set, command, end_time: 9, is_mutex: true, misfire: Misfire::Once, timeout: 7, ..kept };
        assert_eq!(job, expect);
        let ours = JobDraft::default().with("cron_set", "@daily").with("timeout", 7).with("misfire", "once");
        let expect = r#"{"command":"","cron_set":"@daily","end_time":0,"is_mutex":false,"misfire":"once","remark":"","start_time":0,"stop":false,"timeout":7}"#;
        assert_eq!(serde_json::to_string(&ours).unwrap(), expect);
    }
}
