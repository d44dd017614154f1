//! Giving runs to the spawning threads, and what comes back from them.
//!
//! Invariant: what comes back unstarted waits again, or is told to whoever no longer wants it.

use super::holdings::Phase;
use super::{Executor, SPAWNS_MAX, SpawnError, Started};
use crate::core::io::Effects;
use crate::core::log::ending::{EndedBy, Ending};
use crate::core::log::logbook::Logbook;
use crate::core::ports::{KillHow, Spawn, Work, WorkId};
use crate::model::message::ToLeader;
use crate::model::{Attempt, Now, RunState, Second, Wall};

const TOO_LATE: &str = "not started: its turn had not come when the grace (misfire_grace) was over";

impl Executor {
    /// Tells what has waited for too long, whether or not there is a place: those who come after it need its own.
    pub(super) fn miss_expired(&mut self, logbook: &mut Logbook, fx: &mut Effects, now: Now, leaders_wall: Wall) {
        let is_over = |(expires, _): &(Second, Attempt)| *expires < leaders_wall.second();
        while let Some((_, attempt)) = self.holdings.first_expiring().filter(is_over) {
            self.finish(attempt, Ending::NotStarted(RunState::Missed, TOO_LATE.into()), logbook, fx, now);
        }
        let next = self.holdings.first_expiring();
        let leaders_now = Now { wall: leaders_wall, ..now };
        self.expires_at = next.map(|(expires, _)| leaders_now.mono_at(expires.plus(1).wall()));
    }

    pub(super) fn start_ready(&mut self, fx: &mut Effects, now: Now, leaders_wall: Wall) {
        if self.throttle.take_over(now) {
            fx.notice(log::Level::Info, "there is room for more processes again");
        }
        while self.may_start(now) {
            let Some(attempt) = self.ready.take(leaders_wall.second()) else { return };
            let ready = self.holdings.get(attempt).filter(|holding| matches!(holding.phase(), Phase::Ready));
            let Some(order) = ready.and_then(|holding| holding.order.as_ref()) else { continue };
            if self.lease <= now.mono {
                self.holdings.set_phase(attempt, Phase::Parked);
            } else {
                let spawn = Spawn { attempt, job: order.job.clone() };
                self.throttle.on_start(attempt, self.active(), now);
                self.holdings.set_phase(attempt, Phase::Spawning { is_killed: false });
                self.spawning.insert(fx.work(Work::Spawn(spawn)), attempt);
            }
        }
    }

    fn may_start(&self, now: Now) -> bool {
        self.has_room() && self.throttle.may_start(self.active(), now)
    }

    /// Whether the limits let one more be started.
    pub(super) fn has_room(&self) -> bool {
        !self.is_draining && self.spawning.len() < SPAWNS_MAX && self.active() < self.limits.max_running
    }

    pub fn on_spawned(
        &mut self,
        id: WorkId,
        result: Result<Started, SpawnError>,
        logbook: &mut Logbook,
        fx: &mut Effects,
        now: Now,
    ) {
        let Some(attempt) = self.spawning.remove(&id) else { return };
        let is_killed = matches!(self.holdings.phase(attempt), Some(Phase::Spawning { is_killed: true }));
        match result {
            Ok(started) => self.on_started(attempt, started, is_killed, fx, now),
            Err(SpawnError::Failed(reason)) => self.fail(attempt, reason, logbook, fx, now),
            Err(SpawnError::Exhausted(reason)) => match self.put_off(reason, fx, now) {
                _ if is_killed => self.finish_cancelled(attempt, logbook, fx, now),
                Some(reason) => self.fail(attempt, reason, logbook, fx, now),
                None => self.come_back(attempt, Phase::Ready, fx),
            },
            Err(SpawnError::NoLease) if is_killed => self.finish_cancelled(attempt, logbook, fx, now),
            Err(SpawnError::NoLease) => self.come_back(attempt, Phase::Parked, fx),
        }
        self.answer_cancels(fx);
    }

    fn fail(&mut self, attempt: Attempt, reason: String, logbook: &mut Logbook, fx: &mut Effects, now: Now) {
        self.finish(attempt, Ending::NotStarted(RunState::Failed, reason), logbook, fx, now);
    }

    fn on_started(&mut self, attempt: Attempt, started: Started, is_killed: bool, fx: &mut Effects, now: Now) {
        self.counters.started += 1;
        self.throttle.on_started(attempt);
        self.holdings.set_phase(attempt, Phase::Running(started));
        self.limit_time(attempt, started, now);
        if is_killed {
            self.end(attempt, KillHow::Ask, EndedBy::Operator, fx, now);
        }
    }

    /// The system has no room for another process just now. Answers the reason where waiting is of no use: for longer
    /// than a run may be late not even a single one has had room.
    fn put_off(&mut self, reason: String, fx: &mut Effects, now: Now) -> Option<String> {
        self.counters.put_off += 1;
        let refused = self.throttle.on_no_resources(self.active(), now);
        if refused.is_new {
            let text = format!("{reason}; it waits, and fewer runs are started until there is room again");
            fx.notice(log::Level::Warn, text);
        }
        let grace_ms = u64::from(self.limits.misfire_grace_secs) * 1_000;
        (grace_ms < refused.nothing_for_ms).then_some(reason)
    }

    /// Not started, and wanted no longer where its job was changed or this node is leaving.
    fn come_back(&mut self, attempt: Attempt, phase: Phase, fx: &mut Effects) {
        if let Some(at) = self.cancels.iter().position(|cancel| self.is_meant(cancel, attempt)) {
            self.forget(attempt, fx);
            self.cancels[at].dropped.push(attempt);
        } else if self.is_draining {
            self.forget(attempt, fx);
            fx.tell_leader(ToLeader::Returned(vec![attempt]));
        } else {
            if let (Phase::Ready, Some(rank)) = (&phase, self.rank(attempt)) {
                self.ready.put_back(attempt, rank);
            }
            self.holdings.set_phase(attempt, phase);
        }
    }
}
