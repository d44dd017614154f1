//! Clients' calls: each is answered here, handed to the leader in this node, forwarded to the leader elsewhere, or
//! waits until there is a leader.
//!
//! Not the carrying out of the calls: reads are in `reads`, all others are the leader's.
//!
//! Invariant: a call that waits is carried out, forwarded or declined within `NO_LEADER_MS`.

use super::{Leadership, Node, StoreConnection, WAITING_MAX};
use crate::core::io::ports::Read;
use crate::core::time::bounds::{FORWARD_MS, KILL_MS, NO_LEADER_MS};
use crate::model::Now;
use crate::model::command::{Answer, Command, RequestId};

/// The answer to calls that come during a shutdown.
const SHUTTING_DOWN: &str = "this node is shutting down";

impl Node {
    /// A call of a client, of this node or another.
    pub(super) fn on_command(&mut self, client: RequestId, command: Command, now: Now) {
        let answer_by = now.mono.plus_ms(FORWARD_MS + self.may_take_ms(&command));
        match (command, &mut self.lead) {
            (Command::ListJobs(filter), _) => self.list_jobs(client, filter, now),
            (Command::ListLogs(filter), _) => self.read(client, Read::Logs(filter), now),
            (command @ (Command::ShowCluster | Command::DrainNode(_)), Leadership::Leading(_)) => {
                self.on_cluster_command(client, command, now);
            }
            (Command::ReadOutput(query), Leadership::Leading(leader)) => {
                leader.read_output(client, query, &mut self.lender.at(now));
            }
            (Command::ShowHealth, _) => {
                let health = self.health(now);
                self.lender.fx.reply(client, Ok(Answer::Health(health)));
            }
            // A node that shuts down changes nothing any more. Reads go on: a run's output can be read to its end.
            (command, _) if self.shutdown.is_some() && !command.is_read() => {
                self.decline(client, &command, SHUTTING_DOWN);
            }
            (
                command @ (Command::RunJob(..) | Command::KillRun(_) | Command::ListRuns { .. } | Command::Pause(_)),
                Leadership::Leading(leader),
            ) => {
                let mut cx = self.lender.at(now);
                leader.control(client, command, &mut cx);
            }
            (command, Leadership::Leading(leader)) => leader.change(client, command),
            (command, _) if self.follower.forward(client, &command, answer_by, &mut self.lender.fx) => {}
            (command, _) if self.shutdown.is_some() => self.decline(client, &command, SHUTTING_DOWN),
            (command, _) if WAITING_MAX <= self.waiting.len() => {
                self.decline(client, &command, "too many calls wait for a leader");
            }
            (command, _) => self.waiting.push_back((now.mono.plus_ms(NO_LEADER_MS), client, command)),
        }
    }

    /// The time that the leader may need for this command when nothing is wrong.
    fn may_take_ms(&self, command: &Command) -> u64 {
        if matches!(command, Command::KillRun(_)) { self.setup.limits.kill_grace_ms + KILL_MS } else { 0 }
    }

    /// Declines the calls that have waited too long for a leader, and all at a shutdown.
    pub(super) fn decline_waiting(&mut self, now: Now) {
        let is_shutdown = self.shutdown.is_some();
        while self.waiting.front().is_some_and(|(until, _, _)| is_shutdown || *until <= now.mono) {
            let Some((_, client, command)) = self.waiting.pop_front() else { return };
            let why = self.why_no_leader();
            self.decline(client, &command, &why);
        }
    }

    /// Answers a call about the cluster, where this node leads.
    fn on_cluster_command(&mut self, client: RequestId, command: Command, now: Now) {
        let Leadership::Leading(leader) = &mut self.lead else { return };
        let reply = match &command {
            Command::DrainNode(server) => {
                leader.drain_node(server, &mut self.lender.fx).map(|()| Answer::Cluster(leader.view(now)))
            }
            _ => Ok(Answer::Cluster(leader.view(now))),
        };
        self.lender.fx.reply(client, reply);
    }

    /// Why a call cannot be carried out here and cannot be forwarded, for people.
    pub(super) fn why_no_leader(&self) -> String {
        match (&self.store, &self.election) {
            (
                StoreConnection::Closed { reason: Some(reason) }
                | StoreConnection::Opening { reason: Some(reason), .. },
                _,
            ) => {
                format!("the store is not open: {reason}")
            }
            (StoreConnection::Closed { reason: None } | StoreConnection::Opening { reason: None, .. }, _) => {
                "the store is not open yet; try again in a second".into()
            }
            (StoreConnection::Open, Some(election)) => election.why_not_leader(),
            (StoreConnection::Open, None) if !self.replica.is_ready() => {
                "this node is still reading the jobs; try again in some seconds".into()
            }
            (StoreConnection::Open, None) => "this node does not lead yet; try again in a second".into(),
        }
    }

    /// Declines a call that nobody can carry out. `why`: for its client.
    fn decline(&mut self, client: RequestId, command: &Command, why: &str) {
        self.lender.fx.reply(client, Err(command.not_taken(why)));
    }
}
