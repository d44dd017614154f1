//! The election: registers the service, keeps a session, and takes and keeps the lock in Consul.
//!
//! ```text
//! Register -> Pass -> CreateSession -> Acquire -> (true) Acquire every second with a fresh value
//!    ^                     ^              |           |
//!    +-- check unknown     +-- session unknown        +-- (false) the lead is lost
//! ```
//!
//! Not a proof of leadership: a leader that has lost the lock is fenced by the epoch in the store. Not the knowledge of
//! the lock: that is `lock_watch`'s.
//!
//! Before it registers it reads the lock. The lock may belong to a living leader that has the same address or node id
//! as this node, or that cannot reach it. Then this node must not take part: it does not touch that leader's
//! registration, and exits with the reason.
//!
//! Invariant: one statement is with Consul at a time, beside the watch.

mod lock_watch;
#[cfg(test)]
mod tests;

use self::lock_watch::{FORMER_INCARNATION, Identity, LockWatch, STANDS_STILL};
use crate::core::Context;
use crate::core::io::ports::{Consul, ConsulAnswer, ConsulError, LockState, LockValue, Work, WorkId};
use crate::core::time::bounds::{CHECK_PASS_MS, LOCK_VALUE_MS};
use crate::core::time::{Backoff, Timer, Timers};
use crate::model::{Epoch, Incarnation, Mono, NodeId, Now, Server};

/// This node's part in the election.
#[derive(Debug, Default)]
pub struct Election {
    registered: Option<Registered>,
    session: Option<String>,
    is_holder: bool,
    pass_at: Mono,
    value_at: Mono,
    asked: Option<Question>,
    backoff: Backoff,
    /// A statement waits for the end of the back-off, because the last one failed.
    is_put_off: bool,
    lock: LockWatch,
    leave: Option<Leave>,
    /// This node leaves the lead to others for good.
    abstains: bool,
    /// This node leaves the lead to others until then.
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

/// How far this node leads, or could lead.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Standing {
    /// It leads.
    pub is_leader: bool,
    /// It could lead if it held the lock.
    pub can_lead: bool,
    /// It may take the lock from a leader that stands still. The store has answered this node for so long that a leader
    /// which only waited for the same store would have gone on by now.
    pub can_depose: bool,
}

/// What Consul's answer means for the node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    Nothing,
    /// This node has got the lock: the epoch may be bumped.
    Elected,
    /// The lock is still ours, by a statement that was sent at this moment.
    Renewed(Mono),
    /// This node has the lock no more.
    Lost,
}

impl Election {
    /// This node's part in the election, before anything is known of the lock.
    pub fn new(server: Server, node_id: NodeId, incarnation: Incarnation) -> Election {
        Election { lock: LockWatch::new(Identity { server, node_id, incarnation }), ..Election::default() }
    }

    /// Sends Consul the next statement. `value`: the value to write into the lock.
    pub fn poll(&mut self, standing: Standing, value: impl FnOnce() -> LockValue, cx: &mut Context) {
        if self.leave.is_none() {
            self.lock.poll(cx);
        }
        self.is_put_off = false;
        if self.asked.is_some() {
            return;
        }
        let Some(step) = self.next_step(standing, cx.now) else { return };
        self.is_put_off = !self.backoff.is_over(cx.now) && self.leave.is_none();
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
        let id = cx.fx.work(Work::Consul(work));
        self.asked = Some(Question { id, step, sent_at: cx.now.mono });
    }

    /// Lists when to poll.
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

    /// Whether this node holds the lock, by Consul's last answer.
    pub fn is_holder(&self) -> bool {
        self.is_holder
    }

    /// Whether this node holds the lock and does not abstain.
    pub fn may_lead(&self, now: Now) -> bool {
        self.is_holder && !self.is_abstaining(now)
    }

    /// Whether Consul answers and knows this node.
    pub fn is_well(&self) -> bool {
        self.session.is_some() && !self.backoff.is_failing()
    }

    /// Why this node does not lead, for people; names the leader where one is known.
    pub fn why_not_leader(&self) -> String {
        if self.backoff.is_failing() {
            return "no leader is known: neither Consul nor the leader that the database names can be reached".into();
        }
        match self.lock.holders_value() {
            Some(value) => format!("this node does not lead; {} does: ask there", value.server),
            None => "no leader is elected yet; try again in a second".into(),
        }
    }

    /// The value in the lock is out of date: the next poll writes a new one.
    pub fn renew_value(&mut self, now: Now) {
        self.value_at = now.mono;
    }

    /// Counts the lock as lost. Unlike a node that abstains, this one may take it again.
    pub fn resign(&mut self) {
        self.is_holder = false;
    }

    /// Releases the lock for good, so that another node leads. This node stays registered.
    pub fn abstain(&mut self) {
        self.abstains = true;
    }

    /// Releases the lock for so long at least, so that another node can lead.
    pub fn abstain_for(&mut self, time_ms: u64, now: Now) {
        self.abstains_until = self.abstains_until.max(now.mono.plus_ms(time_ms));
    }

    /// The other node that leads, by the lock's value, and the newest epoch that it knew of when it wrote the value.
    pub fn leader(&self) -> Option<(Epoch, &Server)> {
        self.lock.others_value().map(|value| (value.epoch, &value.server))
    }

    /// Whether that other node holds the lock, by what this node last saw of it.
    pub fn has_lock(&self, server: &Server) -> bool {
        self.leader().is_some_and(|(_, leader)| leader == server)
    }

    /// Whether the lock can be read; where not, the lookup must name the leader.
    pub fn sees_lock(&self) -> bool {
        self.lock.is_readable()
    }

    /// The link to that leader has closed, and nobody listens at its address.
    pub fn suspect_dead(&mut self, server: &Server) {
        if self.has_lock(server) {
            self.lock.suspect_dead();
        }
    }

    /// Leaves Consul for good; `has_left` says when that is done.
    pub fn leave(&mut self) {
        self.leave.get_or_insert(Leave::Wanted);
    }

    /// Whether this node has left Consul.
    pub fn has_left(&self) -> bool {
        self.leave == Some(Leave::Over)
    }

    /// Why this node must not take part in the cluster; told once. It counts as having left then: the registration in
    /// Consul is the other node's.
    pub fn take_conflict(&mut self) -> Option<String> {
        let conflict = self.lock.take_conflict()?;
        self.leave = Some(Leave::Over);
        Some(conflict)
    }

    /// Consul's answer to a statement.
    pub fn on_consul(&mut self, id: WorkId, result: Result<ConsulAnswer, ConsulError>, cx: &mut Context) -> Outcome {
        let Some(asked) = self.asked.take_if(|asked| asked.id == id) else { return Outcome::Nothing };
        match (asked.step, result) {
            (Step::Leave, _) => {
                self.leave = Some(Leave::Over);
                Outcome::Nothing
            }
            (step, Ok(answer)) => {
                // An agent takes a registration, and a passed check, without Consul's servers. So as long as there is
                // no session, only a new one shows that Consul is well.
                if self.session.is_some() || step == Step::Session {
                    if self.backoff.is_failing() {
                        cx.fx.notice(log::Level::Info, "Consul answers again");
                    }
                    self.backoff.reset();
                }
                self.on_answer(asked, answer, cx)
            }
            (step, Err(ConsulError::Unknown(reason))) => self.on_unknown(step, &reason, cx),
            (_, Err(ConsulError::Unavailable(reason))) => {
                if !self.backoff.is_failing() {
                    cx.fx.notice(log::Level::Error, format!("Consul: {reason}; trying again until it answers"));
                }
                self.backoff.fail(cx.now);
                Outcome::Nothing
            }
        }
    }

    /// Consul's answer to the watch of the lock.
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
        // A registration under the leader's own address would replace that leader's.
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
            // A node that cannot lead yet leaves the free lock to others.
            None => can_lead.then_some(Step::Acquire),
            session if *session == self.session => can_lead.then_some(Step::Acquire),
            // A node that cannot lead still ends the session of its own former incarnation, because that session keeps
            // other nodes from the lock.
            Some(_) => {
                let may_end =
                    |why: &&str| *why == FORMER_INCARNATION || can_lead && (*why != STANDS_STILL || can_depose);
                self.lock.why_dead().filter(may_end).map(|_| Step::Destroy)
            }
        }
    }

    fn on_answer(&mut self, asked: Question, answer: ConsulAnswer, cx: &mut Context) -> Outcome {
        let sent_at = asked.sent_at;
        match (asked.step, answer) {
            (Step::Register(registered), _) => {
                if self.registered.is_none() && !self.backoff.is_failing() {
                    cx.fx.notice(log::Level::Info, "registered with Consul");
                }
                self.registered = Some(registered);
                self.pass_at = cx.now.mono;
            }
            (Step::Pass, _) => self.pass_at = sent_at.plus_ms(CHECK_PASS_MS),
            (Step::Session, ConsulAnswer::Session(session)) => {
                cx.fx.notice(log::Level::Info, format!("made session {session} in Consul"));
                self.session = Some(session);
            }
            (Step::Release, _) => self.is_holder = false,
            (Step::Acquire, ConsulAnswer::Acquired(is_ours)) => return self.on_acquired(is_ours, sent_at, cx.now),
            (Step::Destroy, _) => {
                let reason = self.lock.why_dead();
                let shown = reason.unwrap_or("the leader is gone");
                cx.fx.notice(log::Level::Warn, format!("{shown}: its session is destroyed"));
                // The lock is out of date, and the watch will tell its new state. Where the lock is no dead leader's
                // any more, the watch has told already.
                if reason.is_some() {
                    self.lock.forget(cx.now);
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
                // Another node was quicker, or the known state of the lock was out of date: wait for the watch.
                self.lock.forget(now);
                Outcome::Nothing
            }
        }
    }

    fn on_unknown(&mut self, step: Step, reason: &str, cx: &mut Context) -> Outcome {
        if !self.backoff.is_failing() {
            cx.fx.notice(log::Level::Warn, format!("Consul: {reason}"));
        }
        match step {
            Step::Pass | Step::Register(_) | Step::Session => self.registered = None,
            Step::Acquire | Step::Release => self.session = None,
            Step::Destroy => self.lock.forget(cx.now),
            Step::Leave => {}
        }
        self.backoff.fail(cx.now);
        let was_holder = step == Step::Acquire && std::mem::take(&mut self.is_holder);
        if was_holder { Outcome::Lost } else { Outcome::Nothing }
    }
}
