//! A store in memory that keeps the contract of the real ones: each statement is fenced by the epoch, carried out whole
//! or not at all, and may be repeated.

use crate::guard::Guard;
use std::collections::{BTreeMap, BTreeSet};
use wing_crontab::core::io::ports::{
    Bump, Bumped, Change, Differences, Done, JobBatch, Journaled, Lead, Loaded, Log, Opened, Read, Since, StoreError,
    StoredLeader,
};
use wing_crontab::core::time::bounds::COALESCE_SECS;
use wing_crontab::model::command::{Command, RequestKey};
use wing_crontab::model::job::JobPage;
use wing_crontab::model::journal::{Body, ChangeNote, Entry, EntryId, StoredEntry};
use wing_crontab::model::log_row::LogPage;
use wing_crontab::model::{Attempt, Epoch, Job, JobId, LogRow, NodeId, RunKey, RunState, Second, Version};

/// `misfire_grace`.
const GRACE_SECS: i64 = 60;
/// How far the clocks of two hosts may be apart.
const CLOCKS_SECS: i64 = 7;
/// How long the row of a waiting run may take, once the run's grace is over.
const ROWS_SECS: i64 = 2;

#[derive(Debug, Default)]
pub struct Store {
    pub without: Option<Guard>,
    /// The present second.
    pub second: i64,
    pub epoch: u64,
    /// The leader that has this epoch.
    leader: Option<StoredLeader>,
    pub is_paused: bool,
    pub jobs: BTreeMap<JobId, Job>,
    /// Every definition that was stored, in order; a deleted job's last one is stopped.
    pub definitions: Vec<Job>,
    pub journal: BTreeMap<i64, (Entry, bool)>,
    /// In which second each entry was written.
    pub written_at: BTreeMap<i64, i64>,
    pub logs: BTreeMap<Attempt, LogRow>,
    /// Violations that the store has noticed.
    pub wrong: Vec<String>,
    pub max_pending_per_job: usize,
    /// The nodes that the journal names for each attempt, with the version of the job.
    named: BTreeSet<(Attempt, Version, NodeId)>,
    /// Attempts of mutex jobs that are journaled, not started, and without a row.
    waiting: BTreeMap<JobId, BTreeSet<Attempt>>,
    /// The jobs of which too many runs wait, and since which second.
    crowded: BTreeMap<JobId, i64>,
    watermark: Option<Second>,
    /// The keys that must be unique: an epoch's request, and a tick's part.
    requests: BTreeMap<(Epoch, u64), EntryId>,
    ticks: BTreeSet<(Second, u32)>,
    /// The first part of a tick that an epoch wrote.
    tops: BTreeMap<(Epoch, Second), u32>,
    entries: i64,
    ids: u32,
    added: BTreeMap<RequestKey, JobId>,
}

impl Store {
    pub fn lead(&mut self, lead: &Lead) -> Done {
        match lead {
            Lead::Open => Done::Opened(Ok(Opened { clock: None, advice: Vec::new(), link_secret: None })),
            Lead::Bump(bump) => {
                self.epoch += 1;
                let Bump { lock_key, server, node_id, .. } = bump.clone();
                self.leader = Some(StoredLeader { lock_key, epoch: Epoch(self.epoch), server, node_id });
                Done::Bumped(Ok(Bumped { epoch: Epoch(self.epoch) }))
            }
            Lead::Load { epoch, since } => Done::Loaded(self.fenced(*epoch).map(|()| self.load(since))),
            Lead::Journal(entry) => Done::Journaled(self.journal(entry)),
            Lead::Change { epoch, request, change } => Done::Changed(self.change(*epoch, *request, change)),
            Lead::ReadRows { epoch, attempts } => {
                let runs = attempts.iter().map(|attempt| attempt.run).collect();
                Done::Rows(self.fenced(*epoch).map(|()| self.logged(&runs)))
            }
            Lead::Pause { epoch, paused } => Done::Paused(self.fenced(*epoch).map(|()| self.is_paused = *paused)),
            Lead::Close { epoch, entries, .. } => Done::Closed(self.fenced(*epoch).map(|()| {
                for id in entries {
                    if let Some((_, done)) = self.journal.get_mut(&id.0) {
                        *done = true;
                    }
                }
            })),
        }
    }

    pub fn log(&mut self, log: &Log) -> Done {
        if let Log::Write(rows) = log {
            for row in rows.iter() {
                let replaces =
                    self.logs.get(&row.attempt).is_none_or(|old| row.state != RunState::Lost && knows_less(old, row));
                if replaces {
                    self.logs.insert(row.attempt, row.clone());
                }
                self.started(row.attempt);
                let late_secs = self.second - row.attempt.run.scheduled_at.0;
                if row.state == RunState::Missed && late_secs < GRACE_SECS - CLOCKS_SECS {
                    self.wrong.push(format!("{} is called missed when it is {late_secs} s late", row.attempt));
                }
            }
        }
        Done::LogsWritten(Ok(()))
    }

    /// The attempt does not wait any more: it was started, or has a row.
    pub fn started(&mut self, attempt: Attempt) {
        self.waiting.entry(attempt.run.cron_id).or_default().remove(&attempt);
    }

    pub fn read(&self, read: &Read) -> Done {
        match read {
            Read::Jobs(_) => Done::Jobs(Ok(JobPage { jobs: self.jobs.values().cloned().collect(), total: None })),
            Read::LastRuns(_) => Done::LastRuns(Ok(BTreeMap::new())),
            Read::Logs(_) => Done::Logs(Ok(LogPage::default())),
            Read::Batch { after, limit } => {
                let jobs = self.jobs.values().filter(|job| *after < job.id).take(*limit).cloned().collect();
                Done::Batch(Ok(JobBatch { as_of: EntryId(self.entries), last: None, jobs }))
            }
            Read::Differences(since) => Done::Differences(Ok(Some(self.differences(since)))),
            Read::Leader => {
                let is_told = self.without != Some(Guard::LeaderByTheStore);
                Done::Leader(Ok(self.leader.clone().filter(|_| is_told)))
            }
            // Nobody reads output in this world.
            Read::LogRow { .. } => Done::LogRow(Ok(None)),
        }
    }

    /// The answer to a read that did not come through.
    pub fn unread(read: &Read) -> Done {
        let error = StoreError::Away("the store is away".into());
        match read {
            Read::Jobs(_) => Done::Jobs(Err(error)),
            Read::LastRuns(_) => Done::LastRuns(Err(error)),
            Read::Logs(_) => Done::Logs(Err(error)),
            Read::Batch { .. } => Done::Batch(Err(error)),
            Read::Differences(_) => Done::Differences(Err(error)),
            Read::Leader => Done::Leader(Err(error)),
            Read::LogRow { .. } => Done::LogRow(Err(error)),
        }
    }

    fn differences(&self, since: &Since) -> Differences {
        let notes = self.journal.range(since.as_of.0 + 1..).flat_map(|(_, (entry, _))| &entry.body.changes);
        let noted: Vec<JobId> = notes.map(|note| note.cron_id).collect();
        let asked: BTreeSet<JobId> = noted.iter().chain(&since.again).copied().collect();
        let (there, gone): (Vec<JobId>, Vec<JobId>) = asked.into_iter().partition(|id| self.jobs.contains_key(id));
        let new = self.jobs.keys().filter(|id| since.newest < **id);
        let changed = there.iter().chain(new).map(|id| self.jobs[id].clone()).collect();
        Differences { as_of: EntryId(self.entries), changed, gone, last: noted.last().copied() }
    }

    fn fenced(&self, epoch: Epoch) -> Result<(), StoreError> {
        let is_ours = epoch.0 == self.epoch || self.without == Some(Guard::EpochInTheStore);
        if is_ours { Ok(()) } else { Err(StoreError::Deposed) }
    }

    fn load(&self, since: &Since) -> Loaded {
        let open: Vec<StoredEntry> = self
            .journal
            .iter()
            .filter(|(_, (_, done))| !done)
            .map(|(id, (entry, _))| StoredEntry { id: EntryId(*id), entry: entry.clone() })
            .collect();
        let whole = self.journal.values().filter(|(entry, _)| entry.part == 0);
        let mut runs = BTreeSet::new();
        for stored in &open {
            let body = &stored.entry.body;
            runs.extend(body.runs.iter().map(|run| run.attempt.run));
            runs.extend(body.delayed.iter().map(|delayed| delayed.attempt.run));
            let gaps = body.missed.iter().chain(&body.settled);
            runs.extend(gaps.map(|gap| RunKey::scheduled(gap.cron_id, gap.last)));
            // A coalesced refusal is told by the row of a later second.
            let rows_of = |refused: RunKey| {
                (0..COALESCE_SECS).map(move |secs| RunKey::scheduled(refused.cron_id, refused.scheduled_at.plus(secs)))
            };
            runs.extend(body.refused.iter().flat_map(|refused| rows_of(refused.run)));
        }
        let logged = self.logged(&runs);
        let watermark = whole.filter_map(|(entry, _)| entry.tick).max();
        Loaded { differences: Some(self.differences(since)), watermark, open, logged, is_paused: self.is_paused }
    }

    fn logged(&self, runs: &BTreeSet<RunKey>) -> BTreeMap<Attempt, RunState> {
        let rows = self.logs.iter().filter(|(attempt, _)| runs.contains(&attempt.run));
        rows.map(|(attempt, row)| (*attempt, row.state)).collect()
    }

    fn journal(&mut self, entry: &Entry) -> Result<Journaled, StoreError> {
        if self.without == Some(Guard::JournalBeforeRegiving) && self.gives_again(entry) {
            self.entries += 1;
            return Ok(Journaled::Entry(EntryId(self.entries)));
        }
        self.fenced(entry.epoch)?;
        if let Some(id) = self.requests.get(&(entry.epoch, entry.request)) {
            return Ok(Journaled::Entry(*id));
        }
        let is_asked = |(old, _): &&(Entry, bool)| entry.request_key.is_some() && old.request_key == entry.request_key;
        if let Some((old, _)) = self.journal.values().find(is_asked) {
            return Ok(Journaled::Known(old.body.clone()));
        }
        let entry = self.as_told(entry);
        if entry.tick.is_some_and(|tick| !self.ticks.insert((tick, entry.part))) {
            return Ok(Journaled::TickTaken);
        }
        Ok(Journaled::Entry(self.insert(entry)))
    }

    /// Whether the entry does nothing but reassign runs.
    fn gives_again(&self, entry: &Entry) -> bool {
        let is_known = |attempt: Attempt| self.named.iter().any(|(named, _, _)| *named == attempt);
        let runs = &entry.body.runs;
        entry.tick.is_none() && !runs.is_empty() && runs.iter().all(|run| is_known(run.attempt))
    }

    /// The entry as a leader without the guard would write it.
    fn as_told(&mut self, entry: &Entry) -> Entry {
        let mut told = entry.clone();
        match (self.without, entry.tick) {
            (Some(Guard::GapUnderItsOwnTicks), Some(tick)) if tick.0 < self.second - 1 => told.tick = None,
            (Some(Guard::PartZeroLast), Some(tick)) => {
                let top = *self.tops.entry((entry.epoch, tick)).or_insert(entry.part);
                told.part = top.saturating_sub(entry.part);
            }
            _ => {}
        }
        told
    }

    fn insert(&mut self, entry: Entry) -> EntryId {
        if let Some(tick) = entry.tick {
            if self.watermark >= Some(tick) {
                self.wrong.push(format!("tick {} was journaled after {:?}", tick.0, self.watermark));
            }
            if entry.part == 0 {
                self.watermark = Some(tick);
            }
        }
        for run in &entry.body.runs {
            if let Some(node) = entry.body.nodes.get(usize::from(run.node)) {
                self.named.insert((run.attempt, run.version, node.clone()));
            }
            let cron_id = run.attempt.run.cron_id;
            if self.jobs.get(&cron_id).is_some_and(|job| job.is_mutex) && !self.logs.contains_key(&run.attempt) {
                self.waiting.entry(cron_id).or_default().insert(run.attempt);
            }
        }
        self.count_waiting();
        self.entries += 1;
        self.requests.insert((entry.epoch, entry.request), EntryId(self.entries));
        self.journal.insert(self.entries, (entry, false));
        self.written_at.insert(self.entries, self.second);
        EntryId(self.entries)
    }

    fn count_waiting(&mut self) {
        // One of them runs, and another one may be over without the store's knowledge.
        let limit = self.max_pending_per_job + 2;
        let (crowded, second) = (&mut self.crowded, self.second);
        for (id, waiting) in &self.waiting {
            if waiting.len() <= limit {
                crowded.remove(id);
            } else if *crowded.entry(*id).or_insert(second) + ROWS_SECS < second {
                self.wrong.push(format!("{} runs of mutex job {id} wait", waiting.len()));
            }
        }
    }

    /// Whether the journal gives the attempt to this node, in this version.
    pub fn names(&self, attempt: Attempt, version: Version, node: &NodeId) -> bool {
        self.named.contains(&(attempt, version, node.clone()))
    }

    fn change(&mut self, epoch: Epoch, request: u64, change: &Change) -> Result<JobId, StoreError> {
        self.fenced(epoch)?;
        let note = match change {
            Change::Add(..) => None,
            Change::Put(job) => Some(ChangeNote { cron_id: job.id, version: Some(job.version) }),
            Change::Delete { id, .. } => Some(ChangeNote { cron_id: *id, version: None }),
        };
        if let Some(note) = note.filter(|_| !self.requests.contains_key(&(epoch, request))) {
            self.insert_note(epoch, request, note);
        }
        match change {
            Change::Add(job, key) => {
                if let Some(id) = self.added.get(key) {
                    return Ok(*id);
                }
                self.ids += 1;
                let id = JobId(self.ids);
                self.added.insert(key.clone(), id);
                self.put(Job { id, ..job.clone() });
                Ok(id)
            }
            Change::Put(job) => {
                let edited = || StoreError::Permanent("the row was edited".into());
                match self.jobs.get(&job.id).map(|old| old.version) {
                    Some(version) if version.next() == job.version => self.put(job.clone()),
                    Some(version) if version == job.version => {}
                    _ => return Err(edited()),
                }
                Ok(job.id)
            }
            Change::Delete { id, version } => {
                if self.jobs.get(id).is_some_and(|job| job.version == *version) {
                    self.jobs.remove(id);
                }
                Ok(*id)
            }
        }
    }

    /// Writes an entry that only notes a change; nothing waits for it.
    fn insert_note(&mut self, epoch: Epoch, request: u64, note: ChangeNote) {
        let body = Body { changes: vec![note], ..Body::default() };
        let EntryId(id) = self.insert(Entry { epoch, request, tick: None, part: 0, body, request_key: None });
        self.journal.entry(id).and_modify(|(_, is_done)| *is_done = true);
    }

    /// Stores a stop or a start that does not wait for the ticks before it.
    pub fn change_early(&mut self, command: &Command) {
        let (id, stop) = match command {
            Command::StopJob(id) => (id, true),
            Command::StartJob(id) => (id, false),
            _ => return,
        };
        let Some(job) = self.jobs.get(id).cloned() else { return };
        let (version, since) = (job.version.next(), Second(self.second + 1));
        let note = ChangeNote { cron_id: *id, version: Some(version) };
        self.insert_note(Epoch(self.epoch), u64::MAX - self.entries as u64, note);
        self.put(Job { stop, version, since, ..job });
    }

    fn put(&mut self, job: Job) {
        self.definitions.push(job.clone());
        self.jobs.insert(job.id, job);
    }
}

/// Whether the new row of the same attempt, if it is not `lost`, replaces the old one.
fn knows_less(old: &LogRow, new: &LogRow) -> bool {
    old.state == RunState::Lost || old.start_time_ms == 0 && new.start_time_ms != 0
}
