//! What the core is told and what it wants done: one input in, effects out.
//!
//! Not what is asked of the store, Consul and the processes: that is `ports`.
//!
//! Invariant: whatever happens to a node comes as an `Input`, whatever it does leaves as an effect.

mod effects;

pub use effects::{Effects, Mail};

use crate::core::ports::{Done, Work, WorkId};
use crate::model::command::{Command, Reply, RequestId};
use crate::model::message::{LinkId, Message};
use crate::model::output::OutputPart;
use crate::model::{Attempt, Exit, Mono, RunState, Server, Version};

/// What happens to the node.
#[derive(Clone, Debug)]
pub enum Input {
    /// The time of `poll_timeout` has come, or the wall clock was set.
    Wake,
    Command(RequestId, Command),
    Done(WorkId, Done),
    /// The main process of an attempt is over and its output is complete.
    Exited {
        attempt: Attempt,
        exit: Exit,
        output: String,
    },
    /// The answer to `Output::ReadOutput`; none where nothing of it is here (any more).
    OutputRead {
        request: u64,
        part: Option<OutputPart>,
    },
    Signal(Signal),
    /// A link is up, and its other end has proved that it is of our cluster.
    Linked(LinkId),
    Received(LinkId, Message),
    Unlinked(LinkId, Gone),
}

/// How a link ended, or why there is none.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Gone {
    /// Nobody listens at that address: the daemon is most likely dead.
    NobodyThere,
    Lost,
}

/// What the operator's signals and the guardian's death ask for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Signal {
    /// SIGTERM, SIGINT: take nothing new, finish what runs, leave. A second one hurries.
    Drain,
    /// SIGHUP: read the jobs again.
    Reload,
    /// The guardian is dead: end the runs and exit.
    Orphaned,
}

/// What the node does.
#[derive(Clone, Debug)]
pub enum Effect {
    Work(WorkId, Work),
    Reply(RequestId, Reply),
    Mark(MarkOp),
    /// The attempt's log row is on its way, with these lines behind what it wrote: whoever reads its output may know.
    Ended {
        attempt: Attempt,
        state: RunState,
        last_lines: String,
    },
    /// Read what the attempt has written from there on; `Input::OutputRead` with the same number tells.
    ReadOutput {
        request: u64,
        attempt: Attempt,
        from: u64,
    },
    Notice(Notice),
    /// Make a link to this server; `Input::Linked` or `Input::Unlinked` will tell.
    Link(LinkId, Server),
    Send(LinkId, Message),
    /// No input comes of it any more.
    Unlink(LinkId),
    /// The last output.
    Exit(ExitReason),
}

/// Writes to the marks (DESIGN: a memory-mapped file that survives the daemon).
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
    /// Runs may start, and mutex runs may go on, until then.
    Lease {
        until: Mono,
    },
}

/// A mark as a former incarnation left it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FoundMark {
    pub attempt: Attempt,
    pub version: Version,
    pub is_mutex: bool,
    pub state: FoundState,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FoundState {
    /// Taken, and surely not started.
    Held,
    /// Started, or about to be: its processes are dead by now, its end is not known.
    Started,
    Ended(Exit),
    /// The marks are of another boot: nobody can say.
    Unknown,
}

/// Something an operator should read; the reactor logs it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Notice {
    pub level: log::Level,
    pub text: String,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ExitReason {
    /// Drained.
    Clean,
    /// It makes no sense to go on or to be restarted: the reason.
    Fatal(String),
    /// The guardian died.
    Orphaned,
}
