//! Work that blocks, and its answers: what the core asks of the hands.
//!
//! Not the carrying out of the work: that is `worker`'s. Each hand has a queue of its own and carries out its work in
//! order: the leader's statements, the log rows, the spool, the readers, Consul, the Consul watch, and the processes
//! (for which two threads share one queue).
//!
//! Invariant: every `Work` goes out with a `WorkId` and comes back as exactly one `Done` with the same id.

mod consul;
pub mod output_files;
mod processes;

pub use consul::{Consul, ConsulAnswer, ConsulError, LockState, LockValue};
pub use processes::{Kill, KillHow, Left, Spawn, SpawnError, Started};

use crate::model::command::RequestKey;
use crate::model::config::Secret;
use crate::model::job::{JobFilter, JobPage};
use crate::model::journal::{Body, Entry, EntryId, StoredEntry};
use crate::model::log_row::{LastRun, LogFilter, LogPage, StoredLog};
use crate::model::{Attempt, Epoch, Job, JobId, LogRow, NodeId, RunKey, RunState, Second, Server, Version, Wall};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Connects an answer with its question. A `Node` never uses one twice.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct WorkId(pub u64);

/// Work for a hand: each kind has a queue and a thread of its own.
#[derive(Clone, Debug)]
pub enum Work {
    /// The leader's statements, and the opening of the store.
    Lead(Lead),
    /// Log rows into the store.
    Log(Log),
    /// Log rows on this node's disk.
    Spool(Spool),
    /// Reads from the store.
    Read(Read),
    /// Calls of Consul that answer at once.
    Consul(Consul),
    /// Answers when the lock is in another state than that with the number `index`, or after `wait_ms`;
    /// `Done::Watched`.
    Watch {
        /// `LockState::index` of the last answer; 0: answer at once.
        index: u64,
        wait_ms: u64,
    },
    /// `Done::Spawned`.
    Spawn(Spawn),
    /// `Done::Killed`.
    Kill(Kill),
}

/// The answer to a piece of work.
#[derive(Clone, Debug)]
pub enum Done {
    /// To `Lead::Open`.
    Opened(Result<Opened, StoreError>),
    /// To `Lead::Bump`.
    Bumped(Result<Bumped, StoreError>),
    /// To `Lead::Load`.
    Loaded(Result<Loaded, StoreError>),
    /// To `Lead::Journal`.
    Journaled(Result<Journaled, StoreError>),
    /// To `Lead::Change`: the job's id.
    Changed(Result<JobId, StoreError>),
    /// To `Lead::ReadRows`. An attempt without a row is not in it.
    Rows(Result<BTreeMap<Attempt, RunState>, StoreError>),
    /// To `Lead::Close`.
    Closed(Result<(), StoreError>),
    /// To `Lead::Pause`.
    Paused(Result<(), StoreError>),
    /// To `Log::Write`.
    LogsWritten(Result<(), StoreError>),
    /// To `Log::Retain`: whether more old rows may be left.
    LogsRetained(Result<bool, StoreError>),
    /// To `Log::Ping`.
    Pinged(Result<(), StoreError>),
    /// To any `Spool`. The error is for people.
    Spooled(Result<Spooled, String>),
    /// To `Read::Logs`.
    Logs(Result<LogPage, StoreError>),
    /// To `Read::Jobs`.
    Jobs(Result<JobPage, StoreError>),
    /// To `Read::LastRuns`. A job that never ran is not in it.
    LastRuns(Result<BTreeMap<JobId, LastRun>, StoreError>),
    /// To `Read::Batch`.
    Batch(Result<JobBatch, StoreError>),
    /// To `Read::Differences`. None: they are too many, or too old; the jobs must be read anew.
    Differences(Result<Option<Differences>, StoreError>),
    /// To `Read::Leader`. None: no node has ever led.
    Leader(Result<Option<StoredLeader>, StoreError>),
    /// To `Read::LogRow`. None: there is no such row.
    LogRow(Result<Option<Box<StoredLog>>, StoreError>),
    /// To any `Consul`.
    Consul(Result<ConsulAnswer, ConsulError>),
    /// To `Work::Watch`.
    Watched(Result<LockState, ConsulError>),
    /// To `Work::Spawn`, before its answer: no spawning thread has it now, because the host is asked for the job's user.
    LookingUp,
    /// To `Work::Spawn`.
    Spawned(Result<Started, SpawnError>),
    /// To `Work::Kill`: the signals are sent. Where they could not be refused, also what is left nevertheless.
    Killed(Left),
}

/// Why the store did not do some work.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum StoreError {
    /// The store was not reached: certainly nothing was done.
    Away(String),
    /// The store was too slow, or its answer was lost: nobody knows whether the work was done. It may be asked again.
    Unavailable(String),
    /// The epoch in the store is not the one that the statement names: another node leads now.
    Deposed,
    /// The store refuses, and will refuse again: the reason, for people.
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

/// The leader's statements. Those that change something have an effect only under the leader's epoch.
#[derive(Clone, Debug)]
pub enum Lead {
    /// Connect and apply the migrations; `Done::Opened`.
    Open,
    /// Take the lead: make the epoch one larger; `Done::Bumped`.
    Bump(Bump),
    /// Read what a new leader must know, once its epoch is in the store; `Done::Loaded`.
    Load { epoch: Epoch, since: Since },
    /// `Done::Journaled`. Asking again with the same epoch and request is harmless.
    Journal(Entry),
    /// Journal a change's note, then write the row; `Done::Changed`. Asking again with the same request is harmless.
    Change { epoch: Epoch, request: u64, change: Box<Change> },
    /// Read the log rows of all attempts of the runs that these attempts belong to; `Done::Rows`.
    ReadRows { epoch: Epoch, attempts: Vec<Attempt> },
    /// Set these entries `done`, and delete done entries older than `delete_before`, but never the watermark's;
    /// `Done::Closed`.
    Close { epoch: Epoch, entries: Vec<EntryId>, delete_before: Wall },
    /// Store whether scheduled runs are paused; `Done::Paused`.
    Pause { epoch: Epoch, paused: bool },
}

impl Lead {
    /// The answer to work that failed.
    pub fn failed(&self, error: StoreError) -> Done {
        match self {
            Lead::Open => Done::Opened(Err(error)),
            Lead::Bump(_) => Done::Bumped(Err(error)),
            Lead::Load { .. } => Done::Loaded(Err(error)),
            Lead::Journal(_) => Done::Journaled(Err(error)),
            Lead::Change { .. } => Done::Changed(Err(error)),
            Lead::ReadRows { .. } => Done::Rows(Err(error)),
            Lead::Pause { .. } => Done::Paused(Err(error)),
            Lead::Close { .. } => Done::Closed(Err(error)),
        }
    }
}

/// The node that takes the lead.
#[derive(Clone, Debug)]
pub struct Bump {
    /// The cluster's lock key, which the store keeps.
    pub lock_key: String,
    /// The address of the node that takes the lead.
    pub server: Server,
    /// The id of that node.
    pub node_id: NodeId,
    /// The node has no Consul, so no other node may lead: it is refused while another node's last journal entry is
    /// younger than `lease_ms`.
    pub alone: bool,
    /// `LEASE_MS`.
    pub lease_ms: u64,
}

/// The store is reached, and its tables are up to date.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Opened {
    /// The store's own clock, to compare with ours; none where it has none (SQLite).
    pub clock: Option<Wall>,
    /// Messages for the operator, such as that an INT column should be widened, and how.
    pub advice: Vec<String>,
    /// The secret of the links between the nodes that share this store; none where no node can (SQLite).
    pub link_secret: Option<Secret>,
}

/// The lead is this node's.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bumped {
    /// The new epoch: larger than every one before.
    pub epoch: Epoch,
}

/// What a new leader must know.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Loaded {
    /// The changes that the replica lacks; none where they are too many, so that it must be read anew.
    pub differences: Option<Differences>,
    /// The last tick whose part 0 is in the journal; none in a new database.
    pub watermark: Option<Second>,
    /// The entries that are not done, by id.
    pub open: Vec<StoredEntry>,
    /// The log rows of all attempts of the runs that the open entries name (a refused or missed run has number 0), and
    /// the rows that may explain their refusals.
    pub logged: BTreeMap<Attempt, RunState>,
    /// Scheduled runs are paused.
    pub is_paused: bool,
}

/// What became of an entry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Journaled {
    /// The entry is in the journal, since now or since an earlier try.
    Entry(EntryId),
    /// An earlier entry has the same request key, and this body. Nothing was written.
    Known(Body),
    /// An older epoch has journaled this tick and part.
    TickTaken,
}

/// A change of one row of table `cron`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// The store gives the id, and answers it. Where a job was added under this key before, that job's id is the
    /// answer, and nothing is written.
    Add(Job, RequestKey),
    /// The new row. The row in the store must have the version before this one.
    Put(Job),
    /// Delete the row.
    Delete { id: JobId, version: Version },
}

/// The most rows in one group of log rows.
pub const GROUP_ROWS_MAX: usize = 1_000;
/// The most bytes of output in one group of log rows; a single larger row goes alone.
pub const GROUP_BYTES_MAX: usize = 8 << 20;

/// Log rows, on a connection of their own.
#[derive(Clone, Debug)]
pub enum Log {
    /// Write the rows; `Done::LogsWritten`. After an error, some of them may be written. A definite state replaces
    /// `lost`. The row of a run that was started replaces a row by which the run was not started, because a leader
    /// wrote that one without knowing. Nothing else replaces a definite state.
    Write(Arc<[LogRow]>),
    /// Delete some of the rows whose `time` is before this second, a bounded number; `Done::LogsRetained`. The first of
    /// several such deletions removes the files of old outputs as well.
    Retain { before: Second, is_first: bool },
    /// Ask the store for an answer; `Done::Pinged`.
    Ping,
}

impl Log {
    /// The answer to work that failed.
    pub fn failed(&self, error: StoreError) -> Done {
        match self {
            Log::Write(_) => Done::LogsWritten(Err(error)),
            Log::Retain { .. } => Done::LogsRetained(Err(error)),
            Log::Ping => Done::Pinged(Err(error)),
        }
    }
}

/// Log rows on this node's own disk, while the store is away. Every answer is `Done::Spooled`.
#[derive(Clone, Debug)]
pub enum Spool {
    /// Write the rows to the end of the file, as one chunk, and wait until the disk has them.
    Append(Arc<[LogRow]>),
    /// Read the rows of a chunk back.
    Read(Chunk),
    /// Empty the file: all of its rows are committed.
    Empty,
}

/// What was done to the spool's file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Spooled {
    /// The rows are on the disk, as this chunk.
    Chunk(Chunk),
    /// The rows of the chunk.
    Rows(Vec<LogRow>),
    /// The file is empty.
    Emptied,
}

/// A part of the spool's file: whole rows, few enough for one group.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Chunk {
    /// The offset in the file, in bytes.
    pub at: u64,
    /// The length, in bytes.
    pub bytes: u64,
}

/// What former incarnations left in the spool.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SpoolLeft {
    /// The attempts whose rows are in the chunks.
    pub attempts: Vec<Attempt>,
    /// The chunks that were not emptied, in the order of the file.
    pub chunks: Vec<Chunk>,
}

/// Reads, on connections of their own. They change nothing and do not look at the epoch.
#[derive(Clone, Debug)]
pub enum Read {
    /// A page of the log rows; `Done::Logs`.
    Logs(LogFilter),
    /// A page of the jobs, or all of them where there is no filter; `Done::Jobs`.
    Jobs(Option<JobFilter>),
    /// The newest log row of each of these jobs; `Done::LastRuns`.
    LastRuns(Vec<JobId>),
    /// The first `limit` jobs with ids larger than `after`; `Done::Batch`.
    Batch { after: JobId, limit: usize },
    /// The changes that a replica lacks; `Done::Differences`.
    Differences(Since),
    /// The node that leads, as the store knows it; `Done::Leader`.
    Leader,
    /// The log row of a run's attempt, or of its latest one where `attempt` is none; `Done::LogRow`.
    LogRow { run: RunKey, attempt: Option<u32> },
}

/// How new a replica is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Since {
    /// The replica has every change that the journal notes up to this entry; 0: none of them.
    pub as_of: EntryId,
    /// The replica's largest job id: new jobs have larger ones, and the journal does not note them.
    pub newest: JobId,
    /// Jobs to be read again, whatever the journal says.
    pub again: Vec<JobId>,
}

/// Some jobs in order of their ids, for a reader that goes through all of them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct JobBatch {
    /// The largest entry before the rows were read.
    pub as_of: EntryId,
    /// With the first batch, as in `Differences`.
    pub last: Option<JobId>,
    /// In order of their ids.
    pub jobs: Vec<Job>,
}

/// The changes that a replica lacks.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Differences {
    /// The largest entry before the rows were read.
    pub as_of: EntryId,
    /// The rows as they are now. Where a job is there twice, the later row counts.
    pub changed: Vec<Job>,
    /// The jobs without a row.
    pub gone: Vec<JobId>,
    /// The job whose change was noted last. Changes are made one after the other, so no row but this job's may be
    /// missing still.
    pub last: Option<JobId>,
}

/// The node that was the last to take the lead.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct StoredLeader {
    /// The cluster's lock key.
    pub lock_key: String,
    /// The epoch that it made.
    pub epoch: Epoch,
    /// Its address.
    pub server: Server,
    /// Its id.
    pub node_id: NodeId,
}
