//! A change on its way: the command, how far the seconds before it are decided, and whether the store has it.
//!
//! Not here: the steps of a change; see `changes`.
//!
//! Invariant: a change that is in force and not stored is a stop.

use crate::core::io::ports::{Change, WorkId};
use crate::core::time::bounds::ANSWER_MS;
use crate::model::command::{Command, RequestId};
use crate::model::{Job, Mono, Second};

/// A command in the queue.
#[derive(Debug)]
pub struct QueuedChange {
    pub client: RequestId,
    pub command: Command,
    /// When its client is told that nothing was changed, if the store is away then; none before the first poll.
    pub answer_by: Option<Mono>,
}

/// The change that is being made.
#[derive(Debug)]
pub struct PendingChange {
    /// The statement that is with the store; none before the first, and between two of them.
    pub id: Option<WorkId>,
    /// When the present statement was sent; before the first, when the change began to wait.
    pub sent_at: Mono,
    pub stand: Stand,
    /// The first second in which it is in force.
    pub since: Second,
    /// It stops its job, so it may be put in force before it is stored.
    pub is_stop: bool,
    /// It is in force, and not stored yet.
    pub is_in_force: bool,
    /// None once the client is answered.
    pub client: Option<RequestId>,
    pub answer_by: Mono,
    /// The request number, by which the store knows a repeated statement.
    pub request: u64,
    pub change: Change,
}

impl PendingChange {
    /// A client's change, before anything was done about it.
    pub fn requested(client: RequestId, change: Change, since: Second, request: u64, now: Mono) -> PendingChange {
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

    /// A stop that is in force, and whose client is answered without it.
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

/// How far the job's seconds before a change are decided.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stand {
    /// They are not decided, and nothing was done about that: the change can still be declined.
    Open,
    /// The seconds that the job owed are being cancelled: the change has to be made.
    Settled,
    /// They are decided, and the journal says so.
    Decided,
}

/// A change that is done with the store.
#[derive(Debug)]
pub struct Made {
    pub client: Option<RequestId>,
    pub change: Change,
    /// It is a stop that was put in force before. The store may have refused it, and then will never take it.
    pub is_in_force: bool,
}

/// A stop that is to be put in force before it is stored.
#[derive(Debug)]
pub struct Urgent {
    pub client: Option<RequestId>,
    pub job: Job,
}
