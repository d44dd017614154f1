//! Consul in memory: sessions that depend on checks, one lock, and the lock's history, because a host may read an old
//! state.

use std::collections::BTreeMap;
use wing_crontab::core::io::ports::{Consul as Ask, ConsulAnswer, ConsulError, LockState, LockValue};
use wing_crontab::core::time::bounds::CHECK_TTL_SECS;

const CHECK_TTL_NS: u64 = CHECK_TTL_SECS * 1_000_000_000;

#[derive(Debug, Default)]
pub struct Consul {
    /// When each host's check was passed the last time.
    checks: BTreeMap<usize, u64>,
    /// Sessions, and the hosts whose checks they depend on.
    sessions: BTreeMap<String, usize>,
    pub lock: LockState,
    /// The states of the lock, each with the moment at which it began.
    past: Vec<(u64, LockState)>,
    count: u64,
}

impl Consul {
    pub fn new() -> Consul {
        let lock = LockState { index: 1, ..LockState::default() };
        Consul { past: vec![(0, lock.clone())], lock, ..Consul::default() }
    }

    /// The lock as it was at that moment.
    pub fn lock_at(&self, moment: u64) -> &LockState {
        let after = self.past.partition_point(|(since, _)| *since <= moment);
        &self.past[after.max(1) - 1].1
    }

    /// Remembers the lock's present state.
    pub fn note(&mut self, now: u64) {
        if self.past.last().is_none_or(|(_, lock)| *lock != self.lock) {
            self.past.push((now, self.lock.clone()));
        }
    }

    /// Everything is forgotten, as of an agent in memory that was restarted.
    pub fn restart(&mut self, now: u64) {
        let lock = LockState { index: self.lock.index + 100, ..LockState::default() };
        *self = Consul { count: self.count, lock, past: std::mem::take(&mut self.past), ..Consul::default() };
        self.note(now);
    }

    /// Ends the sessions whose checks were not passed; true when the lock changed.
    pub fn expire(&mut self, now: u64) -> bool {
        let checks = &self.checks;
        let is_dead = |host: &usize| checks.get(host).is_none_or(|passed| passed + CHECK_TTL_NS < now);
        let dead: Vec<String> =
            self.sessions.iter().filter(|(_, host)| is_dead(host)).map(|(session, _)| session.clone()).collect();
        // All of them, not only up to the first that held the lock.
        dead.iter().filter(|session| self.destroy(session)).count() != 0
    }

    /// The answer, and whether the lock changed.
    pub fn ask(&mut self, host: usize, ask: &Ask, now: u64) -> (Result<ConsulAnswer, ConsulError>, bool) {
        let unknown = |what: &str| Err(ConsulError::Unknown(what.into()));
        let mut changed = self.expire(now);
        let answer = match ask {
            Ask::Register { .. } => {
                self.checks.insert(host, now);
                Ok(ConsulAnswer::Done)
            }
            Ask::Pass if !self.checks.contains_key(&host) => unknown("check"),
            Ask::Pass => {
                self.checks.insert(host, now);
                Ok(ConsulAnswer::Done)
            }
            Ask::CreateSession => match self.checks.get(&host) {
                Some(passed) if now <= passed + CHECK_TTL_NS => Ok(ConsulAnswer::Session(self.create_session(host))),
                _ => unknown("check"),
            },
            Ask::Acquire { session, .. } if !self.sessions.contains_key(session) => unknown("session"),
            Ask::Acquire { session, value } => {
                let is_ours = self.acquire(session, value);
                changed |= is_ours;
                Ok(ConsulAnswer::Acquired(is_ours))
            }
            Ask::Release { session } => {
                changed |= self.release(session);
                Ok(ConsulAnswer::Done)
            }
            Ask::DestroySession { session } => {
                changed |= self.destroy(session);
                Ok(ConsulAnswer::Done)
            }
            Ask::Leave { session } => {
                changed |= session.as_ref().is_some_and(|session| self.destroy(session));
                self.checks.remove(&host);
                Ok(ConsulAnswer::Done)
            }
        };
        (answer, changed)
    }

    fn create_session(&mut self, host: usize) -> String {
        self.count += 1;
        let session = format!("session-{}", self.count);
        self.sessions.insert(session.clone(), host);
        session
    }

    /// Whether the session has the lock now.
    fn acquire(&mut self, session: &str, value: &LockValue) -> bool {
        let is_ours = self.lock.session.as_ref().is_none_or(|holder| holder == session);
        if is_ours {
            self.lock.session = Some(session.into());
            self.lock.value = Some(value.clone());
            self.lock.index += 1;
        }
        is_ours
    }

    fn destroy(&mut self, session: &str) -> bool {
        self.sessions.remove(session);
        self.release(session)
    }

    fn release(&mut self, session: &str) -> bool {
        let is_holder = self.lock.session.as_deref() == Some(session);
        if is_holder {
            self.lock.session = None;
            self.lock.index += 1;
        }
        is_holder
    }
}
