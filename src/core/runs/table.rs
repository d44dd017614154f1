//! The runs that the leader has in hand, and the places that they take on the nodes.
//!
//! Invariant: the counts are those of the flights: whatever changes a flight goes through here.

use super::PermitQueue;
use crate::model::journal::EntryId;
use crate::model::{Attempt, Job, JobId, Mono, NodeId, RunKey, Second, Server, Wall};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Of a node's room, so much is kept beside it for runs that waited their turn: one part of so many.
const RESERVE_PART: usize = 10;

#[derive(Clone, Debug)]
pub struct InFlightRun {
    pub job: Arc<Job>,
    pub entry: Option<EntryId>,
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
    /// Its log row is being looked for since the node said that it has it not; what is found counts only for this asking. 0:
    /// nothing is asked.
    pub question: u64,
}

impl InFlightRun {
    pub fn planned(job: Arc<Job>, node: NodeId, late: bool, due: Wall) -> InFlightRun {
        InFlightRun {
            job,
            entry: None,
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
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// Its entry is on the way into the journal.
    Planned,
    /// As many of its job run as may, or no node is there to take it.
    Waiting,
    /// A further attempt whose delay is not over. It keeps its mutex.
    Delayed,
    /// It has its mutex, and the entry that names another node for it is on the way.
    Moving,
    /// The node may have it.
    Sent,
    Over,
}

/// A node that can be spoken to.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub node: NodeId,
    pub server: Server,
    pub labels: Vec<String>,
    /// Runs that it may have at one time.
    pub capacity: usize,
    /// It is alive and not draining.
    pub takes_new: bool,
    /// Its system has no room for another process just now: it comes after all others.
    pub is_full: bool,
}

impl Candidate {
    /// Whether the job may run there at all.
    pub fn suits(&self, job: &Job) -> bool {
        job.node.is_empty() || *self.server.0 == *job.node || self.labels.contains(&job.node)
    }
}

#[derive(Debug, Default)]
pub struct RunTable {
    all: BTreeMap<Attempt, InFlightRun>,
    taken: BTreeMap<NodeId, usize>,
    /// Of jobs that are limited to so many runs at one time.
    pub queues: BTreeMap<JobId, PermitQueue>,
    /// Nodes that surely run no mutex job any more, whatever they were sent.
    released: BTreeSet<NodeId>,
    next_candidate: usize,
}

impl RunTable {
    pub fn get(&self, attempt: Attempt) -> Option<&InFlightRun> {
        self.all.get(&attempt)
    }

    pub fn has(&self, attempt: Attempt) -> bool {
        self.all.contains_key(&attempt)
    }

    pub fn is(&self, attempt: Attempt, stage: Stage) -> bool {
        self.get(attempt).is_some_and(|in_flight| in_flight.stage == stage)
    }

    pub fn insert(&mut self, attempt: Attempt, in_flight: InFlightRun) {
        self.remove(attempt);
        self.count(&in_flight, true);
        self.all.insert(attempt, in_flight);
    }

    pub fn remove(&mut self, attempt: Attempt) -> Option<InFlightRun> {
        let in_flight = self.all.remove(&attempt)?;
        self.count(&in_flight, false);
        Some(in_flight)
    }

    pub fn set_stage(&mut self, attempt: Attempt, stage: Stage) {
        if let Some(in_flight) = self.remove(attempt) {
            self.insert(attempt, InFlightRun { stage, question: 0, ..in_flight });
        }
    }

    pub fn move_to(&mut self, attempt: Attempt, node: NodeId) {
        if let Some(in_flight) = self.remove(attempt) {
            self.insert(attempt, InFlightRun { stage: Stage::Moving, node, question: 0, ..in_flight });
        }
    }

    /// 0: what was asked counts no more.
    pub fn set_question(&mut self, attempt: Attempt, question: u64) {
        if let Some(in_flight) = self.all.get_mut(&attempt) {
            in_flight.question = question;
        }
    }

    pub fn set_followed(&mut self, attempt: Attempt) {
        if let Some(in_flight) = self.all.get_mut(&attempt) {
            in_flight.is_followed = true;
        }
    }

    /// Those that have a later attempt of their run beside them, or among `others`.
    pub fn followed_by(&self, others: &BTreeSet<Attempt>) -> Vec<Attempt> {
        let later = |attempt: &Attempt| Attempt { number: attempt.number + 1, ..*attempt }..;
        let is_of = |attempt: &Attempt, found: Option<&Attempt>| found.is_some_and(|found| found.run == attempt.run);
        let is_followed = |attempt: &&Attempt| {
            let in_flight = self.all.range(later(attempt)).next().map(|(attempt, _)| attempt);
            is_of(attempt, in_flight) || is_of(attempt, others.range(later(attempt)).next())
        };
        self.all.keys().filter(is_followed).copied().collect()
    }

    pub fn set_killed(&mut self, attempt: Attempt) {
        if let Some(in_flight) = self.all.get_mut(&attempt) {
            in_flight.is_killed = true;
        }
    }

    /// The entry that names the attempt from now on; answers the one that did before.
    pub fn rename(&mut self, attempt: Attempt, entry: EntryId) -> Option<EntryId> {
        self.all.get_mut(&attempt)?.entry.replace(entry)
    }

    pub fn of_job(&self, id: JobId) -> impl Iterator<Item = (&Attempt, &InFlightRun)> {
        let first = Attempt { run: RunKey::scheduled(id, Second(i64::MIN)), number: 0 };
        self.all.range(first..).take_while(move |(attempt, _)| attempt.run.cron_id == id)
    }

    pub fn of_run(&self, run: RunKey) -> impl Iterator<Item = (&Attempt, &InFlightRun)> {
        self.all.range(Attempt { run, number: 0 }..).take_while(move |(attempt, _)| attempt.run == run)
    }

    pub fn all(&self) -> impl Iterator<Item = (&Attempt, &InFlightRun)> {
        self.all.iter()
    }

    /// What the node may have.
    pub fn sent_to(&self, node: &NodeId) -> Vec<Attempt> {
        let is_there = |in_flight: &InFlightRun| in_flight.stage == Stage::Sent && in_flight.node == *node;
        self.all.iter().filter(|(_, in_flight)| is_there(in_flight)).map(|(attempt, _)| *attempt).collect()
    }

    /// What is over on the node, and has no committed row that we know of.
    pub fn over_on(&self, node: &NodeId) -> Vec<Attempt> {
        let is_there = |in_flight: &InFlightRun| in_flight.stage == Stage::Over && in_flight.node == *node;
        self.all.iter().filter(|(_, in_flight)| is_there(in_flight)).map(|(attempt, _)| *attempt).collect()
    }

    /// The nodes that may have something.
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        let sent = self.all.values().filter(|in_flight| matches!(in_flight.stage, Stage::Sent | Stage::Over));
        sent.map(|in_flight| in_flight.node.clone()).collect()
    }

    /// How many more runs of the job may go.
    pub fn free(&self, job: &Job) -> usize {
        job.parallel_max().map_or(usize::MAX, |max| max.saturating_sub(self.held(job.id)))
    }

    /// How many runs of the job have a turn. Who holds a mutex is not stored: it is whatever may run, so nothing can be
    /// left set by mistake.
    pub fn held(&self, id: JobId) -> usize {
        let is_held = |in_flight: &InFlightRun| match in_flight.stage {
            // The guardian of a node whose lease is over has ended its mutex runs, and no others.
            Stage::Sent => !(in_flight.job.is_mutex && self.released.contains(&in_flight.node)),
            Stage::Moving => true,
            Stage::Delayed => in_flight.job.is_mutex,
            Stage::Planned | Stage::Waiting | Stage::Over => false,
        };
        self.of_job(id).filter(|(_, in_flight)| is_held(in_flight)).count()
    }

    /// Whether all that may be somewhere counts as there, leases that are over included.
    pub fn is_any_held(&self, id: JobId) -> bool {
        self.of_job(id).any(|(_, in_flight)| matches!(in_flight.stage, Stage::Sent | Stage::Moving | Stage::Delayed))
    }

    /// Whether the node's mutex runs have surely ended.
    pub fn set_released(&mut self, node: &NodeId, is_released: bool) {
        if is_released {
            self.released.insert(node.clone());
        } else {
            self.released.remove(node);
        }
    }

    /// The least loaded node with room that suits the job, one that is full only where there is no other; among equals
    /// they take turns.
    pub fn choose(&mut self, job: &Job, candidates: &[Candidate]) -> Option<NodeId> {
        let count = candidates.len();
        let load = |candidate: &Candidate| self.taken(&candidate.node) * 1_000 / candidate.capacity.max(1);
        let turn = |at: usize| (at + count - self.next_candidate % count.max(1)) % count.max(1);
        let may_take = |candidate: &Candidate| {
            candidate.takes_new && self.taken(&candidate.node) < candidate.capacity && candidate.suits(job)
        };
        let with_capacity = candidates.iter().enumerate().filter(|(_, candidate)| may_take(candidate));
        let (at, candidate) =
            with_capacity.min_by_key(|(at, candidate)| (candidate.is_full, load(candidate), turn(*at)))?;
        self.next_candidate = at + 1;
        Some(candidate.node.clone())
    }

    /// Whether the node that was chosen before is still to be given the run: runs that waited their turn may go a tenth
    /// beyond its room.
    pub fn may_send(&self, job: &Job, node: &NodeId, candidates: &[Candidate]) -> bool {
        let candidate =
            candidates.iter().find(|candidate| candidate.node == *node && candidate.takes_new && candidate.suits(job));
        candidate.is_some_and(|candidate| self.taken(node) <= candidate.capacity + candidate.capacity / RESERVE_PART)
    }

    fn taken(&self, node: &NodeId) -> usize {
        self.taken.get(node).copied().unwrap_or(0)
    }

    fn count(&mut self, in_flight: &InFlightRun, is_in: bool) {
        let change = |count: &mut usize| *count = if is_in { *count + 1 } else { count.saturating_sub(1) };
        let is_limited = in_flight.job.parallel_max().is_some();
        let takes_capacity = match in_flight.stage {
            Stage::Planned => !is_limited,
            Stage::Moving | Stage::Sent => true,
            Stage::Waiting | Stage::Delayed | Stage::Over => false,
        };
        if takes_capacity && !in_flight.node.is_nobody() {
            change(self.taken.entry(in_flight.node.clone()).or_default());
        }
        if in_flight.stage == Stage::Planned && is_limited {
            change(&mut self.queues.entry(in_flight.job.id).or_default().planned);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_node_is_chosen_only_where_no_other_has_room() {
        let candidate = |name: &str, capacity, is_full| Candidate {
            node: NodeId(name.into()),
            server: Server::default(),
            labels: Vec::new(),
            capacity,
            takes_new: true,
            is_full,
        };
        let choose = |candidates: &[Candidate]| RunTable::default().choose(&Job::default(), candidates);
        assert_eq!(choose(&[candidate("a", 9, true), candidate("b", 1, false)]), Some(NodeId("b".into())));
        assert_eq!(choose(&[candidate("a", 9, true), candidate("b", 0, false)]), Some(NodeId("a".into())));
        assert_eq!(choose(&[candidate("a", 9, true)]), Some(NodeId("a".into())));
    }
}
