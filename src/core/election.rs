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
//! Invariant: one statement is with Consul at a time, and one watch.

use super::backoff::Backoff;
use super::effects::Effects;
use super::work::{Consul, ConsulAnswer, ConsulError, LockState, LockValue, Work, WorkId};
use crate::model::{Incarnation, Mono, NodeId, Now, Server};

/// The check's time to live is three of these.
const PASS_EVERY_MS: u64 = 1_000;
const VALUE_EVERY_MS: u64 = 1_000;
/// A lock value that stands still for so long, while Consul answers, belongs to a leader that hangs.
const STALE_MS: u64 = 3_000;
/// A watch that sees no change answers after this, so that a value standing still is noticed.
const WATCH_MS: u64 = 1_000;

#[derive(Debug, Default)]
pub struct Election {
    node_id: NodeId,
    incarnation: Incarnation,
    registered: Option<Registered>,
    session: Option<String>,
    is_holder: bool,
    pass_at: Mono,
    value_at: Mono,
    asked: Option<Asked>,
    backoff: Backoff,
    watch: Option<WorkId>,
    watch_backoff: Backoff,
    seen: Seen,
    leave: Option<Leave>,
    /// It does not want to lead any more.
    abstains: bool,
    /// It may not take the lock yet.
    is_held_back: bool,
    /// The session of a leader whose daemon is known to be dead.
    dead_session: Option<String>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Registered {
    is_leader: bool,
}

#[derive(Debug)]
struct Asked {
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
}

/// What a step of the election means for the node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    Nothing,
    /// The lock is newly ours: bump the epoch.
    Elected,
    /// The lock is still ours, by a statement sent then.
    Kept(Mono),
    /// The lock is ours no longer.
    Lost,
}

impl Election {
    pub fn new(node_id: NodeId, incarnation: Incarnation) -> Election {
        Election { node_id, incarnation, ..Election::default() }
    }

    /// Asks the next thing of Consul. `is_leader`: the node has taken up the lead; `value`: what the lock would say.
    pub fn poll(&mut self, is_leader: bool, value: impl FnOnce() -> LockValue, fx: &mut Effects, now: Now) {
        if self.watch.is_none() && self.session.is_some() && self.watch_backoff.is_over(now) && self.leave.is_none() {
            let index = self.seen.lock.as_ref().map_or(0, |lock| lock.index);
            self.watch = Some(fx.work(Work::Watch { index, wait_ms: WATCH_MS }));
        }
        if self.asked.is_some() || !self.backoff.is_over(now) && self.leave.is_none() {
            return;
        }
        let Some(step) = self.next_step(is_leader, now) else { return };
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
        self.asked = Some(Asked { id, step, sent_at: now.mono });
    }

    pub fn deadline(&self) -> Option<Mono> {
        let watch = if self.watch.is_none() && self.session.is_some() { self.watch_backoff.deadline() } else { None };
        let pass = self.registered.map(|_| self.pass_at);
        let value = self.is_holder.then_some(self.value_at);
        let next = pass.into_iter().chain(value).min().max(self.backoff.deadline());
        let next = if self.asked.is_none() && self.leave != Some(Leave::Over) { next } else { None };
        next.into_iter().chain(watch).min()
    }

    pub fn is_holder(&self) -> bool {
        self.is_holder
    }

    /// Whether Consul answers and knows this node.
    pub fn is_well(&self) -> bool {
        self.session.is_some() && !self.backoff.is_failing()
    }

    /// Why there is no leader that one could name, for people.
    pub fn why_not_leader(&self) -> String {
        if self.backoff.is_failing() {
            return "no leader is known: Consul is not to be reached".into();
        }
        match self.seen.lock.as_ref().filter(|lock| lock.session.is_some()).and_then(|lock| lock.value.as_ref()) {
            Some(value) => format!("this node does not lead; {} does: send the change there", value.server),
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

    /// Whether the node has yet to become able to lead: until then the lock is left to others.
    pub fn hold_back(&mut self, is_held_back: bool) {
        self.is_held_back = is_held_back;
    }

    /// The server that leads, by the lock.
    pub fn leader(&self) -> Option<&Server> {
        let lock = self.seen.lock.as_ref().filter(|lock| lock.session.is_some())?;
        lock.value.as_ref().filter(|value| value.node_id != self.node_id).map(|value| &value.server)
    }

    /// Our link to that leader closed, and nobody listens at its address.
    pub fn suspect_dead(&mut self, server: &Server) {
        if self.leader() == Some(server) {
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
                if self.backoff.is_failing() {
                    fx.notice(log::Level::Info, "Consul answers again");
                }
                self.backoff.reset();
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
        }
        self.seen.is_stale = self.seen.since.plus_ms(STALE_MS) <= now.mono;
        self.seen.lock = Some(lock);
    }

    fn next_step(&self, is_leader: bool, now: Now) -> Option<Step> {
        if let Some(leave) = self.leave {
            return (leave == Leave::Wanted).then_some(Step::Leave);
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
        if self.abstains {
            return self.is_holder.then_some(Step::Release);
        }
        if self.is_holder {
            return (self.value_at <= now.mono).then_some(Step::Acquire);
        }
        let lock = self.seen.lock.as_ref()?;
        match &lock.session {
            Some(session) if Some(session) != self.session.as_ref() => self.why_dead(lock).map(|_| Step::Destroy),
            // What is free it leaves to others until it can lead itself.
            _ => (!self.is_held_back).then_some(Step::Acquire),
        }
    }

    /// Why the lock's holder does not lead any more, whatever Consul thinks.
    fn why_dead(&self, lock: &LockState) -> Option<&'static str> {
        // Our guardian saw our last life dead before it started this one.
        let is_last_life = |value: &LockValue| value.node_id == self.node_id && value.incarnation != self.incarnation;
        if lock.value.as_ref().is_some_and(is_last_life) {
            Some("the lock was held by this node's last life")
        } else if lock.session.is_some() && lock.session == self.dead_session {
            Some("the leader's link closed and nobody listens there")
        } else {
            self.seen.is_stale.then_some("the leader's lock value stands still")
        }
    }

    fn on_answer(&mut self, step: Step, answer: ConsulAnswer, sent_at: Mono, fx: &mut Effects, now: Now) -> Outcome {
        match (step, answer) {
            (Step::Register(registered), _) => {
                if self.registered.is_none() {
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
                fx.notice(
                    log::Level::Warn,
                    format!("{}: its session is destroyed", reason.unwrap_or("the leader is gone")),
                );
                // What is known of the lock is old now, and the watch will tell who has it; if it has not told already.
                if reason.is_some() {
                    self.seen = Seen { since: now.mono, ..Seen::default() };
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
            (true, true) => Outcome::Kept(sent_at),
            (true, false) => Outcome::Lost,
            (false, false) => {
                // Another was quicker, or what we know is old: wait for the watch.
                self.seen = Seen { since: now.mono, ..Seen::default() };
                Outcome::Nothing
            }
        }
    }

    fn on_unknown(&mut self, step: Step, reason: &str, fx: &mut Effects, now: Now) -> Outcome {
        fx.notice(log::Level::Warn, format!("Consul: {reason}"));
        match step {
            Step::Pass | Step::Register(_) | Step::Session => self.registered = None,
            Step::Acquire | Step::Release => self.session = None,
            Step::Destroy => self.seen = Seen { since: now.mono, ..Seen::default() },
            Step::Leave => {}
        }
        self.backoff.fail(now);
        let was_holder = step == Step::Acquire && std::mem::take(&mut self.is_holder);
        if was_holder { Outcome::Lost } else { Outcome::Nothing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Output;
    use crate::model::Epoch;

    /// What the node's last life wrote into the lock.
    fn value() -> LockValue {
        LockValue {
            epoch: Epoch(1),
            tick: Default::default(),
            server: Server::default(),
            node_id: NodeId("a".into()),
            incarnation: Incarnation(1),
        }
    }

    /// An election that has registered and has a session.
    fn started(fx: &mut Effects, now: Now) -> Election {
        let mut election = Election::new(NodeId("a".into()), Incarnation(2));
        for answer in [ConsulAnswer::Done, ConsulAnswer::Done, ConsulAnswer::Session("ours".into())] {
            let (id, _) = asked(&mut election, fx, now).unwrap();
            election.on_consul(id, Ok(answer), fx, now);
        }
        election
    }

    fn asked(election: &mut Election, fx: &mut Effects, now: Now) -> Option<(WorkId, Consul)> {
        election.poll(false, value, fx, now);
        std::iter::from_fn(|| fx.take()).find_map(|output| match output {
            Output::Work(id, Work::Consul(consul)) => Some((id, consul)),
            _ => None,
        })
    }

    fn see(election: &mut Election, lock: LockState, now: Now) {
        election.watch = Some(WorkId(1_000));
        election.on_watched(WorkId(1_000), Ok(lock), now);
    }

    #[test]
    fn a_watch_that_tells_of_the_free_lock_before_its_session_is_known_to_be_destroyed_is_heard() {
        let (mut fx, now) = (Effects::default(), Now::default());
        let mut election = started(&mut fx, now);
        see(&mut election, LockState { index: 1, session: Some("of before".into()), value: Some(value()) }, now);
        let (id, _) = asked(&mut election, &mut fx, now).unwrap();
        see(&mut election, LockState { index: 2, ..LockState::default() }, now);
        election.on_consul(id, Ok(ConsulAnswer::Done), &mut fx, now);
        assert!(matches!(asked(&mut election, &mut fx, now), Some((_, Consul::Acquire { .. }))));
    }

    #[test]
    fn a_node_that_cannot_lead_yet_leaves_the_lock_to_others_and_its_last_life_does_not_keep_it() {
        let (mut fx, now) = (Effects::default(), Now::default());
        let mut election = started(&mut fx, now);
        election.hold_back(true);
        see(&mut election, LockState { index: 1, session: Some("of before".into()), value: Some(value()) }, now);
        let Some((id, Consul::DestroySession { session })) = asked(&mut election, &mut fx, now) else {
            panic!("the session of the last life stands in the way of the others");
        };
        assert_eq!(session, "of before");
        election.on_consul(id, Ok(ConsulAnswer::Done), &mut fx, now);
        let free = LockState { index: 2, ..LockState::default() };
        see(&mut election, free.clone(), now);
        assert!(asked(&mut election, &mut fx, now).is_none());
        election.hold_back(false);
        assert!(matches!(asked(&mut election, &mut fx, now), Some((_, Consul::Acquire { .. }))));
    }
}
