//! The marks: a memory-mapped file under data_dir that says, for each run that this node holds, how far it has come.
//! Writing a mark is a store to memory, so the marks are true even where the daemon is killed between two instructions.
//!
//! The next daemon reads the file and reports the runs in it. The guardian reads it and ends the runs that must not
//! outlive their daemon or its lease. After a start of the host the lease in the file is void, its pids mean nothing,
//! and every mark counts as `UNKNOWN`, because a power loss may have cost the latest stores.
//!
//! Not a log: a mark is cleared when the run's log row is committed.
//!
//! Invariant: a slot's state is stored last, so a slot whose state is not `FREE` is whole.

use crate::core::io::{FoundMark, FoundState, MarkOp};
use crate::model::run::{Manual, RunKey};
use crate::model::{Attempt, Exit, JobId, Mono, Second, Version};
use rustix::fs::FallocateFlags;
use rustix::mm::{MapFlags, ProtFlags};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const MAGIC: u64 = u64::from_le_bytes(*b"wingmark");
/// The version of the file's layout.
const LAYOUT: u64 = 1;
/// The words before the first slot, of 8 bytes each. Those that have no name below are spare.
const HEADER_WORDS: usize = 16;
const SLOT_WORDS: usize = 16;
const WORD_BYTES: usize = 8;
/// Tags are timer slacks in nanoseconds. They lie just above the usual 50,000, so a sleep in a command ends at most
/// `TAG_COUNT` ns (131 microseconds) later than without a tag.
const TAG_FIRST: u64 = 50_001;
const TAG_COUNT: u64 = 131_072;

/// Where the words of the header are.
mod header {
    pub const MAGIC: usize = 0;
    pub const LAYOUT: usize = 1;
    pub const CAPACITY: usize = 2;
    /// The boot id, in two words.
    pub const BOOT: usize = 3;
    /// Until when the lease lasts, in nanoseconds of the monotonic clock.
    pub const LEASE: usize = 5;
    /// How many tags were given: the next one follows from it.
    pub const TAGS: usize = 6;
}

/// Where the words of a slot are.
mod slot {
    pub const STATE: usize = 0;
    pub const CRON_ID: usize = 1;
    pub const SCHEDULED_AT: usize = 2;
    /// 0: the run is by its schedule; else the epoch of a run by hand, plus one.
    pub const MANUAL_EPOCH: usize = 3;
    pub const MANUAL_COUNT: usize = 4;
    pub const NUMBER: usize = 5;
    pub const VERSION: usize = 6;
    pub const IS_MUTEX: usize = 7;
    pub const TAG: usize = 8;
    pub const PID: usize = 9;
    pub const PID_START: usize = 10;
    pub const EXIT: usize = 11;
}

const FREE: u64 = 0;
const HELD: u64 = 1;
const STARTING: u64 = 2;
const STARTED: u64 = 3;
const ENDED: u64 = 4;
const UNKNOWN: u64 = 5;
/// In `slot::EXIT`: the lower 32 bits are the signal that ended the process. Without it they are the exit code.
const BY_SIGNAL: u64 = 1 << 32;

/// A run's slot in the marks, with the tag of its processes.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    pub slot: u32,
    pub tag: u64,
}

/// The mapped file. Shared by the reactor and the spawning threads.
#[derive(Debug)]
pub struct Marks {
    words: &'static [AtomicU64],
}

/// One slot, as it was at the time of reading.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    pub attempt: Attempt,
    pub version: Version,
    pub is_mutex: bool,
    pub tag: u64,
    /// 0 while it is not known.
    pub pid: u32,
    /// When that process was started, in clock ticks since boot.
    pub pid_start: u64,
    state: u64,
    exit: u64,
}

impl Mark {
    /// Whether processes of the run may be alive.
    pub fn may_run(&self) -> bool {
        matches!(self.state, STARTING | STARTED)
    }

    /// Whether the run is being started, so that its pid is not known yet.
    pub fn is_starting(&self) -> bool {
        self.state == STARTING
    }

    fn found(&self) -> FoundMark {
        let state = match self.state {
            HELD => FoundState::Held,
            STARTING | STARTED => FoundState::Started,
            ENDED if self.exit & BY_SIGNAL != 0 => FoundState::Ended(Exit::Signal(self.exit as u32 as i32)),
            ENDED => FoundState::Ended(Exit::Code(self.exit as u32 as i32)),
            _ => FoundState::Unknown,
        };
        FoundMark { attempt: self.attempt, version: self.version, is_mutex: self.is_mutex, state }
    }
}

/// The file as it was at the time of reading. The guardian reads what its daemon writes, and a daemon what an earlier
/// incarnation left.
#[derive(Debug)]
pub struct Snapshot {
    /// 0 (void) where the host has started since.
    pub lease: Mono,
    /// The marks of all slots that are not free.
    pub marks: Vec<Mark>,
    tags: u64,
}

impl Snapshot {
    /// Reads the file; none where it does not exist. `InvalidData`: it is not a marks file of this version.
    pub fn read(path: &Path) -> io::Result<Option<Snapshot>> {
        let mut bytes = Vec::new();
        match File::open(path) {
            Ok(mut file) => file.read_to_end(&mut bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let words: Vec<u64> = bytes
            .chunks_exact(WORD_BYTES)
            .map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()))
            .collect();
        let is_ours = words.len() >= HEADER_WORDS && words[header::MAGIC] == MAGIC && words[header::LAYOUT] == LAYOUT;
        if !is_ours
            || words[header::CAPACITY].checked_mul(SLOT_WORDS as u64) != Some((words.len() - HEADER_WORDS) as u64)
        {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a marks file of this version"));
        }
        let is_this_boot = words[header::BOOT..header::BOOT + 2] == boot_id()?;
        let read = |slot: &[u64]| (slot[slot::STATE] != FREE).then(|| mark(slot, is_this_boot));
        Ok(Some(Snapshot {
            lease: if is_this_boot { Mono(words[header::LEASE]) } else { Mono(0) },
            marks: words[HEADER_WORDS..].chunks_exact(SLOT_WORDS).filter_map(read).collect(),
            tags: words[header::TAGS],
        }))
    }
}

fn mark(slot: &[u64], is_this_boot: bool) -> Mark {
    let manual = slot[slot::MANUAL_EPOCH].checked_sub(1).map(|epoch| Manual { epoch, count: slot[slot::MANUAL_COUNT] });
    let run = RunKey {
        cron_id: JobId(slot[slot::CRON_ID] as u32),
        scheduled_at: Second(slot[slot::SCHEDULED_AT] as i64),
        manual,
    };
    Mark {
        attempt: Attempt { run, number: slot[slot::NUMBER] as u32 },
        version: Version(slot[slot::VERSION]),
        is_mutex: slot[slot::IS_MUTEX] != 0,
        tag: slot[slot::TAG],
        pid: slot[slot::PID] as u32,
        pid_start: slot[slot::PID_START],
        state: if is_this_boot { slot[slot::STATE] } else { UNKNOWN },
        exit: slot[slot::EXIT],
    }
}

/// The kernel's id of this start of the host, as two words.
fn boot_id() -> io::Result<[u64; 2]> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let hex: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let number = u128::from_str_radix(&hex, 16)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "boot_id is not a UUID"))?;
    Ok([number as u64, (number >> 64) as u64])
}

impl Marks {
    /// Makes a new file, with the marks of the former one in its first slots.
    fn create(path: &Path, capacity: usize, before: &Snapshot) -> io::Result<Marks> {
        let words = HEADER_WORDS + capacity * SLOT_WORDS;
        let temporary = path.with_extension("new");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&temporary)?;
        // A full disk must be an error here, and not a SIGBUS at a later store.
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, (words * WORD_BYTES) as u64)?;
        let marks = Marks { words: map(&file, words)? };
        marks.set(header::CAPACITY, capacity as u64);
        let [low, high] = boot_id()?;
        marks.set(header::BOOT, low);
        marks.set(header::BOOT + 1, high);
        marks.set(header::LEASE, before.lease.0);
        marks.set(header::TAGS, before.tags);
        marks.set(header::LAYOUT, LAYOUT);
        for (at, mark) in (0..).zip(&before.marks) {
            marks.write(at, mark);
        }
        marks.set(header::MAGIC, MAGIC);
        fs::rename(&temporary, path)?;
        Ok(marks)
    }

    /// The end of the lease: until then runs may start and mutex runs may go on.
    pub fn lease(&self) -> Mono {
        Mono(self.words[header::LEASE].load(Ordering::Acquire))
    }

    /// The run of this slot is about to be started, and its processes will have the ticket's tag.
    pub fn starting(&self, ticket: Ticket) {
        self.set_slot(ticket.slot, slot::PID, 0);
        self.set_slot(ticket.slot, slot::TAG, ticket.tag);
        self.set_state(ticket.slot, STARTING);
    }

    /// The run was started as this process, at `pid_start` (in clock ticks since boot).
    pub fn started(&self, ticket: Ticket, pid: u32, pid_start: u64) {
        self.set_slot(ticket.slot, slot::PID_START, pid_start);
        self.set_slot(ticket.slot, slot::PID, pid.into());
        self.set_state(ticket.slot, STARTED);
    }

    /// The run was not started after all.
    pub fn back_to_held(&self, ticket: Ticket) {
        self.set_state(ticket.slot, HELD);
    }

    /// The slot as it is now; none while it is free.
    pub fn read(&self, slot: u32) -> Option<Mark> {
        let at = HEADER_WORDS + slot as usize * SLOT_WORDS;
        let words = self.words.get(at..at + SLOT_WORDS)?;
        let state = words[slot::STATE].load(Ordering::Acquire);
        let mut values: Vec<u64> = words.iter().map(|word| word.load(Ordering::Relaxed)).collect();
        values[slot::STATE] = state;
        (state != FREE).then(|| mark(&values, true))
    }

    fn write(&self, at: u32, mark: &Mark) {
        let manual = mark.attempt.run.manual;
        self.set_slot(at, slot::CRON_ID, mark.attempt.run.cron_id.0.into());
        self.set_slot(at, slot::SCHEDULED_AT, mark.attempt.run.scheduled_at.0 as u64);
        self.set_slot(at, slot::MANUAL_EPOCH, manual.map_or(0, |manual| manual.epoch + 1));
        self.set_slot(at, slot::MANUAL_COUNT, manual.map_or(0, |manual| manual.count));
        self.set_slot(at, slot::NUMBER, mark.attempt.number.into());
        self.set_slot(at, slot::VERSION, mark.version.0);
        self.set_slot(at, slot::IS_MUTEX, mark.is_mutex.into());
        self.set_slot(at, slot::TAG, mark.tag);
        self.set_slot(at, slot::PID, mark.pid.into());
        self.set_slot(at, slot::PID_START, mark.pid_start);
        self.set_slot(at, slot::EXIT, mark.exit);
        self.set_state(at, mark.state);
    }

    fn set(&self, word: usize, value: u64) {
        self.words[word].store(value, Ordering::Release);
    }

    fn set_slot(&self, slot: u32, word: usize, value: u64) {
        self.words[HEADER_WORDS + slot as usize * SLOT_WORDS + word].store(value, Ordering::Relaxed);
    }

    fn set_state(&self, slot: u32, state: u64) {
        self.words[HEADER_WORDS + slot as usize * SLOT_WORDS + slot::STATE].store(state, Ordering::Release);
    }
}

/// Maps the whole file, shared with other processes. It is never unmapped: a daemon has marks until it ends.
fn map(file: &File, words: usize) -> io::Result<&'static [AtomicU64]> {
    let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
    // SAFETY: this is a new mapping, at an address of the kernel's choice, of `words * 8` bytes that `fallocate` has
    // just given the file. It is never unmapped and the file is never shortened (each start makes a new file), so it is
    // valid for 'static. It is page-aligned, and used through atomics only, so other processes may read it at any time.
    unsafe {
        let start = rustix::mm::mmap(std::ptr::null_mut(), words * WORD_BYTES, protection, flags, file, 0)?;
        Ok(std::slice::from_raw_parts(start.cast::<AtomicU64>(), words))
    }
}

/// The reactor's side of the marks: which run has which slot, and which tag.
#[derive(Debug)]
pub struct MarkBook {
    marks: Arc<Marks>,
    slots: BTreeMap<Attempt, u32>,
    free: Vec<u32>,
    /// The tag of each slot whose run was given one.
    tags: BTreeMap<u32, u64>,
    tags_used: BTreeSet<u64>,
}

impl MarkBook {
    /// Opens the marks in `data_dir` for at least `capacity` runs. Answers the marks that former incarnations left, and
    /// a message for the operator where the former file is damaged: it is set aside.
    pub fn open(data_dir: &Path, capacity: usize) -> io::Result<(MarkBook, Vec<FoundMark>, Option<String>)> {
        let path = path(data_dir);
        let mut notice = None;
        // The first tag is random, so that another daemon on this host most likely uses other ones.
        let empty = || Snapshot { lease: Mono(0), marks: Vec::new(), tags: random_tag() };
        let before = match Snapshot::read(&path) {
            Ok(before) => before.unwrap_or_else(empty),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let aside = path.with_extension("damaged");
                fs::rename(&path, &aside)?;
                notice = Some(format!("{}: {error}; it is set aside as {}", path.display(), aside.display()));
                empty()
            }
            Err(error) => return Err(error),
        };
        let capacity = capacity.max(before.marks.len());
        let marks = Arc::new(Marks::create(&path, capacity, &before)?);
        let slots: BTreeMap<Attempt, u32> = (0..).zip(&before.marks).map(|(at, mark)| (mark.attempt, at)).collect();
        let free = (before.marks.len() as u32..capacity as u32).rev().collect();
        let found = before.marks.iter().map(Mark::found).collect();
        Ok((MarkBook { marks, slots, free, tags: BTreeMap::new(), tags_used: BTreeSet::new() }, found, notice))
    }

    pub fn marks(&self) -> Arc<Marks> {
        Arc::clone(&self.marks)
    }

    /// Carries the op out; false where no slot is free for the run that it holds.
    pub fn apply(&mut self, op: MarkOp) -> bool {
        match op {
            MarkOp::Hold { attempt, version, is_mutex } => return self.hold(attempt, version, is_mutex),
            MarkOp::Ended { attempt, exit } => {
                if let Some(&slot) = self.slots.get(&attempt) {
                    let exit = match exit {
                        Exit::Code(code) => u64::from(code as u32),
                        Exit::Signal(signal) => u64::from(signal as u32) | BY_SIGNAL,
                    };
                    self.marks.set_slot(slot, slot::EXIT, exit);
                    self.marks.set_state(slot, ENDED);
                }
            }
            MarkOp::Clear { attempt } => {
                if let Some(slot) = self.slots.remove(&attempt) {
                    self.marks.set_state(slot, FREE);
                    self.tags.remove(&slot).map(|tag| self.tags_used.remove(&tag));
                    self.free.push(slot);
                }
            }
            MarkOp::Lease { until } => self.marks.set(header::LEASE, until.0),
        }
        true
    }

    /// The slot of a run that is about to start, with a new tag for its processes; none where the run has no mark, or
    /// no tag is left.
    pub fn ticket(&mut self, attempt: Attempt) -> Option<Ticket> {
        let slot = *self.slots.get(&attempt)?;
        if TAG_COUNT <= self.tags_used.len() as u64 {
            return None;
        }
        let tag = loop {
            let count = self.marks.words[header::TAGS].fetch_add(1, Ordering::Relaxed);
            let tag = TAG_FIRST + count % TAG_COUNT;
            if self.tags_used.insert(tag) {
                break tag;
            }
        };
        if let Some(old) = self.tags.insert(slot, tag) {
            self.tags_used.remove(&old);
        }
        Some(Ticket { slot, tag })
    }

    /// The run's mark as it is now; none where it has none.
    pub fn read(&self, attempt: Attempt) -> Option<Mark> {
        self.slots.get(&attempt).and_then(|slot| self.marks.read(*slot))
    }

    fn hold(&mut self, attempt: Attempt, version: Version, is_mutex: bool) -> bool {
        let Some(slot) = self.slots.get(&attempt).copied().or_else(|| self.free.pop()) else { return false };
        self.slots.insert(attempt, slot);
        self.marks.set_state(slot, FREE);
        self.marks
            .write(slot, &Mark { attempt, version, is_mutex, tag: 0, pid: 0, pid_start: 0, state: HELD, exit: 0 });
        true
    }
}

fn random_tag() -> u64 {
    let mut bytes = [0; 8];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(_) => u64::from_le_bytes(bytes) % TAG_COUNT,
        Err(_) => 0,
    }
}

/// The marks file of a data_dir.
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("marks")
}

#[cfg(test)]
mod tests;
