//! The leader's orders: runs to take, to drop and to give back.
//!
//! Not the start of a run: a run whose second has come goes into the ready queue, and `starting` takes it from there.
//!
//! Invariant: a cancel is answered once, when the spawning threads have none of its runs.

#[cfg(test)]
mod tests;

use super::Executor;
use super::run::{Phase, Run};
use crate::core::Context;
use crate::core::io::{Effect, Effects, MarkOp};
use crate::core::log::ending::Ending;
use crate::model::message::{Order, ToLeader};
use crate::model::{Attempt, JobId, Mono, Now, RunState, Version, Wall};

const JOB_FULL: &str = "skipped: as many earlier runs of this job as may wait are waiting here (max_pending_per_job)";
const NODE_FULL: &str = "shed: too many runs of this node are over and wait for the store to take their log rows";

/// A cancel that waits for the runs of its job that are with the spawning threads.
#[derive(Debug)]
pub(super) struct Cancel {
    cron_id: JobId,
    below: Option<Version>,
    pub(super) dropped: Vec<Attempt>,
}

impl Executor {
    /// Takes runs. For a run that is held already and has not started, the new order replaces the former one.
    /// `leaders_wall` is the leader's clock: it decides when a run starts.
    pub fn on_dispatch(&mut self, orders: Vec<Order>, leaders_wall: Wall, cx: &mut Context) {
        if self.is_draining {
            return self.refuse(orders, cx.fx);
        }
        let leaders_now = Now { wall: leaders_wall, ..cx.now };
        for order in orders {
            let at = leaders_now.mono_at(order.attempt.run.scheduled_at.wall());
            match self.held.get(order.attempt).map(Run::is_unstarted) {
                Some(false) => {}
                None if self.limits.held_max() <= self.held.count() => self.shed(order, cx),
                None | Some(true) => self.take(order, at, cx),
            }
        }
    }

    /// Gives back runs whose order was on its way when this node began to drain.
    fn refuse(&self, orders: Vec<Order>, fx: &mut Effects) {
        let attempts = orders.into_iter().map(|order| order.attempt);
        let refused: Vec<Attempt> = attempts.filter(|attempt| self.held.get(*attempt).is_none()).collect();
        if !refused.is_empty() {
            fx.tell_leader(ToLeader::Returned(refused));
        }
    }

    /// The run is held only until its log row is committed.
    fn shed(&mut self, order: Order, cx: &mut Context) {
        let attempt = order.attempt;
        self.held.insert(attempt, Run::ordered(order, Phase::Parked));
        self.finish(attempt, Ending::NotStarted(RunState::Shed, NODE_FULL.into()), cx);
    }

    /// Arms a run whose second begins at `at`. A run that is held already keeps its arrival number.
    fn take(&mut self, order: Order, at: Mono, cx: &mut Context) {
        let attempt = order.attempt;
        cx.fx.mark(MarkOp::Hold { attempt, version: order.job.version, is_mutex: order.job.is_mutex });
        let is_due = at <= cx.now.mono;
        if is_due && matches!(self.held.phase(attempt), Some(Phase::Ready)) {
            return self.held.insert(attempt, Run::ordered(order, Phase::Ready));
        }
        let arrival = match self.held.phase(attempt) {
            Some(Phase::Armed { arrival, .. }) => *arrival,
            _ => self.arrivals,
        };
        self.arrivals += 1;
        self.held.insert(attempt, Run::ordered(order, Phase::Armed { at, arrival }));
        if is_due {
            self.on_due(attempt, cx);
        }
    }

    /// The run's second has come: it goes into the ready queue, unless too many runs of its job are there already.
    pub(super) fn on_due(&mut self, attempt: Attempt, cx: &mut Context) {
        let is_full = self.limits.max_pending_per_job <= self.held.ready_of(attempt.run.cron_id);
        if is_full && attempt.number == 1 && attempt.run.manual.is_none() {
            // The leader writes one row for many skipped runs of a job. A manual run and a retry have rows of their
            // own.
            self.forget(attempt, cx.fx);
            cx.fx.push(Effect::Ended { attempt, state: RunState::Skipped, last_lines: JOB_FULL.into() });
            cx.fx.tell_leader(ToLeader::Refused(vec![attempt]));
        } else if is_full {
            self.finish(attempt, Ending::NotStarted(RunState::Skipped, JOB_FULL.into()), cx);
        } else {
            self.held.set_phase(attempt, Phase::Ready);
        }
    }

    /// The leader does not want these runs started.
    pub fn on_settled(&mut self, drop: Vec<Attempt>, fx: &mut Effects) {
        for attempt in drop {
            if self.is_unstarted(attempt) {
                self.forget(attempt, fx);
            }
        }
    }

    /// Gives back the runs that have not started: this node shuts down.
    pub fn hand_back(&mut self, fx: &mut Effects) {
        let waiting = self.held.unstarted();
        self.give_back(waiting, fx);
    }

    /// Gives back those of the runs that have not started.
    pub fn give_back(&mut self, attempts: Vec<Attempt>, fx: &mut Effects) {
        let waiting: Vec<Attempt> = attempts.into_iter().filter(|attempt| self.is_unstarted(*attempt)).collect();
        waiting.iter().for_each(|attempt| self.forget(*attempt, fx));
        if !waiting.is_empty() {
            fx.tell_leader(ToLeader::Returned(waiting));
        }
    }

    /// Drops the job's runs that have not started, of versions older than `below` (none: of every version). The leader
    /// gets the answer when the spawning threads have none of these runs.
    pub fn on_cancel(&mut self, cron_id: JobId, below: Option<Version>, fx: &mut Effects) {
        let waiting = self.held.of_job(cron_id, below).filter(|(_, run)| run.is_unstarted());
        let dropped: Vec<Attempt> = waiting.map(|(attempt, _)| attempt).collect();
        dropped.iter().for_each(|attempt| self.forget(*attempt, fx));
        self.cancels.push(Cancel { cron_id, below, dropped });
        self.answer_cancels(fx);
    }

    /// Answers the cancels that wait for the spawning threads no longer.
    pub(super) fn answer_cancels(&mut self, fx: &mut Effects) {
        for cancel in std::mem::take(&mut self.cancels) {
            if self.waits_for_threads(&cancel) {
                self.cancels.push(cancel);
            } else {
                fx.tell_leader(ToLeader::Cancelled { cron_id: cancel.cron_id, dropped: cancel.dropped });
            }
        }
    }

    pub(super) fn waits_for_threads(&self, cancel: &Cancel) -> bool {
        self.held.spawning().any(|attempt| self.is_meant(cancel, attempt))
    }

    /// Whether the cancel applies to the attempt.
    pub(super) fn is_meant(&self, cancel: &Cancel, attempt: Attempt) -> bool {
        let version = self.held.get(attempt).map(|run| run.version);
        attempt.run.cron_id == cancel.cron_id
            && cancel.below.is_none_or(|below| version.is_some_and(|version| version < below))
    }

    fn is_unstarted(&self, attempt: Attempt) -> bool {
        self.held.get(attempt).is_some_and(Run::is_unstarted)
    }
}
