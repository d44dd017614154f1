//! The spool file under data_dir: log rows that the store has not taken yet. Each line is a checksum, a blank, and a
//! row as JSON.
//!
//! The next incarnation reads the rows back. Where the daemon died during a write, or the disk was full, the last line
//! may be cut off: it is dropped, and the mark of its run is still there. Any other line that cannot be read means that
//! the file is damaged: the file is set aside, and its other rows are kept.
//!
//! Not here: which rows are spooled, and when they are read back; see `core::log`.
//!
//! Invariants: a chunk is answered when it is on the disk; no row is written behind an incomplete line; the file has at
//! most `BYTES_MAX` bytes.

use crate::core::io::ports::{Chunk, GROUP_BYTES_MAX, GROUP_ROWS_MAX, Spool, SpoolLeft, Spooled};
use crate::model::LogRow;
use crate::model::config::OUTPUT_BYTES_MAX;
use crate::worker::own_files::open;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How much of the disk a long outage may take, in bytes. When the spool is full, rows wait in memory.
const BYTES_MAX: u64 = 1 << 30;
/// The bytes before a row: 16 hex digits of the checksum, and a blank.
const SUM_BYTES: usize = 17;

/// No row is longer: an output of `OUTPUT_BYTES_MAX` bytes has up to six times as many as JSON.
const LINE_BYTES_MAX: u64 = 8 * OUTPUT_BYTES_MAX as u64;

/// The open spool file.
#[derive(Debug)]
pub struct SpoolFile {
    path: PathBuf,
    file: File,
    /// The length of the file: the next chunk begins there.
    bytes: u64,
    bytes_max: u64,
    /// A chunk could not be read back, so the file will be set aside instead of emptied.
    is_damaged: bool,
}

/// The result of reading the file line by line.
#[derive(Default)]
struct Survey {
    kept: SpoolLeft,
    /// The length of the file up to its last whole line.
    good_bytes: u64,
    /// Some line is neither whole nor cut off.
    has_bad: bool,
    /// The chunk that is being gathered, and its number of rows.
    chunk: Chunk,
    chunk_rows: usize,
}

impl SpoolFile {
    /// Opens the file in `data_dir`. Answers what former incarnations left in it, and a message for the operator where
    /// the file is damaged.
    pub fn open(data_dir: &Path) -> io::Result<(SpoolFile, SpoolLeft, Option<String>)> {
        let path = data_dir.join("spool");
        let mut file = open(&path)?;
        let mut survey = Survey::of(&file)?;
        let mut notice = None;
        if survey.has_bad {
            let aside = path.with_extension("damaged");
            let whole = path.with_extension("new");
            copy_whole_lines(&file, &whole)?;
            fs::rename(&path, &aside)?;
            fs::rename(&whole, &path)?;
            file = open(&path)?;
            survey = Survey::of(&file)?;
            notice = Some(format!(
                "{} is damaged: it is set aside as {}, and {} log rows that can be read are kept",
                path.display(),
                aside.display(),
                survey.kept.attempts.len()
            ));
        }
        let bytes = survey.good_bytes;
        file.set_len(bytes)?;
        let spool = SpoolFile { path, file, bytes, bytes_max: BYTES_MAX, is_damaged: false };
        Ok((spool, survey.kept, notice))
    }

    /// Carries the work out. The error is for people.
    pub fn carry_out(&mut self, work: Spool) -> Result<Spooled, String> {
        let path = self.path.display().to_string();
        let what = match &work {
            Spool::Append(_) => "append to",
            Spool::Read(_) => "read",
            Spool::Empty => "empty",
        };
        let fail = |error: io::Error| format!("{what} the spool {path}: {error}");
        match work {
            Spool::Append(rows) => self.append(&rows).map(Spooled::Chunk).map_err(fail),
            Spool::Read(chunk) => self.read(chunk).map(Spooled::Rows).map_err(|error| {
                self.is_damaged = true;
                fail(error)
            }),
            Spool::Empty => self.empty().map(|()| Spooled::Emptied).map_err(fail),
        }
    }

    fn append(&mut self, rows: &Arc<[LogRow]>) -> io::Result<Chunk> {
        let mut text = Vec::new();
        rows.iter().try_for_each(|row| write_line(&mut text, row))?;
        let chunk = Chunk { at: self.bytes, bytes: text.len() as u64 };
        if self.bytes_max < chunk.at + chunk.bytes {
            let full = format!("it is full, with {} of at most {} bytes", self.bytes, self.bytes_max);
            return Err(io::Error::new(io::ErrorKind::StorageFull, full));
        }
        let written = self.file.write_all_at(&text, chunk.at).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Half a line must not stay: another row would be written behind it.
            let _ = self.file.set_len(chunk.at);
            return Err(error);
        }
        self.bytes += chunk.bytes;
        Ok(chunk)
    }

    fn read(&self, chunk: Chunk) -> io::Result<Vec<LogRow>> {
        let mut text = vec![0; chunk.bytes as usize];
        self.file.read_exact_at(&mut text, chunk.at)?;
        let lines = text.split_inclusive(|byte| *byte == b'\n');
        lines
            .map(|line| serde_json::from_slice(checked(line).ok_or_else(bad_line)?).map_err(io::Error::other))
            .collect()
    }

    fn empty(&mut self) -> io::Result<()> {
        if self.is_damaged {
            fs::rename(&self.path, self.path.with_extension("damaged"))?;
            self.file = open(&self.path)?;
            self.is_damaged = false;
        }
        self.file.set_len(0)?;
        self.bytes = 0;
        self.file.sync_data()
    }
}

impl Survey {
    fn of(file: &File) -> io::Result<Survey> {
        let mut survey = Survey::default();
        each_line(file, |line| survey.take(line))?;
        survey.end_chunk();
        Ok(survey)
    }

    fn take(&mut self, line: &[u8]) -> io::Result<()> {
        let Some(row) = row_of(line) else {
            self.has_bad |= !is_cut_off(line);
            return Ok(());
        };
        self.kept.attempts.push(row.attempt);
        self.chunk.bytes += line.len() as u64;
        self.chunk_rows += 1;
        self.good_bytes += line.len() as u64;
        if GROUP_ROWS_MAX <= self.chunk_rows || GROUP_BYTES_MAX as u64 <= self.chunk.bytes {
            self.end_chunk();
        }
        Ok(())
    }

    fn end_chunk(&mut self) {
        if self.chunk_rows != 0 {
            self.kept.chunks.push(self.chunk);
        }
        self.chunk = Chunk { at: self.good_bytes, bytes: 0 };
        self.chunk_rows = 0;
    }
}

fn each_line(file: &File, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut reader = BufReader::new(file.try_clone()?);
    let mut line = Vec::new();
    // What is longer than any row is no line of ours, and is read in pieces.
    while reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? != 0 {
        take(&line)?;
        line.clear();
    }
    Ok(())
}

/// Copies the lines whose rows can be read.
fn copy_whole_lines(from: &File, to: &Path) -> io::Result<()> {
    io::Seek::rewind(&mut from.try_clone()?)?;
    let mut file = BufWriter::new(open(to)?);
    file.get_ref().set_len(0)?;
    each_line(from, |line| if row_of(line).is_some() { file.write_all(line) } else { Ok(()) })?;
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

fn write_line(text: &mut Vec<u8>, row: &LogRow) -> io::Result<()> {
    let json = serde_json::to_vec(row)?;
    write!(text, "{} ", sum(&json))?;
    text.extend_from_slice(&json);
    text.push(b'\n');
    Ok(())
}

/// The row of a line; none where it cannot be read. The checksum alone does not tell: another version of the program may
/// write other rows.
fn row_of(line: &[u8]) -> Option<LogRow> {
    serde_json::from_slice(checked(line)?).ok()
}

/// The JSON of a line; none where the line is not whole.
fn checked(line: &[u8]) -> Option<&[u8]> {
    let (head, json) = line.strip_suffix(b"\n")?.split_at_checked(SUM_BYTES)?;
    (head.strip_suffix(b" ")? == sum(json).as_bytes()).then_some(json)
}

/// Whether this is the beginning of a line of this file, without its end. Only the last line can be.
fn is_cut_off(line: &[u8]) -> bool {
    let is_ours = |(at, byte): (usize, &u8)| if at + 1 < SUM_BYTES { byte.is_ascii_hexdigit() } else { *byte == b' ' };
    !line.ends_with(b"\n") && line.iter().take(SUM_BYTES).enumerate().all(is_ours)
}

fn sum(json: &[u8]) -> String {
    let digest = Sha256::digest(json);
    digest.iter().take((SUM_BYTES - 1) / 2).map(|byte| format!("{byte:02x}")).collect()
}

fn bad_line() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a line does not match its checksum")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Attempt, JobId, RunKey, RunState, Second, Server, Version};

    fn row(id: u32, output: &str) -> LogRow {
        LogRow {
            attempt: Attempt { run: RunKey::scheduled(JobId(id), Second(1_700_000_000)), number: 1 },
            version: Version(3),
            state: RunState::Failed,
            exit_code: Some(4),
            output: output.into(),
            start_time_ms: 5,
            use_time_ms: 6,
            usage: Default::default(),
            dispatch_time: Second(7),
            dispatch_server: Server("10.0.0.1:9991".into()),
            run_server: Server("10.0.0.2:9991".into()),
        }
    }

    fn append(spool: &mut SpoolFile, rows: &[LogRow]) -> Chunk {
        match spool.carry_out(Spool::Append(rows.into())) {
            Ok(Spooled::Chunk(chunk)) => chunk,
            other => panic!("{other:?}"),
        }
    }

    fn rows(spool: &mut SpoolFile, kept: &SpoolLeft) -> Vec<LogRow> {
        let read = |chunk: &Chunk| match spool.carry_out(Spool::Read(*chunk)) {
            Ok(Spooled::Rows(rows)) => rows,
            other => panic!("{other:?}"),
        };
        kept.chunks.iter().flat_map(read).collect()
    }

    #[test]
    fn the_next_incarnation_reads_every_row_back_and_none_from_an_emptied_spool() {
        let dir = tempfile::tempdir().unwrap();
        let (mut spool, kept, notice) = SpoolFile::open(dir.path()).unwrap();
        assert_eq!((kept, notice), (SpoolLeft::default(), None));
        let first = append(&mut spool, &[row(1, "a\nline\r\n\u{0}中\"\\"), row(2, "")]);
        append(&mut spool, &[row(3, "x")]);
        for _ in 0..2 {
            let (mut spool, kept, notice) = SpoolFile::open(dir.path()).unwrap();
            assert_eq!(notice, None);
            assert_eq!(kept.attempts, [1, 2, 3].map(|id| row(id, "").attempt));
            assert_eq!(rows(&mut spool, &kept), [row(1, "a\nline\r\n\u{0}中\"\\"), row(2, ""), row(3, "x")]);
            let one = SpoolLeft { chunks: vec![first], ..SpoolLeft::default() };
            assert_eq!(rows(&mut spool, &one).len(), 2, "a chunk is what was appended together");
        }
        assert_eq!(spool.carry_out(Spool::Empty), Ok(Spooled::Emptied));
        append(&mut spool, &[row(4, "after")]);
        let (mut spool, kept, _) = SpoolFile::open(dir.path()).unwrap();
        assert_eq!(rows(&mut spool, &kept), [row(4, "after")]);
    }

    #[test]
    fn a_line_that_was_cut_off_is_dropped_and_the_others_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (mut spool, _, _) = SpoolFile::open(dir.path()).unwrap();
        let second = {
            append(&mut spool, &[row(1, "whole")]);
            append(&mut spool, &[row(2, "cut")])
        };
        let text = fs::read(dir.path().join("spool")).unwrap();
        for len in second.at..second.at + second.bytes {
            fs::write(dir.path().join("spool"), &text[..len as usize]).unwrap();
            let (mut spool, kept, notice) = SpoolFile::open(dir.path()).unwrap();
            assert_eq!((kept.attempts.len(), notice), (1, None));
            append(&mut spool, &[row(3, "behind it")]);
            let (mut spool, kept, _) = SpoolFile::open(dir.path()).unwrap();
            assert_eq!(rows(&mut spool, &kept), [row(1, "whole"), row(3, "behind it")]);
        }
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_its_readable_rows_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spool");
        let (mut spool, _, _) = SpoolFile::open(dir.path()).unwrap();
        let chunks = [1, 2, 3].map(|id| append(&mut spool, &[row(id, "some output")]));
        let mut text = fs::read(&path).unwrap();
        text[chunks[1].at as usize + 40] ^= 1;
        let rubbish = [b"rubbish".to_vec(), b"rubbish\n".to_vec(), vec![7; 4_096]];
        for (text, left) in [(text, 2)].into_iter().chain(rubbish.map(|text| (text, 0))) {
            fs::write(&path, text).unwrap();
            let (mut spool, kept, notice) = SpoolFile::open(dir.path()).unwrap();
            assert!(notice.unwrap().contains("set aside"));
            assert_eq!(rows(&mut spool, &kept).len(), left);
            assert!(dir.path().join("spool.damaged").is_file());
            assert_eq!(SpoolFile::open(dir.path()).unwrap().2, None, "said once");
        }
    }

    #[test]
    fn a_row_that_another_version_wrote_costs_no_other_row() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spool");
        let (mut spool, _, _) = SpoolFile::open(dir.path()).unwrap();
        append(&mut spool, &[row(1, "x"), row(2, "x")]);
        let json = serde_json::to_string(&row(3, "x")).unwrap().replace("\"version\"", "\"revision\"");
        let foreign = format!("{} {json}\n", sum(json.as_bytes()));
        let text = fs::read(&path).unwrap();
        fs::write(&path, [foreign.as_bytes(), &text].concat()).unwrap();
        let (mut spool, kept, notice) = SpoolFile::open(dir.path()).unwrap();
        assert!(notice.unwrap().contains("2 log rows that can be read are kept"));
        assert_eq!(rows(&mut spool, &kept), [row(1, "x"), row(2, "x")]);
        assert!(fs::read(dir.path().join("spool.damaged")).unwrap().starts_with(foreign.as_bytes()));
    }

    #[test]
    fn a_file_that_is_damaged_while_it_is_in_use_is_set_aside_when_it_would_be_emptied() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spool");
        let (mut spool, _, _) = SpoolFile::open(dir.path()).unwrap();
        let chunk = append(&mut spool, &[row(1, "some output")]);
        let mut text = fs::read(&path).unwrap();
        text[40] ^= 1;
        fs::write(&path, text).unwrap();
        assert!(spool.carry_out(Spool::Read(chunk)).unwrap_err().contains("checksum"));
        assert_eq!(spool.carry_out(Spool::Empty), Ok(Spooled::Emptied));
        assert!(dir.path().join("spool.damaged").is_file());
        append(&mut spool, &[row(2, "")]);
        assert_eq!(SpoolFile::open(dir.path()).unwrap().1.attempts.len(), 1);
    }

    #[test]
    fn a_full_spool_refuses_rows_until_it_is_emptied() {
        let dir = tempfile::tempdir().unwrap();
        let (mut spool, _, _) = SpoolFile::open(dir.path()).unwrap();
        let bytes = append(&mut spool, &[row(1, "x")]).bytes;
        spool.bytes_max = 2 * bytes;
        append(&mut spool, &[row(2, "x")]);
        assert!(spool.carry_out(Spool::Append([row(3, "x")].into())).unwrap_err().contains("full"));
        spool.carry_out(Spool::Empty).unwrap();
        append(&mut spool, &[row(3, "x")]);
    }

    #[test]
    fn a_long_spool_is_read_back_in_chunks_of_a_groups_size() {
        let dir = tempfile::tempdir().unwrap();
        let (mut spool, _, _) = SpoolFile::open(dir.path()).unwrap();
        let many: Vec<LogRow> = (0..GROUP_ROWS_MAX as u32 + 1).map(|id| row(id, "x")).collect();
        append(&mut spool, &many);
        let (mut spool, kept, _) = SpoolFile::open(dir.path()).unwrap();
        assert_eq!(kept.chunks.len(), 2);
        assert_eq!(rows(&mut spool, &kept), many);
    }
}
