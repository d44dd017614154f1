//! A reload, asked for by SIGHUP: finds the rows of table `cron` that were edited by hand.
//!
//! The table is scanned batch by batch while everything else goes on. The leader puts each difference in force like a
//! change, and notes it in the journal, so that other nodes' replicas learn of it too.
//!
//! Not here: how a difference comes into force; see `definitions`.
//!
//! Invariant: jobs that the API has changed since the scan began are left out, because they are newer than any batch.

use crate::core::io::Effects;
use crate::core::io::ports::{JobBatch, WorkId};
use crate::core::jobs::scan::{Scan, Step};
use crate::core::jobs::scheduler::Scheduler;
use crate::model::journal::ChangeNote;
use crate::model::{Job, JobId};
use std::collections::BTreeSet;

/// A reload under way.
#[derive(Debug)]
pub struct Reload {
    scan: Scan,
    /// The question for the next batch.
    asked: WorkId,
    /// Jobs that the API has changed since the scan began.
    touched: BTreeSet<JobId>,
    changed: usize,
    gone: usize,
}

impl Reload {
    /// Asks for the first batch.
    pub fn begin(fx: &mut Effects) -> Reload {
        let scan = Scan::default();
        Reload { asked: scan.ask(fx), scan, touched: BTreeSet::new(), changed: 0, gone: 0 }
    }

    /// Whether this question is the reload's.
    pub fn has_asked(&self, id: WorkId) -> bool {
        self.asked == id
    }

    /// The API has changed this job.
    pub fn touch(&mut self, id: JobId) {
        self.touched.insert(id);
    }

    /// Asks for the same batch once more: it may show half of a change that is under way.
    pub fn ask_again(&mut self, fx: &mut Effects) {
        self.asked = self.scan.ask(fx);
    }

    /// Answers the batch's differences from the jobs in memory, and asks for the next batch.
    pub fn on_batch(&mut self, batch: JobBatch, scheduler: &Scheduler, fx: &mut Effects) -> Step {
        let mut step = self.scan.step(batch, scheduler);
        // An older row means a stop that is in force and not stored yet.
        let is_news = |job: &Job| scheduler.job(job.id).is_none_or(|known| known.version <= job.version);
        step.changed.retain(|job| !self.touched.contains(&job.id) && is_news(job));
        step.gone.retain(|id| !self.touched.contains(id));
        self.changed += step.changed.len();
        self.gone += step.gone.len();
        if !step.is_over {
            self.asked = self.scan.ask(fx);
        }
        step
    }

    /// The counts of changed and gone jobs so far, for people.
    pub fn summary(&self) -> String {
        format!("{} jobs changed or new, {} gone", self.changed, self.gone)
    }
}

/// The notes from which other nodes' replicas learn which jobs to read again.
pub fn notes(step: &Step) -> Vec<ChangeNote> {
    let changed = step.changed.iter().map(|job| ChangeNote { cron_id: job.id, version: Some(job.version) });
    changed.chain(step.gone.iter().map(|id| ChangeNote { cron_id: *id, version: None })).collect()
}
