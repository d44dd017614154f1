//! A store in memory that keeps the contract of the real ones: fenced by the epoch, each statement whole, askable again.

use std::collections::{BTreeMap, BTreeSet};
use wing_crontab::core::work::{
    Bumped, Change, Differences, Done, JobPage, Journaled, Lead, Loaded, Log, Opened, Read, Since, StoreError,
};
use wing_crontab::model::journal::{Body, ChangeNote, Entry, EntryId, StoredEntry};
use wing_crontab::model::log_row::LogPage;
use wing_crontab::model::{Attempt, Epoch, Job, JobId, LogRow, RunKey, RunState};

#[derive(Debug, Default)]
pub struct Store {
    pub epoch: u64,
    pub is_fenced: bool,
    pub jobs: BTreeMap<JobId, Job>,
    pub journal: BTreeMap<i64, (Entry, bool)>,
    pub logs: BTreeMap<Attempt, LogRow>,
    /// Every definition that there ever was, with the second of its end.
    pub history: Vec<Job>,
    entries: i64,
    ids: u32,
    added: BTreeMap<(Epoch, u64), JobId>,
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
                let found = attempts.iter().copied().filter(|attempt| self.logs.contains_key(attempt)).collect();
                Done::Found(self.fenced(*epoch).map(|()| found))
            }
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
        let mut logged = BTreeSet::new();
        for stored in &open {
            let body = &stored.entry.body;
            let unstarted = body.refused.iter().map(|refused| refused.run);
            let unstarted = unstarted.chain(body.missed.iter().map(|gap| RunKey::scheduled(gap.cron_id, gap.last)));
            let attempts = body.runs.iter().map(|run| run.attempt);
            let attempts = attempts.chain(unstarted.map(|run| Attempt { run, number: 0 }));
            logged.extend(attempts.filter(|attempt| self.logs.contains_key(attempt)));
        }
        let watermark = whole.filter_map(|(entry, _)| entry.tick).max();
        Loaded { differences: Some(self.differences(since)), watermark, open, logged }
    }

    fn journal(&mut self, entry: &Entry) -> Result<Journaled, StoreError> {
        self.fenced(entry.epoch)?;
        let same = |(_, (old, _)): &(&i64, &(Entry, bool))| old.epoch == entry.epoch && old.request == entry.request;
        if let Some((id, _)) = self.journal.iter().find(same) {
            return Ok(Journaled::Entry(EntryId(*id)));
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
            Change::Add(_) => None,
            Change::Put(job) => Some(ChangeNote { cron_id: job.id, version: Some(job.version) }),
            Change::Delete { id, .. } => Some(ChangeNote { cron_id: *id, version: None }),
        };
        let same = |(old, _): &(Entry, bool)| old.epoch == epoch && old.request == request;
        if let Some(note) = note.filter(|_| !self.journal.values().any(same)) {
            let body = Body { changes: vec![note], ..Body::default() };
            self.insert(Entry { epoch, request, tick: None, part: 0, body }, true);
        }
        match change {
            Change::Add(job) => {
                if let Some(id) = self.added.get(&(epoch, request)) {
                    return Ok(*id);
                }
                self.ids += 1;
                let id = JobId(self.ids);
                self.added.insert((epoch, request), id);
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
