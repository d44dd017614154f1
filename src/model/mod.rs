//! The model: plain data that every other room may use.
//!
//! Not a place that reads a clock, holds a lock or does IO.
//!
//! Invariant: a value that exists is valid in itself; `core` checks it against everything else (such as known ids).

pub mod access;
pub mod columns;
pub mod command;
pub mod config;
pub mod job;
pub mod journal;
pub mod log_row;
pub mod message;
pub mod node;
pub mod output;
pub mod run;
pub mod status;
pub mod time;
pub mod tls;
pub mod value;
pub mod zones;

pub use job::{Job, JobId, Misfire, OnLost, Version};
pub use log_row::LogRow;
pub use node::{Epoch, Incarnation, NodeId, Server};
pub use run::{Attempt, Exit, RunKey, RunState, Usage};
pub use time::{Mono, Now, Second, Wall};
pub use zones::Zones;
