//! Log lines: they go to stderr, and also to a file where `log_file` names one. Each begins with the time in UTC, to
//! the millisecond.
//!
//! The file is opened again at HUP and USR1, before the next line, so that a tool can move it away.
//!
//! Not the lines of libraries: only this program's are written.
//!
//! Invariants: a line is written in one piece, because guardian and daemon write to the same file; stderr and the file
//! get the same lines.

use crate::model::config::Config;
use log::LevelFilter;
use rustix::fs::OFlags;
use signal_hook::consts::{SIGHUP, SIGUSR1};
use simplelog::{ConfigBuilder, FormatItem, LevelPadding, WriteLogger};
use std::fs::{File, OpenOptions};
use std::io::{LineWriter, Write, stderr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use time::macros::format_description;

/// The time of a line, by RFC 3339.
const MOMENT: &[FormatItem] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// Sets up the logger of this process; to be called once. Error: the file cannot be opened.
pub fn start(config: &Config) -> Result<(), String> {
    let is_to_reopen = Arc::new(AtomicBool::new(false));
    // Without a file as well: neither signal may end this process.
    for signal in [SIGHUP, SIGUSR1] {
        signal_hook::flag::register(signal, Arc::clone(&is_to_reopen))
            .map_err(|error| format!("start logging: {error}"))?;
    }
    let file = config.log_file.as_ref().map(|path| Ok::<_, String>((path.clone(), open(path)?))).transpose()?;
    let both = Both { file, is_to_reopen };
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
    file: Option<(PathBuf, File)>,
    is_to_reopen: Arc<AtomicBool>,
}

/// Opens the file so that a terminal does not become the one of this process.
fn open(path: &Path) -> Result<File, String> {
    let flags = OFlags::NOCTTY.bits() as i32;
    let file = OpenOptions::new().append(true).create(true).custom_flags(flags).open(path);
    file.map_err(|error| format!("open log_file {}: {error}", path.display()))
}

impl Both {
    /// Where the file cannot be opened again, the lines go on into the former one.
    fn reopen(&mut self) {
        let Some((path, file)) = &mut self.file else { return };
        match open(path) {
            Ok(anew) => *file = anew,
            Err(error) => _ = writeln!(stderr(), "wing-crontab: {error}; the former file is used on"),
        }
    }
}

impl Write for Both {
    /// Writes to each of the two, even where the other one fails. A failure could be reported nowhere else.
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.is_to_reopen.swap(false, Ordering::Relaxed) {
            self.reopen();
        }
        let _ = stderr().write_all(bytes);
        let _ = self.file.as_mut().map(|(_, file)| file.write_all(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
