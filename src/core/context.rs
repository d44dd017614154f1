//! The context that every part of the core gets with an input: the time, the effects, the log rows.
//!
//! Not a place for things that only some parts need.
//!
//! Invariant: a part has it for one call, and does not keep it.

use crate::core::io::Effects;
use crate::core::log::logbook::Logbook;
use crate::model::Now;

/// Lent by the node to the part that handles its input.
pub struct Context<'a> {
    pub now: Now,
    pub fx: &'a mut Effects,
    pub logbook: &'a mut Logbook,
}
