//! The journaler: it writes the leader's entries into the journal, one at a time and in order.
//!
//! While the result of an entry's statement is not known, the statement is repeated, and no other entry is sent.
//!
//! Not the decisions in an entry: other parts make them.
//!
//! Invariant: an entry has one request number for ever, so repeating its statement cannot write it twice.

use crate::core::Context;
use crate::core::io::ports::{Journaled, Lead, StoreError, Work, WorkId};
use crate::core::time::bounds::{JOURNAL_FAILING_MS, JOURNAL_SILENT_MS, JOURNAL_SLOW_MS};
use crate::core::time::{Backoff, Timer, Timers};
use crate::model::command::RequestKey;
use crate::model::journal::{Body, Entry, EntryId};
use crate::model::{Epoch, JobId, Mono, Now, Second};
use std::collections::VecDeque;

/// The queue of entries for the journal, of one epoch.
#[derive(Debug)]
pub struct Journaler {
    epoch: Epoch,
    /// Numbers the statements of this epoch.
    requests: u64,
    queue: VecDeque<Entry>,
    asked: Option<Question>,
    /// When the first entry of the queue was first sent to the store.
    asked_at: Option<Mono>,
    backoff: Backoff,
    /// When the store took an entry last.
    written_at: Option<Mono>,
    /// The store's error for the entry that waits; none while it takes entries.
    trouble: Option<String>,
}

/// The statement that is with the store.
#[derive(Debug)]
struct Question {
    id: WorkId,
    sent_at: Mono,
}

/// The store's answer about the first entry of the queue.
#[derive(Debug)]
pub enum Written {
    /// The entry is in the journal; its statement was sent at `sent_at`.
    In { id: EntryId, entry: Entry, sent_at: Mono },
    /// An older epoch has journaled that tick and part.
    TickTaken(Entry),
    /// An entry with the same request key is in the journal already, with this body.
    Known(Entry, Body),
    /// Another node leads.
    Deposed,
    /// The result is not known, or the answer is to an older statement: nothing follows.
    Open,
}

impl Journaler {
    /// An empty queue. Its request numbers begin at 1.
    pub fn new(epoch: Epoch) -> Journaler {
        Journaler {
            epoch,
            requests: 0,
            queue: VecDeque::new(),
            asked: None,
            asked_at: None,
            backoff: Backoff::default(),
            written_at: None,
            trouble: None,
        }
    }

    /// The epoch of all entries.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The store's error for the entry that waits; none where it takes entries, or has said nothing.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// A number for a statement of this epoch that may have to be repeated.
    pub fn next_request(&mut self) -> u64 {
        self.requests += 1;
        self.requests
    }

    /// Adds an entry to the queue. `tick`: the second that it decides, if it does; `part`: counted down to 0.
    pub fn push(&mut self, tick: Option<Second>, part: u32, body: Body) {
        let request = self.next_request();
        self.queue.push_back(Entry { epoch: self.epoch, request, tick, part, body, request_key: None });
    }

    /// Adds the entry for a client's request; answers its request number.
    pub fn push_asked(&mut self, body: Body, request_key: Option<RequestKey>) -> u64 {
        let request = self.next_request();
        self.queue.push_back(Entry { epoch: self.epoch, request, tick: None, part: 0, body, request_key });
        request
    }

    /// The entries that are not known to be in the journal, in their order.
    pub fn under_way(&self) -> impl Iterator<Item = &Entry> {
        self.queue.iter()
    }

    /// Whether an entry that is not in the journal yet decides on seconds of this job before `since`.
    pub fn decides_before(&self, since: Second, id: JobId) -> bool {
        let is_before = |entry: &Entry| entry.tick.is_some_and(|tick| tick < since) && names(&entry.body, id);
        let is_settled = |entry: &Entry| entry.body.settled.iter().any(|gap| gap.cron_id == id);
        self.queue.iter().any(|entry| is_before(entry) || is_settled(entry))
    }

    /// Whether the last statement failed.
    pub fn is_failing(&self) -> bool {
        self.backoff.is_failing()
    }

    /// Whether the store has not answered the present statement for `JOURNAL_SLOW_MS`.
    pub fn is_silent(&self, now: Now) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.sent_at.plus_ms(JOURNAL_SLOW_MS) <= now.mono)
    }

    /// Whether the last statement failed, and is not being repeated just now.
    pub fn is_away(&self) -> bool {
        self.is_failing() && self.asked.is_none()
    }

    /// Ends the present pause of the back-off: a client waits.
    pub fn hurry(&mut self) {
        self.backoff.hurry();
    }

    /// When the store took an entry last; none where it has taken none of this epoch.
    pub fn written_at(&self) -> Option<Mono> {
        self.written_at
    }

    /// Whether every entry is in the journal.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether the store has not taken an entry for so long that it must be away.
    pub fn is_stuck(&self, now: Now) -> bool {
        let patience_ms = if self.backoff.is_failing() { JOURNAL_FAILING_MS } else { JOURNAL_SILENT_MS };
        self.asked_at.is_some_and(|asked_at| asked_at.plus_ms(patience_ms) <= now.mono)
    }

    /// Sends the first entry of the queue when it is time.
    pub fn poll(&mut self, cx: &mut Context) {
        if self.asked.is_some() || !self.backoff.is_over(cx.now) {
            return;
        }
        if let Some(entry) = self.queue.front() {
            let id = cx.fx.work(Work::Lead(Lead::Journal(entry.clone())));
            self.asked = Some(Question { id, sent_at: cx.now.mono });
            self.asked_at.get_or_insert(cx.now.mono);
        }
    }

    /// Lists when to poll.
    pub fn timers(&self, timers: &mut Timers) {
        let waits = self.asked.is_none() && !self.queue.is_empty();
        timers.set(Timer::JournalRetry, waits.then(|| self.backoff.ready_at()));
    }

    /// The store's answer to a statement of `poll`.
    pub fn on_journaled(&mut self, id: WorkId, result: Result<Journaled, StoreError>, cx: &mut Context) -> Written {
        let Some(Question { sent_at, .. }) = self.asked.take_if(|asked| asked.id == id) else {
            return Written::Open;
        };
        match result {
            Err(StoreError::Deposed) => return Written::Deposed,
            Err(error) => {
                if !self.backoff.is_failing() {
                    cx.fx.notice(
                        log::Level::Error,
                        format!("the journal waits, and runs with it: {error}; trying again until it works"),
                    );
                }
                self.trouble = Some(error.to_string());
                self.backoff.fail(cx.now);
                return Written::Open;
            }
            Ok(_) if self.backoff.is_failing() => cx.fx.notice(log::Level::Info, "the journal is written again"),
            Ok(_) => {}
        }
        self.backoff.reset();
        self.trouble = None;
        self.asked_at = None;
        self.written_at = Some(cx.now.mono);
        match (result, self.queue.pop_front()) {
            (Ok(Journaled::Entry(id)), Some(entry)) => Written::In { id, entry, sent_at },
            (Ok(Journaled::TickTaken), Some(entry)) => Written::TickTaken(entry),
            (Ok(Journaled::Known(body)), Some(entry)) => Written::Known(entry, body),
            _ => Written::Open,
        }
    }
}

/// Whether an entry with this body names a run of the job, or seconds that it missed.
fn names(body: &Body, id: JobId) -> bool {
    let runs = body.runs.iter().map(|run| run.attempt.run.cron_id);
    let refused = body.refused.iter().map(|refused| refused.run.cron_id);
    runs.chain(refused).chain(body.missed.iter().map(|gap| gap.cron_id)).any(|named| named == id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Lender;
    use crate::core::io::Effect;

    fn sent(journaler: &mut Journaler, lender: &mut Lender, now: Now) -> Option<(WorkId, Entry)> {
        journaler.poll(&mut lender.at(now));
        match lender.fx.take()? {
            Effect::Work(id, Work::Lead(Lead::Journal(entry))) => Some((id, entry)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_unknown_result_is_asked_again_with_the_same_request_and_nothing_meanwhile() {
        let (mut journaler, mut lender, now) = (Journaler::new(Epoch(3)), Lender::default(), Now::default());
        journaler.push(Some(Second(5)), 0, Body::default());
        journaler.push(Some(Second(6)), 0, Body::default());
        let (id, first) = sent(&mut journaler, &mut lender, now).unwrap();
        assert!(sent(&mut journaler, &mut lender, now).is_none());
        let away = Err(StoreError::Unavailable("away".into()));
        assert!(matches!(journaler.on_journaled(id, away, &mut lender.at(now)), Written::Open));
        assert!(matches!(lender.fx.take(), Some(Effect::Notice(_))));
        assert!(sent(&mut journaler, &mut lender, now).is_none());
        let later = Now { mono: Timers::first(now, |timers| journaler.timers(timers)).unwrap().1, ..now };
        let (again, entry) = sent(&mut journaler, &mut lender, later).unwrap();
        assert_eq!(entry, first);
        let late_answer = journaler.on_journaled(id, Ok(Journaled::Entry(EntryId(1))), &mut lender.at(later));
        assert!(matches!(late_answer, Written::Open), "an answer to an older asking is not counted");
        let written = journaler.on_journaled(again, Ok(Journaled::Entry(EntryId(1))), &mut lender.at(later));
        assert!(matches!(written, Written::In { id: EntryId(1), entry, .. } if entry == first));
        assert!(matches!(lender.fx.take(), Some(Effect::Notice(_))));
        assert_eq!(sent(&mut journaler, &mut lender, later).unwrap().1.tick, Some(Second(6)));
    }

    #[test]
    fn it_is_stuck_when_the_store_has_failed_or_has_not_answered_for_too_long() {
        let at = |ms| Now { mono: Mono(0).plus_ms(ms), ..Now::default() };
        let (mut journaler, mut lender) = (Journaler::new(Epoch(3)), Lender::default());
        assert!(!journaler.is_stuck(at(100_000)), "nothing is asked");
        journaler.push(Some(Second(5)), 0, Body::default());
        let (id, _) = sent(&mut journaler, &mut lender, at(0)).unwrap();
        assert!(!journaler.is_stuck(at(JOURNAL_SILENT_MS - 1)));
        assert!(journaler.is_stuck(at(JOURNAL_SILENT_MS)));
        journaler.on_journaled(id, Err(StoreError::Away("away".into())), &mut lender.at(at(50)));
        assert!(!journaler.is_stuck(at(JOURNAL_FAILING_MS - 1)));
        assert!(journaler.is_stuck(at(JOURNAL_FAILING_MS)), "counted from the first asking");
        lender.fx.take();
        let (id, _) = sent(&mut journaler, &mut lender, at(JOURNAL_FAILING_MS)).unwrap();
        journaler.on_journaled(id, Ok(Journaled::Entry(EntryId(1))), &mut lender.at(at(JOURNAL_FAILING_MS)));
        assert!(!journaler.is_stuck(at(100_000)));
    }
}
