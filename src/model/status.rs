//! How far an attempt has come, for people.
//!
//! Not the stage by which the leader decides, and not the phase by which the executor decides.
//!
//! Invariant: an attempt that is over has no status; it has a `RunState`.

use serde::{Deserialize, Serialize};

/// How far an attempt has come.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RunStatus {
    /// With the leader: it waits for a permit, or no node has capacity for it.
    Waiting,
    /// With the leader, until its delay is over.
    Delayed,
    /// With its node, before its second.
    Armed,
    /// With its node, past its second and not started yet.
    Queued,
    Running,
    /// It is being ended.
    Ending,
    /// Its node does not answer.
    Unknown,
}
