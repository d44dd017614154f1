//! The output of one attempt that was started on this node: the part in memory, and the place of the whole output.
//!
//! Not here: how long an output is held, and the orders to the thread with the files; see `retention`.
//!
//! Invariant: an output whose file was given up never gets another file.

use crate::model::RunState;
use crate::model::output::{Output, OutputPart, OutputState, PART_BYTES_MAX};
use crate::model::status::RunStatus;

/// The output of one attempt.
pub struct Held {
    pub output: Output,
    pub whole: Whole,
    /// Writes that were ordered and not yet answered.
    pub unwritten: usize,
    /// How the attempt ended and the last lines of its row; none before that row is on its way.
    pub end: Option<(RunState, String)>,
    /// The command writes no more.
    pub is_closed: bool,
}

/// The place of the whole output.
#[derive(Debug, Eq, PartialEq)]
pub enum Whole {
    InMemory,
    /// In the file, or on its way there.
    InFile,
    /// Nowhere: the file could not be written, for this reason.
    GivenUp(String),
}

impl Held {
    pub fn new(bytes_max: usize) -> Held {
        Held { output: Output::new(bytes_max), whole: Whole::InMemory, unwritten: 0, end: None, is_closed: false }
    }

    /// Whether so many more bytes have to go to the file.
    pub fn needs_file(&self, bytes: usize) -> bool {
        match self.whole {
            Whole::InMemory => self.output.bytes_free() < bytes,
            Whole::InFile => true,
            Whole::GivenUp(_) => false,
        }
    }

    /// The command writes no more. Returns the text for its log row.
    pub fn close(&mut self) -> String {
        self.is_closed = true;
        if let Whole::GivenUp(reason) = &self.whole {
            self.output.push_line(&format!("[its whole output is not kept: {reason}]"));
        }
        self.output.to_text()
    }

    /// One part, as far as memory has it.
    pub fn part(&self, from: u64) -> OutputPart {
        let last_lines = self.end.as_ref().map_or("", |(_, lines)| lines);
        let (bytes, next) = self.output.kept(last_lines).read(from, PART_BYTES_MAX);
        self.part_of(from, bytes, next)
    }

    /// One part with these bytes, and how far the attempt has come.
    pub fn part_of(&self, from: u64, bytes: Vec<u8>, next: u64) -> OutputPart {
        let (state, is_over) = match &self.end {
            Some((state, lines)) => (OutputState::Over(*state), self.output.kept(lines).end() <= next),
            None => (OutputState::Held(RunStatus::Running), false),
        };
        OutputPart { state, from, bytes, next, is_over }
    }

    pub fn bytes(&self) -> usize {
        self.output.bytes_kept() + self.end.as_ref().map_or(0, |(_, lines)| lines.len())
    }
}
