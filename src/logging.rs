//! Log lines: to stderr, and to a file as well where one is named. Each opens with its moment in UTC, to the millisecond.
//!
//! Invariants: only our own lines, not those of libraries; a line is written whole, at once, because guardian and daemon
//! write to the same places.

use crate::model::config::Config;
use log::LevelFilter;
use simplelog::{CombinedLogger, ConfigBuilder, FormatItem, LevelPadding, SharedLogger, WriteLogger};
use std::fs::OpenOptions;
use std::io::{LineWriter, Write};
use time::macros::format_description;

/// RFC 3339.
const MOMENT: &[FormatItem] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// Sets the logger up for this process, once.
pub fn start(config: &Config) -> Result<(), String> {
    let mut loggers: Vec<Box<dyn SharedLogger>> = vec![logger(config.log_level, std::io::stderr())];
    if let Some(path) = &config.log_file {
        let file = OpenOptions::new().append(true).create(true).open(path);
        let file = file.map_err(|error| format!("open log_file {}: {error}", path.display()))?;
        loggers.push(logger(config.log_level, file));
    }
    CombinedLogger::init(loggers).map_err(|error| format!("start logging: {error}"))
}

fn logger<W: Write + Send + 'static>(level: LevelFilter, target: W) -> Box<dyn SharedLogger> {
    let format = ConfigBuilder::new()
        .set_time_format_custom(MOMENT)
        .set_level_padding(LevelPadding::Off)
        .set_thread_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off)
        .add_filter_allow_str("wing_crontab")
        .build();
    // The logger writes a line piece by piece.
    WriteLogger::new(level, format, LineWriter::new(target))
}
