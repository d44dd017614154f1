//! The output of a command: how much of it is kept, and how a client reads it, one part after the other.
//!
//! Where an output is longer than its limit, its head and its tail are kept and the middle is left out. A position in
//! the output is the number of bytes that the command wrote before it, kept or not. Behind the output come the last
//! lines of the log row, which the daemon wrote. A client that reads on from `next` gets every kept byte once.
//!
//! Not the file of a whole output: that is `worker::output_files`.
//!
//! Invariant: an output never keeps more bytes than its limit, however many are pushed.

use super::RunState;
use super::status::RunStatus;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// The most bytes of one part. One line that says how many bytes were left out may come on top.
pub const PART_BYTES_MAX: usize = 256 << 10;

/// A part of an attempt's output.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct OutputPart {
    pub state: OutputState,
    /// The position at which the part begins.
    pub from: u64,
    #[serde(with = "base64_text")]
    pub bytes: Vec<u8>,
    /// The position at which the next part begins.
    pub next: u64,
    /// The attempt is over, and this is its last part.
    pub is_over: bool,
}

/// How far the attempt has come.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(untagged)]
pub enum OutputState {
    Held(RunStatus),
    Over(RunState),
}

impl OutputPart {
    /// An empty part: the attempt has not written beyond `from` yet.
    pub fn empty(status: RunStatus, from: u64) -> OutputPart {
        OutputPart { state: OutputState::Held(status), from, bytes: Vec::new(), next: from, is_over: false }
    }

    /// The part, from `from` on, of the output in a log row: the attempt is over.
    pub fn of_row(state: RunState, text: &str, from: u64) -> OutputPart {
        let kept = Capped::of_text(text);
        let (bytes, next) = kept.read(from, PART_BYTES_MAX);
        OutputPart { state: OutputState::Over(state), from, bytes, next, is_over: kept.end() <= next }
    }
}

/// Collects the output of one run.
#[derive(Clone, Debug)]
pub struct Output {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    bytes_max: usize,
    bytes_left_out: u64,
}

impl Output {
    /// An empty output that keeps at most `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Output {
        Output { head: Vec::new(), tail: VecDeque::new(), bytes_max, bytes_left_out: 0 }
    }

    /// Adds bytes that the command has written.
    pub fn push(&mut self, bytes: &[u8]) {
        let head_left = self.bytes_max.div_ceil(2) - self.head.len();
        let (to_head, to_tail) = bytes.split_at(head_left.min(bytes.len()));
        self.head.extend_from_slice(to_head);
        let tail_max = self.bytes_max / 2;
        // Bytes that the tail would push out again at once are not copied at all.
        let skipped = to_tail.len().saturating_sub(tail_max);
        self.tail.extend(&to_tail[skipped..]);
        let excess = self.tail.len().saturating_sub(tail_max);
        self.tail.drain(..excess);
        self.bytes_left_out += (skipped + excess) as u64;
    }

    /// Adds a line of the daemon's behind the command's output.
    pub fn push_line(&mut self, line: &str) {
        let last = self.tail.back().or(self.head.last());
        if last.is_some_and(|byte| *byte != b'\n') {
            self.push(b"\n");
        }
        self.push(format!("{line}\n").as_bytes());
    }

    /// How many bytes are in memory.
    pub fn bytes_kept(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    /// How many more bytes can be pushed before some are left out.
    pub fn bytes_free(&self) -> usize {
        self.bytes_max - self.bytes_kept()
    }

    /// How many bytes were pushed, kept or not.
    pub fn bytes_written(&self) -> u64 {
        self.bytes_kept() as u64 + self.bytes_left_out
    }

    /// The smallest position from which on every byte is in memory.
    pub fn tail_start(&self) -> u64 {
        if self.bytes_left_out == 0 { 0 } else { self.head.len() as u64 + self.bytes_left_out }
    }

    /// The output in memory, with these lines behind it.
    pub fn kept<'a>(&'a self, last_lines: &'a str) -> Capped<'a> {
        let (front, back) = self.tail.as_slices();
        Capped { head: &self.head, left_out: self.bytes_left_out, rest: [front, back, last_lines.as_bytes()] }
    }

    /// The text for the log row: bytes that are not UTF-8 become U+FFFD, and a line says how many bytes were left out.
    pub fn to_text(&self) -> String {
        let (front, back) = self.tail.as_slices();
        let tail = [front, back].concat();
        if self.bytes_left_out == 0 {
            let all = String::from_utf8([&self.head, &tail[..]].concat());
            return all.unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        }
        let line = left_out_line(self.bytes_left_out);
        format!("{}{line}{}", String::from_utf8_lossy(&self.head), String::from_utf8_lossy(&tail))
    }
}

/// The kept bytes of an output: its head, the number of bytes that were left out, and the rest.
#[derive(Clone, Copy, Debug)]
pub struct Capped<'a> {
    head: &'a [u8],
    left_out: u64,
    rest: [&'a [u8]; 3],
}

impl<'a> Capped<'a> {
    /// Reads the text of a log row. Where the command itself wrote a line like the one for bytes that were left out,
    /// the line is mistaken for that one: it is shown all the same.
    fn of_text(text: &'a str) -> Capped<'a> {
        let whole = Capped { head: text.as_bytes(), left_out: 0, rest: [&[]; 3] };
        let Some((head, rest)) = text.split_once(LEFT_OUT.0) else { return whole };
        let Some((count, rest)) = rest.split_once(LEFT_OUT.1) else { return whole };
        match count.parse::<i64>().map(u64::try_from) {
            // Only a line as we write it: it is written anew for whoever reads.
            Ok(Ok(left_out)) if 0 < left_out && left_out.to_string() == count => {
                Capped { head: head.as_bytes(), left_out, rest: [rest.as_bytes(), &[], &[]] }
            }
            _ => whole,
        }
    }

    /// The position behind the last byte.
    pub fn end(&self) -> u64 {
        self.rest_start() + self.rest.iter().map(|piece| piece.len() as u64).sum::<u64>()
    }

    /// The bytes from position `from` on, at most `bytes_max`, and the position behind them. Instead of bytes that were
    /// left out there is a line that says how many.
    pub fn read(&self, from: u64, bytes_max: usize) -> (Vec<u8>, u64) {
        let (mut bytes, mut next) = (Vec::new(), from);
        let take = |piece: &[u8], piece_start: u64, bytes: &mut Vec<u8>, next: &mut u64| {
            let Some(skipped) = next.checked_sub(piece_start) else { return };
            let Some(piece) = usize::try_from(skipped).ok().and_then(|skipped| piece.get(skipped..)) else { return };
            let count = piece.len().min(bytes_max.saturating_sub(bytes.len()));
            bytes.extend_from_slice(&piece[..count]);
            *next += count as u64;
        };
        take(self.head, 0, &mut bytes, &mut next);
        let (head_end, mut piece_start) = (self.head.len() as u64, self.rest_start());
        if (head_end..piece_start).contains(&next) && bytes.len() < bytes_max {
            bytes.extend(left_out_line(piece_start - next).into_bytes());
            next = piece_start;
        }
        for piece in self.rest {
            take(piece, piece_start, &mut bytes, &mut next);
            piece_start += piece.len() as u64;
        }
        (bytes, next)
    }

    fn rest_start(&self) -> u64 {
        self.head.len() as u64 + self.left_out
    }
}

const LEFT_OUT: (&str, &str) = ("\n[... ", " bytes left out ...]\n");

fn left_out_line(bytes: u64) -> String {
    format!("{}{bytes}{}", LEFT_OUT.0, LEFT_OUT.1)
}

/// The bytes as Base64 in a message: an array of numbers would be about three times as long.
mod base64_text {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes_max: usize, chunks: &[&str], expect: &str) {
        let mut output = Output::new(bytes_max);
        for chunk in chunks {
            output.push(chunk.as_bytes());
        }
        assert_eq!(output.to_text(), expect);
    }

    #[test]
    fn an_output_within_its_limit_is_kept_whole() {
        check(6, &[], "");
        check(6, &["abc", "def"], "abcdef");
        check(7, &["abcdefg"], "abcdefg");
    }

    #[test]
    fn beyond_the_limit_head_and_tail_are_kept() {
        check(6, &["abc", "defg"], "abc\n[... 1 bytes left out ...]\nefg");
        check(6, &["abcdefghijklmnop"], "abc\n[... 10 bytes left out ...]\nnop");
        check(6, &["a", "b", "c", "d", "e", "f", "g", "h"], "abc\n[... 2 bytes left out ...]\nfgh");
        check(0, &["abc"], "\n[... 3 bytes left out ...]\n");
    }

    #[test]
    fn a_character_without_its_end_is_replaced_and_one_pushed_in_two_pieces_is_whole() {
        let mut output = Output::new(100);
        output.push(&[0xe4, 0xb8]);
        output.push(&[0xad, 0xff]);
        assert_eq!(output.to_text(), "中\u{fffd}");
    }

    /// Reads to the end, at most `bytes_max` bytes at a time.
    fn read_on(kept: Capped, mut from: u64, bytes_max: usize) -> String {
        let mut text = Vec::new();
        while from < kept.end() {
            let (bytes, next) = kept.read(from, bytes_max);
            assert!(from < next, "each part moves the position on");
            text.extend(bytes);
            from = next;
        }
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn parts_of_any_length_together_are_the_text_of_the_log_row() {
        for (bytes_max, written) in
            [(10, ""), (10, "abc"), (10, "abcdefghij"), (10, "abcdefghijklmnop"), (1, "abc"), (0, "abc")]
        {
            let mut output = Output::new(bytes_max);
            written.bytes().for_each(|byte| output.push(&[byte]));
            let row = output.to_text() + "[exit code 3]\n";
            for part in [1, 2, 3, 100] {
                let live = output.kept("[exit code 3]\n");
                assert_eq!(read_on(live, 0, part), row);
                assert_eq!(read_on(Capped::of_text(&row), 0, part), row);
                assert_eq!(live.end(), Capped::of_text(&row).end(), "a position is the same in both");
                for from in output.tail_start()..live.end() {
                    assert_eq!(live.read(from, part), Capped::of_text(&row).read(from, part));
                }
            }
        }
    }

    #[test]
    fn a_reader_during_the_run_gets_each_byte_once_or_a_line_for_those_left_out() {
        let mut output = Output::new(10);
        output.push(b"abcdefgh");
        assert_eq!(output.kept("").read(0, 100), (b"abcdefgh".to_vec(), 8));
        assert_eq!(output.kept("").read(8, 100), (Vec::new(), 8));
        output.push(b"ij");
        assert_eq!(output.kept("").read(8, 100), (b"ij".to_vec(), 10));
        output.push(b"klm");
        assert_eq!(output.kept("").read(10, 100), (b"klm".to_vec(), 13));
        output.push(b"nopqrstuvwxyz");
        let (bytes, next) = output.kept("").read(13, 100);
        assert_eq!(bytes, b"\n[... 8 bytes left out ...]\nvwxyz");
        assert_eq!((next, output.bytes_written(), output.bytes_kept()), (26, 26, 10));
        assert_eq!(output.kept("").read(1_000, 100), (Vec::new(), 1_000), "beyond the end is nothing");
        assert_eq!(output.kept("").read(u64::MAX, 100), (Vec::new(), u64::MAX));
    }

    #[test]
    fn a_row_that_only_looks_as_if_bytes_were_left_out_is_read_whole() {
        for text in [
            "\n[... ",
            "a\n[... x bytes left out ...]\nb",
            "\n[... 18446744073709551615 bytes left out ...]\n",
            "\n[... -1 bytes left out ...]\n",
            "\n[... +5 bytes left out ...]\n",
            "\n[... 05 bytes left out ...]\nb",
            "a\n[... 0 bytes left out ...]\nb",
        ] {
            let part = OutputPart::of_row(RunState::Ok, text, 0);
            assert_eq!((part.bytes, part.is_over), (text.as_bytes().to_vec(), true));
        }
    }

    #[test]
    fn a_line_of_the_daemons_begins_on_a_new_line() {
        let mut output = Output::new(100);
        output.push_line("[one]");
        output.push(b"half");
        output.push_line("[two]");
        assert_eq!(output.to_text(), "[one]\nhalf\n[two]\n");
    }

    #[test]
    fn a_part_is_the_same_after_its_way_through_a_message() {
        let part = OutputPart { bytes: (0..=255).collect(), ..OutputPart::empty(RunStatus::Running, 7) };
        let text = serde_json::to_string(&part).unwrap();
        assert!(text.contains("\"state\":\"running\""), "{text}");
        assert_eq!(serde_json::from_str::<OutputPart>(&text).unwrap(), part);
        let over = OutputPart { state: OutputState::Over(RunState::Failed), ..part };
        assert_eq!(serde_json::from_str::<OutputPart>(&serde_json::to_string(&over).unwrap()).unwrap(), over);
    }
}
