//! What is asked of the hands that start and end processes, and their answers.
//!
//! Not the end of a process: the reactor hears of that, and tells it as `Input::Exited`.
//!
//! Invariant: an attempt whose start failed has no process.

use crate::model::{Attempt, Job, Wall};
use std::sync::Arc;

/// Start the command of one attempt. The hand marks the attempt `starting`, checks the lease in the marks, starts the
/// process, and marks the attempt `started` with the pid.
#[derive(Clone, Debug)]
pub struct Spawn {
    /// It has a mark that says `held`.
    pub attempt: Attempt,
    /// The definition that the attempt runs.
    pub job: Arc<Job>,
}

/// A process was started.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Started {
    /// Its pid, which is also its process group's.
    pub pid: u32,
    /// When it was started, by this node's wall clock.
    pub at: Wall,
}

/// Why an attempt has no process.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SpawnError {
    /// The lease had ended: nothing was started, and the mark says `held` again.
    NoLease,
    /// The host can start no further process just now (processes, memory, descriptors): nothing was started, and the
    /// mark says `held` again.
    Exhausted(String),
    /// The command cannot be started, however often it is tried; or it was started and had to be ended at once. The
    /// reason, for the run's output.
    Failed(String),
}

/// Signal the processes of one running attempt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Kill {
    /// One without a process is passed over.
    pub attempt: Attempt,
    /// With which signal, and to which processes.
    pub how: KillHow,
}

/// How an attempt is made to end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KillHow {
    /// TERM to the process group, and to those of the run's control group that have left it.
    Ask,
    /// KILL to every process of the run, those that left the group included.
    Force,
}

/// What is left of a run after KILL.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Left {
    /// Processes that have got KILL and are still there.
    pub pids: Vec<u32>,
    /// Every process of the run would have been found: its node has control groups.
    pub is_sure: bool,
}
