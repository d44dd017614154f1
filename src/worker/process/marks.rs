//! The marks: a memory-mapped file under data_dir that says, for each run that this node holds, how far it has come.
//! Writing a mark is a store to memory, so the marks are true even where the daemon is killed between two instructions.
//!
//! The next daemon reads the file and reports the runs in it. The guardian reads it and ends the runs that must not
//! outlive their daemon or its lease. After a start of the host the lease in the file is void, its pids mean nothing,
//! and every mark counts as `UNKNOWN`, because a power loss may have cost the latest stores.
//!
//! Not a log: a mark is cleared when the run's log row is committed.
//!
//! The file is input, and nobody acts on it unchecked: see `snapshot` and `slot`.
//!
//! Invariant: a slot's state is stored last, together with its checksum, so a slot whose state is not `FREE` is whole.

mod layout;
mod slot;
mod snapshot;

use crate::core::io::{FoundMark, MarkOp};
use crate::model::{Attempt, Mono, Version};
use crate::worker::own_files;
use crate::worker::process::cgroups;
use layout::{HEADER_WORDS, LAYOUT, MAGIC, WORD_BYTES, header};
use rustix::fs::{CWD, FallocateFlags, RenameFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};
pub use slot::Mark;
use slot::{Reading, SLOT_WORDS, TAG_COUNT, TAG_FIRST, Words, word};
pub use snapshot::Snapshot;
use snapshot::{boot_id, boot_ticks};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The most damaged slots that a notice names.
const DAMAGED_TOLD_MAX: usize = 5;

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

/// The marks as a daemon finds them when it starts.
#[derive(Debug)]
pub struct OpenedMarks {
    pub book: MarkBook,
    /// The marks that former incarnations left.
    pub found: Vec<FoundMark>,
    /// A message for the operator: the former file is damaged, and set aside.
    pub notice: Option<String>,
    /// The marks were missing, damaged or from before the host's last start, at this start or at an earlier one: the node
    /// may have begun runs that it does not name. It stays so until `MarkOp::Remember`.
    pub has_forgotten: bool,
}

impl Marks {
    /// Makes a new file, with the marks of the former one in its first slots. The former one becomes the spare file, from
    /// which the next start makes its own: so a daemon can be started again while the disk is full.
    fn create(path: &Path, capacity: usize, before: &Snapshot, has_forgotten: bool) -> io::Result<Marks> {
        let words = HEADER_WORDS + capacity * SLOT_WORDS;
        let bytes = (words * WORD_BYTES) as u64;
        let spare = path.with_extension("spare");
        let file = own_files::open(&spare)?;
        file.set_len(bytes)?;
        // A full disk must be an error here, and not a SIGBUS at a later store.
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes).map_err(|error| told_in_bytes(error, bytes))?;
        let marks = Marks { words: map(&file, words)? };
        marks.words.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        marks.set(header::CAPACITY, capacity as u64);
        let [low, high] = boot_id()?;
        marks.set(header::BOOT, low);
        marks.set(header::BOOT + 1, high);
        marks.set(header::LEASE, before.lease.0);
        marks.set(header::TAGS, before.tags);
        marks.set(header::CGROUP, cgroup_of("self").unwrap_or(0));
        marks.set(header::HAS_FORGOTTEN, has_forgotten.into());
        marks.set(header::LAYOUT, LAYOUT);
        for (at, mark) in (0..).zip(&before.marks) {
            marks.write(at, mark);
        }
        marks.set(header::MAGIC, MAGIC);
        match rustix::fs::renameat_with(CWD, &spare, CWD, path, RenameFlags::EXCHANGE) {
            // There is none yet, or this file system cannot exchange two names.
            Err(Errno::NOENT | Errno::INVAL | Errno::NOSYS) => fs::rename(&spare, path)?,
            exchanged => exchanged?,
        }
        Ok(marks)
    }

    /// The end of the lease: until then runs may start and mutex runs may go on.
    pub fn lease(&self) -> Mono {
        Mono(self.words[header::LEASE].load(Ordering::Acquire))
    }

    /// The run of this slot is about to be started, and its processes will have the ticket's tag. Answers the name for
    /// the run's control group.
    pub fn starting(&self, ticket: Ticket) -> Option<String> {
        let now = boot_ticks();
        self.set_slot(ticket.slot, word::TAG, ticket.tag);
        self.set_slot(ticket.slot, word::NOT_BEFORE, now);
        self.set_state(ticket.slot, slot::STARTING);
        cgroups::name(ticket.tag, now)
    }

    /// The run was started as this process, at `pid_start` (in clock ticks since boot).
    pub fn started(&self, ticket: Ticket, pid: u32, pid_start: u64) {
        self.set_slot(ticket.slot, word::PID_START, pid_start);
        self.set_slot(ticket.slot, word::PID, pid.into());
        self.set_state(ticket.slot, slot::STARTED);
    }

    /// The run was not started after all.
    pub fn back_to_held(&self, ticket: Ticket) {
        self.set_state(ticket.slot, slot::HELD);
    }

    /// The slot as it is now; none while it is free.
    pub fn read(&self, slot: u32) -> Option<Mark> {
        let reading = Reading { has_checksums: true, is_this_boot: true, now: boot_ticks() };
        let words = self.words_of(slot)?;
        if slot::is_free(&words) { None } else { slot::read(&words, reading).ok() }
    }

    /// The words of a slot; the first one is read first, because it is written last.
    fn words_of(&self, slot: u32) -> Option<Words> {
        let at = HEADER_WORDS + slot as usize * SLOT_WORDS;
        let words = self.words.get(at..at + SLOT_WORDS)?;
        let first = words[word::STATE].load(Ordering::Acquire);
        let mut values: Words = std::array::from_fn(|at| words[at].load(Ordering::Relaxed));
        values[word::STATE] = first;
        Some(values)
    }

    fn write(&self, at: u32, mark: &Mark) {
        let words = mark.words();
        for (word, value) in words.into_iter().enumerate().skip(1) {
            self.set_slot(at, word, value);
        }
        self.set_state(at, mark.state);
    }

    fn set(&self, word: usize, value: u64) {
        self.words[word].store(value, Ordering::Release);
    }

    fn set_slot(&self, slot: u32, word: usize, value: u64) {
        self.words[HEADER_WORDS + slot as usize * SLOT_WORDS + word].store(value, Ordering::Relaxed);
    }

    /// Writes the first word: the state, with the checksum of the words that it stands on.
    fn set_state(&self, slot: u32, state: u64) {
        let first = match self.words_of(slot) {
            Some(words) if state != slot::FREE => slot::sealed(&words, state),
            _ => slot::FREE,
        };
        self.words[HEADER_WORDS + slot as usize * SLOT_WORDS + word::STATE].store(first, Ordering::Release);
    }
}

/// The kernel's reason, and how much must be free where it is a lack of space.
fn told_in_bytes(error: Errno, bytes: u64) -> io::Error {
    match error {
        Errno::NOSPC | Errno::DQUOT => {
            io::Error::new(io::ErrorKind::StorageFull, format!("{error}; free {bytes} bytes there"))
        }
        error => error.into(),
    }
}

/// Maps the whole file, shared with other processes. It is never unmapped: a daemon has marks until it ends.
fn map(file: &File, words: usize) -> io::Result<&'static [AtomicU64]> {
    let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
    // SAFETY: this is a new mapping, at an address of the kernel's choice, of `words * 8` bytes that `fallocate` has
    // just given the file. It is never unmapped, and nobody shortens the file before this daemon has ended (it holds the
    // lock of data_dir), so it is valid for 'static. It is page-aligned, and used through atomics only, so other processes may read it at any time.
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
    /// Opens the marks in `data_dir` for at least `capacity` runs. `is_first_start`: this node was given no run before.
    pub fn open(data_dir: &Path, capacity: usize, is_first_start: bool) -> io::Result<OpenedMarks> {
        let path = path(data_dir);
        let mut notice = None;
        // The first tag is random, so that another daemon on this host most likely uses other ones.
        let empty = || Snapshot {
            lease: Mono(0),
            marks: Vec::new(),
            damaged: Vec::new(),
            cgroup: None,
            has_forgotten: false,
            is_this_boot: false,
            tags: random_tag(),
        };
        let aside = path.with_extension("damaged");
        let told =
            |reason: String| Some(format!("{}: {reason}; it is set aside as {}", path.display(), aside.display()));
        let mut before = match Snapshot::read(&path) {
            Ok(before) => before.unwrap_or_else(empty),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                fs::rename(&path, &aside)?;
                notice = told(format!("{error}, and what it says of runs is not believed"));
                empty()
            }
            Err(error) => return Err(error),
        };
        let twins = slot::drop_twins(&mut before.marks);
        if !before.damaged.is_empty() || twins != 0 {
            // A copy: until the new file is there, this one has the marks of the other runs.
            fs::copy(&path, &aside)?;
            own_files::tighten(&aside)?;
            let slots = before.damaged.iter().map(|(at, reason)| format!("slot {at}: {reason}"));
            let slots: Vec<String> = slots.take(DAMAGED_TOLD_MAX).collect();
            notice = told(match before.damaged.len() {
                0 => format!("{twins} runs have a second mark, and the one that has come further is believed"),
                count => format!("{count} slots are damaged and not believed ({})", slots.join(", ")),
            });
        }
        let capacity = capacity.max(before.marks.len());
        let is_whole = is_first_start || before.is_this_boot && before.damaged.is_empty() && twins == 0;
        let has_forgotten = before.has_forgotten || !is_whole;
        let marks = Arc::new(Marks::create(&path, capacity, &before, has_forgotten)?);
        let slots: BTreeMap<Attempt, u32> = (0..).zip(&before.marks).map(|(at, mark)| (mark.attempt, at)).collect();
        let free = (before.marks.len() as u32..capacity as u32).rev().collect();
        let found = before.marks.iter().map(Mark::found).collect();
        let book = MarkBook { marks, slots, free, tags: BTreeMap::new(), tags_used: BTreeSet::new() };
        Ok(OpenedMarks { book, found, notice, has_forgotten })
    }

    /// The marks themselves, for threads that start processes.
    pub fn marks(&self) -> Arc<Marks> {
        Arc::clone(&self.marks)
    }

    /// Carries the op out; false where no slot is free for the run that it holds.
    pub fn apply(&mut self, op: MarkOp) -> bool {
        match op {
            MarkOp::Hold { attempt, version, is_mutex } => return self.hold(attempt, version, is_mutex),
            MarkOp::Ended { attempt, exit } => {
                if let Some(&slot) = self.slots.get(&attempt) {
                    self.marks.set_slot(slot, word::EXIT, slot::exit_word(exit));
                    self.marks.set_state(slot, slot::ENDED);
                }
            }
            MarkOp::Clear { attempt } => {
                if let Some(slot) = self.slots.remove(&attempt) {
                    self.marks.set_state(slot, slot::FREE);
                    self.tags.remove(&slot).map(|tag| self.tags_used.remove(&tag));
                    self.free.push(slot);
                }
            }
            MarkOp::Lease { until } => self.marks.set(header::LEASE, until.0),
            MarkOp::Remember => self.marks.set(header::HAS_FORGOTTEN, 0),
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
        self.marks.set_state(slot, slot::FREE);
        self.marks.write(slot, &Mark::held(attempt, version, is_mutex));
        true
    }
}

/// Gives this process the usual timer slack where it has a run's: a guardian that a run of another one starts must not
/// be taken for a process of that run, and neither must its daemon.
pub fn leave_tag() -> io::Result<()> {
    const USUAL: NonZeroU64 = NonZeroU64::new(50_000).unwrap();
    if (TAG_FIRST..TAG_FIRST + TAG_COUNT).contains(&rustix::thread::current_timer_slack()?) {
        rustix::thread::set_current_timer_slack(Some(USUAL))?;
    }
    Ok(())
}

fn random_tag() -> u64 {
    let mut bytes = [0; 8];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(_) => u64::from_le_bytes(bytes) % TAG_COUNT,
        Err(_) => 0,
    }
}

/// A number for the control groups of a process, by its pid or as `self`: equal for equal ones, and never 0.
pub fn cgroup_of(process: &str) -> Option<u64> {
    let text = fs::read(format!("/proc/{process}/cgroup")).ok()?;
    Some(u64::from(crc32fast::hash(&text)) + 1)
}

/// The marks file of a data_dir.
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("marks")
}

#[cfg(test)]
mod tests;
