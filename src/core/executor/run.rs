//! One run that this node has: its phase, and the phases that may follow.
//!
//! Not the place that decides when a phase changes: that is the executor. Only the table changes a phase.
//!
//! Invariants: a run that was ordered keeps its order; only a running run has an alarm.

use super::EndedBy;
use super::ready_queue::Rank;
use crate::core::io::FoundState;
use crate::core::io::ports::{KillHow, Started, WorkId};
use crate::model::message::{Held, HeldRun, Order};
use crate::model::status::RunStatus;
use crate::model::{Attempt, Exit, Mono, Usage, Version};

#[derive(Debug)]
pub struct Run {
    /// None for a mark of a former incarnation, as long as no leader has ordered the run again.
    pub order: Option<Order>,
    pub version: Version,
    /// The reason why the run is being ended; none while it is not.
    pub ended_by: Option<EndedBy>,
    /// When and how the run is ended: first at its time limit, then by force, `kill_grace` after a gentle signal.
    pub alarm: Option<Alarm>,
    pub phase: Phase,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Alarm {
    pub at: Mono,
    pub how: KillHow,
    pub ended_by: EndedBy,
}

#[derive(Debug)]
pub enum Phase {
    Found(FoundState),
    /// Waits for its second.
    Armed {
        /// When its second begins.
        at: Mono,
        /// Runs of one second start in the order of this number.
        arrival: u64,
    },
    Ready,
    Parked,
    Spawning {
        work: WorkId,
        /// An operator wants it ended as soon as it runs.
        is_killed: bool,
    },
    Running(Started),
    /// The main process is over, and the run's other processes are being killed.
    Ending {
        work: WorkId,
        started: Started,
        exit: Exit,
        output: String,
        usage: Usage,
    },
    Over,
}

impl Phase {
    /// Whether this phase may come after the former one: the arrows of the diagram in `executor`. A new order begins
    /// anew.
    pub fn may_follow(&self, former: &Phase) -> bool {
        match former {
            Phase::Found(_) => matches!(self, Phase::Over),
            Phase::Armed { .. } => matches!(self, Phase::Ready | Phase::Parked | Phase::Over),
            Phase::Ready => matches!(self, Phase::Spawning { .. } | Phase::Parked | Phase::Over),
            Phase::Parked => matches!(self, Phase::Ready | Phase::Over),
            Phase::Spawning { .. } => !matches!(self, Phase::Found(_) | Phase::Armed { .. } | Phase::Ending { .. }),
            Phase::Running(_) => matches!(self, Phase::Ending { .. } | Phase::Over),
            Phase::Ending { .. } => matches!(self, Phase::Over),
            Phase::Over => false,
        }
    }

    /// Whether the run may be dropped in this phase: none of its processes is left.
    pub fn may_be_last(&self) -> bool {
        !matches!(self, Phase::Running(_) | Phase::Ending { .. })
    }
}

impl Run {
    pub fn ordered(order: Order, phase: Phase) -> Run {
        Run { version: order.job.version, order: Some(order), ended_by: None, alarm: None, phase }
    }

    pub fn found(version: Version, state: FoundState) -> Run {
        Run { order: None, version, ended_by: None, alarm: None, phase: Phase::Found(state) }
    }

    pub fn is_mutex(&self) -> bool {
        self.order.as_ref().is_some_and(|order| order.job.is_mutex)
    }

    /// How urgent the run is; none unless it is in the ready queue.
    pub fn rank(&self) -> Option<Rank> {
        let order = self.order.as_ref().filter(|_| matches!(self.phase, Phase::Ready))?;
        let waited_for_permit = order.expires.is_none();
        Some(if waited_for_permit || order.attempt.run.manual.is_some() {
            Rank::Urgent
        } else if order.late {
            Rank::Late
        } else {
            Rank::Prompt
        })
    }

    pub fn held(&self) -> Held {
        match self.phase {
            Phase::Parked if self.is_mutex() => Held::Parked,
            Phase::Found(FoundState::Held) => Held::Parked,
            Phase::Armed { .. } | Phase::Ready | Phase::Parked => Held::Waiting,
            Phase::Found(FoundState::Unknown) => Held::Unknown,
            _ => Held::Begun,
        }
    }

    pub fn is_unstarted(&self) -> bool {
        matches!(self.held(), Held::Waiting | Held::Parked)
    }

    /// The run as people see it; none for one that is over, or of which only a mark was found.
    pub fn view(&self, attempt: Attempt) -> Option<HeldRun> {
        let (status, started) = match self.phase {
            Phase::Armed { .. } => (RunStatus::Armed, None),
            Phase::Ready | Phase::Parked | Phase::Spawning { .. } => (RunStatus::Queued, None),
            Phase::Running(started) if self.ended_by.is_none() => (RunStatus::Running, Some(started)),
            Phase::Running(started) | Phase::Ending { started, .. } => (RunStatus::Ending, Some(started)),
            Phase::Found(_) | Phase::Over => return None,
        };
        let (pid, started_ms) = started.map_or((0, 0), |started| (started.pid, started.at.ms()));
        Some(HeldRun { attempt, status, pid, started_ms })
    }

    pub fn check_invariants(&self, attempt: Attempt) {
        let phase = &self.phase;
        match &self.order {
            None => assert!(
                matches!(phase, Phase::Found(_) | Phase::Over),
                "{attempt} has no order, and it is {phase:?}: only a found mark has none"
            ),
            Some(order) => {
                assert_eq!(order.attempt, attempt, "{attempt} has the order of another attempt");
                assert_eq!(order.job.version, self.version, "{attempt} is of another version than its order");
                assert!(!matches!(phase, Phase::Found(_)), "{attempt} is ordered and still counts as a found mark");
            }
        }
        let has_process = matches!(phase, Phase::Running(_));
        assert!(self.alarm.is_none() || has_process, "{attempt} is {phase:?} and has an alarm: nothing of it runs");
        let was_started = has_process || matches!(phase, Phase::Ending { .. } | Phase::Over);
        assert!(self.ended_by.is_none() || was_started, "{attempt} is {phase:?} and somebody ends it already");
        let must_be_ended = matches!(phase, Phase::Ending { .. });
        assert!(self.ended_by.is_some() || !must_be_ended, "{attempt} is being ended by nobody");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Wall;

    fn phases() -> [Phase; 8] {
        let started = Started { pid: 7, at: Wall(0) };
        [
            Phase::Found(FoundState::Held),
            Phase::Armed { at: Mono(0), arrival: 0 },
            Phase::Ready,
            Phase::Parked,
            Phase::Spawning { work: WorkId(1), is_killed: false },
            Phase::Running(started),
            Phase::Ending {
                work: WorkId(2),
                started,
                exit: Exit::Code(0),
                output: String::new(),
                usage: Usage::default(),
            },
            Phase::Over,
        ]
    }

    #[test]
    fn a_run_goes_along_the_arrows_only_and_is_over_for_good() {
        // From each phase, in the order of `phases`, into each of them.
        let expect = ["       x", "  xx   x", "   xx  x", "  x    x", "  xxxx x", "      xx", "       x", "        "];
        for (former, row) in phases().iter().zip(expect) {
            let arrows: String = phases().iter().map(|next| if next.may_follow(former) { 'x' } else { ' ' }).collect();
            assert_eq!(arrows, row, "from {former:?}");
        }
    }
}
