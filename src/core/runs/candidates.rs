//! The candidates (the nodes that may be given a run), and the choice among them.
//!
//! Not the roster: it knows which nodes are there. Not the table: it counts the runs of each node.
//!
//! Invariant: a node is chosen only where it takes new runs, suits the job, and has capacity left.

use super::table::RunTable;
use crate::model::{Job, NodeId, Server};

/// Runs that waited for a permit may exceed a node's capacity by one part in so many.
pub const RESERVE_PART: usize = 10;

/// A node with a link.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub node: NodeId,
    pub server: Server,
    pub labels: Vec<String>,
    /// How many runs it may have at one time.
    pub capacity: usize,
    /// It is settled, heard of lately, and not draining.
    pub takes_new: bool,
    /// Its host has no resources for another process just now: it is chosen only where there is no other node.
    pub is_full: bool,
}

impl Candidate {
    /// Whether the job may run there at all.
    pub fn suits(&self, job: &Job) -> bool {
        job.node.is_empty() || *self.server.0 == *job.node || self.labels.contains(&job.node)
    }
}

/// All candidates, as the roster saw them last.
#[derive(Debug, Default)]
pub struct Candidates {
    all: Vec<Candidate>,
    /// The index at which the search among equal candidates begins.
    next: usize,
}

impl Candidates {
    /// Replaces all candidates.
    pub fn set(&mut self, all: Vec<Candidate>) {
        self.all = all;
    }

    /// All candidates.
    pub fn iter(&self) -> impl Iterator<Item = &Candidate> {
        self.all.iter()
    }

    /// Whether the node is a candidate.
    pub fn has(&self, node: &NodeId) -> bool {
        self.all.iter().any(|candidate| candidate.node == *node)
    }

    /// Whether any node takes new runs, of this job where one is given. Its capacity does not matter.
    pub fn takes_any(&self, job: Option<&Job>) -> bool {
        self.all.iter().any(|candidate| candidate.takes_new && job.is_none_or(|job| candidate.suits(job)))
    }

    /// The least loaded node that has capacity and suits the job; a full one only where there is no other. Equal nodes
    /// are chosen in rotation.
    pub fn choose(&mut self, job: &Job, table: &RunTable) -> Option<NodeId> {
        let count = self.all.len();
        let load = |one: &Candidate| table.taken(&one.node) * 1_000 / one.capacity.max(1);
        let rank = |at: usize| (at + count - self.next % count.max(1)) % count.max(1);
        let may_take = |one: &Candidate| one.takes_new && table.taken(&one.node) < one.capacity && one.suits(job);
        let with_capacity = self.all.iter().enumerate().filter(|(_, one)| may_take(one));
        let (at, chosen) = with_capacity.min_by_key(|(at, one)| (one.is_full, load(one), rank(*at)))?;
        self.next = at + 1;
        Some(chosen.node.clone())
    }

    /// Whether the run may go to the node that was chosen for it before. The node's capacity may have been taken
    /// meanwhile: the run may exceed it by a tenth.
    pub fn may_send(&self, job: &Job, node: &NodeId, table: &RunTable) -> bool {
        let chosen = self.all.iter().find(|one| one.node == *node && one.takes_new && one.suits(job));
        chosen.is_some_and(|one| table.taken(node) <= one.capacity + one.capacity / RESERVE_PART)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_node_is_chosen_only_where_no_other_has_capacity() {
        let candidate = |name: &str, capacity, is_full| Candidate {
            node: NodeId(name.into()),
            server: Server::default(),
            labels: Vec::new(),
            capacity,
            takes_new: true,
            is_full,
        };
        let choose =
            |all: &[Candidate]| Candidates { all: all.to_vec(), next: 0 }.choose(&Job::default(), &RunTable::default());
        assert_eq!(choose(&[candidate("a", 9, true), candidate("b", 1, false)]), Some(NodeId("b".into())));
        assert_eq!(choose(&[candidate("a", 9, true), candidate("b", 0, false)]), Some(NodeId("a".into())));
        assert_eq!(choose(&[candidate("a", 9, true)]), Some(NodeId("a".into())));
    }
}
