//! What is only read: the jobs from memory, the log and searches from the store.
//!
//! Invariants: where the jobs are in memory they are listed, whatever the store does; a question is never refused in the words
//! of a change.

use super::{Leadership, Node, StoreConnection, WAITING_MAX};
use crate::core::jobs::listing;
use crate::core::jobs::scheduler::Scheduler;
use crate::core::ports::{Read, StoreError, Work, WorkId};
use crate::model::Now;
use crate::model::command::{Answer, CallError, JobList, RequestId};
use crate::model::job::{JobFilter, JobPage};

impl Node {
    /// From memory. To search many jobs takes time, which this thread does not have; before they are all in memory there is
    /// nothing else to tell from either.
    pub(super) fn list_jobs(&mut self, client: RequestId, filter: Option<JobFilter>, now: Now) {
        let is_search = filter.as_ref().is_some_and(|filter| filter.search.is_some());
        if is_search || self.jobs().is_none() {
            self.read(client, Read::Jobs(filter));
        } else {
            self.listing.want(client, filter, now);
        }
    }

    /// The jobs in memory, once they are all there.
    fn jobs(&self) -> Option<&Scheduler> {
        match &self.lead {
            Leadership::Leading(leader) => Some(leader.jobs()),
            _ => self.replica.jobs(),
        }
    }

    /// Answers those who wait for the jobs as they are now; a leader's are always new.
    pub(super) fn tell_jobs(&mut self, now: Now) {
        match &self.lead {
            Leadership::Leading(leader) => self.listing.take(leader.jobs(), |_| true, &mut self.fx, now),
            _ => {
                let Some(jobs) = self.replica.jobs() else { return };
                self.listing.take(jobs, |then| self.replica.is_of(then), &mut self.fx, now);
            }
        }
    }

    pub(super) fn read(&mut self, client: RequestId, read: Read) {
        match &self.store {
            StoreConnection::Open if self.reads.len() < WAITING_MAX => {
                let id = self.fx.work(Work::Read(read));
                self.reads.insert(id, client);
            }
            StoreConnection::Open => {
                self.fx.reply(client, Err(CallError::unavailable("too many reads wait for the store")))
            }
            _ => self.fx.reply(client, Err(CallError::unavailable(self.why_no_leader()))),
        }
    }

    pub(super) fn on_jobs(&mut self, id: WorkId, result: Result<JobPage, StoreError>, now: Now) {
        match result {
            Ok(page) => {
                let Some(client) = self.reads.remove(&id) else { return };
                let jobs = listing::listed(page.jobs, &self.setup.zones, now.wall.second());
                self.listing.push(client, JobList { jobs, total: page.total }, &mut self.fx, now);
            }
            Err(error) => self.on_read(id, Err(self.unsearchable(error))),
        }
    }

    pub(super) fn on_read(&mut self, id: WorkId, result: Result<Answer, StoreError>) {
        if let Some(client) = self.reads.remove(&id) {
            let reply = result.map_err(|error| match error {
                StoreError::Permanent(reason) => CallError { status: 500, message: reason },
                error => CallError::unavailable(error.to_string()),
            });
            self.fx.reply(client, reply);
        }
    }

    /// Where the jobs are in memory only searches are read from the store.
    fn unsearchable(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::Away(reason) | StoreError::Unavailable(reason) if self.jobs().is_some() => StoreError::Away(
                format!("the jobs cannot be searched: {reason}; /cron/list without search is answered all the same"),
            ),
            error => error,
        }
    }
}
