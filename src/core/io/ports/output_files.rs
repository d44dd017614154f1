//! The orders to the thread that keeps whole outputs in files (one file for each attempt), and its answers.
//!
//! Not the carrying out of the orders: that is `worker::output_files`.
//!
//! Invariant: orders are carried out one after the other, so a read sees every write that was ordered before it.

use crate::model::{Attempt, Second};

/// An order to the thread with the files.
#[derive(Debug)]
pub enum FileOrder {
    /// Append these bytes to the file, whose length is `at` so far. The first write, at 0, makes the file.
    Write { attempt: Attempt, at: u64, bytes: Vec<u8> },
    /// Read one part of the output, from this byte on.
    Read { request: u64, attempt: Attempt, from: u64 },
    /// Remove the files that were last written before this second.
    Retain { before: Second },
}

/// The answer to an order. `FileOrder::Retain` has none.
#[derive(Debug)]
pub enum FileAnswer {
    /// So many bytes were appended; or the reason why not, and then the file is removed.
    Written { attempt: Attempt, bytes: usize, result: Result<(), String> },
    /// None: there is no file that can be read.
    Read { request: u64, attempt: Attempt, from: u64, found: Option<FilePart> },
}

/// Bytes of a file, one part at most.
#[derive(Debug, Eq, PartialEq)]
pub struct FilePart {
    /// At most `PART_BYTES_MAX`.
    pub bytes: Vec<u8>,
    /// The file has no bytes behind these, so far.
    pub is_end: bool,
}
