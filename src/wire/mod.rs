//! The languages of HTTP and of nodes: bytes to values and back.
//!
//! Not a place that reads a socket or a clock.
//!
//! Invariant: no input makes it panic.

pub mod http;

pub mod channel;
pub mod frame;
pub mod handshake;
