//! The node among others: links, messages, the election, and the shutdown as far as others see it.
//!
//! Not the link of a follower (`follower`) nor the nodes of a leader (`roster`): this routes messages to them.
//!
//! The leader's own node has a link to it like any other node, from Hello on. That link has no socket
//! (`LinkId::Loopback`): `deliver` takes its messages to the other end. This stays special about that node:
//!
//! * Its lease follows the authority itself (see `confirm`), and no acknowledgement extends it: both are counted by one
//!   clock, and an acknowledgement could only say less.
//! * It sends a heartbeat with each input, and not every `HEARTBEAT_MS`: it is never silent for a leader that lives.
//! * Its clients' calls go to the leader without being forwarded, so they need no second answer.
//! * The roster knows it: the lead is not handed over to it, and no other node may have its id.
//! * The leader writes log rows of its own into its logbook, so it also looks there for rows that are not committed.
//!
//! Invariant: a message is heard only over this node's link to its leader, or while this node leads.

use super::{Leadership, Node, OwnEpoch};
use crate::core::cluster::election::{Election, Standing};
use crate::core::cluster::follower::{Heard, Lease};
use crate::core::io::ports::{ConsulError, LockState, LockValue, WorkId};
use crate::core::io::{Effect, ExitReason, Gone, Mail, MarkOp};
use crate::core::time::bounds::{ABSTAIN_MS, DEPOSE_AFTER_MS, STAND_BACK_MS, TAKE_LEAD_MS};
use crate::model::command::RequestId;
use crate::model::message::{Held, Hello, LinkId, Message, ToLeader, ToNode};
use crate::model::output::OutputPart;
use crate::model::status::RunStatus;
use crate::model::{NodeId, Now, Server};

/// The first request id of calls that came over a link; the ids of HTTP clients lie below.
const FORWARDED_FROM: u64 = 1 << 62;
/// Limit of the messages between leader and nodes that are delivered in one go. It is never reached; messages beyond it
/// would be delivered with the next input.
const MAILS_MAX: usize = 1_000_000;
/// The answer to a node that takes this one for the leader by mistake; it will soon know the real leader.
const NOT_LEADING: &str = "this node does not lead";

impl Node {
    /// The link to the leader is up. Other nodes' links to this one are heard of by their first message.
    pub(super) fn on_linked(&mut self, link: LinkId, now: Now) {
        if self.follower.has(link) {
            let hello = self.hello();
            self.follower.on_linked(hello, &mut self.lender.at(now));
        }
    }

    /// This node's greeting to a leader, itself included.
    pub(super) fn hello(&self) -> Hello {
        let limits = &self.setup.limits;
        Hello {
            node_id: self.setup.node_id.clone(),
            server: self.setup.server.clone(),
            incarnation: self.setup.incarnation,
            capacity: limits.max_pending + limits.max_running,
            labels: self.setup.labels.clone(),
            has_forgotten: self.setup.has_forgotten,
        }
    }

    /// A message of the leader, or of a node that takes this one for the leader.
    pub(super) fn on_received(&mut self, link: LinkId, message: Message, now: Now) {
        if self.follower.has(link) {
            let cx = &mut self.lender.at(now);
            let heard = self.follower.on_message(message, self.last_epoch, cx);
            return self.on_heard(heard, now);
        }
        let Leadership::Leading(leader) = &mut self.lead else {
            self.lender.fx.send(link, Message::Rejected { reason: NOT_LEADING.into() });
            return;
        };
        let mut cx = self.lender.at(now);
        match (message, leader.node_of(link)) {
            (Message::Hello(hello), _) => leader.on_hello(link, &hello, self.authority, &mut cx),
            (Message::Heartbeat(heartbeat), Some(_)) => {
                leader.on_heartbeat(link, heartbeat, self.authority, &mut cx);
            }
            (Message::Holdings(held), Some(node)) => leader.on_holdings(&node, held, &mut cx),
            (Message::ToLeader(message), Some(node)) => leader.on_message(&node, message, &mut cx),
            (Message::Command { request, command }, Some(_)) => {
                let client = RequestId(FORWARDED_FROM + self.remote_calls.next);
                self.remote_calls.next += 1;
                self.remote_calls.calls.insert(client, (link, request));
                self.on_command(client, *command, now);
            }
            // Anything else comes from a node that has not greeted, or from a newer version.
            _ => {}
        }
    }

    /// A link is gone: the one to the leader, or one of the leader's nodes'.
    pub(super) fn on_unlinked(&mut self, link: LinkId, gone: Gone, now: Now) {
        if self.follower.has(link) {
            let leader = self.follower.leader().cloned();
            if let Some(leader) = leader.as_ref().filter(|_| gone.is_foreign()) {
                self.stand_back(leader, gone, now);
            } else if let (Gone::NobodyThere, Some(leader), Some(election)) = (gone, leader, &mut self.election) {
                election.suspect_dead(&leader);
            }
            self.follower.on_unlinked(&mut self.lender.at(now));
        } else if let Leadership::Leading(leader) = &mut self.lead {
            leader.on_unlinked(link, &mut self.lender.at(now));
        }
    }

    /// This node cannot speak with the leader, and most likely not with that leader's nodes either: it leaves the lead to
    /// those that can. While the leader holds the lock, it is tried again before this ends. When nobody has taken the
    /// lead by then, there is no such node, and this one may.
    fn stand_back(&mut self, leader: &Server, gone: Gone, now: Now) {
        // Whoever listens at the address of a leader that has lost the lock does not keep others from the lead.
        if let Some(election) = self.election.as_mut().filter(|election| election.has_lock(leader)) {
            election.abstain_for(STAND_BACK_MS, now);
        }
        let reason = format!("this node cannot speak with the leader, {leader}: {gone}");
        if self.rejected_for.as_ref() != Some(&reason) {
            let text = format!("{reason}. Meanwhile this node gets no runs, and leaves the lead to others");
            self.lender.fx.notice(log::Level::Error, text);
            self.rejected_for = Some(reason);
        }
    }

    fn on_heard(&mut self, heard: Heard, now: Now) {
        match heard {
            Heard::Nothing => {}
            Heard::Welcomed(epoch, Lease(until)) => {
                self.last_epoch = epoch;
                self.rejected_for = None;
                self.executor.extend_lease(until, &mut self.lender.at(now));
                let leader = self.follower.leader().cloned().unwrap_or_default();
                self.lender.fx.notice(log::Level::Info, format!("following {leader}: epoch={epoch}"));
                if let Some(link) = self.follower.joined() {
                    self.lender.fx.send(link, Message::Holdings(self.executor.holdings()));
                }
                for (_, client, command) in std::mem::take(&mut self.waiting) {
                    self.on_command(client, command, now);
                }
            }
            Heard::Lease(Lease(until)) => {
                self.executor.extend_lease(until, &mut self.lender.at(now));
            }
            Heard::Rejected(reason) => self.on_rejected(reason),
            Heard::ToNode(message) => self.on_order(message, now),
        }
    }

    /// Says each reason once: this node greets the leader again and again, until the operator has removed the cause.
    fn on_rejected(&mut self, reason: String) {
        if reason == NOT_LEADING {
            self.lender.fx.notice(log::Level::Debug, format!("rejected: {reason}"));
        } else if self.rejected_for.as_ref() != Some(&reason) {
            self.lender.fx.notice(log::Level::Error, format!("the leader rejects this node: {reason}"));
            self.rejected_for = Some(reason);
        }
    }

    /// The watch of the lock has an answer. It may show that this node must not be part of the cluster.
    pub(super) fn on_watched(&mut self, id: WorkId, result: Result<LockState, ConsulError>, now: Now) {
        let Some(election) = &mut self.election else { return };
        election.on_watched(id, result, now);
        if let Some(reason) = election.take_conflict() {
            self.step_down(now);
            self.fatal = Some(reason);
        }
    }

    /// A message of the leader, this node or another, to this node's executor.
    fn on_order(&mut self, message: ToNode, now: Now) {
        let leaders_wall = self.follower.leaders_now(now).wall;
        let cx = &mut self.lender.at(now);
        match message {
            ToNode::Dispatch(orders) => self.executor.on_dispatch(orders, leaders_wall, cx),
            ToNode::Cancel { cron_id, below } => self.executor.on_cancel(cron_id, below, &mut self.lender.fx),
            ToNode::Return(attempts) => self.executor.give_back(attempts, &mut self.lender.fx),
            ToNode::Settled { drop } => {
                self.executor.on_settled(drop, cx.fx);
                // The leader has just said which runs of former incarnations are to start again; the others get their
                // log rows now.
                self.executor.explain_found(cx);
            }
            ToNode::Explained => {
                self.setup.has_forgotten = false;
                cx.fx.mark(MarkOp::Remember);
            }
            ToNode::Kill { attempt } => self.executor.kill(attempt, cx),
            ToNode::ListRuns { request } => {
                self.lender.fx.tell_leader(ToLeader::Runs { request, runs: self.executor.runs() });
            }
            ToNode::ReadOutput { request, attempt, from } => match self.executor.held(attempt) {
                Some(Held::Waiting | Held::Parked) => {
                    let is_due = attempt.run.scheduled_at <= leaders_wall.second();
                    let stage = if is_due { RunStatus::Queued } else { RunStatus::Armed };
                    let part = Some(OutputPart::empty(stage, from));
                    self.lender.fx.tell_leader(ToLeader::OutputRead { request, part });
                }
                _ => self.lender.fx.push(Effect::ReadOutput { request, attempt, from }),
            },
            ToNode::Drain => {
                self.lender.fx.notice(log::Level::Info, "draining: no new runs until the next start");
                self.drain_executor(now);
            }
        }
    }

    /// Gives back the runs that were not started. The leader is told first that this node takes no new runs, so that it
    /// does not send them here again.
    pub(super) fn drain_executor(&mut self, now: Now) {
        self.executor.drain();
        self.heartbeat_now(now);
        self.executor.hand_back(&mut self.lender.fx);
    }

    /// Sends the leader a heartbeat at once, out of its time.
    pub(super) fn heartbeat_now(&mut self, now: Now) {
        let load = self.load(now);
        if self.is_leading() {
            self.lender.fx.send(LinkId::Loopback, Message::Heartbeat(load));
        } else {
            self.follower.heartbeat_now(load, &mut self.lender.at(now));
        }
    }

    /// Delivers the messages between leader and nodes; false when there was none.
    pub(super) fn deliver(&mut self, now: Now) -> bool {
        let mut is_any = false;
        for count in 1..=MAILS_MAX {
            debug_assert!(count < MAILS_MAX, "leader and node of one process go on answering each other");
            let Some(mail) = self.lender.fx.take_mail() else { break };
            is_any = true;
            match mail {
                Mail::ToLeader(message) => self.send_to_leader(message),
                Mail::ToNode(node, message) => self.send_to_node(&node, message),
                Mail::Loopback(message) => self.on_loopback(message, now),
            }
        }
        is_any
    }

    fn send_to_leader(&mut self, message: ToLeader) {
        let link = if self.is_leading() { Some(LinkId::Loopback) } else { self.follower.joined() };
        // Without a leader the message is dropped: the next leader learns the same from log rows and holdings.
        if let Some(link) = link {
            self.lender.fx.send(link, Message::ToLeader(message));
        }
    }

    fn send_to_node(&mut self, node: &NodeId, message: ToNode) {
        let Leadership::Leading(leader) = &self.lead else { return };
        // Where there is no link, the node's next Holdings will show that it never had this.
        if let Some(link) = leader.link_of(node) {
            self.lender.fx.send(link, Message::ToNode(message));
        }
    }

    /// A message over the loopback link: for this node, or for the leader in it. The link has ended with the lead.
    fn on_loopback(&mut self, message: Message, now: Now) {
        if !self.is_leading() {
            return;
        }
        match message {
            Message::Welcome { .. } => {
                self.heartbeat_now(now);
                self.lender.fx.send(LinkId::Loopback, Message::Holdings(self.executor.holdings()));
            }
            Message::ToNode(message) => self.on_order(message, now),
            Message::Rejected { reason } => debug_assert!(false, "the leader rejects its own node: {reason}"),
            Message::HeartbeatAck { .. } | Message::Reply { .. } => {}
            message => self.on_received(LinkId::Loopback, message, now),
        }
    }

    /// Sends the reply to another node's client over the link that its call came by.
    pub(super) fn redirect(&mut self, effect: Effect) -> Effect {
        match effect {
            Effect::Reply(client, reply) => match self.remote_calls.calls.remove(&client) {
                Some((link, request)) => Effect::Send(link, Message::Reply { request, reply }),
                None => Effect::Reply(client, reply),
            },
            effect => effect,
        }
    }

    /// Keeps the link to the leader, where another node leads.
    pub(super) fn follow(&mut self, now: Now) {
        let leader = self.leader_to_follow().cloned();
        let load = self.load(now);
        self.follower.poll(leader.as_ref(), load, &mut self.lender.at(now));
    }

    /// The leader by the lock or by the store, whichever names the newer epoch. Either may be out of date; the named
    /// node then rejects this one, or this one rejects its epoch.
    pub(super) fn leader_to_follow(&self) -> Option<&Server> {
        let election = self.election.as_ref().filter(|_| matches!(self.lead, Leadership::None))?;
        let named = self.lookup.leader().into_iter().chain(election.leader());
        named.max_by_key(|(epoch, _)| *epoch).map(|(_, server)| server)
    }

    /// Asks the store which node leads, where Consul does not tell, or names a node that does not take this one in.
    pub(super) fn look_up(&mut self, now: Now) {
        let may_follow = self.is_open() && matches!(self.lead, Leadership::None);
        let is_lost = |election: &Election| !election.sees_lock() || self.follower.joined().is_none();
        let is_needed = may_follow && self.election.as_ref().is_some_and(is_lost);
        self.lookup.poll(is_needed, &mut self.lender.at(now));
    }

    /// Whether this node takes part in the election. One that has never reached its store must not keep others from
    /// leading.
    pub(super) fn takes_part(&self) -> bool {
        self.is_open() || self.shutdown.is_some()
    }

    /// Lets the election take its next step.
    pub(super) fn elect(&mut self, now: Now) {
        let can_lead = self.can_lead(now);
        let can_depose = self.store_since.is_some_and(|since| since.plus_ms(DEPOSE_AFTER_MS) <= now.mono);
        let takes_part = self.takes_part();
        let Some(election) = &mut self.election else { return };
        let is_taking = matches!(self.lead, Leadership::Bumping { .. } | Leadership::Loading { .. });
        if is_taking && !(can_lead && election.is_holder()) {
            self.lead = Leadership::None;
        }
        let (is_leader, tick) = match &self.lead {
            Leadership::Leading(leader) => (true, leader.progress_tick(now)),
            _ => (false, now.wall.second()),
        };
        let value = || LockValue {
            epoch: self.last_epoch,
            tick,
            server: self.setup.server.clone(),
            node_id: self.setup.node_id.clone(),
            incarnation: self.setup.incarnation,
        };
        if takes_part {
            let cx = &mut self.lender.at(now);
            election.poll(Standing { is_leader, can_lead, can_depose }, value, cx);
        }
    }

    /// Whether this node could lead if it held the lock. A node whose store does not answer, or that has not read the
    /// jobs yet, would only keep the lock from a node that can.
    fn can_lead(&self, now: Now) -> bool {
        match &self.lead {
            Leadership::Leading(_) => true,
            Leadership::Bumping { sent_at, .. } | Leadership::Loading { own: OwnEpoch { sent_at, .. }, .. } => {
                now.mono < sent_at.plus_ms(TAKE_LEAD_MS) || self.is_store_ok(now)
            }
            Leadership::None => self.is_store_ok(now) && self.replica.is_ready(),
        }
    }

    /// A leader that the store does not answer hands the lead over, where the store answers another node.
    pub(super) fn give_way(&mut self, now: Now) {
        let (Leadership::Leading(leader), Some(election)) = (&self.lead, &mut self.election) else { return };
        let Some(server) = leader.better_leader(now) else { return };
        election.abstain_for(ABSTAIN_MS, now);
        let text = format!("the store does not answer this leader, and answers {server}: the lead is handed over");
        self.lender.fx.notice(log::Level::Warn, text);
        self.step_down(now);
    }

    /// Exits for the fatal reason, where there is one. It leaves Consul first: otherwise other nodes would wait for its
    /// session to end.
    fn exit_refused(&mut self) {
        match (&mut self.election, &self.fatal) {
            (_, None) => {}
            (Some(election), Some(_)) if !election.has_left() => election.leave(),
            (_, Some(_)) => {
                if let Some(reason) = self.fatal.take() {
                    self.lender.fx.push(Effect::Exit(ExitReason::Fatal(reason)));
                }
            }
        }
    }

    /// Takes the next step of a shutdown, or of an exit for a fatal reason.
    pub(super) fn shut_down(&mut self, now: Now) {
        self.exit_refused();
        self.hand_over(now);
        let Some(shutdown) = &mut self.shutdown else { return };
        if let Some(how) = shutdown.kill_now(now) {
            self.executor.end_all(how, &mut self.lender.at(now));
        }
        if !self.executor.is_idle() {
            return;
        }
        if let Leadership::Leading(leader) = &mut self.lead {
            leader.hurry(&mut self.lender.at(now));
        }
        self.lender.logbook.hurry(now);
        let is_leader_idle = !matches!(&self.lead, Leadership::Leading(leader) if !leader.is_idle());
        let is_stored = self.lender.logbook.is_empty() && is_leader_idle;
        if !shutdown.may_go(is_stored, now) {
            return;
        }
        if !is_stored && shutdown.say_unstored() {
            self.lender.fx.notice(log::Level::Error, "exiting with log rows or decisions that could not be stored; rows in the spool go to the store at the next start");
        }
        match &mut self.election {
            Some(election) if !election.has_left() => election.leave(),
            _ => {
                if let Some(reason) = shutdown.go() {
                    self.lender.fx.push(Effect::Exit(reason));
                }
            }
        }
    }

    /// A leader that shuts down hands the lead over at once, and waits for its own runs as a follower.
    fn hand_over(&mut self, now: Now) {
        if self.shutdown.is_none() {
            return;
        }
        let Some(election) = &mut self.election else { return };
        election.abstain();
        if matches!(&self.lead, Leadership::Leading(leader) if leader.can_hand_over()) {
            self.lender.fx.notice(log::Level::Info, "the lead is handed over");
            self.step_down(now);
        }
    }
}
