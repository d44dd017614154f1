//! What every part of the core is handed with an input: the time, the effects, the log rows.
//!
//! Not a place for what only some parts need. It is lent for one call and goes down only: nobody keeps it.

use crate::core::io::Effects;
use crate::core::log::logbook::Logbook;
use crate::model::Now;

/// Lent by the node to whom it routes an input.
pub struct Context<'a> {
    pub now: Now,
    pub fx: &'a mut Effects,
    pub logbook: &'a mut Logbook,
}
