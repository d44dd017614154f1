//! Operators' requests that wait for an answer.
//!
//! Not what is done about them: that is in `controls` and `run_list`.
//!
//! Invariant: a request is in one place at most, and goes from there when it is answered.

use crate::core::io::ports::WorkId;
use crate::model::command::RequestId;
use crate::model::message::HeldRun;
use crate::model::{Attempt, Mono, NodeId, RunState};
use std::collections::{BTreeMap, BTreeSet};

/// The requests that wait for an answer.
#[derive(Debug, Default)]
pub struct Controls {
    /// Manual runs whose entry is on the way, by the request number of the entry.
    pub runs: BTreeMap<u64, PendingRun>,
    pub kills: Vec<Kill>,
    pub lists: BTreeMap<u64, List>,
    pub pause: Option<Pausing>,
    /// Numbers manual runs and lists.
    pub count: u64,
    /// When a paused leader journals its next empty entry.
    pub quiet_at: Mono,
}

/// A manual run that is being journaled.
#[derive(Debug)]
pub struct PendingRun {
    pub client: RequestId,
    pub answer_by: Mono,
}

/// A request to end an attempt.
#[derive(Debug)]
pub struct Kill {
    pub client: RequestId,
    pub attempt: Attempt,
    /// The node that was told to end the attempt; none where no node had begun it. Then the kill is answered only when
    /// the attempt's row is committed and this node has led since: no other leader can give the attempt to a node.
    pub node: Option<NodeId>,
    pub answer_by: Mono,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub state: RunState,
    /// What is or may be left of it, for people.
    pub left: Option<String>,
}

impl From<RunState> for Outcome {
    fn from(state: RunState) -> Outcome {
        Outcome { state, left: None }
    }
}

/// A pause, or its end, that is not answered or not stored yet.
#[derive(Debug)]
pub struct Pausing {
    /// None once it is answered.
    pub client: Option<RequestId>,
    pub paused: bool,
    /// The statement that is with the store; none once that is answered.
    pub id: Option<WorkId>,
    pub is_stored: bool,
    pub answer_by: Mono,
}

/// A list that is being put together.
#[derive(Debug)]
pub struct List {
    pub client: RequestId,
    pub limit: usize,
    /// Nodes that have yet to answer.
    pub waiting: BTreeSet<NodeId>,
    /// The attempts that nodes have told of.
    pub held: BTreeMap<Attempt, HeldRun>,
    pub answer_by: Mono,
}
