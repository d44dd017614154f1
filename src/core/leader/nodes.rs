//! The leader and its nodes: greetings, leases, what each of them has, and how it is shown.
//!
//! Invariant: a lease is never granted for longer than the leader's authority lasts.

use super::{Leader, Rooms, Verdict};
use crate::core::io::{Effects, Output};
use crate::core::node::LEASE_MS;
use crate::core::ports::{Lead, StoreError, Work, WorkId};
use crate::core::runs::Place;
use crate::model::command::{ClusterView, Progress, Refusal};
use crate::model::message::{Heartbeat, Held, Hello, LinkId, Message, ToNode};
use crate::model::{Attempt, Mono, NodeId, Now, RunState, Server};
use std::collections::BTreeMap;

impl Leader {
    /// A node has told all that it has. What it neither holds nor has started is looked for in the log.
    pub fn on_holdings(&mut self, node: &NodeId, held: Vec<(Attempt, Held)>, rooms: &mut Rooms) {
        self.roster.on_settled(node);
        self.places = self.places(rooms.now);
        let (dispatch, mut around) = self.around(rooms);
        let settling = dispatch.on_holdings(node, &held.into_iter().collect(), &mut around);
        rooms.fx.tell_node(node, ToNode::Settled { drop: settling.drop });
        if !settling.back.is_empty() {
            rooms.fx.tell_node(node, ToNode::Return(settling.back));
        }
        let (dispatch, mut around) = self.around(rooms);
        dispatch.on_settled(settling.jobs, &mut around);
        if !settling.unknown.is_empty() {
            self.find(settling.question, settling.unknown, rooms.fx);
        }
    }

    pub fn on_found(
        &mut self,
        id: WorkId,
        result: Result<BTreeMap<Attempt, RunState>, StoreError>,
        rooms: &mut Rooms,
    ) -> Verdict {
        let Some((question, attempts)) = self.finding.remove(&id) else { return Verdict::Ok };
        match result {
            Ok(logged) => {
                self.controls.on_found(&logged, rooms.fx);
                let (dispatch, mut around) = self.around(rooms);
                dispatch.on_checked(attempts, question, &logged, &mut around);
            }
            Err(StoreError::Deposed) => return Verdict::Deposed,
            // Asked again at the next sweep; the journal's own troubles are told by the journal.
            Err(_) => self.to_find.push((question, attempts)),
        }
        Verdict::Ok
    }

    /// A node that was linked to us as its leader.
    pub fn on_hello(&mut self, link: LinkId, hello: &Hello, authority: Mono, rooms: &mut Rooms) {
        let (fx, now) = (&mut *rooms.fx, rooms.now);
        match self.roster.on_hello(link, hello, now) {
            Err(reason) => {
                fx.notice(log::Level::Error, format!("{} is refused: {reason}", hello.server));
                fx.send(link, Message::Refused { reason });
            }
            Ok(former) => {
                former.into_iter().for_each(|former| fx.output(Output::Unlink(former)));
                fx.notice(log::Level::Info, format!("node {} is here", hello.server));
                let valid_for_ms = valid_for_ms(authority, now);
                self.roster.on_granted(&hello.node_id, now);
                fx.send(link, Message::Welcome { epoch: self.epoch, wall: now.wall, valid_for_ms });
            }
        }
        self.places = self.places(now);
    }

    pub fn on_heartbeat(&mut self, link: LinkId, heartbeat: Heartbeat, authority: Mono, rooms: &mut Rooms) {
        let Some(node) = self.roster.node_of(link) else { return };
        if let Some(warning) = self.roster.on_heartbeat(&node, heartbeat, rooms.now) {
            rooms.fx.notice(log::Level::Warn, warning);
        }
        let valid_for_ms = valid_for_ms(authority, rooms.now);
        self.roster.on_granted(&node, rooms.now);
        let (sent, wall, paused) = (heartbeat.sent, rooms.now.wall, self.is_paused);
        let progress = self.progress(rooms.now);
        rooms.fx.send(link, Message::Beat { sent, wall, valid_for_ms, paused, progress });
        self.places = self.places(rooms.now);
    }

    pub fn on_unlinked(&mut self, link: LinkId, rooms: &mut Rooms) {
        let Some(node) = self.roster.on_unlinked(link, rooms.now) else { return };
        rooms.fx.notice(log::Level::Warn, format!("node {} is gone", self.roster.server_of(&node)));
        self.changes.on_silent(&node, rooms.fx);
        self.controls.on_silent(&node, rooms.fx);
        self.places = self.places(rooms.now);
    }

    pub fn node_of(&self, link: LinkId) -> Option<NodeId> {
        self.roster.node_of(link)
    }

    pub fn link_of(&self, node: &NodeId) -> Option<LinkId> {
        self.roster.link_of(node)
    }

    /// `own`: what our own node says of its load.
    pub fn view(&self, own: Heartbeat, now: Now) -> ClusterView {
        let nodes = self.roster.view(own, now);
        let (leader, watermark) = (self.setup.server.clone(), self.tick());
        let Progress { journal_age_ms, watermark_lag_secs, .. } = self.progress(now);
        let (epoch, paused) = (self.epoch, self.is_paused);
        ClusterView { leader, epoch, watermark, paused, journal_age_ms, watermark_lag_secs, nodes }
    }

    /// Where our journal does not get through: a node that has the store.
    pub fn better_placed(&self, now: Now) -> Option<Server> {
        self.journaler.is_stuck(now).then(|| self.roster.with_store(now)).flatten()
    }

    pub fn drain_node(&mut self, server: &Server, fx: &mut Effects) -> Result<(), Refusal> {
        let node = self.roster.node_at(server).filter(|node| self.is_reachable(node));
        let node = node.ok_or_else(|| Refusal {
            status: 404,
            message: format!("server {server}: there is no such node; /cluster shows those that are there"),
        })?;
        fx.tell_node(&node, ToNode::Drain);
        Ok(())
    }

    /// Our own node's system has no room for another process, or has some again.
    pub fn set_own_full(&mut self, is_full: bool, now: Now) {
        if std::mem::replace(&mut self.is_own_full, is_full) != is_full {
            self.roster.set_own_full(is_full);
            self.places = self.places(now);
        }
    }

    pub(super) fn is_reachable(&self, node: &NodeId) -> bool {
        *node == self.setup.node_id || self.roster.link_of(node).is_some()
    }

    pub(super) fn places(&self, now: Now) -> Vec<Place> {
        self.roster.places(self.is_own_draining, now)
    }

    pub(super) fn find(&mut self, question: u64, attempts: Vec<Attempt>, fx: &mut Effects) {
        let id = fx.work(Work::Lead(Lead::Find { epoch: self.epoch, attempts: attempts.clone() }));
        self.finding.insert(id, (question, attempts));
    }
}

/// How long a lease may be: what is left of the authority, and never longer than `LEASE_MS`.
fn valid_for_ms(authority: Mono, now: Now) -> u64 {
    (authority.since(now.mono).as_millis() as u64).min(LEASE_MS)
}
