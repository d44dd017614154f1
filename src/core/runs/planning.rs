//! Planning: chooses a node for each due run, or refuses the run.
//!
//! Not the scheduler: it does not know which jobs are due. Not the journaler: it answers the bodies of the entries to
//! write.
//!
//! Invariant: a run that a former leader named in a tick that it did not complete is not planned again.

use super::Runs;
use super::in_flight::InFlightRun;
use super::memory::Planning;
use crate::model::journal::{Body, MissedGap, PlannedRun, RefusedRun};
use crate::model::run::Manual;
use crate::model::{Attempt, Job, NodeId, Now, RunKey, RunState, Second, Version};
use std::sync::Arc;

impl Planning {
    /// The due jobs in the order of planning: first jobs with a limit, whose runs hold up others, then the others. Both
    /// begin with `refused_from`.
    fn in_order(&self, mut due: Vec<Arc<Job>>) -> impl Iterator<Item = Arc<Job>> + use<> {
        if let Some(from) = self.refused_from {
            let at = due.partition_point(|job| job.id < from);
            due.rotate_left(at);
        }
        let (limited, others): (Vec<_>, Vec<_>) = due.into_iter().partition(|job| job.parallel_max().is_some());
        limited.into_iter().chain(others)
    }
}

impl Runs {
    /// Plans the runs of the due jobs. Answers the tick's parts, by number, in the order in which they must be written:
    /// part 0 comes last. `missed`: the tick's runs that are too late for their jobs.
    pub fn plan(&mut self, due: Vec<Arc<Job>>, mut missed: Vec<MissedGap>, tick: Second, now: Now) -> Vec<(u32, Body)> {
        let (runs, refused) = self.plan_due(due, tick, now);
        missed.retain(|gap| !self.planning.named.contains(&RunKey::scheduled(gap.cron_id, tick)));
        // A tick that a former leader began is completed by one part 0, however large: the other numbers may be taken.
        let is_begun = self.planning.named.iter().any(|run| run.scheduled_at == tick);
        self.planning.named.retain(|run| run.scheduled_at != tick);
        let runs_max = if is_begun { usize::MAX } else { self.limits.part_runs_max };
        let mut bodies: Vec<Body> = runs.chunks(runs_max).map(body).collect();
        if bodies.is_empty() {
            bodies.push(Body::default());
        }
        for (at, missed) in missed.chunks(runs_max).enumerate() {
            bodies.resize_with(bodies.len().max(at + 1), Body::default);
            bodies[at].missed = missed.to_vec();
        }
        for (at, refused) in refused.chunks(runs_max).enumerate() {
            bodies.resize_with(bodies.len().max(at + 1), Body::default);
            bodies[at].refused = refused.to_vec();
        }
        (0..bodies.len() as u32).zip(bodies).rev().collect()
    }

    fn plan_due(&mut self, due: Vec<Arc<Job>>, tick: Second, now: Now) -> (Vec<Named>, Vec<RefusedRun>) {
        let late = tick < now.wall.second();
        let (mut runs, mut refused) = (Vec::new(), Vec::new());
        let mut refused_from = None;
        for job in self.planning.in_order(due) {
            let run = RunKey::scheduled(job.id, tick);
            let attempt = Attempt { run, number: 1 };
            if self.planning.named.contains(&run) || self.table.has(attempt) {
                continue;
            }
            match self.find_node(&job) {
                Err(state) => {
                    refused_from.get_or_insert(job.id);
                    refused.push(RefusedRun { run, version: job.version, state });
                }
                Ok(node) => {
                    runs.push((attempt, job.version, node.clone()));
                    self.table.insert(attempt, InFlightRun::planned(job, node, late, tick.wall()));
                }
            }
        }
        self.planning.refused_from = refused_from.or(self.planning.refused_from);
        (runs, refused)
    }

    /// Plans a run that an operator wants now. The error is the state of a refused run; nothing else is noted of it.
    pub fn plan_manual(&mut self, job: &Arc<Job>, manual: Manual, now: Now) -> Result<(RunKey, Body), RunState> {
        let second = now.wall.second();
        let run = RunKey { cron_id: job.id, scheduled_at: second, manual: Some(manual) };
        let attempt = Attempt { run, number: 1 };
        let node = self.find_node(job)?;
        self.table.insert(attempt, InFlightRun::planned(Arc::clone(job), node.clone(), false, second.wall()));
        Ok((run, body(&[(attempt, job.version, node)])))
    }

    /// The runs of the tick that a former leader began and did not complete.
    pub fn named(&self) -> impl Iterator<Item = &RunKey> {
        self.planning.named.iter()
    }

    /// The node for a due run of the job, or nobody where the run has to wait for one. The error is the state of a
    /// refused run.
    fn find_node(&mut self, job: &Job) -> Result<NodeId, RunState> {
        if !self.has_permit(job) {
            return Err(RunState::Skipped);
        }
        if let Some(node) = self.candidates.choose(job, &self.table) {
            return Ok(node);
        }
        let may_wait = job.parallel_max().is_some() || !self.candidates.takes_any(Some(job));
        if may_wait && self.table.unplaced().len() < self.limits.unplaced_max {
            return Ok(NodeId::default());
        }
        Err(RunState::Shed)
    }
}

/// A run as an entry names it.
pub type Named = (Attempt, Version, NodeId);

/// The body of an entry that names these runs.
pub fn body(runs: &[Named]) -> Body {
    let mut nodes: Vec<NodeId> = Vec::new();
    let mut index = |node: &NodeId| {
        let at = nodes.iter().position(|known| known == node).unwrap_or_else(|| {
            nodes.push(node.clone());
            nodes.len() - 1
        });
        at as u16
    };
    let runs = runs.iter().map(|(attempt, version, node)| PlannedRun {
        attempt: *attempt,
        version: *version,
        node: index(node),
    });
    let runs = runs.collect();
    Body { nodes, runs, ..Body::default() }
}
