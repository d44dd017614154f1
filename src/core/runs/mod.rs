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
//! `table` alone holds the runs, and moves them from stage to stage. Over it work parts, each with a memory of its own:
//! `planning` (which node for which due run), `gate` (whether a run goes now), `sending` (one run to its node),
//! `permits` (how many runs of a job at one time), `retry` (the attempt after a failed one), `reassign` (runs whose job
//! was changed), `recovery` (runs whose node or leader was lost), `refusals` (the rows of refused runs), and `entries`
//! (which journal entries are still needed). `Runs` takes each input to its part. Where a lower part has set a permit
//! free, the gate or `Runs` gives it to the next run. In `ledger`: the jobs and the journal, which runs and changes both need.
//!
//! The order of the files; each knows only files that stand below it:
//!
//! ```text
//! mod                                       takes an input to its part, and carries out what a lower one leaves to do
//! recovery, planning, refusals
//! retry
//! gate
//! reassign, permits
//! sending
//! desk                                      lends the parts below, the ledger and the context for one call
//! entries, candidates
//! table
//! indexes, rows
//! in_flight, watched
//! ```
//!
//! Not the scheduler: it does not know which jobs are due. Not the journal: it says which runs an entry must name, and
//! hears when the entry is in.
//!
//! Invariants: no run is sent before its entry is in; of a mutex job at most one run is `Sent` to a node that may still
//! run it; an entry is closed only when every outcome that it names is committed or has moved to a later entry.

mod candidates;
mod desk;
mod entries;
mod gate;
mod in_flight;
mod indexes;
pub mod ledger;
mod permits;
mod planning;
mod reassign;
mod recovery;
mod refusals;
mod retry;
mod rows;
mod sending;
mod table;
mod watched;

pub use candidates::{Candidate, RESERVE_PART};
pub use desk::RunLimits;
pub use in_flight::{InFlightRun, Stage};
pub use reassign::Cancelling;
pub use recovery::{Left, Unknown};

use crate::core::Context;
use crate::core::runs::ledger::Ledger;
use crate::core::runs::ledger::journaler::Journaler;
use crate::model::journal::{Body, Entry, EntryId, MissedGap};
use crate::model::message::Held;
use crate::model::run::Manual;
use crate::model::{Attempt, Job, JobId, Mono, NodeId, Now, RunKey, RunState, Second, Server, Version};
use desk::Common;
use entries::settled_to;
use gate::Gate;
use planning::{Planning, plan_manual};
use recovery::Recovery;
use refusals::{Coalescer, drop_refused};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The leader's in-flight runs.
#[derive(Debug)]
pub struct Runs {
    common: Common,
    planning: Planning,
    gate: Gate,
    refusals: Coalescer,
    recovery: Recovery,
}

impl Runs {
    /// No run yet. `server`: the leader's own, which log rows name as their dispatcher.
    pub fn new(server: Server, limits: RunLimits) -> Runs {
        Runs {
            common: Common::new(server, limits),
            planning: Planning::default(),
            gate: Gate::default(),
            refusals: Coalescer::default(),
            recovery: Recovery::default(),
        }
    }

    /// Replaces the candidates.
    pub fn set_candidates(&mut self, all: Vec<Candidate>) {
        self.common.candidates.set(all);
    }

    /// The nodes with a link.
    pub fn candidates(&self) -> impl Iterator<Item = &Candidate> {
        self.common.candidates.iter()
    }

    /// Whether the node has a link.
    pub fn can_speak_to(&self, node: &NodeId) -> bool {
        self.common.candidates.has(node)
    }

    /// Takes in the entries that a former leader left open.
    pub fn recover(&mut self, left: &Left, ledger: &mut Ledger, cx: &mut Context) {
        self.gate.sending.set_away(left.watermark.map_or(0, |watermark| cx.now.wall.second().0 - watermark.0));
        let desk = &mut self.common.lend(ledger, cx);
        for stored in left.open {
            let (id, body) = (stored.id, &stored.entry.body);
            self.planning.take_in(stored, left.watermark);
            recovery::recover_entry(stored, left, desk);
            self.refusals.write_outcomes(id, body, left.logged, desk);
            drop_refused(id, body, desk.table, desk.entries);
        }
        recovery::finish(left, desk);
    }

    /// The runs of the tick that a former leader began and did not complete.
    pub fn named(&self) -> impl Iterator<Item = &RunKey> {
        self.planning.named()
    }

    /// Plans the runs of the due jobs. Answers the tick's parts, by number, in the order in which they must be written:
    /// part 0 comes last. `missed`: the tick's runs that are too late for their jobs.
    pub fn plan(&mut self, due: Vec<Arc<Job>>, missed: Vec<MissedGap>, tick: Second, now: Now) -> Vec<(u32, Body)> {
        let outcomes = self.planning.plan(due, tick, now, &mut self.common);
        self.planning.parts(&outcomes, missed, tick, self.common.limits.part_runs_max)
    }

    /// Plans a run that an operator wants now. The error is the state of a refused run; nothing else is noted of it.
    pub fn plan_manual(&mut self, job: &Arc<Job>, manual: Manual, now: Now) -> Result<(RunKey, Body), RunState> {
        plan_manual(job, manual, now, &mut self.common)
    }

    /// The entry is in: its runs may go, its refusals get their rows.
    pub fn on_entry(&mut self, id: EntryId, entry: &Entry, ledger: &mut Ledger, cx: &mut Context) {
        let desk = &mut self.common.lend(ledger, cx);
        // While a tick lacks its part 0, the next leader must find the other parts, lest it plans their runs anew. It
        // must also find settled seconds until their ticks are past.
        let begun = entry.tick.filter(|_| entry.part != 0);
        desk.entries.open(id, begun.max(settled_to(&entry.body)));
        let runs = entry.body.runs.iter().map(|run| run.attempt);
        for attempt in runs.chain(entry.body.delayed.iter().map(|delayed| delayed.attempt)) {
            let former = desk.table.set_entry(attempt, id);
            former.for_each(|former| desk.entries.close_if_settled(former, desk.table));
        }
        self.refusals.write_outcomes(id, &entry.body, &BTreeMap::new(), desk);
        let freed = drop_refused(id, &entry.body, desk.table, desk.entries);
        freed.into_iter().for_each(|job| self.gate.grant(job, desk));
        self.gate.hold_back(entry.body.runs.iter().map(|run| run.attempt));
        if entry.part == 0 {
            desk.entries.on_decided(entry.tick, desk.table);
            self.gate.release_held_back();
            self.gate.release_some(desk);
        }
        retry::start_delayed(&self.gate, desk);
        desk.entries.close_if_settled(id, desk.table);
    }

    /// A client asked for this run before, under the same request key: that run counts, and this one is forgotten.
    pub fn forget_planned(&mut self, entry: &Entry, ledger: &mut Ledger, cx: &mut Context) {
        let desk = &mut self.common.lend(ledger, cx);
        for run in &entry.body.runs {
            desk.table.remove(run.attempt);
            self.gate.grant(run.attempt.run.cron_id, desk);
        }
    }

    /// A former leader had journaled this part of the tick: the runs that were planned here are forgotten.
    pub fn on_tick_taken(&mut self, entry: &Entry) {
        for run in &entry.body.runs {
            self.common.table.remove(run.attempt);
        }
    }

    /// Sends runs that may be sent, and starts the attempts whose delay is over.
    pub fn poll(&mut self, ledger: &mut Ledger, cx: &mut Context) {
        let desk = &mut self.common.lend(ledger, cx);
        retry::start_delayed(&self.gate, desk);
        self.gate.release_some(desk);
    }

    /// When the next delay is over.
    pub fn next_delayed(&self) -> Option<Mono> {
        self.common.table.next_delayed()
    }

    /// When there are runs to send; none where there are none.
    pub fn release_at(&self) -> Option<Mono> {
        self.gate.next_at()
    }

    /// The attempt is over: its permit is free for the next run of its job, unless a further attempt keeps it.
    pub fn on_finished(&mut self, attempt: Attempt, state: RunState, ledger: &mut Ledger, cx: &mut Context) {
        retry::on_finished(attempt, state, &self.gate, &mut self.common.lend(ledger, cx));
    }

    /// A node says that the attempt's row is committed. This counts only from the node that has the attempt: another
    /// one wrote its row when it led, and that row may be wrong.
    pub fn on_told_logged(&mut self, node: &NodeId, attempt: Attempt, ledger: &mut Ledger, cx: &mut Context) {
        let is_elsewhere = |run: &InFlightRun| run.stage() != Stage::Over && run.node != *node;
        if !self.common.table.get(attempt).is_some_and(is_elsewhere) {
            self.gate.on_logged(attempt, &mut self.common.lend(ledger, cx));
        }
    }

    /// The node has told its holdings. It is told which of them not to start, which to give back, and which to start.
    /// Answers the attempts that it should have and does not.
    pub fn on_holdings(
        &mut self,
        node: &NodeId,
        held: &BTreeMap<Attempt, Held>,
        ledger: &mut Ledger,
        cx: &mut Context,
    ) -> Unknown {
        self.recovery.on_holdings(node, held, &mut self.gate, &mut self.common.lend(ledger, cx))
    }

    /// The log rows of attempts that their node neither holds nor started were read. Answers the node, where it may have
    /// forgotten them: those without a row are lost.
    pub fn on_checked(
        &mut self,
        unknown: Unknown,
        logged: &BTreeMap<Attempt, RunState>,
        ledger: &mut Ledger,
        cx: &mut Context,
    ) -> Option<NodeId> {
        self.recovery.on_checked(unknown, logged, &self.gate, &mut self.common.lend(ledger, cx))
    }

    /// The node is told once every run that it may have forgotten has its row.
    pub fn explain_to(&mut self, node: &NodeId) {
        self.recovery.explain_to(node);
    }

    /// Tells nodes that every run which they may have forgotten has its row, where that is so.
    pub fn explain(&mut self, ledger: &mut Ledger, cx: &mut Context) {
        self.recovery.explain(&mut self.common.lend(ledger, cx));
    }

    /// The node gives these attempts back, and will not start them.
    pub fn on_returned(&mut self, node: &NodeId, attempts: Vec<Attempt>, ledger: &mut Ledger, cx: &mut Context) {
        recovery::on_returned(node, attempts, &self.gate, &mut self.common.lend(ledger, cx));
    }

    /// The node did not take these attempts because it has too many runs of their jobs.
    pub fn on_refused(&mut self, node: &NodeId, attempts: Vec<Attempt>, ledger: &mut Ledger) {
        refusals::on_refused(node, attempts, &mut self.common.table, ledger);
    }

    /// The node's lease is surely over: its mutex runs have ended.
    pub fn on_released(&mut self, node: &NodeId, ledger: &mut Ledger, cx: &mut Context) {
        recovery::on_released(node, &mut self.gate, &mut self.common.lend(ledger, cx));
    }

    /// The node is silent since `silent_since`: its runs are lost when the grace after that is over.
    pub fn give_up(&mut self, node: &NodeId, silent_since: Second, ledger: &mut Ledger, cx: &mut Context) {
        recovery::give_up(node, silent_since, &self.gate, &mut self.common.lend(ledger, cx));
    }

    /// Takes back the job's runs of versions below `below`, or of all versions.
    pub fn cancel(&mut self, id: JobId, below: Option<Version>, ledger: &mut Ledger, cx: &mut Context) -> Cancelling {
        self.gate.reassigning.cancel(id, below, &mut self.common.lend(ledger, cx))
    }

    /// A node has dropped these attempts without starting them.
    pub fn on_dropped(&mut self, id: JobId, dropped: Vec<Attempt>, ledger: &mut Ledger, cx: &mut Context) {
        let desk = &mut self.common.lend(ledger, cx);
        self.gate.reassigning.on_dropped(dropped, desk);
        self.gate.grant(id, desk);
    }

    /// The job's stop is in force and not stored: its runs that are taken back from now on wait for `decide`.
    pub fn leave_undecided(&mut self, id: JobId) {
        self.gate.reassigning.leave_undecided(id);
    }

    /// The job's stop is stored, or never will be: the runs that it took back are cancelled.
    pub fn decide(&mut self, id: JobId, ledger: &mut Ledger, cx: &mut Context) {
        self.gate.reassigning.decide(id, &mut self.common.lend(ledger, cx));
    }

    /// The jobs whose stop is in force and not stored.
    pub fn undecided(&self) -> impl Iterator<Item = JobId> {
        self.gate.reassigning.undecided()
    }

    /// Ends an attempt that no node has.
    pub fn kill_here(&mut self, attempt: Attempt, ledger: &mut Ledger, cx: &mut Context) {
        let desk = &mut self.common.lend(ledger, cx);
        if reassign::kill_here(attempt, desk) {
            self.gate.grant(attempt.run.cron_id, desk);
        }
    }

    /// Notes that an operator has ended the attempt, which a node has.
    pub fn set_killed(&mut self, attempt: Attempt) {
        self.common.table.set_killed(attempt);
    }

    /// Housekeeping: writes the refusals' rows whose time has come, and finds nodes for runs that had none.
    pub fn look_after(&mut self, ledger: &mut Ledger, cx: &mut Context) {
        let desk = &mut self.common.lend(ledger, cx);
        self.refusals.flush_over(false, desk);
        self.gate.place_unplaced(desk);
    }

    /// Writes the rows of all refusals: the node is about to exit.
    pub fn flush_refusals(&mut self, ledger: &mut Ledger, cx: &mut Context) {
        self.refusals.flush_over(true, &mut self.common.lend(ledger, cx));
    }

    /// Whether any refusal has no row yet.
    pub fn has_unwritten_refusals(&self) -> bool {
        !self.refusals.is_empty()
    }

    /// The run's attempt with this number, or its latest attempt, where it is in flight.
    pub fn find(&self, run: RunKey, number: Option<u32>) -> Option<(Attempt, &InFlightRun)> {
        let is_meant = |attempt: &Attempt| number.is_none_or(|number| attempt.number == number);
        let found = self.common.table.of_run(run).filter(|(attempt, _)| is_meant(attempt)).last()?;
        Some((*found.0, found.1))
    }

    /// The latest attempt of a run that is not over.
    pub fn latest_open(&self, run: RunKey) -> Option<(Attempt, &InFlightRun)> {
        let open = self.common.table.of_run(run).filter(|(_, run)| run.stage() != Stage::Over);
        open.last().map(|(attempt, run)| (*attempt, run))
    }

    /// All in-flight runs.
    pub fn all(&self) -> impl Iterator<Item = (&Attempt, &InFlightRun)> {
        self.common.table.all()
    }

    /// The nodes that may have runs of ours.
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        self.common.table.nodes()
    }

    /// The entries that may be set done; each is answered once.
    pub fn take_closable(&mut self) -> Vec<EntryId> {
        self.common.entries.take_closable()
    }

    /// Whether `take_closable` has an entry to answer.
    pub fn has_closable(&self) -> bool {
        self.common.entries.has_closable()
    }

    /// These entries could not be set done: `take_closable` will answer them again.
    pub fn put_back_closable(&mut self, entries: Vec<EntryId>) {
        self.common.entries.put_back_closable(entries);
    }

    /// Recounts every index, every entry's holds and the runs that go on by themselves, and compares. `journal`: the
    /// entries under way.
    pub fn check_invariants(&self, journal: &Journaler) {
        let Common { table, entries, .. } = &self.common;
        if !(table.take_touched() | entries.take_touched() | self.refusals.take_touched()) {
            return;
        }
        table.check_invariants();
        self.gate.reassigning.check_invariants(table);
        self.gate.check_invariants(table, journal);
        entries.check_invariants(table, self.refusals.entries());
    }
}
