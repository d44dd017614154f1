//! Log rows for the unit tests of this room.
//!
//! Not for other rooms: there a log row is made from a run.
//!
//! Invariant: rows differ by their job's id and by how much they wrote, and in nothing else.

use crate::model::{Attempt, JobId, LogRow, RunKey, RunState, Second, Server, Version};

/// The only attempt of a run of this job.
pub fn attempt(id: u32) -> Attempt {
    Attempt { run: RunKey::scheduled(JobId(id), Second(1)), number: 1 }
}

/// A row of that attempt, which wrote so many bytes.
pub fn row(id: u32, bytes: usize) -> LogRow {
    LogRow {
        attempt: attempt(id),
        version: Version(1),
        state: RunState::Ok,
        exit_code: Some(0),
        output: "x".repeat(bytes),
        start_time_ms: 0,
        use_time_ms: 0,
        usage: Default::default(),
        dispatch_time: Second(1),
        dispatch_server: Server::default(),
        run_server: Server::default(),
    }
}
