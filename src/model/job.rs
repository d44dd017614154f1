//! A job: a row of table `cron`.
//!
//! Not the columns' values: those are in `columns`. Not the meaning of a schedule: that is in `core::jobs::schedule`.
//!
//! Invariant: an environment from `parse_env` can be given to a process.

use super::Second;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `cron.id`; the column is a signed 32-bit integer, so a valid id is 1 to 2,147,483,647.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct JobId(pub u32);

impl std::fmt::Display for JobId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a job's definition: it grows by one with every change by the API.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Version(pub u64);

impl Version {
    /// The version after a change.
    pub fn next(self) -> Version {
        Version(self.0 + 1)
    }
}

/// What becomes of a job's due seconds that were not handled in time but within the grace. Beyond the grace they are
/// always `missed`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Misfire {
    /// Each one is run late, the oldest first.
    #[default]
    All,
    /// Only the last one is run.
    Once,
    /// None is run.
    Skip,
}

impl Misfire {
    /// Every policy, in the order of the manual.
    pub const ALL: [Misfire; 3] = [Misfire::All, Misfire::Once, Misfire::Skip];
    /// Their words, in the same order.
    pub const WORDS: [&'static str; 3] = [Misfire::All.as_str(), Misfire::Once.as_str(), Misfire::Skip.as_str()];

    /// The word in the column and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Misfire::All => "all",
            Misfire::Once => "once",
            Misfire::Skip => "skip",
        }
    }

    /// The policy of a word; none where it is no such word.
    pub fn parse(text: &str) -> Option<Misfire> {
        Misfire::ALL.into_iter().find(|misfire| misfire.as_str() == text)
    }
}

/// What becomes of a lost run: one of which nobody knows whether it started, or how it ended.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnLost {
    /// No other attempt: it ran at most once.
    #[default]
    Skip,
    /// Another attempt: it runs at least once.
    Rerun,
}

impl OnLost {
    /// Every policy, in the order of the manual.
    pub const ALL: [OnLost; 2] = [OnLost::Skip, OnLost::Rerun];
    /// Their words, in the same order.
    pub const WORDS: [&'static str; 2] = [OnLost::Skip.as_str(), OnLost::Rerun.as_str()];

    /// The word in the column and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            OnLost::Skip => "skip",
            OnLost::Rerun => "rerun",
        }
    }

    /// The policy of a word; none where it is no such word.
    pub fn parse(text: &str) -> Option<OnLost> {
        OnLost::ALL.into_iter().find(|on_lost| on_lost.as_str() == text)
    }
}

/// A row of table `cron`. Where the message of a node of an earlier version lacks a field, the field has the value of a
/// new job.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct Job {
    pub id: JobId,
    pub cron_set: String,
    pub command: String,
    pub remark: String,
    pub stop: bool,
    /// The first Unix second at which it may run; 0: no bound.
    pub start_time: i64,
    /// The first Unix second at which it may no longer run; 0: no bound.
    pub end_time: i64,
    /// The cluster never has two runs of it at once.
    pub is_mutex: bool,
    /// A mutex run that takes longer is ended, in seconds; 0: no limit.
    pub lock_limit: u32,
    pub misfire: Misfire,
    pub on_lost: OnLost,
    /// The most runs of it at one time in the whole cluster; further due runs wait for a permit. 0: no limit.
    pub max_parallel: u32,
    /// A run that takes longer is ended, in seconds; 0: no limit.
    pub timeout: u32,
    /// How many further attempts follow one that failed.
    pub retry_times: u32,
    /// The delay before the first further attempt, in seconds; it doubles before each one after that.
    pub retry_delay: u32,
    /// The user that its processes run as; empty: the daemon's.
    pub run_as: String,
    /// The folder in which they start; empty: the daemon's.
    pub work_dir: String,
    /// A JSON object of further environment variables; empty: none.
    pub env: String,
    /// The program that gets `-c COMMAND`; empty: the configured one.
    pub shell: String,
    /// The only server, or the label of the only servers, that may run it; empty: any.
    pub node: String,
    /// It is due up to so many seconds after its schedule, by an offset of its own that never changes.
    pub jitter: u32,
    pub version: Version,
    /// The first second at which this definition was there; 0 for rows written by hand.
    pub since: Second,
}

/// The jobs that `/cron/list` asks for.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct JobFilter {
    /// A text that `cron_set`, `command` or `remark` contains, taken literally, or the id.
    pub search: Option<String>,
    /// From 1.
    pub page: u64,
    /// Jobs a page, 1 to 10,000.
    pub limit: u64,
}

impl JobFilter {
    /// Jobs before the page.
    pub fn offset(&self) -> u64 {
        self.page.saturating_sub(1).saturating_mul(self.limit)
    }

    /// The id that the search names, if it is a number.
    pub fn id(&self) -> Option<u32> {
        self.search.as_ref()?.trim().parse().ok()
    }
}

/// Jobs in order of their ids.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct JobPage {
    pub jobs: Vec<Job>,
    /// How many jobs the filter matches in all; none where there was no filter, and these are all jobs.
    pub total: Option<u64>,
}

/// The variables that column `env` names; the error says what is wrong with it.
pub fn parse_env(text: &str) -> Result<BTreeMap<String, String>, String> {
    let variables: BTreeMap<String, String> = if text.trim().is_empty() {
        BTreeMap::new()
    } else {
        serde_json::from_str(text)
            .map_err(|error| format!("a JSON object of texts is expected, such as {{\"LANG\":\"C\"}}: {error}"))?
    };
    for (name, value) in &variables {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(format!("{name:?} cannot be a variable: a name has no = and neither it nor its value a NUL"));
        }
        if name.starts_with("WING_") {
            return Err(format!("{name}: names that begin with WING_ are the daemon's own"));
        }
    }
    Ok(variables)
}

/// The text with LF at the ends of lines. Browsers send CR LF, and a shell takes the CR for a part of the line.
pub fn with_lf(text: &str) -> String {
    text.replace("\r\n", "\n")
}

impl Job {
    /// The command as the shell gets it behind `-c`. Its lines end with LF, even where another program wrote the row. A
    /// shell would take a command that begins with - or + for options, so such a command gets an empty line before it,
    /// which has no meaning in a shell or another language.
    pub fn script(&self) -> String {
        let empty_line = if self.command.starts_with(['-', '+']) { "\n" } else { "" };
        format!("{empty_line}{}", with_lf(&self.command))
    }

    /// How many runs of it the cluster may have at one time; none where there is no limit.
    pub fn parallel_max(&self) -> Option<usize> {
        match (self.is_mutex, self.max_parallel) {
            (true, _) => Some(1),
            (false, 0) => None,
            (false, count) => Some(count as usize),
        }
    }

    /// Whether the job may have a run at `second`, whatever its schedule.
    pub fn may_run_at(&self, second: Second) -> bool {
        !self.stop
            && self.since <= second
            && self.start_time <= second.0
            && (self.end_time == 0 || second.0 < self.end_time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(start_time: i64, end_time: i64, second: i64, expect: bool) {
        let job = Job { start_time, end_time, ..Job::default() };
        assert_eq!(job.may_run_at(Second(second)), expect);
    }

    #[test]
    fn the_window_takes_its_start_and_leaves_its_end() {
        check(0, 0, 5, true);
        check(5, 0, 4, false);
        check(5, 0, 5, true);
        check(0, 5, 4, true);
        check(0, 5, 5, false);
        check(5, 6, 5, true);
        check(5, 6, 6, false);
    }

    #[test]
    fn a_stopped_job_or_one_not_yet_there_has_no_run() {
        assert!(!Job { stop: true, ..Job::default() }.may_run_at(Second(9)));
        assert!(!Job { since: Second(10), ..Job::default() }.may_run_at(Second(9)));
        assert!(Job { since: Second(10), ..Job::default() }.may_run_at(Second(10)));
    }
}
