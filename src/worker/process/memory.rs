//! Whether the host has enough free memory for another process (config key `min_free_memory_mb`).
//!
//! It goes by the kernel's estimate of the memory that the whole host can use without swapping (MemAvailable).
//!
//! Not the limits of a control group: these are not read.
//!
//! Invariant: a reading is used for at most `KEEP_MS`; so it is new enough, and many starts cost few readings.

use crate::model::Mono;
use crate::worker::clock;
use std::sync::{Mutex, PoisonError};

/// A reading is used for so long.
const KEEP_MS: u64 = 100;

/// The last reading, which the spawning threads share.
#[derive(Debug)]
pub struct FreeMemory {
    /// 0: any amount is enough.
    min_mb: u64,
    /// When it was read, and how many MiB were available.
    last: Mutex<Option<(Mono, u64)>>,
}

impl FreeMemory {
    /// A check that so many megabytes are free; 0 checks nothing.
    pub fn new(min_mb: u64) -> FreeMemory {
        FreeMemory { min_mb, last: Mutex::new(None) }
    }

    /// An error, for the run's output, where too little memory is free. Where /proc/meminfo cannot be read, there is
    /// enough.
    pub fn check(&self) -> Result<(), String> {
        if self.min_mb == 0 {
            return Ok(());
        }
        let now = clock::mono();
        // A reading is stored in one step, so a lock that a panic poisoned holds a whole one.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = last.filter(|(at, _)| now < at.plus_ms(KEEP_MS)).map(|(_, free_mb)| free_mb);
        let Some(free_mb) = fresh.or_else(read_free_mb) else { return Ok(()) };
        if fresh.is_none() {
            *last = Some((now, free_mb));
        }
        if self.min_mb <= free_mb {
            return Ok(());
        }
        Err(format!(
            "not started: {free_mb} MB of memory are free, fewer than min_free_memory_mb = {}; free memory or lower the key",
            self.min_mb
        ))
    }
}

fn read_free_mb() -> Option<u64> {
    free_mb(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn free_mb(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_available_memory_is_read_and_compared_with_the_limit() {
        assert_eq!(free_mb("MemTotal: 9 kB\nMemAvailable:    2097152 kB\nBuffers: 1 kB\n"), Some(2_048));
        assert_eq!(free_mb("MemTotal: 9 kB\n"), None);
        assert_eq!(FreeMemory::new(0).check(), Ok(()));
        assert_eq!(FreeMemory::new(1).check(), Ok(()));
        let refused = FreeMemory::new(1 << 40).check().unwrap_err();
        assert!(refused.contains("min_free_memory_mb"), "{refused}");
    }
}
