//! The store: jobs, log, and the journal, in MySQL (or MariaDB) or in an embedded SQLite file.
//!
//! Both stores keep one contract, which `tests/store_contract` checks. Both have the same parts: `schema` makes the
//! tables, `journal`, `jobs` and `logs` write and read one table each, and `lead` has the leader's calls that concern
//! several tables. The code that both share is here and in `rows`. Each hand (leader's statements, log rows, reads) has
//! a connection of its own.
//!
//! Not here: when something is written; the core says that.
//!
//! Invariants: no lock in the database outlives a call; every statement of a leader names its epoch, and changes
//! nothing where the store has another epoch.

pub mod mysql;
mod rows;
pub mod sqlite;

use crate::core::io::ports::{
    Bump, Bumped, Change, Differences, JobBatch, Journaled, Loaded, Opened, Since, StoreError, StoredLeader,
};
use crate::core::time::bounds::COALESCE_SECS;
use crate::model::job::{JobFilter, JobPage};
use crate::model::journal::{ChangeNote, Entry, EntryId, StoredEntry};
use crate::model::log_row::{LastRun, LogFilter, LogPage, StoredLog};
use crate::model::{Attempt, Epoch, Job, JobId, LogRow, RunKey, RunState, Second, Server, Wall};
use std::collections::{BTreeMap, BTreeSet};

/// The most done entries that one statement deletes.
const DELETE_ENTRIES_MAX: u32 = 10_000;
/// The most log rows that one statement deletes.
const DELETE_ROWS_MAX: u32 = 5_000;
/// A replica that lacks more jobs than this is read anew, batch by batch.
pub const DIFFERENCES_MAX: usize = 5_000;
/// The condition that an entry notes changes: it has no tick, and its body has this text.
const NOTED: &str = "tick IS NULL AND body LIKE '%\"changes\":[%'";

/// What a connection is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hand {
    /// The leader's statements. Where writers must wait for each other, they go before log rows.
    Lead,
    /// The log rows.
    Log,
    /// Reads for the API, which may take long on a large log.
    Reader,
}

/// The contract of both stores. Every call blocks until the store has answered or a time limit is over.
pub trait Store: Send {
    /// Connects and applies the migrations.
    fn open(&mut self) -> Result<Opened, StoreError>;
    /// Asks the store for an answer, and changes nothing.
    fn ping(&mut self) -> Result<(), StoreError>;
    /// The last node that took the lead; none in a new store.
    fn leader(&mut self) -> Result<Option<StoredLeader>, StoreError>;
    /// Takes the lead: the epoch grows by one. `Permanent` where the store belongs to another cluster, or another node
    /// leads that must not.
    fn bump(&mut self, bump: &Bump) -> Result<Bumped, StoreError>;
    /// Reads everything that a new leader must know. To be called after its bump.
    fn load(&mut self, epoch: Epoch, since: &Since) -> Result<Loaded, StoreError>;
    /// Writes an entry. Asking again with the same epoch and request is harmless.
    fn journal(&mut self, entry: &Entry) -> Result<Journaled, StoreError>;
    /// Sets entries done, and deletes done entries that were written before `delete_before`, never those of the largest
    /// tick.
    fn close(&mut self, epoch: Epoch, entries: &[EntryId], delete_before: Wall) -> Result<(), StoreError>;
    /// Stores whether scheduled runs are paused.
    fn pause(&mut self, epoch: Epoch, paused: bool) -> Result<(), StoreError>;
    /// Journals the note, then writes the row; answers the job's id. Asking again with the same request is harmless.
    fn change(&mut self, epoch: Epoch, request: u64, change: &Change) -> Result<JobId, StoreError>;
    /// All jobs, by id.
    fn list_jobs(&mut self) -> Result<Vec<Job>, StoreError>;
    /// The first `limit` jobs with larger ids than `after`, by id.
    fn read_batch(&mut self, after: JobId, limit: usize) -> Result<JobBatch, StoreError>;
    /// The changes that a replica lacks; none where they are more than `DIFFERENCES_MAX`, or the journal does not reach
    /// back so far.
    fn differences(&mut self, since: &Since) -> Result<Option<Differences>, StoreError>;
    /// A page of the jobs, by id.
    fn find_jobs(&mut self, filter: &JobFilter) -> Result<JobPage, StoreError>;
    /// Writes log rows; again is harmless. `core::io::ports::Log::Write` says which row replaces which.
    fn write_logs(&mut self, rows: &[LogRow]) -> Result<(), StoreError>;
    /// Deletes at most `DELETE_ROWS_MAX` log rows of runs before this second. Answers whether more may be left.
    fn retain_logs(&mut self, before: Second) -> Result<bool, StoreError>;
    /// A page of the log rows, the newest first.
    fn list_logs(&mut self, filter: &LogFilter) -> Result<LogPage, StoreError>;
    /// The log row of this attempt, or of the run's latest one where `attempt` is none.
    fn find_log(&mut self, run: RunKey, attempt: Option<u32>) -> Result<Option<StoredLog>, StoreError>;
    /// The states of all attempts of the runs that these attempts belong to.
    fn find_logs(&mut self, epoch: Epoch, attempts: &[Attempt]) -> Result<BTreeMap<Attempt, RunState>, StoreError>;
    /// The newest log row of each of these jobs, where there is one.
    fn last_runs(&mut self, ids: &[JobId]) -> Result<BTreeMap<JobId, LastRun>, StoreError>;
}

/// The runs whose log rows decide whether an open entry may be closed.
fn outcomes(open: &[StoredEntry]) -> BTreeSet<RunKey> {
    let of_entry = |stored: &StoredEntry| {
        let body = &stored.entry.body;
        let runs = body.runs.iter().map(|run| run.attempt.run);
        let delayed = body.delayed.iter().map(|delayed| delayed.attempt.run);
        let refused = body.refused.iter().map(|refused| refused.run);
        let gaps = body.missed.iter().chain(&body.settled);
        let missed = gaps.map(|gap| RunKey::scheduled(gap.cron_id, gap.last));
        runs.chain(delayed).chain(refused).chain(missed).collect::<Vec<RunKey>>()
    };
    open.iter().flat_map(of_entry).collect()
}

/// The jobs whose rows must be read for a replica: those that the journal notes, and those that the replica asks for.
struct Noted {
    jobs: BTreeSet<JobId>,
    /// The job that the newest note names.
    last: Option<JobId>,
}

/// Collects the noted jobs. `entries` are the ids and bodies of the entries with notes, by id. None where there are
/// more than `DIFFERENCES_MAX`.
fn noted(entries: &[(i64, String)], since: &Since) -> Result<Option<Noted>, StoreError> {
    let mut noted = Noted { jobs: since.again.iter().copied().collect(), last: None };
    for (id, body) in entries {
        let body = rows::parse_body(*id, body)?;
        noted.jobs.extend(body.changes.iter().map(|note| note.cron_id));
        noted.last = body.changes.last().map(|note| note.cron_id).or(noted.last);
    }
    Ok((entries.len().max(noted.jobs.len()) <= DIFFERENCES_MAX).then_some(noted))
}

/// The differences, from the rows of the noted jobs and the rows of new jobs; none where there are too many.
fn differences(as_of: EntryId, noted: &Noted, rows: Vec<Job>, new: Vec<Job>) -> Option<Differences> {
    let found: BTreeSet<JobId> = rows.iter().map(|job| job.id).collect();
    let gone = noted.jobs.difference(&found).copied().collect();
    let changed = [rows, new].concat();
    (changed.len() <= DIFFERENCES_MAX).then_some(Differences { as_of, changed, gone, last: noted.last })
}

/// The runs whose log rows may explain a refusal that has no row of its own: coalesced refusals share a row, which has
/// the run key of a later one.
fn coalesced(open: &[StoredEntry], logged: &BTreeMap<Attempt, RunState>) -> BTreeSet<RunKey> {
    let refused = open.iter().flat_map(|stored| &stored.entry.body.refused).map(|refused| refused.run);
    let unexplained = refused.filter(|run| !logged.contains_key(&Attempt { run: *run, number: 0 }));
    let later =
        |run: RunKey| (1..COALESCE_SECS).map(move |secs| RunKey::scheduled(run.cron_id, run.scheduled_at.plus(secs)));
    unexplained.flat_map(later).collect()
}

/// A row's attempt and state; none where this program did not write these texts.
fn row_state(run_key: &str, number: u32, state: &str) -> Option<(Attempt, RunState)> {
    let run = run_key.parse().ok()?;
    Some((Attempt { run, number }, RunState::parse(state)?))
}

/// The journal's note of a change; none for a new job, which has no id before the store gives it.
fn note(change: &Change) -> Option<ChangeNote> {
    match change {
        Change::Add(..) => None,
        Change::Put(job) => Some(ChangeNote { cron_id: job.id, version: Some(job.version) }),
        Change::Delete { id, .. } => Some(ChangeNote { cron_id: *id, version: None }),
    }
}

/// The error where somebody else has written the row since this leader read it.
fn edited_by_hand(id: JobId) -> StoreError {
    StoreError::Permanent(format!(
        "id {id}: its row in table cron was changed by hand; send SIGHUP to the leader to take that up, then try again"
    ))
}

/// The error of a node whose lock_key is not that of the database: there would be two leaders.
fn foreign_lock_key(ours: &str, stored: &str) -> StoreError {
    StoreError::Permanent(format!(
        "this database belongs to the cluster with lock_key {stored:?}, this node has lock_key {ours:?}: use the same one, \
         or, if no node uses the old one any more, run UPDATE scheduler SET lock_key = '{ours}'"
    ))
}

/// The error of a node without Consul on a database that another node uses.
fn not_alone(leader: &Server, age_secs: i64) -> StoreError {
    StoreError::Permanent(format!(
        "this node stands alone (no consul_address), but {leader} led on the same database {age_secs} s ago: stop it and wait \
         10 s, or give both the same consul_address and lock_key"
    ))
}
