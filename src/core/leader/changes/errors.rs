//! The words in which a change is refused, or told to hold only by half.
//!
//! Invariant: each says whether anything was changed, and what to do.

use crate::model::JobId;
use crate::model::command::CallError;

/// Where the store has said nothing of its trouble.
pub const SILENT: &str = "the store does not answer";

/// A node that may still start runs of the old definition cannot be told.
pub fn cut_off() -> CallError {
    CallError::unavailable(
        "the change is stored and in force, but a node is cut off that may have runs of the old definition: within 11 s they \
         are started or its lease is over",
    )
}

/// A stop that the store does not have yet.
pub fn in_force(id: JobId) -> CallError {
    CallError::unavailable(format!(
        "in force, not stored: job {id} is stopped in the memory of this leader, and is stored as soon as the store takes it; \
         should another node take the lead before that, stop it again"
    ))
}

pub fn in_force_and_cut_off(id: JobId) -> CallError {
    CallError::unavailable(format!(
        "{}; a node is cut off that may have runs of it: within 11 s they are started or its lease is over",
        in_force(id).message
    ))
}

/// Nothing was done about the change. `trouble`: what the store said, where it said anything.
pub fn untouched(trouble: Option<&str>) -> CallError {
    CallError::unavailable(format!("nothing was changed: {}", trouble.unwrap_or(SILENT)))
}

pub fn undecided() -> CallError {
    CallError::unavailable("nothing was changed: what is due before it is still being decided on; try again")
}
