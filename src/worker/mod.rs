//! The hands: everything that blocks. Work comes in over a queue, its answer goes back over another; see `pool`.
//!
//! Not a place for decisions: a hand does each piece of work once, and says what came of it.

pub mod pool;

pub mod clock;
pub mod consul;
pub mod output_files;
pub mod process;
pub mod spool;
pub mod store;
mod token;
