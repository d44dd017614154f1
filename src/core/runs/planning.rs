//! Planning: chooses a node for each due run, or refuses the run.
//!
//! Not the scheduler: it does not know which jobs are due. Not the journaler: it answers the bodies of the entries to
//! write.
//!
//! Invariant: a run that a former leader named in a tick that it did not complete is not planned again.

use super::desk::Common;
use super::in_flight::InFlightRun;
use super::permits::has_permit;
use crate::model::journal::{Body, MissedGap, NamedRun, RefusedRun, StoredEntry};
use crate::model::run::Manual;
use crate::model::{Attempt, Job, JobId, NodeId, Now, RunKey, RunState, Second};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What planning remembers from tick to tick.
#[derive(Debug, Default)]
pub struct Planning {
    /// Runs that a former leader named, whatever their outcome, for a tick that it did not complete.
    named: BTreeSet<RunKey>,
    /// The first job that was refused in the last tick with refusals. The next tick begins with it, so that it is not
    /// always the same jobs that are refused.
    refused_from: Option<JobId>,
}

/// The outcomes of a tick.
pub struct Outcomes {
    runs: Vec<NamedRun>,
    refused: Vec<RefusedRun>,
}

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

    /// Notes the runs that this entry of a former leader names, where its tick is not whole.
    pub fn take_in(&mut self, stored: &StoredEntry, watermark: Option<Second>) {
        let body = &stored.entry.body;
        if watermark < stored.entry.tick {
            let missed = body.missed.iter().map(|gap| RunKey::scheduled(gap.cron_id, gap.last));
            let refused = body.refused.iter().map(|refused| refused.run);
            self.named.extend(body.runs.iter().map(|run| run.attempt.run).chain(missed).chain(refused));
        }
    }

    /// The parts of the tick, by number, in the order in which they must be written: part 0 comes last. `missed`: the
    /// tick's runs that are too late for their jobs. `part_runs_max`: the most runs of a part.
    pub fn parts(
        &mut self,
        outcomes: &Outcomes,
        mut missed: Vec<MissedGap>,
        tick: Second,
        part_runs_max: usize,
    ) -> Vec<(u32, Body)> {
        missed.retain(|gap| !self.named.contains(&RunKey::scheduled(gap.cron_id, tick)));
        // A tick that a former leader began is completed by one part 0, however large: the other numbers may be taken.
        let is_begun = self.named.iter().any(|run| run.scheduled_at == tick);
        self.named.retain(|run| run.scheduled_at != tick);
        let runs_max = if is_begun { usize::MAX } else { part_runs_max };
        let mut bodies: Vec<Body> = outcomes.runs.chunks(runs_max).map(Body::naming).collect();
        if bodies.is_empty() {
            bodies.push(Body::default());
        }
        for (at, missed) in missed.chunks(runs_max).enumerate() {
            bodies.resize_with(bodies.len().max(at + 1), Body::default);
            bodies[at].missed = missed.to_vec();
        }
        for (at, refused) in outcomes.refused.chunks(runs_max).enumerate() {
            bodies.resize_with(bodies.len().max(at + 1), Body::default);
            bodies[at].refused = refused.to_vec();
        }
        (0..bodies.len() as u32).zip(bodies).rev().collect()
    }

    /// Plans the runs of the due jobs.
    pub fn plan(&mut self, due: Vec<Arc<Job>>, tick: Second, now: Now, common: &mut Common) -> Outcomes {
        let late = tick < now.wall.second();
        let (mut runs, mut refused) = (Vec::new(), Vec::new());
        let mut refused_from = None;
        for job in self.in_order(due) {
            let run = RunKey::scheduled(job.id, tick);
            let attempt = Attempt { run, number: 1 };
            if self.named.contains(&run) || common.table.has(attempt) {
                continue;
            }
            match find_node(&job, common) {
                Err(state) => {
                    refused_from.get_or_insert(job.id);
                    refused.push(RefusedRun { run, version: job.version, state });
                }
                Ok(node) => {
                    runs.push((attempt, job.version, node.clone()));
                    common.table.insert(attempt, InFlightRun::planned(job, node, late, tick.wall()));
                }
            }
        }
        self.refused_from = refused_from.or(self.refused_from);
        Outcomes { runs, refused }
    }

    /// The runs of the tick that a former leader began and did not complete.
    pub fn named(&self) -> impl Iterator<Item = &RunKey> {
        self.named.iter()
    }
}

/// Plans a run that an operator wants now. The error is the state of a refused run; nothing else is noted of it.
pub fn plan_manual(job: &Arc<Job>, manual: Manual, now: Now, common: &mut Common) -> Result<(RunKey, Body), RunState> {
    let second = now.wall.second();
    let run = RunKey { cron_id: job.id, scheduled_at: second, manual: Some(manual) };
    let attempt = Attempt { run, number: 1 };
    let node = find_node(job, common)?;
    common.table.insert(attempt, InFlightRun::planned(Arc::clone(job), node.clone(), false, second.wall()));
    Ok((run, Body::naming(&[(attempt, job.version, node)])))
}

/// The node for a due run of the job, or nobody where the run has to wait for one. The error is the state of a refused
/// run.
fn find_node(job: &Job, common: &mut Common) -> Result<NodeId, RunState> {
    let Common { limits, table, candidates, .. } = common;
    if !has_permit(job, table, limits.max_pending_per_job) {
        return Err(RunState::Skipped);
    }
    if let Some(node) = candidates.choose(job, table) {
        return Ok(node);
    }
    let may_wait = job.parallel_max().is_some() || !candidates.takes_any(Some(job));
    if may_wait && table.unplaced().len() < limits.unplaced_max {
        return Ok(NodeId::default());
    }
    Err(RunState::Shed)
}
