//! Ending runs: their limits, operators, the daemon's own end.
//!
//! Invariants: a gentle signal is followed by the one that cannot be refused; a run that somebody ended is over only when
//! every process of it is.

use super::Executor;
use super::alarms::Alarm;
use super::holdings::{Holding, Phase};
use crate::core::io::{Effects, MarkOp};
use crate::core::log::ending::{EndedBy, Ending};
use crate::core::log::logbook::Logbook;
use crate::core::ports::{Kill, KillHow, Started, Work, WorkId};
use crate::model::{Attempt, Exit, Job, Now, RunState};

/// The number of the signal KILL.
const KILLED: i32 = 9;
const CANCELLED: &str = "cancelled: an operator ended it before it began";

impl Executor {
    /// An operator wants it ended, however far it is. Asked again it changes nothing.
    pub fn kill(&mut self, attempt: Attempt, logbook: &mut Logbook, fx: &mut Effects, now: Now) {
        match self.holdings.phase(attempt) {
            Some(Phase::Armed | Phase::Ready | Phase::Parked) => self.finish_cancelled(attempt, logbook, fx, now),
            Some(Phase::Spawning { .. }) => {
                self.holdings.set_phase(attempt, Phase::Spawning { is_killed: true });
            }
            Some(Phase::Running(_)) => self.end(attempt, KillHow::Ask, EndedBy::Operator, fx, now),
            // What is over or about to be tells so itself.
            Some(Phase::Found(_) | Phase::Ending(..) | Phase::Over) | None => {}
        }
    }

    /// Ends everything that runs.
    pub fn end_all(&mut self, how: KillHow, fx: &mut Effects, now: Now) {
        let is_running = |holding: &Holding| matches!(holding.phase(), Phase::Running(_));
        let running = self.holdings.iter().filter(|(_, holding)| is_running(holding));
        let running: Vec<Attempt> = running.map(|(attempt, _)| attempt).collect();
        running.into_iter().for_each(|attempt| self.end(attempt, how, EndedBy::Leaving, fx, now));
    }

    /// The main process is over. Where somebody ended the run, what is left of it is killed before it counts as over.
    pub fn on_exited(
        &mut self,
        attempt: Attempt,
        exit: Exit,
        output: String,
        logbook: &mut Logbook,
        fx: &mut Effects,
        now: Now,
    ) {
        let Some(holding) = self.holdings.get(attempt) else { return };
        let Phase::Running(started) = *holding.phase() else { return };
        self.alarms.remove(attempt);
        fx.mark(MarkOp::Ended { attempt, exit });
        // The guardian kills a mutex run whose lease is over, and can tell us only by that.
        let is_by_guardian = holding.is_mutex() && self.lease <= now.mono && exit == Exit::Signal(KILLED);
        if holding.ended_by.is_none() && !is_by_guardian {
            return self.finish(attempt, Ending::Exited { started, exit, output, ended_by: None }, logbook, fx, now);
        }
        self.holdings.set_ended_by(attempt, EndedBy::LeaseEnd);
        self.holdings.set_phase(attempt, Phase::Ending(started, exit, output));
        let id = fx.work(Work::Kill(Kill { attempt, how: KillHow::Force }));
        self.endings.insert(id, attempt);
    }

    /// The processes of an attempt have been signalled.
    pub fn on_killed(&mut self, id: WorkId, logbook: &mut Logbook, fx: &mut Effects, now: Now) {
        let Some(attempt) = self.endings.remove(&id) else { return };
        let ended_by = self.holdings.get(attempt).and_then(|holding| holding.ended_by);
        if let Some(Phase::Ending(started, exit, output)) = self.holdings.set_phase(attempt, Phase::Over) {
            self.finish(attempt, Ending::Exited { started, exit, output, ended_by }, logbook, fx, now);
        }
    }

    /// Sets the alarm of a run that may take only so long.
    pub(super) fn limit_time(&mut self, attempt: Attempt, started: Started, now: Now) {
        let order = self.holdings.get(attempt).and_then(|holding| holding.order.as_ref());
        if let Some((secs, ended_by)) = order.and_then(|order| time_limit(&order.job)) {
            let at = now.mono_at(started.at).plus_ms(u64::from(secs) * 1_000);
            self.alarms.set(attempt, Alarm { at, how: KillHow::Ask, ended_by });
        }
    }

    /// Signals a run, and sees to it that a gentle signal is followed by the one that cannot be refused.
    pub(super) fn end(&mut self, attempt: Attempt, how: KillHow, ended_by: EndedBy, fx: &mut Effects, now: Now) {
        let running = self.holdings.get(attempt).filter(|holding| matches!(holding.phase(), Phase::Running(_)));
        let Some(is_ended) = running.map(|holding| holding.ended_by.is_some()) else { return };
        if how == KillHow::Ask && is_ended && self.alarms.of(attempt) == Some(KillHow::Force) {
            return;
        }
        // One that has had its time and is still there is asked no more.
        let how = if is_ended || self.limits.kill_grace_ms == 0 { KillHow::Force } else { how };
        self.holdings.set_ended_by(attempt, ended_by);
        fx.work(Work::Kill(Kill { attempt, how }));
        match how {
            KillHow::Ask => {
                let at = now.mono.plus_ms(self.limits.kill_grace_ms);
                self.alarms.set(attempt, Alarm { at, how: KillHow::Force, ended_by });
            }
            KillHow::Force => self.alarms.remove(attempt),
        }
    }

    pub(super) fn finish_cancelled(&mut self, attempt: Attempt, logbook: &mut Logbook, fx: &mut Effects, now: Now) {
        self.finish(attempt, Ending::NotStarted(RunState::Cancelled, CANCELLED.into()), logbook, fx, now);
    }
}

/// How long a run of the job may take, and by which limit: the shorter one.
fn time_limit(job: &Job) -> Option<(u32, EndedBy)> {
    let lock_limit = if job.is_mutex { job.lock_limit } else { 0 };
    let limits = [(lock_limit, EndedBy::LockLimit), (job.timeout, EndedBy::Timeout)];
    limits.into_iter().filter(|(secs, _)| *secs != 0).min_by_key(|(secs, _)| *secs)
}
