//! Log rows on their way to the store, through this node's own disk where the store is away.

pub mod ending;
pub mod logbook;

mod backlog;
mod spooler;
