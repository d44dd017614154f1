//! What the API asks of the node, and what it is answered.
//!
//! Invariant: a `Command` is well-formed (types, lengths, ranges are checked in `api`); whether it makes sense (a known
//! id, a schedule that can match) is the node's to say.

use crate::model::log_row::{LogFilter, LogPage};
use crate::model::{Job, JobId};
use std::sync::Arc;

/// Names the HTTP request that an answer belongs to; the reactor gives it and never reuses it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RequestId(pub u64);

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Command {
    ListJobs,
    AddJob(JobDraft),
    UpdateJob(JobId, JobDraft),
    StopJob(JobId),
    StartJob(JobId),
    DeleteJob(JobId),
    ListLogs(LogFilter),
}

/// The fields of a job that its user writes. A field that the seed's API documents has the documented default when it
/// is left out; a later one is `None` and keeps its value on update.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct JobDraft {
    pub cron_set: String,
    pub command: String,
    pub remark: String,
    pub stop: bool,
    pub start_time: i64,
    pub end_time: i64,
    pub is_mutex: bool,
    pub lock_limit: Option<u32>,
}

pub type Reply = Result<Answer, Refusal>;

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    Jobs(Vec<Arc<Job>>),
    Job(Arc<Job>),
    Logs(LogPage),
}

/// Why a command was not carried out; `status` is the HTTP status.
#[derive(Clone, Debug, Eq, PartialEq)]
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
