//! The queue of effects: the state machines push effects into it, and the driver takes them out.
//!
//! Not the carrying out of effects: that is the driver's.
//!
//! Invariant: no work id is given twice.

use crate::core::io::{Effect, MarkOp, Notice};
use crate::core::ports::{Work, WorkId};
use crate::model::NodeId;
use crate::model::command::{Reply, RequestId};
use crate::model::message::{LinkId, Message, ToLeader, ToNode};
use std::collections::VecDeque;

/// A message between the leader and a node, by way of the queue: all are delivered within the same input. A message to
/// this node itself needs no socket.
#[derive(Debug)]
pub enum Mail {
    ToNode(NodeId, ToNode),
    ToLeader(ToLeader),
}

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

    pub fn reply(&mut self, request: RequestId, reply: Reply) {
        self.effects.push_back(Effect::Reply(request, reply));
    }

    pub fn mark(&mut self, op: MarkOp) {
        self.effects.push_back(Effect::Mark(op));
    }

    pub fn notice(&mut self, level: log::Level, text: impl Into<String>) {
        self.effects.push_back(Effect::Notice(Notice { level, text: text.into() }));
    }

    pub fn push(&mut self, effect: Effect) {
        self.effects.push_back(effect);
    }

    pub fn tell_node(&mut self, node: &NodeId, message: ToNode) {
        self.mail.push_back(Mail::ToNode(node.clone(), message));
    }

    pub fn tell_leader(&mut self, message: ToLeader) {
        self.mail.push_back(Mail::ToLeader(message));
    }

    pub fn send(&mut self, link: LinkId, message: Message) {
        self.effects.push_back(Effect::Send(link, message));
    }

    pub fn take_mail(&mut self) -> Option<Mail> {
        self.mail.pop_front()
    }

    pub fn take(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }
}
