//! A job: a row of table `cron`. Whether its schedule can be understood is for `core::schedule` to say.

use super::Second;
use serde::{Deserialize, Serialize};

/// The limits of the table's columns, in characters.
pub const CRON_SET_CHARS_MAX: usize = 128;
pub const COMMAND_CHARS_MAX: usize = 2048;
pub const REMARK_CHARS_MAX: usize = 1024;

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

#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
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
    pub version: Version,
    /// The first second at which this definition was there; 0 for rows written by hand.
    pub since: Second,
}

impl Job {
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
