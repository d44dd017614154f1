//! The answers to changes that were not made, or that hold only in part.
//!
//! Not the store's own words: those come in as `trouble`.
//!
//! Invariant: each answer says whether anything was changed.

use crate::model::JobId;
use crate::model::command::CallError;

/// The reason where the store has given none.
pub const SILENT: &str = "the store does not answer";

/// The change is stored, but a node that may still start runs of the old definition cannot be told.
pub fn cut_off() -> CallError {
    CallError::unavailable(
        "the change is stored and in force, but a node is cut off that may have runs of the old definition: within 11 s they \
         are started or its lease is over",
    )
}

/// The stop is in force, and the store does not have it yet.
pub fn in_force(id: JobId) -> CallError {
    CallError::unavailable(format!(
        "in force, not stored: job {id} is stopped in the memory of this leader, and is stored as soon as the store takes it; \
         should another node take the lead before that, stop it again"
    ))
}

/// The stop is in force and not stored, and a node that may have runs of the job cannot be told.
pub fn in_force_and_cut_off(id: JobId) -> CallError {
    CallError::unavailable(format!(
        "{}; a node is cut off that may have runs of the job: within 11 s they are started or its lease is over",
        in_force(id).message
    ))
}

/// Nothing was changed. `trouble`: the store's error, where it gave one.
pub fn untouched(trouble: Option<&str>) -> CallError {
    CallError::unavailable(format!("nothing was changed: {}", trouble.unwrap_or(SILENT)))
}

/// Nothing was changed, because the seconds before the change are not decided yet.
pub fn undecided() -> CallError {
    CallError::unavailable("nothing was changed: the job's earlier seconds are still being decided on; try again")
}
