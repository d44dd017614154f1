//! The spool file of a former daemon: its readable rows are kept, in their order, and everything else is set aside.
//!
//! The bytes are the file; only a line that begins with `=` is written with its checksum, which no fuzzer guesses.

use sha2::{Digest, Sha256};
use std::fs;
use std::path::Path;
use wing_crontab::core::io::ports::{Spool, SpoolLeft, Spooled};
use wing_crontab::model::LogRow;
use wing_crontab::worker::spool::SpoolFile;

pub fn check(bytes: &[u8]) {
    let folder = folder();
    let path = folder.path().join("spool");
    let (text, rows) = file(bytes);
    fs::write(&path, &text).unwrap();
    let (mut spool, kept, notice) = SpoolFile::open(folder.path()).expect("a damaged spool is no error");
    assert_eq!(read(&mut spool, &kept), rows, "its rows");
    assert!(fs::metadata(&path).unwrap().len() <= text.len() as u64);
    if notice.is_some() {
        assert_eq!(fs::read(path.with_extension("damaged")).unwrap(), text, "nothing of a damaged file is lost");
    }
    let more: Vec<LogRow> = rows.into_iter().rev().collect();
    if !more.is_empty() {
        let appended = spool.carry_out(Spool::Append(more.clone().into()));
        assert!(matches!(appended, Ok(Spooled::Chunk(_))), "{appended:?}");
    }
    is_whole_now(folder.path(), more);
}

/// The next daemon finds the rows twice, now the other way round, and no damage.
fn is_whole_now(folder: &Path, mut reversed: Vec<LogRow>) {
    let (mut spool, kept, notice) = SpoolFile::open(folder).unwrap();
    assert_eq!(notice, None, "damage is told once");
    let mut expected = reversed.clone();
    expected.reverse();
    expected.append(&mut reversed);
    assert_eq!(read(&mut spool, &kept), expected);
}

/// Every row, and what was told of it at the start.
fn read(spool: &mut SpoolFile, kept: &SpoolLeft) -> Vec<LogRow> {
    let mut rows = Vec::new();
    for chunk in &kept.chunks {
        match spool.carry_out(Spool::Read(*chunk)) {
            Ok(Spooled::Rows(read)) => rows.extend(read),
            other => panic!("a chunk that was found cannot be read: {other:?}"),
        }
    }
    assert!(rows.iter().map(|row| row.attempt).eq(kept.attempts.iter().copied()));
    rows
}

/// The text of the file, and the rows in it that can be read.
fn file(bytes: &[u8]) -> (Vec<u8>, Vec<LogRow>) {
    let (mut text, mut rows) = (Vec::new(), Vec::new());
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let line = match line.strip_prefix(b"=") {
            Some(json) => [sum(json.strip_suffix(b"\n").unwrap_or(json)).as_bytes(), b" ", json].concat(),
            None => line.to_vec(),
        };
        rows.extend(row(&line));
        text.extend(line);
    }
    (text, rows)
}

fn row(line: &[u8]) -> Option<LogRow> {
    let line = line.strip_suffix(b"\n")?;
    let json = line.get(17..)?;
    if line[..17] != *format!("{} ", sum(json)).as_bytes() {
        return None;
    }
    serde_json::from_slice(json).ok()
}

fn sum(json: &[u8]) -> String {
    Sha256::digest(json)[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// In memory where that can be: a fuzzer makes thousands a second.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}
