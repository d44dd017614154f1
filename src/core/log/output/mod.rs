//! The outputs of runs: which ones this node holds and for how long, and how a client follows one.
//!
//! Not a part of `Node`: all output would pass through it twice. The driver uses these state machines beside the node,
//! reads pipes and sockets for them, and gives their orders to the thread with the files.
//!
//! Invariants: see the modules.

pub mod follow;
pub mod retention;

mod held;
