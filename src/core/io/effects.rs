//! Where the state machines put what they want done, until the driver takes it.
//!
//! Invariant: work ids are never given twice.

use crate::core::io::{MarkOp, Notice, Output};
use crate::core::ports::{Work, WorkId};
use crate::model::NodeId;
use crate::model::command::{Reply, RequestId};
use crate::model::message::{LinkId, Message, ToLeader, ToNode};
use std::collections::VecDeque;

/// What leader and nodes say to each other: to our own it needs no socket; all is delivered before the input is done.
#[derive(Debug)]
pub enum Mail {
    ToNode(NodeId, ToNode),
    ToLeader(ToLeader),
}

#[derive(Debug, Default)]
pub struct Effects {
    outputs: VecDeque<Output>,
    mail: VecDeque<Mail>,
    works: u64,
}

impl Effects {
    /// Asks a hand; its answer will carry the id.
    pub fn work(&mut self, work: Work) -> WorkId {
        self.works += 1;
        let id = WorkId(self.works);
        self.outputs.push_back(Output::Work(id, work));
        id
    }

    pub fn reply(&mut self, request: RequestId, reply: Reply) {
        self.outputs.push_back(Output::Reply(request, reply));
    }

    pub fn mark(&mut self, op: MarkOp) {
        self.outputs.push_back(Output::Mark(op));
    }

    pub fn notice(&mut self, level: log::Level, text: impl Into<String>) {
        self.outputs.push_back(Output::Notice(Notice { level, text: text.into() }));
    }

    pub fn output(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub fn tell_node(&mut self, node: &NodeId, message: ToNode) {
        self.mail.push_back(Mail::ToNode(node.clone(), message));
    }

    pub fn tell_leader(&mut self, message: ToLeader) {
        self.mail.push_back(Mail::ToLeader(message));
    }

    pub fn send(&mut self, link: LinkId, message: Message) {
        self.outputs.push_back(Output::Send(link, message));
    }

    pub fn take_mail(&mut self) -> Option<Mail> {
        self.mail.pop_front()
    }

    pub fn take(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
}
