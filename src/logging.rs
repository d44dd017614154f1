//! Log lines: they go to stderr, and also to a file where `log_file` names one. Each begins with the time in UTC, to
//! the millisecond.
//!
//! Not the lines of libraries: only this program's are written.
//!
//! Invariants: a line is written in one piece, because guardian and daemon write to the same file; stderr and the file
//! get the same lines.

use crate::model::config::Config;
use log::LevelFilter;
use simplelog::{ConfigBuilder, FormatItem, LevelPadding, WriteLogger};
use std::fs::{File, OpenOptions};
use std::io::{LineWriter, Write, stderr};
use time::macros::format_description;

/// The time of a line, by RFC 3339.
const MOMENT: &[FormatItem] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// Sets up the logger of this process; to be called once. Error: the file cannot be opened.
pub fn start(config: &Config) -> Result<(), String> {
    let open = |path: &std::path::PathBuf| {
        let file = OpenOptions::new().append(true).create(true).open(path);
        file.map_err(|error| format!("open log_file {}: {error}", path.display()))
    };
    let both = Both { file: config.log_file.as_ref().map(open).transpose()? };
    let format = ConfigBuilder::new()
        .set_time_format_custom(MOMENT)
        .set_level_padding(LevelPadding::Off)
        .set_thread_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off)
        .add_filter_allow_str("wing_crontab")
        .build();
    // The logger writes a line in pieces; `LineWriter` puts them together.
    WriteLogger::init(config.log_level, format, LineWriter::new(both))
        .map_err(|error| format!("start logging: {error}"))
}

/// Stderr and the file, as one target: two loggers would give a line two times.
struct Both {
    file: Option<File>,
}

impl Write for Both {
    /// Writes to each of the two, even where the other one fails. A failure could be reported nowhere else.
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _ = stderr().write_all(bytes);
        let _ = self.file.as_mut().map(|file| file.write_all(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
