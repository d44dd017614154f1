//! The jobs in memory: the leader's, and the replica that every other node keeps.

pub mod listing;
pub mod replica;
pub mod scan;
pub mod scheduler;

mod gaps;
mod timetable;
