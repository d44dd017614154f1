//! The health check: asks this node's own store every second whether it answers, unless other statements show that.
//!
//! A leader must reach the store. So each node tells its leader whether its own store answers, and a node whose store
//! does not answer does not compete for the lead.
//!
//! Not the health that probes see: that is `health`.
//!
//! Invariant: one question is under way at a time.

use crate::core::Context;
use crate::core::io::ports::{Log, StoreError, Work, WorkId};
use crate::core::time::bounds::{HEALTH_CHECK_MS, STORE_SILENT_MS};
use crate::core::time::{Timer, Timers};
use crate::model::{Mono, Now};

/// The question to the store, and its last answer.
#[derive(Debug, Default)]
pub struct HealthCheck {
    /// The question that is with the store, and when it was sent.
    asked: Option<(WorkId, Mono)>,
    ask_at: Mono,
    /// The error of the last question; none where the store has answered since.
    failure: Option<String>,
}

impl HealthCheck {
    /// Asks the store when it is time. `is_busy`: another statement is with the store, and will show whether it
    /// answers.
    pub fn poll(&mut self, is_busy: bool, cx: &mut Context) {
        if self.asked.is_none() && !is_busy && self.ask_at <= cx.now.mono {
            self.asked = Some((cx.fx.work(Work::Log(Log::Ping)), cx.now.mono));
        }
    }

    /// Lists when to poll. `is_busy`: as for `poll`.
    pub fn timers(&self, is_busy: bool, timers: &mut Timers) {
        match self.asked {
            Some((_, sent_at)) => timers.set_ahead(Timer::StoreSilence, sent_at.plus_ms(STORE_SILENT_MS)),
            None if is_busy => {}
            None => timers.set(Timer::StorePing, self.ask_at),
        }
    }

    /// The answer to a question of `poll`. An answer to any other question has no effect.
    pub fn on_pinged(&mut self, id: WorkId, result: &Result<(), StoreError>, now: Now) {
        if self.asked.take_if(|(asked, _)| *asked == id).is_some() {
            self.failure = result.as_ref().err().map(StoreError::to_string);
            self.ask_at = now.mono.plus_ms(HEALTH_CHECK_MS);
        }
    }

    /// The store has answered another statement.
    pub fn on_answer(&mut self, now: Now) {
        self.failure = None;
        self.ask_at = now.mono.plus_ms(HEALTH_CHECK_MS);
    }

    /// The error of the store that does not answer; none where it says nothing at all.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Whether the store answers, as far as is known: it may take `STORE_SILENT_MS` for an answer.
    pub fn is_ok(&self, now: Now) -> bool {
        self.failure.is_none() && self.asked.is_none_or(|(_, sent_at)| now.mono < sent_at.plus_ms(STORE_SILENT_MS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Lender;
    use crate::core::io::Effect;

    fn at(ms: u64) -> Now {
        Now { mono: Mono(0).plus_ms(ms), ..Now::default() }
    }

    fn first(health_check: &HealthCheck, now: Now) -> Option<(Timer, Mono)> {
        Timers::first(now, |timers| health_check.timers(false, timers))
    }

    fn asked(health_check: &mut HealthCheck, lender: &mut Lender, now: Now) -> Option<WorkId> {
        health_check.poll(false, &mut lender.at(now));
        match lender.fx.take()? {
            Effect::Work(id, Work::Log(Log::Ping)) => Some(id),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_store_is_asked_every_second_and_failing_until_it_answers() {
        let (mut health_check, mut lender) = (HealthCheck::default(), Lender::default());
        let away = Err(StoreError::Away("away".into()));
        let id = asked(&mut health_check, &mut lender, at(0)).unwrap();
        assert_eq!(asked(&mut health_check, &mut lender, at(5_000)), None, "one question at a time");
        health_check.on_pinged(id, &away, at(10));
        assert!(!health_check.is_ok(at(10)));
        assert_eq!(asked(&mut health_check, &mut lender, at(HEALTH_CHECK_MS + 9)), None);
        assert_eq!(first(&health_check, at(10)), Some((Timer::StorePing, at(HEALTH_CHECK_MS + 10).mono)));
        let id = asked(&mut health_check, &mut lender, at(HEALTH_CHECK_MS + 10)).unwrap();
        assert!(!health_check.is_ok(at(HEALTH_CHECK_MS + 10)), "a question is no answer");
        health_check.on_pinged(id, &Ok(()), at(1_100));
        assert!(health_check.is_ok(at(1_100)));
    }

    #[test]
    fn a_store_that_says_nothing_does_not_answer_and_any_word_of_it_counts() {
        let (mut health_check, mut lender) = (HealthCheck::default(), Lender::default());
        let id = asked(&mut health_check, &mut lender, at(0)).unwrap();
        assert!(health_check.is_ok(at(STORE_SILENT_MS - 1)));
        assert_eq!(first(&health_check, at(0)), Some((Timer::StoreSilence, at(STORE_SILENT_MS).mono)));
        assert_eq!(first(&health_check, at(STORE_SILENT_MS)), None, "only an answer helps now");
        assert!(!health_check.is_ok(at(STORE_SILENT_MS)));
        health_check.on_pinged(id, &Ok(()), at(9_000));
        health_check.on_answer(at(9_500));
        assert!(health_check.is_ok(at(9_500)));
        health_check.poll(true, &mut lender.at(at(60_000)));
        assert!(lender.fx.take().is_none(), "another statement is with the store");
        assert_eq!(asked(&mut health_check, &mut lender, at(9_500 + HEALTH_CHECK_MS - 1)), None);
        assert!(asked(&mut health_check, &mut lender, at(9_500 + HEALTH_CHECK_MS)).is_some());
    }
}
