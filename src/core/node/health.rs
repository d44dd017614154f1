//! The node's health, for probes, and its load, for the leader.
//!
//! A node is healthy when its work gets done: its log rows and its leader's journal entries are written. Only while
//! there is nothing to write, the store is pinged instead.
//!
//! Not the check of the store itself: that is `health_check`.
//!
//! Invariant: a fault is reported for as long as it lasts.

use super::{Leadership, Node};
use crate::core::cluster::election::Election;
use crate::model::Now;
use crate::model::command::{HealthView, Progress, Role};
use crate::model::message::Heartbeat;

impl Node {
    /// The answer to `/health`.
    pub(super) fn health(&self, now: Now) -> HealthView {
        let (role, leader, paused) = match &self.lead {
            Leadership::Leading(leader) => (Role::Leader, Some(&self.setup.server), leader.is_paused()),
            _ => {
                let leader = self.follower.joined().and(self.follower.leader());
                (Role::Follower, leader, self.follower.is_paused())
            }
        };
        let leader = leader.cloned().unwrap_or_default();
        let progress = match &self.lead {
            Leadership::Leading(leader) => Some(leader.progress(now)),
            _ => self.follower.progress(now),
        };
        let load = self.load(now);
        HealthView {
            server: self.setup.server.clone(),
            role,
            paused,
            store_ok: load.store_ok,
            consul_ok: self.election.as_ref().map(Election::is_well),
            running: load.running,
            queued: load.waiting,
            journal_age_ms: progress.as_ref().and_then(|progress| progress.journal_age_ms),
            watermark_lag_secs: progress.as_ref().map(|progress| progress.watermark_lag_secs),
            wrong: self.fault(progress, now),
            leader,
        }
    }

    /// A fault of this node, or of its leader. The store comes first: without it there may be no leader either.
    fn fault(&self, progress: Option<Progress>, now: Now) -> Option<String> {
        if !self.is_open() {
            return Some(self.why_no_leader());
        }
        if !self.is_store_ok(now) {
            let log = self.lender.logbook.trouble().map(|reason| format!("log rows are not written: {reason}"));
            let store = || self.health_check.failure().map(|reason| format!("the store does not answer: {reason}"));
            return log.or_else(store).or_else(|| Some("the store does not answer".into()));
        }
        match (progress, &self.lead) {
            (None, _) if self.rejected_for.is_some() => self.rejected_for.clone(),
            (None, _) => {
                Some("this node knows no leader: see its log for Consul and for its link to the leader".into())
            }
            (Some(progress), Leadership::Leading(_)) => progress.wrong,
            (Some(progress), _) => {
                let leader = self.follower.leader().cloned().unwrap_or_default();
                progress.wrong.map(|wrong| format!("the leader, {leader}, is in trouble: {wrong}"))
            }
        }
    }

    /// How much this node has to do, and whether its store answers: the heartbeat, without the times of its sending.
    pub(super) fn load(&self, now: Now) -> Heartbeat {
        let has_journal = !matches!(&self.lead, Leadership::Leading(leader) if !leader.has_journal(now));
        let store_ok = has_journal && self.is_store_ok(now);
        Heartbeat { store_ok, refused: self.lender.logbook.refused(), ..self.executor.load() }
    }
}
