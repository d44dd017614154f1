//! wing-crontab: a distributed crontab, exact to the second.
//!
//! A pure `Node` decides, a `Reactor` listens and speaks, `worker` threads do what blocks. The rooms, in reading order:
//!
//! | room | what it is |
//! |---|---|
//! | `model` | plain data: jobs, runs, entries, clocks |
//! | `core` | all decisions: state machines without IO, under `Node::handle` |
//! | `wire` | bytes to values and back: HTTP, frames and proofs between nodes |
//! | `api` | (method, path, parameters) to `Command`, `Reply` to JSON; in `access`, who may send what |
//! | `worker` | the only code that blocks: pool, stores, Consul, processes with marks, control groups and guardian |
//! | `reactor` | the poll loop: connections with TLS below them, links to other nodes, children, timer |
//! | `config`, `logging` | app.toml and the host's time zones, log lines |
//! | `next`, `token` | the subcommands |
//!
//! Who may import whom: main -> all of it; reactor -> api, core, wire, worker, model; worker -> core's `io::ports` and
//! `time::bounds` (and `MarkOp`, `FoundMark`), model; api -> wire, model; wire -> model; core -> model; config ->
//! model.
//! `tests/house_rules.rs` holds the sources to this.
//!
//! Invariants that cross rooms:
//!
//! 1. Nothing is sent to a node before it is in the journal.
//! 2. Every statement of a leader names its epoch; where the store has another one, the statement does nothing.
//! 3. Every tick of every job has exactly one visible outcome: ok, failed, timeout, killed, cancelled, skipped, shed,
//!    missed, lost.
//! 4. The reactor's thread blocks in poll and nowhere else; clocks are read in `worker::clock` and nowhere else.

#![deny(unsafe_code)]
#![cfg_attr(
    not(test),
    warn(
        clippy::disallowed_methods,
        clippy::exit,
        clippy::expect_used,
        clippy::panic,
        clippy::print_stderr,
        clippy::print_stdout,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

#[cfg_attr(not(test), warn(clippy::disallowed_types))]
pub mod model;

#[cfg_attr(not(test), warn(clippy::disallowed_types))]
pub mod core;

#[cfg_attr(not(test), warn(clippy::disallowed_types))]
pub mod wire;

pub mod api;

pub mod worker;

pub mod reactor;

pub mod config;
pub mod logging;
pub mod next;
pub mod token;
