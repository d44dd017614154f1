//! A job: a row of table `cron`. What each column takes stands in `columns`; whether the schedule can be understood is for
//! `core::schedule` to say.

use super::Second;
use super::columns::new_job;
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

/// Which definition of a job: grows by one with every change that the API makes.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Version(pub u64);

impl Version {
    pub fn next(self) -> Version {
        Version(self.0 + 1)
    }
}

/// What becomes of ticks that were not handled in their second, within the grace. Beyond it they are `missed`, whatever
/// this says.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Misfire {
    /// Each runs, late, the oldest first.
    #[default]
    All,
    /// Only the last of them runs.
    Once,
    /// None runs.
    Skip,
}

impl Misfire {
    pub const ALL: [Misfire; 3] = [Misfire::All, Misfire::Once, Misfire::Skip];
    pub const WORDS: [&'static str; 3] = [Misfire::All.as_str(), Misfire::Once.as_str(), Misfire::Skip.as_str()];

    pub const fn as_str(self) -> &'static str {
        match self {
            Misfire::All => "all",
            Misfire::Once => "once",
            Misfire::Skip => "skip",
        }
    }

    pub fn parse(text: &str) -> Option<Misfire> {
        Misfire::ALL.into_iter().find(|misfire| misfire.as_str() == text)
    }
}

/// What becomes of a run that was lost: nobody can say whether it started, or how it ended.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnLost {
    /// Nothing: it ran at most once.
    #[default]
    Skip,
    /// Another attempt: it runs at least once.
    Rerun,
}

impl OnLost {
    pub const ALL: [OnLost; 2] = [OnLost::Skip, OnLost::Rerun];
    pub const WORDS: [&'static str; 2] = [OnLost::Skip.as_str(), OnLost::Rerun.as_str()];

    pub const fn as_str(self) -> &'static str {
        match self {
            OnLost::Skip => "skip",
            OnLost::Rerun => "rerun",
        }
    }

    pub fn parse(text: &str) -> Option<OnLost> {
        OnLost::ALL.into_iter().find(|on_lost| on_lost.as_str() == text)
    }
}

/// What a message of a node of an earlier version does not tell is as in a new job.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default = "new_job")]
pub struct Job {
    pub id: JobId,
    pub cron_set: String,
    pub command: String,
    pub remark: String,
    pub stop: bool,
    /// The first second at which it may run (unix); 0: no bound.
    pub start_time: i64,
    /// The first second at which it may no longer run (unix); 0: no bound.
    pub end_time: i64,
    /// Never two runs of it at once, in the whole cluster.
    pub is_mutex: bool,
    /// A mutex run that holds longer is ended, in seconds; 0: no limit.
    pub lock_limit: u32,
    pub misfire: Misfire,
    pub on_lost: OnLost,
    /// Runs of it at one time in the whole cluster; what falls due beyond waits its turn. 0: no limit.
    pub max_parallel: u32,
    /// A run that takes longer is ended, in seconds; 0: no limit.
    pub timeout: u32,
    /// So many further attempts after one that failed.
    pub retry_times: u32,
    /// Before the first of them, in seconds; doubled before each further one.
    pub retry_delay: u32,
    /// The user that its processes run as; empty: the daemon's.
    pub run_as: String,
    /// Where they start; empty: in the daemon's own directory.
    pub work_dir: String,
    /// A JSON object of further environment variables; empty: none.
    pub env: String,
    /// The program that gets `-c COMMAND`; empty: the configured one.
    pub shell: String,
    /// The only server, or the label of the only servers, that may run it; empty: any.
    pub node: String,
    /// It is due up to so many seconds later than its schedule says: by a number of its own that never changes.
    pub jitter: u32,
    pub version: Version,
    /// The first second at which this definition was there; 0 for rows written by hand.
    pub since: Second,
}

/// Which jobs `/cron/list` asks for.
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

/// Jobs by id.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct JobPage {
    pub jobs: Vec<Job>,
    /// How many the filter matches in all; none where there was no filter and these are all.
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

/// Lines that end with CR LF, as browsers send them, end with LF: a shell takes CR for a part of the line.
pub fn with_lf(text: &str) -> String {
    text.replace("\r\n", "\n")
}

impl Job {
    /// The command as it is given to the shell behind `-c`: rows that others have written may have CR LF in them, and what
    /// begins with a sign would be read as the shell's own options. A line before it changes nothing, to a shell or to any
    /// other language.
    pub fn script(&self) -> String {
        let sign = if self.command.starts_with(['-', '+']) { "\n" } else { "" };
        format!("{sign}{}", with_lf(&self.command))
    }

    /// How many runs of it may go at one time, where that is limited.
    pub fn parallel_max(&self) -> Option<usize> {
        match (self.is_mutex, self.max_parallel) {
            (true, _) => Some(1),
            (false, 0) => None,
            (false, count) => Some(count as usize),
        }
    }

    /// Whether the job, schedule aside, may have a run at `second`.
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
