//! Log lines: to stderr, and to a file as well where one is named. Each opens with its moment in UTC, to the millisecond.
//!
//! Invariants: only our own lines, not those of libraries; a line is written whole, at once, because guardian and daemon
//! write to the same places.

use crate::model::config::Config;
use crate::worker::clock;
use jiff::Timestamp;
use log::{LevelFilter, Log, Metadata, Record};
use std::fs::{File, OpenOptions};
use std::io::Write;

struct Lines {
    level: LevelFilter,
    file: Option<File>,
}

/// Sets the logger up for this process, once.
pub fn start(config: &Config) -> Result<(), String> {
    let open = |path: &std::path::PathBuf| {
        let file = OpenOptions::new().append(true).create(true).open(path);
        file.map_err(|error| format!("open log_file {}: {error}", path.display()))
    };
    let file = config.log_file.as_ref().map(open).transpose()?;
    let lines = Lines { level: config.log_level, file };
    log::set_max_level(lines.level);
    log::set_boxed_logger(Box::new(lines)).map_err(|error| format!("start logging: {error}"))
}

impl Log for Lines {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.level() <= self.level && metadata.target().starts_with("wing_crontab")
    }

    fn log(&self, record: &Record) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let at = Timestamp::from_nanosecond(clock::now().wall.0.into()).unwrap_or(Timestamp::UNIX_EPOCH);
        let line = format!("{at:.3} [{}] {}\n", record.level(), record.args());
        // One lock for both keeps the order the same. Where a line cannot be written there is nowhere to say so.
        let mut stderr = std::io::stderr().lock();
        let _ = stderr.write_all(line.as_bytes());
        let _ = self.file.as_ref().map(|mut file| file.write_all(line.as_bytes()));
    }

    fn flush(&self) {}
}
