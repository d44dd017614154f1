//! The store: jobs, log, and the journal, in MySQL (or MariaDB) or in an embedded SQLite file.
//!
//! Two stores, one contract: `tests/store_contract` holds both to it. Both have the same organs: `schema` makes the tables,
//! `journal`, `jobs` and `logs` write and read them. What these have in common is here and in `rows`. Each hand (leader's
//! statements, log rows, reads) has a connection of its own.
//!
//! Invariants: no lock of ours outlives a round trip; every statement of a leader names its epoch, and changes nothing
//! when the epoch in the store is another one.

pub mod mysql;
mod rows;
pub mod sqlite;

use crate::core::ports::{
    Bump, Bumped, Change, Differences, JobBatch, Journaled, Loaded, Opened, Since, StoreError, StoredLeader,
};
use crate::core::time::bounds::COALESCE_SECS;
use crate::model::job::{JobFilter, JobPage};
use crate::model::journal::{Entry, EntryId, StoredEntry};
use crate::model::log_row::{LastRun, LogFilter, LogPage, StoredLog};
use crate::model::{Attempt, Epoch, Job, JobId, LogRow, RunKey, RunState, Second, Server, Wall};
use std::collections::{BTreeMap, BTreeSet};

/// Done entries deleted in one statement at most.
const DELETE_ENTRIES_MAX: u32 = 10_000;
/// Log rows deleted in one statement at most.
const DELETE_ROWS_MAX: u32 = 5_000;
/// Where a copy lacks more jobs than this it is read anew, page by page.
pub const DIFFERENCES_MAX: usize = 5_000;
/// Which entries have notes of changes: they have no tick, and this in their bodies.
const NOTED: &str = "tick IS NULL AND body LIKE '%\"changes\":[%'";

/// What a connection is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hand {
    /// The leader's statements: they go before log rows where one writer has to wait for another.
    Lead,
    /// The log rows.
    Log,
    /// What the API asks for: it may have to go through a large log.
    Reader,
}

pub trait Store: Send {
    /// Connects and applies the migrations.
    fn open(&mut self) -> Result<Opened, StoreError>;
    /// Whether it answers.
    fn ping(&mut self) -> Result<(), StoreError>;
    /// Who was the last to take the lead; none: nobody yet.
    fn leader(&mut self) -> Result<Option<StoredLeader>, StoreError>;
    /// Takes the lead: the epoch grows by one.
    fn bump(&mut self, bump: &Bump) -> Result<Bumped, StoreError>;
    /// What a new leader must know, read after its bump.
    fn load(&mut self, epoch: Epoch, since: &Since) -> Result<Loaded, StoreError>;
    /// Asking again with the same epoch and request is harmless.
    fn journal(&mut self, entry: &Entry) -> Result<Journaled, StoreError>;
    /// Sets entries done and deletes old done ones, never those of the largest tick.
    fn close(&mut self, epoch: Epoch, entries: &[EntryId], delete_before: Wall) -> Result<(), StoreError>;
    /// Remembers whether scheduled runs are started.
    fn pause(&mut self, epoch: Epoch, paused: bool) -> Result<(), StoreError>;
    /// Journals the note, then writes the row; answers the job's id. Asking again with the same request is harmless.
    fn change(&mut self, epoch: Epoch, request: u64, change: &Change) -> Result<JobId, StoreError>;
    fn list_jobs(&mut self) -> Result<Vec<Job>, StoreError>;
    /// The first so many jobs with larger ids than this, by id.
    fn read_batch(&mut self, after: JobId, limit: usize) -> Result<JobBatch, StoreError>;
    /// What a copy of the jobs lacks; none where that is too much, or the journal does not reach back so far.
    fn differences(&mut self, since: &Since) -> Result<Option<Differences>, StoreError>;
    fn find_jobs(&mut self, filter: &JobFilter) -> Result<JobPage, StoreError>;
    /// All or nothing. A definite state replaces `lost`, nothing replaces a definite state.
    fn write_logs(&mut self, rows: &[LogRow]) -> Result<(), StoreError>;
    /// Deletes log rows of before this second.
    fn retain_logs(&mut self, before: Second) -> Result<(), StoreError>;
    fn list_logs(&mut self, filter: &LogFilter) -> Result<LogPage, StoreError>;
    /// The row of this attempt, or of the run's latest one.
    fn find_log(&mut self, run: RunKey, attempt: Option<u32>) -> Result<Option<StoredLog>, StoreError>;
    /// The rows of the runs of these attempts, all attempts of each, read now.
    fn find_logs(&mut self, epoch: Epoch, attempts: &[Attempt]) -> Result<BTreeMap<Attempt, RunState>, StoreError>;
    /// What the newest log row of each of these jobs says, where there is one.
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

/// What a copy of the jobs must read again, and the job that was noted last.
struct Noted {
    jobs: BTreeSet<JobId>,
    last: Option<JobId>,
}

/// What entries that were read (id and body, in order) and the copy itself ask for; none where that is too much.
fn noted(entries: &[(i64, String)], since: &Since) -> Result<Option<Noted>, StoreError> {
    let mut noted = Noted { jobs: since.again.iter().copied().collect(), last: None };
    for (id, body) in entries {
        let body = rows::parse_body(*id, body)?;
        noted.jobs.extend(body.changes.iter().map(|note| note.cron_id));
        noted.last = body.changes.last().map(|note| note.cron_id).or(noted.last);
    }
    Ok((entries.len().max(noted.jobs.len()) <= DIFFERENCES_MAX).then_some(noted))
}

/// Puts together what was read: the rows of the jobs that were noted, and those of new ones.
fn differences(as_of: EntryId, noted: &Noted, rows: Vec<Job>, new: Vec<Job>) -> Option<Differences> {
    let found: BTreeSet<JobId> = rows.iter().map(|job| job.id).collect();
    let gone = noted.jobs.difference(&found).copied().collect();
    let changed = [rows, new].concat();
    (changed.len() <= DIFFERENCES_MAX).then_some(Differences { as_of, changed, gone, last: noted.last })
}

/// The runs of which a row may stand for a refusal that has none of its own: refusals are coalesced.
fn coalesced(open: &[StoredEntry], logged: &BTreeMap<Attempt, RunState>) -> BTreeSet<RunKey> {
    let refused = open.iter().flat_map(|stored| &stored.entry.body.refused).map(|refused| refused.run);
    let unexplained = refused.filter(|run| !logged.contains_key(&Attempt { run: *run, number: 0 }));
    let later =
        |run: RunKey| (1..COALESCE_SECS).map(move |secs| RunKey::scheduled(run.cron_id, run.scheduled_at.plus(secs)));
    unexplained.flat_map(later).collect()
}

/// A row's attempt and state, as they were stored; none where the text is not ours.
fn row_state(run_key: &str, number: u32, state: &str) -> Option<(Attempt, RunState)> {
    let run = run_key.parse().ok()?;
    Some((Attempt { run, number }, RunState::parse(state)?))
}

/// The journal's note of a change: none for a new job, whose id the store has yet to give.
fn note(change: &Change) -> Option<crate::model::journal::ChangeNote> {
    use crate::model::journal::ChangeNote;
    match change {
        Change::Add(..) => None,
        Change::Put(job) => Some(ChangeNote { cron_id: job.id, version: Some(job.version) }),
        Change::Delete { id, .. } => Some(ChangeNote { cron_id: *id, version: None }),
    }
}

/// Someone else has written the row since we read it.
fn edited_by_hand(id: JobId) -> StoreError {
    StoreError::Permanent(format!(
        "id {id}: its row in table cron was changed by hand; send SIGHUP to the leader to take that up, then try again"
    ))
}

/// Another lock_key on the same database would mean two leaders.
fn foreign_lock_key(ours: &str, stored: &str) -> StoreError {
    StoreError::Permanent(format!(
        "this database belongs to the cluster with lock_key {stored:?}, this node has lock_key {ours:?}: use the same one, \
         or, if no node uses the old one any more, run UPDATE scheduler SET lock_key = '{ours}'"
    ))
}

/// A node that stands alone must be the only one.
fn not_alone(leader: &Server, age_secs: i64) -> StoreError {
    StoreError::Permanent(format!(
        "this node stands alone (no consul_address), but {leader} led on the same database {age_secs} s ago: stop it and wait \
         10 s, or give both the same consul_address and lock_key"
    ))
}
