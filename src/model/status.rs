//! How far an attempt has come, as people are shown it.
//!
//! Not the stage that the leader decides by, and not the phase that its node does.

use serde::{Deserialize, Serialize};

/// How far an attempt has come.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RunStatus {
    /// The leader keeps it: its mutex is another's, it may not run beside those that do, or no node has capacity for it.
    Waiting,
    /// The leader keeps it until its delay is over.
    Delayed,
    /// On its node, before its second.
    Armed,
    /// On its node, past its second: it is in the ready queue.
    Queued,
    Running,
    /// It is being ended.
    Ending,
    /// Its node does not answer.
    Unknown,
}
