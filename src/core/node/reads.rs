//! Calls that only read: the jobs are listed from memory, the log and searches are read from the store.
//!
//! Not the answers of a leader about runs and their output: those are the leader's.
//!
//! Invariants: once the jobs are in memory they are listed even while the store is away; the refusal of a read does not
//! mention changes.

use super::{Leadership, Node, StoreConnection};
use crate::core::io::ports::{Read, StoreError, Work, WorkId};
use crate::core::jobs::listing;
use crate::core::jobs::scheduler::Scheduler;
use crate::model::Now;
use crate::model::command::{Answer, CallError, JobList, RequestId};
use crate::model::job::{JobFilter, JobPage};

impl Node {
    /// Lists jobs from memory. The store is asked instead for a search, because searching many jobs would hold up this
    /// thread, and while the jobs are not all in memory yet.
    pub(super) fn list_jobs(&mut self, client: RequestId, filter: Option<JobFilter>, now: Now) {
        let is_search = filter.as_ref().is_some_and(|filter| filter.search.is_some());
        if is_search || self.jobs().is_none() {
            self.read(client, Read::Jobs(filter), now);
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

    /// Answers the clients that wait for a list of jobs, where memory is new enough for them. A leader's always is.
    pub(super) fn tell_jobs(&mut self, now: Now) {
        let cx = &mut self.lender.at(now);
        match &self.lead {
            Leadership::Leading(leader) => self.listing.take(leader.jobs(), |_| true, cx),
            _ => {
                let Some(jobs) = self.replica.jobs() else { return };
                self.listing.take(jobs, |then| self.replica.is_of(then), cx);
            }
        }
    }

    /// Asks the store; `on_read` or `on_jobs` answers the client.
    pub(super) fn read(&mut self, client: RequestId, read: Read, now: Now) {
        match &self.store {
            StoreConnection::Open if !self.reads.is_full() => {
                let is_of_jobs = matches!(read, Read::Jobs(_));
                let id = self.lender.fx.work(Work::Read(read));
                self.reads.sent(id, client, is_of_jobs, now);
            }
            StoreConnection::Open => {
                self.lender.fx.reply(client, Err(CallError::unavailable("too many reads wait for the store")))
            }
            _ => self.lender.fx.reply(client, Err(CallError::unavailable(self.why_no_leader()))),
        }
    }

    /// Tells clients that wait for a store which says nothing.
    pub(super) fn give_up_reads(&mut self, now: Now) {
        for (client, is_of_jobs) in self.reads.give_up(now) {
            let reason = self.health_check.failure().unwrap_or("it has said nothing for some seconds");
            let error = StoreError::Away(format!("the store does not answer: {reason}"));
            let error = if is_of_jobs { self.unsearchable(error) } else { error };
            self.lender.fx.reply(client, Err(CallError::unavailable(error.to_string())));
        }
    }

    /// The store's answer to a search of jobs.
    pub(super) fn on_jobs(&mut self, id: WorkId, result: Result<JobPage, StoreError>, now: Now) {
        match result {
            Ok(page) => {
                let Some(client) = self.reads.returned(id) else { return };
                let jobs = listing::listed(page.jobs, &self.setup.zones, now.wall.second());
                let cx = &mut self.lender.at(now);
                self.listing.push(client, JobList { jobs, total: page.total }, cx);
            }
            Err(error) => self.on_read(id, Err(self.unsearchable(error))),
        }
    }

    /// The store's answer to any other read.
    pub(super) fn on_read(&mut self, id: WorkId, result: Result<Answer, StoreError>) {
        if let Some(client) = self.reads.returned(id) {
            let reply = result.map_err(|error| match error {
                StoreError::Permanent(reason) => CallError { status: 500, message: reason },
                error => CallError::unavailable(error.to_string()),
            });
            self.lender.fx.reply(client, reply);
        }
    }

    /// Where the jobs are in memory, the failed read was a search: its client is told that a list without search works.
    fn unsearchable(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::Away(reason) | StoreError::Unavailable(reason) if self.jobs().is_some() => StoreError::Away(
                format!("the jobs cannot be searched: {reason}; /cron/list without search still works"),
            ),
            error => error,
        }
    }
}
