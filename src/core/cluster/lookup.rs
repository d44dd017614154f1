//! The lookup: asks the store which node leads. It is for a node whose Consul does not answer, or names a node that
//! does not take this one in.
//!
//! Not the election: no node becomes leader by it. Not a proof either: it says which node to greet, and that node's
//! Welcome says under which epoch it leads.
//!
//! Invariants: one question is under way at a time; while Consul's answer is enough, the store is not asked.

use crate::core::Context;
use crate::core::io::ports::{Read, StoreError, StoredLeader, Work, WorkId};
use crate::core::time::bounds::{LOOKUP_EVERY_MS, LOOKUP_PATIENCE_MS};
use crate::core::time::{Timer, Timers};
use crate::model::{Epoch, Mono, NodeId, Now, Server};

/// The questions to the store, and its last answer.
#[derive(Debug, Default)]
pub struct Lookup {
    server: Server,
    node_id: NodeId,
    lock_key: String,
    asked: Option<WorkId>,
    /// None while Consul's answer is enough.
    ask_at: Option<Mono>,
    named: Option<StoredLeader>,
}

impl Lookup {
    /// A lookup for this node.
    pub fn new(server: Server, node_id: NodeId, lock_key: String) -> Lookup {
        Lookup { server, node_id, lock_key, ..Lookup::default() }
    }

    /// Asks the store when it is time. `is_needed`: Consul does not answer, or names a node that does not take this one
    /// in.
    pub fn poll(&mut self, is_needed: bool, cx: &mut Context) {
        self.ask_at = is_needed.then(|| self.ask_at.unwrap_or(cx.now.mono.plus_ms(LOOKUP_PATIENCE_MS)));
        if self.asked.is_none() && self.ask_at.is_some_and(|ask_at| ask_at <= cx.now.mono) {
            self.asked = Some(cx.fx.work(Work::Read(Read::Leader)));
        }
    }

    /// Lists when to ask next.
    pub fn timers(&self, timers: &mut Timers) {
        timers.set(Timer::LeaderLookup, self.ask_at.filter(|_| self.asked.is_none()));
    }

    /// The store's answer. Without a leader in it, the last one that was named stays.
    pub fn on_answer(&mut self, id: WorkId, result: Result<Option<StoredLeader>, StoreError>, now: Now) {
        if self.asked.take_if(|asked| *asked == id).is_none() {
            return;
        }
        self.ask_at = self.ask_at.map(|_| now.mono.plus_ms(LOOKUP_EVERY_MS));
        // An error needs no report here: the health check and the logbook report a store that is away.
        if let Ok(Some(named)) = result {
            self.named = Some(named);
        }
    }

    /// The leader that the store named last, with its epoch; none where this node must not greet it.
    pub fn leader(&self) -> Option<(Epoch, &Server)> {
        let named = self.named.as_ref().filter(|named| self.may_greet(named))?;
        Some((named.epoch, &named.server))
    }

    /// Whether this node may greet that leader: not where it is this node itself, of another cluster, or out of reach
    /// of this host's loopback address (the election says why).
    fn may_greet(&self, named: &StoredLeader) -> bool {
        let is_own = named.node_id == self.node_id || named.server == self.server;
        let is_apart = self.server.is_loopback() && !named.server.is_loopback();
        named.lock_key == self.lock_key && !is_own && !is_apart
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Lender;
    use crate::core::io::Effect;

    fn at(ms: u64) -> Now {
        Now { mono: Mono(0).plus_ms(ms), ..Now::default() }
    }

    fn lookup(server: &str) -> Lookup {
        Lookup::new(Server(server.into()), NodeId("own".into()), "key".into())
    }

    fn named(server: &str, node_id: &str, lock_key: &str) -> StoredLeader {
        let (server, node_id) = (Server(server.into()), NodeId(node_id.into()));
        StoredLeader { lock_key: lock_key.into(), epoch: Epoch(3), server, node_id }
    }

    /// The question that it asks now.
    fn asked(lookup: &mut Lookup, is_needed: bool, now: Now) -> Option<WorkId> {
        let mut lender = Lender::default();
        lookup.poll(is_needed, &mut lender.at(now));
        match lender.fx.take()? {
            Effect::Work(id, Work::Read(Read::Leader)) => Some(id),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_store_is_asked_every_second_and_only_while_consul_is_not_enough() {
        let mut lookup = lookup("10.0.0.1:1");
        assert_eq!(asked(&mut lookup, false, at(60_000)), None);
        assert_eq!(asked(&mut lookup, true, at(60_000)), None, "a takeover is no reason");
        assert_eq!(asked(&mut lookup, false, at(60_900)), None);
        assert_eq!(asked(&mut lookup, true, at(61_000)), None, "counted anew");
        let id = asked(&mut lookup, true, at(61_000 + LOOKUP_PATIENCE_MS)).unwrap();
        assert_eq!(asked(&mut lookup, true, at(70_000)), None, "one question at a time");
        lookup.on_answer(id, Err(StoreError::Away("away".into())), at(70_000));
        let next = Timers::first(at(70_000), |timers| lookup.timers(timers));
        assert_eq!(next, Some((Timer::LeaderLookup, at(70_000 + LOOKUP_EVERY_MS).mono)));
        let id = asked(&mut lookup, true, at(70_000 + LOOKUP_EVERY_MS)).unwrap();
        assert_eq!(asked(&mut lookup, false, at(72_000)), None);
        lookup.on_answer(id, Ok(None), at(72_000));
        assert_eq!(Timers::first(at(72_000), |timers| lookup.timers(timers)), None);
    }

    #[test]
    fn only_a_leader_that_it_may_be_with_is_greeted() {
        let leader = |own: &str, stored: StoredLeader| {
            let mut lookup = lookup(own);
            asked(&mut lookup, true, at(0));
            let id = asked(&mut lookup, true, at(LOOKUP_PATIENCE_MS)).unwrap();
            lookup.on_answer(id, Ok(Some(stored)), at(LOOKUP_PATIENCE_MS));
            lookup.leader().map(|(epoch, server)| (epoch.0, server.to_string()))
        };
        let other = "10.0.0.2:1";
        assert_eq!(leader("10.0.0.1:1", named(other, "other", "key")), Some((3, other.into())));
        assert_eq!(leader("10.0.0.1:1", named(other, "other", "another key")), None, "another cluster's");
        assert_eq!(
            leader("10.0.0.1:1", named(other, "own", "key")),
            None,
            "its own former incarnation, or a copied data_dir"
        );
        assert_eq!(leader(other, named(other, "other", "key")), None, "its own address");
        assert_eq!(leader("127.0.0.1:1", named(other, "other", "key")), None, "that one could not reach it");
    }
}
