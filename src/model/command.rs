//! What the API asks of the node, and what it is answered.
//!
//! Invariant: a `Command` is well-formed (types, lengths, ranges are checked in `api`); whether it makes sense (a known
//! id, a schedule that can match) is the node's to say.

use super::log_row::{LogFilter, LogPage};
use super::{Epoch, Job, JobId, Misfire, OnLost, Second, Server};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Names the HTTP request that an answer belongs to; the reactor gives it and never reuses it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RequestId(pub u64);

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Command {
    ListJobs,
    AddJob(JobDraft),
    UpdateJob(JobId, JobDraft),
    StopJob(JobId),
    StartJob(JobId),
    DeleteJob(JobId),
    ListLogs(LogFilter),
    /// Who takes part, as the leader sees it.
    ShowCluster,
    /// The node with this server takes no new runs.
    DrainNode(Server),
}

/// The fields of a job that its user writes. A field that the seed's API documents has the documented default when it
/// is left out; a later one is `None` and keeps its value on update.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct JobDraft {
    pub cron_set: String,
    pub command: String,
    pub remark: String,
    pub stop: bool,
    pub start_time: i64,
    pub end_time: i64,
    pub is_mutex: bool,
    pub lock_limit: Option<u32>,
    pub misfire: Option<Misfire>,
    pub on_lost: Option<OnLost>,
    pub max_parallel: Option<u32>,
    pub timeout: Option<u32>,
    pub retry_times: Option<u32>,
    pub retry_delay: Option<u32>,
    pub run_as: Option<String>,
    pub work_dir: Option<String>,
    pub env: Option<String>,
    pub shell: Option<String>,
    pub node: Option<String>,
    pub jitter: Option<u32>,
}

pub type Reply = Result<Answer, Refusal>;

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Answer {
    Jobs(Vec<Arc<Job>>),
    Job(Arc<Job>),
    Logs(LogPage),
    Cluster(ClusterView),
}

/// The cluster as its leader sees it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct ClusterView {
    pub leader: Server,
    pub epoch: Epoch,
    /// The last second that was taken.
    pub watermark: Second,
    pub nodes: Vec<NodeView>,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct NodeView {
    pub server: Server,
    pub role: Role,
    pub state: NodeState,
    pub running: usize,
    pub queued: usize,
    /// Runs that it may have at one time, waiting or running.
    pub capacity: usize,
    /// Its clock minus the leader's.
    pub clock_offset_ms: i64,
    pub last_contact_ms: u64,
    /// Its own store answers.
    #[serde(default)]
    pub store_ok: bool,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Leader,
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
pub struct Refusal {
    pub status: u16,
    /// What is wrong with what, and what is expected or what to do.
    pub message: String,
}

impl Refusal {
    pub fn bad(message: impl Into<String>) -> Refusal {
        Refusal { status: 400, message: message.into() }
    }

    pub fn unknown_job(id: JobId) -> Refusal {
        Refusal { status: 404, message: format!("id {id}: there is no such job; /cron/list shows the ids") }
    }

    pub fn unavailable(message: impl Into<String>) -> Refusal {
        Refusal { status: 503, message: message.into() }
    }
}
