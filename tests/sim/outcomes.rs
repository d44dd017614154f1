//! The outcome of each second of one job, by the log and the journal.

use crate::store::Store;
use std::collections::BTreeSet;
use wing_crontab::core::jobs::schedule::Schedule;
use wing_crontab::core::time::bounds::COALESCE_SECS;
use wing_crontab::model::journal::MissedGap;
use wing_crontab::model::{Attempt, Job, JobId, RunKey, Second, Zones};

pub struct Outcomes<'a> {
    store: &'a Store,
    id: JobId,
    missed: Vec<&'a MissedGap>,
    settled: Vec<&'a MissedGap>,
    refused: BTreeSet<RunKey>,
}

impl<'a> Outcomes<'a> {
    pub fn of(store: &'a Store, id: JobId) -> Outcomes<'a> {
        let bodies = || store.journal.values().map(|(entry, _)| &entry.body);
        Outcomes {
            store,
            id,
            missed: bodies().flat_map(|body| &body.missed).filter(|gap| gap.cron_id == id).collect(),
            settled: bodies().flat_map(|body| &body.settled).filter(|gap| gap.cron_id == id).collect(),
            refused: bodies().flat_map(|body| &body.refused).map(|refused| refused.run).collect(),
        }
    }

    pub fn is_told(&self, second: i64) -> bool {
        let is_refused = self.refused.contains(&RunKey::scheduled(self.id, Second(second)));
        // A coalesced refusal is told by the row of a later second.
        let is_coalesced = is_refused && (0..COALESCE_SECS).any(|later| self.has_row(second + later, 0));
        let is_in_gap = covers(&self.missed, second) || self.is_settled(second);
        self.has_row(second, 1) || self.has_row(second, 0) || is_coalesced || is_in_gap
    }

    /// Whether the second was cancelled before a change, without a tick.
    pub fn is_settled(&self, second: i64) -> bool {
        covers(&self.settled, second)
    }

    fn has_row(&self, second: i64, number: u32) -> bool {
        self.store.logs.contains_key(&Attempt { run: RunKey::scheduled(self.id, Second(second)), number })
    }
}

fn covers(gaps: &[&MissedGap], second: i64) -> bool {
    gaps.iter().any(|gap| gap.first.0 <= second && second <= gap.last.0)
}

/// Tells whether a job with this definition is due in a second.
pub fn due_of(job: &Job) -> impl Fn(i64) -> bool {
    let schedule = Schedule::parse(&job.cron_set, &Zones::default()).expect("it was added");
    let is_stopped = job.stop;
    move |second| !is_stopped && schedule.matches(Second(second))
}
