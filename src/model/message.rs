//! What a leader and a node say to each other. The leader's own node is spoken to in the same words, without a socket.
//!
//! Invariant: a message is a value; who sent it, and under which epoch, travels beside it.

use super::{Attempt, Job, JobId, Second, Server, Version};
use std::sync::Arc;

/// From the leader to a node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ToNode {
    /// Arm these runs; each starts at its second, or at once where that is past.
    Dispatch(Vec<Order>),
    /// Drop every run of the job, not spawned yet, of a version below this one; with none, of every version.
    Cancel { cron_id: JobId, below: Option<Version> },
}

/// From a node to the leader.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ToLeader {
    /// Every run that `Cancel` meant is dropped (listed here) or has been spawned.
    Cancelled { cron_id: JobId, dropped: Vec<Attempt> },
    /// The process is over; its log row is on its way.
    Finished(Attempt),
    /// The log rows of these attempts are committed.
    Logged(Vec<Attempt>),
}

/// One run for one node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Order {
    pub attempt: Attempt,
    pub job: Arc<Job>,
    /// Its second is past: it goes in capacity that runs on time leave spare.
    pub late: bool,
    /// The last second in which it may still start; none: a mutex run that waited its turn, however long.
    pub expires: Option<Second>,
    pub dispatch_time: Second,
    pub dispatch_server: Server,
}
