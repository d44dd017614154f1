//! A walk through table `cron`, page by page, that finds where the jobs in memory differ from it.
//!
//! Each page takes a bounded time, so that millions of jobs hold up nobody. What changes behind the walk it does not see:
//! its owner knows of that by other ways.
//!
//! Invariant: a walk that is over has seen every id once, in order.

use crate::core::io::Effects;
use crate::core::jobs::scheduler::Scheduler;
use crate::core::ports::{JobBatch, Read, Work, WorkId};
use crate::model::{Job, JobId};
use std::collections::BTreeSet;

/// Rows in one page: a few milliseconds of work for the reactor.
const BATCH_JOBS: usize = 1_000;
/// Jobs in memory that one page is held against.
const KNOWN_MAX: usize = 2 * BATCH_JOBS;

#[derive(Debug, Default)]
pub struct Scan {
    /// Jobs up to this one are done with.
    after: JobId,
}

/// Where the jobs differ, up to where the page goes.
#[derive(Debug, Default)]
pub struct Step {
    pub changed: Vec<Job>,
    pub gone: Vec<JobId>,
    pub is_over: bool,
}

impl Scan {
    /// Whether it has yet to begin.
    pub fn is_new(&self) -> bool {
        self.after == JobId(0)
    }

    /// Asks for the next page.
    pub fn ask(&self, fx: &mut Effects) -> WorkId {
        fx.work(Work::Read(Read::Batch { after: self.after, limit: BATCH_JOBS }))
    }

    pub fn step(&mut self, batch: JobBatch, scheduler: &Scheduler) -> Step {
        let is_last = batch.jobs.len() < BATCH_JOBS;
        let end = batch.jobs.last().filter(|_| !is_last).map_or(JobId(u32::MAX), |job| job.id);
        let known: Vec<JobId> = scheduler.ids_between(self.after, end).take(KNOWN_MAX).collect();
        // Where many rows are gone, what lies beyond is left to the next page.
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
