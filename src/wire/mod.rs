//! The languages: bytes to values and back. Nothing here reads a socket or a clock, and no input makes it panic.

pub mod http;

pub mod frame;
pub mod handshake;
