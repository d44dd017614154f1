//! Who leads: registers the service, keeps a session, and takes or keeps the lock in Consul.
//!
//! ```text
//! Register -> Pass -> CreateSession -> Acquire -> (true) Acquire every second with a fresh value
//!    ^                     ^              |           |
//!    +-- check unknown     +-- session unknown        +-- (false) the lead is lost
//! ```
//!
//! Safety never rests on this: a leader that has lost the lock is fenced by the epoch in the store.
//!
//! Before all that it looks at the lock: where a leader lives beside which this node must not be there (the same address,
//! the same node id, or one that cannot reach it), it does not touch that one's registration, and says why.
//!
//! Invariant: one statement is with Consul at a time. What is known of the lock is `lock_watch`'s.

mod lock_watch;
#[cfg(test)]
mod tests;

use self::lock_watch::{Identity, LAST_LIFE, LockWatch, STANDS_STILL};
use crate::core::io::Effects;
use crate::core::ports::{Consul, ConsulAnswer, ConsulError, LockState, LockValue, Work, WorkId};
use crate::core::time::bounds::LOCK_VALUE_MS;
use crate::core::time::{Backoff, Timer, Timers};
use crate::model::{Epoch, Incarnation, Mono, NodeId, Now, Server};

/// The check's time to live is three of these.
const PASS_EVERY_MS: u64 = 1_000;
#[derive(Debug, Default)]
pub struct Election {
    registered: Option<Registered>,
    session: Option<String>,
    is_holder: bool,
    pass_at: Mono,
    value_at: Mono,
    asked: Option<Question>,
    backoff: Backoff,
    /// There is something to ask, and Consul has failed too lately.
    is_put_off: bool,
    lock: LockWatch,
    leave: Option<Leave>,
    /// It does not want to lead any more, or not before then.
    abstains: bool,
    abstains_until: Mono,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Registered {
    is_leader: bool,
}

#[derive(Debug)]
struct Question {
    id: WorkId,
    step: Step,
    sent_at: Mono,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    Register(Registered),
    Pass,
    Session,
    Acquire,
    Release,
    Destroy,
    Leave,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Leave {
    Wanted,
    Over,
}

/// How the node stands to the lead.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Standing {
    /// It has taken up the lead.
    pub is_leader: bool,
    /// It could make something of the lock.
    pub can_lead: bool,
    /// And it may take it from a leader that stands still: it has had the store for so long that the leader, had it lost
    /// the store together with us, would have gone on by now.
    pub can_depose: bool,
}

/// What a step of the election means for the node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    Nothing,
    /// The lock is newly ours: bump the epoch.
    Elected,
    /// The lock is still ours, by a statement sent then.
    Renewed(Mono),
    /// The lock is ours no longer.
    Lost,
}

impl Election {
    pub fn new(server: Server, node_id: NodeId, incarnation: Incarnation) -> Election {
        Election { lock: LockWatch::new(Identity { server, node_id, incarnation }), ..Election::default() }
    }

    /// Asks the next thing of Consul. `value`: what the lock would say.
    pub fn poll(&mut self, standing: Standing, value: impl FnOnce() -> LockValue, fx: &mut Effects, now: Now) {
        if self.leave.is_none() {
            self.lock.poll(fx, now);
        }
        self.is_put_off = false;
        if self.asked.is_some() {
            return;
        }
        let Some(step) = self.next_step(standing, now) else { return };
        self.is_put_off = !self.backoff.is_over(now) && self.leave.is_none();
        if self.is_put_off {
            return;
        }
        let work = match (step, self.session.clone()) {
            (Step::Register(Registered { is_leader }), _) => Consul::Register { is_leader },
            (Step::Pass, _) => Consul::Pass,
            (Step::Leave, session) => Consul::Leave { session },
            (Step::Destroy, _) => match self.lock.session().cloned() {
                Some(session) => Consul::DestroySession { session },
                None => return,
            },
            (Step::Release, Some(session)) => Consul::Release { session },
            (Step::Acquire, Some(session)) => Consul::Acquire { session, value: value() },
            (Step::Session | Step::Acquire | Step::Release, _) => Consul::CreateSession,
        };
        let id = fx.work(Work::Consul(work));
        self.asked = Some(Question { id, step, sent_at: now.mono });
    }

    pub fn timers(&self, timers: &mut Timers) {
        timers.set_ahead(Timer::Abstention, self.abstains_until);
        if self.leave.is_some() {
            return;
        }
        self.lock.timers(timers);
        if self.asked.is_some() {
            return;
        }
        if self.is_put_off {
            return timers.set(Timer::ConsulRetry, self.backoff.ready_at());
        }
        timers.set(Timer::ConsulPass, self.registered.map(|_| self.pass_at));
        timers.set(Timer::LockValue, self.is_holder.then_some(self.value_at));
    }

    pub fn is_holder(&self) -> bool {
        self.is_holder
    }

    /// Whether the lock is ours, and we want it.
    pub fn may_lead(&self, now: Now) -> bool {
        self.is_holder && !self.is_abstaining(now)
    }

    /// Whether Consul answers and knows this node.
    pub fn is_well(&self) -> bool {
        self.session.is_some() && !self.backoff.is_failing()
    }

    /// Why there is no leader that one could name, for people.
    pub fn why_not_leader(&self) -> String {
        if self.backoff.is_failing() {
            return "no leader is known: neither Consul nor the leader that the database names is to be reached".into();
        }
        match self.lock.holders_value() {
            Some(value) => format!("this node does not lead; {} does: ask there", value.server),
            None => "no leader is elected yet; try again in a second".into(),
        }
    }

    /// The value in the lock is out of date: write it at once.
    pub fn renew_value(&mut self, now: Now) {
        self.value_at = now.mono;
    }

    /// Gives up the lock, to take part again.
    pub fn resign(&mut self) {
        self.is_holder = false;
    }

    /// Gives the lock up for good, and stays registered: another node is to lead.
    pub fn abstain(&mut self) {
        self.abstains = true;
    }

    /// Gives the lock up for so long, so that another node can lead.
    pub fn abstain_for(&mut self, time_ms: u64, now: Now) {
        self.abstains_until = now.mono.plus_ms(time_ms);
    }

    /// The server that leads, by the lock, and the newest epoch that it knew of when it wrote that.
    pub fn leader(&self) -> Option<(Epoch, &Server)> {
        self.lock.others_value().map(|value| (value.epoch, &value.server))
    }

    /// Whether the lock can be read: if not, who leads is to be learnt elsewhere.
    pub fn sees_lock(&self) -> bool {
        self.lock.is_readable()
    }

    /// Our link to that leader closed, and nobody listens at its address.
    pub fn suspect_dead(&mut self, server: &Server) {
        if self.leader().is_some_and(|(_, leader)| leader == server) {
            self.lock.suspect_dead();
        }
    }

    /// Leaves Consul for good; `has_left` tells when it is done.
    pub fn leave(&mut self) {
        self.leave.get_or_insert(Leave::Wanted);
    }

    pub fn has_left(&self) -> bool {
        self.leave == Some(Leave::Over)
    }

    /// Why this node must not take part, told once. It has nothing to take leave of: what is in Consul is the other's.
    pub fn take_conflict(&mut self) -> Option<String> {
        let conflict = self.lock.take_conflict()?;
        self.leave = Some(Leave::Over);
        Some(conflict)
    }

    pub fn on_consul(
        &mut self,
        id: WorkId,
        result: Result<ConsulAnswer, ConsulError>,
        fx: &mut Effects,
        now: Now,
    ) -> Outcome {
        let Some(asked) = self.asked.take_if(|asked| asked.id == id) else { return Outcome::Nothing };
        match (asked.step, result) {
            (Step::Leave, _) => {
                self.leave = Some(Leave::Over);
                Outcome::Nothing
            }
            (step, Ok(answer)) => {
                // To register and to pass is the agent's own matter: one that makes no session is not well.
                if self.session.is_some() || step == Step::Session {
                    if self.backoff.is_failing() {
                        fx.notice(log::Level::Info, "Consul answers again");
                    }
                    self.backoff.reset();
                }
                self.on_answer(step, answer, asked.sent_at, fx, now)
            }
            (step, Err(ConsulError::Unknown(reason))) => self.on_unknown(step, &reason, fx, now),
            (_, Err(ConsulError::Unavailable(reason))) => {
                if !self.backoff.is_failing() {
                    fx.notice(log::Level::Error, format!("Consul: {reason}; trying again until it answers"));
                }
                self.backoff.fail(now);
                Outcome::Nothing
            }
        }
    }

    pub fn on_watched(&mut self, id: WorkId, result: Result<LockState, ConsulError>, now: Now) {
        self.lock.on_watched(id, result, now);
    }

    fn is_abstaining(&self, now: Now) -> bool {
        self.abstains || now.mono < self.abstains_until
    }

    fn next_step(&self, Standing { is_leader, can_lead, can_depose }: Standing, now: Now) -> Option<Step> {
        if let Some(leave) = self.leave {
            return (leave == Leave::Wanted).then_some(Step::Leave);
        }
        // A registration under its address would take the place of that one's.
        if self.registered.is_none() && (!self.lock.is_asked() || self.lock.may_be_in_conflict()) {
            return None;
        }
        let wanted = Registered { is_leader };
        if self.registered != Some(wanted) {
            return Some(Step::Register(wanted));
        }
        if self.pass_at <= now.mono {
            return Some(Step::Pass);
        }
        if self.session.is_none() {
            return Some(Step::Session);
        }
        if self.is_abstaining(now) || !can_lead && self.is_holder {
            return self.is_holder.then_some(Step::Release);
        }
        if self.is_holder {
            return (self.value_at <= now.mono).then_some(Step::Acquire);
        }
        let lock = self.lock.lock()?;
        match &lock.session {
            // What is free it leaves to others until it can lead itself; its last life must not keep them from it.
            None => can_lead.then_some(Step::Acquire),
            session if *session == self.session => can_lead.then_some(Step::Acquire),
            Some(_) => {
                let may_end = |why: &&str| *why == LAST_LIFE || can_lead && (*why != STANDS_STILL || can_depose);
                self.lock.why_dead().filter(may_end).map(|_| Step::Destroy)
            }
        }
    }

    fn on_answer(&mut self, step: Step, answer: ConsulAnswer, sent_at: Mono, fx: &mut Effects, now: Now) -> Outcome {
        match (step, answer) {
            (Step::Register(registered), _) => {
                if self.registered.is_none() && !self.backoff.is_failing() {
                    fx.notice(log::Level::Info, "registered with Consul");
                }
                self.registered = Some(registered);
                self.pass_at = now.mono;
            }
            (Step::Pass, _) => self.pass_at = sent_at.plus_ms(PASS_EVERY_MS),
            (Step::Session, ConsulAnswer::Session(session)) => {
                fx.notice(log::Level::Info, format!("session {session} made"));
                self.session = Some(session);
            }
            (Step::Release, _) => self.is_holder = false,
            (Step::Acquire, ConsulAnswer::Acquired(is_ours)) => return self.on_acquired(is_ours, sent_at, now),
            (Step::Destroy, _) => {
                let reason = self.lock.why_dead();
                let shown = reason.unwrap_or("the leader is gone");
                fx.notice(log::Level::Warn, format!("{shown}: its session is destroyed"));
                // What is known of the lock is old now, and the watch will tell who has it; if it has not told already.
                if reason.is_some() {
                    self.lock.forget(now);
                }
            }
            _ => {}
        }
        Outcome::Nothing
    }

    fn on_acquired(&mut self, is_ours: bool, sent_at: Mono, now: Now) -> Outcome {
        self.value_at = sent_at.plus_ms(LOCK_VALUE_MS);
        match (std::mem::replace(&mut self.is_holder, is_ours), is_ours) {
            (false, true) => Outcome::Elected,
            (true, true) => Outcome::Renewed(sent_at),
            (true, false) => Outcome::Lost,
            (false, false) => {
                // Another was quicker, or what we know is old: wait for the watch.
                self.lock.forget(now);
                Outcome::Nothing
            }
        }
    }

    fn on_unknown(&mut self, step: Step, reason: &str, fx: &mut Effects, now: Now) -> Outcome {
        if !self.backoff.is_failing() {
            fx.notice(log::Level::Warn, format!("Consul: {reason}"));
        }
        match step {
            Step::Pass | Step::Register(_) | Step::Session => self.registered = None,
            Step::Acquire | Step::Release => self.session = None,
            Step::Destroy => self.lock.forget(now),
            Step::Leave => {}
        }
        self.backoff.fail(now);
        let was_holder = step == Step::Acquire && std::mem::take(&mut self.is_holder);
        if was_holder { Outcome::Lost } else { Outcome::Nothing }
    }
}
