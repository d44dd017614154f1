//! What a command writes, within a cap: the head and the tail, and in between what was left out.
//!
//! Invariant: never holds more than its cap, however much is pushed.

use std::collections::VecDeque;

/// Collects the output of one run.
#[derive(Clone, Debug)]
pub struct Output {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    bytes_max: usize,
    bytes_left_out: u64,
}

impl Output {
    pub fn new(bytes_max: usize) -> Output {
        Output { head: Vec::new(), tail: VecDeque::new(), bytes_max, bytes_left_out: 0 }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        let head_room = self.bytes_max.div_ceil(2) - self.head.len();
        let (to_head, to_tail) = bytes.split_at(head_room.min(bytes.len()));
        self.head.extend_from_slice(to_head);
        let tail_max = self.bytes_max / 2;
        // Of a chunk larger than the whole tail only the end can stay, so the rest is not copied at all.
        let skipped = to_tail.len().saturating_sub(tail_max);
        self.tail.extend(&to_tail[skipped..]);
        let excess = self.tail.len().saturating_sub(tail_max);
        self.tail.drain(..excess);
        self.bytes_left_out += (skipped + excess) as u64;
    }

    /// The text for the log: bytes that are not UTF-8 become U+FFFD, and a line says what was left out.
    pub fn into_text(mut self) -> String {
        let tail = self.tail.make_contiguous();
        if self.bytes_left_out == 0 {
            self.head.extend_from_slice(tail);
            return String::from_utf8_lossy(&self.head).into_owned();
        }
        format!(
            "{}\n[... {} bytes left out ...]\n{}",
            String::from_utf8_lossy(&self.head),
            self.bytes_left_out,
            String::from_utf8_lossy(tail)
        )
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
        assert_eq!(output.into_text(), expect);
    }

    #[test]
    fn all_is_kept_up_to_the_cap() {
        check(6, &[], "");
        check(6, &["abc", "def"], "abcdef");
        check(7, &["abcdefg"], "abcdefg");
    }

    #[test]
    fn beyond_the_cap_head_and_tail_stay() {
        check(6, &["abc", "defg"], "abc\n[... 1 bytes left out ...]\nefg");
        check(6, &["abcdefghijklmnop"], "abc\n[... 10 bytes left out ...]\nnop");
        check(6, &["a", "b", "c", "d", "e", "f", "g", "h"], "abc\n[... 2 bytes left out ...]\nfgh");
        check(0, &["abc"], "\n[... 3 bytes left out ...]\n");
    }

    #[test]
    fn a_character_cut_in_two_is_mended_and_one_split_over_chunks_is_whole() {
        let mut output = Output::new(100);
        output.push(&[0xe4, 0xb8]);
        output.push(&[0xad, 0xff]);
        assert_eq!(output.into_text(), "中\u{fffd}");
    }
}
