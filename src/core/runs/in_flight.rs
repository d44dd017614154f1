//! An in-flight run, and the stages that it goes through.
//!
//! Not here: changes of a run; only the table makes them.
//!
//! Invariant: a run goes from stage to stage only as `Stage::may_become` allows.

use crate::model::journal::EntryId;
use crate::model::{Job, Mono, NodeId, Wall};
use std::sync::Arc;

/// An attempt that the leader has in hand, from its plan to its committed log row.
#[derive(Debug)]
pub struct InFlightRun {
    pub job: Arc<Job>,
    /// The last entry that names it; none while its first one is on the way.
    pub entry: Option<EntryId>,
    /// The entry of the attempt before it, which stays open until this attempt's own is in.
    pub keeps_open: Option<EntryId>,
    /// The node that the last entry names.
    pub node: NodeId,
    pub stage: Stage,
    /// It was planned after its second, or left by a former leader.
    pub late: bool,
    /// When it may begin: its second, or the end of a retry's delay.
    pub due: Wall,
    /// The end of a retry's delay by the monotonic clock, so that no step of the wall clock makes the delay shorter.
    pub ready_at: Mono,
    /// An operator wants it ended: it is not given to a node any more, and has no further attempt.
    pub is_killed: bool,
    /// The next attempt was planned or declined, and may be over already: no other one is planned.
    pub is_followed: bool,
    /// The number of the question for its log row, which is asked because its node said that it does not have the run.
    /// Only the answer to this question counts. 0: nothing is asked.
    pub question: u64,
}

impl InFlightRun {
    /// A run whose entry is on the way. `node`: the node that the entry names, or nobody.
    pub fn planned(job: Arc<Job>, node: NodeId, late: bool, due: Wall) -> InFlightRun {
        InFlightRun {
            job,
            entry: None,
            keeps_open: None,
            node,
            stage: Stage::Planned,
            late,
            due,
            ready_at: Mono(0),
            is_killed: false,
            is_followed: false,
            question: 0,
        }
    }

    /// A further attempt whose entry is on the way. It gets a node when `ready_at` has come. `keeps_open`: the entry of
    /// the attempt before it.
    pub fn delayed(job: Arc<Job>, due: Wall, ready_at: Mono, keeps_open: Option<EntryId>) -> InFlightRun {
        let planned = InFlightRun::planned(job, NodeId::default(), false, due);
        InFlightRun { stage: Stage::Delayed, ready_at, keeps_open, ..planned }
    }

    /// This run, as a former leader's entry leaves it: journaled, and in this stage.
    pub fn left_by(self, entry: EntryId, stage: Stage, ready_at: Mono) -> InFlightRun {
        InFlightRun { entry: Some(entry), stage, ready_at, ..self }
    }

    /// Whether it is a further attempt that waits for the end of its delay and for nothing else: its entry is in.
    pub fn is_delayed_and_journaled(&self) -> bool {
        self.stage == Stage::Delayed && self.entry.is_some()
    }

    /// Whether its job limits how many of its runs may go at one time.
    pub fn is_limited(&self) -> bool {
        self.job.parallel_max().is_some()
    }
}

/// How far the leader has come with a run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// Its entry is on the way into the journal.
    Planned,
    /// Its entry is in the journal, and the run waits here.
    Waiting(WaitsFor),
    /// A further attempt whose delay is not over. It keeps the mutex of the attempt before it.
    Delayed,
    /// It has its permit, and the entry that names another node for it is on the way.
    Moving,
    /// Its node may have it.
    Sent,
    /// It has ended or will not begin; its log row is not known to be committed.
    Over,
}

/// The thing that a waiting run waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WaitsFor {
    /// A permit of its job.
    Permit,
    /// A node that takes it.
    Node,
    /// It had a permit, and no node was there to take it: it needs both.
    PermitAndNode,
    /// Its job was stopped, and the store has yet to take the stop.
    Decision,
}

impl Stage {
    /// Whether a run in this stage waits on the leader.
    pub fn is_waiting(self) -> bool {
        matches!(self, Stage::Waiting(_))
    }

    /// Whether a run may go from this stage to `next`. It begins in `Planned`, in `Delayed`, or where the entry of a
    /// former leader leaves it.
    pub fn may_become(self, next: Stage) -> bool {
        use Stage::{Delayed, Moving, Over, Planned, Sent, Waiting};
        use WaitsFor::{Decision, Node, Permit, PermitAndNode};
        match (self, next) {
            // Its job was changed before it began, and is due at its second under the new definition too. A further
            // attempt, delayed or not, is cancelled instead.
            (Planned | Waiting(_) | Moving | Sent, Planned) => true,
            // Its job was changed before it began; it is to be cancelled, but the job's stop is not stored yet.
            (Planned | Waiting(_) | Delayed | Moving | Sent, Waiting(Decision)) => true,
            // Its entry is in, or its delay is over, and its job has no free permit.
            (Planned | Delayed, Waiting(Permit)) => true,
            // A node is there again, for a run that needs a permit before it goes there.
            (Waiting(PermitAndNode), Waiting(Permit)) => true,
            // Its node has parked it, lost it or given it back, and it needs a permit once more.
            (Sent, Waiting(Permit)) => true,
            // Its entry is in, its delay is over, or its node does not have it. No node takes it, and it needs no permit.
            // A run that waits for a node already goes on waiting where the nodes that are there do not suit it.
            (Planned | Waiting(Node) | Delayed | Moving | Sent, Waiting(Node)) => true,
            // The same for a run that has its permit. It gives the permit back.
            (Planned | Waiting(Permit | PermitAndNode) | Delayed | Moving, Waiting(PermitAndNode)) => true,
            // Its node takes it no longer, or it has none yet, and another one is named; or the lease of the node that had
            // its mutex is over, and it is named once more (see `grant_permits_after`).
            (Planned | Waiting(Node | Permit | PermitAndNode) | Delayed | Moving, Moving) => true,
            // Its node lost it, gave it back or refused it. An entry names another node, or the refusal.
            (Sent, Moving) => true,
            // Its node takes it: its entry is in, and it has the permit that it needs.
            (Planned | Waiting(Node | Permit | PermitAndNode) | Moving, Sent) => true,
            // Its node lost it or gave it back, and takes it again.
            (Sent, Sent) => true,
            // It ended or is lost; or it will not begin: it is too late, cancelled or ended by an operator.
            (Planned | Waiting(_) | Delayed | Moving | Sent, Over) => true,
            // Its node stays silent, and it is lost with its row; or this node's own logbook has its row after all.
            (Over, Over) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every stage.
    const STAGES: [Stage; 9] = [
        Stage::Planned,
        Stage::Waiting(WaitsFor::Permit),
        Stage::Waiting(WaitsFor::Node),
        Stage::Waiting(WaitsFor::PermitAndNode),
        Stage::Waiting(WaitsFor::Decision),
        Stage::Delayed,
        Stage::Moving,
        Stage::Sent,
        Stage::Over,
    ];

    #[test]
    fn a_run_goes_along_the_arrows_only_and_is_over_for_good() {
        // From each stage, in the order of `STAGES`, into each of them.
        let expect = [
            "xxxxx xxx", // Planned
            "x  xx xxx", // Waiting for a permit
            "x x x xxx", // Waiting for a node
            "xx xx xxx", // Waiting for both
            "x   x   x", // Waiting for a decision
            " xxxx x x", // Delayed
            "x xxx xxx", // Moving
            "xxx x xxx", // Sent
            "        x", // Over
        ];
        for (former, row) in STAGES.iter().zip(expect) {
            let arrows: String = STAGES.iter().map(|next| if former.may_become(*next) { 'x' } else { ' ' }).collect();
            assert_eq!(arrows, row, "from {former:?}");
        }
    }
}
