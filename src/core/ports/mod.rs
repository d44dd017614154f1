//! Work that blocks, and its answers: what the brain asks of the hands.
//!
//! Every `Work` goes out with a `WorkId` and comes back as exactly one `Done` with the same id. Each hand is a queue of
//! its own and carries out its work in order: the leader's statements, the log rows, the spool, the readers, Consul,
//! the Consul watch, and the processes (where two threads share one queue).

use crate::model::command::RequestKey;
use crate::model::job::{JobFilter, JobPage};
use crate::model::journal::{Body, Entry, EntryId, StoredEntry};
use crate::model::log_row::{LastRun, LogFilter, LogPage, StoredLog};
use crate::model::{
    Attempt, Epoch, Incarnation, Job, JobId, LogRow, NodeId, RunKey, RunState, Second, Server, Version, Wall,
};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Joins an answer to its question; never reused by one `Node`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct WorkId(pub u64);

#[derive(Clone, Debug)]
pub enum Work {
    Lead(Lead),
    Log(Log),
    Spool(Spool),
    Read(Read),
    Consul(Consul),
    /// Answers when the lock's value changes, or after `wait_ms`.
    Watch {
        index: u64,
        wait_ms: u64,
    },
    Spawn(Spawn),
    Kill(Kill),
}

#[derive(Clone, Debug)]
pub enum Done {
    Opened(Result<Opened, StoreError>),
    Bumped(Result<Bumped, StoreError>),
    Loaded(Result<Loaded, StoreError>),
    Journaled(Result<Journaled, StoreError>),
    Changed(Result<JobId, StoreError>),
    Rows(Result<BTreeMap<Attempt, RunState>, StoreError>),
    Closed(Result<(), StoreError>),
    Paused(Result<(), StoreError>),
    LogsWritten(Result<(), StoreError>),
    LogsRetained(Result<(), StoreError>),
    Pinged(Result<(), StoreError>),
    /// The error is for people.
    Spooled(Result<Spooled, String>),
    Logs(Result<LogPage, StoreError>),
    Jobs(Result<JobPage, StoreError>),
    LastRuns(Result<BTreeMap<JobId, LastRun>, StoreError>),
    Batch(Result<JobBatch, StoreError>),
    Differences(Result<Option<Differences>, StoreError>),
    Leader(Result<Option<StoredLeader>, StoreError>),
    LogRow(Result<Option<Box<StoredLog>>, StoreError>),
    Consul(Result<ConsulAnswer, ConsulError>),
    Watched(Result<LockState, ConsulError>),
    Spawned(Result<Started, SpawnError>),
    Killed,
}

// The store.

/// Why the store did not do it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum StoreError {
    /// Not reached: surely nothing was done.
    Away(String),
    /// Too slow, or the answer was lost: whether it was done is unknown. The same work may be asked again.
    Unavailable(String),
    /// The epoch in the store is not the one that the statement names: another node leads now.
    Deposed,
    /// It will not be done however often it is asked: the reason, for people.
    Permanent(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Away(reason) | StoreError::Unavailable(reason) | StoreError::Permanent(reason) => {
                f.write_str(reason)
            }
            StoreError::Deposed => f.write_str("another node has taken the lead"),
        }
    }
}

/// The leader's statements. Each that changes something is guarded by the epoch.
#[derive(Clone, Debug)]
pub enum Lead {
    /// Connect and apply the migrations; `Done::Opened`.
    Open,
    /// Take the lead: make the epoch one larger; `Done::Bumped`.
    Bump(Bump),
    /// Read what a new leader must know, after the bump; `Done::Loaded`.
    Load { epoch: Epoch, since: Since },
    /// `Done::Journaled`. Asking again with the same epoch and request is harmless.
    Journal(Entry),
    /// Journal a change's note, then write the row; `Done::Changed`. Asking again with the same request is harmless.
    Change { epoch: Epoch, request: u64, change: Box<Change> },
    /// The rows of the runs of these attempts, all attempts of each; `Done::Found`.
    ReadRows { epoch: Epoch, attempts: Vec<Attempt> },
    /// Set these entries `done`, and delete done ones older than `delete_before_ms` (wall), never the watermark's.
    Close { epoch: Epoch, entries: Vec<EntryId>, delete_before: Wall },
    /// Remember that no scheduled run is to be started, or that they are again; `Done::Paused`.
    Pause { epoch: Epoch, paused: bool },
}

#[derive(Clone, Debug)]
pub struct Bump {
    pub lock_key: String,
    pub server: Server,
    pub node_id: NodeId,
    /// Standing alone, nobody else may lead: refused while another node's journal row is younger than `lease_ms`.
    pub alone: bool,
    pub lease_ms: u64,
}

/// The store is there and migrated.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Opened {
    /// The store's own clock where it has one (MySQL), to compare with ours.
    pub clock: Option<Wall>,
    /// What the operator should know, e.g. that an INT column should be widened and how.
    pub advice: Vec<String>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bumped {
    pub epoch: Epoch,
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Loaded {
    /// What the copy lacks; none: more than can be told this way, so it must be read anew.
    pub differences: Option<Differences>,
    /// The largest tick whose part 0 is in; none in a new database.
    pub watermark: Option<Second>,
    /// The entries that are not done, by id.
    pub open: Vec<StoredEntry>,
    /// The rows of the runs that the open entries name, all attempts of each (a refused or missed run has number 0), and
    /// those that may explain their refusals.
    pub logged: BTreeMap<Attempt, RunState>,
    /// No scheduled run is to be started.
    pub is_paused: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Journaled {
    /// In, now or at an earlier asking.
    Entry(EntryId),
    /// Another entry has the same request key: what was decided then. Nothing was written.
    Known(Body),
    /// An older epoch has journaled this tick and part.
    TickTaken,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// The id is the store's to give; it is in the answer. With a key that another job was added under, that job's id is
    /// the answer, and nothing is written.
    Add(Job, RequestKey),
    /// The row as it will be; the row there has the version before this one.
    Put(Job),
    Delete {
        id: JobId,
        version: Version,
    },
}

/// Rows in one group of log rows at most.
pub const GROUP_ROWS_MAX: usize = 1_000;
/// Bytes of output in one group at most; a single larger row goes alone.
pub const GROUP_BYTES_MAX: usize = 8 << 20;

/// Log rows, on a connection of their own.
#[derive(Clone, Debug)]
pub enum Log {
    /// All or nothing; `Done::LogsWritten`. A definite state replaces `lost`, and the row of a run that was started one that
    /// says it never was: the word of a leader that did not know. Nothing else replaces a definite state.
    Write(Arc<[LogRow]>),
    /// Delete the rows with `time` before this second, a bounded number at a time; `Done::LogsRetained`.
    Retain { before: Second },
    /// Whether the store answers; `Done::Pinged`.
    Ping,
}

/// Log rows on this node's own disk, for as long as the store is away.
#[derive(Clone, Debug)]
pub enum Spool {
    /// Put them behind what is there, and onto the disk.
    Append(Arc<[LogRow]>),
    /// Bring back what was appended together.
    Read(Chunk),
    /// Everything in it is committed.
    Empty,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Spooled {
    Chunk(Chunk),
    Rows(Vec<LogRow>),
    Emptied,
}

/// A part of the spool: whole rows, few enough for one group.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Chunk {
    pub at: u64,
    pub bytes: u64,
}

/// What former lives left in the spool.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SpoolLeft {
    pub attempts: Vec<Attempt>,
    pub chunks: Vec<Chunk>,
}

#[derive(Clone, Debug)]
pub enum Read {
    /// `Done::Logs`.
    Logs(LogFilter),
    /// `Done::Jobs`; with none, all of them.
    Jobs(Option<JobFilter>),
    /// What the newest log rows of these jobs say; `Done::LastRuns`.
    LastRuns(Vec<JobId>),
    /// The first so many jobs with larger ids than this; `Done::Page`.
    Batch { after: JobId, limit: usize },
    /// What a copy of the jobs lacks; `Done::Differences`.
    Differences(Since),
    /// Who leads, by the store; `Done::Leader`.
    Leader,
    /// The row of a run's attempt, or of its latest one; `Done::LogRow`.
    LogRow { run: RunKey, attempt: Option<u32> },
}

/// How new a copy of the jobs is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Since {
    /// It has every change that is noted up to this entry; 0: up to the beginning of the journal.
    pub as_of: EntryId,
    /// Its largest id: new jobs have larger ones, and are not noted.
    pub newest: JobId,
    /// Jobs to be read again, whatever the journal says.
    pub again: Vec<JobId>,
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct JobBatch {
    /// The largest entry before the rows were read.
    pub as_of: EntryId,
    /// With the first page, as in `Differences`.
    pub last: Option<JobId>,
    /// By id.
    pub jobs: Vec<Job>,
}

/// What a copy of the jobs lacks.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Differences {
    /// The largest entry before the rows were read.
    pub as_of: EntryId,
    /// The rows as they are; where a job comes twice the later one holds.
    pub changed: Vec<Job>,
    pub gone: Vec<JobId>,
    /// The job that was noted last: changes are made one after the other, so only its row may still be on its way.
    pub last: Option<JobId>,
}

/// Who was the last to take the lead.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct StoredLeader {
    /// The cluster's.
    pub lock_key: String,
    pub epoch: Epoch,
    pub server: Server,
    pub node_id: NodeId,
}

// Consul.

#[derive(Clone, Debug)]
pub enum Consul {
    /// Register (or register again) the service, its check, and the tag `isleader:..`.
    Register {
        is_leader: bool,
    },
    /// Tell the check that we live.
    Pass,
    CreateSession,
    /// Write the lock's value while taking or keeping the lock.
    Acquire {
        session: String,
        value: LockValue,
    },
    /// Give the lock up, and keep the session.
    Release {
        session: String,
    },
    /// Give the lock up (where there is a session), destroy the session and deregister: a clean end.
    Leave {
        session: Option<String>,
    },
    /// End a session.
    DestroySession {
        session: String,
    },
}

/// What the leader writes into the lock every second: it is alive, and this is where.
#[derive(Clone, Debug, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
pub struct LockValue {
    pub epoch: Epoch,
    pub tick: Second,
    pub server: Server,
    pub node_id: NodeId,
    pub incarnation: Incarnation,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ConsulAnswer {
    /// Registered, passed, left, destroyed.
    Done,
    Session(String),
    /// Whether the lock is ours.
    Acquired(bool),
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ConsulError {
    /// Not reached, or it answered with an error of its own.
    Unavailable(String),
    /// The session, or the check, is not known to Consul (any more).
    Unknown(String),
}

/// The lock as it is in Consul.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LockState {
    /// Hand it back with the next watch.
    pub index: u64,
    pub session: Option<String>,
    /// None where the key does not exist or its value is not ours to read.
    pub value: Option<LockValue>,
}

// Processes.

/// Start the command of one attempt. The hand checks the lease in the marks right before, and marks the attempt
/// `starting`, then `started` with its pid.
#[derive(Clone, Debug)]
pub struct Spawn {
    pub attempt: Attempt,
    pub job: Arc<Job>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Started {
    pub pid: u32,
    /// When, on the wall clock.
    pub at: Wall,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SpawnError {
    /// The lease had ended: nothing was started, and the mark says `held` again.
    NoLease,
    /// The host has no room for another process just now (processes, memory, descriptors): nothing was started, and the
    /// mark says `held` again.
    Exhausted(String),
    /// It will not start however often it is tried, or was ended at once; the reason, for the run's output.
    Failed(String),
}

/// Signal the processes of one running attempt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Kill {
    pub attempt: Attempt,
    pub how: KillHow,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KillHow {
    /// TERM to the process group.
    Ask,
    /// KILL to every process of the run, those that left the group included.
    Force,
}
