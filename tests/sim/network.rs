//! The links between the nodes and the messages on them, and how the world changes a message where a guard is taken
//! out.

use crate::guard::Guard;
use crate::world::{Event, MS, World};
use std::collections::VecDeque;
use wing_crontab::core::io::{Gone, Input};
use wing_crontab::model::message::{LinkId, Message, ToLeader, ToNode};
use wing_crontab::model::{Epoch, JobId, Server};

/// An epoch that every node accepts.
const ANY_EPOCH: Epoch = Epoch(1 << 40);
/// The longest lease.
const LEASE_MS: u64 = 10_000;

/// A link. Each end has a host, the host's life, and the host's id of the link.
pub struct Link {
    pub ends: [(usize, u64, LinkId); 2],
    pub is_up: bool,
    /// The time of the last delivery to each end.
    last: [u64; 2],
    /// The messages on their way to each end, in order.
    under_way: [VecDeque<Message>; 2],
    /// The epoch of the Welcome on it.
    epoch: Epoch,
}

impl World {
    pub fn end_daemon(&mut self, host: usize) {
        self.hosts[host].node = None;
        self.hosts[host].life += 1;
        for link in 0..self.links.len() {
            for end in 0..2 {
                if self.links[link].is_up && self.links[link].ends[end].0 == host {
                    self.at(self.now + MS, Event::Close(link, 1 - end));
                }
            }
        }
    }

    pub fn dial(&mut self, host: usize, life: u64, id: LinkId, server: &Server) {
        let Some(to) = self.hosts.iter().position(|other| other.server == *server) else { return };
        if !self.reaches(host, to) || !self.reaches(to, host) || self.now < self.frozen_until(to) {
            return;
        }
        if self.hosts[to].node.is_none() {
            return self.input_later(host, life, Input::Unlinked(id, Gone::NobodyThere));
        }
        let link = self.links.len();
        let other = (to, self.hosts[to].life, LinkId::In(link as u64));
        self.links.push(Link {
            ends: [(host, life, id), other],
            is_up: true,
            last: [self.now; 2],
            under_way: Default::default(),
            epoch: Epoch(0),
        });
        for (host, life, id) in self.links[link].ends {
            self.input_later(host, life, Input::Linked(id));
        }
    }

    pub fn send(&mut self, host: usize, life: u64, id: LinkId, message: Message) {
        let has = |link: &Link| link.is_up && link.ends.iter().position(|end| *end == (host, life, id)).is_some();
        let Some(link) = self.links.iter().rposition(has) else { return };
        let end = usize::from(self.links[link].ends[0] == (host, life, id));
        let Some(message) = self.told((host, life), (link, end), message) else { return };
        let latency = self.random.within(MS / 10, 3 * MS);
        let at = (self.now + latency).max(self.links[link].last[end] + 1);
        self.links[link].last[end] = at;
        self.links[link].under_way[end].push_back(message);
        self.at(at, Event::Deliver(link, end));
    }

    /// The message as that end will get it; none where the world answers the message itself.
    fn told(&mut self, from: (usize, u64), to: (usize, usize), mut message: Message) -> Option<Message> {
        let ((host, life), (link, end)) = (from, to);
        let to = self.links[link].ends[end].0;
        if let Message::Welcome { valid_for_ms, .. } | Message::HeartbeatAck { valid_for_ms, .. } = &mut message
            && self.without == Some(Guard::LeaseWithinAuthority)
        {
            *valid_for_ms = LEASE_MS;
        }
        match &mut message {
            Message::Welcome { epoch, .. } => {
                // The leader has not measured the clock of its new node yet.
                self.hosts[to].followed_at = self.now;
                self.links[link].epoch = *epoch;
                if self.without == Some(Guard::EpochAtTheNode) {
                    *epoch = ANY_EPOCH;
                }
            }
            Message::Holdings(held) => {
                self.follow(host, link);
                self.say(format!("host {host} -> {to}: has {}", held.len()));
                let before = self.hosts[host].told.replace(held.clone());
                if self.without == Some(Guard::WelcomeBeforeHoldings) {
                    *held = before.unwrap_or_else(|| held.clone());
                }
            }
            Message::ToNode(ToNode::Cancel { cron_id, .. }) if self.without == Some(Guard::VersionAtTheStart) => {
                self.answer_cancel(host, life, (link, end), *cron_id);
                return None;
            }
            Message::ToNode(ToNode::Dispatch(orders)) => {
                let attempts = orders.iter().map(|order| order.attempt.to_string()).collect::<Vec<_>>().join(" ");
                self.say(format!("host {host} -> {to}: {attempts}"));
            }
            _ => {}
        }
        Some(message)
    }

    /// Takes the guard `VersionAtTheStart` out: the world answers a cancel, and no run is taken back.
    fn answer_cancel(&mut self, host: usize, life: u64, (link, end): (usize, usize), cron_id: JobId) {
        let (_, _, id) = self.links[link].ends[1 - end];
        let cancelled = Message::ToLeader(ToLeader::Cancelled { cron_id, dropped: Vec::new() });
        self.input_later(host, life, Input::Received(id, cancelled));
    }

    /// The host has accepted the leader at the other end of the link.
    fn follow(&mut self, host: usize, link: usize) {
        let epoch = self.links[link].epoch;
        self.hosts[host].followed_at = self.now;
        let before = std::mem::replace(&mut self.hosts[host].followed, epoch);
        if epoch < before {
            self.truth.rule(format!("host {host} followed epoch {before}, and now {epoch}"));
        }
    }

    /// Delivers the next message to this end of the link. While the way is cut the bytes wait, as with TCP.
    pub fn deliver(&mut self, link: usize, end: usize) {
        let (to, life, id) = self.links[link].ends[end];
        let (from, _, _) = self.links[link].ends[1 - end];
        if !self.links[link].is_up {
            return;
        }
        if !self.reaches(from, to) || self.now < self.frozen_until(to) {
            let at = self.now + 50 * MS;
            return self.at(at, Event::Deliver(link, end));
        }
        if let Some(message) = self.links[link].under_way[end].pop_front() {
            self.input(to, life, Input::Received(id, message));
        }
    }

    pub fn unlink(&mut self, host: usize, life: u64, id: LinkId) {
        let has = |link: &Link| link.is_up && link.ends.contains(&(host, life, id));
        let Some(link) = self.links.iter().rposition(has) else { return };
        let end = usize::from(self.links[link].ends[0] == (host, life, id));
        // Messages that were sent before the close arrive before it.
        let at = self.now.max(self.links[link].last[end]) + MS;
        self.links[link].ends[1 - end].2 = LinkId::In(u64::MAX);
        self.at(at, Event::Close(link, end));
    }

    pub fn close(&mut self, link: usize, end: usize) {
        let (to, life, id) = self.links[link].ends[end];
        let (from, _, _) = self.links[link].ends[1 - end];
        let is_first = self.links[link].under_way[end].is_empty();
        if !is_first || !self.reaches(from, to) || self.now < self.frozen_until(to) {
            let at = self.now + 50 * MS;
            return self.at(at, Event::Close(link, end));
        }
        if std::mem::replace(&mut self.links[link].is_up, false) {
            self.input(to, life, Input::Unlinked(id, Gone::Lost));
        }
    }
}
