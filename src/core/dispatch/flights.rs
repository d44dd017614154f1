//! The runs that the leader has in hand, and the places that they take on the nodes.
//!
//! Invariant: the counts are those of the flights: whatever changes a flight goes through here.

use super::Mutex;
use crate::model::journal::EntryId;
use crate::model::{Attempt, Job, JobId, NodeId, RunKey, Second};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Clone, Debug)]
pub struct Flight {
    pub job: Arc<Job>,
    pub entry: Option<EntryId>,
    /// The node that the last entry names.
    pub node: NodeId,
    pub stage: Stage,
    pub late: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// Its entry is on the way into the journal.
    Planned,
    /// Its mutex is another's, or no node is there to take it.
    Waiting,
    /// It has its mutex, and the entry that names another node for it is on the way.
    Moving,
    /// The node may have it.
    Sent,
    Over,
}

/// A node that can be spoken to.
#[derive(Clone, Debug)]
pub struct Place {
    pub node: NodeId,
    /// Runs that it may have at one time.
    pub room: usize,
    /// It is alive and not draining.
    pub takes_new: bool,
}

#[derive(Debug, Default)]
pub struct Flights {
    all: BTreeMap<Attempt, Flight>,
    taken: BTreeMap<NodeId, usize>,
    pub mutexes: BTreeMap<JobId, Mutex>,
    /// Nodes that surely run no mutex job any more, whatever they were sent.
    released: BTreeSet<NodeId>,
    next_place: usize,
}

impl Flights {
    pub fn get(&self, attempt: Attempt) -> Option<&Flight> {
        self.all.get(&attempt)
    }

    /// The run's attempt with this number; without one its latest.
    pub fn of_run(&self, run: RunKey, number: Option<u32>) -> Option<(&Attempt, &Flight)> {
        let (first, last) = (number.unwrap_or(0), number.unwrap_or(u32::MAX));
        self.all.range(Attempt { run, number: first }..=Attempt { run, number: last }).next_back()
    }

    pub fn has(&self, attempt: Attempt) -> bool {
        self.all.contains_key(&attempt)
    }

    pub fn is(&self, attempt: Attempt, stage: Stage) -> bool {
        self.get(attempt).is_some_and(|flight| flight.stage == stage)
    }

    pub fn insert(&mut self, attempt: Attempt, flight: Flight) {
        self.remove(attempt);
        self.count(&flight, true);
        self.all.insert(attempt, flight);
    }

    pub fn remove(&mut self, attempt: Attempt) -> Option<Flight> {
        let flight = self.all.remove(&attempt)?;
        self.count(&flight, false);
        Some(flight)
    }

    pub fn set_stage(&mut self, attempt: Attempt, stage: Stage) {
        if let Some(flight) = self.remove(attempt) {
            self.insert(attempt, Flight { stage, ..flight });
        }
    }

    pub fn move_to(&mut self, attempt: Attempt, node: NodeId) {
        if let Some(flight) = self.remove(attempt) {
            self.insert(attempt, Flight { stage: Stage::Moving, node, ..flight });
        }
    }

    /// The entry that names the attempt from now on; answers the one that did before.
    pub fn rename(&mut self, attempt: Attempt, entry: EntryId) -> Option<EntryId> {
        self.all.get_mut(&attempt)?.entry.replace(entry)
    }

    pub fn of_job(&self, id: JobId) -> impl Iterator<Item = (&Attempt, &Flight)> {
        let first = Attempt { run: RunKey::scheduled(id, Second(i64::MIN)), number: 0 };
        self.all.range(first..).take_while(move |(attempt, _)| attempt.run.cron_id == id)
    }

    /// What the node may have.
    pub fn sent_to(&self, node: &NodeId) -> Vec<Attempt> {
        let is_there = |flight: &Flight| flight.stage == Stage::Sent && flight.node == *node;
        self.all.iter().filter(|(_, flight)| is_there(flight)).map(|(attempt, _)| *attempt).collect()
    }

    /// What is over on the node, and has no committed row that we know of.
    pub fn over_on(&self, node: &NodeId) -> Vec<Attempt> {
        let is_there = |flight: &Flight| flight.stage == Stage::Over && flight.node == *node;
        self.all.iter().filter(|(_, flight)| is_there(flight)).map(|(attempt, _)| *attempt).collect()
    }

    /// The nodes that may have something.
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        let sent = self.all.values().filter(|flight| matches!(flight.stage, Stage::Sent | Stage::Over));
        sent.map(|flight| flight.node.clone()).collect()
    }

    /// Who holds a mutex is not stored: it is whatever may run, so nothing can be left set by mistake.
    pub fn is_mutex_free(&self, id: JobId) -> bool {
        self.of_job(id).all(|(_, flight)| match flight.stage {
            Stage::Sent => self.released.contains(&flight.node),
            Stage::Moving => false,
            Stage::Planned | Stage::Waiting | Stage::Over => true,
        })
    }

    /// Whether the node's mutex runs have surely ended.
    pub fn set_released(&mut self, node: &NodeId, is_released: bool) {
        if is_released {
            self.released.insert(node.clone());
        } else {
            self.released.remove(node);
        }
    }

    /// The least loaded node with room; among equals they take turns.
    pub fn choose(&mut self, places: &[Place]) -> Option<NodeId> {
        let count = places.len();
        let load = |place: &Place| self.taken(&place.node) * 1_000 / place.room.max(1);
        let turn = |at: usize| (at + count - self.next_place % count.max(1)) % count.max(1);
        let with_room =
            places.iter().enumerate().filter(|(_, place)| place.takes_new && self.taken(&place.node) < place.room);
        let (at, place) = with_room.min_by_key(|(at, place)| (load(place), turn(*at)))?;
        self.next_place = at + 1;
        Some(place.node.clone())
    }

    fn taken(&self, node: &NodeId) -> usize {
        self.taken.get(node).copied().unwrap_or(0)
    }

    fn count(&mut self, flight: &Flight, is_in: bool) {
        let change = |count: &mut usize| *count = if is_in { *count + 1 } else { count.saturating_sub(1) };
        let takes_place = match flight.stage {
            Stage::Planned => !flight.job.is_mutex,
            Stage::Moving | Stage::Sent => true,
            Stage::Waiting | Stage::Over => false,
        };
        if takes_place {
            change(self.taken.entry(flight.node.clone()).or_default());
        }
        if flight.stage == Stage::Planned && flight.job.is_mutex {
            change(&mut self.mutexes.entry(flight.job.id).or_default().planned);
        }
    }
}
