//! The endings of runs, and the log rows that tell operators of them.
//!
//! Not the way of a row to the store: that is `logbook`.
//!
//! Invariant: the row of a run that was not `ok` says in its output why.

use crate::core::io::FoundState;
use crate::core::io::ports::{Left, Started};
use crate::model::message::Order;
use crate::model::{Attempt, Exit, LogRow, Now, RunState, Server, Usage, Version};

/// The reason why a run was ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EndedBy {
    LockLimit,
    Timeout,
    Operator,
    Shutdown,
    /// The guardian, because the daemon did not renew its lease.
    LeaseEnd,
}

impl EndedBy {
    fn state(self) -> RunState {
        match self {
            EndedBy::LockLimit | EndedBy::Timeout => RunState::Timeout,
            EndedBy::Operator | EndedBy::Shutdown | EndedBy::LeaseEnd => RunState::Killed,
        }
    }

    fn line(self) -> &'static str {
        match self {
            EndedBy::LockLimit => "[ended: it held its lock longer than lock_limit]",
            EndedBy::Timeout => "[ended: it ran longer than its job's timeout]",
            EndedBy::Operator => "[killed: by an operator]",
            EndedBy::Shutdown => "[ended: the daemon is shutting down and drain_timeout is over]",
            EndedBy::LeaseEnd => {
                "[ended: the daemon hung or was cut off until its lease was over, and its mutex had to be free]"
            }
        }
    }
}

/// How an attempt ended on the node.
#[derive(Debug)]
pub enum Ending {
    Exited {
        started: Started,
        exit: Exit,
        output: String,
        usage: Usage,
        ended_by: Option<EndedBy>,
        left: Left,
    },
    /// The process was not started, for this reason.
    NotStarted(RunState, String),
    /// A former incarnation of the daemon had it, and its mark is all that is known.
    OfMark(FoundState),
}

impl Ending {
    /// How many bytes of the row's output the command wrote; the daemon's lines follow them.
    pub fn output_bytes(&self) -> usize {
        match self {
            Ending::Exited { output, .. } => output.len(),
            Ending::NotStarted(..) | Ending::OfMark(_) => 0,
        }
    }
}

impl Ending {
    /// What is or may be left of a run that somebody ended, for people; none where surely nothing is.
    pub fn left(&self) -> Option<String> {
        const HIDDEN: &str = "perhaps processes that hid: its node has no control groups by which to find them";
        match self {
            Ending::Exited { left, ended_by: Some(_), .. } => {
                processes_left(left).or_else(|| (!left.is_sure).then(|| HIDDEN.into()))
            }
            _ => None,
        }
    }
}

/// The part of a log row that does not depend on how the attempt ended.
#[derive(Clone, Copy, Debug)]
pub struct RowHead<'a> {
    pub attempt: Attempt,
    pub version: Version,
    /// None where no leader ordered it in this incarnation.
    pub order: Option<&'a Order>,
    /// This node.
    pub server: &'a Server,
}

impl RowHead<'_> {
    /// The log row of an attempt that ended so.
    pub fn row(self, ending: Ending, now: Now) -> LogRow {
        let mut row = LogRow {
            attempt: self.attempt,
            version: self.version,
            state: RunState::Lost,
            exit_code: None,
            output: String::new(),
            start_time_ms: 0,
            use_time_ms: 0,
            usage: Usage::default(),
            dispatch_time: self.order.map(|order| order.dispatch_time).unwrap_or_default(),
            dispatch_server: self.order.map_or(self.server, |order| &order.dispatch_server).clone(),
            run_server: self.server.clone(),
        };
        match ending {
            Ending::Exited { started, exit, output, usage, ended_by, left } => {
                row.state = ended_by.map_or_else(|| state_of(exit), EndedBy::state);
                row.exit_code = code_of(exit);
                row.start_time_ms = started.at.ms();
                row.use_time_ms = now.mono.since(now.mono_at(started.at)).as_millis() as i64;
                row.usage = usage;
                row.output = output;
                match (ended_by, exit) {
                    (Some(ended_by), _) => add_line(&mut row.output, ended_by.line()),
                    (None, Exit::Code(0)) => {}
                    (None, Exit::Code(code)) => add_line(&mut row.output, &format!("[exit code {code}]")),
                    (None, Exit::Signal(signal)) => add_line(&mut row.output, &format!("[killed by signal {signal}]")),
                }
                if let Some(processes) = processes_left(&left) {
                    add_line(&mut row.output, &format!("[left: {processes}]"));
                }
            }
            Ending::NotStarted(state, reason) => {
                row.state = state;
                add_line(&mut row.output, &format!("[{reason}]"));
            }
            Ending::OfMark(FoundState::Ended(exit)) => {
                row.state = state_of(exit);
                row.exit_code = code_of(exit);
                add_line(&mut row.output, "[its output is lost: the daemon died before it was written]");
            }
            Ending::OfMark(FoundState::Unknown) => {
                add_line(&mut row.output, "[lost: the host was restarted; nobody knows whether the run had started]");
            }
            Ending::OfMark(FoundState::Held | FoundState::Started) => {
                add_line(&mut row.output, "[lost: the daemon died while it ran; what was left of it was killed]");
            }
        }
        row
    }
}

/// The row of a run that never came to a node.
pub fn unstarted_row(attempt: Attempt, version: Version, state: RunState, reason: &str, leader: &Server) -> LogRow {
    LogRow {
        attempt,
        version,
        state,
        exit_code: None,
        output: format!("[{reason}]\n"),
        start_time_ms: 0,
        use_time_ms: 0,
        usage: Usage::default(),
        dispatch_time: Default::default(),
        dispatch_server: leader.clone(),
        run_server: Server::default(),
    }
}

/// The most processes that are told by their pids.
const LEFT_TOLD_MAX: usize = 5;

/// The processes that are left of a run although it was killed, for people; none where there are none.
fn processes_left(left: &Left) -> Option<String> {
    let pids: Vec<String> = left.pids.iter().take(LEFT_TOLD_MAX).map(u32::to_string).collect();
    let more = if LEFT_TOLD_MAX < left.pids.len() { ", ..." } else { "" };
    (!pids.is_empty()).then(|| {
        format!(
            "{} processes were killed and are still there (uninterruptible sleep?): {}{more}",
            left.pids.len(),
            pids.join(", ")
        )
    })
}

fn state_of(exit: Exit) -> RunState {
    if exit == Exit::Code(0) { RunState::Ok } else { RunState::Failed }
}

fn code_of(exit: Exit) -> Option<i32> {
    match exit {
        Exit::Code(code) => Some(code),
        Exit::Signal(_) => None,
    }
}

/// Adds a line of the daemon's behind the command's output.
fn add_line(output: &mut String, line: &str) {
    if !output.is_empty() && !output.ends_with('\n') {
        output.push('\n');
    }
    output.push_str(line);
    output.push('\n');
}
