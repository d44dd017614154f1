//! What nodes say to each other. The leader's own node is spoken to in the same words, without a socket.
//!
//! ```text
//! node -> leader   Hello, Holdings, Heartbeat, ToLeader, Command
//! leader -> node   Welcome or Refused, Beat, ToNode, Reply
//! ```
//!
//! Invariant: a message is a value; who sent it is known by the link that it came over, and under which epoch by that
//! link's Welcome: a link lives under one epoch only.

use super::command::{Command, Progress, Reply};
use super::output::OutputPart;
use super::status::RunStatus;
use super::{Attempt, Epoch, Incarnation, Job, JobId, NodeId, RunState, Second, Server, Version, Wall};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A connection between two nodes whose ends have proved that they belong to one cluster. Never reused by one reactor.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum LinkId {
    /// Made by this node, which gives the number.
    Out(u64),
    /// Made by another, numbered by the reactor.
    In(u64),
    /// The leader's to its own node: it has no socket, and lasts as long as the lead.
    Loopback,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum Message {
    Hello(Hello),
    /// From here on the node's leader is this one.
    Welcome {
        epoch: Epoch,
        /// The leader's clock when it wrote this.
        wall: Wall,
        valid_for_ms: u64,
    },
    /// The node may not take part: the reason, for people.
    Rejected {
        reason: String,
    },
    /// All that the node has, former incarnations included; said once, after Welcome.
    Holdings(Vec<(Attempt, Held)>),
    Heartbeat(Heartbeat),
    HeartbeatAck {
        /// The heartbeat's own `sent`.
        sent: u64,
        wall: Wall,
        /// The lease: so long from the sending of the heartbeat.
        valid_for_ms: u64,
        /// No scheduled run is started.
        paused: bool,
        #[serde(default)]
        progress: Progress,
    },
    ToNode(ToNode),
    ToLeader(ToLeader),
    /// An API call that only the leader can carry out.
    Command {
        request: u64,
        command: Box<Command>,
    },
    Reply {
        request: u64,
        reply: Reply,
    },
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Hello {
    pub node_id: NodeId,
    pub server: Server,
    pub incarnation: Incarnation,
    /// Runs that it may have at one time, waiting or running.
    pub capacity: usize,
    /// What jobs may name in `node`, beside the server.
    pub labels: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Heartbeat {
    /// By the node's own monotonic clock; comes back in the answer.
    pub sent: u64,
    /// The node's wall clock. Former versions judge it, wrongly where this lay in a buffer: nobody need read it.
    pub wall: Wall,
    /// How far that was ahead of the leader's, by a quick exchange; none where there was none lately.
    #[serde(default)]
    pub clock_offset_ms: Option<i64>,
    pub running: usize,
    pub waiting: usize,
    /// It takes no new runs.
    pub is_draining: bool,
    /// Its own store answers.
    #[serde(default)]
    pub store_ok: bool,
    /// The system has no room for another process just now: runs are better given to others.
    #[serde(default)]
    pub is_full: bool,
    /// Runs that it has told as skipped, shed or missed since its daemon's start.
    #[serde(default)]
    pub refused: u64,
}

/// How far a node has come with an attempt that it has.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Held {
    /// Taken, and surely not started; it will be, at its second.
    Waiting,
    /// Taken, and not started without a new order: the lease was over meanwhile, or the daemon was.
    Parked,
    /// Started, perhaps over: its log row is on its way.
    Begun,
    /// By marks that are void: nobody can say.
    Unknown,
}

/// From the leader to a node.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum ToNode {
    /// Arm these runs; each starts at its second, or at once where that is past.
    Dispatch(Vec<Order>),
    /// Drop every run of the job, not spawned yet, of a version below this one; with none, of every version.
    Cancel { cron_id: JobId, below: Option<Version> },
    /// The answer to Holdings: these are not to be started, and what former incarnations had begun may be explained.
    Settled { drop: Vec<Attempt> },
    /// Give back those of these that have not begun; `ToLeader::Returned` lists them.
    Return(Vec<Attempt>),
    /// Take no new runs until the next start.
    Drain,
    /// End this attempt, or drop it where it has not begun; `Finished` tells when it is over.
    Kill { attempt: Attempt },
    /// Tell what is held; `ToLeader::Runs` with the same number answers.
    ListRuns { request: u64 },
    /// Tell what this attempt has written from there on; `ToLeader::OutputRead` with the same number answers.
    ReadOutput { request: u64, attempt: Attempt, from: u64 },
}

/// From a node to the leader.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum ToLeader {
    /// Every run that `Cancel` meant is dropped (listed here) or has been spawned.
    Cancelled {
        cron_id: JobId,
        dropped: Vec<Attempt>,
    },
    /// The node is leaving and will not start these.
    Returned(Vec<Attempt>),
    /// Too many runs of their jobs wait on this node already: it does not take these, and has forgotten them.
    Refused(Vec<Attempt>),
    /// The process is over, or will never be started; its log row, with this state, is on its way.
    Finished {
        attempt: Attempt,
        state: RunState,
    },
    /// The log rows of these attempts are committed.
    Logged(Vec<Attempt>),
    Runs {
        request: u64,
        runs: Vec<HeldRun>,
    },
    /// None: the node has nothing of that attempt's output (any more).
    OutputRead {
        request: u64,
        part: Option<OutputPart>,
    },
}

/// An attempt that a node has, for people.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct HeldRun {
    pub attempt: Attempt,
    pub status: RunStatus,
    /// 0 while there is no process.
    pub pid: u32,
    /// When it began, by the node's wall clock in milliseconds; 0 while it has not.
    pub started_ms: i64,
}

impl HeldRun {
    /// A node tells of so many at most.
    pub const LIST_MAX: usize = 10_000;
}

/// One run for one node.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
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
