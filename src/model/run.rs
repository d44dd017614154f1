//! Runs and attempts: their keys and their outcomes.
//!
//! Not how far a run has come: that is `status` for people, and the leader's and the node's own.
//!
//! Invariant: a key that is written as text and read back is the same key.

use super::{JobId, Second};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What the processes of an attempt took. None: not known.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Usage {
    /// Processor time, in milliseconds.
    pub cpu_ms: Option<u64>,
    /// The most memory at one time, in units of 1,024 bytes.
    pub memory_kb_max: Option<u64>,
}

/// One occurrence of a job: `cron_id-scheduled_at`, for manual runs `cron_id-scheduled_at-m<epoch>.<n>`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RunKey {
    pub cron_id: JobId,
    pub scheduled_at: Second,
    pub manual: Option<Manual>,
}

/// Tells the manual runs of one second apart: the leader's epoch, and a count within it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Manual {
    pub epoch: u64,
    pub count: u64,
}

impl RunKey {
    /// The key of the run that the schedule makes for this second.
    pub fn scheduled(cron_id: JobId, scheduled_at: Second) -> RunKey {
        RunKey { cron_id, scheduled_at, manual: None }
    }
}

impl fmt::Display for RunKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.cron_id, self.scheduled_at.0)?;
        match self.manual {
            Some(Manual { epoch, count }) => write!(f, "-m{epoch}.{count}"),
            None => Ok(()),
        }
    }
}

/// The text is not a run key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BadRunKey;

impl fmt::Display for BadRunKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a run key looks like 7-1700000000 or 7-1700000000-m3.1")
    }
}

impl FromStr for RunKey {
    type Err = BadRunKey;

    fn from_str(text: &str) -> Result<RunKey, BadRunKey> {
        fn number<T: FromStr>(text: &str) -> Result<T, BadRunKey> {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            if digits { text.parse().map_err(|_| BadRunKey) } else { Err(BadRunKey) }
        }
        let (cron_id, rest) = text.split_once('-').ok_or(BadRunKey)?;
        let (second, manual) = match rest.split_once("-m") {
            None => (rest, None),
            Some((second, manual)) => {
                let (epoch, count) = manual.split_once('.').ok_or(BadRunKey)?;
                (second, Some(Manual { epoch: number(epoch)?, count: number(count)? }))
            }
        };
        Ok(RunKey { cron_id: JobId(number(cron_id)?), scheduled_at: Second(number(second)?), manual })
    }
}

impl Serialize for RunKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RunKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<RunKey, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// One process started for a run; unique by both fields. A run's first attempt has number 1; number 0 stands for a run
/// that came to no attempt (skipped, shed, missed).
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Attempt {
    pub run: RunKey,
    pub number: u32,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.run, self.number)
    }
}

/// The one visible outcome of a run (column `log.state`).
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// The command exited with 0.
    Ok,
    /// The command exited with another code, a signal ended it, or it could not be started.
    Failed,
    /// It ran for longer than it may (`lock_limit`, `timeout`) and was ended.
    Timeout,
    /// It was ended by an operator, by the daemon's shutdown, or at the end of a lease.
    Killed,
    /// The job was stopped, changed or deleted before the run started.
    Cancelled,
    /// It fell due while too many earlier runs of its job were waiting.
    Skipped,
    /// No node had capacity for it.
    Shed,
    /// It was not started in time: the grace was over, or its job is not to be run late (`misfire`).
    Missed,
    /// Nobody knows whether it started, or how it ended. The one state that every other may replace.
    Lost,
}

impl RunState {
    /// Every state.
    pub const ALL: [RunState; 9] = [
        RunState::Ok,
        RunState::Failed,
        RunState::Timeout,
        RunState::Killed,
        RunState::Cancelled,
        RunState::Skipped,
        RunState::Shed,
        RunState::Missed,
        RunState::Lost,
    ];

    /// The word in table `log` and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            RunState::Ok => "ok",
            RunState::Failed => "failed",
            RunState::Timeout => "timeout",
            RunState::Killed => "killed",
            RunState::Cancelled => "cancelled",
            RunState::Skipped => "skipped",
            RunState::Shed => "shed",
            RunState::Missed => "missed",
            RunState::Lost => "lost",
        }
    }

    /// The state that a stored text names, if any.
    pub fn parse(text: &str) -> Option<RunState> {
        RunState::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_key_is_the_same_after_its_way_through_a_text() {
        for text in ["7-1700000000", "1538-0", "7-1700000000-m3.1"] {
            assert_eq!(text.parse::<RunKey>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn rubbish_is_not_a_run_key() {
        for text in
            ["", "7", "7-", "-7", "7--1", "+7-1", "7-1-m", "7-1-m3", "7-1-m3.", "7-1-x", "7-1 ", "99999999999-1"]
        {
            assert_eq!(text.parse::<RunKey>(), Err(BadRunKey), "{text:?}");
        }
    }

    #[test]
    fn every_state_reads_back_from_its_text() {
        for state in RunState::ALL {
            assert_eq!(RunState::parse(state.as_str()), Some(state));
        }
        assert_eq!(RunState::parse("OK"), None);
    }
}
