//! What the jobs themselves write down: the ground truth, outside the system under test.
//!
//! A job appends `word scheduled_at nanoseconds` lines to a file; appends of a short line are whole.

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
