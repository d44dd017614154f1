//! The layout of the marks file: a header of words, and then the slots.
//!
//! Not the words of a slot: those are `slot`'s.
//!
//! Invariant: a word keeps its place and its meaning for as long as the version stays the same.

pub const MAGIC: u64 = u64::from_le_bytes(*b"wingmark");
/// The version of the file's layout.
pub const LAYOUT: u64 = 2;
/// The layout of the version before, whose slots have no checksums. It is still read, so that an upgrade forgets no run.
pub const LAYOUT_WITHOUT_CHECKSUMS: u64 = 1;
/// The words before the first slot, of 8 bytes each. Those that have no name below are spare.
pub const HEADER_WORDS: usize = 16;
pub const WORD_BYTES: usize = 8;
/// The most slots that a file may have: more than any configuration asks for.
pub const CAPACITY_MAX: usize = 1 << 22;

/// Where the words of the header are.
pub mod header {
    pub const MAGIC: usize = 0;
    pub const LAYOUT: usize = 1;
    pub const CAPACITY: usize = 2;
    /// The boot id, in two words.
    pub const BOOT: usize = 3;
    /// Until when the lease lasts, in nanoseconds of the monotonic clock.
    pub const LEASE: usize = 5;
    /// How many tags were given: the next one follows from it.
    pub const TAGS: usize = 6;
    /// The control group of the daemon (see `cgroup_of`); 0: not known.
    pub const CGROUP: usize = 7;
    /// 1: see `OpenedMarks::has_forgotten`.
    pub const HAS_FORGOTTEN: usize = 8;
}
