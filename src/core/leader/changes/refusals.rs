//! The words in which a change is refused, or told to hold only by half.
//!
//! Invariant: each says whether anything was changed, and what to do.

use crate::model::JobId;
use crate::model::command::Refusal;

/// Where the store has said nothing of its trouble.
pub const SILENT: &str = "the store does not answer";

/// A node that may still start runs of the old definition cannot be told.
pub fn cut_off() -> Refusal {
    Refusal::unavailable(
        "the change is stored and in force, but a node is cut off that may have runs of the old definition: within 11 s they \
         are started or its lease is over",
    )
}

/// A stop that the store does not have yet.
pub fn in_force(id: JobId) -> Refusal {
    Refusal::unavailable(format!(
        "in force, not stored: job {id} is stopped in the memory of this leader, and is stored as soon as the store takes it; \
         should another node take the lead before that, stop it again"
    ))
}

pub fn in_force_and_cut_off(id: JobId) -> Refusal {
    Refusal::unavailable(format!(
        "{}; a node is cut off that may have runs of it: within 11 s they are started or its lease is over",
        in_force(id).message
    ))
}

/// Nothing was done about the change. `trouble`: what the store said, where it said anything.
pub fn untouched(trouble: Option<&str>) -> Refusal {
    Refusal::unavailable(format!("nothing was changed: {}", trouble.unwrap_or(SILENT)))
}

pub fn undecided() -> Refusal {
    Refusal::unavailable("nothing was changed: what is due before it is still being decided on; try again")
}
