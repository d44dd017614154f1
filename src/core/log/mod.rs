//! Log rows on their way to the store, through this node's own disk where the store is away.
//!
//! Not the table `log` itself: that is the store's.
//!
//! Invariant: a row is kept here until the store has committed it.

pub mod ending;
pub mod logbook;

mod backlog;
mod spooler;

#[cfg(test)]
mod sample;
