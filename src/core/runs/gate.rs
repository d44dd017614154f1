//! The gate: every run passes it on its way to a node, a limited number within one input. What may go is sent; what may
//! not is reassigned, ends, or waits for a permit; and a permit that comes free goes to the next run.
//!
//! Not the sending of one run: that is `sending`'s.
//!
//! Invariant: no run of a tick is sent before its part 0 is in. A run in stage `Planned` or `Moving` is never forgotten:
//! either an entry under way names it, or one of the lists here has it. A further attempt in stage `Delayed` is named by
//! its first entry, while that is under way. No other run is named or listed.

use super::desk::Desk;
use super::in_flight::{Stage, WaitsFor};
use super::permits::{Permits, wait_for_permit};
use super::reassign::{Reassigning, drop_killed};
use super::sending::{Orders, Sending};
use super::table::RunTable;
use crate::core::runs::ledger::journaler::Journaler;
use crate::model::journal::Body;
use crate::model::{Attempt, JobId, Mono};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// Limit of the runs that are sent within one input, so that no input takes long.
const RELEASE_MAX: usize = 1_000;

/// The parts that decide on a run at the gate, and the journaled runs that are not sent yet, each once. A run whose row
/// was committed meanwhile is passed over when it comes to the front.
#[derive(Debug, Default)]
pub struct Gate {
    pub permits: Permits,
    pub sending: Sending,
    pub reassigning: Reassigning,
    /// Runs of a tick whose part 0 is not in yet.
    held_back: Vec<Attempt>,
    /// Runs whose tick is whole, in the order of sending.
    releasing: VecDeque<Attempt>,
    /// When runs were sent last.
    released_at: Mono,
}

impl Gate {
    /// Holds the runs of a part back until the tick is whole. Parts are written from the highest number down, so a
    /// later part goes in front.
    pub fn hold_back(&mut self, attempts: impl Iterator<Item = Attempt>) {
        self.held_back.splice(0..0, attempts);
    }

    /// The tick is whole: its runs may be sent.
    pub fn release_held_back(&mut self) {
        self.releasing.extend(self.held_back.drain(..));
    }

    /// When the next runs are sent: at once, but with a later input than the last ones.
    pub fn next_at(&self) -> Option<Mono> {
        (!self.releasing.is_empty()).then_some(Mono(self.released_at.0 + 1))
    }

    /// Sends runs that may be sent, at most `RELEASE_MAX`, and once within one input.
    pub fn release_some(&mut self, desk: &mut Desk) {
        if self.next_at().is_none_or(|at| desk.cx.now.mono < at) {
            return;
        }
        self.released_at = desk.cx.now.mono;
        let mut orders = Orders::default();
        for _ in 0..RELEASE_MAX {
            let Some(attempt) = self.releasing.pop_front() else { break };
            self.release(attempt, &mut orders, desk);
        }
        orders.send(desk.cx.fx);
    }

    fn release(&self, attempt: Attempt, orders: &mut Orders, desk: &mut Desk) {
        let Some(run) = desk.table.get(attempt) else { return };
        let (stage, job) = (run.stage(), Arc::clone(&run.job));
        if matches!(stage, Stage::Planned | Stage::Moving) {
            let has_permit = stage == Stage::Moving || self.permits.may_go_at_once(&job, desk.table);
            self.pass(attempt, has_permit, orders, desk);
        }
    }

    /// Sends the run where it may go, or lets it wait for a permit. Where its job has changed meanwhile, the run is
    /// reassigned; where an operator wants it ended, it ends.
    pub fn pass(&self, attempt: Attempt, has_permit: bool, orders: &mut Orders, desk: &mut Desk) {
        let Some(run) = desk.table.get(attempt) else { return };
        let (id, version) = (attempt.run.cron_id, run.job.version);
        if run.is_killed {
            drop_killed(attempt, desk);
        } else if desk.ledger.jobs.job(id).is_none_or(|now| now.version != version) {
            self.reassigning.reassign(attempt, desk);
        } else if has_permit {
            return self.send(attempt, orders, desk);
        } else {
            wait_for_permit(attempt, desk.table);
        }
        self.grant(id, desk);
    }

    /// Sends the run to a node, or lets it wait for one. A permit that it gives back goes to the next run.
    pub fn send(&self, attempt: Attempt, orders: &mut Orders, desk: &mut Desk) {
        if let Some(freed) = self.sending.send_or_move(attempt, orders, desk) {
            self.grant(freed, desk);
        }
    }

    /// Gives the job's free permits to the runs that wait for one.
    pub fn grant(&self, id: JobId, desk: &mut Desk) {
        self.permits.grant(id, &self.sending, desk);
    }

    /// As `grant`, where a mutex is free because a lease is over.
    pub fn grant_by_lease(&self, id: JobId, desk: &mut Desk) {
        self.permits.grant_after(id, true, &self.sending, desk);
    }

    /// Finds nodes for the runs that had none.
    pub fn place_unplaced(&self, desk: &mut Desk) {
        if desk.table.unplaced().is_empty() || !desk.candidates.takes_any(None) {
            return;
        }
        let mut orders = Orders::default();
        let unplaced: Vec<Attempt> = desk.table.unplaced().iter().copied().collect();
        for attempt in unplaced {
            match desk.table.stage(attempt) {
                Some(Stage::Waiting(WaitsFor::PermitAndNode)) => {
                    wait_for_permit(attempt, desk.table);
                    self.grant(attempt.run.cron_id, desk);
                }
                Some(Stage::Waiting(WaitsFor::Node)) => self.send(attempt, &mut orders, desk),
                _ => {}
            }
        }
        orders.send(desk.cx.fx);
    }

    /// The attempt's row is committed: the run is removed, and its entry closed where nothing else keeps it open.
    pub fn on_logged(&self, attempt: Attempt, desk: &mut Desk) {
        match desk.table.remove(attempt).map(|run| run.entry) {
            Some(Some(entry)) => desk.entries.close_if_settled(entry, desk.table),
            _ => desk.entries.on_row(attempt, desk.table),
        }
        self.grant(attempt.run.cron_id, desk);
    }

    /// Recounts the runs that go on by themselves, and compares: none is forgotten, and none goes on twice. `journal`:
    /// the entries under way.
    pub fn check_invariants(&self, table: &RunTable, journal: &Journaler) {
        let Gate { held_back, releasing, .. } = self;
        let listed: BTreeSet<Attempt> = held_back.iter().chain(releasing).copied().collect();
        assert_eq!(listed.len(), held_back.len() + releasing.len(), "a run is to be sent twice: {self:?}");
        let under_way: BTreeSet<Attempt> = journal.under_way().flat_map(|entry| named(&entry.body)).collect();
        for (attempt, run) in table.all() {
            let is_journaled = run.entry.is_some();
            let expect = match run.stage() {
                Stage::Planned | Stage::Moving if listed.contains(attempt) => (is_journaled, false),
                Stage::Planned | Stage::Moving => (false, true),
                Stage::Delayed => (false, !is_journaled),
                Stage::Waiting(_) | Stage::Sent | Stage::Over => (false, false),
            };
            let found = (listed.contains(attempt), under_way.contains(attempt));
            assert_eq!(found, expect, "{attempt}: {run:?}: whether it is listed, whether an entry under way names it");
        }
    }
}

/// The attempts that go on when an entry with this body is in, the refused ones to their end.
fn named(body: &Body) -> impl Iterator<Item = Attempt> {
    let refused = body.refused.iter().map(|refused| Attempt { run: refused.run, number: 1 });
    let delayed = body.delayed.iter().map(|delayed| delayed.attempt);
    body.runs.iter().map(|run| run.attempt).chain(delayed).chain(refused)
}
