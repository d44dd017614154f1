//! The reads of the store that clients wait for.
//!
//! A read may take long, because a log may be large. But a store that says nothing at all, to anybody, makes no client
//! wait: after `READ_SILENT_MS` without a word of it the clients are told so.
//!
//! Not what is read, nor how it is answered: see `reads`.
//!
//! Invariants: every client is answered once. A read whose client was told that the store is silent is with the store
//! nevertheless, and counts until it comes back: so no more than `READS_MAX` are with the store at one time.

use crate::core::io::ports::{Done, WorkId};
use crate::core::time::bounds::READ_SILENT_MS;
use crate::core::time::{Timer, Timers};
use crate::model::command::RequestId;
use crate::model::{Mono, Now};
use std::collections::BTreeMap;

/// Limit of the reads that are with the store at one time.
const READS_MAX: usize = 1_000;

/// The reads that are with the store.
#[derive(Debug, Default)]
pub struct PendingReads {
    reads: BTreeMap<WorkId, PendingRead>,
    /// When the store has last said anything.
    heard_at: Mono,
}

#[derive(Debug)]
struct PendingRead {
    /// None once the client is answered.
    client: Option<RequestId>,
    is_of_jobs: bool,
    sent_at: Mono,
}

impl PendingReads {
    /// Whether there is no room for another read.
    pub fn is_full(&self) -> bool {
        READS_MAX <= self.reads.len()
    }

    /// Whether a client waits for the store.
    pub fn has_clients(&self) -> bool {
        self.reads.values().any(|read| read.client.is_some())
    }

    /// A read was given to the store for this client. `is_of_jobs`: of jobs, and not of the log.
    pub fn sent(&mut self, id: WorkId, client: RequestId, is_of_jobs: bool, now: Now) {
        self.reads.insert(id, PendingRead { client: Some(client), is_of_jobs, sent_at: now.mono });
    }

    /// The read has come back. Answers its client; none where it was answered before.
    pub fn returned(&mut self, id: WorkId) -> Option<RequestId> {
        self.reads.remove(&id)?.client
    }

    /// Takes notice of an answer to any work: it may be a word of the store.
    pub fn on_done(&mut self, done: &Done, now: Now) {
        if is_word(done) {
            self.heard_at = now.mono;
        }
    }

    /// The clients that have waited long enough for a store that says nothing, and whether they asked for jobs.
    pub fn give_up(&mut self, now: Now) -> Vec<(RequestId, bool)> {
        let heard_at = self.heard_at;
        let over = self.reads.values_mut().filter(|read| read.until(heard_at) <= now.mono);
        over.filter_map(|read| Some((read.client.take()?, read.is_of_jobs))).collect()
    }

    /// Lists when to give up.
    pub fn timers(&self, timers: &mut Timers) {
        let waiting = self.reads.values().filter(|read| read.client.is_some());
        timers.set(Timer::ReadSilence, waiting.map(|read| read.until(self.heard_at)).min());
    }
}

impl PendingRead {
    fn until(&self, heard_at: Mono) -> Mono {
        self.sent_at.max(heard_at).plus_ms(READ_SILENT_MS)
    }
}

/// Whether the store itself has said this. An error may come from our side of the connection.
fn is_word(done: &Done) -> bool {
    match done {
        Done::Journaled(result) => result.is_ok(),
        Done::LogsWritten(result) => result.is_ok(),
        Done::Pinged(result) => result.is_ok(),
        Done::LogsRetained(result) => result.is_ok(),
        Done::Logs(result) => result.is_ok(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now { mono: Mono(0).plus_ms(ms), ..Now::default() }
    }

    #[test]
    fn a_silent_store_makes_nobody_wait_and_a_slow_one_is_waited_for() {
        let mut reads = PendingReads::default();
        reads.sent(WorkId(1), RequestId(7), true, at(1_000));
        assert_eq!(reads.give_up(at(999 + READ_SILENT_MS)), []);
        reads.on_done(&Done::Pinged(Ok(())), at(3_000));
        let first = Timers::first(at(3_000), |timers| reads.timers(timers));
        assert_eq!(first, Some((Timer::ReadSilence, at(3_000 + READ_SILENT_MS).mono)));
        assert_eq!(reads.give_up(at(2_999 + READ_SILENT_MS)), []);
        assert_eq!(reads.give_up(at(3_000 + READ_SILENT_MS)), [(RequestId(7), true)]);
        assert!(!reads.has_clients() && Timers::first(at(9_000), |timers| reads.timers(timers)).is_none());
        assert_eq!(reads.returned(WorkId(1)), None, "it was answered before");
    }

    #[test]
    fn reads_whose_clients_have_gone_still_count() {
        let mut reads = PendingReads::default();
        (0..READS_MAX as u64).for_each(|id| reads.sent(WorkId(id), RequestId(id), false, at(0)));
        assert_eq!(reads.give_up(at(READ_SILENT_MS)).len(), READS_MAX);
        assert!(reads.is_full());
        assert_eq!(reads.returned(WorkId(5)), None);
        assert!(!reads.is_full());
    }
}
