//! Giving runs to the spawning threads, and taking their answers. A directory of users that hangs keeps its own runs
//! waiting, and no others.
//!
//! Not the choice of the next run: that is the ready queue's. Not the end of a run: that is `stopping`.
//!
//! Invariant: a run that comes back unstarted waits again, has a log row, or is told to the leader as given back.

#[cfg(test)]
mod tests;

use super::run::Phase;
use super::{Executor, SPAWNS_MAX};
use crate::core::Context;
use crate::core::io::Effects;
use crate::core::io::ports::{KillHow, Spawn, SpawnError, Started, Work, WorkId};
use crate::core::log::ending::{EndedBy, Ending};
use crate::model::message::ToLeader;
use crate::model::{Attempt, Now, RunState, Wall};

const TOO_LATE: &str = "not started: it was still waiting in the ready queue when the grace (misfire_grace) was over";

impl Executor {
    /// Drops the runs that have waited for longer than the grace, even where there is capacity for them now: later runs
    /// need that capacity.
    pub(super) fn miss_expired(&mut self, leaders_wall: Wall, cx: &mut Context) {
        for attempt in self.held.expired(leaders_wall.second()) {
            self.finish(attempt, Ending::NotStarted(RunState::Missed, TOO_LATE.into()), cx);
        }
        let leaders_now = Now { wall: leaders_wall, ..cx.now };
        let next = self.held.first_expiring();
        self.expires_at = next.map(|expires| leaders_now.mono_at(expires.plus(1).wall()));
    }

    /// Starts runs of the ready queue, as many as there is capacity for.
    pub(super) fn start_ready(&mut self, leaders_wall: Wall, cx: &mut Context) {
        if self.throttle.end_if_quiet(cx.now) {
            cx.fx.notice(log::Level::Info, "the host starts further processes again");
        }
        // An empty queue is asked, too: then it forgets which kind of run it picked last.
        let mut left = self.held.ready();
        while self.may_start(cx.now) {
            let Some(attempt) = self.held.next_ready(leaders_wall.second()) else { return };
            self.start(attempt, cx);
            debug_assert_eq!(self.held.ready() + 1, left, "{attempt} was started and is still in the ready queue");
            left = self.held.ready();
        }
    }

    /// Gives the run to the spawning threads, or parks it where the lease is over.
    fn start(&mut self, attempt: Attempt, cx: &mut Context) {
        if self.lease <= cx.now.mono {
            self.held.set_phase(attempt, Phase::Parked);
            return;
        }
        let Some(order) = self.held.get(attempt).and_then(|run| run.order.as_ref()) else { return };
        let work = cx.fx.work(Work::Spawn(Spawn { attempt, job: order.job.clone() }));
        self.throttle.on_start(attempt, self.active(), cx.now);
        self.held.set_phase(attempt, Phase::Spawning { work, is_killed: false });
    }

    fn may_start(&self, now: Now) -> bool {
        self.has_capacity() && self.throttle.may_start(self.active(), now)
    }

    /// Whether the limits let one more be started.
    pub(super) fn has_capacity(&self) -> bool {
        !self.is_draining && self.with_threads() < SPAWNS_MAX && self.active() < self.limits.max_running
    }

    /// The runs that keep the spawning threads busy.
    pub(super) fn with_threads(&self) -> usize {
        self.held.spawning().len() - self.looking_up.len()
    }

    /// The run's user is looked up, which may take long: other runs are started meanwhile.
    pub fn on_looking_up(&mut self, id: WorkId) {
        if self.held.spawned_by(id).is_some() {
            self.looking_up.insert(id);
        }
    }

    /// A spawn was answered: the process runs, or was not started for this reason.
    pub fn on_spawned(&mut self, id: WorkId, result: Result<Started, SpawnError>, cx: &mut Context) {
        let Some(attempt) = self.held.spawned_by(id) else { return };
        self.looking_up.remove(&id);
        let is_killed = matches!(self.held.phase(attempt), Some(Phase::Spawning { is_killed: true, .. }));
        match result {
            Ok(started) => self.on_started(attempt, started, is_killed, cx),
            Err(SpawnError::Failed(reason)) => self.fail(attempt, reason, cx),
            Err(SpawnError::Exhausted(reason)) => match self.put_off(reason, cx) {
                _ if is_killed => self.finish_cancelled(attempt, cx),
                Some(reason) => self.fail(attempt, reason, cx),
                None => self.come_back(attempt, Phase::Ready, cx.fx),
            },
            Err(SpawnError::NoLease) if is_killed => self.finish_cancelled(attempt, cx),
            Err(SpawnError::NoLease) => self.come_back(attempt, Phase::Parked, cx.fx),
        }
        debug_assert_eq!(
            self.held.spawned_by(id),
            None,
            "the spawning threads have answered for {attempt} and still have it"
        );
        self.answer_cancels(cx.fx);
    }

    fn fail(&mut self, attempt: Attempt, reason: String, cx: &mut Context) {
        self.finish(attempt, Ending::NotStarted(RunState::Failed, reason), cx);
    }

    fn on_started(&mut self, attempt: Attempt, started: Started, is_killed: bool, cx: &mut Context) {
        self.counters.started += 1;
        self.throttle.on_started(attempt);
        self.held.set_phase(attempt, Phase::Running(started));
        self.limit_time(attempt, started, cx.now);
        if is_killed {
            self.end(attempt, KillHow::Ask, EndedBy::Operator, cx);
        }
    }

    /// The host can start no further process just now. Answers the reason where the run must not wait any longer,
    /// because the host could not start a single process for longer than the grace.
    fn put_off(&mut self, reason: String, cx: &mut Context) -> Option<String> {
        self.counters.put_off += 1;
        // The run that is put off still counts as active.
        let others = self.active() - 1;
        let refused = self.throttle.on_no_resources(others, cx.now);
        if refused.is_new {
            let text = format!("{reason}; the run waits, and fewer runs are started until the host can start more");
            cx.fx.notice(log::Level::Warn, text);
        }
        let grace_ms = u64::from(self.limits.misfire_grace_secs) * 1_000;
        (grace_ms < refused.nothing_for_ms).then_some(reason)
    }

    /// The run was not started. It goes on in `phase`, unless its job was changed or this node drains.
    fn come_back(&mut self, attempt: Attempt, phase: Phase, fx: &mut Effects) {
        if let Some(at) = self.cancels.iter().position(|cancel| self.is_meant(cancel, attempt)) {
            self.forget(attempt, fx);
            self.cancels[at].dropped.push(attempt);
        } else if self.is_draining {
            self.forget(attempt, fx);
            fx.tell_leader(ToLeader::Returned(vec![attempt]));
        } else if matches!(phase, Phase::Ready) {
            self.held.put_back(attempt);
        } else {
            self.held.set_phase(attempt, phase);
        }
    }
}
