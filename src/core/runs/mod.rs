//! The leader's runs: from the decision, through the journal, to a node, until their log rows are committed.
//!
//! ```text
//! plan -> Planned -> (journaled) -> Waiting (for a permit, for a node) -> Sent -> Over -> (row committed) gone
//!            \________________________/       |  ^                                 |
//!             a change of the job:            v  |                                 +-> a further attempt:
//!             reassigned, or a              Moving                                     Delayed -> Waiting
//!             `cancelled` row               its node is not there: another one is named, journaled,
//!                                           and only then told
//! ```
//!
//! `table` alone holds the runs, and moves them from stage to stage. Over it work `planning` (which node for which due
//! run), `sending`, `permits` (how many runs of a job at one time), `retry` (the attempt after a failed one),
//! `reassign` (runs whose job was changed), `recovery` (runs whose node or leader was lost) and `refusals` (the rows of
//! refused runs). `memory` is what these remember; `entries` knows which journal entries are still needed.
//!
//! Not the scheduler: it does not know which jobs are due. Not the journal: it says which runs an entry must name, and
//! hears when the entry is in.
//!
//! Invariants: no run is sent before its entry is in; of a mutex job at most one run is `Sent` to a node that may still
//! run it; an entry is closed only when every outcome that it names is committed or has moved to a later entry.

mod candidates;
mod entries;
mod in_flight;
mod indexes;
mod memory;
mod permits;
mod planning;
mod reassign;
mod recovery;
mod refusals;
mod retry;
mod rows;
mod sending;
mod table;

pub use candidates::{Candidate, RESERVE_PART};
pub use in_flight::{InFlightRun, Stage};
pub use reassign::Cancelling;
pub use recovery::{Left, Unknown};

use crate::core::Context;
use crate::core::ledger::Ledger;
use crate::core::ledger::journaler::Journaler;
use crate::model::journal::{Entry, EntryId};
use crate::model::{Attempt, JobId, NodeId, RunKey, RunState, Server};
use candidates::Candidates;
use entries::{OpenEntries, settled_to};
use in_flight::WaitsFor;
use memory::{Coalescer, Planning, Recovery, Sending};
use std::collections::{BTreeMap, BTreeSet};
use table::RunTable;

/// The leader's in-flight runs.
#[derive(Debug)]
pub struct Runs {
    server: Server,
    limits: RunLimits,
    table: RunTable,
    entries: OpenEntries,
    candidates: Candidates,
    planning: Planning,
    sending: Sending,
    refusals: Coalescer,
    recovery: Recovery,
    /// Nodes whose mutex runs have surely ended, because their leases are over.
    released: BTreeSet<NodeId>,
    /// Jobs whose stop is in force and not stored.
    undecided: BTreeSet<JobId>,
}

/// Limits for the runs of the whole cluster.
#[derive(Clone, Copy, Debug)]
pub struct RunLimits {
    /// Runs of a job that wait for a permit.
    pub max_pending_per_job: usize,
    /// Runs that wait because no node is there to take them.
    pub unplaced_max: usize,
    /// `misfire_grace`.
    pub grace_secs: i64,
    /// Runs in one part of a tick.
    pub part_runs_max: usize,
}

impl Runs {
    /// No run yet. `server`: the leader's own, which log rows name as their dispatcher.
    pub fn new(server: Server, limits: RunLimits) -> Runs {
        Runs {
            server,
            limits,
            table: RunTable::default(),
            entries: OpenEntries::default(),
            candidates: Candidates::default(),
            planning: Planning::default(),
            sending: Sending::default(),
            refusals: Coalescer::default(),
            recovery: Recovery::default(),
            released: BTreeSet::new(),
            undecided: BTreeSet::new(),
        }
    }

    /// Replaces the candidates.
    pub fn set_candidates(&mut self, all: Vec<Candidate>) {
        self.candidates.set(all);
    }

    /// The nodes with a link.
    pub fn candidates(&self) -> impl Iterator<Item = &Candidate> {
        self.candidates.iter()
    }

    /// Whether the node has a link.
    pub fn can_speak_to(&self, node: &NodeId) -> bool {
        self.candidates.has(node)
    }

    /// The entry is in: its runs may go, its refusals get their rows.
    pub fn on_entry(&mut self, id: EntryId, entry: &Entry, ledger: &mut Ledger, cx: &mut Context) {
        // While a tick lacks its part 0, the next leader must find the other parts, lest it plans their runs anew. It
        // must also find settled seconds until their ticks are past.
        let begun = entry.tick.filter(|_| entry.part != 0);
        self.entries.open(id, begun.max(settled_to(&entry.body)));
        let runs = entry.body.runs.iter().map(|run| run.attempt);
        for attempt in runs.chain(entry.body.delayed.iter().map(|delayed| delayed.attempt)) {
            let former = self.table.set_entry(attempt, id);
            former.for_each(|former| self.entries.close_if_settled(former, &self.table));
        }
        self.write_outcomes(id, &entry.body, &BTreeMap::new(), cx);
        let freed = self.drop_refused(id, &entry.body);
        freed.into_iter().for_each(|job| self.grant_permits(job, ledger, cx));
        self.sending.hold_back(entry.body.runs.iter().map(|run| run.attempt));
        if entry.part == 0 {
            self.entries.on_decided(entry.tick, &self.table);
            self.sending.release_held_back();
            self.release_some(ledger, cx);
        }
        self.start_delayed(ledger, cx);
        self.entries.close_if_settled(id, &self.table);
    }

    /// A client asked for this run before, under the same request key: that run counts, and this one is forgotten.
    pub fn forget_planned(&mut self, entry: &Entry, ledger: &mut Ledger, cx: &mut Context) {
        for run in &entry.body.runs {
            self.table.remove(run.attempt);
            self.grant_permits(run.attempt.run.cron_id, ledger, cx);
        }
    }

    /// A former leader had journaled this part of the tick: the runs that were planned here are forgotten.
    pub fn on_tick_taken(&mut self, entry: &Entry) {
        for run in &entry.body.runs {
            self.table.remove(run.attempt);
        }
    }

    /// The attempt is over: its permit is free for the next run of its job, unless a further attempt keeps it.
    pub fn on_finished(&mut self, attempt: Attempt, state: RunState, ledger: &mut Ledger, cx: &mut Context) {
        if self.table.is(attempt, Stage::Sent) {
            self.table.set_stage(attempt, Stage::Over);
            self.follow_up(attempt, state, ledger, cx);
        }
        self.grant_permits(attempt.run.cron_id, ledger, cx);
    }

    /// A node says that the attempt's row is committed. This counts only from the node that has the attempt: another
    /// one wrote its row when it led, and that row may be wrong.
    pub fn on_told_logged(&mut self, node: &NodeId, attempt: Attempt, ledger: &mut Ledger, cx: &mut Context) {
        let is_elsewhere = |run: &InFlightRun| run.stage != Stage::Over && run.node != *node;
        if !self.table.get(attempt).is_some_and(is_elsewhere) {
            self.on_logged(attempt, ledger, cx);
        }
    }

    /// The attempt's row is committed: the run is removed, and its entry closed where nothing else keeps it open.
    fn on_logged(&mut self, attempt: Attempt, ledger: &mut Ledger, cx: &mut Context) {
        match self.table.remove(attempt).map(|run| run.entry) {
            Some(Some(entry)) => self.entries.close_if_settled(entry, &self.table),
            _ => self.entries.on_row(attempt, &self.table),
        }
        self.grant_permits(attempt.run.cron_id, ledger, cx);
    }

    /// Housekeeping: writes the refusals' rows whose time has come, and finds nodes for runs that had none.
    pub fn look_after(&mut self, ledger: &mut Ledger, cx: &mut Context) {
        self.flush_refusals(false, cx);
        self.place_unplaced(ledger, cx);
    }

    /// The run's attempt with this number, or its latest attempt, where it is in flight.
    pub fn find(&self, run: RunKey, number: Option<u32>) -> Option<(Attempt, &InFlightRun)> {
        let is_meant = |attempt: &Attempt| number.is_none_or(|number| attempt.number == number);
        let found = self.table.of_run(run).filter(|(attempt, _)| is_meant(attempt)).last()?;
        Some((*found.0, found.1))
    }

    /// The latest attempt of a run that is not over.
    pub fn latest_open(&self, run: RunKey) -> Option<(Attempt, &InFlightRun)> {
        let open = self.table.of_run(run).filter(|(_, run)| run.stage != Stage::Over);
        open.last().map(|(attempt, run)| (*attempt, run))
    }

    /// All in-flight runs.
    pub fn all(&self) -> impl Iterator<Item = (&Attempt, &InFlightRun)> {
        self.table.all()
    }

    /// The nodes that may have runs of ours.
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        self.table.nodes()
    }

    /// The entries that may be set done; each is answered once.
    pub fn take_closable(&mut self) -> Vec<EntryId> {
        self.entries.take_closable()
    }

    /// Whether `take_closable` has an entry to answer.
    pub fn has_closable(&self) -> bool {
        self.entries.has_closable()
    }

    /// These entries could not be set done: `take_closable` will answer them again.
    pub fn put_back_closable(&mut self, entries: Vec<EntryId>) {
        self.entries.put_back_closable(entries);
    }

    /// The jobs whose stop is in force and not stored.
    pub fn undecided(&self) -> impl Iterator<Item = JobId> {
        self.undecided.iter().copied()
    }

    /// Recounts every index, every entry's holds and the runs that go on by themselves, and compares. `journal`: the
    /// entries under way.
    pub fn check_invariants(&self, journal: &Journaler) {
        if !(self.table.take_touched() | self.entries.take_touched()) {
            return;
        }
        let waits = |run: &InFlightRun| run.stage == Stage::Waiting(WaitsFor::Decision);
        let mut waiting = self.table.all().filter(|(_, run)| waits(run));
        let is_undecided = |(attempt, _): (&Attempt, _)| self.undecided.contains(&attempt.run.cron_id);
        assert!(waiting.all(is_undecided), "a run waits for a decision that nobody will make");
        self.table.check_invariants();
        self.check_sending(journal);
        self.entries.check_invariants(&self.table, self.refusals.entries());
    }
}
