//! The context that every part of the core gets with an input: the time, the effects, the log rows.
//!
//! Not a place for values that only some parts need.
//!
//! Invariant: it is lent for one call, from the caller to the called; nobody keeps it.

use crate::core::io::Effects;
use crate::core::log::logbook::Logbook;
use crate::model::Now;

/// Lent by the node to the part that handles an input.
pub struct Context<'a> {
    pub now: Now,
    pub fx: &'a mut Effects,
    pub logbook: &'a mut Logbook,
}
