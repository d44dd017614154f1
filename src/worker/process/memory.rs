//! Whether the host has enough free memory for another process (config key `min_free_memory_mb`).
//!
//! By what the kernel reckons to be available without swapping, for the whole host: the limits of a control group are
//! not looked at.

use crate::model::Mono;
use crate::worker::clock;
use std::sync::{Mutex, PoisonError};

/// A reading counts for so long.
const KEEP_MS: u64 = 100;

/// Shared by the spawning threads.
#[derive(Debug)]
pub struct FreeMemory {
    /// 0: whatever is free is enough.
    min_mb: u64,
    last: Mutex<Option<(Mono, u64)>>,
}

impl FreeMemory {
    pub fn new(min_mb: u64) -> FreeMemory {
        FreeMemory { min_mb, last: Mutex::new(None) }
    }

    /// The error says what is wrong. A host that does not tell has enough.
    pub fn check(&self) -> Result<(), String> {
        if self.min_mb == 0 {
            return Ok(());
        }
        let now = clock::mono();
        // A reading is whole or not there, whatever became of the thread that made it.
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
            "not started: {free_mb} MB of memory are free, and min_free_memory_mb = {} are to stay free",
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
    fn what_is_available_is_read_and_held_against_the_limit() {
        assert_eq!(free_mb("MemTotal: 9 kB\nMemAvailable:    2097152 kB\nBuffers: 1 kB\n"), Some(2_048));
        assert_eq!(free_mb("MemTotal: 9 kB\n"), None);
        assert_eq!(FreeMemory::new(0).check(), Ok(()));
        assert_eq!(FreeMemory::new(1).check(), Ok(()));
        let refused = FreeMemory::new(1 << 40).check().unwrap_err();
        assert!(refused.contains("min_free_memory_mb"), "{refused}");
    }
}
