//! The outputs that this node holds: each is in memory up to a limit and, where the operator wants that, beyond the
//! limit in a file.
//!
//! An output can be read here until the run's log row can be read instead, and for a moment longer by clients that
//! follow it. An output that needs a file goes there from its first byte, so a position in the file is a position in
//! the output.
//!
//! Not here: the files and the pipes. `take_order` says what to do with files, `must_wait` when to leave a pipe alone.
//!
//! Invariants: a question is answered once; a part begins where the last one ended, even where one came from memory and
//! the other from the file; the bytes on their way into files have a limit, and beyond it a run that needs a file has
//! to wait.

use super::held::{Held, Whole};
use crate::core::io::ports::output_files::{FileAnswer, FileOrder, FilePart};
use crate::core::time::bounds::KEEP_OUTPUT_MS;
use crate::model::output::OutputPart;
use crate::model::status::RunStatus;
use crate::model::{Attempt, Mono, RunState};
use std::collections::{BTreeMap, VecDeque};

/// The most outputs of ended runs that are held; beyond it the oldest is dropped.
const OVER_MAX: usize = 4_096;
/// The most bytes of them; likewise.
const OVER_BYTES_MAX: usize = 16 << 20;
/// The most bytes on their way into files.
const UNWRITTEN_BYTES_MAX: usize = 8 << 20;

/// The outputs of the attempts that were started here.
pub struct Outputs {
    bytes_max: usize,
    keeps_all: bool,
    held: BTreeMap<Attempt, Held>,
    /// Attempts whose row is on its way, in the order of their ends.
    over: VecDeque<Attempt>,
    /// The bytes of their outputs.
    over_bytes: usize,
    /// When to forget attempts whose row is committed.
    to_forget: VecDeque<(Mono, Attempt)>,
    /// The bytes on their way into files.
    unwritten_bytes: usize,
    orders: VecDeque<FileOrder>,
    answers: VecDeque<(u64, Option<OutputPart>)>,
}

impl Outputs {
    /// Holds at most `bytes_max` bytes of each output in memory; with `keeps_all` a longer one goes into a file.
    pub fn new(bytes_max: usize, keeps_all: bool) -> Outputs {
        Outputs {
            bytes_max,
            keeps_all,
            held: BTreeMap::new(),
            over: VecDeque::new(),
            over_bytes: 0,
            to_forget: VecDeque::new(),
            unwritten_bytes: 0,
            orders: VecDeque::new(),
            answers: VecDeque::new(),
        }
    }

    /// The attempt has started.
    pub fn begin(&mut self, attempt: Attempt) {
        self.held.insert(attempt, Held::new(self.bytes_max));
    }

    /// The command has written these bytes.
    pub fn push(&mut self, attempt: Attempt, bytes: &[u8]) {
        let Some(held) = self.held.get_mut(&attempt) else { return };
        if self.keeps_all && held.whole == Whole::InMemory && held.output.bytes_free() < bytes.len() {
            held.whole = Whole::InFile;
            let (all, _) = held.output.kept("").read(0, usize::MAX);
            self.write(attempt, 0, all);
        }
        let Some(held) = self.held.get_mut(&attempt) else { return };
        let at = held.output.bytes_written();
        held.output.push(bytes);
        if held.whole == Whole::InFile {
            self.write(attempt, at, bytes.to_vec());
        }
    }

    /// Whether so many more bytes of this attempt must stay in the pipe until files have taken some of the others.
    pub fn must_wait(&self, attempt: Attempt, bytes: usize) -> bool {
        let needs_file = self.held.get(&attempt).is_some_and(|held| held.needs_file(bytes));
        self.keeps_all && UNWRITTEN_BYTES_MAX <= self.unwritten_bytes && needs_file
    }

    /// Whether a write to its file is still open. Its failure would have to be told in the log row.
    pub fn is_being_written(&self, attempt: Attempt) -> bool {
        self.held.get(&attempt).is_some_and(|held| held.whole == Whole::InFile && held.unwritten != 0)
    }

    /// The command writes no more. Returns the text for its log row.
    pub fn close(&mut self, attempt: Attempt) -> String {
        let Some(held) = self.held.get_mut(&attempt) else { return String::new() };
        held.close()
    }

    /// The row is on its way; it has these lines behind the text of `close`.
    pub fn end(&mut self, attempt: Attempt, state: RunState, last_lines: String) {
        let Some(held) = self.held.get_mut(&attempt).filter(|held| held.is_closed && held.end.is_none()) else {
            return;
        };
        let at = held.output.bytes_written();
        let for_file = (held.whole == Whole::InFile && !last_lines.is_empty()).then(|| last_lines.clone().into_bytes());
        held.end = Some((state, last_lines));
        self.over_bytes += held.bytes();
        self.over.push_back(attempt);
        if let Some(bytes) = for_file {
            self.write(attempt, at, bytes);
        }
        while OVER_MAX < self.over.len() || OVER_BYTES_MAX < self.over_bytes {
            let Some(oldest) = self.over.front().copied() else { return };
            self.forget(oldest);
        }
    }

    /// The row is committed: `housekeeping` forgets the output in a while.
    pub fn forget_soon(&mut self, attempt: Attempt, now: Mono) {
        if self.held.get(&attempt).is_some_and(|held| held.end.is_some()) {
            self.to_forget.push_back((now.plus_ms(KEEP_OUTPUT_MS), attempt));
        }
    }

    /// Forgets the outputs whose time is over.
    pub fn housekeeping(&mut self, now: Mono) {
        while let Some((_, attempt)) = self.to_forget.front().filter(|(at, _)| *at <= now).copied() {
            self.to_forget.pop_front();
            self.forget(attempt);
        }
    }

    /// Asks for one part. `take_answer` has it, at once or when the file was read.
    pub fn read(&mut self, request: u64, attempt: Attempt, from: u64) {
        match self.held.get(&attempt) {
            Some(held) if held.whole != Whole::InFile || held.output.tail_start() <= from => {
                self.answers.push_back((request, Some(held.part(from))));
            }
            // A run that was over long ago may have left a file.
            _ => self.orders.push_back(FileOrder::Read { request, attempt, from }),
        }
    }

    /// Takes the answer to an order. Returns a message for the operator, if there is one.
    pub fn on_file_answer(&mut self, answer: FileAnswer) -> Option<String> {
        match answer {
            FileAnswer::Written { attempt, bytes, result } => {
                self.unwritten_bytes -= bytes;
                let held = self.held.get_mut(&attempt)?;
                held.unwritten -= 1;
                if held.whole != Whole::InFile {
                    return None;
                }
                let reason = result.err()?;
                held.whole = Whole::GivenUp(reason.clone());
                Some(format!("attempt={attempt}: its whole output is not kept: {reason}"))
            }
            FileAnswer::Read { request, attempt, from, found } => {
                let part = match (self.held.get(&attempt), found) {
                    (Some(held), Some(found)) => {
                        let next = from + found.bytes.len() as u64;
                        Some(held.part_of(from, found.bytes, next))
                    }
                    (Some(held), None) => Some(held.part(from)),
                    (None, found) => found.map(|found| file_only(found, from)),
                };
                self.answers.push_back((request, part));
                None
            }
        }
    }

    /// The oldest order for the thread with the files.
    pub fn take_order(&mut self) -> Option<FileOrder> {
        self.orders.pop_front()
    }

    /// The number of a question, and its answer; an inner none means that this node does not have the output.
    pub fn take_answer(&mut self) -> Option<(u64, Option<OutputPart>)> {
        self.answers.pop_front()
    }

    fn write(&mut self, attempt: Attempt, at: u64, bytes: Vec<u8>) {
        self.unwritten_bytes += bytes.len();
        if let Some(held) = self.held.get_mut(&attempt) {
            held.unwritten += 1;
        }
        self.orders.push_back(FileOrder::Write { attempt, at, bytes });
    }

    fn forget(&mut self, attempt: Attempt) {
        if let Some(at) = self.over.iter().position(|over| *over == attempt) {
            self.over.remove(at);
            self.over_bytes -= self.held.remove(&attempt).map_or(0, |held| held.bytes());
        }
    }
}

/// A part of an attempt of which only the file is left: the log row knows how it ended.
fn file_only(found: FilePart, from: u64) -> OutputPart {
    let next = from + found.bytes.len() as u64;
    OutputPart { is_over: found.is_end, bytes: found.bytes, next, ..OutputPart::empty(RunStatus::Unknown, from) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::time::bounds::{ANSWER_MS, FOLLOW_MS};
    use crate::model::output::OutputState;
    use crate::model::{JobId, RunKey, Second};

    fn attempt(id: u32) -> Attempt {
        Attempt { run: RunKey::scheduled(JobId(id), Second(100)), number: 1 }
    }

    /// What the thread with the files does, without a disk.
    #[derive(Default)]
    struct Files {
        written: BTreeMap<Attempt, Vec<u8>>,
        is_full: bool,
    }

    impl Files {
        fn carry_out(&mut self, order: FileOrder) -> FileAnswer {
            match order {
                FileOrder::Write { attempt, bytes, .. } if self.is_full => {
                    self.written.remove(&attempt);
                    FileAnswer::Written { attempt, bytes: bytes.len(), result: Err("write 1-100.1: full".into()) }
                }
                FileOrder::Write { attempt, at, bytes } => {
                    let file = self.written.entry(attempt).or_default();
                    assert_eq!(file.len() as u64, at, "a file has no holes");
                    file.extend(&bytes);
                    FileAnswer::Written { attempt, bytes: bytes.len(), result: Ok(()) }
                }
                FileOrder::Read { request, attempt, from } => {
                    let file = self.written.get(&attempt);
                    let found = file.map(|file| FilePart { bytes: file[from as usize..].to_vec(), is_end: true });
                    FileAnswer::Read { request, attempt, from, found }
                }
                FileOrder::Retain { .. } => unreachable!("retention orders none"),
            }
        }
    }

    /// Carries out every order. Returns the messages for the operator.
    fn carry_out(outputs: &mut Outputs, files: &mut Files) -> Vec<String> {
        let mut notices = Vec::new();
        while let Some(order) = outputs.take_order() {
            notices.extend(outputs.on_file_answer(files.carry_out(order)));
        }
        check_counts(outputs);
        notices
    }

    /// Counts the bytes again, once every order is carried out.
    fn check_counts(outputs: &Outputs) {
        let over: usize = outputs.over.iter().map(|attempt| outputs.held[attempt].bytes()).sum();
        assert_eq!((outputs.over_bytes, outputs.unwritten_bytes), (over, 0), "the bytes are miscounted");
        let has_ended = |attempt: &Attempt| outputs.held[attempt].end.is_some();
        assert!(outputs.over.iter().all(has_ended), "an output counts as over and is not");
    }

    fn read(outputs: &mut Outputs, files: &mut Files, from: u64) -> Option<OutputPart> {
        outputs.read(9, attempt(1), from);
        carry_out(outputs, files);
        let (request, part) = outputs.take_answer().expect("it answers");
        assert_eq!((request, outputs.take_answer()), (9, None));
        part
    }

    #[test]
    fn a_follower_gets_each_byte_once_before_and_after_the_end() {
        for keeps_all in [false, true] {
            let mut files = Files::default();
            let mut outputs = Outputs::new(10, keeps_all);
            outputs.begin(attempt(1));
            let (mut seen, mut from) = (Vec::new(), 0);
            for at in 0..26 {
                outputs.push(attempt(1), &[b'a' + at]);
                if at % 3 == 0 {
                    let part = read(&mut outputs, &mut files, from).unwrap();
                    assert!(!part.is_over);
                    seen.extend(part.bytes);
                    from = part.next;
                }
            }
            outputs.close(attempt(1));
            assert!(!read(&mut outputs, &mut files, from).unwrap().is_over, "how it ended is not known yet");
            outputs.end(attempt(1), RunState::Failed, "\n[exit code 3]\n".into());
            let part = read(&mut outputs, &mut files, from).unwrap();
            seen.extend(part.bytes);
            assert_eq!(String::from_utf8(seen).unwrap(), "abcdefghijklmnopqrstuvwxyz\n[exit code 3]\n");
            assert_eq!((part.state, part.is_over), (OutputState::Over(RunState::Failed), true));
            let whole = read(&mut outputs, &mut files, 0).unwrap();
            let expect = match keeps_all {
                true => "abcdefghijklmnopqrstuvwxyz\n[exit code 3]\n",
                false => "abcde\n[... 16 bytes left out ...]\nvwxyz\n[exit code 3]\n",
            };
            assert_eq!(String::from_utf8(whole.bytes).unwrap(), expect);
            assert_eq!((whole.next, whole.is_over), (part.next, true));
            outputs.forget_soon(attempt(1), Mono(0));
            outputs.housekeeping(Mono(0).plus_ms(KEEP_OUTPUT_MS - 1));
            assert!(outputs.held.contains_key(&attempt(1)));
            outputs.housekeeping(Mono(0).plus_ms(KEEP_OUTPUT_MS));
            assert!(outputs.held.is_empty() && outputs.over_bytes == 0);
            let later = read(&mut outputs, &mut files, 3);
            assert_eq!(later.map(|part| (part.bytes.len(), part.is_over)), keeps_all.then_some((38, true)));
        }
    }

    #[test]
    fn a_follower_that_is_put_off_for_as_long_as_it_may_be_reads_on_where_it_was() {
        let mut outputs = Outputs::new(10, false);
        outputs.begin(attempt(1));
        outputs.push(attempt(1), b"abcdefghijklmnopqrstuvwxyz");
        outputs.close(attempt(1));
        outputs.end(attempt(1), RunState::Ok, String::new());
        outputs.forget_soon(attempt(1), Mono(0));
        outputs.housekeeping(Mono(0).plus_ms(FOLLOW_MS + ANSWER_MS));
        let part = read(&mut outputs, &mut Files::default(), 24).expect("the row counts its bytes otherwise");
        assert_eq!(part.bytes, b"yz");
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
    fn a_row_says_that_the_disk_took_no_file_and_nothing_else_is_lost() {
        let mut files = Files { is_full: true, ..Files::default() };
        let mut outputs = Outputs::new(1_000, true);
        outputs.begin(attempt(1));
        outputs.push(attempt(1), &[b'x'; 2_000]);
        assert!(outputs.is_being_written(attempt(1)));
        let reason = "its whole output is not kept: write 1-100.1: full";
        let notices = carry_out(&mut outputs, &mut files);
        assert_eq!(notices, [format!("attempt={}: {reason}", attempt(1))], "it is said once");
        assert!(!outputs.is_being_written(attempt(1)));
        outputs.push(attempt(1), b"the end");
        let text = outputs.close(attempt(1));
        assert!(text.contains("bytes left out ...]\n") && text.ends_with(&format!("the end\n[{reason}]\n")), "{text}");
        outputs.end(attempt(1), RunState::Ok, String::new());
        let part = read(&mut outputs, &mut files, 0).unwrap();
        assert_eq!((String::from_utf8(part.bytes).unwrap(), part.is_over), (text, true));
    }

    #[test]
    fn a_run_that_writes_faster_than_the_disk_waits_and_one_that_needs_no_file_does_not() {
        let mut files = Files::default();
        let mut outputs = Outputs::new(1 << 20, true);
        outputs.begin(attempt(1));
        outputs.begin(attempt(2));
        while !outputs.must_wait(attempt(1), 1_000) {
            outputs.push(attempt(1), &[0; 64 << 10]);
            assert!(outputs.unwritten_bytes <= UNWRITTEN_BYTES_MAX + (2 << 20));
        }
        assert!(!outputs.must_wait(attempt(2), 1_000));
        assert!(outputs.must_wait(attempt(2), 2 << 20));
        carry_out(&mut outputs, &mut files);
        assert!(!outputs.must_wait(attempt(1), 1_000));
        assert_eq!(outputs.unwritten_bytes, 0);
    }

    #[test]
    fn outputs_of_runs_that_are_over_have_a_limit_and_those_of_running_ones_stay() {
        let mut outputs = Outputs::new(1 << 20, false);
        outputs.begin(attempt(1));
        for id in 2..=30 {
            outputs.begin(attempt(id));
            outputs.push(attempt(id), &vec![b'x'; 1 << 20]);
            outputs.close(attempt(id));
            outputs.end(attempt(id), RunState::Ok, String::new());
        }
        assert_eq!((outputs.held.len(), outputs.over_bytes), (17, OVER_BYTES_MAX));
        assert!(outputs.held.contains_key(&attempt(1)) && outputs.held.contains_key(&attempt(30)));
        for id in 31..=31 + OVER_MAX as u32 {
            outputs.begin(attempt(id));
            outputs.close(attempt(id));
            outputs.end(attempt(id), RunState::Ok, String::new());
        }
        assert_eq!(outputs.held.len(), OVER_MAX + 1);
    }
}
