//! The list of in-flight runs: the leader's table, completed by each node's answer about the runs that it has.
//!
//! Not here: changes of runs; the list only reads them.
//!
//! Invariant: a node that does not answer in time does not hold up the list: its runs are shown as unknown.

use super::Leader;
use super::requests::List;
use crate::core::Context;
use crate::core::runs::{InFlightRun, Stage};
use crate::core::time::bounds::RUN_LIST_MS;
use crate::model::command::{RequestId, RunPage, RunView};
use crate::model::message::{HeldRun, ToNode};
use crate::model::status::RunStatus;
use crate::model::{Attempt, NodeId, Now};
use std::collections::{BTreeMap, BTreeSet};

impl Leader {
    /// Begins a list: asks every node. `limit`: the most runs to answer.
    pub(super) fn list_runs(&mut self, client: RequestId, limit: usize, cx: &mut Context) {
        self.controls.count += 1;
        let request = self.controls.count;
        let waiting: BTreeSet<NodeId> = self.runs.candidates().map(|candidate| candidate.node.clone()).collect();
        waiting.iter().for_each(|node| cx.fx.tell_node(node, ToNode::ListRuns { request }));
        let answer_by = cx.now.mono.plus_ms(RUN_LIST_MS);
        self.controls.lists.insert(request, List { client, limit, waiting, held: BTreeMap::new(), answer_by });
    }

    /// The page for the client, from the nodes' answers so far.
    pub(super) fn page(&self, list: &List, now: Now) -> RunPage {
        let mut views: Vec<RunView> = self
            .runs
            .all()
            .filter(|(_, in_flight)| in_flight.stage != Stage::Over)
            .filter_map(|(attempt, in_flight)| self.run_view(*attempt, in_flight, list, now))
            .collect();
        views.sort_by_key(|view| (rank(view.state), view.run_key, view.attempt));
        let total = views.len();
        views.truncate(list.limit);
        RunPage { list: views, total }
    }

    /// A run as it is shown; none where its node has answered and does not have it any more.
    fn run_view(&self, attempt: Attempt, in_flight: &InFlightRun, list: &List, now: Now) -> Option<RunView> {
        let held = list.held.get(&attempt);
        let has_answered = !list.waiting.contains(&in_flight.node);
        let is_linked = self.runs.can_speak_to(&in_flight.node);
        let state = match (in_flight.stage, held) {
            (Stage::Sent, Some(held)) => held.status,
            (Stage::Sent, None) if has_answered && is_linked && list.held.len() < HeldRun::LIST_MAX => return None,
            (Stage::Sent, None) => RunStatus::Unknown,
            (Stage::Delayed, _) => RunStatus::Delayed,
            _ => RunStatus::Waiting,
        };
        let started = held.map(|held| held.started_ms).filter(|ms| *ms != 0);
        let is_given = in_flight.stage == Stage::Sent;
        Some(RunView {
            run_key: attempt.run,
            attempt: attempt.number,
            cron_id: attempt.run.cron_id,
            server: if is_given { self.roster.server_of(&in_flight.node) } else { Default::default() },
            state,
            started,
            pid: held.map(|held| held.pid).filter(|pid| *pid != 0),
            seconds: started.map(|ms| (now.wall.ms() - ms).max(0) as u64 / 1_000),
        })
    }

    /// A node's answer to a list.
    pub(super) fn on_runs(&mut self, node: &NodeId, request: u64, runs: Vec<HeldRun>, cx: &mut Context) {
        if let Some(list) = self.controls.lists.get_mut(&request) {
            list.waiting.remove(node);
            list.held.extend(runs.into_iter().map(|run| (run.attempt, run)));
            self.poll_controls(cx);
        }
    }
}

/// The order of the list: running runs first.
fn rank(status: RunStatus) -> u8 {
    match status {
        RunStatus::Running | RunStatus::Ending => 0,
        RunStatus::Queued => 1,
        RunStatus::Armed => 2,
        RunStatus::Waiting => 3,
        RunStatus::Delayed => 4,
        RunStatus::Unknown => 5,
    }
}
