//! What must hold for any bytes that come from outside: a function for each fuzz target, which panics where it does not.
//!
//! Not a fuzzer: libFuzzer hands in bytes of its own (fuzz_targets), and the stable test those of the corpus (main.rs).
//!
//! Invariant: a property depends on the bytes alone, so a file of the corpus always says the same.

mod api;
mod channel;
mod config;
mod frames;
mod http;
mod journal;
mod marks;
mod messages;
mod pieces;
mod schedule;
mod spool;

/// Panics where the property of a target does not hold for the bytes.
type Check = fn(&[u8]);

/// The targets, by name.
pub const TARGETS: [(&str, Check); 9] = [
    ("api", api::check),
    ("config", config::check),
    ("frames", frames::check),
    ("http", http::check),
    ("journal", journal::check),
    ("marks", marks::check),
    ("messages", messages::check),
    ("schedule", schedule::check),
    ("spool", spool::check),
];

/// Holds the bytes to the target's property.
pub fn holds(target: &str, bytes: &[u8]) {
    let (_, check) = TARGETS.iter().find(|(name, _)| *name == target).expect("a target of this name");
    check(bytes);
}
