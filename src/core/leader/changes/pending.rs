//! A change on its way: what was asked, how far the seconds before it are decided, and with whom it is.
//!
//! Invariant: a change that is in force and not stored is a stop.

use super::ANSWER_MS;
use crate::core::ports::{Change, WorkId};
use crate::model::command::{Command, RequestId};
use crate::model::{Job, Mono, Second};

#[derive(Debug)]
pub struct Waiting {
    pub client: RequestId,
    pub command: Command,
    /// When its client is refused at the latest, while the store is away; none before it was first looked at.
    pub answer_by: Option<Mono>,
}

#[derive(Debug)]
pub struct PendingChange {
    /// None while the store, or what is due before, is being waited for.
    pub id: Option<WorkId>,
    /// Of the present asking; before the first, when its wait began.
    pub sent_at: Mono,
    pub stand: Stand,
    /// The first second in which it is in force.
    pub since: Second,
    /// It may be put in force before it is stored; and it has been.
    pub is_stop: bool,
    pub is_in_force: bool,
    pub client: Option<RequestId>,
    pub answer_by: Mono,
    pub request: u64,
    pub change: Change,
}

impl PendingChange {
    /// A client's change, which has yet to be looked at.
    pub fn asked(client: RequestId, change: Change, since: Second, request: u64, now: Mono) -> PendingChange {
        PendingChange {
            id: None,
            sent_at: now,
            stand: Stand::Open,
            since,
            is_stop: false,
            is_in_force: false,
            client: Some(client),
            answer_by: now.plus_ms(ANSWER_MS),
            request,
            change,
        }
    }

    /// A stop that is in force, and that its client has been told of.
    pub fn in_force(job: Job, request: u64, now: Mono) -> PendingChange {
        PendingChange {
            id: None,
            sent_at: now,
            stand: Stand::Settled,
            since: job.since,
            is_stop: true,
            is_in_force: true,
            client: None,
            answer_by: Mono::NEVER,
            request,
            change: Change::Put(job),
        }
    }
}

/// How far what is due before a change is decided.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stand {
    /// It is not, and nothing was done about it.
    Open,
    /// What the job owed is being cancelled: the change is as good as asked for.
    Settled,
    Decided,
}

/// A change that the store has made.
#[derive(Debug)]
pub struct Made {
    pub client: Option<RequestId>,
    pub change: Change,
    /// It has been for some time. The store may have refused it all the same.
    pub is_in_force: bool,
}

/// A stop that is to be put in force before it is stored.
#[derive(Debug)]
pub struct Urgent {
    pub client: Option<RequestId>,
    pub job: Job,
}
