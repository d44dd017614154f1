//! Ending runs: at their time limits, for an operator, and at the daemon's shutdown.
//!
//! Not the signals themselves: the processes' worker sends those.
//!
//! Invariants: a gentle signal is followed by one that cannot be refused; a run that somebody ended is over only when
//! each of its processes is.

#[cfg(test)]
mod tests;

use super::Executor;
use super::run::{Alarm, Phase};
use crate::core::Context;
use crate::core::io::ports::{Kill, KillHow, Left, Started, Work, WorkId};
use crate::core::io::{Ended, MarkOp};
use crate::core::log::ending::{EndedBy, Ending};
use crate::model::{Attempt, Exit, Job, Now, RunState};

/// The number of the signal KILL.
const KILLED: i32 = 9;
const CANCELLED: &str = "cancelled: an operator ended it before it began";

impl Executor {
    /// An operator wants the run ended, whatever its phase. A second call changes nothing.
    pub fn kill(&mut self, attempt: Attempt, cx: &mut Context) {
        match self.held.phase(attempt) {
            Some(Phase::Armed { .. } | Phase::Ready | Phase::Parked) => self.finish_cancelled(attempt, cx),
            Some(Phase::Spawning { work, .. }) => {
                let killed = Phase::Spawning { work: *work, is_killed: true };
                self.held.set_phase(attempt, killed);
            }
            Some(Phase::Running(_)) => self.end(attempt, KillHow::Ask, EndedBy::Operator, cx),
            // These runs are over, or end by themselves.
            Some(Phase::Found(_) | Phase::Ending { .. } | Phase::Over) | None => {}
        }
    }

    /// Ends every running run: this node shuts down.
    pub fn end_all(&mut self, how: KillHow, cx: &mut Context) {
        let running: Vec<Attempt> = self.held.running().collect();
        running.into_iter().for_each(|attempt| self.end(attempt, how, EndedBy::Shutdown, cx));
    }

    /// The main process is over. Where somebody ended the run, its other processes are killed before it counts as over.
    /// Until then its mark says that processes of it may run: the guardian ends them should this daemon die.
    pub fn on_exited(&mut self, attempt: Attempt, ended: Ended, cx: &mut Context) {
        let Ended { exit, output, usage } = ended;
        let Some(run) = self.held.get(attempt) else { return };
        let Phase::Running(started) = run.phase else { return };
        // The guardian kills a mutex run when the lease is over, and this signal is all that it can tell us.
        let is_by_guardian = run.is_mutex() && self.lease <= cx.now.mono && exit == Exit::Signal(KILLED);
        if run.ended_by.is_none() && !is_by_guardian {
            cx.fx.mark(MarkOp::Ended { attempt, exit });
            let left = Left::default();
            return self.finish(attempt, Ending::Exited { started, exit, output, usage, ended_by: None, left }, cx);
        }
        self.held.set_ended_by(attempt, EndedBy::LeaseEnd);
        let work = cx.fx.work(Work::Kill(Kill { attempt, how: KillHow::Force }));
        self.held.set_phase(attempt, Phase::Ending { work, started, exit, output, usage });
    }

    /// The last processes of an ending run are killed: it is over.
    pub fn on_killed(&mut self, id: WorkId, left: Left, cx: &mut Context) {
        let Some(attempt) = self.held.ended_by(id) else { return };
        let ended_by = self.held.get(attempt).and_then(|run| run.ended_by);
        if let Some(Phase::Ending { started, exit, output, usage, .. }) = self.held.set_phase(attempt, Phase::Over) {
            cx.fx.mark(MarkOp::Ended { attempt, exit });
            self.report(attempt, Ending::Exited { started, exit, output, usage, ended_by, left }, cx);
        }
    }

    /// Sets the alarm of a run that has a time limit.
    pub(super) fn limit_time(&mut self, attempt: Attempt, started: Started, now: Now) {
        let order = self.held.get(attempt).and_then(|run| run.order.as_ref());
        if let Some((secs, ended_by)) = order.and_then(|order| time_limit(&order.job)) {
            let at = now.mono_at(started.at).plus_ms(u64::from(secs) * 1_000);
            self.held.set_alarm(attempt, Some(Alarm { at, how: KillHow::Ask, ended_by }));
        }
    }

    /// Signals a run. After a gentle signal it sets the alarm for the one that cannot be refused.
    pub(super) fn end(&mut self, attempt: Attempt, how: KillHow, ended_by: EndedBy, cx: &mut Context) {
        let Some(run) = self.held.get(attempt).filter(|run| matches!(run.phase, Phase::Running(_))) else { return };
        let is_ended = run.ended_by.is_some();
        let is_force_next = run.alarm.is_some_and(|alarm| alarm.how == KillHow::Force);
        if how == KillHow::Ask && is_ended && is_force_next {
            return;
        }
        // A run that was asked to end and is still there is forced.
        let how = if is_ended || self.limits.kill_grace_ms == 0 { KillHow::Force } else { how };
        self.held.set_ended_by(attempt, ended_by);
        cx.fx.work(Work::Kill(Kill { attempt, how }));
        let at = cx.now.mono.plus_ms(self.limits.kill_grace_ms);
        let alarm = (how == KillHow::Ask).then_some(Alarm { at, how: KillHow::Force, ended_by });
        self.held.set_alarm(attempt, alarm);
    }

    pub(super) fn finish_cancelled(&mut self, attempt: Attempt, cx: &mut Context) {
        self.finish(attempt, Ending::NotStarted(RunState::Cancelled, CANCELLED.into()), cx);
    }
}

/// The shorter of the job's time limits, in seconds; none where it has neither.
fn time_limit(job: &Job) -> Option<(u32, EndedBy)> {
    let lock_limit = if job.is_mutex { job.lock_limit } else { 0 };
    let limits = [(lock_limit, EndedBy::LockLimit), (job.timeout, EndedBy::Timeout)];
    limits.into_iter().filter(|(secs, _)| *secs != 0).min_by_key(|(secs, _)| *secs)
}
