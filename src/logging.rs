//! Log lines: to stderr, and to a file as well where one is named.
//!
//! Invariant: only our own lines below warning; libraries may warn, not chat.

use crate::model::config::Config;
use log::LevelFilter;
use simplelog::{CombinedLogger, ConfigBuilder, SharedLogger, WriteLogger};
use std::fs::OpenOptions;

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

fn logger<W: std::io::Write + Send + 'static>(level: LevelFilter, target: W) -> Box<dyn SharedLogger> {
    let format = ConfigBuilder::new()
        .set_time_format_rfc3339()
        .set_thread_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off)
        .add_filter_allow_str("wing_crontab")
        .build();
    WriteLogger::new(level, format, target)
}
