//! The node as a follower: links to the leader, greets it, keeps its lease by heartbeats, and forwards the calls that
//! only the leader can carry out.
//!
//! ```text
//! Apart -> Linking -> Greeting -> Joined -> Apart (link gone, no answer, another leader)
//! ```
//!
//! Not the search for the leader: that is the election's and the lookup's. Not the executor, which acts on the leader's
//! messages.
//!
//! Invariants: there is one link at a time; a message over a link that was given up has no effect; a leader whose epoch
//! is older than one that this node has seen is not followed.

use crate::core::Context;
use crate::core::io::{Effect, Effects};
use crate::core::time::bounds::{HEARTBEAT_MS, LEADER_SILENT_MS, QUICK_MS};
use crate::core::time::{Backoff, Timer, Timers};
use crate::model::command::{CallError, Command, Progress, Reply, RequestId};
use crate::model::message::{Heartbeat, Hello, LinkId, Message};
use crate::model::{Epoch, Mono, Now, Server, Wall};
use std::collections::BTreeMap;

/// Limit of the calls that wait for the leader's reply.
const FORWARDED_MAX: usize = 1_000;
/// A measurement of the leader's clock is kept for so long, unless a quicker round trip gives a better one. Clocks
/// drift, so after that any newer measurement replaces it.
const CLOCK_KEEP_MS: u64 = 10_000;

/// This node's side of its link to the leader.
#[derive(Debug, Default)]
pub struct Follower {
    /// Numbers the links.
    links: u64,
    link: Option<Link>,
    /// The server that this node tried to link to last; the back-off belongs to it.
    tried: Option<Server>,
    backoff: Backoff,
    /// Numbers the forwarded calls.
    requests: u64,
    forwarded: BTreeMap<u64, Forwarded>,
    clock: Option<LeaderClock>,
    /// By the leader's last acknowledgement: no scheduled run is started.
    is_paused: bool,
    /// The leader's progress by its last acknowledgement, and when that came.
    progress: (Progress, Mono),
}

/// A call that was forwarded to the leader.
#[derive(Debug)]
struct Forwarded {
    client: RequestId,
    is_read: bool,
    answer_by: Mono,
}

impl Forwarded {
    /// Tells the client that no answer will come from the leader.
    fn give_up(self, why: &str, fx: &mut Effects) {
        let unknown = "whether the call was carried out is not known; /cron/list tells";
        let what = if self.is_read { "ask again" } else { unknown };
        fx.reply(self.client, Err(CallError::unavailable(format!("{why}: {what}"))));
    }
}

#[derive(Debug)]
struct Link {
    id: LinkId,
    leader: Server,
    state: LinkState,
    heard_at: Mono,
    heartbeat_at: Mono,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum LinkState {
    Linking,
    Greeting { sent_at: Mono },
    Joined,
}

/// The leader's wall clock compared with this node's monotonic one, by the quickest of the recent answers.
#[derive(Clone, Copy, Debug)]
struct LeaderClock {
    /// The leader's clock, as measured, when ours showed `at`.
    wall: Wall,
    at: Mono,
    round_trip_ns: u64,
}

/// What a leader's message means for this node.
#[derive(Debug)]
pub enum Heard {
    Nothing,
    /// The leader has taken this node in, and waits for its holdings.
    Welcomed(Epoch, Lease),
    Lease(Lease),
    /// The leader does not take this node in, for this reason.
    Rejected(String),
    /// An order to this node's executor.
    ToNode(crate::model::message::ToNode),
}

/// The end of this node's right to start runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lease(pub Mono);

impl Follower {
    /// Keeps the link to `leader` (none: nobody leads, or this node does), and sends the heartbeats.
    pub fn poll(&mut self, leader: Option<&Server>, heartbeat: Heartbeat, cx: &mut Context) {
        self.give_up_late(cx);
        let heartbeat = self.stamped(heartbeat, cx.now);
        let is_other = self.link.as_ref().is_some_and(|link| Some(&link.leader) != leader);
        let is_silent = self.link.as_ref().is_some_and(|link| link.heard_at.plus_ms(LEADER_SILENT_MS) <= cx.now.mono);
        if is_other || is_silent {
            self.unlink(cx);
        }
        if leader.is_some_and(|leader| self.tried.as_ref() != Some(leader)) {
            self.tried = leader.cloned();
            self.backoff.reset();
        }
        match (&mut self.link, leader) {
            (None, Some(leader)) if self.backoff.is_over(cx.now) => {
                self.links += 1;
                let id = LinkId::Out(self.links);
                cx.fx.push(Effect::Link(id, leader.clone()));
                let state = LinkState::Linking;
                self.link =
                    Some(Link { id, leader: leader.clone(), state, heard_at: cx.now.mono, heartbeat_at: cx.now.mono });
            }
            (Some(link), _) if link.state == LinkState::Joined && link.heartbeat_at <= cx.now.mono => {
                send_heartbeat(link, heartbeat, cx);
            }
            _ => {}
        }
    }

    /// Sends a heartbeat at once, out of its time.
    pub fn heartbeat_now(&mut self, heartbeat: Heartbeat, cx: &mut Context) {
        let heartbeat = self.stamped(heartbeat, cx.now);
        if let Some(link) = self.link.as_mut().filter(|link| link.state == LinkState::Joined) {
            send_heartbeat(link, heartbeat, cx);
        }
    }

    /// Lists when to poll. `has_leader`: whether there is a leader to link to.
    pub fn timers(&self, has_leader: bool, timers: &mut Timers) {
        match &self.link {
            Some(link) => {
                timers.set(Timer::LeaderSilence, link.heard_at.plus_ms(LEADER_SILENT_MS));
                timers.set(Timer::Heartbeat, (link.state == LinkState::Joined).then_some(link.heartbeat_at));
            }
            None => timers.set(Timer::LinkRetry, has_leader.then(|| self.backoff.ready_at())),
        }
        timers.set(Timer::ForwardedCall, self.forwarded.values().map(|call| call.answer_by).min());
    }

    /// Whether this is the link to the leader.
    pub fn has(&self, link: LinkId) -> bool {
        self.link.as_ref().is_some_and(|own| own.id == link)
    }

    /// The link to the leader, once the leader has taken this node in.
    pub fn joined(&self) -> Option<LinkId> {
        self.link.as_ref().filter(|link| link.state == LinkState::Joined).map(|link| link.id)
    }

    /// `now` with the leader's wall clock, as far as that is known: one clock decides when a run starts.
    pub fn leaders_now(&self, now: Now) -> Now {
        match self.clock.filter(|_| self.joined().is_some()) {
            Some(clock) => Now { wall: Now { mono: clock.at, wall: clock.wall }.wall_at(now.mono), ..now },
            None => now,
        }
    }

    /// The link is up: greets the leader.
    pub fn on_linked(&mut self, hello: Hello, cx: &mut Context) {
        if let Some(link) = &mut self.link {
            link.state = LinkState::Greeting { sent_at: cx.now.mono };
            link.heard_at = cx.now.mono;
            cx.fx.send(link.id, Message::Hello(hello));
        }
    }

    /// A message over the link. `epoch`: the largest that this node has seen.
    pub fn on_message(&mut self, message: Message, epoch: Epoch, cx: &mut Context) -> Heard {
        let Some(link) = &mut self.link else { return Heard::Nothing };
        link.heard_at = cx.now.mono;
        match (message, link.state) {
            (Message::Welcome { epoch: theirs, .. }, LinkState::Greeting { .. }) if theirs < epoch => {
                self.unlink(cx);
                Heard::Nothing
            }
            (Message::Welcome { epoch, wall, valid_for_ms }, LinkState::Greeting { sent_at }) => {
                link.state = LinkState::Joined;
                link.heartbeat_at = cx.now.mono;
                self.backoff.reset();
                self.clock = None;
                self.measure(sent_at, wall, cx.now);
                Heard::Welcomed(epoch, Lease(sent_at.plus_ms(valid_for_ms)))
            }
            (Message::Rejected { reason }, _) => {
                self.unlink(cx);
                Heard::Rejected(reason)
            }
            (Message::HeartbeatAck { sent, wall, valid_for_ms, paused, progress }, LinkState::Joined) => {
                self.is_paused = paused;
                self.progress = (progress, cx.now.mono);
                self.measure(Mono(sent), wall, cx.now);
                Heard::Lease(Lease(Mono(sent.min(cx.now.mono.0)).plus_ms(valid_for_ms)))
            }
            (Message::ToNode(message), LinkState::Joined) => Heard::ToNode(message),
            (Message::Reply { request, reply }, LinkState::Joined) => {
                self.answer(request, reply, cx.fx);
                Heard::Nothing
            }
            _ => Heard::Nothing,
        }
    }

    /// Whether the leader has paused scheduled runs, by its last word.
    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// The leader's progress, as of now; none where no leader has taken this node in.
    pub fn progress(&self, now: Now) -> Option<Progress> {
        let (heard, heard_at) = &self.progress;
        let aged = |age_ms| age_ms + now.mono.since(*heard_at).as_millis() as u64;
        self.joined().map(|_| Progress { journal_age_ms: heard.journal_age_ms.map(aged), ..heard.clone() })
    }

    /// Forwards a call to the leader; its client is answered by `answer_by` at the latest. False: there is no leader.
    pub fn forward(&mut self, client: RequestId, command: &Command, answer_by: Mono, fx: &mut Effects) -> bool {
        let Some(link) = self.joined() else { return false };
        if FORWARDED_MAX <= self.forwarded.len() {
            fx.reply(client, Err(command.not_taken("too many calls wait for the leader")));
            return true;
        }
        self.requests += 1;
        self.forwarded.insert(self.requests, Forwarded { client, is_read: command.is_read(), answer_by });
        fx.send(link, Message::Command { request: self.requests, command: Box::new(command.clone()) });
        true
    }

    /// The link is gone.
    pub fn on_unlinked(&mut self, cx: &mut Context) {
        self.link = None;
        self.backoff.fail(cx.now);
        let calls = std::mem::take(&mut self.forwarded).into_values();
        calls.for_each(|call| call.give_up("the leader was lost while it had the call", cx.fx));
    }

    /// The server at the other end of the link, whether it has taken this node in or not.
    pub fn leader(&self) -> Option<&Server> {
        self.link.as_ref().map(|link| &link.leader)
    }

    fn unlink(&mut self, cx: &mut Context) {
        if let Some(link) = &self.link {
            cx.fx.unlink(link.id);
        }
        self.on_unlinked(cx);
    }

    fn answer(&mut self, request: u64, reply: Reply, fx: &mut Effects) {
        if let Some(call) = self.forwarded.remove(&request) {
            fx.reply(call.client, reply);
        }
    }

    /// Measures the leader's clock by an answer of the leader that says `wall`, to a message sent at `sent`: the leader
    /// is taken to have written it halfway between sending and receipt.
    fn measure(&mut self, sent: Mono, wall: Wall, now: Now) {
        let round_trip_ns = now.mono.since(sent).as_nanos() as u64;
        let is_worse = self
            .clock
            .is_some_and(|clock| clock.round_trip_ns < round_trip_ns && now.mono < clock.at.plus_ms(CLOCK_KEEP_MS));
        if !is_worse {
            self.clock = Some(LeaderClock { wall, at: Mono(now.mono.0 - round_trip_ns / 2), round_trip_ns });
        }
    }

    /// The heartbeat with the times of its sending.
    fn stamped(&self, heartbeat: Heartbeat, now: Now) -> Heartbeat {
        let is_quick = |clock: &LeaderClock| clock.round_trip_ns <= QUICK_MS * 1_000_000;
        let is_known = self.clock.as_ref().is_some_and(is_quick);
        let offset_ms = (now.wall.0 - self.leaders_now(now).wall.0) / 1_000_000;
        Heartbeat { sent: now.mono.0, wall: now.wall, clock_offset_ms: is_known.then_some(offset_ms), ..heartbeat }
    }

    fn give_up_late(&mut self, cx: &mut Context) {
        let late = self.forwarded.extract_if(.., |_, call| call.answer_by <= cx.now.mono);
        late.for_each(|(_, call)| call.give_up("the leader does not answer", cx.fx));
    }
}

fn send_heartbeat(link: &mut Link, heartbeat: Heartbeat, cx: &mut Context) {
    link.heartbeat_at = cx.now.mono.plus_ms(HEARTBEAT_MS);
    cx.fx.send(link.id, Message::Heartbeat(heartbeat));
}
