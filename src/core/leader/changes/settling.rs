//! Changes that are in force on the leader, and wait for nodes to drop their runs of the old definition.
//!
//! Not the runs: the leader has told the nodes already.
//!
//! Invariant: each client is answered once, when the last of its nodes has answered, or one of them cannot.

use super::errors::{cut_off, in_force, in_force_and_cut_off};
use crate::core::io::Effects;
use crate::core::io::ports::Change;
use crate::model::command::{Answer, RequestId};
use crate::model::{Job, JobId, NodeId};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The changes that wait for nodes.
#[derive(Debug, Default)]
pub struct SettlingChanges {
    all: Vec<Settling>,
}

#[derive(Debug)]
struct Settling {
    client: RequestId,
    job: Arc<Job>,
    /// The nodes that have yet to answer.
    nodes: BTreeSet<NodeId>,
    is_stored: bool,
}

impl SettlingChanges {
    /// Answers the client when these nodes, which were told to cancel old runs, have done so.
    pub fn wait_for(&mut self, client: RequestId, job: Arc<Job>, nodes: BTreeSet<NodeId>) {
        self.all.push(Settling { client, job, nodes, is_stored: true });
    }

    /// As `wait_for`, for a stop that is not stored.
    pub fn wait_unstored(&mut self, client: RequestId, job: Arc<Job>, nodes: BTreeSet<NodeId>) {
        self.all.push(Settling { client, job, nodes, is_stored: false });
    }

    /// The node holds no old run of this job any more.
    pub fn on_cancelled(&mut self, node: &NodeId, id: JobId, fx: &mut Effects) {
        // The node was told once for each change, and answers in that order: this answers the oldest.
        let first = self.all.iter().position(|settling| settling.job.id == id && settling.nodes.contains(node));
        let Some(at) = first else { return };
        self.all[at].nodes.remove(node);
        if self.all[at].nodes.is_empty() {
            let Settling { client, job, is_stored, .. } = self.all.remove(at);
            fx.reply(client, if is_stored { Ok(Answer::Job(job)) } else { Err(in_force(job.id)) });
        }
    }

    /// The node will not answer: its runs of old definitions may start until its lease is over.
    pub fn on_silent(&mut self, node: &NodeId, fx: &mut Effects) {
        for settling in self.all.extract_if(.., |settling| settling.nodes.contains(node)) {
            let error = if settling.is_stored { cut_off() } else { in_force_and_cut_off(settling.job.id) };
            fx.reply(settling.client, Err(error));
        }
    }

    /// The store has made this change.
    pub fn set_stored(&mut self, change: &Change) {
        if let Change::Put(stored) = change {
            let is_it =
                |settling: &&mut Settling| (settling.job.id, settling.job.version) == (stored.id, stored.version);
            self.all.iter_mut().filter(is_it).for_each(|settling| settling.is_stored = true);
        }
    }

    /// Whether no change waits for a node.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The clients that wait, when the lead is lost.
    pub fn into_clients(self) -> impl Iterator<Item = RequestId> {
        self.all.into_iter().map(|settling| settling.client)
    }
}
