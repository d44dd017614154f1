//! One slot of the marks file: its words, and the checks that they must pass before anybody acts on them.
//!
//! The first word has the state in its lowest byte, and above it a checksum of the words that this state stands on: a
//! word that is written for the next state does not count yet. So one store changes state and checksum together, and a
//! daemon that is killed between two stores leaves a whole slot.
//!
//! Not here: the file around the slots.
//!
//! Invariant: a `Mark` that was read has values that this program can have written: a tag of ours, a pid of the
//! kernel's, a time that is not in the future.

use crate::core::io::{FoundMark, FoundState};
use crate::model::run::{Manual, RunKey};
use crate::model::{Attempt, Exit, JobId, Second, Version};
use crate::worker::process::cgroups;
use std::collections::BTreeMap;

/// How many words of 8 bytes a slot has. Those that have no name below are spare.
pub const SLOT_WORDS: usize = 16;
/// Tags are timer slacks in nanoseconds. They lie just above the usual 50,000, so a sleep in a command ends at most
/// `TAG_COUNT` ns (131 microseconds) later than without a tag.
pub const TAG_FIRST: u64 = 50_001;
pub const TAG_COUNT: u64 = 131_072;
/// The largest pid that any kernel gives.
const PID_MAX: u64 = 1 << 22;
/// The largest id of a job, and the last second of the year 9999.
const JOB_MAX: u64 = i32::MAX as u64;
const SECOND_MAX: u64 = 253_402_300_799;

/// Where the words of a slot are.
pub mod word {
    pub const STATE: usize = 0;
    pub const CRON_ID: usize = 1;
    pub const SCHEDULED_AT: usize = 2;
    /// 0: the run is by its schedule; else the epoch of a run by hand, plus one.
    pub const MANUAL_EPOCH: usize = 3;
    pub const MANUAL_COUNT: usize = 4;
    pub const NUMBER: usize = 5;
    pub const VERSION: usize = 6;
    pub const IS_MUTEX: usize = 7;
    pub const TAG: usize = 8;
    pub const PID: usize = 9;
    pub const PID_START: usize = 10;
    pub const EXIT: usize = 11;
    /// No process of the run was started before this, in clock ticks since boot.
    pub const NOT_BEFORE: usize = 12;
}

pub const FREE: u64 = 0;
pub const HELD: u64 = 1;
pub const STARTING: u64 = 2;
pub const STARTED: u64 = 3;
pub const ENDED: u64 = 4;
pub const UNKNOWN: u64 = 5;
/// The bits of the first word that are the state.
const STATE_BITS: u32 = 8;
/// In `word::EXIT`: the lower 32 bits are the signal that ended the process. Without it they are the exit code.
const BY_SIGNAL: u64 = 1 << 32;

/// The words of a slot, as they were at the time of reading.
pub type Words = [u64; SLOT_WORDS];

/// One slot, as it was at the time of reading.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    pub attempt: Attempt,
    pub version: Version,
    pub is_mutex: bool,
    pub tag: u64,
    /// 0 while it is not known.
    pub pid: u32,
    /// When that process was started, in clock ticks since boot. Where the pid is not known: no process of the run was
    /// started before this.
    pub pid_start: u64,
    /// When the mark said `starting`, in clock ticks since boot. 0: it has not yet, or a version said it that did not
    /// note when.
    pub starting_at: u64,
    pub(super) state: u64,
    pub(super) exit: u64,
}

/// What a slot's words are read with.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// The first layout of the file had no checksums.
    pub has_checksums: bool,
    /// Otherwise the host has started since, and all states are unknown.
    pub is_this_boot: bool,
    /// In clock ticks since boot: no process was started after this.
    pub now: u64,
}

impl Mark {
    /// Whether processes of the run may be alive.
    pub fn may_run(&self) -> bool {
        matches!(self.state, STARTING | STARTED)
    }

    /// The name of the run's control group; none where it cannot have one.
    pub fn cgroup(&self) -> Option<String> {
        cgroups::name(self.tag, self.starting_at).filter(|_| self.may_run())
    }

    /// Whether the run is being started, so that its pid is not known yet.
    pub fn is_starting(&self) -> bool {
        self.state == STARTING
    }

    pub(super) fn held(attempt: Attempt, version: Version, is_mutex: bool) -> Mark {
        Mark { attempt, version, is_mutex, tag: 0, pid: 0, pid_start: 0, starting_at: 0, state: HELD, exit: 0 }
    }

    pub(super) fn found(&self) -> FoundMark {
        let state = match self.state {
            HELD => FoundState::Held,
            STARTING | STARTED => FoundState::Started,
            ENDED if self.exit & BY_SIGNAL != 0 => FoundState::Ended(Exit::Signal(self.exit as u32 as i32)),
            ENDED => FoundState::Ended(Exit::Code(self.exit as u32 as i32)),
            _ => FoundState::Unknown,
        };
        FoundMark { attempt: self.attempt, version: self.version, is_mutex: self.is_mutex, state }
    }

    /// The words of this mark, its first one included.
    pub(super) fn words(&self) -> Words {
        let manual = self.attempt.run.manual;
        let mut words = [0; SLOT_WORDS];
        words[word::CRON_ID] = self.attempt.run.cron_id.0.into();
        words[word::SCHEDULED_AT] = self.attempt.run.scheduled_at.0 as u64;
        words[word::MANUAL_EPOCH] = manual.map_or(0, |manual| manual.epoch.saturating_add(1));
        words[word::MANUAL_COUNT] = manual.map_or(0, |manual| manual.count);
        words[word::NUMBER] = self.attempt.number.into();
        words[word::VERSION] = self.version.0;
        words[word::IS_MUTEX] = self.is_mutex.into();
        words[word::TAG] = self.tag;
        words[word::PID] = self.pid.into();
        words[word::PID_START] = if self.pid == 0 { 0 } else { self.pid_start };
        words[word::NOT_BEFORE] = self.starting_at;
        words[word::EXIT] = self.exit;
        words[word::STATE] = sealed(&words, self.state);
        words
    }
}

/// An exit as a slot has it.
pub fn exit_word(exit: Exit) -> u64 {
    match exit {
        Exit::Code(code) => u64::from(code as u32),
        Exit::Signal(signal) => u64::from(signal as u32) | BY_SIGNAL,
    }
}

/// The first word for this state: the state, and the checksum of the words that it stands on.
pub fn sealed(words: &Words, state: u64) -> u64 {
    let further: &[usize] = match state {
        STARTING => &[word::TAG, word::NOT_BEFORE],
        STARTED => &[word::TAG, word::PID, word::PID_START],
        ENDED => &[word::EXIT],
        _ => &[],
    };
    let mut sum = crc32fast::Hasher::new();
    sum.update(&state.to_le_bytes());
    words[word::CRON_ID..=word::IS_MUTEX].iter().for_each(|value| sum.update(&value.to_le_bytes()));
    further.iter().for_each(|at| sum.update(&words[*at].to_le_bytes()));
    u64::from(sum.finalize()) << STATE_BITS | state
}

/// Whether the slot has a run.
pub fn is_free(words: &Words) -> bool {
    words[word::STATE] == FREE
}

/// The mark in these words. Error: what cannot be true in them.
pub fn read(words: &Words, reading: Reading) -> Result<Mark, &'static str> {
    let first = words[word::STATE];
    let state = if reading.has_checksums { first & ((1 << STATE_BITS) - 1) } else { first };
    if !(HELD..=UNKNOWN).contains(&state) {
        return Err("its state is unknown");
    }
    if reading.has_checksums && sealed(words, state) != first {
        return Err("its checksum is another one");
    }
    let manual =
        words[word::MANUAL_EPOCH].checked_sub(1).map(|epoch| Manual { epoch, count: words[word::MANUAL_COUNT] });
    let (cron_id, second, number) = (words[word::CRON_ID], words[word::SCHEDULED_AT], words[word::NUMBER]);
    let number = u32::try_from(number).map_err(|_| "its attempt is out of range")?;
    if !(1..=JOB_MAX).contains(&cron_id) || SECOND_MAX < second || 1 < words[word::IS_MUTEX] {
        return Err("its run is out of range");
    }
    let run = RunKey { cron_id: JobId(cron_id as u32), scheduled_at: Second(second as i64), manual };
    let mark = Mark {
        version: Version(words[word::VERSION]),
        is_mutex: words[word::IS_MUTEX] != 0,
        state: if reading.is_this_boot { state } else { UNKNOWN },
        exit: words[word::EXIT],
        ..Mark::held(Attempt { run, number }, Version(0), false)
    };
    if mark.may_run() { with_processes(mark, words, reading) } else { Ok(mark) }
}

/// Keeps one mark of each run, the one that has come furthest: a run that was started must not be taken for one that is
/// held. Answers how many marks were dropped. No run of ours has two, but a copied block of the file may.
pub fn drop_twins(marks: &mut Vec<Mark>) -> usize {
    let mut furthest: BTreeMap<Attempt, Mark> = BTreeMap::new();
    for mark in marks.iter() {
        let known = furthest.entry(mark.attempt).or_insert(*mark);
        if known.state < mark.state {
            *known = *mark;
        }
    }
    let count = marks.len() - furthest.len();
    *marks = furthest.into_values().collect();
    count
}

/// The mark of a run that may have processes, with what they are known by.
fn with_processes(mut mark: Mark, words: &Words, reading: Reading) -> Result<Mark, &'static str> {
    mark.tag = words[word::TAG];
    if !(TAG_FIRST..TAG_FIRST + TAG_COUNT).contains(&mark.tag) {
        return Err("its tag is not one of ours");
    }
    if reading.has_checksums {
        mark.starting_at = words[word::NOT_BEFORE];
    }
    if mark.state == STARTED {
        let pid = words[word::PID];
        if !(1..=PID_MAX).contains(&pid) {
            return Err("its pid is out of range");
        }
        mark.pid = pid as u32;
        mark.pid_start = words[word::PID_START];
    } else {
        mark.pid_start = mark.starting_at;
    }
    // A tick begins while the other clock still says the one before.
    if reading.now + 1 < mark.pid_start { Err("its process starts in the future") } else { Ok(mark) }
}
