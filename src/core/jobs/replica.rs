//! The replica: every node keeps the jobs in memory, so that a new leader need not read them all first.
//!
//! ```text
//! Reading (batch by batch) -> Ready <-> Lent (this node leads: its leader has the jobs)
//!    ^---------------------------| the journal does not reach back so far, or there are too many changes
//! ```
//!
//! Not a place to schedule from: the replica lags behind the store by up to `REPLICA_REFRESH_MS`. For a list of jobs it is
//! brought up to date first; where the store does not answer, the list shows the replica as it is. A new leader reads
//! the changes that the replica lacks after its epoch is in the store, when no other node can change a job any more.
//! Rows that were edited by hand reach the replica when the leader reloads, which notes them in the journal.
//!
//! Invariant: the replica has every change that the journal notes up to `as_of`, save those of the jobs in `again`.

#[cfg(test)]
mod tests;

use crate::core::Context;
use crate::core::io::Effects;
use crate::core::io::ports::{Differences, JobBatch, Read, Since, StoreError, Work, WorkId};
use crate::core::jobs::scan::Scan;
use crate::core::jobs::scheduler::Scheduler;
use crate::core::time::bounds::{REPLICA_LAG_SECS, REPLICA_REFRESH_MS, REPLICA_STALE_MS};
use crate::core::time::{Backoff, Timer, Timers};
use crate::model::journal::EntryId;
use crate::model::{Job, JobId, Mono, Now, Zones};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The jobs as this node has them in memory, and how new they are.
#[derive(Debug)]
pub struct Replica {
    zones: Zones,
    /// None before the first batch, and while it is lent.
    scheduler: Option<Scheduler>,
    /// The first scan has ended, so all jobs are here; a later scan only corrects them.
    is_complete: bool,
    as_of: AsOf,
    /// When the newest question was sent that has been answered or has failed.
    answered: Mono,
    /// Jobs that must be read again with the next changes, because they may have been changed while they were read.
    again: BTreeSet<JobId>,
    state: State,
    question: Option<Question>,
    backoff: Backoff,
}

/// How new the jobs are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct AsOf {
    /// Every change up to this entry of the journal is in.
    pub entry: EntryId,
    /// The entry was the newest one at this moment, or later.
    pub at: Mono,
}

/// The jobs as the leader has them, while it leads and afterwards.
#[derive(Debug)]
pub struct Lent {
    pub scheduler: Scheduler,
    pub as_of: AsOf,
    /// Jobs of which a change was under way: their rows in the store are not known.
    pub again: Vec<JobId>,
}

#[derive(Debug)]
enum State {
    Reading(Scan),
    Ready { refresh_at: Mono },
    Lent,
}

#[derive(Clone, Copy, Debug)]
struct Question {
    id: WorkId,
    sent_at: Mono,
}

impl Replica {
    /// An empty replica, which reads all jobs first.
    pub fn new(zones: Zones) -> Replica {
        Replica {
            zones,
            scheduler: None,
            is_complete: false,
            as_of: AsOf::default(),
            answered: Mono(0),
            again: BTreeSet::new(),
            state: State::Reading(Scan::default()),
            question: None,
            backoff: Backoff::default(),
        }
    }

    /// Whether a leader may begin with these jobs.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready { .. })
    }

    /// Whether this work was asked for by the replica.
    pub fn has_asked(&self, id: WorkId) -> bool {
        self.question.is_some_and(|asked| asked.id == id)
    }

    /// The jobs, for lists; none while they are incomplete or lent.
    pub fn jobs(&self) -> Option<&Scheduler> {
        self.scheduler.as_ref().filter(|_| self.is_complete)
    }

    /// Whether the jobs are as new as `then`, or the store was asked after it and has failed.
    pub fn is_of(&self, then: Mono) -> bool {
        then <= self.answered
    }

    /// Reads the next batch, or the changes. The changes are read at once where the jobs are older than `wanted`.
    pub fn poll(&mut self, wanted: Option<Mono>, cx: &mut Context) {
        let is_wanted = self.is_ready() && wanted.is_some_and(|then| !self.is_of(then));
        if self.question.is_some() || !is_wanted && !self.backoff.is_over(cx.now) {
            return;
        }
        if self.is_ready() && self.as_of.at.plus_ms(REPLICA_STALE_MS) <= cx.now.mono {
            self.read_anew();
        }
        let id = match &self.state {
            State::Lent => return,
            State::Ready { refresh_at } if !is_wanted && cx.now.mono < *refresh_at => return,
            State::Ready { .. } => {
                let since = self.since();
                cx.fx.work(Work::Read(Read::Differences(since)))
            }
            State::Reading(scan) => scan.ask(cx.fx),
        };
        debug_assert!(self.question.is_none(), "the store is asked twice at one time");
        self.question = Some(Question { id, sent_at: cx.now.mono });
    }

    /// Adds when this part has to be woken.
    pub fn timers(&self, timers: &mut Timers) {
        let at = match self.state {
            _ if self.question.is_some() => None,
            State::Lent => None,
            State::Ready { refresh_at } => Some(refresh_at.max(self.backoff.ready_at())),
            State::Reading(_) => Some(self.backoff.ready_at()),
        };
        timers.set(Timer::ReplicaRefresh, at);
    }

    /// A batch of a scan has come, or failed.
    pub fn on_batch(&mut self, id: WorkId, result: Result<JobBatch, StoreError>, cx: &mut Context) {
        let Some(asked) = self.take_asked(id) else { return };
        let Some(batch) = self.taken(result, cx) else { return };
        let State::Reading(scan) = &mut self.state else { return };
        if scan.is_new() {
            self.as_of = AsOf { entry: batch.as_of, at: asked.sent_at };
            self.again = batch.last.into_iter().collect();
        }
        let cursor = cx.now.wall.second().plus(-REPLICA_LAG_SECS);
        let scheduler = self.scheduler.get_or_insert_with(|| Scheduler::new(self.zones.clone(), cursor));
        let step = scan.step(batch, scheduler);
        step.gone.into_iter().for_each(|id| drop(scheduler.remove(id)));
        step.changed.into_iter().for_each(|job| drop(put(scheduler, job, cx.fx)));
        if step.is_over {
            let jobs = scheduler.job_count();
            cx.fx.notice(log::Level::Info, format!("the replica of the jobs is complete: jobs={jobs}"));
            self.is_complete = true;
            self.state = State::Ready { refresh_at: cx.now.mono };
        }
        self.poll(None, cx);
    }

    /// The changes that the replica lacks have come, or failed. None: they are too many or too old, and all jobs are read anew.
    pub fn on_differences(&mut self, id: WorkId, result: Result<Option<Differences>, StoreError>, cx: &mut Context) {
        let Some(asked) = self.take_asked(id) else { return };
        self.state = State::Ready { refresh_at: cx.now.mono.plus_ms(REPLICA_REFRESH_MS) };
        let Some(differences) = self.taken(result, cx) else { return };
        self.bring_up(differences, asked.sent_at, cx);
    }

    /// Takes in the changes that it lacked, as of `sent_at`. Answers false where they are too many and it is read anew.
    pub fn bring_up(&mut self, differences: Option<Differences>, sent_at: Mono, cx: &mut Context) -> bool {
        let (Some(differences), Some(scheduler)) = (differences, &mut self.scheduler) else {
            cx.fx.notice(log::Level::Info, "the replica of the jobs lacks too much: it is read anew");
            self.read_anew();
            self.poll(None, cx);
            return false;
        };
        differences.gone.into_iter().for_each(|id| drop(scheduler.remove(id)));
        for job in differences.changed {
            if scheduler.job(job.id).is_none_or(|known| **known != job) {
                put(scheduler, job, cx.fx);
            }
        }
        let wound_to = cx.now.wall.second().plus(-REPLICA_LAG_SECS);
        if scheduler.cursor() < wound_to {
            scheduler.wind_to(wound_to);
        }
        self.as_of = AsOf { entry: differences.as_of, at: sent_at };
        self.answered = self.answered.max(sent_at);
        if differences.last.is_some() {
            self.again = differences.last.into_iter().collect();
        }
        true
    }

    /// What to ask for to learn the changes. The answer to an earlier question is not heard any more.
    pub fn since(&mut self) -> Since {
        self.question = None;
        Since {
            as_of: self.as_of.entry,
            newest: self.scheduler.as_ref().map_or(JobId(0), Scheduler::newest),
            again: self.again.iter().copied().collect(),
        }
    }

    /// Gives the jobs to the leader of this node.
    pub fn lend(&mut self, now: Now) -> Lent {
        debug_assert!(!matches!(self.state, State::Lent), "the jobs are lent twice");
        debug_assert!(self.question.is_none(), "the jobs are lent while the store is asked for them");
        self.state = State::Lent;
        let scheduler = self.scheduler.take();
        let scheduler = scheduler.unwrap_or_else(|| Scheduler::new(self.zones.clone(), now.wall.second()));
        Lent { scheduler, as_of: self.as_of, again: Vec::new() }
    }

    /// Takes the jobs back from the leader: the node does not lead any more.
    pub fn take_back(&mut self, lent: Lent, now: Now) {
        debug_assert!(matches!(self.state, State::Lent), "jobs come back that were not lent: {:?}", self.state);
        self.scheduler = Some(lent.scheduler);
        self.as_of = lent.as_of;
        self.again = lent.again.into_iter().collect();
        self.state = State::Ready { refresh_at: now.mono };
    }

    /// Counts everything again. Costs a look at every job.
    pub fn check_invariants(&self) {
        match &self.state {
            State::Lent => {
                assert!(self.scheduler.is_none(), "the jobs are lent and are here as well");
                assert!(self.question.is_none(), "the jobs are lent and the store is asked for them");
            }
            State::Ready { .. } => {
                assert!(self.scheduler.is_some() && self.is_complete, "the replica is ready and lacks the jobs");
            }
            State::Reading(scan) => {
                assert!(
                    scan.is_new() || self.scheduler.is_some(),
                    "a scan is under way and there is nothing to read into"
                );
            }
        }
        self.scheduler.iter().for_each(Scheduler::check_invariants);
    }

    fn take_asked(&mut self, id: WorkId) -> Option<Question> {
        let asked = self.question.take_if(|asked| asked.id == id)?;
        self.answered = self.answered.max(asked.sent_at);
        Some(asked)
    }

    fn read_anew(&mut self) {
        self.state = State::Reading(Scan::default());
    }

    fn taken<T>(&mut self, result: Result<T, StoreError>, cx: &mut Context) -> Option<T> {
        match result {
            Ok(answer) => {
                self.backoff.reset();
                Some(answer)
            }
            Err(error) => {
                if !self.backoff.is_failing() {
                    let text = format!("read the jobs: {error}; trying again until it works");
                    cx.fx.notice(log::Level::Warn, text);
                }
                self.backoff.fail(cx.now);
                None
            }
        }
    }
}

/// Takes a job in. Where its schedule cannot be read, this is said here, once, and the job is never due.
pub fn put(scheduler: &mut Scheduler, job: Job, fx: &mut Effects) -> Option<Arc<Job>> {
    let id = job.id;
    if let Err(error) = scheduler.put(job) {
        fx.notice(log::Level::Error, format!("job {id}: cron_set: {error}; it is never due until that is mended"));
    }
    scheduler.job(id).cloned()
}
