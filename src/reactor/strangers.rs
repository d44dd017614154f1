//! Strangers: connections to `bind_address` whose other end has not proved that it is a node. This keeps count of them
//! and of what is said about them.
//!
//! Not the connections themselves, nor the proof: those are the links'.
//!
//! Invariants: a new stranger always has a place, and the oldest goes for it, so that a node is in before it is the
//! oldest; no number of strangers writes more than some lines in ten seconds.

use crate::model::Mono;
use std::collections::VecDeque;
use std::net::IpAddr;

/// How many strangers there may be at one time, of those that are silent, and of those that have greeted.
const STRANGERS_MAX: usize = 256;
/// How many of them may come from one address.
const OF_ADDRESS_MAX: usize = 128;
/// Lines about strangers are counted within so long.
const LINES_MS: u64 = 10_000;
/// After so many lines the others are only counted.
const LINES_MAX: usize = 5;

/// The strangers, by their serial numbers, the oldest first.
#[derive(Debug, Default)]
pub struct Strangers {
    silent: VecDeque<(usize, IpAddr)>,
    /// They have said a first word that needs the secret, now or when it was recorded.
    greeted: VecDeque<usize>,
}

impl Strangers {
    /// Takes a stranger in. Answers the one that must go for it.
    pub fn add(&mut self, serial: usize, address: IpAddr) -> Option<usize> {
        let of_address = self.silent.iter().filter(|(_, other)| *other == address).count();
        let out = match (OF_ADDRESS_MAX <= of_address, STRANGERS_MAX <= self.silent.len()) {
            (true, _) => self.silent.iter().position(|(_, other)| *other == address),
            (false, true) => Some(0),
            (false, false) => None,
        };
        let out = out.and_then(|at| self.silent.remove(at));
        self.silent.push_back((serial, address));
        out.map(|(serial, _)| serial)
    }

    /// The stranger has said its first word, and does not go for silent ones any more. Answers the one that must go.
    pub fn greet(&mut self, serial: usize) -> Option<usize> {
        if self.greeted.contains(&serial) {
            return None;
        }
        self.remove(serial);
        self.greeted.push_back(serial);
        (STRANGERS_MAX < self.greeted.len()).then(|| self.greeted.pop_front()).flatten()
    }

    /// It is gone, or no stranger any more.
    pub fn remove(&mut self, serial: usize) {
        self.silent.retain(|(other, _)| *other != serial);
        self.greeted.retain(|other| *other != serial);
    }
}

/// Decides which lines about strangers are written.
#[derive(Debug, Default)]
pub struct Lines {
    since: Mono,
    written: usize,
    /// How many were not written since then, and the last of them.
    left_out: usize,
    last: String,
}

impl Lines {
    /// The line to write, if any.
    pub fn line(&mut self, text: String, now: Mono) -> Option<String> {
        if self.written == 0 {
            self.since = now;
        }
        if self.written < LINES_MAX {
            self.written += 1;
            return Some(text);
        }
        self.left_out += 1;
        self.last = text;
        None
    }

    /// The line that tells of those that were not written, when it is time.
    pub fn summary(&mut self, now: Mono) -> Option<String> {
        if self.written == 0 || now < self.since.plus_ms(LINES_MS) {
            return None;
        }
        let Lines { left_out, last, .. } = std::mem::take(self);
        (left_out != 0).then(|| format!("{left_out} more connections were cut; the last: {last}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[test]
    fn a_newcomer_has_a_place_and_the_oldest_goes_for_it() {
        let mut strangers = Strangers::default();
        for serial in 0..STRANGERS_MAX {
            assert_eq!(strangers.add(serial, address(serial as u32)), None);
        }
        strangers.remove(0);
        assert_eq!(strangers.add(1_000, address(1_000)), None, "one has gone by itself");
        assert_eq!(strangers.add(1_001, address(1_001)), Some(1));
        assert_eq!(strangers.add(1_002, address(1_002)), Some(2));
        assert_eq!(strangers.silent.len(), STRANGERS_MAX);
    }

    #[test]
    fn an_address_with_many_strangers_takes_no_place_of_another() {
        let mut strangers = Strangers::default();
        assert_eq!(strangers.add(0, address(0)), None);
        for serial in 1..=OF_ADDRESS_MAX {
            assert_eq!(strangers.add(serial, address(1)), None);
        }
        for serial in 1..=1_000 {
            assert_eq!(strangers.add(OF_ADDRESS_MAX + serial, address(1)), Some(serial));
        }
        assert_eq!(strangers.silent.len(), 1 + OF_ADDRESS_MAX);
    }

    #[test]
    fn a_node_that_has_greeted_goes_for_no_silent_stranger() {
        let mut strangers = Strangers::default();
        assert_eq!(strangers.add(0, address(1)), None);
        assert_eq!((strangers.greet(0), strangers.greet(0)), (None, None));
        let gone: Vec<usize> = (1..=1_000).filter_map(|serial| strangers.add(serial, address(1))).collect();
        assert_eq!(gone.first(), Some(&1));
        for serial in 1_001..1_000 + STRANGERS_MAX {
            assert_eq!((strangers.add(serial, address(2)), strangers.greet(serial)), (None, None));
        }
        assert_eq!(strangers.greet(5_000), Some(0), "recordings do not fill the memory either");
    }

    #[test]
    fn many_lines_become_some_and_a_count() {
        let (mut lines, at) = (Lines::default(), |ms| Mono(0).plus_ms(ms));
        let written = (0..500).filter(|number| lines.line(format!("line {number}"), at(1_000)).is_some());
        assert_eq!(written.count(), LINES_MAX);
        assert_eq!(lines.summary(at(1_000 + LINES_MS - 1)), None);
        let summary = lines.summary(at(1_000 + LINES_MS)).unwrap();
        assert_eq!(summary, "495 more connections were cut; the last: line 499");
        assert_eq!(lines.summary(at(60_000)), None, "told once");
        assert_eq!(lines.line("again".into(), at(60_000)), Some("again".into()));
        assert_eq!(lines.summary(at(80_000)), None, "nothing was left out");
    }
}
