//! What runs write: which outputs this node holds and for how long, and how a client follows one.
//!
//! Not a part of `Node`, through which all these bytes would pass twice: the driver asks these machines beside it, reads
//! pipes and sockets for them, and gives their orders to the thread that has the files.

pub mod follow;
pub mod retention;

mod held;
