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
//! Invariant: one statement is with Consul at a time, and one watch.

#[cfg(test)]
mod tests;

use crate::core::io::Effects;
use crate::core::ports::{Consul, ConsulAnswer, ConsulError, LockState, LockValue, Work, WorkId};
use crate::core::time::{Backoff, Timer, Timers};
use crate::model::{Epoch, Incarnation, Mono, NodeId, Now, Server};

/// The check's time to live is three of these.
const PASS_EVERY_MS: u64 = 1_000;
const VALUE_EVERY_MS: u64 = 1_000;
/// A lock value that stands still for so long, while Consul answers, belongs to a leader that hangs.
const STALE_MS: u64 = 3_000;
/// A watch that sees no change answers after this, so that a value standing still is noticed.
const WATCH_MS: u64 = 1_000;

const LAST_LIFE: &str = "the lock was held by this node's last life";
/// Why the lock is taken from a leader that hangs.
const STANDS_STILL: &str = "the leader's lock value stands still";
/// A leader lives whose lock value was seen to change so often: once may be a late write of one that is dead.
const MOVES_OF_LIVING: u32 = 2;

#[derive(Debug, Default)]
pub struct Election {
    server: Server,
    node_id: NodeId,
    incarnation: Incarnation,
    registered: Option<Registered>,
    session: Option<String>,
    is_holder: bool,
    pass_at: Mono,
    value_at: Mono,
    asked: Option<Question>,
    backoff: Backoff,
    /// There is something to ask, and Consul has failed too lately.
    is_put_off: bool,
    watch: Option<WorkId>,
    watch_backoff: Backoff,
    seen: Seen,
    leave: Option<Leave>,
    /// It does not want to lead any more, or not before then.
    abstains: bool,
    abstains_until: Mono,
    /// The session of a leader whose daemon is known to be dead.
    dead_session: Option<String>,
    /// Why this node must not take part.
    conflict: Option<String>,
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

/// The lock as the watch last saw it.
#[derive(Debug, Default)]
struct Seen {
    lock: Option<LockState>,
    /// Since when its value is what it is.
    since: Mono,
    is_stale: bool,
    /// The lock was asked for; what is known of it is known, or it cannot be read.
    is_asked: bool,
    /// How often its holder was seen to write it.
    moves: u32,
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
        Election { server, node_id, incarnation, ..Election::default() }
    }

    /// Asks the next thing of Consul. `value`: what the lock would say.
    pub fn poll(&mut self, standing: Standing, value: impl FnOnce() -> LockValue, fx: &mut Effects, now: Now) {
        if self.watch.is_none() && self.watch_backoff.is_over(now) && self.leave.is_none() {
            let index = self.seen.lock.as_ref().map_or(0, |lock| lock.index);
            self.watch = Some(fx.work(Work::Watch { index, wait_ms: WATCH_MS }));
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
            (Step::Destroy, _) => match self.seen.lock.as_ref().and_then(|lock| lock.session.clone()) {
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
        timers.set(Timer::ConsulWatch, self.watch.is_none().then(|| self.watch_backoff.ready_at()));
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
        match self.seen.lock.as_ref().filter(|lock| lock.session.is_some()).and_then(|lock| lock.value.as_ref()) {
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
        let lock = self.seen.lock.as_ref().filter(|lock| lock.session.is_some())?;
        let value = lock.value.as_ref().filter(|value| value.node_id != self.node_id)?;
        Some((value.epoch, &value.server))
    }

    /// Whether the lock can be read: if not, who leads is to be learnt elsewhere.
    pub fn sees_lock(&self) -> bool {
        !self.watch_backoff.is_failing()
    }

    /// Our link to that leader closed, and nobody listens at its address.
    pub fn suspect_dead(&mut self, server: &Server) {
        if self.leader().is_some_and(|(_, leader)| leader == server) {
            self.dead_session = self.seen.lock.as_ref().and_then(|lock| lock.session.clone());
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
        let conflict = self.conflict.take()?;
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
        if self.watch.take_if(|watch| *watch == id).is_none() {
            return;
        }
        self.seen.is_asked = true;
        let Ok(lock) = result else {
            // Whether Consul answers is told by the other statements; a silent one says nothing about the leader.
            self.watch_backoff.fail(now);
            self.seen.since = now.mono;
            return;
        };
        self.watch_backoff.reset();
        let before = self.seen.lock.as_ref().map(|lock| (&lock.session, &lock.value));
        if before != Some((&lock.session, &lock.value)) {
            self.seen.since = now.mono;
            let is_move = before
                .is_some_and(|(session, value)| lock.session.is_some() && *session == lock.session && value.is_some());
            self.seen.moves = if is_move { self.seen.moves + 1 } else { 0 };
        }
        self.seen.is_stale = self.seen.since.plus_ms(STALE_MS) <= now.mono;
        self.conflict = self.conflict_with(&lock).filter(|_| MOVES_OF_LIVING <= self.seen.moves);
        self.seen.lock = Some(lock);
    }

    /// Why the lock's holder and this node cannot both take part, if that one lives.
    fn conflict_with(&self, lock: &LockState) -> Option<String> {
        let other = lock.value.as_ref().filter(|_| lock.session.is_some())?;
        let server = &other.server;
        match (*server == self.server, other.node_id == self.node_id) {
            (true, true) if other.incarnation <= self.incarnation => None,
            (true, true) => Some(format!(
                "another daemon leads as {server} and with this node's id: was data_dir copied? Give this node a bind_address \
                 of its own, remove the file node_id from its data_dir, and start it again"
            )),
            (true, false) => Some(format!("another node leads as {server}: give each node a bind_address of its own")),
            (false, true) => Some(format!(
                "the node that leads, {server}, has this node's id: was data_dir copied? Remove the file node_id from the \
                 data_dir of one of them, and start it again"
            )),
            (false, false) if self.server.is_loopback() && !server.is_loopback() => Some(format!(
                "bind_address {} is reached from this host only, and {server} leads: give this node an address that the other \
                 hosts reach",
                self.server
            )),
            (false, false) => None,
        }
    }

    fn is_abstaining(&self, now: Now) -> bool {
        self.abstains || now.mono < self.abstains_until
    }

    fn next_step(&self, Standing { is_leader, can_lead, can_depose }: Standing, now: Now) -> Option<Step> {
        if let Some(leave) = self.leave {
            return (leave == Leave::Wanted).then_some(Step::Leave);
        }
        // A registration under its address would take the place of that one's.
        let may_be_in_conflict =
            !self.seen.is_stale && self.seen.lock.as_ref().is_some_and(|lock| self.conflict_with(lock).is_some());
        if self.registered.is_none() && (!self.seen.is_asked || may_be_in_conflict) {
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
        let lock = self.seen.lock.as_ref()?;
        match &lock.session {
            // What is free it leaves to others until it can lead itself; its last life must not keep them from it.
            None => can_lead.then_some(Step::Acquire),
            session if *session == self.session => can_lead.then_some(Step::Acquire),
            Some(_) => {
                let may_end = |why: &&str| *why == LAST_LIFE || can_lead && (*why != STANDS_STILL || can_depose);
                self.why_dead(lock).filter(may_end).map(|_| Step::Destroy)
            }
        }
    }

    /// Why the lock's holder does not lead any more, whatever Consul thinks.
    fn why_dead(&self, lock: &LockState) -> Option<&'static str> {
        // Our guardian saw our last life dead before it started this one.
        let is_last_life = |value: &LockValue| {
            value.node_id == self.node_id && value.server == self.server && value.incarnation < self.incarnation
        };
        if lock.value.as_ref().is_some_and(is_last_life) {
            Some(LAST_LIFE)
        } else if lock.session.is_some() && lock.session == self.dead_session {
            Some("the leader's link closed and nobody listens there")
        } else {
            self.seen.is_stale.then_some(STANDS_STILL)
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
                let reason = self.seen.lock.as_ref().and_then(|lock| self.why_dead(lock));
                let shown = reason.unwrap_or("the leader is gone");
                fx.notice(log::Level::Warn, format!("{shown}: its session is destroyed"));
                // What is known of the lock is old now, and the watch will tell who has it; if it has not told already.
                if reason.is_some() {
                    self.seen = Seen { since: now.mono, is_asked: true, ..Seen::default() };
                }
            }
            _ => {}
        }
        Outcome::Nothing
    }

    fn on_acquired(&mut self, is_ours: bool, sent_at: Mono, now: Now) -> Outcome {
        self.value_at = sent_at.plus_ms(VALUE_EVERY_MS);
        match (std::mem::replace(&mut self.is_holder, is_ours), is_ours) {
            (false, true) => Outcome::Elected,
            (true, true) => Outcome::Renewed(sent_at),
            (true, false) => Outcome::Lost,
            (false, false) => {
                // Another was quicker, or what we know is old: wait for the watch.
                self.seen = Seen { since: now.mono, is_asked: true, ..Seen::default() };
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
            Step::Destroy => self.seen = Seen { since: now.mono, is_asked: true, ..Seen::default() },
            Step::Leave => {}
        }
        self.backoff.fail(now);
        let was_holder = step == Step::Acquire && std::mem::take(&mut self.is_holder);
        if was_holder { Outcome::Lost } else { Outcome::Nothing }
    }
}
