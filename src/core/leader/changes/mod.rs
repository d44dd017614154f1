//! The API's changes to jobs, one at a time: stored first, then in force, then answered.
//!
//! A change waits until every second before it is decided (see `ledger`). It is asked of the store until its result is known; its
//! client waits `ANSWER_MS` for that, and is then told that nobody knows yet. A stop does not wait for a store that is away: it
//! is put in force first, its client is told so with a 503, and it is stored as soon as the store takes it.
//!
//! Invariants: one change is with the store at a time; it is answered 200 only when no run of the old definition can
//! start any more; every request is answered exactly once; what is in force and not stored is stored before anything else.

mod definition;
mod errors;
mod pending;
mod settling;

pub use errors::{cut_off, in_force, in_force_and_cut_off};
pub use pending::{Made, Urgent};

use crate::core::Context;
use crate::core::io::Effects;
use crate::core::ledger::Ledger;
use crate::core::ports::{Change, Lead, StoreError, Work, WorkId};
use crate::core::time::{Backoff, Timer, Timers};
use crate::model::command::{CallError, Command, RequestId, RequestKey};
use crate::model::{Job, JobId, Mono, Now};
use definition::{change, job_of, started_already};
use errors::{SILENT, undecided, untouched};
use pending::{PendingChange, Stand, Waiting};
use settling::SettlingChanges;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// How long a client waits for a store that does not answer.
const ANSWER_MS: u64 = 3_000;
/// A store that has not answered for so long is taken to be away: stops do not wait for it.
const SILENT_MS: u64 = 2_000;
/// How long late ticks are waited for, once they can be journaled.
const PATIENCE_MS: u64 = 1_000;

#[derive(Debug, Default)]
pub struct Changes {
    queue: VecDeque<Waiting>,
    /// Stops that are in force and not stored, in their order.
    in_force: VecDeque<Job>,
    /// Jobs whose stop is in force and will not be stored.
    unstorable: BTreeSet<JobId>,
    asked: Option<PendingChange>,
    /// Changes that are in force here and wait for nodes to say so too.
    pub settling: SettlingChanges,
    /// Neither paused nor leaving: what is not decided yet soon will be, by its tick.
    takes_ticks: bool,
    /// Jobs that are to be started and are not stopped.
    restated: Vec<(RequestId, Arc<Job>)>,
    backoff: Backoff,
    /// The journal was not written, and is not being tried again, so nothing will be.
    is_journal_away: bool,
    /// Since when ticks are late though the journal is written.
    behind_since: Option<Mono>,
    /// What the store said when it last failed, at a change or at the journal; none while it does what it is asked.
    trouble: Option<String>,
}

impl Changes {
    pub fn push(&mut self, client: RequestId, command: Command) {
        self.queue.push_back(Waiting { client, command, answer_by: None });
    }

    /// Asks the store for the next change.
    pub fn poll(&mut self, takes_ticks: bool, ledger: &mut Ledger, cx: &mut Context) {
        let now = cx.now;
        self.takes_ticks = takes_ticks;
        self.is_journal_away = ledger.journal.is_away();
        if !self.backoff.is_failing() {
            self.trouble = ledger.journal.trouble().map(String::from);
        }
        let is_behind = self.takes_ticks && ledger.is_behind(now) && !ledger.journal.is_failing();
        self.behind_since = is_behind.then(|| self.behind_since.unwrap_or(now.mono));
        loop {
            if self.asked.is_none() {
                self.asked = self.next(ledger, cx);
            }
            self.decide(ledger, cx);
            // One that was refused makes room for the next.
            if self.asked.is_some() || self.queue.is_empty() && self.in_force.is_empty() {
                break;
            }
        }
        self.answer_late(cx.fx, now);
        let is_due = |asked: &&mut PendingChange| asked.id.is_none() && asked.stand == Stand::Decided;
        if let Some(asked) = self.asked.as_mut().filter(is_due).filter(|_| self.backoff.is_over(now)) {
            let (request, change) = (asked.request, Box::new(asked.change.clone()));
            asked.id = Some(cx.fx.work(Work::Lead(Lead::Change { epoch: ledger.journal.epoch(), request, change })));
            asked.sent_at = now.mono;
        }
        self.refuse_late(cx.fx, now);
    }

    /// The next stop for which a store that is away is not waited.
    pub fn next_urgent(&mut self, ledger: &mut Ledger, cx: &mut Context) -> Option<Urgent> {
        if !self.is_store_away(cx.now) {
            return None;
        }
        if let Some(asked) = self.asked.as_mut().filter(|asked| asked.is_stop && !asked.is_in_force)
            && let Change::Put(job) = &asked.change
        {
            if asked.stand == Stand::Open {
                ledger.settle(job.id, job.since);
                asked.stand = Stand::Settled;
            }
            asked.is_in_force = true;
            return Some(Urgent { client: asked.client.take(), job: job.clone() });
        }
        loop {
            let at = self.queue.iter().position(|waiting| matches!(waiting.command, Command::StopJob(_)))?;
            let Waiting { client, command, .. } = self.queue.remove(at)?;
            let Some(id) = job_of(&command) else { continue };
            self.refuse_earlier(id, at, cx.fx);
            match self.stopped(id, ledger, cx) {
                Some(job) => return Some(Urgent { client: Some(client), job }),
                None => cx.fx.reply(client, Err(CallError::unknown_job(id))),
            }
        }
    }

    pub fn timers(&self, timers: &mut Timers) {
        if let Some(asked) = &self.asked {
            let is_decided = asked.stand == Stand::Decided;
            let retries = is_decided && asked.id.is_none();
            timers.set(Timer::ChangeRetry, retries.then(|| self.backoff.ready_at()));
            timers.set(Timer::ChangeAnswer, asked.client.map(|_| asked.answer_by));
            timers.set_ahead(Timer::ChangeSilence, (!retries).then(|| asked.sent_at.plus_ms(SILENT_MS)));
            let patience = self.behind_since.filter(|_| !is_decided).map(|since| since.plus_ms(PATIENCE_MS));
            timers.set_ahead(Timer::ChangePatience, patience);
        }
        if self.is_store_away(timers.now()) {
            timers.set(Timer::QueuedChange, self.queue.iter().filter_map(|waiting| waiting.answer_by).min());
        }
    }

    /// Whether a change is with the store, or waits for it.
    pub fn has_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// The jobs that may be otherwise in the store than in memory.
    pub fn under_way(&self) -> Vec<JobId> {
        let asked = self.asked.as_ref().and_then(|asked| job_of_change(&asked.change));
        let in_force = self.in_force.iter().map(|job| job.id);
        asked.into_iter().chain(in_force).chain(self.unstorable.iter().copied()).collect()
    }

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.in_force.is_empty() && self.asked.is_none() && self.settling.is_empty()
    }

    /// The store's answer; with `Made`, the change is to be put in force.
    pub fn on_changed(
        &mut self,
        id: WorkId,
        result: Result<JobId, StoreError>,
        fx: &mut Effects,
        now: Now,
    ) -> Option<Made> {
        let asked = self.asked.as_mut().filter(|asked| asked.id == Some(id))?;
        if matches!(result, Err(StoreError::Permanent(_))) {
            // It answers.
            self.backoff.reset();
        }
        match result {
            Ok(given) => {
                self.backoff.reset();
                self.trouble = None;
                let mut asked = self.asked.take()?;
                if let Change::Add(job, _) = &mut asked.change {
                    job.id = given;
                }
                self.settling.set_stored(&asked.change);
                return Some(Made { client: asked.client, change: asked.change, is_in_force: asked.is_in_force });
            }
            Err(StoreError::Permanent(reason)) if asked.is_in_force => {
                fx.notice(log::Level::Error, format!("a stop is in force and will not be stored: {reason}"));
                let asked = self.asked.take()?;
                self.unstorable.extend(job_of_change(&asked.change));
                return Some(Made { client: None, change: asked.change, is_in_force: true });
            }
            // At the first asking: surely nothing was done, and the client may be told so.
            Err(StoreError::Away(reason)) if !self.backoff.is_failing() && !asked.is_stop => {
                self.refuse(untouched(Some(&reason)), fx);
            }
            Err(StoreError::Permanent(reason)) => self.refuse(CallError::bad(reason), fx),
            // The caller steps down on this and answers everybody.
            Err(StoreError::Deposed) => {}
            Err(StoreError::Away(reason) | StoreError::Unavailable(reason)) => {
                if !self.backoff.is_failing() {
                    fx.notice(
                        log::Level::Error,
                        format!("a change of a job waits: {reason}; asking again until its result is known"),
                    );
                }
                asked.id = None;
                self.trouble = Some(reason);
                self.backoff.fail(now);
            }
        }
        None
    }

    /// Jobs that are as they were asked to be. Old runs of theirs may be somewhere still.
    pub fn take_restated(&mut self) -> Vec<(RequestId, Arc<Job>)> {
        std::mem::take(&mut self.restated)
    }

    /// The lead is lost: everybody is told.
    pub fn abandon(mut self, fx: &mut Effects) {
        let unknown =
            "the lead was lost while the change was under way: whether it is stored is not known; /cron/list tells";
        let is_in_force = self.asked.as_ref().is_some_and(|asked| asked.is_in_force) || !self.in_force.is_empty();
        if is_in_force {
            let text = "stops of jobs were in force and are not stored: the next leader does not know of them";
            fx.notice(log::Level::Error, text);
        }
        let asked = self.asked.take().and_then(|asked| asked.client);
        asked
            .into_iter()
            .chain(self.settling.into_clients())
            .for_each(|client| fx.reply(client, Err(CallError::unavailable(unknown))));
        let untouched = "nothing was changed: the lead was lost; try again";
        let waiting = self.queue.into_iter().map(|waiting| waiting.client);
        waiting.for_each(|client| fx.reply(client, Err(CallError::unavailable(untouched))));
    }

    fn next(&mut self, ledger: &mut Ledger, cx: &mut Context) -> Option<PendingChange> {
        let now = cx.now;
        while let Some(job) = self.in_force.pop_front() {
            // One that was deleted meanwhile needs no stop.
            if ledger.jobs.job(job.id).is_some() {
                return Some(PendingChange::in_force(job, ledger.journal.next_request(), now.mono));
            }
        }
        while let Some(Waiting { client, command, .. }) = self.queue.pop_front() {
            if let Some(job) = started_already(&command, &ledger.jobs) {
                self.restated.push((client, job));
                continue;
            }
            // One that names no key of its own gets one, so that asking the store again adds it once.
            let number = ledger.journal.next_request();
            let is_stop = matches!(command, Command::StopJob(_));
            let epoch = ledger.journal.epoch();
            let own_key = || RequestKey(format!("{}.{number}", epoch.0));
            let since = ledger.since(cx.now);
            if self.is_journal_away {
                // It may be back.
                ledger.journal.hurry();
                self.is_journal_away = false;
            }
            match change(command, own_key, &ledger.jobs, since) {
                Err(error) => cx.fx.reply(client, Err(error)),
                Ok(change) => {
                    let pending = PendingChange::asked(client, change, since, number, now.mono);
                    return Some(PendingChange { is_stop, ..pending });
                }
            }
        }
        None
    }

    /// Sees to it that what is due before the change is decided. Ticks that are late have a moment to do so, unless it is the
    /// job's end: what would start until then is not wanted any more.
    fn decide(&mut self, ledger: &mut Ledger, cx: &mut Context) {
        let now = cx.now.mono;
        let is_late = self.behind_since.is_some_and(|since| since.plus_ms(PATIENCE_MS) <= now);
        let Some(asked) = self.asked.as_mut().filter(|asked| asked.stand != Stand::Decided) else { return };
        let since = asked.since;
        let (id, ends) = match &asked.change {
            Change::Add(..) => return asked.stand = Stand::Decided,
            Change::Put(job) => (job.id, job.stop),
            Change::Delete { id, .. } => (*id, true),
        };
        let waits = self.takes_ticks && !ends && !is_late;
        if !waits && !ledger.journal.is_failing() && ledger.settle(id, since) {
            asked.stand = Stand::Settled;
        }
        if ledger.is_decided(id, since) {
            asked.stand = Stand::Decided;
        } else if asked.stand == Stand::Open && asked.answer_by <= now {
            let is_failing = ledger.journal.is_failing();
            let error = if is_failing { untouched(self.trouble.as_deref()) } else { undecided() };
            self.refuse(error, cx.fx);
        }
    }

    /// Whether the store has failed, or says nothing.
    fn is_store_away(&self, now: Now) -> bool {
        let is_waiting = |asked: &PendingChange| asked.id.is_some() || asked.stand != Stand::Decided;
        let is_silent = |asked: &PendingChange| is_waiting(asked) && asked.sent_at.plus_ms(SILENT_MS) <= now.mono;
        self.is_journal_away || self.backoff.is_failing() || self.asked.as_ref().is_some_and(is_silent)
    }

    /// The job as a stop leaves it, which is to be stored. One that is stopped and waits to be stored stays as it is.
    fn stopped(&mut self, id: JobId, ledger: &mut Ledger, cx: &Context) -> Option<Job> {
        let asked = self.asked.as_ref().and_then(|asked| match &asked.change {
            Change::Put(job) if job.id == id => Some((job, asked.is_in_force)),
            _ => None,
        });
        if let Some(job) = self.in_force.iter().find(|job| job.id == id) {
            return Some(job.clone());
        }
        let job = match asked {
            Some((job, true)) => return Some(job.clone()),
            // The store may have this change already, so the stop comes on top of it.
            Some((job, false)) => job.clone(),
            None => Job::clone(ledger.jobs.job(id)?),
        };
        let since = ledger.since(cx.now);
        ledger.settle(id, since);
        let job = Job { stop: true, version: job.version.next(), since, ..job };
        self.in_force.push_back(job.clone());
        Some(job)
    }

    /// Nothing that came before a stop may undo it afterwards.
    fn refuse_earlier(&mut self, id: JobId, count: usize, fx: &mut Effects) {
        let mut at = 0;
        self.queue.retain(|waiting| {
            at += 1;
            let is_earlier = at <= count && job_of(&waiting.command) == Some(id);
            if is_earlier {
                fx.reply(waiting.client, Err(untouched(self.trouble.as_deref())));
            }
            !is_earlier
        });
    }

    fn refuse_late(&mut self, fx: &mut Effects, now: Now) {
        let is_away = self.is_store_away(now);
        self.queue.retain_mut(|waiting| {
            let answer_by = *waiting.answer_by.get_or_insert(now.mono.plus_ms(ANSWER_MS));
            let is_late = is_away && answer_by <= now.mono;
            if is_late {
                fx.reply(waiting.client, Err(untouched(self.trouble.as_deref())));
            }
            !is_late
        });
    }

    fn refuse(&mut self, error: CallError, fx: &mut Effects) {
        if let Some(client) = self.asked.take().and_then(|asked| asked.client) {
            fx.reply(client, Err(error));
        }
    }

    fn answer_late(&mut self, fx: &mut Effects, now: Now) {
        // Of one that nothing was done about yet something better can be said.
        let late = self.asked.as_mut().filter(|asked| asked.answer_by <= now.mono && asked.stand != Stand::Open);
        if let Some(client) = late.and_then(|asked| asked.client.take()) {
            let why = self.trouble.as_deref().unwrap_or(SILENT);
            let message = format!("whether the change is stored is not known yet; /cron/list will tell: {why}");
            fx.reply(client, Err(CallError::unavailable(message)));
        }
    }
}

/// The job that is there already and is being changed.
fn job_of_change(change: &Change) -> Option<JobId> {
    match change {
        Change::Add(..) => None,
        Change::Put(job) => Some(job.id),
        Change::Delete { id, .. } => Some(*id),
    }
}

#[cfg(test)]
mod tests;
