//! What is asked of Consul's agent, and its answers.
//!
//! Not the calls themselves: those are in `worker::consul`.
//!
//! Invariant: each call may be made again.

use crate::model::{Epoch, Incarnation, NodeId, Second, Server};

/// Calls of Consul's agent.
#[derive(Clone, Debug)]
pub enum Consul {
    /// Register the service with its check and the tag `isleader:..`; again where it is registered already.
    Register { is_leader: bool },
    /// Pass the service's check: this node is alive.
    Pass,
    /// Make a session that ends when the check fails; `ConsulAnswer::Session`.
    CreateSession,
    /// Take the lock or keep it, with this value; `ConsulAnswer::Acquired`.
    Acquire { session: String, value: LockValue },
    /// Give the lock up, and keep the session.
    Release { session: String },
    /// Give the lock up (where there is a session), destroy the session and deregister: a clean end.
    Leave { session: Option<String> },
    /// End a session.
    DestroySession { session: String },
}

/// The lock's value. The leader writes it every second, which shows that the leader is alive and what its server is.
#[derive(Clone, Debug, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
pub struct LockValue {
    /// The largest epoch that the node has seen; its own, where it leads.
    pub epoch: Epoch,
    /// A second that grows for as long as the node does the leader's work.
    pub tick: Second,
    /// The node's address.
    pub server: Server,
    /// The node's id.
    pub node_id: NodeId,
    /// The life of its daemon.
    pub incarnation: Incarnation,
}

/// The answer to a call that succeeded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ConsulAnswer {
    /// The service is registered, the check passed, the lock released or the session destroyed.
    Done,
    /// The id of the new session.
    Session(String),
    /// Whether this node has the lock.
    Acquired(bool),
}

/// Why a call failed: the reason, for people.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ConsulError {
    /// Consul was not reached, or answered with an error of its own.
    Unavailable(String),
    /// The session, or the check, is not known to Consul (any more).
    Unknown(String),
}

/// The lock as it is in Consul.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LockState {
    /// Consul's number for this state: the next watch names it.
    pub index: u64,
    /// The session that holds the lock; none where nobody does.
    pub session: Option<String>,
    /// None where the key does not exist, or its value is not a `LockValue`.
    pub value: Option<LockValue>,
}
