//! The queue of effects: the state machines push effects into it, and the driver takes them out.
//!
//! Not the carrying out of effects: that is the driver's.
//!
//! Invariant: no work id is given twice.

use crate::core::io::ports::{Work, WorkId};
use crate::core::io::{Effect, MarkOp, Notice};
use crate::model::NodeId;
use crate::model::command::{Reply, RequestId};
use crate::model::message::{LinkId, Message, ToLeader, ToNode};
use std::collections::VecDeque;

/// A message that the node routes within the same input.
#[derive(Debug)]
pub enum Mail {
    /// Goes over the link of this node, where it has one.
    ToNode(NodeId, ToNode),
    /// Goes over this node's link to its leader, where it has one.
    ToLeader(ToLeader),
    /// Goes over the loopback link, to its other end.
    Loopback(Message),
}

/// The effects that are not taken yet, in their order.
#[derive(Debug, Default)]
pub struct Effects {
    effects: VecDeque<Effect>,
    mail: VecDeque<Mail>,
    works: u64,
}

impl Effects {
    /// Gives work to a hand. The answer will carry the id.
    pub fn work(&mut self, work: Work) -> WorkId {
        self.works += 1;
        let id = WorkId(self.works);
        self.effects.push_back(Effect::Work(id, work));
        id
    }

    /// Answers a client's request.
    pub fn reply(&mut self, request: RequestId, reply: Reply) {
        self.effects.push_back(Effect::Reply(request, reply));
    }

    /// Changes a slot of the marks.
    pub fn mark(&mut self, op: MarkOp) {
        self.effects.push_back(Effect::Mark(op));
    }

    /// Writes a line into the daemon's own log.
    pub fn notice(&mut self, level: log::Level, text: impl Into<String>) {
        self.effects.push_back(Effect::Notice(Notice { level, text: text.into() }));
    }

    /// Adds an effect at the end.
    pub fn push(&mut self, effect: Effect) {
        self.effects.push_back(effect);
    }

    /// Sends a node a message of its leader.
    pub fn tell_node(&mut self, node: &NodeId, message: ToNode) {
        self.mail.push_back(Mail::ToNode(node.clone(), message));
    }

    /// Sends the leader a message of this node.
    pub fn tell_leader(&mut self, message: ToLeader) {
        self.mail.push_back(Mail::ToLeader(message));
    }

    /// Sends the message over the link: through its socket, or, where it has none, by way of the node.
    pub fn send(&mut self, link: LinkId, message: Message) {
        match link {
            LinkId::Loopback => self.mail.push_back(Mail::Loopback(message)),
            link => self.effects.push_back(Effect::Send(link, message)),
        }
    }

    /// Closes the link's socket, where it has one.
    pub fn unlink(&mut self, link: LinkId) {
        if link != LinkId::Loopback {
            self.effects.push_back(Effect::Unlink(link));
        }
    }

    /// The oldest message that is not delivered yet.
    pub fn take_mail(&mut self) -> Option<Mail> {
        self.mail.pop_front()
    }

    /// The oldest effect that is not carried out yet.
    pub fn take(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }
}
