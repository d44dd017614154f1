//! The leader's runs: from the decision, through the journal, to a node, until their log rows are committed.
//!
//! ```text
//! plan -> Planned -> (entry in the journal) -> Waiting (for a permit, for a node) -> Sent -> Over -> (row committed) gone
//!              \________________________________/  |  ^                               |
//!               a change of the job: reassigned,   v  |                               +-> a further attempt: Delayed -> Waiting
//!               or a `cancelled` row             Moving
//!                       its node is not there: another one is named, journaled, and only then told
//! ```
//!
//! `table` alone holds the runs, and moves them from stage to stage. Over it work `planning` (which due runs go where),
//! `sending`, `permits` (how many of a job at one time), `retry` (what follows a failed attempt), `reassign` (runs whose
//! job was changed), `recovery` (runs whose node or leader was lost) and `refusals` (their rows); `entries` knows which
//! journal entries are still needed.
//!
//! Not the scheduler: it does not know which jobs are due. Not the journal: it says what an entry must name, and hears when
//! the entry is in.
//!
//! Invariants: no run is sent before its entry is in; of a mutex job at most one run is `Sent` to a node that may still
//! run it; an entry is closed only when every outcome that it names is committed or has moved to a later entry.

mod candidates;
mod entries;
mod indexes;
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
pub use reassign::Cancelling;
pub use recovery::{Left, Unknown};
pub use table::{InFlightRun, Stage};

use crate::core::Context;
use crate::core::ledger::Ledger;
use crate::model::journal::{Entry, EntryId};
use crate::model::{Attempt, JobId, NodeId, RunKey, RunState, Server};
use candidates::Candidates;
use entries::{OpenEntries, settled_to};
use planning::Planning;
use recovery::Recovery;
use refusals::Coalescer;
use sending::Sending;
use std::collections::{BTreeMap, BTreeSet};
use table::RunTable;

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
    /// Nodes that surely run no mutex job any more, whatever they were sent.
    released: BTreeSet<NodeId>,
    /// Jobs whose stop is in force and not stored.
    undecided: BTreeSet<JobId>,
}

#[derive(Clone, Copy, Debug)]
pub struct RunLimits {
    pub max_pending_per_job: usize,
    /// Runs that wait for any node to be there.
    pub unplaced_max: usize,
    pub grace_secs: i64,
    /// Runs in one part of a tick.
    pub part_runs_max: usize,
}

impl Runs {
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

    /// The nodes that can be spoken to, from now on.
    pub fn set_candidates(&mut self, all: Vec<Candidate>) {
        self.candidates.set(all);
    }

    /// The nodes that can be spoken to.
    pub fn candidates(&self) -> impl Iterator<Item = &Candidate> {
        self.candidates.iter()
    }

    pub fn can_speak_to(&self, node: &NodeId) -> bool {
        self.candidates.has(node)
    }

    /// The entry is in: its runs may go, its refusals get their rows.
    pub fn on_entry(&mut self, id: EntryId, entry: &Entry, ledger: &mut Ledger, cx: &mut Context) {
        // A part that is in without the last one must be found by the next leader, lest that plans it anew under its number;
        // and what is settled must be found until its ticks are past.
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

    /// It was asked for before, under the same key: the first one counts.
    pub fn forget_planned(&mut self, entry: &Entry, ledger: &mut Ledger, cx: &mut Context) {
        for run in &entry.body.runs {
            self.table.remove(run.attempt);
            self.grant_permits(run.attempt.run.cron_id, ledger, cx);
        }
    }

    /// A former leader had journaled this part of the tick: its runs are not ours to give.
    pub fn on_tick_taken(&mut self, entry: &Entry) {
        for run in &entry.body.runs {
            self.table.remove(run.attempt);
        }
    }

    /// The process is over: its permit is free for the next run of its job, where no further attempt takes it.
    pub fn on_finished(&mut self, attempt: Attempt, state: RunState, ledger: &mut Ledger, cx: &mut Context) {
        if self.table.is(attempt, Stage::Sent) {
            self.table.set_stage(attempt, Stage::Over);
            self.follow_up(attempt, state, ledger, cx);
        }
        self.grant_permits(attempt.run.cron_id, ledger, cx);
    }

    /// The node has a row of the attempt committed. The row of one that does not have the attempt is what it wrote when it
    /// led, and may be wrong: the node that has it will tell.
    pub fn on_told_logged(&mut self, node: &NodeId, attempt: Attempt, ledger: &mut Ledger, cx: &mut Context) {
        let is_elsewhere = |run: &InFlightRun| run.stage != Stage::Over && run.node != *node;
        if !self.table.get(attempt).is_some_and(is_elsewhere) {
            self.on_logged(attempt, ledger, cx);
        }
    }

    /// The row is committed: the entry that names it is one outcome nearer to its end.
    pub fn on_logged(&mut self, attempt: Attempt, ledger: &mut Ledger, cx: &mut Context) {
        match self.table.remove(attempt).map(|run| run.entry) {
            Some(Some(entry)) => self.entries.close_if_settled(entry, &self.table),
            _ => self.entries.on_row(attempt, &self.table),
        }
        self.grant_permits(attempt.run.cron_id, ledger, cx);
    }

    /// Looks after the runs that wait for a node, and the refusals that wait for their row.
    pub fn look_after(&mut self, ledger: &mut Ledger, cx: &mut Context) {
        self.flush_refusals(false, cx);
        self.place_unplaced(ledger, cx);
    }

    /// Of a run that is in hand the attempt with this number, or without one the latest.
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

    pub fn all(&self) -> impl Iterator<Item = (&Attempt, &InFlightRun)> {
        self.table.all()
    }

    /// The nodes that may have something of us.
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        self.table.nodes()
    }

    /// The entries that may be set done, each told once.
    pub fn take_closable(&mut self) -> Vec<EntryId> {
        self.entries.take_closable()
    }

    pub fn has_closable(&self) -> bool {
        self.entries.has_closable()
    }

    /// They could not be set done; they come again.
    pub fn put_back_closable(&mut self, entries: Vec<EntryId>) {
        self.entries.put_back_closable(entries);
    }

    /// Recounts every index and every entry's holds, and compares.
    pub fn check_invariants(&self) {
        self.table.check_invariants();
        self.entries.check_invariants(&self.table, self.refusals.entries());
    }
}
