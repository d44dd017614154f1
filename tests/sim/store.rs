//! A store in memory that keeps the contract of the real ones: fenced by the epoch, each statement whole, askable again.

use std::collections::{BTreeMap, BTreeSet};
use wing_crontab::core::work::{
    Bumped, Change, Differences, Done, FOLD_SECS, JobPage, Journaled, Lead, Loaded, Log, Opened, Read, Since,
    StoreError,
};
use wing_crontab::model::command::RequestKey;
use wing_crontab::model::journal::{Body, ChangeNote, Entry, EntryId, StoredEntry};
use wing_crontab::model::log_row::LogPage;
use wing_crontab::model::{Attempt, Epoch, Job, JobId, LogRow, RunKey, RunState};

#[derive(Debug, Default)]
pub struct Store {
    pub epoch: u64,
    pub is_fenced: bool,
    pub is_paused: bool,
    pub jobs: BTreeMap<JobId, Job>,
    pub journal: BTreeMap<i64, (Entry, bool)>,
    pub logs: BTreeMap<Attempt, LogRow>,
    /// Every definition that there ever was, with the second of its end.
    pub history: Vec<Job>,
    entries: i64,
    ids: u32,
    added: BTreeMap<RequestKey, JobId>,
}

impl Store {
    pub fn lead(&mut self, lead: &Lead) -> Done {
        match lead {
            Lead::Open => Done::Opened(Ok(Opened { clock: None, advice: Vec::new() })),
            Lead::Bump(_) => {
                self.epoch += 1;
                Done::Bumped(Ok(Bumped { epoch: Epoch(self.epoch) }))
            }
            Lead::Load { epoch, since } => Done::Loaded(self.fenced(*epoch).map(|()| self.load(since))),
            Lead::Journal(entry) => Done::Journaled(self.journal(entry)),
            Lead::Change { epoch, request, change } => Done::Changed(self.change(*epoch, *request, change)),
            Lead::Find { epoch, attempts } => {
                let runs = attempts.iter().map(|attempt| attempt.run).collect();
                Done::Found(self.fenced(*epoch).map(|()| self.logged(&runs)))
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
                let replaces = self
                    .logs
                    .get(&row.attempt)
                    .is_none_or(|old| old.state == RunState::Lost && row.state != RunState::Lost);
                if replaces {
                    self.logs.insert(row.attempt, row.clone());
                }
            }
        }
        Done::LogsWritten(Ok(()))
    }

    pub fn read(&mut self, read: &Read) -> Done {
        match read {
            Read::Jobs => Done::Jobs(Ok(self.jobs.values().cloned().collect())),
            Read::Logs(_) => Done::Logs(Ok(LogPage::default())),
            Read::Page { after, limit } => {
                let jobs = self.jobs.values().filter(|job| *after < job.id).take(*limit).cloned().collect();
                Done::Page(Ok(JobPage { as_of: EntryId(self.entries), last: None, jobs }))
            }
            Read::Differences(since) => Done::Differences(Ok(Some(self.differences(since)))),
            // Nobody reads output in this world.
            Read::LogRow { .. } => Done::LogRow(Ok(None)),
        }
    }

    /// The answer to a read that did not come through.
    pub fn unread(read: &Read) -> Done {
        let error = StoreError::Away("the store is away".into());
        match read {
            Read::Jobs => Done::Jobs(Err(error)),
            Read::Logs(_) => Done::Logs(Err(error)),
            Read::Page { .. } => Done::Page(Err(error)),
            Read::Differences(_) => Done::Differences(Err(error)),
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

    /// The answer to work that did not come through.
    pub fn failed(lead: &Lead, error: StoreError) -> Done {
        match lead {
            Lead::Open => Done::Opened(Err(error)),
            Lead::Bump(_) => Done::Bumped(Err(error)),
            Lead::Load { .. } => Done::Loaded(Err(error)),
            Lead::Journal(_) => Done::Journaled(Err(error)),
            Lead::Change { .. } => Done::Changed(Err(error)),
            Lead::Find { .. } => Done::Found(Err(error)),
            Lead::Close { .. } => Done::Closed(Err(error)),
            Lead::Pause { .. } => Done::Paused(Err(error)),
        }
    }

    fn fenced(&self, epoch: Epoch) -> Result<(), StoreError> {
        if epoch.0 == self.epoch || !self.is_fenced { Ok(()) } else { Err(StoreError::Deposed) }
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
            runs.extend(body.missed.iter().map(|gap| RunKey::scheduled(gap.cron_id, gap.last)));
            // A later row may stand for a refusal too.
            let rows_of = |refused: RunKey| {
                (0..FOLD_SECS).map(move |secs| RunKey::scheduled(refused.cron_id, refused.scheduled_at.plus(secs)))
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
        self.fenced(entry.epoch)?;
        let same = |(_, (old, _)): &(&i64, &(Entry, bool))| old.epoch == entry.epoch && old.request == entry.request;
        if let Some((id, _)) = self.journal.iter().find(same) {
            return Ok(Journaled::Entry(EntryId(*id)));
        }
        let is_asked = |(old, _): &&(Entry, bool)| entry.request_key.is_some() && old.request_key == entry.request_key;
        if let Some((old, _)) = self.journal.values().find(is_asked) {
            return Ok(Journaled::Known(old.body.clone()));
        }
        let is_taken =
            |(old, _): &(Entry, bool)| entry.tick.is_some() && old.tick == entry.tick && old.part == entry.part;
        if self.journal.values().any(is_taken) {
            return Ok(Journaled::TickTaken);
        }
        Ok(Journaled::Entry(self.insert(entry.clone(), false)))
    }

    fn insert(&mut self, entry: Entry, is_done: bool) -> EntryId {
        self.entries += 1;
        self.journal.insert(self.entries, (entry, is_done));
        EntryId(self.entries)
    }

    fn change(&mut self, epoch: Epoch, request: u64, change: &Change) -> Result<JobId, StoreError> {
        self.fenced(epoch)?;
        let note = match change {
            Change::Add(..) => None,
            Change::Put(job) => Some(ChangeNote { cron_id: job.id, version: Some(job.version) }),
            Change::Delete { id, .. } => Some(ChangeNote { cron_id: *id, version: None }),
        };
        let same = |(old, _): &(Entry, bool)| old.epoch == epoch && old.request == request;
        if let Some(note) = note.filter(|_| !self.journal.values().any(same)) {
            let body = Body { changes: vec![note], ..Body::default() };
            self.insert(Entry { epoch, request, tick: None, part: 0, body, request_key: None }, true);
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
                self.put(job.clone());
                Ok(job.id)
            }
            Change::Delete { id, .. } => {
                self.jobs.remove(id);
                Ok(*id)
            }
        }
    }

    fn put(&mut self, job: Job) {
        if self.jobs.get(&job.id) != Some(&job) {
            self.history.push(job.clone());
        }
        self.jobs.insert(job.id, job);
    }
}
