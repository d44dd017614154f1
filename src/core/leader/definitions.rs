//! The jobs as the leader has them: listed, changed by the API, and taken up again where they were edited by hand.
//!
//! Invariant: what is in force here is stored, save for stops that a store that is away has yet to take.

use super::{Leader, Verdict};
use crate::core::Context;
use crate::core::io::Effects;
use crate::core::jobs::replica::put;
use crate::core::jobs::scheduler::Scheduler;
use crate::core::leader::changes::{Made, Urgent, cut_off, in_force, in_force_and_cut_off};
use crate::core::leader::reload::{Reload, notes};
use crate::core::ports::{Change, JobBatch, StoreError, WorkId};
use crate::core::runs::Cancelling;
use crate::model::command::Reply;
use crate::model::command::{Answer, CallError, Command, RequestId};
use crate::model::journal::Body;
use crate::model::{Job, JobId, Now, Version};
use std::sync::Arc;

impl Leader {
    pub fn jobs(&self) -> &Scheduler {
        &self.ledger.jobs
    }

    pub fn change(&mut self, client: RequestId, command: Command) {
        self.changes.push(client, command);
    }

    /// Reads the jobs again, as they stand in the store.
    pub fn reload(&mut self, fx: &mut Effects) {
        self.reload = Some(Reload::begin(fx));
    }

    pub fn on_changed(&mut self, id: WorkId, result: Result<JobId, StoreError>, cx: &mut Context) -> Verdict {
        if result == Err(StoreError::Deposed) {
            return Verdict::Deposed;
        }
        match self.changes.on_changed(id, result, cx.fx, cx.now) {
            Some(Made { change: Change::Put(job), is_in_force: true, .. }) => {
                self.runs.decide(job.id, &mut self.ledger, cx);
            }
            Some(Made { client, change, .. }) => self.put_in_force(client, change, cx),
            None => {}
        }
        Verdict::Ok
    }

    /// A page of the jobs as the store has them, after `reload`.
    pub fn on_batch(&mut self, id: WorkId, result: Result<JobBatch, StoreError>, cx: &mut Context) {
        let Some(mut reload) = self.reload.take_if(|reload| reload.has_asked(id)) else { return };
        match result {
            Err(error) => {
                let done = reload.summary();
                let text = format!("reload the jobs: {error}; taken up so far: {done}; send SIGHUP again");
                cx.fx.notice(log::Level::Error, text);
            }
            Ok(_) if self.changes.has_asked() => {
                reload.ask_again(cx.fx);
                self.reload = Some(reload);
            }
            Ok(page) => self.take_batch(reload, page, cx),
        }
    }

    /// The store has it: now it holds in memory, and soon on the node.
    pub(super) fn put_in_force(&mut self, client: Option<RequestId>, change: Change, cx: &mut Context) {
        let text = change_text(&change);
        let (id, below, job) = match change {
            // Asked for again under the same key: the job is there, and stays as it is.
            Change::Add(job, _) if self.ledger.jobs.job(job.id).is_some() => {
                let known = self.ledger.jobs.job(job.id).cloned();
                if let Some((client, known)) = client.zip(known) {
                    cx.fx.reply(client, added_again(&job, known));
                }
                return;
            }
            // A stop that came after it is in force already.
            Change::Put(job) if self.ledger.jobs.job(job.id).is_some_and(|now| job.version < now.version) => {
                (job.id, Some(job.version), Some(Arc::new(job)))
            }
            Change::Add(job, _) | Change::Put(job) => {
                let (id, version) = (job.id, job.version);
                (id, Some(version), put(&mut self.ledger.jobs, job, cx.fx))
            }
            Change::Delete { id, .. } => (id, None, self.ledger.jobs.remove(id)),
        };
        self.reload.iter_mut().for_each(|reload| reload.touch(id));
        cx.fx.notice(log::Level::Info, text);
        let cancelling = self.cancel(id, below, cx);
        if let (Some(client), Some(job)) = (client, job) {
            self.answer(client, job, cancelling, cx.fx);
        }
    }

    /// What changes nothing is answered like a change: when no run of an older definition can start any more.
    pub(super) fn answer_restated(&mut self, cx: &mut Context) {
        for (client, job) in self.changes.take_restated() {
            let cancelling = self.cancel(job.id, Some(job.version), cx);
            self.answer(client, job, cancelling, cx.fx);
        }
    }

    fn answer(&mut self, client: RequestId, job: Arc<Job>, cancelling: Cancelling, fx: &mut Effects) {
        if !cancelling.silent.is_empty() {
            fx.reply(client, Err(cut_off()));
        } else if cancelling.told.is_empty() {
            fx.reply(client, Ok(Answer::Job(job)));
        } else {
            self.changes.settling.wait_for(client, job, cancelling.told);
        }
    }

    /// While the store is away a stop holds at once, in memory and on the nodes.
    pub(super) fn put_stops_in_force(&mut self, cx: &mut Context) {
        loop {
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

    pub(super) fn cancel(&mut self, id: JobId, below: Option<Version>, cx: &mut Context) -> Cancelling {
        self.runs.cancel(id, below, &mut self.ledger, cx)
    }

    /// Jobs whose rows were changed by hand, new ones too, have no run of before now under what they are now. What they owe under
    /// what they were is cancelled. The entry that notes the change says both.
    fn settle_edited(&mut self, body: &mut Body, now: Now) {
        let last = now.wall.second().max(self.ledger.jobs.cursor());
        for note in &body.changes {
            body.settled.extend(self.ledger.jobs.owed(note.cron_id, last));
            self.ledger.jobs.settle(note.cron_id, last);
        }
        body.decided_to = Some(last);
    }

    /// Rows changed by hand do not change their version, so they are told by what they say.
    pub(super) fn take_batch(&mut self, mut reload: Reload, page: JobBatch, cx: &mut Context) {
        let step = reload.on_batch(page, &self.ledger.jobs, cx.fx);
        let mut body = Body { changes: notes(&step), ..Body::default() };
        if !body.changes.is_empty() {
            self.settle_edited(&mut body, cx.now);
            self.ledger.journal.push(None, 0, body);
        }
        for id in step.gone {
            self.ledger.jobs.remove(id);
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

/// The answer to a second request to add, whose key has led to this job. Of one that was changed since nothing can be said.
fn added_again(asked: &Job, known: Arc<Job>) -> Reply {
    let as_asked = Job { since: known.since, ..asked.clone() };
    if known.version == asked.version && as_asked != *known {
        return Err(CallError::other_request(format_args!("job {}", known.id)));
    }
    Ok(Answer::Job(known))
}
