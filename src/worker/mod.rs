//! The workers: all code that blocks. Work comes in over a queue, and its answer goes back over another; see `pool`.
//!
//! Not a place for decisions: the core makes them.
//!
//! Invariant: a hand carries out each piece of work once, and answers with the result.

pub mod pool;

pub mod clock;
pub mod consul;
pub mod home;
pub mod operator_files;
pub mod output_files;
pub mod own_files;
pub mod process;
pub mod random;
pub mod spool;
pub mod store;
mod tls;
mod token;
