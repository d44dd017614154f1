//! The levels of callers.
//!
//! Invariant: each level includes the ones before it.

use serde::Serialize;
use std::fmt;
use std::str::FromStr;

/// What a caller may do.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// See everything.
    Read,
    /// Also start, stop, run and kill, pause, resume and drain.
    Operate,
    /// Also define jobs. Their commands are code that the daemon runs.
    Admin,
}

impl Level {
    /// The levels, for messages.
    pub const NAMES: &str = "read, operate or admin";

    /// The word by which files, arguments and answers name it.
    pub fn name(self) -> &'static str {
        match self {
            Level::Read => "read",
            Level::Operate => "operate",
            Level::Admin => "admin",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Level, String> {
        let all = [Level::Read, Level::Operate, Level::Admin];
        let found = all.into_iter().find(|level| level.name() == text);
        found.ok_or_else(|| format!("{text:?} is no level; {} is expected", Level::NAMES))
    }
}
