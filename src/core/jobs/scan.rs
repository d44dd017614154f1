//! A scan of table `cron`, batch by batch, that finds where the jobs in memory differ from it.
//!
//! Each batch takes a bounded time, so that millions of jobs delay nothing else. Not a snapshot: a scan does not see
//! rows that change behind it. Its owner learns of those from the journal.
//!
//! Invariant: a scan that is over has seen every id once, in order.

use crate::core::io::Effects;
use crate::core::io::ports::{JobBatch, Read, Work, WorkId};
use crate::core::jobs::scheduler::Scheduler;
use crate::model::{Job, JobId};
use std::collections::BTreeSet;

/// The rows of one batch: a few milliseconds of work for the reactor.
const BATCH_JOBS: usize = 1_000;
/// The most jobs in memory with which one batch is compared.
const KNOWN_MAX: usize = 2 * BATCH_JOBS;

/// A reading of all jobs, batch after batch.
#[derive(Debug, Default)]
pub struct Scan {
    /// Jobs up to and with this one have been compared.
    after: JobId,
}

/// The jobs of one batch that differ.
#[derive(Debug, Default)]
pub struct Step {
    /// Rows that are new, or not as in memory.
    pub changed: Vec<Job>,
    /// Jobs in memory that have no row.
    pub gone: Vec<JobId>,
    /// This was the last batch.
    pub is_over: bool,
}

impl Scan {
    /// Whether it has yet to begin.
    pub fn is_new(&self) -> bool {
        self.after == JobId(0)
    }

    /// Asks for the next batch.
    pub fn ask(&self, fx: &mut Effects) -> WorkId {
        fx.work(Work::Read(Read::Batch { after: self.after, limit: BATCH_JOBS }))
    }

    /// Compares a batch with the jobs in memory.
    pub fn step(&mut self, batch: JobBatch, scheduler: &Scheduler) -> Step {
        let is_last = batch.jobs.len() < BATCH_JOBS;
        let end = batch.jobs.last().filter(|_| !is_last).map_or(JobId(u32::MAX), |job| job.id);
        let known: Vec<JobId> = scheduler.ids_between(self.after, end).take(KNOWN_MAX).collect();
        // Where many rows are gone, the jobs beyond this limit are left to the next batch.
        let end = known.get(KNOWN_MAX - 1).copied().unwrap_or(end);
        let mut gone: BTreeSet<JobId> = known.into_iter().collect();
        let mut changed = Vec::new();
        for job in batch.jobs.into_iter().filter(|job| job.id <= end) {
            gone.remove(&job.id);
            if scheduler.job(job.id).is_none_or(|known| **known != job) {
                changed.push(job);
            }
        }
        self.after = end;
        Step { changed, gone: gone.into_iter().collect(), is_over: end == JobId(u32::MAX) }
    }
}
