//! When runs have had enough time: each has one alarm at most, its limit first, then what follows a gentle signal.
//!
//! Invariant: a run that is over has none, so there are never more than there are runs.

use super::EndedBy;
use crate::core::ports::KillHow;
use crate::model::{Attempt, Mono};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Alarm {
    pub at: Mono,
    pub how: KillHow,
    pub ended_by: EndedBy,
}

#[derive(Debug, Default)]
pub struct Alarms {
    by_time: BTreeSet<(Mono, Attempt)>,
    of: BTreeMap<Attempt, Alarm>,
}

impl Alarms {
    /// In place of the one that it had.
    pub fn set(&mut self, attempt: Attempt, alarm: Alarm) {
        self.remove(attempt);
        self.by_time.insert((alarm.at, attempt));
        self.of.insert(attempt, alarm);
    }

    pub fn remove(&mut self, attempt: Attempt) {
        if let Some(alarm) = self.of.remove(&attempt) {
            self.by_time.remove(&(alarm.at, attempt));
        }
    }

    /// How it will be ended next.
    pub fn of(&self, attempt: Attempt) -> Option<KillHow> {
        self.of.get(&attempt).map(|alarm| alarm.how)
    }

    /// The first that is to ring by now.
    pub fn take_due(&mut self, now: Mono) -> Option<(Attempt, Alarm)> {
        let (_, attempt) = *self.by_time.first().filter(|(at, _)| *at <= now)?;
        let alarm = self.of.get(&attempt).copied();
        self.remove(attempt);
        alarm.map(|alarm| (attempt, alarm))
    }

    /// When the first of them rings.
    pub fn first(&self) -> Option<Mono> {
        self.by_time.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{JobId, RunKey, Second};

    #[test]
    fn a_run_has_one_alarm_and_none_once_it_is_over() {
        let mut alarms = Alarms::default();
        let attempt = |second| Attempt { run: RunKey::scheduled(JobId(1), Second(second)), number: 1 };
        let alarm = |ms, how| Alarm { at: Mono(0).plus_ms(ms), how, ended_by: EndedBy::Timeout };
        alarms.set(attempt(1), alarm(10, KillHow::Ask));
        alarms.set(attempt(2), alarm(20, KillHow::Ask));
        alarms.set(attempt(3), alarm(15, KillHow::Ask));
        alarms.set(attempt(1), alarm(30, KillHow::Force));
        alarms.remove(attempt(3));
        assert_eq!(alarms.first(), Some(Mono(0).plus_ms(20)));
        assert_eq!(alarms.take_due(Mono(0).plus_ms(19)), None);
        assert_eq!(alarms.take_due(Mono::NEVER), Some((attempt(2), alarm(20, KillHow::Ask))));
        assert_eq!(alarms.take_due(Mono::NEVER), Some((attempt(1), alarm(30, KillHow::Force))));
        assert_eq!((alarms.first(), alarms.of.len()), (None, 0));
    }
}
