//! The core: state machines that make all decisions and do no IO.
//!
//! The contract: `Node::handle(input, now)` takes one input and never fails. The driver then takes every effect from
//! `Node::poll_effect`, and sleeps until `Node::poll_timeout` or the next input.
//!
//! Not a place for IO: `reactor` and `worker` carry the effects out.
//!
//! Invariants: no thread, lock, socket, file, clock or hash-map order is used in here; nothing that comes from outside
//! makes it panic.

pub mod io;
pub mod time;

pub mod jobs;
pub mod log;

pub mod executor;
pub mod runs;

pub mod cluster;
pub mod leader;
pub mod node;

mod context;

pub use context::{Context, Lender};
pub use node::Node;
