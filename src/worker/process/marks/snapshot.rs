//! The marks file as a reader finds it: the guardian reads what its daemon writes, a daemon what an earlier incarnation left.
//!
//! Not the file that this daemon writes: that is mapped.
//!
//! Invariant: only what can be true is in it.

use super::layout::{CAPACITY_MAX, HEADER_WORDS, LAYOUT, LAYOUT_WITHOUT_CHECKSUMS, MAGIC, WORD_BYTES, header};
use super::slot::{self, Mark, Reading, SLOT_WORDS};
use crate::model::Mono;
use crate::worker::{clock, own_files};
use std::fs;
use std::io;
use std::path::Path;

/// A slot may be written while it is read: so often a file with a damaged slot is read.
const READS_MAX: usize = 3;

/// The file as it was at the time of reading.
#[derive(Debug)]
pub struct Snapshot {
    /// 0 (void) where the host has started since.
    pub lease: Mono,
    /// The marks of all slots that are not free and not damaged.
    pub marks: Vec<Mark>,
    /// The slots that nobody may act on: which, and why.
    pub damaged: Vec<(usize, &'static str)>,
    /// The control group of the daemon that wrote the file; none where it is not known.
    pub cgroup: Option<u64>,
    /// As in `OpenedMarks`.
    pub has_forgotten: bool,
    /// The file was written since the host's last start.
    pub is_this_boot: bool,
    /// How many tags were given.
    pub tags: u64,
}

impl Snapshot {
    /// Reads the file; none where it does not exist. `InvalidData`: it is not a marks file of this version.
    pub fn read(path: &Path) -> io::Result<Option<Snapshot>> {
        let mut snapshot = Snapshot::read_once(path)?;
        for _ in 1..READS_MAX {
            if snapshot.as_ref().is_none_or(|snapshot| snapshot.damaged.is_empty()) {
                break;
            }
            snapshot = Snapshot::read_once(path)?;
        }
        Ok(snapshot)
    }

    fn read_once(path: &Path) -> io::Result<Option<Snapshot>> {
        let words_max = HEADER_WORDS + CAPACITY_MAX * SLOT_WORDS;
        let Some(bytes) = own_files::read(path, words_max * WORD_BYTES)? else { return Ok(None) };
        Snapshot::of(&bytes, boot_id()?, boot_ticks()).map(Some)
    }

    /// What the bytes of the file say to a reader in this boot of the host, at `now` (in clock ticks since boot).
    /// `InvalidData`: they are not a marks file of this version.
    pub fn of(bytes: &[u8], boot: [u64; 2], now: u64) -> io::Result<Snapshot> {
        let words: Vec<u64> = bytes
            .chunks_exact(WORD_BYTES)
            .map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()))
            .collect();
        let layout = words.get(header::LAYOUT).copied().unwrap_or(0);
        let is_ours = words.len() >= HEADER_WORDS
            && words[header::MAGIC] == MAGIC
            && [LAYOUT, LAYOUT_WITHOUT_CHECKSUMS].contains(&layout);
        if !is_ours
            || words[header::CAPACITY].checked_mul(SLOT_WORDS as u64) != Some((words.len() - HEADER_WORDS) as u64)
        {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a marks file of this version"));
        }
        let is_this_boot = words[header::BOOT..header::BOOT + 2] == boot;
        let reading = Reading { has_checksums: layout == LAYOUT, is_this_boot, now };
        let (mut marks, mut damaged) = (Vec::new(), Vec::new());
        for (at, words) in words[HEADER_WORDS..].as_chunks::<SLOT_WORDS>().0.iter().enumerate() {
            match slot::read(words, reading) {
                _ if slot::is_free(words) => {}
                Ok(mark) => marks.push(mark),
                Err(reason) => damaged.push((at, reason)),
            }
        }
        let lease = if is_this_boot { Mono(words[header::LEASE]) } else { Mono(0) };
        let cgroup = Some(words[header::CGROUP]).filter(|cgroup| *cgroup != 0);
        let has_forgotten = words[header::HAS_FORGOTTEN] != 0;
        Ok(Snapshot { lease, marks, damaged, cgroup, has_forgotten, is_this_boot, tags: words[header::TAGS] })
    }
}

/// The time since boot in clock ticks, of which every Linux has 100 a second: the unit in which the kernel tells when a
/// process was started.
pub fn boot_ticks() -> u64 {
    clock::mono().0 / 10_000_000
}

/// The kernel's id of this start of the host, as two words.
pub fn boot_id() -> io::Result<[u64; 2]> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let hex: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let number = u128::from_str_radix(&hex, 16)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "boot_id is not a UUID"))?;
    Ok([number as u64, (number >> 64) as u64])
}
