//! Nodes: their ids, servers and incarnations, and the fencing token of their leader.
//!
//! Not the state of a node: the leader's roster has that. Invariant: a node id never changes.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// A node's own random name (32 hex digits), kept in its data_dir: it stays when the address changes.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct NodeId(pub Arc<str>);

impl NodeId {
    /// Whether this id stands for no node: in the journal, a run that no node was given yet.
    pub fn is_nobody(&self) -> bool {
        self.0.is_empty()
    }
}

/// A node's `bind_address`, `ip:port`: the name that people see.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Server(pub Arc<str>);

/// One life of a node's daemon; a restarted one is a new incarnation of the same node id.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Incarnation(pub u64);

/// The fencing token: grows with every change of leader; 0 means that there was none yet.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Server {
    /// Whether only this host can reach it.
    pub fn is_loopback(&self) -> bool {
        self.0.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback())
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
