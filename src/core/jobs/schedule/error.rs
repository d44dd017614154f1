//! Why a text is no schedule.
//!
//! Not the rules themselves: `parse`, `calendar` and `zone` hold a text to them.
//!
//! Invariant: the words name the field.

use std::fmt;

/// The wrong field, and the reason.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ScheduleError(pub(super) String);

impl fmt::Display for ScheduleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
