//! What the runs of this node have written: in memory, and beyond the cap in a file, where that is wanted.
//!
//! A run that is over stays readable until its log row can be read instead, and a moment longer for those who follow it.
//!
//! Invariants: a question is answered once; a part goes on exactly where the last one ended, whichever of the two it came
//! from; bytes on their way into files have a limit, beyond which no more are read of runs that need it.

use crate::model::output::{Output, OutputPart, OutputState, PART_BYTES_MAX};
use crate::model::status::RunStatus;
use crate::model::{Attempt, Mono, RunState};
use crate::worker::output_files::{FileAnswer, FileOrder, FilePart};
use std::collections::{BTreeMap, VecDeque};

/// After the row is committed: who asks from time to time has time to ask once more.
const KEEP_MS: u64 = 10_000;
/// What is kept of runs that are over; beyond it the oldest goes.
const OVER_MAX: usize = 4_096;
const OVER_BYTES_MAX: usize = 16 << 20;
/// Bytes on their way into files.
const UNWRITTEN_BYTES_MAX: usize = 8 << 20;

pub struct Outputs {
    bytes_max: usize,
    keeps_all: bool,
    runs: BTreeMap<Attempt, Run>,
    /// In the order of their ends.
    over: VecDeque<Attempt>,
    over_bytes: usize,
    to_forget: VecDeque<(Mono, Attempt)>,
    unwritten_bytes: usize,
    orders: VecDeque<FileOrder>,
    answers: VecDeque<(u64, Option<OutputPart>)>,
}

struct Run {
    output: Output,
    whole: Whole,
    /// Orders that are not carried out yet.
    unwritten: usize,
    /// Once its row is on its way.
    end: Option<(RunState, String)>,
    /// Nothing of the command's comes any more.
    is_closed: bool,
}

#[derive(Debug, Eq, PartialEq)]
enum Whole {
    /// All that was written is in memory.
    InMemory,
    /// All that was written is in the file, or on its way there.
    InFile,
    GivenUp(String),
}

impl Run {
    fn part(&self, from: u64) -> OutputPart {
        let last_lines = self.end.as_ref().map_or("", |(_, lines)| lines);
        let (bytes, next) = self.output.kept(last_lines).read(from, PART_BYTES_MAX);
        self.of(from, bytes, next)
    }

    fn of(&self, from: u64, bytes: Vec<u8>, next: u64) -> OutputPart {
        let (state, is_over) = match &self.end {
            Some((state, lines)) => (OutputState::Over(*state), self.output.kept(lines).end() <= next),
            None => (OutputState::Held(RunStatus::Running), false),
        };
        OutputPart { state, from, bytes, next, is_over }
    }

    fn bytes(&self) -> usize {
        self.output.bytes_kept() + self.end.as_ref().map_or(0, |(_, lines)| lines.len())
    }
}

impl Outputs {
    pub fn new(bytes_max: usize, keeps_all: bool) -> Outputs {
        Outputs {
            bytes_max,
            keeps_all,
            runs: BTreeMap::new(),
            over: VecDeque::new(),
            over_bytes: 0,
            to_forget: VecDeque::new(),
            unwritten_bytes: 0,
            orders: VecDeque::new(),
            answers: VecDeque::new(),
        }
    }

    pub fn begin(&mut self, attempt: Attempt) {
        let output = Output::new(self.bytes_max);
        let run = Run { output, whole: Whole::InMemory, unwritten: 0, end: None, is_closed: false };
        self.runs.insert(attempt, run);
    }

    pub fn push(&mut self, attempt: Attempt, bytes: &[u8]) {
        let Some(run) = self.runs.get_mut(&attempt) else { return };
        if self.keeps_all && run.whole == Whole::InMemory && run.output.bytes_free() < bytes.len() {
            run.whole = Whole::InFile;
            let (all, _) = run.output.kept("").read(0, usize::MAX);
            self.write(attempt, 0, all);
        }
        let Some(run) = self.runs.get_mut(&attempt) else { return };
        let at = run.output.bytes_written();
        run.output.push(bytes);
        if run.whole == Whole::InFile {
            self.write(attempt, at, bytes.to_vec());
        }
    }

    /// Whether so many bytes more have to wait until some are in the file.
    pub fn must_wait(&self, attempt: Attempt, bytes: usize) -> bool {
        let needs_file = |run: &Run| match run.whole {
            Whole::InMemory => run.output.bytes_free() < bytes,
            Whole::InFile => true,
            Whole::GivenUp(_) => false,
        };
        self.keeps_all && UNWRITTEN_BYTES_MAX <= self.unwritten_bytes && self.runs.get(&attempt).is_some_and(needs_file)
    }

    /// Whether it may still turn out that its file cannot be written, which its row should say.
    pub fn is_being_written(&self, attempt: Attempt) -> bool {
        self.runs.get(&attempt).is_some_and(|run| run.whole == Whole::InFile && run.unwritten != 0)
    }

    /// The command writes no more: the text for its log row.
    pub fn close(&mut self, attempt: Attempt) -> String {
        let Some(run) = self.runs.get_mut(&attempt) else { return String::new() };
        run.is_closed = true;
        if let Whole::GivenUp(reason) = &run.whole {
            run.output.push_line(&format!("[its whole output is not kept: {reason}]"));
        }
        run.output.to_text()
    }

    /// Its row is on its way, with these lines behind what the command wrote.
    pub fn end(&mut self, attempt: Attempt, state: RunState, last_lines: String) {
        let Some(run) = self.runs.get_mut(&attempt).filter(|run| run.is_closed && run.end.is_none()) else { return };
        let at = run.output.bytes_written();
        let for_file = (run.whole == Whole::InFile && !last_lines.is_empty()).then(|| last_lines.clone().into_bytes());
        run.end = Some((state, last_lines));
        self.over_bytes += run.bytes();
        self.over.push_back(attempt);
        if let Some(bytes) = for_file {
            self.write(attempt, at, bytes);
        }
        while OVER_MAX < self.over.len() || OVER_BYTES_MAX < self.over_bytes {
            let Some(oldest) = self.over.front().copied() else { return };
            self.forget(oldest);
        }
    }

    /// Its row is committed: soon nobody needs it here.
    pub fn forget_soon(&mut self, attempt: Attempt, now: Mono) {
        if self.runs.get(&attempt).is_some_and(|run| run.end.is_some()) {
            self.to_forget.push_back((now.plus_ms(KEEP_MS), attempt));
        }
    }

    pub fn sweep(&mut self, now: Mono) {
        while let Some((_, attempt)) = self.to_forget.front().filter(|(at, _)| *at <= now).copied() {
            self.to_forget.pop_front();
            self.forget(attempt);
        }
    }

    /// `take_answer` will tell, at once or when the file was read.
    pub fn read(&mut self, request: u64, attempt: Attempt, from: u64) {
        match self.runs.get(&attempt) {
            Some(run) if run.whole != Whole::InFile || run.output.tail_start() <= from => {
                self.answers.push_back((request, Some(run.part(from))));
            }
            // Of a run that is long over there may be a file.
            _ => self.orders.push_back(FileOrder::Read { request, attempt, from }),
        }
    }

    pub fn on_file_answer(&mut self, answer: FileAnswer) {
        match answer {
            FileAnswer::Written { attempt, bytes, result } => {
                self.unwritten_bytes -= bytes;
                let Some(run) = self.runs.get_mut(&attempt) else { return };
                run.unwritten -= 1;
                if let (Err(reason), Whole::InFile) = (result, &run.whole) {
                    log::warn!("attempt={attempt}: its whole output is not kept: {reason}");
                    run.whole = Whole::GivenUp(reason);
                }
            }
            FileAnswer::Read { request, attempt, from, found } => {
                let part = match (self.runs.get(&attempt), found) {
                    (Some(run), Some(found)) => {
                        let next = from + found.bytes.len() as u64;
                        Some(run.of(from, found.bytes, next))
                    }
                    (Some(run), None) => Some(run.part(from)),
                    (None, found) => found.map(|found| of_file(found, from)),
                };
                self.answers.push_back((request, part));
            }
        }
    }

    pub fn take_order(&mut self) -> Option<FileOrder> {
        self.orders.pop_front()
    }

    /// The number of a question, and its answer.
    pub fn take_answer(&mut self) -> Option<(u64, Option<OutputPart>)> {
        self.answers.pop_front()
    }

    fn write(&mut self, attempt: Attempt, at: u64, bytes: Vec<u8>) {
        self.unwritten_bytes += bytes.len();
        if let Some(run) = self.runs.get_mut(&attempt) {
            run.unwritten += 1;
        }
        self.orders.push_back(FileOrder::Write { attempt, at, bytes });
    }

    fn forget(&mut self, attempt: Attempt) {
        if let Some(at) = self.over.iter().position(|over| *over == attempt) {
            self.over.remove(at);
            self.over_bytes -= self.runs.remove(&attempt).map_or(0, |run| run.bytes());
        }
    }
}

/// How a run ended of which only the file is left, its row tells.
fn of_file(found: FilePart, from: u64) -> OutputPart {
    let next = from + found.bytes.len() as u64;
    OutputPart { is_over: found.is_end, bytes: found.bytes, next, ..OutputPart::empty(RunStatus::Unknown, from) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{JobId, RunKey, Second};
    use crate::worker::output_files::OutputFiles;

    fn attempt(id: u32) -> Attempt {
        Attempt { run: RunKey::scheduled(JobId(id), Second(100)), number: 1 }
    }

    /// The thread's part.
    fn carry_out(outputs: &mut Outputs, files: &OutputFiles) {
        while let Some(order) = outputs.take_order() {
            files.carry_out(order).into_iter().for_each(|answer| outputs.on_file_answer(answer));
        }
    }

    fn read(outputs: &mut Outputs, files: &OutputFiles, from: u64) -> Option<OutputPart> {
        outputs.read(9, attempt(1), from);
        carry_out(outputs, files);
        let (request, part) = outputs.take_answer().expect("it answers");
        assert_eq!((request, outputs.take_answer()), (9, None));
        part
    }

    #[test]
    fn a_follower_gets_each_byte_once_before_and_after_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let files = OutputFiles(folder.path().join("output"));
        for keeps_all in [false, true] {
            let mut outputs = Outputs::new(10, keeps_all);
            outputs.begin(attempt(1));
            let (mut seen, mut from) = (Vec::new(), 0);
            for at in 0..26 {
                outputs.push(attempt(1), &[b'a' + at]);
                if at % 3 == 0 {
                    let part = read(&mut outputs, &files, from).unwrap();
                    assert!(!part.is_over);
                    seen.extend(part.bytes);
                    from = part.next;
                }
            }
            outputs.close(attempt(1));
            assert!(!read(&mut outputs, &files, from).unwrap().is_over, "how it ended is not known yet");
            outputs.end(attempt(1), RunState::Failed, "\n[exit code 3]\n".into());
            let part = read(&mut outputs, &files, from).unwrap();
            seen.extend(part.bytes);
            assert_eq!(String::from_utf8(seen).unwrap(), "abcdefghijklmnopqrstuvwxyz\n[exit code 3]\n");
            assert_eq!((part.state, part.is_over), (OutputState::Over(RunState::Failed), true));
            let whole = read(&mut outputs, &files, 0).unwrap();
            let expect = match keeps_all {
                true => "abcdefghijklmnopqrstuvwxyz\n[exit code 3]\n",
                false => "abcde\n[... 16 bytes left out ...]\nvwxyz\n[exit code 3]\n",
            };
            assert_eq!(String::from_utf8(whole.bytes).unwrap(), expect);
            assert_eq!((whole.next, whole.is_over), (part.next, true));
            outputs.forget_soon(attempt(1), Mono(0));
            outputs.sweep(Mono(0).plus_ms(KEEP_MS - 1));
            assert!(outputs.runs.contains_key(&attempt(1)));
            outputs.sweep(Mono(0).plus_ms(KEEP_MS));
            assert!(outputs.runs.is_empty() && outputs.over_bytes == 0);
            let later = read(&mut outputs, &files, 3);
            assert_eq!(later.map(|part| (part.bytes.len(), part.is_over)), keeps_all.then_some((38, true)));
        }
    }

    #[test]
    fn a_file_is_begun_only_beyond_the_cap() {
        let mut outputs = Outputs::new(10, true);
        outputs.begin(attempt(1));
        outputs.push(attempt(1), b"abcdefgh");
        outputs.push(attempt(1), b"ij");
        assert!(outputs.take_order().is_none());
        outputs.push(attempt(1), b"k");
        let mut writes = Vec::new();
        while let Some(FileOrder::Write { at, bytes, .. }) = outputs.take_order() {
            writes.push((at, bytes));
        }
        assert_eq!(writes, [(0, b"abcdefghij".to_vec()), (10, b"k".to_vec())]);
    }

    #[test]
    fn a_disk_that_takes_nothing_is_told_in_the_row_and_costs_only_the_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        let files = OutputFiles(folder.path().join("file"));
        let mut outputs = Outputs::new(1_000, true);
        outputs.begin(attempt(1));
        outputs.push(attempt(1), &[b'x'; 2_000]);
        assert!(outputs.is_being_written(attempt(1)));
        carry_out(&mut outputs, &files);
        assert!(!outputs.is_being_written(attempt(1)));
        outputs.push(attempt(1), b"the end");
        let text = outputs.close(attempt(1));
        assert!(
            text.contains("bytes left out ...]\n") && text.contains("the end\n[its whole output is not kept: write ")
        );
        outputs.end(attempt(1), RunState::Ok, String::new());
        let part = read(&mut outputs, &files, 0).unwrap();
        assert_eq!((String::from_utf8(part.bytes).unwrap(), part.is_over), (text, true));
    }

    #[test]
    fn who_writes_faster_than_the_disk_waits_and_who_needs_no_file_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let files = OutputFiles(folder.path().join("output"));
        let mut outputs = Outputs::new(1 << 20, true);
        outputs.begin(attempt(1));
        outputs.begin(attempt(2));
        while !outputs.must_wait(attempt(1), 1_000) {
            outputs.push(attempt(1), &[0; 64 << 10]);
            assert!(outputs.unwritten_bytes <= UNWRITTEN_BYTES_MAX + (2 << 20));
        }
        assert!(!outputs.must_wait(attempt(2), 1_000));
        assert!(outputs.must_wait(attempt(2), 2 << 20));
        carry_out(&mut outputs, &files);
        assert!(!outputs.must_wait(attempt(1), 1_000));
        assert_eq!(outputs.unwritten_bytes, 0);
    }

    #[test]
    fn what_is_over_has_a_limit_and_what_runs_stays() {
        let mut outputs = Outputs::new(1 << 20, false);
        outputs.begin(attempt(1));
        for id in 2..=30 {
            outputs.begin(attempt(id));
            outputs.push(attempt(id), &vec![b'x'; 1 << 20]);
            outputs.close(attempt(id));
            outputs.end(attempt(id), RunState::Ok, String::new());
        }
        assert_eq!((outputs.runs.len(), outputs.over_bytes), (17, OVER_BYTES_MAX));
        assert!(outputs.runs.contains_key(&attempt(1)) && outputs.runs.contains_key(&attempt(30)));
        for id in 31..=31 + OVER_MAX as u32 {
            outputs.begin(attempt(id));
            outputs.close(attempt(id));
            outputs.end(attempt(id), RunState::Ok, String::new());
        }
        assert_eq!(outputs.runs.len(), OVER_MAX + 1);
    }
}
