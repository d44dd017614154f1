//! What is found in the table of in-flight runs without going through it: by node, by entry, by what a run waits for.
//!
//! Invariant: an index has nothing for what has no run, so two of the same runs are equal.

use super::table::{InFlightRun, Stage, WaitsFor};
use crate::model::journal::EntryId;
use crate::model::{Attempt, JobId, Mono, NodeId};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default, Eq, PartialEq)]
pub struct Indexes {
    nodes: BTreeMap<NodeId, OnNode>,
    entries: BTreeMap<EntryId, usize>,
    /// Runs that wait for a permit of their job, in the order of their seconds.
    queues: BTreeMap<JobId, BTreeSet<Attempt>>,
    /// Runs for which no node was there.
    pub unplaced: BTreeSet<Attempt>,
    /// Further attempts whose entry is in, by the moment at which their delay is over.
    pub delayed: BTreeSet<(Mono, Attempt)>,
}

#[derive(Debug, Default, Eq, PartialEq)]
pub struct OnNode {
    pub sent: BTreeSet<Attempt>,
    pub over: BTreeSet<Attempt>,
    /// Of its capacity.
    pub taken: usize,
}

impl Indexes {
    pub fn add(&mut self, attempt: Attempt, run: &InFlightRun) {
        if !run.node.is_nobody() {
            let on = self.nodes.entry(run.node.clone()).or_default();
            on.taken += usize::from(takes_capacity(run));
            match run.stage {
                Stage::Sent => drop(on.sent.insert(attempt)),
                Stage::Over => drop(on.over.insert(attempt)),
                _ => {}
            }
        }
        for entry in run.entry.into_iter().chain(run.keeps_open) {
            *self.entries.entry(entry).or_default() += 1;
        }
        if is_queued(run) {
            self.queues.entry(attempt.run.cron_id).or_default().insert(attempt);
        }
        if is_unplaced(run) {
            self.unplaced.insert(attempt);
        }
        if is_delayed(run) {
            self.delayed.insert((run.ready_at, attempt));
        }
        self.forget_if_idle(&run.node);
    }

    pub fn remove(&mut self, attempt: Attempt, run: &InFlightRun) {
        if let Some(on) = self.nodes.get_mut(&run.node) {
            on.taken -= usize::from(takes_capacity(run));
            on.sent.remove(&attempt);
            on.over.remove(&attempt);
        }
        for entry in run.entry.into_iter().chain(run.keeps_open) {
            let count = self.entries.entry(entry).or_default();
            *count -= 1;
            if *count == 0 {
                self.entries.remove(&entry);
            }
        }
        if let Some(queue) = self.queues.get_mut(&attempt.run.cron_id) {
            queue.remove(&attempt);
            if queue.is_empty() {
                self.queues.remove(&attempt.run.cron_id);
            }
        }
        self.unplaced.remove(&attempt);
        self.delayed.remove(&(run.ready_at, attempt));
        self.forget_if_idle(&run.node);
    }

    pub fn on(&self, node: &NodeId) -> Option<&OnNode> {
        self.nodes.get(node)
    }

    /// The nodes that may have something.
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        let has_some = |(_, on): &(&NodeId, &OnNode)| !on.sent.is_empty() || !on.over.is_empty();
        self.nodes.iter().filter(has_some).map(|(node, _)| node.clone()).collect()
    }

    pub fn named_by(&self, entry: EntryId) -> usize {
        self.entries.get(&entry).copied().unwrap_or(0)
    }

    pub fn first_in_queue(&self, id: JobId) -> Option<Attempt> {
        self.queues.get(&id)?.first().copied()
    }

    fn forget_if_idle(&mut self, node: &NodeId) {
        if self.nodes.get(node).is_some_and(|on| *on == OnNode::default()) {
            self.nodes.remove(node);
        }
    }
}

/// A run of a limited job takes capacity when it goes, and not while it is planned: it may have to wait for a permit.
fn takes_capacity(run: &InFlightRun) -> bool {
    match run.stage {
        Stage::Planned => !run.is_limited(),
        Stage::Moving | Stage::Sent => true,
        Stage::Waiting(_) | Stage::Delayed | Stage::Over => false,
    }
}

fn is_queued(run: &InFlightRun) -> bool {
    matches!(run.stage, Stage::Waiting(WaitsFor::Permit | WaitsFor::PermitAndNode))
}

fn is_unplaced(run: &InFlightRun) -> bool {
    matches!(run.stage, Stage::Waiting(WaitsFor::Node | WaitsFor::PermitAndNode))
}

fn is_delayed(run: &InFlightRun) -> bool {
    run.stage == Stage::Delayed && run.entry.is_some()
}
