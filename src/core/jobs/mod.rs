//! The jobs in memory: the leader's, and the replica that every other node keeps. In `schedule`: when a job is due.
//!
//! Not the runs: those are in `runs` at the leader and in `executor` at every node.
//!
//! Invariants: see the modules.

pub mod listing;
pub mod replica;
pub mod scan;
pub mod schedule;
pub mod scheduler;

mod gaps;
mod timetable;
