//! The jobs in memory: the leader's, and the replica that every other node keeps.
//!
//! Not the runs: those are `runs` at the leader and `executor` at every node. Invariants stand in the modules.

pub mod listing;
pub mod replica;
pub mod scan;
pub mod scheduler;

mod gaps;
mod timetable;
