//! What the API asks of the node, and what it is answered.
//!
//! Invariant: a `Command` is well-formed (types, lengths, ranges are checked in `api`); whether it makes sense (a known
//! id, a schedule that can match) is the node's to say.

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

/// What a client calls its request by (header Idempotency-Key): 1 to `REQUEST_KEY_CHARS_MAX` visible ASCII characters.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct RequestKey(pub String);

pub const REQUEST_KEY_CHARS_MAX: usize = 200;

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Command {
    /// With none, all of them.
    ListJobs(Option<JobFilter>),
    AddJob(JobDraft, Option<RequestKey>),
    UpdateJob(JobId, JobDraft),
    StopJob(JobId),
    StartJob(JobId),
    DeleteJob(JobId),
    ListLogs(LogFilter),
    /// Who takes part, as the leader sees it.
    ShowCluster,
    /// The node with this server takes no new runs.
    DrainNode(Server),
    /// A run at once, of a stopped job too.
    RunJob(JobId, Option<RequestKey>),
    /// What runs and waits in the whole cluster, so many at most.
    ListRuns {
        limit: usize,
    },
    KillRun(RunKey),
    /// No scheduled run from now on, or again.
    Pause(bool),
    /// How this node is.
    ShowHealth,
    ReadOutput(OutputQuery),
}

impl Command {
    /// It only reads: to repeat it is harmless, and a refusal need not say what has become of it.
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

    /// The refusal of one that nobody has taken up.
    pub fn not_taken(&self, why: &str) -> CallError {
        CallError::unavailable(if self.is_read() { why.into() } else { format!("nothing was changed: {why}") })
    }
}

/// Which part of which run's output is asked for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct OutputQuery {
    pub run: RunKey,
    /// None: the run's latest attempt.
    pub attempt: Option<u32>,
    pub from: u64,
    /// The client stays for what comes next. It is asked for a part at a time, so to the node this means nothing.
    pub follow: bool,
}

/// The columns of a job that a request gives, by their names. A column that the older system's API documents has the
/// documented default where the request leaves it out; a later one is not there then, and keeps its value on update.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct JobDraft(BTreeMap<Cow<'static, str>, Value<'static>>);

impl Default for JobDraft {
    fn default() -> JobDraft {
        let is_set = |column: &&Column| column.set_by != SetBy::Request(LeftOut::Kept);
        JobDraft(columns::given().filter(is_set).map(|column| (column.name().into(), column.default.clone())).collect())
    }
}

impl JobDraft {
    /// `column` is the name of one that a request may give.
    pub fn with(mut self, column: &'static str, value: impl Into<Value<'static>>) -> JobDraft {
        debug_assert!(columns::given().any(|given| given.name() == column), "{column} is no column that is given");
        self.0.insert(column.into(), value.into());
        self
    }

    pub fn text(&self, column: &str) -> &str {
        match self.0.get(column) {
            Some(Value::Text(text)) => text,
            _ => "",
        }
    }

    pub fn number(&self, column: &str) -> i64 {
        match self.0.get(column) {
            Some(Value::Number(number)) => *number,
            _ => 0,
        }
    }

    /// What the draft says nothing of stays as it is.
    pub fn apply(mut self, job: &mut Job) {
        for column in columns::given() {
            if let Some(value) = self.0.remove(column.name()) {
                column.set(job, value);
            }
        }
    }
}

pub type Reply = Result<Answer, CallError>;

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Answer {
    Jobs(JobList),
    Job(Arc<Job>),
    Logs(LogPage),
    Cluster(ClusterView),
    Run(RunAnswer),
    Runs(RunPage),
    Health(HealthView),
    Paused { paused: bool },
    Output(RunOutput),
}

/// A part of a run's output, and whose it is.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RunOutput {
    pub attempt: Attempt,
    /// The node that has it; empty where none does.
    pub server: Server,
    pub part: OutputPart,
}

/// A run that was asked for or ended.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RunAnswer {
    pub run_key: RunKey,
    pub cron_id: JobId,
    /// How it ended, where it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<RunState>,
}

/// What runs and waits; running ones first.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct RunPage {
    pub list: Vec<RunView>,
    /// How many there are, listed or not.
    pub total: usize,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RunView {
    pub run_key: RunKey,
    pub attempt: u32,
    pub cron_id: JobId,
    /// Empty while it is given to no node.
    pub server: Server,
    pub state: RunStatus,
    /// Unix milliseconds; none while it has not begun.
    pub started: Option<i64>,
    pub pid: Option<u32>,
    /// How long it has run.
    pub seconds: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct HealthView {
    pub server: Server,
    pub role: Role,
    /// Who leads; empty where nobody is known to.
    pub leader: Server,
    /// No scheduled run is started anywhere.
    pub paused: bool,
    /// As in `NodeView`.
    pub store_ok: bool,
    /// None: standing alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consul_ok: Option<bool>,
    pub running: usize,
    pub queued: usize,
    /// Since the leader wrote the journal, which it does every five seconds at least, or took the lead; none where nobody leads.
    pub journal_age_ms: Option<u64>,
    /// How far the last second that the leader has decided on lies behind; none where nobody leads.
    pub watermark_lag_secs: Option<u64>,
    /// What keeps work from being done, in plain words; none: nothing that is known.
    #[serde(skip)]
    pub wrong: Option<String>,
}

/// How the leader's own work goes, as it tells its nodes.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Progress {
    /// None: by a leader that does not tell it yet.
    pub journal_age_ms: Option<u64>,
    pub watermark_lag_secs: u64,
    pub wrong: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct JobList {
    pub jobs: Vec<ListedJob>,
    /// How many the filter matches in all; none where these are all jobs.
    pub total: Option<u64>,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ListedJob {
    pub job: Arc<Job>,
    /// The next second at which it is due, if there is one.
    pub next_time: Option<Second>,
    /// None where it never ran, or the store did not tell in time.
    pub last: Option<LastRun>,
    /// Why it is never due, where its schedule cannot be read.
    #[serde(default)]
    pub error: Option<String>,
}

/// The cluster as its leader sees it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct ClusterView {
    pub leader: Server,
    pub epoch: Epoch,
    /// The last second that was taken.
    pub watermark: Second,
    /// No scheduled run is started anywhere until `/cluster/resume`.
    pub paused: bool,
    /// As in `HealthView`.
    #[serde(default)]
    pub journal_age_ms: Option<u64>,
    #[serde(default)]
    pub watermark_lag_secs: u64,
    pub nodes: Vec<NodeView>,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct NodeView {
    pub server: Server,
    pub role: Role,
    pub state: NodeState,
    pub running: usize,
    pub queued: usize,
    /// Its system has no room for another process just now.
    #[serde(default)]
    pub throttled: bool,
    /// Runs that it has told as skipped, shed or missed since its daemon's start; most are told by the leader.
    #[serde(default)]
    pub refused: u64,
    /// Runs that it may have at one time, waiting or running.
    pub capacity: usize,
    /// Its clock minus the leader's.
    pub clock_offset_ms: i64,
    pub last_contact_ms: u64,
    /// Its own store answers, and takes what it has to take: log rows, and the leader's journal.
    #[serde(default)]
    pub store_ok: bool,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Leader,
    #[default]
    Follower,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    Alive,
    /// It takes no new runs.
    Draining,
    /// Nothing was heard of it for a second: it gets nothing new.
    Suspect,
    /// Its lease is over.
    Lost,
}

/// Why a command was not carried out; `status` is the HTTP status.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CallError {
    pub status: u16,
    /// What is wrong with what, and what is expected or what to do.
    pub message: String,
}

impl CallError {
    pub fn bad(message: impl Into<String>) -> CallError {
        CallError { status: 400, message: message.into() }
    }

    pub fn unknown_job(id: JobId) -> CallError {
        CallError { status: 404, message: format!("id {id}: there is no such job; /cron/list shows the ids") }
    }

    pub fn unknown_run(run: RunKey) -> CallError {
        CallError {
            status: 404,
            message: format!("run_key {run}: there is no such run; /log/list shows those that were"),
        }
    }

    /// A client's mistake that must not look like its success.
    pub fn other_request(first: impl std::fmt::Display) -> CallError {
        let message = format!(
            "Idempotency-Key: it was another request's, which made {first}: nothing is done; give this one a key of its own"
        );
        CallError { status: 409, message }
    }

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
