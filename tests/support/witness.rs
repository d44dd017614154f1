//! What the jobs themselves write down: the truth, from outside the program under test.
//!
//! A run appends a line to a file: a word, its attempt, its scheduled second, and the time in nanoseconds. A short line is
//! always appended whole.

use super::wait_to_see;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug)]
pub struct Witness {
    pub path: PathBuf,
}

/// One line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Seen {
    pub word: String,
    /// `WING_RUN_KEY#WING_ATTEMPT`.
    pub attempt: String,
    pub scheduled_at: i64,
    /// By the job's own clock.
    pub at_ns: i128,
}

impl Witness {
    pub fn new(folder: &Path, name: &str) -> Witness {
        Witness { path: folder.join(name) }
    }

    /// A command that writes `word` down.
    pub fn write(&self, word: &str) -> String {
        format!("echo {word} $WING_RUN_KEY#$WING_ATTEMPT $WING_SCHEDULED_AT $(date +%s%N) >> {}", self.path.display())
    }

    /// A command that writes `begin`, does `what`, and writes `end`.
    pub fn around(&self, what: &str) -> String {
        format!("{}; {what}; {}", self.write("begin"), self.write("end"))
    }

    pub fn read(&self) -> Vec<Seen> {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let seen = |line: &str| {
            let mut words = line.split(' ');
            let mut next = || words.next().unwrap_or_default().to_string();
            Seen {
                word: next(),
                attempt: next(),
                scheduled_at: next().parse().unwrap_or(0),
                at_ns: next().parse().unwrap_or(0),
            }
        };
        whole.lines().map(seen).collect()
    }

    pub fn count(&self, word: &str) -> usize {
        self.read().iter().filter(|seen| seen.word == word).count()
    }

    /// Waits until `word` was written so many times.
    #[track_caller]
    pub fn wait_count(&self, word: &str, count: usize) {
        wait_to_see(&format!("{count} times {word:?}"), || self.count(word), |written| count <= *written);
    }

    /// Waits until `word` was written so many times more than it is now.
    #[track_caller]
    pub fn wait_more(&self, word: &str, more: usize) {
        self.wait_count(word, self.count(word) + more);
    }

    /// Waits until every run that wrote `begin` has written `end`.
    #[track_caller]
    pub fn wait_all_ended(&self) {
        let counts = || ["begin", "end"].map(|word| self.count(word));
        wait_to_see("every run that began has ended", counts, |[begun, ended]| begun == ended);
    }

    /// Waits until a run of this second, or of a later one, has written something.
    #[track_caller]
    pub fn wait_for_second(&self, second: i64) {
        let what = format!("a run of second {second} or later");
        wait_to_see(&what, || self.last_second(), |last| *last >= Some(second));
    }

    /// The last second for which a run has written something.
    pub fn last_second(&self) -> Option<i64> {
        self.read().iter().map(|seen| seen.scheduled_at).max()
    }

    /// The seconds of the runs that wrote `word`, in the order in which they wrote it.
    pub fn seconds(&self, word: &str) -> Vec<i64> {
        self.read().iter().filter(|seen| seen.word == word).map(|seen| seen.scheduled_at).collect()
    }

    /// The same from the earliest second to the latest.
    pub fn sorted_seconds(&self, word: &str) -> Vec<i64> {
        let mut seconds = self.seconds(word);
        seconds.sort();
        seconds
    }

    /// The attempts that wrote `word`; panics if one wrote it twice.
    #[track_caller]
    pub fn attempts(&self, word: &str) -> Vec<String> {
        let mut attempts: Vec<String> =
            self.read().into_iter().filter(|seen| seen.word == word).map(|seen| seen.attempt).collect();
        attempts.sort();
        for pair in attempts.windows(2) {
            assert_ne!(pair[0], pair[1], "an attempt was started twice");
        }
        attempts
    }
}

/// The largest number of runs that were between `begin` and `end` at one time.
pub fn overlap_max<'a>(seen: impl IntoIterator<Item = &'a Seen>) -> i32 {
    let change = |seen: &Seen| (seen.at_ns, if seen.word == "begin" { 1 } else { -1 });
    let mut changes: Vec<(i128, i32)> = seen.into_iter().map(change).collect();
    changes.sort();
    let mut running = 0;
    changes.iter().fold(0, |most, (_, change)| {
        running += change;
        most.max(running)
    })
}
