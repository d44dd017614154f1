//! How this node is, for probes, and how its store is, for the leader.
//!
//! Health goes the way of the work: it rests on whether what had to be written was written, by this node and by its leader.
//!
//! Invariant: what is wrong is said for as long as it is so.

use super::{Leadership, Node};
use crate::core::cluster::election::Election;
use crate::model::Now;
use crate::model::command::{HealthView, Progress, Role};
use crate::model::message::Heartbeat;

impl Node {
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
            wrong: self.what_is_wrong(progress, now),
            leader,
        }
    }

    /// The store first: without it there may be no leader either.
    fn what_is_wrong(&self, progress: Option<Progress>, now: Now) -> Option<String> {
        if !self.is_open() {
            return Some(self.why_no_leader());
        }
        if !self.is_store_ok(now) {
            let log = self.logbook.trouble().map(|reason| format!("log rows are not written: {reason}"));
            let store = || self.health_check.failure().map(|reason| format!("the store does not answer: {reason}"));
            return log.or_else(store).or_else(|| Some("the store does not answer".into()));
        }
        match (progress, &self.lead) {
            (None, _) => Some("no leader is known".into()),
            (Some(progress), Leadership::Leading(_)) => progress.wrong,
            (Some(progress), _) => {
                let leader = self.follower.leader().cloned().unwrap_or_default();
                progress.wrong.map(|wrong| format!("at the leader, {leader}, {wrong}"))
            }
        }
    }

    /// How much this node has to do and whether it has its store, for the leader.
    pub(super) fn load(&self, now: Now) -> Heartbeat {
        let has_journal = !matches!(&self.lead, Leadership::Leading(leader) if !leader.has_journal(now));
        let store_ok = has_journal && self.is_store_ok(now);
        Heartbeat { store_ok, refused: self.logbook.refused(), ..self.executor.load() }
    }
}
