//! Turns: how many runs of a job may go at one time, one (`is_mutex`) or a few (`max_parallel`). What falls due beyond
//! waits in the order of its seconds.
//!
//! Not a lock: nothing is stored that a crash could leave set. Whoever may run holds a turn; see `Flights::free`.
//!
//! Invariant: a run of a limited job is sent only when it has a turn, and none of its job that came before it waits.

use super::table::Stage;
use super::{Around, Orders, Runs, body, send};
use crate::model::{Attempt, Job, JobId};
use std::collections::VecDeque;
use std::sync::Arc;

/// The runs of a limited job that may not go yet.
#[derive(Debug, Default)]
pub struct PermitQueue {
    pub waiting: VecDeque<Attempt>,
    /// Runs whose entry is on the way; each will go or wait.
    pub planned: usize,
}

impl Runs {
    /// Whether one more run of the job would go at once, or wait with no more than may.
    pub fn has_permit(&self, job: &Job) -> bool {
        let Some(parallel_max) = job.parallel_max() else { return true };
        // As many as there are turns run or will go, and the others wait with this one: those too that a former leader had sent,
        // and of which no node has told yet.
        let others = self.table.of_job(job.id).filter(|(_, in_flight)| in_flight.stage != Stage::Over).count();
        (others + 1).saturating_sub(parallel_max) <= self.limits.max_pending_per_job
    }

    /// Free by the word of whoever had it, and nobody is ahead.
    pub fn may_go_at_once(&self, job: &Job) -> bool {
        let is_free = match job.is_mutex {
            true => !self.table.is_any_held(job.id),
            false => self.table.free(job) != 0,
        };
        let is_limited = job.parallel_max().is_some();
        !is_limited || is_free && self.table.queues.get(&job.id).is_none_or(|queue| queue.waiting.is_empty())
    }

    /// Into the queue of its job, in the order of the seconds.
    pub fn wait_for_permit(&mut self, attempt: Attempt) {
        self.table.set_stage(attempt, Stage::Waiting);
        let queue = self.table.queues.entry(attempt.run.cron_id).or_default();
        let at = queue.waiting.partition_point(|earlier| *earlier < attempt);
        if queue.waiting.get(at) != Some(&attempt) {
            queue.waiting.insert(at, attempt);
        }
    }

    pub fn leave_queue(&mut self, id: JobId, attempts: &[Attempt]) {
        if let Some(queue) = self.table.queues.get_mut(&id) {
            queue.waiting.retain(|waiting| !attempts.contains(waiting));
        }
    }

    pub fn grant_permits(&mut self, id: JobId, around: &mut Around) {
        let is_by_lease =
            self.table.of_job(id).any(|(_, in_flight)| in_flight.stage == Stage::Sent && in_flight.job.is_mutex);
        self.grant_permits_after(id, is_by_lease, around);
    }

    /// `is_by_lease`: the mutex is free because a lease is over, and not by its holder's word. Another leader, of which we
    /// have not heard, may have made that lease longer; so the next run goes into the journal once more, which tells.
    pub fn grant_permits_after(&mut self, id: JobId, is_by_lease: bool, around: &mut Around) {
        let Some(job) = self.limited_job(id, around) else { return };
        let mut orders = Orders::new();
        while self.table.free(&job) != 0 {
            let next = self.table.queues.get_mut(&id).and_then(|queue| queue.waiting.pop_front());
            let Some(next) = next else { break };
            match is_by_lease {
                true => self.move_anew(next, around),
                false => self.send_or_move(next, around, &mut orders),
            }
            // It found no node, so the others would find none either.
            if self.table.is(next, Stage::Waiting) {
                break;
            }
        }
        send(orders, around);
        if self.table.queues.get(&id).is_some_and(|queue| queue.waiting.is_empty() && queue.planned == 0) {
            self.table.queues.remove(&id);
        }
    }

    /// The job whose queue this is, as it is now; or as the first that waits knew it.
    fn limited_job(&self, id: JobId, around: &Around) -> Option<Arc<Job>> {
        let queue = self.table.queues.get(&id)?;
        let first = || queue.waiting.front().and_then(|first| self.table.get(*first)).map(|in_flight| &in_flight.job);
        around.job(id).filter(|job| job.parallel_max().is_some()).or_else(first).cloned()
    }

    fn move_anew(&mut self, attempt: Attempt, around: &mut Around) {
        let Some(in_flight) = self.table.get(attempt) else { return };
        let (version, mut node) = (in_flight.job.version, in_flight.node.clone());
        if node.is_nobody() {
            let job = Arc::clone(&in_flight.job);
            node = self.table.choose(&job, around.candidates).unwrap_or_default();
        }
        self.table.move_to(attempt, node.clone());
        around.journaler.push(None, 0, body(&[(attempt, version, node)]));
    }
}
