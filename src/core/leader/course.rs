//! The course of the ticks, beside the scheduler's cursor.
//!
//! Not the taking of a tick: that is in `ticks`.
//!
//! Invariant: the last tick that was given to the journal never goes back.

use super::misfire::Gap;
use crate::core::time::bounds::QUIET_SECS;
use crate::model::Second;

/// How far the ticks have come, beside the scheduler's cursor.
#[derive(Debug)]
pub struct Ticks {
    /// The late seconds that are being caught up on.
    pub gap: Gap,
    /// The last tick that was given to the journal.
    pub journaled: Second,
    /// The operator was told that the clock was set back.
    pub is_ahead_said: bool,
}

impl Ticks {
    /// The next tick is the one after `cursor`. It is journaled with or without runs: it shows others that this node
    /// leads.
    pub fn new(cursor: Second) -> Ticks {
        Ticks { gap: Gap::default(), journaled: cursor.plus(-QUIET_SECS), is_ahead_said: false }
    }
}
