//! What a new leader does with the entries that a former one (or this one, before it lost the lead) left open.
//!
//! Invariants: a run that the node has begun, or may have, is not given again; of a mutex job, what has begun holds the
//! mutex before anything that waits is looked at.

use super::{Around, CANCELLED, Dispatch, Flight, Stage};
use crate::core::executor::Held;
use crate::model::journal::{EntryId, StoredEntry};
use crate::model::{Attempt, Job, JobId, NodeId, RunState, Second, Version};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What was left, as the store and the node tell it.
pub struct Left<'a> {
    pub open: &'a [StoredEntry],
    /// Attempts of the open entries that have a log row.
    pub logged: &'a BTreeSet<Attempt>,
    /// The largest tick that is whole.
    pub watermark: Option<Second>,
    /// What the node has of an attempt.
    pub held: &'a dyn Fn(Attempt) -> Option<Held>,
}

/// A run without a log row, by the last entry that names it.
struct Loose {
    entry: EntryId,
    version: Version,
    node: Option<NodeId>,
}

impl Dispatch {
    pub fn recover(&mut self, left: &Left, around: &mut Around) {
        let mut loose = BTreeMap::new();
        for StoredEntry { id, entry } in left.open {
            self.open.insert(*id, 0);
            for run in &entry.body.runs {
                let node = entry.body.nodes.get(usize::from(run.node)).cloned();
                loose.insert(run.attempt, Loose { entry: *id, version: run.version, node });
                if entry.tick > left.watermark {
                    self.named.insert(run.attempt.run);
                }
            }
            self.write_outcomes(*id, &entry.body, left.logged, around);
        }
        loose.retain(|attempt, _| !left.logged.contains(attempt));
        for (attempt, run) in &loose {
            self.take_in(*attempt, run, around);
        }
        let is_begun = |attempt: &Attempt| matches!((left.held)(*attempt), Some(Held::Begun | Held::Unknown));
        let (begun, waiting): (Vec<_>, Vec<_>) = loose.into_iter().partition(|(attempt, _)| is_begun(attempt));
        begun
            .into_iter()
            .filter(|(attempt, _)| !around.logbook.has(*attempt))
            .for_each(|(attempt, _)| self.hold(attempt));
        let away_secs = left.watermark.map_or(0, |watermark| around.now.wall.second().0 - watermark.0);
        let mut outdated = BTreeSet::new();
        for (attempt, run) in waiting {
            if around.logbook.has(attempt) {
                continue;
            }
            let is_here = (left.held)(attempt).is_some();
            if is_here && !self.is_current(attempt, around) {
                // The node drops it, and then it is given anew or told as cancelled, as after any change.
                self.hold(attempt);
                outdated.insert(attempt.run.cron_id);
            } else {
                let is_mine = is_here || run.node.as_ref() == Some(&self.node_id);
                self.take_up(attempt, is_mine, away_secs, around);
            }
        }
        self.cancel_outdated(outdated, around);
        let entries: Vec<EntryId> = left.open.iter().map(|stored| stored.id).collect();
        entries.into_iter().for_each(|id| self.close_if_empty(id));
    }

    fn take_in(&mut self, attempt: Attempt, run: &Loose, around: &mut Around) {
        *self.open.entry(run.entry).or_default() += 1;
        let current = around.scheduler.job(attempt.run.cron_id).filter(|job| job.version == run.version);
        // Of a definition that is gone only the name is needed: nothing of it will be sent.
        let job = current
            .cloned()
            .unwrap_or_else(|| Arc::new(Job { id: attempt.run.cron_id, version: run.version, ..Job::default() }));
        self.flights.insert(attempt, Flight { job, entry: Some(run.entry), stage: Stage::Over, late: true });
    }

    fn is_current(&self, attempt: Attempt, around: &Around) -> bool {
        let job = around.scheduler.job(attempt.run.cron_id);
        job.is_some_and(|job| {
            !job.stop && Some(job.version) == self.flights.get(&attempt).map(|flight| flight.job.version)
        })
    }

    /// The node has it: it takes a place there, and with it the mutex of its job.
    fn hold(&mut self, attempt: Attempt) {
        self.set_stage(attempt, Stage::Sent);
        self.taken += 1;
    }

    /// A run that surely was not started: given again, or told why not.
    fn take_up(&mut self, attempt: Attempt, is_mine: bool, away_secs: i64, around: &mut Around) {
        let Some(flight) = self.flights.get(&attempt) else { return };
        let (job, entry) = (Arc::clone(&flight.job), flight.entry);
        let late_secs = around.now.wall.second().0 - attempt.run.scheduled_at.0;
        // A run that waited for its mutex is as late as that wait, which is no fault: only the time away counts.
        let judged_secs = if job.is_mutex { late_secs.min(away_secs) } else { late_secs };
        if !is_mine {
            self.push_row(attempt, job.version, RunState::Lost, LOST, around);
        } else if !self.is_current(attempt, around) {
            self.push_row(attempt, job.version, RunState::Cancelled, CANCELLED, around);
        } else if self.limits.grace_secs < judged_secs {
            self.push_row(attempt, job.version, RunState::Missed, MISSED, around);
        } else {
            self.take_off(attempt, job, entry, 0 < late_secs);
            self.release(vec![attempt], around);
        }
    }

    fn cancel_outdated(&mut self, outdated: BTreeSet<JobId>, around: &mut Around) {
        for id in outdated {
            let below = around.scheduler.job(id).filter(|job| !job.stop).map(|job| job.version);
            self.cancel(id, below, around);
        }
    }
}

const LOST: &str = "lost: the node that had it is not there to tell whether it was started";
const MISSED: &str = "missed: nobody was there to start it, and the grace (misfire_grace) is over";
