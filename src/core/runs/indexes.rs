//! Indexes of the table of in-flight runs: by node, by entry, by the thing that a run waits for.
//!
//! Not the runs themselves: those are in `table`, which tells each change here.
//!
//! Invariant: an index has no entry without a run, so that the indexes of equal tables are equal.

use super::in_flight::{InFlightRun, Stage, WaitsFor};
use crate::model::journal::EntryId;
use crate::model::{Attempt, JobId, Mono, NodeId};
use std::collections::{BTreeMap, BTreeSet};

/// All indexes of one table.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Indexes {
    nodes: BTreeMap<NodeId, OnNode>,
    /// How many runs each journal entry stays open for.
    entries: BTreeMap<EntryId, usize>,
    /// Runs that wait for a permit of their job, in the order of their seconds.
    queues: BTreeMap<JobId, BTreeSet<Attempt>>,
    /// Runs for which no node was there.
    pub unplaced: BTreeSet<Attempt>,
    /// Further attempts whose entry is in, by the end of their delay.
    pub delayed: BTreeSet<(Mono, Attempt)>,
}

/// The runs of one node.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct OnNode {
    /// Runs in stage `Sent`.
    pub sent: BTreeSet<Attempt>,
    /// Runs in stage `Over`.
    pub over: BTreeSet<Attempt>,
    /// How many runs take up its capacity.
    pub taken: usize,
}

impl Indexes {
    /// Indexes a run.
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
        if run.is_delayed_and_journaled() {
            self.delayed.insert((run.ready_at, attempt));
        }
        self.forget_if_idle(&run.node);
    }

    /// Undoes `add`. `run` must be as it was then.
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

    /// The node's runs; none where it has no run and none is about to go there.
    pub fn on(&self, node: &NodeId) -> Option<&OnNode> {
        self.nodes.get(node)
    }

    /// The nodes with runs in stage `Sent` or `Over`.
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        let has_some = |(_, on): &(&NodeId, &OnNode)| !on.sent.is_empty() || !on.over.is_empty();
        self.nodes.iter().filter(has_some).map(|(node, _)| node.clone()).collect()
    }

    /// How many runs the entry stays open for.
    pub fn named_by(&self, entry: EntryId) -> usize {
        self.entries.get(&entry).copied().unwrap_or(0)
    }

    /// The first run that waits for a permit of the job.
    pub fn first_in_queue(&self, id: JobId) -> Option<Attempt> {
        self.queues.get(&id)?.first().copied()
    }

    fn forget_if_idle(&mut self, node: &NodeId) {
        if self.nodes.get(node).is_some_and(|on| *on == OnNode::default()) {
            self.nodes.remove(node);
        }
    }
}

/// Whether the run takes up its node's capacity. A run of a limited job does not while it is planned: it may have to
/// wait for a permit.
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
