//! The index of the held runs: it finds the next run in a phase, and the number of runs in a phase, without a look at
//! all runs.
//!
//! Not the owner of the runs (that is `table`), nor the order in which they start (that is `ready_queue`).
//!
//! Invariant: it equals a new index into which every run of the table was entered.

use super::run::{Phase, Run};
use crate::core::io::ports::WorkId;
use crate::model::{Attempt, JobId, Mono, Second};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default, Eq, PartialEq)]
pub struct Index {
    /// How many runs have not started.
    pub waiting: usize,
    /// Armed runs, by the moment at which their second begins, and then in the order in which they came.
    pub armed: BTreeSet<((Mono, u64), Attempt)>,
    /// How many runs of each job are in the ready queue; mutex jobs are not counted.
    pub ready_of: BTreeMap<JobId, usize>,
    /// Runs in the ready queue, by the last second in which they may still start.
    pub expiring: BTreeSet<(Second, Attempt)>,
    /// Parked runs that are ready again with a new lease: those of no mutex job.
    pub parked: BTreeSet<Attempt>,
    pub spawning: BTreeMap<WorkId, Attempt>,
    pub running: BTreeSet<Attempt>,
    /// Running runs, by the moment at which their alarm goes off.
    pub alarms: BTreeSet<(Mono, Attempt)>,
    pub ending: BTreeMap<WorkId, Attempt>,
}

impl Index {
    pub fn of<'a>(runs: impl Iterator<Item = (Attempt, &'a Run)>) -> Index {
        let mut index = Index::default();
        runs.for_each(|(attempt, run)| index.enter(attempt, run));
        index
    }

    pub fn enter(&mut self, attempt: Attempt, run: &Run) {
        self.note(attempt, run, true);
    }

    pub fn strike(&mut self, attempt: Attempt, run: &Run) {
        self.note(attempt, run, false);
    }

    fn note(&mut self, attempt: Attempt, run: &Run, is_in: bool) {
        if run.is_unstarted() {
            count(&mut self.waiting, is_in);
        }
        if let Some(alarm) = run.alarm {
            keep(&mut self.alarms, (alarm.at, attempt), is_in);
        }
        match run.phase {
            Phase::Armed { at, arrival } => keep(&mut self.armed, ((at, arrival), attempt), is_in),
            Phase::Ready => self.note_ready(attempt, run, is_in),
            Phase::Parked if !run.is_mutex() => keep(&mut self.parked, attempt, is_in),
            Phase::Spawning { work, .. } => keep_work(&mut self.spawning, work, attempt, is_in),
            Phase::Running(_) => keep(&mut self.running, attempt, is_in),
            Phase::Ending { work, .. } => keep_work(&mut self.ending, work, attempt, is_in),
            Phase::Found(_) | Phase::Parked | Phase::Over => {}
        }
    }

    fn note_ready(&mut self, attempt: Attempt, run: &Run, is_in: bool) {
        if let Some(expires) = run.order.as_ref().and_then(|order| order.expires) {
            keep(&mut self.expiring, (expires, attempt), is_in);
        }
        if !run.is_mutex() {
            let ready = self.ready_of.entry(attempt.run.cron_id).or_default();
            count(ready, is_in);
            if *ready == 0 {
                self.ready_of.remove(&attempt.run.cron_id);
            }
        }
    }
}

fn count(count: &mut usize, is_in: bool) {
    debug_assert!(is_in || *count != 0, "more runs are struck off than were entered");
    *count = if is_in { *count + 1 } else { count.saturating_sub(1) };
}

fn keep<T: Copy + Ord + std::fmt::Debug>(set: &mut BTreeSet<T>, item: T, is_in: bool) {
    let is_new = if is_in { set.insert(item) } else { set.remove(&item) };
    debug_assert!(is_new, "{item:?} is entered twice, or struck off and was never entered");
}

fn keep_work(map: &mut BTreeMap<WorkId, Attempt>, work: WorkId, attempt: Attempt, is_in: bool) {
    let former = if is_in { map.insert(work, attempt) } else { map.remove(&work) };
    let expected = (!is_in).then_some(attempt);
    debug_assert_eq!(former, expected, "{work:?} is not the work of {attempt} alone");
}
