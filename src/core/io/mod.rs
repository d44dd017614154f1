//! The core's inputs and effects: one input goes in, effects come out. In `ports`: what the effects ask of the store, Consul
//! and the processes, and the answers.
//!
//! Not the parts that carry effects out: those are in `reactor` and `worker`.
//!
//! Invariant: everything that happens to a node comes as an `Input`, everything that it does leaves as an `Effect`.

mod effects;
pub mod ports;

pub use effects::{Effects, Mail};

use crate::core::io::ports::{Done, Work, WorkId};
use crate::model::command::{Command, Reply, RequestId};
use crate::model::config::Secret;
use crate::model::message::{LinkId, Message};
use crate::model::output::OutputPart;
use crate::model::{Attempt, Exit, Mono, RunState, Server, Usage, Version};
use std::fmt;

/// Something that happens to the node.
#[derive(Clone, Debug)]
pub enum Input {
    /// The time of `poll_timeout` has come, or the wall clock was set.
    Wake,
    Command(RequestId, Command),
    Done(WorkId, Done),
    /// The main process of an attempt is over and its output is complete.
    Exited {
        attempt: Attempt,
        ended: Ended,
    },
    /// The answer to `Effect::ReadOutput`; none where this node does not have the output (any more).
    OutputRead {
        request: u64,
        part: Option<OutputPart>,
    },
    Signal(Signal),
    /// A link is up, and its other end has proved that it belongs to this cluster.
    Linked(LinkId),
    Received(LinkId, Message),
    Unlinked(LinkId, Gone),
}

/// The end of a run's main process.
#[derive(Clone, Debug)]
pub struct Ended {
    pub exit: Exit,
    /// What it wrote, as its log row has it.
    pub output: String,
    pub usage: Usage,
}

/// How a link ended, or why there is none.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Gone {
    /// Nobody listens at that address: the daemon is most likely dead.
    NobodyThere,
    Lost,
    /// The other end has another secret, or none.
    OtherSecret,
    /// The other end is on another host, and this node has no secret.
    NoSecret,
    /// The other end speaks another version of the protocol.
    OtherVersion {
        theirs: u8,
        ours: u8,
    },
}

impl Gone {
    /// The other end may be well, and still this node cannot speak with it.
    pub fn is_foreign(self) -> bool {
        matches!(self, Gone::OtherSecret | Gone::NoSecret | Gone::OtherVersion { .. })
    }
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Gone::NobodyThere => f.write_str("nobody listens there"),
            Gone::Lost => f.write_str("the connection is lost"),
            Gone::OtherSecret => {
                f.write_str("it has another cluster_secret, or none; give all nodes of a cluster the same one")
            }
            Gone::NoSecret => f.write_str(
                "without cluster_secret this node connects only to nodes of its own host; set it on all nodes",
            ),
            Gone::OtherVersion { theirs, ours } => write!(
                f,
                "it speaks version {theirs} of the protocol (or is no node), this node version {ours}; update the older one"
            ),
        }
    }
}

/// A signal of an operator, or the guardian's death.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Signal {
    /// SIGTERM, SIGINT: take no new runs, let the running ones end, exit. After a second one: end them at once.
    Drain,
    /// SIGHUP: read the jobs again.
    Reload,
    /// The guardian is dead: end the runs and exit.
    Orphaned,
}

/// Something that the node wants done.
#[derive(Clone, Debug)]
pub enum Effect {
    Work(WorkId, Work),
    Reply(RequestId, Reply),
    Mark(MarkOp),
    /// The attempt's log row is on its way. Readers of its output get `last_lines` behind it.
    Ended {
        attempt: Attempt,
        state: RunState,
        last_lines: String,
    },
    /// Read the attempt's output from byte `from` on. The answer is `Input::OutputRead` with the same number.
    ReadOutput {
        request: u64,
        attempt: Attempt,
        from: u64,
    },
    Notice(Notice),
    /// The store keeps this secret for links: a node to which none was given proves itself by it.
    LinkSecret(Secret),
    /// Make a link to this server. The answer is `Input::Linked` or `Input::Unlinked`.
    Link(LinkId, Server),
    Send(LinkId, Message),
    /// Close the link. No input comes from it any more.
    Unlink(LinkId),
    /// Exit: the last effect.
    Exit(ExitReason),
}

/// A write to the marks, the memory-mapped file that survives the daemon.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MarkOp {
    Hold {
        attempt: Attempt,
        version: Version,
        is_mutex: bool,
    },
    Ended {
        attempt: Attempt,
        exit: Exit,
    },
    /// The log row is committed, or the run was dropped before its start.
    Clear {
        attempt: Attempt,
    },
    /// Runs may start, and mutex runs may go on, until `until`.
    Lease {
        until: Mono,
    },
    /// Every run that this node may have forgotten has its log row: it names all others.
    Remember,
}

/// A mark as a former incarnation left it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FoundMark {
    pub attempt: Attempt,
    pub version: Version,
    pub is_mutex: bool,
    pub state: FoundState,
}

/// How far a run of the former daemon had come, by its mark.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FoundState {
    /// Held, and certainly not started.
    Held,
    /// Started, or about to be when the daemon died. Its processes are dead now, and nobody knows how it ended.
    Started,
    Ended(Exit),
    /// The marks are from before the host's last start, so nobody knows whether it was started.
    Unknown,
}

/// Something an operator should read; the reactor logs it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Notice {
    pub level: log::Level,
    pub text: String,
}

/// Why the daemon exits.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ExitReason {
    /// The shutdown is complete.
    Clean,
    /// Neither going on nor a restart can help: the reason.
    Fatal(String),
    /// The guardian died.
    Orphaned,
}
