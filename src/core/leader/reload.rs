//! What the operator's SIGHUP asks of the leader: to take up what was done to table `cron` by hand.
//!
//! The table is walked through page by page while everything else goes on. What is found is put in force like a change,
//! and noted in the journal, so that the copies of other nodes learn of it too.
//!
//! Invariant: what the API has changed since the walk began is passed over: that is newer than any page.

use crate::core::io::Effects;
use crate::core::jobs::scan::{Scan, Step};
use crate::core::jobs::scheduler::Scheduler;
use crate::core::ports::{JobBatch, WorkId};
use crate::model::journal::ChangeNote;
use crate::model::{Job, JobId};
use std::collections::BTreeSet;

#[derive(Debug)]
pub struct Reload {
    scan: Scan,
    asked: WorkId,
    touched: BTreeSet<JobId>,
    changed: usize,
    gone: usize,
}

impl Reload {
    pub fn begin(fx: &mut Effects) -> Reload {
        let scan = Scan::default();
        Reload { asked: scan.ask(fx), scan, touched: BTreeSet::new(), changed: 0, gone: 0 }
    }

    pub fn has_asked(&self, id: WorkId) -> bool {
        self.asked == id
    }

    /// The API has changed this job.
    pub fn touch(&mut self, id: JobId) {
        self.touched.insert(id);
    }

    /// The same page once more: a change is under way that it may show by half.
    pub fn ask_again(&mut self, fx: &mut Effects) {
        self.asked = self.scan.ask(fx);
    }

    /// What the page shows that is not known here; the next one is asked for.
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

    pub fn summary(&self) -> String {
        format!("{} jobs changed or new, {} gone", self.changed, self.gone)
    }
}

/// What others must read again.
pub fn notes(step: &Step) -> Vec<ChangeNote> {
    let changed = step.changed.iter().map(|job| ChangeNote { cron_id: job.id, version: Some(job.version) });
    changed.chain(step.gone.iter().map(|id| ChangeNote { cron_id: *id, version: None })).collect()
}
