//! The context that every part of the core gets with an input: the time, the effects, the log rows.
//!
//! Not a place for things that only some parts need.
//!
//! The rule of who takes it: a function that needs two or more of the time, the effects and the log rows takes
//! `cx: &mut Context`; a function that needs one of them takes that one alone (`now: Now`, `fx: &mut Effects`), so that
//! its signature says what it touches. The log (`core::log`) is an exception: its rows are a part of the context, and
//! cannot be handed the whole.
//!
//! Invariant: it is lent for one call; nobody keeps it.

use crate::core::io::Effects;
use crate::core::log::logbook::Logbook;
use crate::model::Now;

/// Lent by the node to the part that handles its input.
pub struct Context<'a> {
    pub now: Now,
    pub fx: &'a mut Effects,
    pub logbook: &'a mut Logbook,
}

/// Owns what a context lends: that of a node, or that of a part which a test drives.
#[derive(Debug, Default)]
pub struct Lender {
    pub fx: Effects,
    pub logbook: Logbook,
}

impl Lender {
    /// A lender with the log rows that former incarnations left.
    pub fn new(logbook: Logbook) -> Lender {
        Lender { fx: Effects::default(), logbook }
    }

    /// The context of an input that comes at this time.
    pub fn at(&mut self, now: Now) -> Context<'_> {
        Context { now, fx: &mut self.fx, logbook: &mut self.logbook }
    }
}
