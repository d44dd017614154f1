//! The leader and its nodes: greetings, leases, what each of them has, and how it is shown.
//!
//! Invariant: a lease is never granted for longer than the leader's authority lasts.

use super::{Leader, Verdict};
use crate::core::Context;
use crate::core::io::{Effect, Effects};
use crate::core::node::LEASE_MS;
use crate::core::ports::{Lead, StoreError, Work, WorkId};
use crate::core::runs::Candidate;
use crate::model::command::{CallError, ClusterView, Progress};
use crate::model::message::{Heartbeat, Held, Hello, LinkId, Message, ToNode};
use crate::model::{Attempt, Mono, NodeId, Now, RunState, Server};
use std::collections::BTreeMap;

impl Leader {
    /// A node has told all that it has. What it neither holds nor has started is looked for in the log.
    pub fn on_holdings(&mut self, node: &NodeId, held: Vec<(Attempt, Held)>, cx: &mut Context) {
        self.roster.on_settled(node);
        self.candidates = self.candidates(cx.now);
        let (runs, mut around) = self.around(cx);
        let settling = runs.on_holdings(node, &held.into_iter().collect(), &mut around);
        cx.fx.tell_node(node, ToNode::Settled { drop: settling.drop });
        if !settling.back.is_empty() {
            cx.fx.tell_node(node, ToNode::Return(settling.back));
        }
        let (runs, mut around) = self.around(cx);
        runs.on_settled(settling.jobs, &mut around);
        if !settling.unknown.is_empty() {
            self.find(settling.question, settling.unknown, cx.fx);
        }
    }

    pub fn on_rows(
        &mut self,
        id: WorkId,
        result: Result<BTreeMap<Attempt, RunState>, StoreError>,
        cx: &mut Context,
    ) -> Verdict {
        let Some((question, attempts)) = self.finding.remove(&id) else { return Verdict::Ok };
        match result {
            Ok(logged) => {
                self.controls.on_rows(&logged, cx.fx);
                let (runs, mut around) = self.around(cx);
                runs.on_checked(attempts, question, &logged, &mut around);
            }
            Err(StoreError::Deposed) => return Verdict::Deposed,
            // Asked again at the next sweep; the journal's own troubles are told by the journal.
            Err(_) => self.to_find.push((question, attempts)),
        }
        Verdict::Ok
    }

    /// A node that was linked to us as its leader.
    pub fn on_hello(&mut self, link: LinkId, hello: &Hello, authority: Mono, cx: &mut Context) {
        let (fx, now) = (&mut *cx.fx, cx.now);
        match self.roster.on_hello(link, hello, now) {
            Err(reason) => {
                fx.notice(log::Level::Error, format!("{} is refused: {reason}", hello.server));
                fx.send(link, Message::Rejected { reason });
            }
            Ok(former) => {
                former.into_iter().for_each(|former| fx.push(Effect::Unlink(former)));
                fx.notice(log::Level::Info, format!("node {} is here", hello.server));
                let valid_for_ms = valid_for_ms(authority, now);
                self.roster.on_granted(&hello.node_id, now);
                fx.send(link, Message::Welcome { epoch: self.epoch, wall: now.wall, valid_for_ms });
            }
        }
        self.candidates = self.candidates(now);
    }

    pub fn on_heartbeat(&mut self, link: LinkId, heartbeat: Heartbeat, authority: Mono, cx: &mut Context) {
        let Some(node) = self.roster.node_of(link) else { return };
        if let Some(warning) = self.roster.on_heartbeat(&node, heartbeat, cx.now) {
            cx.fx.notice(log::Level::Warn, warning);
        }
        let valid_for_ms = valid_for_ms(authority, cx.now);
        self.roster.on_granted(&node, cx.now);
        let (sent, wall, paused) = (heartbeat.sent, cx.now.wall, self.is_paused);
        let progress = self.progress(cx.now);
        cx.fx.send(link, Message::HeartbeatAck { sent, wall, valid_for_ms, paused, progress });
        self.candidates = self.candidates(cx.now);
    }

    pub fn on_unlinked(&mut self, link: LinkId, cx: &mut Context) {
        let Some(node) = self.roster.on_unlinked(link, cx.now) else { return };
        cx.fx.notice(log::Level::Warn, format!("node {} is gone", self.roster.server_of(&node)));
        self.changes.on_silent(&node, cx.fx);
        self.controls.on_silent(&node, cx.fx);
        self.candidates = self.candidates(cx.now);
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

    pub fn drain_node(&mut self, server: &Server, fx: &mut Effects) -> Result<(), CallError> {
        let node = self.roster.node_at(server).filter(|node| self.is_reachable(node));
        let node = node.ok_or_else(|| CallError {
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
            self.candidates = self.candidates(now);
        }
    }

    pub(super) fn is_reachable(&self, node: &NodeId) -> bool {
        *node == self.setup.node_id || self.roster.link_of(node).is_some()
    }

    pub(super) fn candidates(&self, now: Now) -> Vec<Candidate> {
        self.roster.candidates(self.is_own_draining, now)
    }

    pub(super) fn find(&mut self, question: u64, attempts: Vec<Attempt>, fx: &mut Effects) {
        let id = fx.work(Work::Lead(Lead::ReadRows { epoch: self.epoch, attempts: attempts.clone() }));
        self.finding.insert(id, (question, attempts));
    }
}

/// How long a lease may be: what is left of the authority, and never longer than `LEASE_MS`.
fn valid_for_ms(authority: Mono, now: Now) -> u64 {
    (authority.since(now.mono).as_millis() as u64).min(LEASE_MS)
}
