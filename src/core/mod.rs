//! The brain: sans-IO state machines. They decide everything and touch nothing.
//!
//! Not the place of anything that blocks: that is `worker`, and `reactor` drives both.
//!
//! The contract: `Node::handle(input, now)` takes one input and never fails; then the driver takes every effect from
//! `Node::poll_effect` until there is none; then it sleeps until `Node::poll_timeout` or the next input.
//!
//! Invariants: no thread, lock, socket, file, clock or hash-map order is used in here; nothing from outside makes it
//! panic.

pub mod io;
pub mod ports;
pub mod time;

pub mod schedule;

pub mod jobs;
pub mod log;

pub mod executor;
pub mod ledger;
pub mod runs;

pub mod cluster;
pub mod leader;
pub mod node;

mod context;

pub use context::Context;
pub use node::Node;
