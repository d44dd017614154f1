//! The languages of HTTP and of nodes: bytes to values and back.
//!
//! Not a place that reads a socket or a clock.
//!
//! Invariant: no input makes it panic.

pub mod channel;
pub mod frame;
pub mod handshake;
pub mod headers;
pub mod http;
