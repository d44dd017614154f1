//! A store in memory that keeps the contract of the real ones: fenced by the epoch, each statement whole, askable again.

use std::collections::{BTreeMap, BTreeSet};
use wing_crontab::core::work::{
    Bumped, Change, Done, FOLD_SECS, Journaled, Lead, Loaded, Log, Opened, Read, StoreError,
};
use wing_crontab::model::command::RequestKey;
use wing_crontab::model::journal::{Entry, EntryId, StoredEntry};
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
            Lead::Load(epoch) => Done::Loaded(self.fenced(*epoch).map(|()| self.load())),
            Lead::Journal(entry) => Done::Journaled(self.journal(entry)),
            Lead::Change { epoch, change, .. } => Done::Changed(self.change(*epoch, change)),
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
            // Nobody reads output in this world.
            Read::LogRow { .. } => Done::LogRow(Ok(None)),
        }
    }

    /// The answer to work that did not come through.
    pub fn failed(lead: &Lead, error: StoreError) -> Done {
        match lead {
            Lead::Open => Done::Opened(Err(error)),
            Lead::Bump(_) => Done::Bumped(Err(error)),
            Lead::Load(_) => Done::Loaded(Err(error)),
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

    fn load(&self) -> Loaded {
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
        Loaded { jobs: self.jobs.values().cloned().collect(), watermark, open, logged, is_paused: self.is_paused }
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

    fn change(&mut self, epoch: Epoch, change: &Change) -> Result<JobId, StoreError> {
        self.fenced(epoch)?;
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
