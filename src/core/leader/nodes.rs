//! The leader and its nodes: greetings, heartbeats, holdings, and the view of the cluster.
//!
//! Not the table of nodes: that is `cluster::roster`.
//!
//! Invariant: a lease is never granted for longer than the leader's authority lasts.

use super::{Leader, Verdict};
use crate::core::Context;
use crate::core::io::Effects;
use crate::core::io::ports::{Lead, StoreError, Work, WorkId};
use crate::core::runs::Unknown;
use crate::core::time::bounds::LEASE_MS;
use crate::model::command::{CallError, ClusterView, Progress};
use crate::model::message::{Heartbeat, Held, Hello, LinkId, Message, ToNode};
use crate::model::{Attempt, Mono, NodeId, Now, RunState, Server};
use std::collections::BTreeMap;

impl Leader {
    /// A node has told its holdings. The log rows of attempts that it should have and does not are read.
    pub fn on_holdings(&mut self, node: &NodeId, held: Vec<(Attempt, Held)>, cx: &mut Context) {
        self.roster.on_settled(node);
        self.runs.set_candidates(self.roster.candidates(cx.now));
        let held = held.into_iter().collect();
        let mut unknown = self.runs.on_holdings(node, &held, &mut self.ledger, cx);
        if self.roster.has_forgotten(node) {
            if self.roster.is_searched(node) || unknown.attempts.is_empty() {
                self.roster.on_searched(node);
                self.runs.explain_to(node);
            } else {
                unknown.forgetful = Some(node.clone());
            }
        }
        if !unknown.attempts.is_empty() {
            self.find(unknown, cx.fx);
        }
    }

    /// The log rows of attempts that `find` asked for.
    pub fn on_rows(
        &mut self,
        id: WorkId,
        result: Result<BTreeMap<Attempt, RunState>, StoreError>,
        cx: &mut Context,
    ) -> Verdict {
        let Some(unknown) = self.finding.remove(&id) else { return Verdict::Ok };
        match result {
            Ok(logged) => {
                self.controls.on_rows(&logged, cx.fx);
                let searched = self.runs.on_checked(unknown, &logged, &mut self.ledger, cx);
                searched.iter().for_each(|node| self.roster.on_searched(node));
            }
            Err(StoreError::Deposed) => return Verdict::Deposed,
            // The next housekeeping asks again, and the journaler reports a store that is away.
            Err(_) => self.to_find.push(unknown),
        }
        Verdict::Ok
    }

    /// A node greets: takes it in, or rejects it with a reason.
    pub fn on_hello(&mut self, link: LinkId, hello: &Hello, authority: Mono, cx: &mut Context) {
        let (fx, now) = (&mut *cx.fx, cx.now);
        match self.roster.on_hello(link, hello, now) {
            Err(reason) => {
                fx.notice(log::Level::Error, format!("node {} is rejected: {reason}", hello.server));
                fx.send(link, Message::Rejected { reason });
            }
            Ok(former) => {
                former.into_iter().for_each(|former| fx.unlink(former));
                fx.notice(log::Level::Info, format!("node {} has joined", hello.server));
                let valid_for_ms = valid_for_ms(authority, now);
                self.roster.on_granted(&hello.node_id, now);
                fx.send(link, Message::Welcome { epoch: self.epoch, wall: now.wall, valid_for_ms });
            }
        }
        self.runs.set_candidates(self.roster.candidates(now));
    }

    /// A heartbeat: answers it with a lease.
    pub fn on_heartbeat(&mut self, link: LinkId, heartbeat: Heartbeat, authority: Mono, cx: &mut Context) {
        let Some(node) = self.roster.node_of(link) else { return };
        let is_as_before = self.roster.is_as_before(&node, &heartbeat, cx.now);
        if let Some(warning) = self.roster.on_heartbeat(&node, heartbeat, cx.now) {
            cx.fx.notice(log::Level::Warn, warning);
        }
        let valid_for_ms = valid_for_ms(authority, cx.now);
        self.roster.on_granted(&node, cx.now);
        let (sent, wall, paused) = (heartbeat.sent, cx.now.wall, self.is_paused);
        let progress = self.progress(cx.now);
        cx.fx.send(link, Message::HeartbeatAck { sent, wall, valid_for_ms, paused, progress });
        if !is_as_before {
            self.runs.set_candidates(self.roster.candidates(cx.now));
        }
    }

    /// A node's link is gone.
    pub fn on_unlinked(&mut self, link: LinkId, cx: &mut Context) {
        let Some(node) = self.roster.on_unlinked(link, cx.now) else { return };
        cx.fx.notice(log::Level::Warn, format!("node {} is gone: its link is closed", self.roster.server_of(&node)));
        self.changes.settling.on_silent(&node, cx.fx);
        self.controls.on_silent(&node, cx.fx);
        self.runs.set_candidates(self.roster.candidates(cx.now));
    }

    /// The node at the other end of the link, once it was taken in.
    pub fn node_of(&self, link: LinkId) -> Option<NodeId> {
        self.roster.node_of(link)
    }

    /// The node's link; none where it has none.
    pub fn link_of(&self, node: &NodeId) -> Option<LinkId> {
        self.roster.link_of(node)
    }

    /// The answer to `/cluster`.
    pub fn view(&self, now: Now) -> ClusterView {
        let Progress { journal_age_ms, watermark_lag_secs, .. } = self.progress(now);
        ClusterView {
            leader: self.setup.hello.server.clone(),
            epoch: self.epoch,
            watermark: self.tick(),
            paused: self.is_paused,
            journal_age_ms,
            watermark_lag_secs,
            nodes: self.roster.view(now),
        }
    }

    /// A node that should lead instead of this one: the store answers that node, and does not write this leader's
    /// journal.
    pub fn better_leader(&self, now: Now) -> Option<Server> {
        self.ledger.journal.is_stuck(now).then(|| self.roster.with_store(now)).flatten()
    }

    /// Tells the node to take no new runs. The error, with status 404, says that there is no such node.
    pub fn drain_node(&mut self, server: &Server, fx: &mut Effects) -> Result<(), CallError> {
        let node = self.roster.node_at(server).filter(|node| self.is_reachable(node));
        let node = node.ok_or_else(|| CallError {
            status: 404,
            message: format!("server {server}: there is no such node; /cluster shows the nodes"),
        })?;
        fx.tell_node(&node, ToNode::Drain);
        Ok(())
    }

    /// Whether the node has a link.
    pub(super) fn is_reachable(&self, node: &NodeId) -> bool {
        self.roster.link_of(node).is_some()
    }

    /// Reads the log rows of these attempts, under this leader's epoch.
    pub(super) fn find(&mut self, unknown: Unknown, fx: &mut Effects) {
        let attempts = unknown.attempts.clone();
        let id = fx.work(Work::Lead(Lead::ReadRows { epoch: self.epoch, attempts }));
        self.finding.insert(id, unknown);
    }
}

/// The length of a lease: the rest of the authority, and at most `LEASE_MS`.
fn valid_for_ms(authority: Mono, now: Now) -> u64 {
    (authority.since(now.mono).as_millis() as u64).min(LEASE_MS)
}
