//! The in-flight runs of the leader: one table, which alone changes what stage a run is in and where it is.
//!
//! Not the place that decides: the parts over it (`planning`, `sending`, `permits`, `retry`, `recovery`, `refusals`) do.
//!
//! Invariants: a run changes its stage only as `Stage::may_become` allows; the indexes are those of the runs at all times.

use super::indexes::Indexes;
use crate::model::journal::EntryId;
use crate::model::{Attempt, Job, JobId, Mono, NodeId, RunKey, Second, Wall};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// An attempt that the leader has planned, until its log row is committed.
#[derive(Clone, Debug)]
pub struct InFlightRun {
    pub job: Arc<Job>,
    /// The entry that names it last; none while its first one is on the way.
    pub entry: Option<EntryId>,
    /// The entry of the attempt before it, which stays open until its own is in.
    pub keeps_open: Option<EntryId>,
    /// The node that the last entry names.
    pub node: NodeId,
    pub stage: Stage,
    pub late: bool,
    /// When it may begin: its second, or the end of a retry's delay.
    pub due: Wall,
    /// The end of a retry's delay, which no step of the wall clock makes shorter.
    pub ready_at: Mono,
    /// An operator wants it ended: it is not given to a node any more, and has no further attempt.
    pub is_killed: bool,
    /// Its further attempt was decided on, and may be over already: there is no second one.
    pub is_followed: bool,
    /// Its log row is being looked for since the node said that it does not have the run; an answer counts only for the
    /// question with this number. 0: nothing is asked.
    pub question: u64,
}

impl InFlightRun {
    pub fn planned(job: Arc<Job>, node: NodeId, late: bool, due: Wall) -> InFlightRun {
        InFlightRun {
            job,
            entry: None,
            keeps_open: None,
            node,
            stage: Stage::Planned,
            late,
            due,
            ready_at: Mono(0),
            is_killed: false,
            is_followed: false,
            question: 0,
        }
    }

    /// Whether only so many runs of its job may go at one time.
    pub fn is_limited(&self) -> bool {
        self.job.parallel_max().is_some()
    }
}

/// How far the leader has come with a run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// Its entry is on the way into the journal.
    Planned,
    Waiting(WaitsFor),
    /// A further attempt whose delay is not over. It keeps its mutex.
    Delayed,
    /// It has its permit, and the entry that names another node for it is on the way.
    Moving,
    /// The node may have it.
    Sent,
    Over,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WaitsFor {
    /// As many of its job run as may.
    Permit,
    /// No node is there to take it.
    Node,
    /// It had a permit, and no node was there to take it.
    PermitAndNode,
    /// Its job was stopped, and the store has yet to take the stop.
    Decision,
}

impl Stage {
    /// Whether it waits here, for whatever.
    pub fn is_waiting(self) -> bool {
        matches!(self, Stage::Waiting(_))
    }

    /// Whether a run goes from this stage to that one. Only `RunTable::plan_again` leads back to `Planned`.
    fn may_become(self, next: Stage) -> bool {
        match next {
            Stage::Over => true,
            Stage::Planned | Stage::Delayed => false,
            Stage::Waiting(_) | Stage::Moving | Stage::Sent => self != Stage::Over,
        }
    }
}

#[derive(Debug, Default)]
pub struct RunTable {
    /// By job, second and number.
    runs: BTreeMap<Attempt, InFlightRun>,
    indexes: Indexes,
}

impl RunTable {
    pub fn get(&self, attempt: Attempt) -> Option<&InFlightRun> {
        self.runs.get(&attempt)
    }

    pub fn has(&self, attempt: Attempt) -> bool {
        self.runs.contains_key(&attempt)
    }

    pub fn stage(&self, attempt: Attempt) -> Option<Stage> {
        self.get(attempt).map(|run| run.stage)
    }

    pub fn is(&self, attempt: Attempt, stage: Stage) -> bool {
        self.stage(attempt) == Some(stage)
    }

    pub fn is_waiting(&self, attempt: Attempt) -> bool {
        self.stage(attempt).is_some_and(Stage::is_waiting)
    }

    /// Takes a run in; answers the one that was there.
    pub fn insert(&mut self, attempt: Attempt, run: InFlightRun) -> Option<InFlightRun> {
        let former = self.remove(attempt);
        self.put(attempt, run);
        former
    }

    pub fn remove(&mut self, attempt: Attempt) -> Option<InFlightRun> {
        let run = self.runs.remove(&attempt)?;
        self.indexes.remove(attempt, &run);
        Some(run)
    }

    /// From now on only an answer of now says where the run is.
    pub fn set_stage(&mut self, attempt: Attempt, stage: Stage) {
        self.update(attempt, |run| {
            debug_assert!(run.stage.may_become(stage), "{attempt}: {:?} becomes {stage:?}", run.stage);
            run.stage = stage;
            run.question = 0;
        });
    }

    /// Names another node, by an entry that is on the way.
    pub fn move_to(&mut self, attempt: Attempt, node: NodeId) {
        self.set_stage(attempt, Stage::Moving);
        self.update(attempt, |run| run.node = node);
    }

    /// Plans the run once more, under the definition that is in force now.
    pub fn plan_again(&mut self, attempt: Attempt, job: Arc<Job>, node: NodeId) {
        self.update(attempt, |run| {
            debug_assert!(run.stage != Stage::Over, "{attempt}: it is over and planned again");
            (run.job, run.node, run.stage, run.question) = (job, node, Stage::Planned, 0);
        });
    }

    /// The entry that names the attempt from now on; answers those that it keeps open no longer.
    pub fn set_entry(&mut self, attempt: Attempt, entry: EntryId) -> impl Iterator<Item = EntryId> + use<> {
        let mut former = (None, None);
        self.update(attempt, |run| former = (run.entry.replace(entry), run.keeps_open.take()));
        former.0.into_iter().chain(former.1)
    }

    /// 0: an answer to what was asked counts no more.
    pub fn set_question(&mut self, attempt: Attempt, question: u64) {
        self.update(attempt, |run| run.question = question);
    }

    pub fn set_followed(&mut self, attempt: Attempt) {
        self.update(attempt, |run| run.is_followed = true);
    }

    pub fn set_killed(&mut self, attempt: Attempt) {
        self.update(attempt, |run| run.is_killed = true);
    }

    pub fn all(&self) -> impl Iterator<Item = (&Attempt, &InFlightRun)> {
        self.runs.iter()
    }

    pub fn of_job(&self, id: JobId) -> impl Iterator<Item = (&Attempt, &InFlightRun)> {
        let first = Attempt { run: RunKey::scheduled(id, Second(i64::MIN)), number: 0 };
        self.runs.range(first..).take_while(move |(attempt, _)| attempt.run.cron_id == id)
    }

    pub fn of_run(&self, run: RunKey) -> impl Iterator<Item = (&Attempt, &InFlightRun)> {
        self.runs.range(Attempt { run, number: 0 }..).take_while(move |(attempt, _)| attempt.run == run)
    }

    /// Those that have a later attempt of their run beside them, or among `others`.
    pub fn followed_by(&self, others: &BTreeSet<Attempt>) -> Vec<Attempt> {
        let later = |attempt: &Attempt| Attempt { number: attempt.number + 1, ..*attempt }..;
        let is_of = |attempt: &Attempt, found: Option<&Attempt>| found.is_some_and(|found| found.run == attempt.run);
        let is_followed = |attempt: &&Attempt| {
            let next = self.runs.range(later(attempt)).next().map(|(attempt, _)| attempt);
            is_of(attempt, next) || is_of(attempt, others.range(later(attempt)).next())
        };
        self.runs.keys().filter(is_followed).copied().collect()
    }

    /// What the node may have.
    pub fn sent_to(&self, node: &NodeId) -> Vec<Attempt> {
        self.indexes.on(node).map(|on| on.sent.iter().copied().collect()).unwrap_or_default()
    }

    /// What is over on the node, and has no committed row that we know of.
    pub fn over_on(&self, node: &NodeId) -> Vec<Attempt> {
        self.indexes.on(node).map(|on| on.over.iter().copied().collect()).unwrap_or_default()
    }

    /// The nodes that may have something.
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        self.indexes.nodes()
    }

    /// How much of the node's capacity is taken, by what it has or is about to get.
    pub fn taken(&self, node: &NodeId) -> usize {
        self.indexes.on(node).map_or(0, |on| on.taken)
    }

    /// How many runs the entry keeps open for: those that it names last, and attempts that follow one of them.
    pub fn named_by(&self, entry: EntryId) -> usize {
        self.indexes.named_by(entry)
    }

    /// Of the runs that wait for a permit of this job the first, by their seconds.
    pub fn first_in_queue(&self, id: JobId) -> Option<Attempt> {
        self.indexes.first_in_queue(id)
    }

    pub fn unplaced(&self) -> &BTreeSet<Attempt> {
        &self.indexes.unplaced
    }

    /// When the first delay of a further attempt is over. Its entry is in.
    pub fn next_delayed(&self) -> Option<Mono> {
        self.indexes.delayed.first().map(|(ready_at, _)| *ready_at)
    }

    /// The further attempts whose delay is over by then, the first first.
    pub fn delayed_until(&self, then: Mono) -> Vec<Attempt> {
        let over = self.indexes.delayed.iter().take_while(|(ready_at, _)| *ready_at <= then);
        over.map(|(_, attempt)| *attempt).collect()
    }

    /// Recounts everything that is kept beside the runs.
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
