//! The whole outputs of runs that write more than a log row can hold: one file for each attempt, under data_dir.
//!
//! A file has all the bytes that its run has written, and behind them the last lines of the log row. So a position in
//! the file is a position in the output. One thread carries out all orders, one after the other.
//!
//! Not here: which outputs need a file; see `core::log::output`.
//!
//! Invariant: a file lacks no byte of the output so far: where an append fails, the file is removed.

use crate::core::io::ports::output_files::{FileAnswer, FileOrder, FilePart};
use crate::model::output::PART_BYTES_MAX;
use crate::model::{Attempt, Second};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

/// The folder of the files.
#[derive(Clone, Debug)]
pub struct OutputFiles(pub PathBuf);

impl OutputFiles {
    /// Carries the order out; `Retain` has no answer.
    pub fn carry_out(&self, order: FileOrder) -> Option<FileAnswer> {
        match order {
            FileOrder::Write { attempt, at, bytes } => {
                let result = self.write(attempt, at, &bytes).map_err(|error| self.give_up(attempt, &error));
                Some(FileAnswer::Written { attempt, bytes: bytes.len(), result })
            }
            FileOrder::Read { request, attempt, from } => {
                // A file that cannot be read counts as missing.
                let found = self.read(attempt, from).ok();
                Some(FileAnswer::Read { request, attempt, from, found })
            }
            FileOrder::Retain { before } => {
                if let Err(error) = self.retain(before) {
                    log::warn!("remove old files from {}: {error}", self.0.display());
                }
                None
            }
        }
    }

    fn path(&self, attempt: Attempt) -> PathBuf {
        self.0.join(format!("{}.{}", attempt.run, attempt.number))
    }

    fn write(&self, attempt: Attempt, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut options = OpenOptions::new();
        // Only the daemon's user may read the file, because outputs may hold secrets.
        options.append(true).create(at == 0).mode(0o600);
        if at == 0 {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        }
        let mut file = options.open(self.path(attempt))?;
        if file.metadata()?.len() != at {
            return Err(io::Error::other("another program has changed the length of the file"));
        }
        file.write_all(bytes)
    }

    /// Removes the file: half an output would look like a whole one, and a full disk needs the space. Answers the
    /// reason, for the log row.
    fn give_up(&self, attempt: Attempt, error: &io::Error) -> String {
        let path = self.path(attempt);
        let _ = fs::remove_file(&path);
        format!("write {}: {error}", path.display())
    }

    fn read(&self, attempt: Attempt, from: u64) -> io::Result<FilePart> {
        let file = File::open(self.path(attempt))?;
        let bytes_left = file.metadata()?.len().saturating_sub(from);
        let mut bytes = vec![0; bytes_left.min(PART_BYTES_MAX as u64) as usize];
        file.read_exact_at(&mut bytes, from)?;
        Ok(FilePart { is_end: bytes.len() as u64 == bytes_left, bytes })
    }

    fn retain(&self, before: Second) -> io::Result<()> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let age = entry.metadata()?.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
            if (age.as_secs() as i64) < before.0 {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{JobId, RunKey};

    fn attempt(number: u32) -> Attempt {
        Attempt { run: RunKey::scheduled(JobId(7), Second(100)), number }
    }

    fn write(files: &OutputFiles, at: u64, bytes: &[u8]) -> Result<(), String> {
        match files.carry_out(FileOrder::Write { attempt: attempt(1), at, bytes: bytes.to_vec() }) {
            Some(FileAnswer::Written { bytes: count, result, .. }) => {
                assert_eq!(count, bytes.len());
                result
            }
            other => panic!("{other:?}"),
        }
    }

    fn read(files: &OutputFiles, from: u64) -> Option<(Vec<u8>, bool)> {
        match files.carry_out(FileOrder::Read { request: 1, attempt: attempt(1), from }) {
            Some(FileAnswer::Read { found, .. }) => found.map(|found| (found.bytes, found.is_end)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_file_is_read_from_any_byte_on() {
        let folder = tempfile::tempdir().unwrap();
        let files = OutputFiles(folder.path().join("output"));
        assert_eq!(read(&files, 0), None);
        write(&files, 0, b"abc").unwrap();
        write(&files, 3, b"def").unwrap();
        assert_eq!(read(&files, 0), Some((b"abcdef".to_vec(), true)));
        assert_eq!(read(&files, 4), Some((b"ef".to_vec(), true)));
        assert_eq!(read(&files, 6), Some((Vec::new(), true)));
        assert_eq!(read(&files, u64::MAX), Some((Vec::new(), true)), "beyond the end is nothing");
        write(&files, 6, &vec![b'x'; PART_BYTES_MAX]).unwrap();
        let (bytes, is_end) = read(&files, 0).unwrap();
        assert_eq!((bytes.len(), is_end), (PART_BYTES_MAX, false));
        assert_eq!(read(&files, PART_BYTES_MAX as u64), Some((b"xxxxxx".to_vec(), true)));
    }

    #[test]
    fn a_file_that_cannot_be_appended_to_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let files = OutputFiles(folder.path().join("output"));
        write(&files, 0, b"abc").unwrap();
        assert!(write(&files, 5, b"def").unwrap_err().contains("7-100.1: another program has changed the length"));
        assert_eq!(read(&files, 0), None);
        assert!(write(&files, 3, b"def").is_err(), "it is not begun again in its middle");
        fs::write(folder.path().join("file"), "").unwrap();
        assert!(write(&OutputFiles(folder.path().join("file")), 0, b"abc").is_err());
    }

    #[test]
    fn old_files_are_removed_and_young_ones_stay() {
        let folder = tempfile::tempdir().unwrap();
        let files = OutputFiles(folder.path().join("output"));
        let retain = |second: i64| files.carry_out(FileOrder::Retain { before: Second(second) });
        assert!(retain(1).is_none(), "with no folder there is nothing to do");
        write(&files, 0, b"abc").unwrap();
        retain(1_700_000_000);
        assert!(read(&files, 0).is_some());
        retain(i64::from(u32::MAX));
        assert_eq!(read(&files, 0), None);
    }
}
