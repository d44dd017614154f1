//! The API's changes to jobs, one at a time: stored first, then in force, then answered.
//!
//! A change waits until every second before it is decided (see `ledger`). Its statement is repeated until the result is
//! known; the client waits `ANSWER_MS` for that, and is then told that the result is not known yet. A stop does not
//! wait for a store that is away: it is put in force first, its client is told so with a 503, and it is stored as soon
//! as the store takes it.
//!
//! Not here: how a change comes into force; see the leader's `definitions`.
//!
//! Invariants: one change is with the store at a time; it is answered 200 only when no run of the old definition can
//! start any more; every request is answered exactly once; stops that are in force and not stored are stored before any
//! other change.

mod definition;
mod errors;
mod pending;
mod settling;

pub use errors::{cut_off, in_force, in_force_and_cut_off};
pub use pending::{Made, Urgent};

use crate::core::Context;
use crate::core::io::Effects;
use crate::core::io::ports::{Change, Lead, StoreError, Work, WorkId};
use crate::core::runs::ledger::Ledger;
use crate::core::time::bounds::{ANSWER_MS, CHANGE_PATIENCE_MS, CHANGE_SILENT_MS};
use crate::core::time::{Backoff, Timer, Timers};
use crate::model::command::{CallError, Command, RequestId, RequestKey};
use crate::model::{Job, JobId, Mono, Now};
use definition::{change, job_of, started_already};
use errors::{SILENT, undecided, untouched};
use pending::{PendingChange, QueuedChange, Stand};
use settling::SettlingChanges;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// The changes that are not answered or not stored yet.
#[derive(Debug, Default)]
pub struct Changes {
    queue: VecDeque<QueuedChange>,
    /// Stops that are in force and not stored, in their order.
    in_force: VecDeque<Job>,
    /// Jobs whose stop is in force and will not be stored.
    unstorable: BTreeSet<JobId>,
    /// The change that is with the store, or next.
    pending: Option<PendingChange>,
    /// Changes that are in force here, and whose clients wait for nodes.
    pub settling: SettlingChanges,
    /// The leader takes ticks: they will soon decide the seconds that are not decided yet.
    takes_ticks: bool,
    /// Requests to start jobs that are not stopped.
    restated: Vec<(RequestId, Arc<Job>)>,
    backoff: Backoff,
    /// The journal's last statement failed and is not being repeated just now: the store must be away.
    is_journal_away: bool,
    /// Since when ticks have been late although the journal is written.
    behind_since: Option<Mono>,
    /// The store's last error, for a change or a journal entry; none while its statements succeed.
    trouble: Option<String>,
}

impl Changes {
    /// Adds a command to the queue.
    pub fn push(&mut self, client: RequestId, command: Command) {
        self.queue.push_back(QueuedChange { client, command, answer_by: None });
    }

    /// Takes the next change as far as it goes: decides the seconds before it, sends it to the store. Answers late
    /// clients.
    pub fn poll(&mut self, takes_ticks: bool, ledger: &mut Ledger, cx: &mut Context) {
        let now = cx.now;
        self.takes_ticks = takes_ticks;
        self.is_journal_away = ledger.journal.is_away();
        if !self.backoff.is_failing() {
            self.trouble = ledger.journal.trouble().map(String::from);
        }
        let is_behind = self.takes_ticks && ledger.is_behind(now) && !ledger.journal.is_failing();
        self.behind_since = is_behind.then(|| self.behind_since.unwrap_or(now.mono));
        // Where `decide` declines a change, the next one follows: each round takes at least one from the queues.
        for _ in 0..=self.queue.len() + self.in_force.len() {
            if self.pending.is_none() {
                self.pending = self.next(ledger, cx);
            }
            self.decide(ledger, cx);
            if self.pending.is_some() {
                break;
            }
        }
        self.answer_late(cx);
        let is_due = |pending: &&mut PendingChange| pending.id.is_none() && pending.stand == Stand::Decided;
        if let Some(pending) = self.pending.as_mut().filter(is_due).filter(|_| self.backoff.is_over(now)) {
            let (request, change) = (pending.request, Box::new(pending.change.clone()));
            pending.id = Some(cx.fx.work(Work::Lead(Lead::Change { epoch: ledger.journal.epoch(), request, change })));
            pending.sent_at = now.mono;
        }
        self.decline_late(cx);
    }

    /// While the store is away: the next stop to put in force before it is stored.
    pub fn next_urgent(&mut self, ledger: &mut Ledger, cx: &mut Context) -> Option<Urgent> {
        if !self.is_store_away(cx.now) {
            return None;
        }
        if let Some(pending) = self.pending.as_mut().filter(|pending| pending.is_stop && !pending.is_in_force)
            && let Change::Put(job) = &pending.change
        {
            if pending.stand == Stand::Open {
                ledger.settle(job.id, job.since);
                pending.stand = Stand::Settled;
            }
            pending.is_in_force = true;
            return Some(Urgent { client: pending.client.take(), job: job.clone() });
        }
        // Each round takes at least one change from the queue.
        for _ in 0..self.queue.len() {
            let at = self.queue.iter().position(|waiting| matches!(waiting.command, Command::StopJob(_)))?;
            let QueuedChange { client, command, .. } = self.queue.remove(at)?;
            let Some(id) = job_of(&command) else { continue };
            self.decline_earlier(id, at, cx.fx);
            match self.stopped(id, ledger, cx.now) {
                Some(job) => return Some(Urgent { client: Some(client), job }),
                None => cx.fx.reply(client, Err(CallError::unknown_job(id))),
            }
        }
        None
    }

    /// The most stops that `next_urgent` can still answer: the change with the store, and the queued ones.
    pub fn urgent_max(&self) -> usize {
        1 + self.queue.len()
    }

    /// Lists when to poll.
    pub fn timers(&self, timers: &mut Timers) {
        if let Some(pending) = &self.pending {
            let is_decided = pending.stand == Stand::Decided;
            let retries = is_decided && pending.id.is_none();
            timers.set(Timer::ChangeRetry, retries.then(|| self.backoff.ready_at()));
            timers.set(Timer::ChangeAnswer, pending.client.map(|_| pending.answer_by));
            timers.set_ahead(Timer::ChangeSilence, (!retries).then(|| pending.sent_at.plus_ms(CHANGE_SILENT_MS)));
            let patience = self.behind_since.filter(|_| !is_decided).map(|since| since.plus_ms(CHANGE_PATIENCE_MS));
            timers.set_ahead(Timer::ChangePatience, patience);
        }
        if self.is_store_away(timers.now()) {
            timers.set(Timer::QueuedChange, self.queue.iter().filter_map(|waiting| waiting.answer_by).min());
        }
    }

    /// Whether a change is with the store, or waits for it.
    pub fn has_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether a stop of this job is in force, and has yet to be stored.
    pub fn has_stop_in_force(&self, id: JobId) -> bool {
        let pending = self.pending.as_ref().filter(|pending| pending.is_in_force);
        let is_pending = pending.and_then(|pending| job_of_change(&pending.change)) == Some(id);
        is_pending || self.in_force.iter().any(|job| job.id == id)
    }

    /// The jobs whose definitions in the store and in memory may differ.
    pub fn under_way(&self) -> Vec<JobId> {
        let pending = self.pending.as_ref().and_then(|pending| job_of_change(&pending.change));
        let in_force = self.in_force.iter().map(|job| job.id);
        pending.into_iter().chain(in_force).chain(self.unstorable.iter().copied()).collect()
    }

    /// Whether no change waits for anything.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.in_force.is_empty() && self.pending.is_none() && self.settling.is_empty()
    }

    /// The store's answer to a change; with `Made`, the change is to be put in force.
    pub fn on_changed(&mut self, id: WorkId, result: Result<JobId, StoreError>, cx: &mut Context) -> Option<Made> {
        let pending = self.pending.as_mut().filter(|pending| pending.id == Some(id))?;
        if matches!(result, Err(StoreError::Permanent(_))) {
            // Even this error is an answer of the store.
            self.backoff.reset();
        }
        match result {
            Ok(given) => {
                self.backoff.reset();
                self.trouble = None;
                let mut pending = self.pending.take()?;
                if let Change::Add(job, _) = &mut pending.change {
                    job.id = given;
                }
                self.settling.set_stored(&pending.change);
                return Some(Made { client: pending.client, change: pending.change, is_in_force: pending.is_in_force });
            }
            Err(StoreError::Permanent(reason)) if pending.is_in_force => {
                cx.fx.notice(log::Level::Error, format!("a stop is in force and will not be stored: {reason}"));
                let pending = self.pending.take()?;
                self.unstorable.extend(job_of_change(&pending.change));
                return Some(Made { client: None, change: pending.change, is_in_force: true });
            }
            // The first statement has failed: surely nothing was changed, and the client can be told so.
            Err(StoreError::Away(reason)) if !self.backoff.is_failing() && !pending.is_stop => {
                self.decline(untouched(Some(&reason)), cx.fx);
            }
            Err(StoreError::Permanent(reason)) => self.decline(CallError::bad(reason), cx.fx),
            // The caller steps down, and `abandon` answers everybody.
            Err(StoreError::Deposed) => {}
            Err(StoreError::Away(reason) | StoreError::Unavailable(reason)) => {
                if !self.backoff.is_failing() {
                    cx.fx.notice(
                        log::Level::Error,
                        format!("a change of a job waits: {reason}; trying again until its result is known"),
                    );
                }
                pending.id = None;
                self.trouble = Some(reason);
                self.backoff.fail(cx.now);
            }
        }
        None
    }

    /// Requests that change nothing, with their jobs. Nodes may still have runs of older definitions.
    pub fn take_restated(&mut self) -> Vec<(RequestId, Arc<Job>)> {
        std::mem::take(&mut self.restated)
    }

    /// The lead is lost: answers all clients.
    pub fn abandon(mut self, fx: &mut Effects) {
        let unknown =
            "the lead was lost while the change was under way: whether it is stored is not known; /cron/list tells";
        let is_in_force = self.pending.as_ref().is_some_and(|pending| pending.is_in_force) || !self.in_force.is_empty();
        if is_in_force {
            let text = "stops of jobs were in force and are not stored: the next leader does not know of them";
            fx.notice(log::Level::Error, text);
        }
        let pending = self.pending.take().and_then(|pending| pending.client);
        pending
            .into_iter()
            .chain(self.settling.into_clients())
            .for_each(|client| fx.reply(client, Err(CallError::unavailable(unknown))));
        let untouched = "nothing was changed: the lead was lost; try again";
        let waiting = self.queue.into_iter().map(|waiting| waiting.client);
        waiting.for_each(|client| fx.reply(client, Err(CallError::unavailable(untouched))));
    }

    /// Takes the next change from the queues: stops that are in force first.
    fn next(&mut self, ledger: &mut Ledger, cx: &mut Context) -> Option<PendingChange> {
        let now = cx.now;
        while let Some(job) = self.in_force.pop_front() {
            // A job that was deleted meanwhile needs no stop.
            if ledger.jobs.job(job.id).is_some() {
                return Some(PendingChange::in_force(job, ledger.journal.next_request(), now.mono));
            }
        }
        while let Some(QueuedChange { client, command, .. }) = self.queue.pop_front() {
            if let Some(job) = started_already(&command, &ledger.jobs) {
                self.restated.push((client, job));
                continue;
            }
            // A job that is added without a client's key gets one, so that repeating the statement adds it once.
            let number = ledger.journal.next_request();
            let is_stop = matches!(command, Command::StopJob(_));
            let epoch = ledger.journal.epoch();
            let own_key = || RequestKey(format!("{}.{number}", epoch.0));
            let since = ledger.since(cx.now);
            if self.is_journal_away {
                // The store may be back.
                ledger.journal.hurry();
                self.is_journal_away = false;
            }
            match change(command, own_key, &ledger.jobs, since) {
                Err(error) => cx.fx.reply(client, Err(error)),
                Ok(change) => {
                    let pending = PendingChange::requested(client, change, since, number, now.mono);
                    return Some(PendingChange { is_stop, ..pending });
                }
            }
        }
        None
    }

    /// Has the seconds before the change decided. Late ticks get `CHANGE_PATIENCE_MS` for that, unless the change stops
    /// or deletes the job: then nobody wants its runs before the change any more.
    fn decide(&mut self, ledger: &mut Ledger, cx: &mut Context) {
        let now = cx.now.mono;
        let is_late = self.behind_since.is_some_and(|since| since.plus_ms(CHANGE_PATIENCE_MS) <= now);
        let Some(pending) = self.pending.as_mut().filter(|pending| pending.stand != Stand::Decided) else { return };
        let since = pending.since;
        let (id, ends) = match &pending.change {
            Change::Add(..) => return pending.stand = Stand::Decided,
            Change::Put(job) => (job.id, job.stop),
            Change::Delete { id, .. } => (*id, true),
        };
        let waits = self.takes_ticks && !ends && !is_late;
        if !waits && !ledger.journal.is_failing() && ledger.settle(id, since) {
            pending.stand = Stand::Settled;
        }
        if ledger.is_decided(id, since) {
            pending.stand = Stand::Decided;
        } else if pending.stand == Stand::Open && pending.answer_by <= now {
            let is_failing = ledger.journal.is_failing();
            let error = if is_failing { untouched(self.trouble.as_deref()) } else { undecided() };
            self.decline(error, cx.fx);
        }
    }

    /// Whether the store has failed, or does not answer.
    fn is_store_away(&self, now: Now) -> bool {
        let is_waiting = |pending: &PendingChange| pending.id.is_some() || pending.stand != Stand::Decided;
        let is_silent =
            |pending: &PendingChange| is_waiting(pending) && pending.sent_at.plus_ms(CHANGE_SILENT_MS) <= now.mono;
        self.is_journal_away || self.backoff.is_failing() || self.pending.as_ref().is_some_and(is_silent)
    }

    /// The job as the stop leaves it, which is queued for the store. A job whose stop is queued already stays as it is.
    /// None where there is no such job.
    fn stopped(&mut self, id: JobId, ledger: &mut Ledger, now: Now) -> Option<Job> {
        let pending = self.pending.as_ref().and_then(|pending| match &pending.change {
            Change::Put(job) if job.id == id => Some((job, pending.is_in_force)),
            _ => None,
        });
        if let Some(job) = self.in_force.iter().find(|job| job.id == id) {
            return Some(job.clone());
        }
        let job = match pending {
            Some((job, true)) => return Some(job.clone()),
            // The store may have made this change already, so the stop is based on it.
            Some((job, false)) => job.clone(),
            None => Job::clone(ledger.jobs.job(id)?),
        };
        let since = ledger.since(now);
        ledger.settle(id, since);
        let job = Job { stop: true, version: job.version.next(), since, ..job };
        self.in_force.push_back(job.clone());
        Some(job)
    }

    /// Declines the job's changes among the first `count` of the queue: they came before a stop, and must not undo it.
    fn decline_earlier(&mut self, id: JobId, count: usize, fx: &mut Effects) {
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

    /// Declines the queued changes that have waited for `ANSWER_MS`, while the store is away.
    fn decline_late(&mut self, cx: &mut Context) {
        let is_away = self.is_store_away(cx.now);
        self.queue.retain_mut(|waiting| {
            let answer_by = *waiting.answer_by.get_or_insert(cx.now.mono.plus_ms(ANSWER_MS));
            let is_late = is_away && answer_by <= cx.now.mono;
            if is_late {
                cx.fx.reply(waiting.client, Err(untouched(self.trouble.as_deref())));
            }
            !is_late
        });
    }

    /// Gives the present change up, and answers its client.
    fn decline(&mut self, error: CallError, fx: &mut Effects) {
        if let Some(client) = self.pending.take().and_then(|pending| pending.client) {
            fx.reply(client, Err(error));
        }
    }

    /// Answers the client of a change whose result is not known in time. The change goes on without it.
    fn answer_late(&mut self, cx: &mut Context) {
        // While the change stands open nothing was done, and `decide` answers so.
        let late =
            self.pending.as_mut().filter(|pending| pending.answer_by <= cx.now.mono && pending.stand != Stand::Open);
        if let Some(client) = late.and_then(|pending| pending.client.take()) {
            let why = self.trouble.as_deref().unwrap_or(SILENT);
            let message = format!("whether the change is stored is not known yet; /cron/list will tell: {why}");
            cx.fx.reply(client, Err(CallError::unavailable(message)));
        }
    }
}

/// The existing job that a change concerns; none where it adds one.
fn job_of_change(change: &Change) -> Option<JobId> {
    match change {
        Change::Add(..) => None,
        Change::Put(job) => Some(job.id),
        Change::Delete { id, .. } => Some(*id),
    }
}

#[cfg(test)]
mod tests;
