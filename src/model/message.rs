//! The messages between nodes. A leader and its own node exchange the same messages, without a socket.
//!
//! ```text
//! node -> leader   Hello, Holdings, Heartbeat, ToLeader, Command
//! leader -> node   Welcome or Rejected, HeartbeatAck, ToNode, Reply
//! ```
//!
//! Not the bytes on a socket: those are in `wire::channel`.
//!
//! Invariant: a message does not name its sender or its epoch. The link that it came over tells the sender, and the
//! link's Welcome the epoch: a link lasts under one epoch only.

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
    /// Made by another node; the reactor gives the number.
    In(u64),
    /// Between the leader and its own node: it has no socket, and lasts as long as the lead.
    Loopback,
}

/// A message between a node and its leader.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum Message {
    /// The first message over a link.
    Hello(Hello),
    /// From now on the sender is the node's leader.
    Welcome {
        /// The leader's epoch, which all that comes over this link is under.
        epoch: Epoch,
        /// The leader's clock when it wrote this.
        wall: Wall,
        /// The lease, as in `HeartbeatAck`, from the sending of the Hello.
        valid_for_ms: u64,
    },
    /// The node may not take part: the reason, for people.
    Rejected { reason: String },
    /// All runs that the node has, those of former incarnations included. Sent once, after Welcome.
    Holdings(Vec<(Attempt, Held)>),
    /// The node lives. `HeartbeatAck` answers.
    Heartbeat(Heartbeat),
    /// The answer to a heartbeat, with a lease.
    HeartbeatAck {
        /// The heartbeat's own `sent`.
        sent: u64,
        /// The leader's clock when it wrote this.
        wall: Wall,
        /// How long the lease lasts, from the sending of the heartbeat.
        valid_for_ms: u64,
        /// No scheduled run is started.
        paused: bool,
        /// How the leader's own work goes.
        #[serde(default)]
        progress: Progress,
    },
    /// An order.
    ToNode(ToNode),
    /// What became of the node's runs, or the answer to an order.
    ToLeader(ToLeader),
    /// An API call that only the leader can carry out.
    Command {
        /// The node's number for the call; the reply has it, too.
        request: u64,
        command: Box<Command>,
    },
    /// The answer to a call.
    Reply { request: u64, reply: Reply },
}

/// The greeting of a node to its leader.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Hello {
    /// The same for as long as the node has its data_dir.
    pub node_id: NodeId,
    /// The node's bind_address.
    pub server: Server,
    /// The life of its daemon: a restarted one has a larger number.
    pub incarnation: Incarnation,
    /// How many runs the node may have at one time, waiting or running.
    pub capacity: usize,
    /// Names for the node, beside its server, that a job's `node` may have.
    pub labels: Vec<String>,
    /// The node may have begun runs that it does not name, before this life of its daemon. It says so until `Explained`.
    #[serde(default)]
    pub has_forgotten: bool,
}

/// The word of a node to its leader, every `HEARTBEAT_MS`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Heartbeat {
    /// When it was sent, by the node's own monotonic clock, in nanoseconds. It comes back in the answer.
    pub sent: u64,
    /// The node's wall clock. Only leaders of earlier versions read it; where the heartbeat waited in a buffer, they
    /// misjudge the clock.
    pub wall: Wall,
    /// How many milliseconds the node's clock is ahead of the leader's, by their last quick exchange; none where there was
    /// none lately.
    #[serde(default)]
    pub clock_offset_ms: Option<i64>,
    /// How many runs have a process.
    pub running: usize,
    /// How many runs are held and have none yet.
    pub waiting: usize,
    /// The node takes no new runs.
    pub is_draining: bool,
    /// Its own store answers.
    #[serde(default)]
    pub store_ok: bool,
    /// The node's host can start no further process just now: other nodes are better candidates.
    #[serde(default)]
    pub is_full: bool,
    /// As in `NodeView`.
    #[serde(default)]
    pub refused: u64,
}

/// How far a node has come with an attempt that it has.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Held {
    /// Certainly not started. It will start at its second.
    Waiting,
    /// Certainly not started, and it needs a new order to start: the lease was over meanwhile, or the daemon died.
    Parked,
    /// Started, and perhaps over. Its log row is on its way, or will be.
    Begun,
    /// Nobody knows: its mark is from before the host's last start.
    Unknown,
}

/// From the leader to a node.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum ToNode {
    /// Arm these runs; each starts at its second, or at once where that is past.
    Dispatch(Vec<Order>),
    /// Drop the job's runs that have not started, of versions older than `below` (none: of every version).
    /// `ToLeader::Cancelled` answers.
    Cancel { cron_id: JobId, below: Option<Version> },
    /// The answer to Holdings: drop these runs, and write the log rows of runs that former incarnations began.
    Settled { drop: Vec<Attempt> },
    /// Every run that the node may have forgotten has its log row.
    Explained,
    /// Give back those of these runs that have not started; `ToLeader::Returned` lists them.
    Return(Vec<Attempt>),
    /// Take no new runs until the next start.
    Drain,
    /// End this attempt, or drop it where it has not started; `ToLeader::Finished` says when it is over.
    Kill { attempt: Attempt },
    /// List the held runs; `ToLeader::Runs` with the same number answers.
    ListRuns { request: u64 },
    /// Read this attempt's output from byte `from` on; `ToLeader::OutputRead` with the same number answers.
    ReadOutput { request: u64, attempt: Attempt, from: u64 },
}

/// From a node to the leader.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum ToLeader {
    /// Every run that `Cancel` applies to has been dropped (these) or started.
    Cancelled { cron_id: JobId, dropped: Vec<Attempt> },
    /// The node gives these runs back: it will not start them, because it shuts down or was asked to.
    Returned(Vec<Attempt>),
    /// The node has dropped these runs: too many runs of their jobs wait on it already.
    Refused(Vec<Attempt>),
    /// The process is over, or will never be started. The log row, with this state, is on its way.
    /// `left`: what is or may be left of a run that somebody ended, for people.
    Finished {
        attempt: Attempt,
        state: RunState,
        #[serde(default)]
        left: Option<String>,
    },
    /// The log rows of these attempts are committed.
    Logged(Vec<Attempt>),
    /// The held runs, at most `HeldRun::LIST_MAX`.
    Runs { request: u64, runs: Vec<HeldRun> },
    /// The part that `ReadOutput` asked for. None: the node has nothing of that attempt's output (any more).
    OutputRead { request: u64, part: Option<OutputPart> },
}

/// An attempt that a node has, for people.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct HeldRun {
    pub attempt: Attempt,
    /// How far it has come.
    pub status: RunStatus,
    /// 0 while there is no process.
    pub pid: u32,
    /// When it started, by the node's wall clock, in Unix milliseconds; 0 while it has not.
    pub started_ms: i64,
}

impl HeldRun {
    /// The most runs that a node lists.
    pub const LIST_MAX: usize = 10_000;
}

/// One run for one node.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Order {
    pub attempt: Attempt,
    /// The definition to run.
    pub job: Arc<Job>,
    /// Its second is past, so it waits in the ready queue behind runs on time (which get three starts in four).
    pub late: bool,
    /// The last second in which it may still start; none for a run that waited for a permit, however long.
    pub expires: Option<Second>,
    /// When the leader gave the run out, for its log row.
    pub dispatch_time: Second,
    /// The leader's address, for the log row.
    pub dispatch_server: Server,
}
