//! The leader's entries on their way into the journal, one at a time and in order.
//!
//! Where the result of a statement is not known the same entry is asked again until it is, and nothing else meanwhile.
//!
//! Invariant: an entry keeps its request number for ever, so asking again cannot write it twice.

use crate::core::io::Effects;
use crate::core::ports::{Journaled, Lead, StoreError, Work, WorkId};
use crate::core::time::{Backoff, Timer, Timers};
use crate::model::command::RequestKey;
use crate::model::journal::{Body, Entry, EntryId};
use crate::model::{Epoch, JobId, Mono, Now, Second};
use std::collections::VecDeque;

/// The journal has failed, and is failing for so long: it is away.
const FAILING_MS: u64 = 2_000;
/// It has said nothing for so long: it is away. Longer than it takes another node to notice the same of its own store
/// (`pulse`), and no longer than others look on while the lock's value stands still.
const SILENT_MS: u64 = 3_000;
/// An answer that takes longer is told in `/health`.
const QUIET_MS: u64 = 2_000;

#[derive(Debug)]
pub struct Journaler {
    epoch: Epoch,
    requests: u64,
    queue: VecDeque<Entry>,
    in_flight: Option<InFlight>,
    /// When the first entry of the queue was first asked.
    asked_at: Option<Mono>,
    backoff: Backoff,
    /// When the store took an entry last.
    written_at: Option<Mono>,
    /// What the store said when it did not take the last one; none while it does.
    trouble: Option<String>,
}

#[derive(Debug)]
struct InFlight {
    id: WorkId,
    sent_at: Mono,
}

/// What became of the first entry of the queue.
#[derive(Debug)]
pub enum Written {
    /// It is in; the statement that was answered had been sent at `sent_at`.
    In { id: EntryId, entry: Entry, sent_at: Mono },
    /// An older epoch has journaled that tick and part.
    TickTaken(Entry),
    /// It was asked for before, under the same key: the body that counts.
    Known(Entry, Body),
    /// Another node leads.
    Deposed,
    /// Not known, or it was not ours: nothing to do.
    Open,
}

impl Journaler {
    pub fn new(epoch: Epoch) -> Journaler {
        Journaler {
            epoch,
            requests: 0,
            queue: VecDeque::new(),
            in_flight: None,
            asked_at: None,
            backoff: Backoff::default(),
            written_at: None,
            trouble: None,
        }
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// What the store said when it did not take the entry that waits, where it said anything.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// A number for a statement of this epoch that may have to be repeated.
    pub fn next_request(&mut self) -> u64 {
        self.requests += 1;
        self.requests
    }

    pub fn push(&mut self, tick: Option<Second>, part: u32, body: Body) {
        let request = self.next_request();
        self.queue.push_back(Entry { epoch: self.epoch, request, tick, part, body, request_key: None });
    }

    /// An entry that a client has asked for; answers its number.
    pub fn push_asked(&mut self, body: Body, request_key: Option<RequestKey>) -> u64 {
        let request = self.next_request();
        self.queue.push_back(Entry { epoch: self.epoch, request, tick: None, part: 0, body, request_key });
        request
    }

    /// Whether an entry that is not in yet decides on what this job has due before `since`.
    pub fn decides_before(&self, since: Second, id: JobId) -> bool {
        let is_before = |entry: &Entry| entry.tick.is_some_and(|tick| tick < since) && names(&entry.body, id);
        let is_settled = |entry: &Entry| entry.body.settled.iter().any(|gap| gap.cron_id == id);
        self.queue.iter().any(|entry| is_before(entry) || is_settled(entry))
    }

    /// Whether the store did not take an entry when it was asked last.
    pub fn is_failing(&self) -> bool {
        self.backoff.is_failing()
    }

    /// Whether it has not answered for a while.
    pub fn is_silent(&self, now: Now) -> bool {
        self.in_flight.as_ref().is_some_and(|in_flight| in_flight.sent_at.plus_ms(QUIET_MS) <= now.mono)
    }

    /// Whether it failed, and is not being asked again just now.
    pub fn is_away(&self) -> bool {
        self.is_failing() && self.in_flight.is_none()
    }

    /// Somebody waits: asks the store again at once.
    pub fn hurry(&mut self) {
        self.backoff.hurry();
    }

    /// When the store took an entry last; none where it has taken none of this epoch.
    pub fn written_at(&self) -> Option<Mono> {
        self.written_at
    }

    /// Whether every entry is in.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether the store has not taken an entry for so long that it must be away.
    pub fn is_stuck(&self, now: Now) -> bool {
        let patience_ms = if self.backoff.is_failing() { FAILING_MS } else { SILENT_MS };
        self.asked_at.is_some_and(|asked_at| asked_at.plus_ms(patience_ms) <= now.mono)
    }

    pub fn poll(&mut self, fx: &mut Effects, now: Now) {
        if self.in_flight.is_some() || !self.backoff.is_over(now) {
            return;
        }
        if let Some(entry) = self.queue.front() {
            let id = fx.work(Work::Lead(Lead::Journal(entry.clone())));
            self.in_flight = Some(InFlight { id, sent_at: now.mono });
            self.asked_at.get_or_insert(now.mono);
        }
    }

    pub fn timers(&self, timers: &mut Timers) {
        let waits = self.in_flight.is_none() && !self.queue.is_empty();
        timers.set(Timer::JournalRetry, waits.then(|| self.backoff.ready_at()));
    }

    pub fn on_journaled(
        &mut self,
        id: WorkId,
        result: Result<Journaled, StoreError>,
        fx: &mut Effects,
        now: Now,
    ) -> Written {
        let Some(InFlight { sent_at, .. }) = self.in_flight.take_if(|in_flight| in_flight.id == id) else {
            return Written::Open;
        };
        match result {
            Err(StoreError::Deposed) => return Written::Deposed,
            Err(error) => {
                if !self.backoff.is_failing() {
                    fx.notice(
                        log::Level::Error,
                        format!("the journal waits, and runs with it: {error}; asking again until it works"),
                    );
                }
                self.trouble = Some(error.to_string());
                self.backoff.fail(now);
                return Written::Open;
            }
            Ok(_) if self.backoff.is_failing() => fx.notice(log::Level::Info, "the journal is written again"),
            Ok(_) => {}
        }
        self.backoff.reset();
        self.trouble = None;
        self.asked_at = None;
        self.written_at = Some(now.mono);
        match (result, self.queue.pop_front()) {
            (Ok(Journaled::Entry(id)), Some(entry)) => Written::In { id, entry, sent_at },
            (Ok(Journaled::TickTaken), Some(entry)) => Written::TickTaken(entry),
            (Ok(Journaled::Known(body)), Some(entry)) => Written::Known(entry, body),
            _ => Written::Open,
        }
    }
}

/// Whether the tick's entry says something of this job.
fn names(body: &Body, id: JobId) -> bool {
    let runs = body.runs.iter().map(|run| run.attempt.run.cron_id);
    let refused = body.refused.iter().map(|refused| refused.run.cron_id);
    runs.chain(refused).chain(body.missed.iter().map(|gap| gap.cron_id)).any(|named| named == id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::io::Effect;

    fn sent(journaler: &mut Journaler, fx: &mut Effects, now: Now) -> Option<(WorkId, Entry)> {
        journaler.poll(fx, now);
        match fx.take()? {
            Effect::Work(id, Work::Lead(Lead::Journal(entry))) => Some((id, entry)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_unknown_result_is_asked_again_with_the_same_request_and_nothing_meanwhile() {
        let (mut journaler, mut fx, now) = (Journaler::new(Epoch(3)), Effects::default(), Now::default());
        journaler.push(Some(Second(5)), 0, Body::default());
        journaler.push(Some(Second(6)), 0, Body::default());
        let (id, first) = sent(&mut journaler, &mut fx, now).unwrap();
        assert!(sent(&mut journaler, &mut fx, now).is_none());
        let away = Err(StoreError::Unavailable("away".into()));
        assert!(matches!(journaler.on_journaled(id, away, &mut fx, now), Written::Open));
        assert!(matches!(fx.take(), Some(Effect::Notice(_))));
        assert!(sent(&mut journaler, &mut fx, now).is_none());
        let later = Now { mono: Timers::first(now, |timers| journaler.timers(timers)).unwrap().1, ..now };
        let (again, entry) = sent(&mut journaler, &mut fx, later).unwrap();
        assert_eq!(entry, first);
        let late_answer = journaler.on_journaled(id, Ok(Journaled::Entry(EntryId(1))), &mut fx, later);
        assert!(matches!(late_answer, Written::Open), "an answer to an older asking is not counted");
        let written = journaler.on_journaled(again, Ok(Journaled::Entry(EntryId(1))), &mut fx, later);
        assert!(matches!(written, Written::In { id: EntryId(1), entry, .. } if entry == first));
        assert!(matches!(fx.take(), Some(Effect::Notice(_))));
        assert_eq!(sent(&mut journaler, &mut fx, later).unwrap().1.tick, Some(Second(6)));
    }
    #[test]
    fn it_is_stuck_when_it_has_failed_or_said_nothing_for_too_long() {
        let at = |ms| Now { mono: Mono(0).plus_ms(ms), ..Now::default() };
        let (mut journaler, mut fx) = (Journaler::new(Epoch(3)), Effects::default());
        assert!(!journaler.is_stuck(at(100_000)), "nothing is asked");
        journaler.push(Some(Second(5)), 0, Body::default());
        let (id, _) = sent(&mut journaler, &mut fx, at(0)).unwrap();
        assert!(!journaler.is_stuck(at(SILENT_MS - 1)));
        assert!(journaler.is_stuck(at(SILENT_MS)));
        journaler.on_journaled(id, Err(StoreError::Away("away".into())), &mut fx, at(50));
        assert!(!journaler.is_stuck(at(FAILING_MS - 1)));
        assert!(journaler.is_stuck(at(FAILING_MS)), "counted from the first asking");
        fx.take();
        let (id, _) = sent(&mut journaler, &mut fx, at(FAILING_MS)).unwrap();
        journaler.on_journaled(id, Ok(Journaled::Entry(EntryId(1))), &mut fx, at(FAILING_MS));
        assert!(!journaler.is_stuck(at(100_000)));
    }
}
