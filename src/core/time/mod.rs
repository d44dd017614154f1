//! Time in the core: its constants, its one table of timers, and waits that grow.
//!
//! Not a clock: every input comes with its time.
//!
//! Invariants: see the modules.

mod backoff;
pub mod bounds;
mod timers;

pub use backoff::Backoff;
pub use timers::{STALLED, Stalled, Timer, Timers};
