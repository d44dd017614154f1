//! The leader: takes each tick, journals its runs, sends them to the nodes, and changes the jobs.
//!
//! It exists from the moment at which its node has an epoch of its own and has read the open entries, until the lead is
//! lost. `ticks` and `misfire` take the ticks; `changes`, `definitions` and `reload` change the jobs; `controls`,
//! `run_list` and `output_reads` answer operators; `nodes` looks after the other nodes; `progress` tells whether the
//! leader does its work.
//!
//! Not the runs themselves: those are in `runs`.
//!
//! Invariants: ticks are handled in order, each once, the next one only when the last is in the journal; a change of a
//! job and a tick never see half of each other.

mod changes;
mod controls;
mod course;
mod definitions;
mod misfire;
mod nodes;
mod output_reads;
mod progress;
mod reload;
mod requests;
mod run_list;
mod ticks;

use crate::core::Context;
use crate::core::cluster::roster::Roster;
use crate::core::io::Effects;
use crate::core::io::ports::{Journaled, Lead, Loaded, StoreError, Work, WorkId};
use crate::core::jobs::replica::{AsOf, Lent};
use crate::core::runs::ledger::Ledger;
use crate::core::runs::ledger::journaler::{Journaler, Written};
use crate::core::runs::{Left, RunLimits, Runs, Stage, Unknown};
use crate::core::time::bounds::{FORGET_SECS, HOUSEKEEPING_MS, KEEP_DONE_SECS};
use crate::core::time::{Timer, Timers};
use crate::model::command::{OutputQuery, RequestId};
use crate::model::journal::EntryId;
use crate::model::log_row::StoredLog;
use crate::model::message::{Hello, ToLeader};
use crate::model::status::RunStatus;
use crate::model::{Attempt, Epoch, Mono, NodeId, Now, Second, Server, Wall};
use changes::Changes;
use course::Ticks;
use output_reads::{Questions, Where};
use reload::Reload;
use requests::{Controls, Outcome};
use std::collections::BTreeMap;

/// How often finished entries are closed, in one statement.
const CLOSE_EVERY_MS: u64 = 1_000;

/// A leader's settings.
#[derive(Clone, Debug)]
pub struct LeaderSetup {
    /// The greeting of the leader's own node.
    pub hello: Hello,
    pub limits: RunLimits,
    /// When every lease of a former leader is over.
    pub leases_end: Mono,
    /// How long before its second a tick is taken.
    pub plan_ahead_ms: u64,
    /// The time between TERM and KILL, by this node's configuration.
    pub kill_grace_ms: u64,
}

/// The leader of the cluster, under one epoch.
#[derive(Debug)]
pub struct Leader {
    setup: LeaderSetup,
    established_at: Mono,
    epoch: Epoch,
    ledger: Ledger,
    ticks: Ticks,
    /// How new the jobs are, for the replica that they go back into.
    as_of: AsOf,
    runs: Runs,
    changes: Changes,
    questions: Questions,
    controls: Controls,
    /// No tick is taken.
    is_paused: bool,
    roster: Roster,
    /// Attempts whose log rows are being read.
    finding: BTreeMap<WorkId, Unknown>,
    /// Attempts whose log rows could not be read; the next housekeeping asks again.
    to_find: Vec<Unknown>,
    housekeeping_at: Mono,
    /// The statement that sets entries done, and these entries.
    closing: Option<(WorkId, Vec<EntryId>)>,
    close_at: Mono,
    reload: Option<Reload>,
    /// No further tick is taken: the node shuts down.
    is_draining: bool,
}

/// The meaning of the store's answer for the node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Nothing follows.
    Ok,
    /// A statement under this leader's epoch has succeeded; the authority counts from its sending, at this moment.
    Confirmed(Mono),
    /// Another node leads.
    Deposed,
}

impl Leader {
    /// Takes the lead. `loaded`: the open entries and the watermark, read under the new epoch; `jobs`: up to date by
    /// then. The nodes have yet to tell their holdings.
    pub fn establish(setup: LeaderSetup, epoch: Epoch, loaded: Loaded, jobs: Lent, cx: &mut Context) -> Leader {
        let now_second = cx.now.wall.second();
        let mut cursor = loaded.watermark.unwrap_or(now_second);
        if now_second.plus(setup.limits.grace_secs) < cursor {
            let ahead_secs = cursor.0 - now_second.0;
            cx.fx.notice(log::Level::Error, format!(
                "the journal is {ahead_secs} s ahead of this clock, which was set back; scheduling goes on from now, ticks already handled are passed over"
            ));
            cursor = now_second;
        }
        let Lent { mut scheduler, as_of, .. } = jobs;
        scheduler.wind_to(cursor);
        scheduler.forget_settled();
        for body in loaded.open.iter().map(|stored| &stored.entry.body) {
            body.settled.iter().for_each(|gap| scheduler.settle(gap.cron_id, gap.last));
            let edited = body.decided_to.into_iter().flat_map(|last| body.changes.iter().map(move |note| (note, last)));
            edited.for_each(|(note, last)| scheduler.settle(note.cron_id, last));
        }
        let server = setup.hello.server.clone();
        let mut leader = Leader {
            established_at: cx.now.mono,
            roster: Roster::default(),
            finding: BTreeMap::new(),
            to_find: Vec::new(),
            housekeeping_at: cx.now.mono,
            epoch,
            ledger: Ledger { jobs: scheduler, journal: Journaler::new(epoch) },
            ticks: Ticks::new(cursor),
            as_of,
            runs: Runs::new(server, setup.limits),
            changes: Changes::default(),
            questions: Questions::new(epoch),
            controls: Controls::default(),
            is_paused: loaded.is_paused,
            closing: None,
            close_at: cx.now.mono,
            reload: None,
            is_draining: false,
            setup,
        };
        let left = Left { open: &loaded.open, logged: &loaded.logged, watermark: loaded.watermark };
        leader.runs.recover(&left, &mut leader.ledger, cx);
        // Runs that a former leader named for the tick that it did not complete are decided.
        let begun = leader.ledger.jobs.cursor().plus(1);
        for run in leader.runs.named().filter(|run| run.scheduled_at == begun) {
            leader.ledger.jobs.settle(run.cron_id, begun);
        }
        for node in leader.runs.nodes() {
            leader.roster.expect(node, leader.setup.leases_end, cx.now);
        }
        leader
    }

    /// The last tick that was taken.
    fn tick(&self) -> Second {
        self.ledger.jobs.cursor()
    }

    /// Answers a part of a run's output, wherever that is.
    pub fn read_output(&mut self, client: RequestId, query: OutputQuery, cx: &mut Context) {
        let source = match self.runs.find(query.run, query.attempt) {
            None => Where::Logged,
            Some((attempt, run)) => match run.stage() {
                Stage::Sent | Stage::Over if self.is_reachable(&run.node) => {
                    Where::At(attempt, run.node.clone(), self.roster.server_of(&run.node))
                }
                Stage::Sent | Stage::Over => Where::Away(self.roster.server_of(&run.node)),
                Stage::Delayed => Where::Waiting(attempt, RunStatus::Delayed),
                Stage::Planned | Stage::Waiting(_) | Stage::Moving => Where::Waiting(attempt, RunStatus::Waiting),
            },
        };
        self.questions.ask(client, query, source, cx);
    }

    /// The log row of a run whose output is asked for.
    pub fn on_log_row(
        &mut self,
        id: WorkId,
        result: Result<Option<Box<StoredLog>>, StoreError>,
        cx: &mut Context,
    ) -> Verdict {
        let at = |server: &Server| self.roster.node_at(server).filter(|node| self.is_reachable(node));
        let node = result.as_ref().ok().and_then(|row| at(&Server(row.as_ref()?.run_server.as_str().into())));
        self.questions.on_log_row(id, result, node, cx);
        Verdict::Ok
    }

    /// Takes no further tick.
    pub fn drain(&mut self) {
        self.is_draining = true;
    }

    /// Whether every decision is in the journal, so that another leader can go on from there.
    pub fn can_hand_over(&self) -> bool {
        self.ledger.journal.is_idle() && self.changes.is_idle()
    }

    /// Whether every decision is stored, rows and done entries included.
    pub fn is_idle(&self) -> bool {
        let is_closed = self.closing.is_none() && !self.runs.has_closable() && !self.runs.has_unwritten_refusals();
        self.ledger.journal.is_idle() && self.changes.is_idle() && is_closed
    }

    /// Acts on the due timers. The journal comes last, so that it sends entries that were pushed on the way.
    pub fn poll(&mut self, cx: &mut Context) {
        self.keep_house(cx);
        self.runs.poll(&mut self.ledger, cx);
        if self.takes_ticks() {
            self.take_ticks(cx);
        } else if self.keeps_pause() {
            self.keep_pause(cx.now);
        }
        self.poll_controls(cx);
        let takes_ticks = !self.is_draining && !self.is_paused;
        self.changes.poll(takes_ticks, &mut self.ledger, cx);
        self.answer_restated(cx);
        self.put_stops_in_force(cx);
        if self.closing.is_none() && self.close_at <= cx.now.mono {
            self.close(cx);
        }
        self.ledger.journal.poll(cx);
    }

    /// Says when to poll.
    pub fn timers(&self, timers: &mut Timers) {
        let now = timers.now();
        let tick = || now.mono_at(Wall(self.tick().plus(1).wall().0 - self.setup.plan_ahead_ms as i64 * 1_000_000));
        timers.set(Timer::Tick, self.takes_ticks().then(tick));
        timers.set(Timer::QuietEntry, self.keeps_pause().then(|| self.controls.quiet_at()));
        timers.set(Timer::Delayed, self.runs.next_delayed());
        timers.set(Timer::Release, self.runs.release_at());
        timers.set(Timer::CloseEntries, self.closing.is_none().then_some(self.close_at));
        timers.set(Timer::Housekeeping, self.housekeeping_at);
        self.roster.timers(timers);
        self.ledger.journal.timers(timers);
        self.changes.timers(timers);
        self.controls.timers(timers);
    }

    /// Whether the next tick may be taken: the last one is in the journal.
    fn takes_ticks(&self) -> bool {
        !self.is_draining && !self.is_paused && self.ledger.journal.is_idle()
    }

    fn keeps_pause(&self) -> bool {
        !self.is_draining && self.is_paused && self.ledger.journal.is_idle()
    }

    /// The store's answer to an entry.
    pub fn on_journaled(&mut self, id: WorkId, result: Result<Journaled, StoreError>, cx: &mut Context) -> Verdict {
        match self.ledger.journal.on_journaled(id, result, cx) {
            Written::Open => Verdict::Ok,
            Written::Deposed => Verdict::Deposed,
            Written::TickTaken(entry) => {
                self.runs.on_tick_taken(&entry);
                Verdict::Ok
            }
            Written::Known(entry, body) => {
                self.runs.forget_planned(&entry, &mut self.ledger, cx);
                self.controls.on_journaled(&entry, &body, cx.fx);
                Verdict::Ok
            }
            Written::In { id, entry, sent_at } => {
                self.runs.on_entry(id, &entry, &mut self.ledger, cx);
                // Statements are answered in order: a change that was noted before this entry is in force by now,
                // unless it is still with the store.
                if !self.changes.has_pending() {
                    self.as_of = AsOf { entry: id, at: sent_at };
                }
                self.controls.on_journaled(&entry, &entry.body, cx.fx);
                Verdict::Confirmed(sent_at)
            }
        }
    }

    /// The store's answer to setting entries done.
    pub fn on_closed(&mut self, id: WorkId, result: Result<(), StoreError>, now: Now) -> Verdict {
        let Some((_, entries)) = self.closing.take_if(|(closing, _)| *closing == id) else { return Verdict::Ok };
        self.close_at = now.mono.plus_ms(CLOSE_EVERY_MS);
        match result {
            Ok(()) => Verdict::Ok,
            Err(StoreError::Deposed) => Verdict::Deposed,
            Err(_) => {
                // Closing late does no harm, and the journaler reports a store that is away.
                self.runs.put_back_closable(entries);
                Verdict::Ok
            }
        }
    }

    /// A message of a node.
    pub fn on_message(&mut self, node: &NodeId, message: ToLeader, cx: &mut Context) {
        if let ToLeader::Cancelled { cron_id, .. } = &message {
            self.changes.settling.on_cancelled(node, *cron_id, cx.fx);
        }
        if let ToLeader::OutputRead { request, part } = message {
            return self.questions.on_read(request, part, cx.fx);
        }
        match message {
            ToLeader::Finished { attempt, state, left } => {
                self.runs.on_finished(attempt, state, &mut self.ledger, cx);
                let next = Attempt { number: attempt.number + 1, ..attempt };
                let forgone = cx.logbook.has(next).then_some(next);
                self.controls.on_finished(attempt, Outcome { state, left }, forgone, cx.fx);
            }
            ToLeader::Logged(attempts) => {
                attempts.iter().for_each(|attempt| self.runs.on_told_logged(node, *attempt, &mut self.ledger, cx));
                attempts.iter().for_each(|attempt| self.controls.on_over(*attempt, None, cx.fx));
                let ended = self.controls.ended_here(&attempts);
                if !ended.is_empty() {
                    self.find(Unknown { attempts: ended, ..Unknown::default() }, cx.fx);
                }
            }
            ToLeader::Cancelled { cron_id, dropped } => self.runs.on_dropped(cron_id, dropped, &mut self.ledger, cx),
            ToLeader::Returned(attempts) => self.runs.on_returned(node, attempts, &mut self.ledger, cx),
            ToLeader::Refused(attempts) => self.runs.on_refused(node, attempts, &mut self.ledger),
            ToLeader::Runs { request, runs } => self.on_runs(node, request, runs, cx),
            ToLeader::OutputRead { .. } => {}
        }
    }

    /// Writes pending rows and closes entries at once: the node is about to exit.
    pub fn hurry(&mut self, cx: &mut Context) {
        self.close_at = self.close_at.min(cx.now.mono);
        self.runs.flush_refusals(&mut self.ledger, cx);
    }

    /// The lead is lost or handed over: answers all clients, cuts the links, and gives the jobs back.
    pub fn step_down(self, fx: &mut Effects) -> Lent {
        self.roster.links().into_iter().for_each(|link| fx.unlink(link));
        if self.reload.is_some() {
            fx.notice(
                log::Level::Warn,
                "the lead was lost while the jobs were being reloaded: send SIGHUP to the new leader",
            );
        }
        let again = self.changes.under_way();
        self.changes.abandon(fx);
        self.questions.abandon(fx);
        self.controls.abandon(fx);
        Lent { scheduler: self.ledger.jobs, as_of: self.as_of, again }
    }

    /// Housekeeping: silent nodes, ended leases, lost runs, runs without a node, late answers.
    fn keep_house(&mut self, cx: &mut Context) {
        let now = cx.now;
        let is_due = self.housekeeping_at <= now.mono;
        if is_due {
            self.housekeeping_at = now.mono.plus_ms(HOUSEKEEPING_MS);
            for link in self.roster.dead_links(now) {
                cx.fx.unlink(link);
                self.on_unlinked(link, cx);
            }
        }
        for node in self.roster.take_released(now) {
            self.runs.on_released(&node, &mut self.ledger, cx);
        }
        if !is_due {
            return;
        }
        self.runs.set_candidates(self.roster.candidates(now));
        self.questions.give_up_late(cx);
        self.runs.explain(&mut self.ledger, cx);
        for (node, silent_since) in self.roster.lost() {
            self.runs.give_up(&node, silent_since, &mut self.ledger, cx);
            if now.wall.second().0 - silent_since.0 > FORGET_SECS && !self.runs.nodes().contains(&node) {
                self.roster.forget(&node);
            }
        }
        self.runs.look_after(&mut self.ledger, cx);
        for unknown in std::mem::take(&mut self.to_find) {
            self.find(unknown, cx.fx);
        }
    }

    /// Sets the closable entries done, in one statement.
    fn close(&mut self, cx: &mut Context) {
        let entries = self.runs.take_closable();
        if entries.is_empty() {
            self.close_at = cx.now.mono.plus_ms(CLOSE_EVERY_MS);
            return;
        }
        let delete_before = cx.now.wall.second().plus(-KEEP_DONE_SECS).wall();
        let id = cx.fx.work(Work::Lead(Lead::Close { epoch: self.epoch, entries: entries.clone(), delete_before }));
        self.closing = Some((id, entries));
    }

    /// Recounts everything that is counted along the way, and compares.
    pub fn check_invariants(&self) {
        self.runs.check_invariants(&self.ledger.journal);
        let mut undecided = self.runs.undecided();
        assert!(undecided.all(|id| self.changes.has_stop_in_force(id)), "runs wait for a stop that nobody will store");
        self.roster.check_invariants();
    }
}

#[cfg(test)]
mod tests;
