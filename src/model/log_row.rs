//! A row of table `log`: the outcome of one run or attempt.
//!
//! Not the way of a row to the store: that is `core::log`.
//!
//! Invariant: a row that we write names its attempt and its state; only rows of the older system lack them.

use super::{Attempt, JobId, RunState, Second, Server, Usage, Version};
use serde::{Deserialize, Serialize};

/// A log row that is to be stored: what became of one attempt.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LogRow {
    pub attempt: Attempt,
    pub version: Version,
    pub state: RunState,
    /// The process's exit code; none where it died of a signal or there was no process.
    pub exit_code: Option<i32>,
    /// The command's output, as valid UTF-8 and within `max_output_bytes`, and the daemon's lines behind it.
    pub output: String,
    /// The wall-clock moment of the start in milliseconds; 0 where nothing was started.
    pub start_time_ms: i64,
    /// How long the command took, in milliseconds.
    pub use_time_ms: i64,
    /// What its processes took.
    #[serde(default)]
    pub usage: Usage,
    /// The second in which the leader sent the run to a node; 0 where it was not sent.
    pub dispatch_time: Second,
    /// The leader that decided on the run.
    pub dispatch_server: Server,
    /// The run's node; empty where no node had it.
    pub run_server: Server,
}

/// A log row as it is read back. The columns that rows of the older system lack are optional.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct StoredLog {
    pub id: i64,
    pub cron_id: JobId,
    /// The scheduled second.
    pub time: i64,
    pub output: String,
    pub use_time_ms: i64,
    pub dispatch_time: i64,
    pub dispatch_server: String,
    pub run_server: String,
    pub run_key: Option<String>,
    pub attempt: Option<u32>,
    pub state: Option<String>,
    pub exit_code: Option<i32>,
    pub start_time_ms: Option<i64>,
    pub version: Option<u64>,
    /// As in `Usage`. None in rows of earlier versions.
    #[serde(default)]
    pub cpu_ms: Option<u64>,
    #[serde(default)]
    pub memory_kb_max: Option<u64>,
}

/// A job's newest log row, in short.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LastRun {
    /// None in a row of the older system.
    pub state: Option<String>,
    /// The scheduled second.
    pub time: i64,
    pub use_time_ms: i64,
}

/// The rows that `/log/list` asks for. A field that is none matches every row.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct LogFilter {
    pub cron_id: Option<JobId>,
    /// A text that the output contains, taken literally.
    pub search: Option<String>,
    pub dispatch_server: Option<String>,
    pub run_server: Option<String>,
    /// From 1.
    pub page: u64,
    /// Rows a page, 1 to 10,000.
    pub limit: u64,
}

/// Newest first.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct LogPage {
    pub rows: Vec<StoredLog>,
    /// How many rows the filter matches in all.
    pub total: u64,
    /// The page ended before its limit, because its rows came to `PAGE_BYTES_MAX`.
    #[serde(default)]
    pub is_truncated: bool,
}

/// The most bytes of a page's rows as JSON. A row that alone is larger is a page of its own.
pub const PAGE_BYTES_MAX: usize = 8 << 20;

impl LogPage {
    /// Adds the next row. False: it has no place on the page any more.
    pub fn push(&mut self, row: StoredLog, bytes: &mut usize) -> bool {
        *bytes += row.json_bytes_max();
        self.is_truncated = PAGE_BYTES_MAX < *bytes && !self.rows.is_empty();
        if !self.is_truncated {
            self.rows.push(row);
        }
        !self.is_truncated
    }
}

impl StoredLog {
    /// No more bytes than the row has as JSON.
    fn json_bytes_max(&self) -> usize {
        /// Names, numbers and punctuation.
        const BESIDE_TEXTS: usize = 400;
        let texts = [&self.output, &self.dispatch_server, &self.run_server];
        let own = [&self.run_key, &self.state].into_iter().flatten();
        BESIDE_TEXTS + texts.into_iter().chain(own).map(|text| json_bytes(text)).sum::<usize>()
    }
}

/// The bytes of a text in JSON, without its quotes.
fn json_bytes(text: &str) -> usize {
    let bytes_of = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 8 | 12 => 2,
        0..0x20 => 6,
        _ => 1,
    };
    text.bytes().map(bytes_of).sum()
}
