//! This node's knowledge of the lock: a watch in Consul that answers when the lock changes, and the conclusions from
//! that.
//!
//! Not the place that takes the lock or destroys a session: that is the election, which this is a part of.
//!
//! Invariants: one watch is with Consul at a time; a stale lock was seen with one value for `LOCK_STALE_MS`, while
//! Consul answered.

use crate::core::Context;
use crate::core::io::ports::{ConsulError, LockState, LockValue, Work, WorkId};
use crate::core::time::bounds::{LOCK_STALE_MS, LOCK_WATCH_MS};
use crate::core::time::{Backoff, Timer, Timers};
use crate::model::{Incarnation, Mono, NodeId, Now, Server};

/// A leader counts as alive when its lock value was seen to change so often. A single change may be a late write of a
/// leader that has died.
const MOVES_OF_LIVING: u32 = 2;

/// The reason to take the lock from this node's own former incarnation.
pub(super) const FORMER_INCARNATION: &str = "the lock was held by this node's daemon before its restart";
/// The reason to take the lock from a leader that hangs.
pub(super) const STANDS_STILL: &str = "the leader's lock value stands still";

/// The watch, and the last known state of the lock.
#[derive(Debug, Default)]
pub(super) struct LockWatch {
    own: Identity,
    pub(super) watch: Option<WorkId>,
    backoff: Backoff,
    seen: Seen,
    /// The session of a leader whose daemon is known to be dead.
    dead_session: Option<String>,
    /// Why this node must not take part in the cluster.
    conflict: Option<String>,
}

/// This node's names.
#[derive(Debug, Default)]
pub(super) struct Identity {
    pub server: Server,
    pub node_id: NodeId,
    pub incarnation: Incarnation,
}

/// The lock as the watch last saw it.
#[derive(Debug, Default)]
struct Seen {
    lock: Option<LockState>,
    /// Since when it has this value.
    since: Mono,
    is_stale: bool,
    /// Consul has answered a watch, even if with an error.
    is_asked: bool,
    /// How often its holder was seen to change the value.
    moves: u32,
}

impl LockWatch {
    /// A watch for this node; nothing is known of the lock yet.
    pub fn new(own: Identity) -> LockWatch {
        LockWatch { own, ..LockWatch::default() }
    }

    /// Sends the next watch where none is with Consul.
    pub fn poll(&mut self, cx: &mut Context) {
        if self.watch.is_none() && self.backoff.is_over(cx.now) {
            let index = self.seen.lock.as_ref().map_or(0, |lock| lock.index);
            self.watch = Some(cx.fx.work(Work::Watch { index, wait_ms: LOCK_WATCH_MS }));
        }
    }

    /// Lists when to poll.
    pub fn timers(&self, timers: &mut Timers) {
        timers.set(Timer::ConsulWatch, self.watch.is_none().then(|| self.backoff.ready_at()));
    }

    /// Consul's answer to the watch.
    pub fn on_watched(&mut self, id: WorkId, result: Result<LockState, ConsulError>, now: Now) {
        if self.watch.take_if(|watch| *watch == id).is_none() {
            return;
        }
        self.seen.is_asked = true;
        let Ok(lock) = result else {
            // The election's other statements report that Consul is away. For the leader it means nothing, so the time
            // of its lock value begins anew.
            self.backoff.fail(now);
            self.seen.since = now.mono;
            return;
        };
        self.backoff.reset();
        let before = self.seen.lock.as_ref().map(|lock| (&lock.session, &lock.value));
        if before != Some((&lock.session, &lock.value)) {
            self.seen.since = now.mono;
            let is_move = before
                .is_some_and(|(session, value)| lock.session.is_some() && *session == lock.session && value.is_some());
            self.seen.moves = if is_move { self.seen.moves + 1 } else { 0 };
        }
        self.seen.is_stale = self.seen.since.plus_ms(LOCK_STALE_MS) <= now.mono;
        self.conflict = self.conflict_with(&lock).filter(|_| MOVES_OF_LIVING <= self.seen.moves);
        self.seen.lock = Some(lock);
    }

    /// Forgets the lock's state, which is out of date; the watch will tell the new one.
    pub fn forget(&mut self, now: Now) {
        self.seen = Seen { since: now.mono, is_asked: true, ..Seen::default() };
    }

    /// The lock as it was last seen; none while nothing is known of it.
    pub fn lock(&self) -> Option<&LockState> {
        self.seen.lock.as_ref()
    }

    /// The lock, where a session holds it.
    fn taken(&self) -> Option<&LockState> {
        self.lock().filter(|lock| lock.session.is_some())
    }

    /// The session that holds the lock.
    pub fn session(&self) -> Option<&String> {
        self.lock()?.session.as_ref()
    }

    /// The value that the lock's holder wrote.
    pub fn holders_value(&self) -> Option<&LockValue> {
        self.taken()?.value.as_ref()
    }

    /// The value, where the holder is another node.
    pub fn others_value(&self) -> Option<&LockValue> {
        self.holders_value().filter(|value| value.node_id != self.own.node_id)
    }

    /// Whether Consul has answered a watch, even if with an error.
    pub fn is_asked(&self) -> bool {
        self.seen.is_asked
    }

    /// Whether the last watch was answered without an error.
    pub fn is_readable(&self) -> bool {
        !self.backoff.is_failing()
    }

    /// The daemon of the lock's holder is known to be dead.
    pub fn suspect_dead(&mut self) {
        self.dead_session = self.session().cloned();
    }

    /// Why this node must not take part in the cluster; told once.
    pub fn take_conflict(&mut self) -> Option<String> {
        self.conflict.take()
    }

    /// Whether this node must not take part, if the lock's holder is alive.
    pub fn may_be_in_conflict(&self) -> bool {
        !self.seen.is_stale && self.lock().is_some_and(|lock| self.conflict_with(lock).is_some())
    }

    /// Why the lock's holder does not lead any more, although its session may still be there.
    pub fn why_dead(&self) -> Option<&'static str> {
        let lock = self.lock()?;
        // The guardian starts a daemon only when the former one is dead.
        let is_former_incarnation = |value: &LockValue| {
            value.node_id == self.own.node_id
                && value.server == self.own.server
                && value.incarnation < self.own.incarnation
        };
        if lock.value.as_ref().is_some_and(is_former_incarnation) {
            Some(FORMER_INCARNATION)
        } else if lock.session.is_some() && lock.session == self.dead_session {
            Some("the leader's link closed and nobody listens there")
        } else {
            self.seen.is_stale.then_some(STANDS_STILL)
        }
    }

    /// Why the lock's holder and this node cannot both take part, if the holder is alive.
    fn conflict_with(&self, lock: &LockState) -> Option<String> {
        let other = lock.value.as_ref().filter(|_| lock.session.is_some())?;
        let (server, own) = (&other.server, &self.own);
        match (*server == own.server, other.node_id == own.node_id) {
            (true, true) if other.incarnation <= own.incarnation => None,
            (true, true) => Some(format!(
                "another daemon leads as {server} and with this node's id: was data_dir copied? Give this node a bind_address \
                 of its own, remove the file node_id from its data_dir, and start it again"
            )),
            (true, false) => Some(format!("another node leads as {server}: give each node a bind_address of its own")),
            (false, true) => Some(format!(
                "the node that leads, {server}, has this node's id: was data_dir copied? Remove the file node_id from the \
                 data_dir of one of them, and start it again"
            )),
            (false, false) if own.server.is_loopback() && !server.is_loopback() => Some(format!(
                "bind_address {} is reached from this host only, and {server} leads: give this node an address that the other \
                 hosts reach",
                own.server
            )),
            (false, false) => None,
        }
    }
}
