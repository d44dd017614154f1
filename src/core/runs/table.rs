//! The table of the leader's in-flight runs. It alone changes a run's stage and node.
//!
//! Not here: decisions; the parts over it (`planning`, `sending`, `permits`, `retry`, `recovery`, `refusals`) make
//! them.
//!
//! Invariants: a run changes its stage only as `Stage::may_become` allows; the indexes agree with the runs at all
//! times.

use super::in_flight::{InFlightRun, Stage, WaitsFor};
use super::indexes::Indexes;
use crate::model::journal::EntryId;
use crate::model::{Attempt, Job, JobId, Mono, NodeId, RunKey, Second};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The in-flight runs with their indexes.
#[derive(Debug, Default)]
pub struct RunTable {
    /// Ordered by job, second and number.
    runs: BTreeMap<Attempt, InFlightRun>,
    indexes: Indexes,
    /// A run has changed since the last recount. Every change goes through `put` and `remove`.
    is_touched: Cell<bool>,
}

impl RunTable {
    /// The run of the attempt; none where it is not in flight.
    pub fn get(&self, attempt: Attempt) -> Option<&InFlightRun> {
        self.runs.get(&attempt)
    }

    /// Whether the attempt is in flight.
    pub fn has(&self, attempt: Attempt) -> bool {
        self.runs.contains_key(&attempt)
    }

    /// The attempt's stage; none where it is not in flight.
    pub fn stage(&self, attempt: Attempt) -> Option<Stage> {
        self.get(attempt).map(|run| run.stage)
    }

    /// Whether the attempt is in this stage.
    pub fn is(&self, attempt: Attempt, stage: Stage) -> bool {
        self.stage(attempt) == Some(stage)
    }

    /// Whether the attempt waits on the leader.
    pub fn is_waiting(&self, attempt: Attempt) -> bool {
        self.stage(attempt).is_some_and(Stage::is_waiting)
    }

    /// Adds a run; answers the one that it replaces.
    pub fn insert(&mut self, attempt: Attempt, run: InFlightRun) -> Option<InFlightRun> {
        let former = self.remove(attempt);
        self.put(attempt, run);
        former
    }

    /// Removes the attempt; answers its run.
    pub fn remove(&mut self, attempt: Attempt) -> Option<InFlightRun> {
        self.is_touched.set(true);
        let run = self.runs.remove(&attempt)?;
        self.indexes.remove(attempt, &run);
        Some(run)
    }

    /// Moves the run to another stage. A question for its row that is under way does not count any more.
    pub fn set_stage(&mut self, attempt: Attempt, stage: Stage) {
        self.update(attempt, |run| change_stage(attempt, run, stage));
    }

    /// Names another node for the run, whose entry is on the way.
    pub fn move_to(&mut self, attempt: Attempt, node: NodeId) {
        self.set_stage(attempt, Stage::Moving);
        self.update(attempt, |run| run.node = node);
    }

    /// Plans the run once more, under the definition that is in force now.
    pub fn plan_again(&mut self, attempt: Attempt, job: Arc<Job>, node: NodeId) {
        self.update(attempt, |run| {
            change_stage(attempt, run, Stage::Planned);
            (run.job, run.node) = (job, node);
        });
    }

    /// Sets the entry that names the attempt last; answers the entries that the attempt keeps open no longer.
    pub fn set_entry(&mut self, attempt: Attempt, entry: EntryId) -> impl Iterator<Item = EntryId> + use<> {
        let mut former = (None, None);
        self.update(attempt, |run| former = (run.entry.replace(entry), run.keeps_open.take()));
        former.0.into_iter().chain(former.1)
    }

    /// Sets the question for the attempt's row. 0: no answer counts any more.
    pub fn set_question(&mut self, attempt: Attempt, question: u64) {
        self.update(attempt, |run| run.question = question);
    }

    /// Notes that the attempt's next one is decided on.
    pub fn set_followed(&mut self, attempt: Attempt) {
        self.update(attempt, |run| run.is_followed = true);
    }

    /// Notes that an operator wants the attempt ended.
    pub fn set_killed(&mut self, attempt: Attempt) {
        self.update(attempt, |run| run.is_killed = true);
    }

    /// All in-flight runs, by job, second and number.
    pub fn all(&self) -> impl Iterator<Item = (&Attempt, &InFlightRun)> {
        self.runs.iter()
    }

    /// The runs of the job.
    pub fn of_job(&self, id: JobId) -> impl Iterator<Item = (&Attempt, &InFlightRun)> {
        let first = Attempt { run: RunKey::scheduled(id, Second(i64::MIN)), number: 0 };
        self.runs.range(first..).take_while(move |(attempt, _)| attempt.run.cron_id == id)
    }

    /// The attempts of the run, by number.
    pub fn of_run(&self, run: RunKey) -> impl Iterator<Item = (&Attempt, &InFlightRun)> {
        self.runs.range(Attempt { run, number: 0 }..).take_while(move |(attempt, _)| attempt.run == run)
    }

    /// The attempts with a later attempt of the same run in the table or among `others`.
    pub fn followed_by(&self, others: &BTreeSet<Attempt>) -> Vec<Attempt> {
        let later = |attempt: &Attempt| Attempt { number: attempt.number + 1, ..*attempt }..;
        let is_of = |attempt: &Attempt, found: Option<&Attempt>| found.is_some_and(|found| found.run == attempt.run);
        let is_followed = |attempt: &&Attempt| {
            let next = self.runs.range(later(attempt)).next().map(|(attempt, _)| attempt);
            is_of(attempt, next) || is_of(attempt, others.range(later(attempt)).next())
        };
        self.runs.keys().filter(is_followed).copied().collect()
    }

    /// The attempts that the node may have.
    pub fn sent_to(&self, node: &NodeId) -> Vec<Attempt> {
        self.indexes.on(node).map(|on| on.sent.iter().copied().collect()).unwrap_or_default()
    }

    /// The node's attempts that are over, and whose rows are not known to be committed.
    pub fn over_on(&self, node: &NodeId) -> Vec<Attempt> {
        self.indexes.on(node).map(|on| on.over.iter().copied().collect()).unwrap_or_default()
    }

    /// The nodes that may have an attempt.
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        self.indexes.nodes()
    }

    /// How much of the node's capacity is taken, by runs that it has or is about to get.
    pub fn taken(&self, node: &NodeId) -> usize {
        self.indexes.on(node).map_or(0, |on| on.taken)
    }

    /// How many runs the entry stays open for: those that it names last, and attempts that follow one of them.
    pub fn named_by(&self, entry: EntryId) -> usize {
        self.indexes.named_by(entry)
    }

    /// The first run, by its second, that waits for a permit of the job.
    pub fn first_in_queue(&self, id: JobId) -> Option<Attempt> {
        self.indexes.first_in_queue(id)
    }

    /// The runs that wait for a node.
    pub fn unplaced(&self) -> &BTreeSet<Attempt> {
        &self.indexes.unplaced
    }

    /// When the first delay of a journaled attempt is over.
    pub fn next_delayed(&self) -> Option<Mono> {
        self.indexes.delayed.first().map(|(ready_at, _)| *ready_at)
    }

    /// The journaled attempts whose delay is over at `then`, in the order of those moments.
    pub fn delayed_until(&self, then: Mono) -> Vec<Attempt> {
        let over = self.indexes.delayed.iter().take_while(|(ready_at, _)| *ready_at <= then);
        over.map(|(_, attempt)| *attempt).collect()
    }

    /// Whether a run has changed since this was asked last.
    pub fn take_touched(&self) -> bool {
        self.is_touched.take()
    }

    /// Rebuilds the indexes, and compares; checks each run by itself.
    pub fn check_invariants(&self) {
        let mut recount = Indexes::default();
        for (attempt, run) in &self.runs {
            recount.add(*attempt, run);
            let is_journaled = run.entry.is_some();
            match run.stage {
                Stage::Planned | Stage::Delayed => {}
                _ => assert!(is_journaled, "{attempt}: {:?} before its entry is in", run.stage),
            }
            let waits_for_permit = matches!(run.stage, Stage::Waiting(WaitsFor::Permit | WaitsFor::PermitAndNode));
            assert!(!waits_for_permit || run.is_limited(), "{attempt}: it waits for a permit and needs none");
            assert!(run.stage != Stage::Sent || !run.node.is_nobody(), "{attempt}: it is sent to nobody");
            assert!(!is_journaled || run.keeps_open.is_none(), "{attempt}: its entry is in, and keeps another open");
        }
        assert_eq!(self.indexes, recount, "the indexes are not those of the runs");
    }

    fn put(&mut self, attempt: Attempt, run: InFlightRun) {
        self.is_touched.set(true);
        self.indexes.add(attempt, &run);
        self.runs.insert(attempt, run);
    }

    fn update(&mut self, attempt: Attempt, change: impl FnOnce(&mut InFlightRun)) {
        if let Some(mut run) = self.remove(attempt) {
            change(&mut run);
            self.put(attempt, run);
        }
    }
}

/// The one place that changes a run's stage.
fn change_stage(attempt: Attempt, run: &mut InFlightRun, stage: Stage) {
    debug_assert!(run.stage.may_become(stage), "{attempt}: {:?} becomes {stage:?}", run.stage);
    run.stage = stage;
    run.question = 0;
}

#[cfg(test)]
mod tests;
