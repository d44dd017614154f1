//! The API's changes to jobs, one at a time: stored first, then in force, then answered.
//!
//! A change is asked of the store until its result is known. Its client waits `ANSWER_MS` for that; then it is told that
//! nobody knows yet.
//!
//! Invariants: one change is with the store at a time; it is answered 200 only when no run of the old definition can
//! start any more; every request is answered exactly once.

use super::backoff::Backoff;
use super::effects::Effects;
use super::scheduler::Scheduler;
use super::work::{Change, Lead, StoreError, Work, WorkId};
use crate::model::command::{Answer, Command, JobDraft, Refusal, RequestId, RequestKey};
use crate::model::{Epoch, Job, JobId, Mono, NodeId, Now, Second};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// How long a client waits for a store that does not answer.
const ANSWER_MS: u64 = 3_000;

#[derive(Debug, Default)]
pub struct Changes {
    queue: VecDeque<(RequestId, Command)>,
    asked: Option<Asked>,
    /// Changes that are in force here and wait for nodes to say so too.
    settling: Vec<Settling>,
    backoff: Backoff,
}

#[derive(Debug)]
struct Asked {
    /// None while the store is being waited for.
    id: Option<WorkId>,
    client: Option<RequestId>,
    answer_by: Mono,
    request: u64,
    change: Change,
}

#[derive(Debug)]
struct Settling {
    client: RequestId,
    job: Arc<Job>,
    /// Those that have yet to answer.
    nodes: BTreeSet<NodeId>,
}

/// A change that the store has made.
#[derive(Debug)]
pub struct Made {
    pub client: Option<RequestId>,
    pub change: Change,
}

impl Changes {
    pub fn push(&mut self, client: RequestId, command: Command) {
        self.queue.push_back((client, command));
    }

    /// Asks the store for the next change. `request` numbers it.
    pub fn poll(
        &mut self,
        epoch: Epoch,
        request: impl FnMut() -> u64,
        scheduler: &Scheduler,
        fx: &mut Effects,
        now: Now,
    ) {
        self.answer_late(fx, now);
        if self.asked.is_none() {
            self.asked = self.next(epoch, request, scheduler, fx, now);
        }
        if let Some(asked) = self.asked.as_mut().filter(|asked| asked.id.is_none() && self.backoff.is_over(now)) {
            let (request, change) = (asked.request, Box::new(asked.change.clone()));
            asked.id = Some(fx.work(Work::Lead(Lead::Change { epoch, request, change })));
        }
    }

    pub fn deadline(&self) -> Option<Mono> {
        let asked = self.asked.as_ref()?;
        let again = asked.id.is_none().then(|| self.backoff.deadline()).flatten();
        let answer = asked.client.map(|_| asked.answer_by);
        again.into_iter().chain(answer).min()
    }

    /// Whether a change is with the store, or waits for it.
    pub fn has_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// The job whose row may be being changed.
    pub fn under_way(&self) -> Option<JobId> {
        match &self.asked.as_ref()?.change {
            Change::Add(..) => None,
            Change::Put(job) => Some(job.id),
            Change::Delete { id, .. } => Some(*id),
        }
    }

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.asked.is_none() && self.settling.is_empty()
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
        match result {
            Ok(given) => {
                self.backoff.reset();
                let mut asked = self.asked.take()?;
                if let Change::Add(job, _) = &mut asked.change {
                    job.id = given;
                }
                return Some(Made { client: asked.client, change: asked.change });
            }
            // The first asking did not even reach the store: surely nothing was done, and the client may be told so.
            Err(StoreError::Away(reason)) if !self.backoff.is_failing() => self.refuse(
                Refusal::unavailable(format!("nothing was changed: the store is not to be reached: {reason}")),
                fx,
            ),
            Err(StoreError::Refused(reason)) => self.refuse(Refusal::bad(reason), fx),
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
                self.backoff.fail(now);
            }
        }
        None
    }

    /// The change is in force here, and these nodes have been told to cancel old runs: answer when they have.
    pub fn settle(&mut self, client: RequestId, job: Arc<Job>, nodes: BTreeSet<NodeId>) {
        self.settling.push(Settling { client, job, nodes });
    }

    /// The node holds no old run of this job any more.
    pub fn on_cancelled(&mut self, node: &NodeId, id: JobId, fx: &mut Effects) {
        // Each change has asked for itself, and answers come in the order of the questions.
        let asked = self.settling.iter().position(|settling| settling.job.id == id && settling.nodes.contains(node));
        let Some(at) = asked else { return };
        self.settling[at].nodes.remove(node);
        if self.settling[at].nodes.is_empty() {
            let Settling { client, job, .. } = self.settling.remove(at);
            fx.reply(client, Ok(Answer::Job(job)));
        }
    }

    /// The node will not answer: what it holds of old definitions may start until its lease is over.
    pub fn on_silent(&mut self, node: &NodeId, fx: &mut Effects) {
        for Settling { client, .. } in self.settling.extract_if(.., |settling| settling.nodes.contains(node)) {
            fx.reply(client, Err(cut_off()));
        }
    }

    /// The lead is lost: everybody is told.
    pub fn abandon(mut self, fx: &mut Effects) {
        let unknown =
            "the lead was lost while the change was under way: whether it is stored is not known; /cron/list tells";
        let asked = self.asked.take().and_then(|asked| asked.client);
        let settling = self.settling.into_iter().map(|settling| settling.client);
        asked.into_iter().chain(settling).for_each(|client| fx.reply(client, Err(Refusal::unavailable(unknown))));
        let untouched = "nothing was changed: the lead was lost; try again";
        self.queue.into_iter().for_each(|(client, _)| fx.reply(client, Err(Refusal::unavailable(untouched))));
    }

    fn next(
        &mut self,
        epoch: Epoch,
        mut request: impl FnMut() -> u64,
        scheduler: &Scheduler,
        fx: &mut Effects,
        now: Now,
    ) -> Option<Asked> {
        while let Some((client, command)) = self.queue.pop_front() {
            // One that names no key of its own gets one, so that asking the store again adds it once.
            let number = request();
            let own_key = || RequestKey(format!("{}.{number}", epoch.0));
            match change(command, own_key, scheduler, now) {
                Err(refusal) => fx.reply(client, Err(refusal)),
                Ok(change) => {
                    let answer_by = now.mono.plus_ms(ANSWER_MS);
                    return Some(Asked { id: None, client: Some(client), answer_by, request: number, change });
                }
            }
        }
        None
    }

    fn refuse(&mut self, refusal: Refusal, fx: &mut Effects) {
        if let Some(client) = self.asked.take().and_then(|asked| asked.client) {
            fx.reply(client, Err(refusal));
        }
    }

    fn answer_late(&mut self, fx: &mut Effects, now: Now) {
        let late = self.asked.as_mut().filter(|asked| asked.answer_by <= now.mono);
        if let Some(client) = late.and_then(|asked| asked.client.take()) {
            let message =
                "the store does not answer: whether the change is stored is not known yet; /cron/list will tell";
            fx.reply(client, Err(Refusal::unavailable(message)));
        }
    }
}

/// A node that may still start runs of the old definition cannot be told.
pub fn cut_off() -> Refusal {
    Refusal::unavailable(
        "the change is stored and in force, but a node is cut off that may have runs of the old definition: within 11 s they \
         are started or its lease is over",
    )
}

/// What a command makes of the jobs as they are now.
fn change(
    command: Command,
    own_key: impl FnOnce() -> RequestKey,
    scheduler: &Scheduler,
    now: Now,
) -> Result<Change, Refusal> {
    let old = |id: JobId| scheduler.job(id).map(|job| Job::clone(job)).ok_or_else(|| Refusal::unknown_job(id));
    // A definition is there from the next second on that is not decided yet: nothing of it is due before the client can
    // know of it.
    let since = now.wall.second().max(scheduler.cursor()).plus(1);
    let renewed = |job: Job| Change::Put(Job { version: job.version.next(), since, ..job });
    Ok(match command {
        Command::AddJob(draft, key) => {
            let job = defined(Job::default(), draft, scheduler)?;
            // A client's key is none of ours, whatever it looks like.
            let key = key.map_or_else(own_key, |key| RequestKey(format!("client:{}", key.0)));
            Change::Add(Job { version: job.version.next(), since, ..job }, key)
        }
        Command::UpdateJob(id, draft) => renewed(defined(old(id)?, draft, scheduler)?),
        Command::StopJob(id) => renewed(Job { stop: true, ..old(id)? }),
        Command::StartJob(id) => renewed(Job { stop: false, ..old(id)? }),
        Command::DeleteJob(id) => Change::Delete { id, version: old(id)?.version },
        _ => {
            return Err(Refusal { status: 500, message: "this changes nothing".into() });
        }
    })
}

fn defined(old: Job, draft: JobDraft, scheduler: &Scheduler) -> Result<Job, Refusal> {
    scheduler.check(&draft.cron_set).map_err(|error| Refusal::bad(format!("cronSet: {error}")))?;
    Ok(Job {
        cron_set: draft.cron_set,
        command: draft.command,
        remark: draft.remark,
        stop: draft.stop,
        start_time: draft.start_time,
        end_time: draft.end_time,
        is_mutex: draft.is_mutex,
        lock_limit: draft.lock_limit.unwrap_or(old.lock_limit),
        misfire: draft.misfire.unwrap_or(old.misfire),
        on_lost: draft.on_lost.unwrap_or(old.on_lost),
        max_parallel: draft.max_parallel.unwrap_or(old.max_parallel),
        timeout: draft.timeout.unwrap_or(old.timeout),
        retry_times: draft.retry_times.unwrap_or(old.retry_times),
        retry_delay: draft.retry_delay.unwrap_or(old.retry_delay),
        run_as: draft.run_as.unwrap_or(old.run_as),
        work_dir: draft.work_dir.unwrap_or(old.work_dir),
        env: draft.env.unwrap_or(old.env),
        shell: draft.shell.unwrap_or(old.shell),
        node: draft.node.unwrap_or(old.node),
        jitter: draft.jitter.unwrap_or(old.jitter),
        id: old.id,
        version: old.version,
        since: Second::default(),
    })
}
