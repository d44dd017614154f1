//! The jobs as the leader has them: puts stored changes and reloaded rows in force.
//!
//! Not the way of a change to the store (`changes`), nor the reading of the table (`reload`).
//!
//! Invariant: a definition that is in force here is stored, save for stops while the store is away.

use super::{Leader, Verdict};
use crate::core::Context;
use crate::core::io::Effects;
use crate::core::io::ports::{Change, JobBatch, StoreError, WorkId};
use crate::core::jobs::replica::put;
use crate::core::jobs::scheduler::Scheduler;
use crate::core::leader::changes::{Made, Urgent, cut_off, in_force, in_force_and_cut_off};
use crate::core::leader::reload::{Reload, notes};
use crate::core::runs::Cancelling;
use crate::model::command::Reply;
use crate::model::command::{Answer, CallError, Command, RequestId};
use crate::model::journal::Body;
use crate::model::{Job, JobId, Now, Version};
use std::sync::Arc;

impl Leader {
    /// The jobs in force.
    pub fn jobs(&self) -> &Scheduler {
        &self.ledger.jobs
    }

    /// Takes a command that changes a job; its client is answered later.
    pub fn change(&mut self, client: RequestId, command: Command) {
        self.changes.push(client, command);
    }

    /// Begins to read the jobs again, from the store.
    pub fn reload(&mut self, fx: &mut Effects) {
        self.reload = Some(Reload::begin(fx));
    }

    /// The store's answer to a change.
    pub fn on_changed(&mut self, id: WorkId, result: Result<JobId, StoreError>, cx: &mut Context) -> Verdict {
        if result == Err(StoreError::Deposed) {
            return Verdict::Deposed;
        }
        match self.changes.on_changed(id, result, cx) {
            Some(Made { change: Change::Put(job), is_in_force: true, .. }) => {
                self.runs.decide(job.id, &mut self.ledger, cx);
            }
            Some(Made { client, change, .. }) => self.put_in_force(client, change, cx),
            None => {}
        }
        Verdict::Ok
    }

    /// A batch of the reload.
    pub fn on_batch(&mut self, id: WorkId, result: Result<JobBatch, StoreError>, cx: &mut Context) {
        let Some(mut reload) = self.reload.take_if(|reload| reload.has_asked(id)) else { return };
        match result {
            Err(error) => {
                let done = reload.summary();
                let text = format!("reload the jobs: {error}; so far: {done}; send SIGHUP again");
                cx.fx.notice(log::Level::Error, text);
            }
            Ok(_) if self.changes.has_pending() => {
                reload.ask_again(cx.fx);
                self.reload = Some(reload);
            }
            Ok(batch) => self.take_batch(reload, batch, cx),
        }
    }

    /// The change is stored: puts it in force in memory, takes back older runs, and answers the client.
    pub(super) fn put_in_force(&mut self, client: Option<RequestId>, change: Change, cx: &mut Context) {
        let text = change_text(&change);
        let (id, below, job) = match change {
            // A repeated request with the same key: the job is there already, and stays as it is.
            Change::Add(job, _) if self.ledger.jobs.job(job.id).is_some() => {
                let known = self.ledger.jobs.job(job.id).cloned();
                if let Some((client, known)) = client.zip(known) {
                    cx.fx.reply(client, added_again(&job, known));
                }
                return;
            }
            // A later stop of the job is in force already: the older definition is not put.
            Change::Put(job) if self.ledger.jobs.job(job.id).is_some_and(|now| job.version < now.version) => {
                (job.id, Some(job.version), Some(Arc::new(job)))
            }
            Change::Add(job, _) | Change::Put(job) => {
                let (id, version) = (job.id, job.version);
                (id, Some(version), put(&mut self.ledger.jobs, job, cx.fx))
            }
            Change::Delete { id, .. } => (id, None, self.remove_job(id, cx)),
        };
        self.reload.iter_mut().for_each(|reload| reload.touch(id));
        cx.fx.notice(log::Level::Info, text);
        let cancelling = self.cancel(id, below, cx);
        if let (Some(client), Some(job)) = (client, job) {
            self.answer(client, job, cancelling, cx.fx);
        }
    }

    /// Removes the job. A stop of it that is not stored yet is not needed any more, so the runs that the stop took back
    /// are cancelled.
    fn remove_job(&mut self, id: JobId, cx: &mut Context) -> Option<Arc<Job>> {
        let job = self.ledger.jobs.remove(id);
        self.runs.decide(id, &mut self.ledger, cx);
        job
    }

    /// Answers requests that change nothing, like a change: when no run of an older definition can start any more.
    pub(super) fn answer_restated(&mut self, cx: &mut Context) {
        for (client, job) in self.changes.take_restated() {
            let cancelling = self.cancel(job.id, Some(job.version), cx);
            self.answer(client, job, cancelling, cx.fx);
        }
    }

    /// Answers a change that is in force, now or when the told nodes have answered.
    fn answer(&mut self, client: RequestId, job: Arc<Job>, cancelling: Cancelling, fx: &mut Effects) {
        if !cancelling.silent.is_empty() {
            fx.reply(client, Err(cut_off()));
        } else if cancelling.told.is_empty() {
            fx.reply(client, Ok(Answer::Job(job)));
        } else {
            self.changes.settling.wait_for(client, job, cancelling.told);
        }
    }

    /// While the store is away, puts stops in force at once, in memory and on the nodes.
    pub(super) fn put_stops_in_force(&mut self, cx: &mut Context) {
        for _ in 0..self.changes.urgent_max() {
            let Some(Urgent { client, job }) = self.changes.next_urgent(&mut self.ledger, cx) else { return };
            let (id, version) = (job.id, job.version);
            let text =
                format!("job {id} is stopped, version={}: in force, and stored when the store takes it", version.0);
            cx.fx.notice(log::Level::Warn, text);
            let job = put(&mut self.ledger.jobs, job, cx.fx);
            self.runs.leave_undecided(id);
            let cancelling = self.cancel(id, Some(version), cx);
            let (Some(client), Some(job)) = (client, job) else { continue };
            if !cancelling.silent.is_empty() {
                cx.fx.reply(client, Err(in_force_and_cut_off(id)));
            } else if cancelling.told.is_empty() {
                cx.fx.reply(client, Err(in_force(id)));
            } else {
                self.changes.settling.wait_unstored(client, job, cancelling.told);
            }
        }
    }

    /// Takes back the job's runs of versions below `below`, or of all versions.
    pub(super) fn cancel(&mut self, id: JobId, below: Option<Version>, cx: &mut Context) -> Cancelling {
        self.runs.cancel(id, below, &mut self.ledger, cx)
    }

    /// Settles the past seconds of jobs whose rows were edited by hand, in the entry that notes the change. The seconds
    /// that the old definition owes are cancelled; the new one, like a new job, has no run before now.
    fn settle_edited(&mut self, body: &mut Body, now: Now) {
        let last = now.wall.second().max(self.ledger.jobs.cursor());
        for note in &body.changes {
            body.settled.extend(self.ledger.jobs.owed(note.cron_id, last));
            self.ledger.jobs.settle(note.cron_id, last);
        }
        body.decided_to = Some(last);
    }

    /// Puts the changed rows of a batch in force. Editing a row by hand does not change its version, so rows are
    /// compared as a whole, and runs of all versions are taken back.
    pub(super) fn take_batch(&mut self, mut reload: Reload, batch: JobBatch, cx: &mut Context) {
        let step = reload.on_batch(batch, &self.ledger.jobs, cx.fx);
        let mut body = Body { changes: notes(&step), ..Body::default() };
        if !body.changes.is_empty() {
            self.settle_edited(&mut body, cx.now);
            self.ledger.journal.push(None, 0, body);
        }
        for id in step.gone {
            self.remove_job(id, cx);
            self.cancel(id, None, cx);
        }
        for job in step.changed {
            let id = job.id;
            put(&mut self.ledger.jobs, job, cx.fx);
            self.cancel(id, None, cx);
        }
        if step.is_over {
            cx.fx.notice(log::Level::Info, format!("reloaded: {}", reload.summary()));
        } else {
            self.reload = Some(reload);
        }
    }
}

fn change_text(change: &Change) -> String {
    match change {
        Change::Add(job, _) => format!("job {} added: {:?}", job.id, job.cron_set),
        Change::Put(job) if job.stop => format!("job {} changed: stopped, version={}", job.id, job.version.0),
        Change::Put(job) => format!("job {} changed: {:?}, version={}", job.id, job.cron_set, job.version.0),
        Change::Delete { id, .. } => format!("job {id} deleted"),
    }
}

/// The answer to a repeated request to add a job, whose key belongs to the job `known`. Where that is not what was
/// asked, the request is declined as another one, unless the job was changed since and the two cannot be compared.
fn added_again(asked: &Job, known: Arc<Job>) -> Reply {
    let as_asked = Job { since: known.since, ..asked.clone() };
    if known.version == asked.version && as_asked != *known {
        return Err(CallError::other_request(format_args!("job {}", known.id)));
    }
    Ok(Answer::Job(known))
}
