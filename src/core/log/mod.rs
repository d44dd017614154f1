//! What runs leave behind: log rows on their way to the store, through this node's own disk where the store is away; and in
//! `output` what runs have written, while this node holds it.
//!
//! Not the table `log` itself: that is the store's.
//!
//! Invariant: a row is kept here until the store has committed it.

pub mod ending;
pub mod logbook;
pub mod output;

mod backlog;
mod spooler;

#[cfg(test)]
mod sample;
