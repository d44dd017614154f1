//! The roster: the nodes as their leader sees them. It knows which nodes are there, whether they may get runs, and when
//! their leases are surely over.
//!
//! ```text
//! (expected) -> Hello -> Greeted -> Holdings -> Settled <-> Suspect -> (lease over) Lost
//! ```
//!
//! Not the place that knows which runs a node has: that is the table in `runs`.
//!
//! Invariant: no lease ends later than the roster says. The leader counts it from its own sending of the
//! acknowledgement, the node from the earlier sending of its heartbeat.

use crate::core::runs::Candidate;
use crate::core::time::bounds::{LEASE_MARGIN_MS, LEASE_MS, OFFSET_MS_MAX, STORE_FIRM_MS, SUSPECT_MS};
use crate::core::time::{Timer, Timers};
use crate::model::command::{NodeState, NodeView, Role};
use crate::model::message::{Heartbeat, Hello, LinkId};
use crate::model::{Incarnation, Mono, NodeId, Now, Second, Server};
use std::collections::{BTreeMap, BTreeSet};

/// The leader's table of nodes, its own included.
#[derive(Debug, Default)]
pub struct Roster {
    members: BTreeMap<NodeId, Member>,
}

#[derive(Debug)]
struct Member {
    /// Empty until it says Hello.
    server: Server,
    incarnation: Incarnation,
    link: Option<LinkId>,
    /// The leader has taken in its holdings.
    is_settled: bool,
    capacity: usize,
    labels: Vec<String>,
    /// It may have begun runs that it does not name.
    has_forgotten: bool,
    /// The incarnation whose forgotten runs were looked for, and are lost.
    searched: Incarnation,
    /// Its last heartbeat.
    last: Heartbeat,
    /// Since when its heartbeats say that its store answers.
    store_since: Option<Mono>,
    clock_offset_ms: i64,
    /// The operator was warned of its clock.
    is_offset_said: bool,
    heard_at: Mono,
    /// Since when it is silent, by the wall clock; none while it is linked.
    silent_since: Option<Second>,
    lease_end: Mono,
    /// Its lease is over, and `take_released` has said so.
    is_released: bool,
}

impl Roster {
    /// Adds a node that may have runs of a former leader, and a lease until `lease_end`.
    pub fn expect(&mut self, node: NodeId, lease_end: Mono, now: Now) {
        self.members.entry(node).or_insert_with(|| Member::expected(now, lease_end));
    }

    /// Takes a node in; answers its former link, which is to be cut. The error is for the node's operator.
    pub fn on_hello(&mut self, link: LinkId, hello: &Hello, now: Now) -> Result<Option<LinkId>, String> {
        let is_namesake = |(id, member): (&NodeId, &Member)| {
            *id != hello.node_id && member.server == hello.server && member.link.is_some()
        };
        if self.members.iter().any(is_namesake) {
            return Err(format!("another node is here as {}: give each a bind_address of its own", hello.server));
        }
        if let Some(double) = self.members.get(&hello.node_id).filter(|member| member.is_double(hello, now)) {
            return Err(format!(
                "a node with this node's id is here as {}: was data_dir copied? Remove the file node_id from the copy and start \
                 it again",
                double.server
            ));
        }
        let member = self.members.entry(hello.node_id.clone()).or_insert_with(|| Member::expected(now, now.mono));
        // A former link is dead, or that of a former incarnation: its messages must not count for this one.
        let former = member.link.replace(link);
        member.server = hello.server.clone();
        member.incarnation = hello.incarnation;
        member.capacity = hello.capacity;
        member.labels = hello.labels.clone();
        member.has_forgotten = hello.has_forgotten;
        member.is_settled = false;
        member.heard_at = now.mono;
        member.silent_since = None;
        Ok(former)
    }

    /// The node has told its holdings: from now on it may be given runs.
    pub fn on_settled(&mut self, node: &NodeId) {
        if let Some(member) = self.members.get_mut(node) {
            member.is_settled = true;
            member.is_released = false;
        }
    }

    /// Whether the node may have begun runs that it does not name.
    pub fn has_forgotten(&self, node: &NodeId) -> bool {
        self.members.get(node).is_some_and(|member| member.has_forgotten)
    }

    /// Whether the runs that this incarnation of the node has forgotten were looked for: what it does not name from then
    /// on has not reached it.
    pub fn is_searched(&self, node: &NodeId) -> bool {
        self.members.get(node).is_some_and(|member| member.searched == member.incarnation)
    }

    /// The runs that the node has forgotten are lost now.
    pub fn on_searched(&mut self, node: &NodeId) {
        if let Some(member) = self.members.get_mut(node) {
            member.searched = member.incarnation;
        }
    }

    /// Counts the lease that the node is being granted: at most `LEASE_MS` from now.
    pub fn on_granted(&mut self, node: &NodeId, now: Now) {
        if let Some(member) = self.members.get_mut(node) {
            member.lease_end = member.lease_end.max(now.mono.plus_ms(LEASE_MS));
        }
    }

    /// Whether the node is as good a candidate after this heartbeat as it was before.
    pub fn is_as_before(&self, node: &NodeId, heartbeat: &Heartbeat, now: Now) -> bool {
        self.members.get(node).is_some_and(|member| {
            let is_same =
                |last: &Heartbeat| (last.is_draining, last.is_full) == (heartbeat.is_draining, heartbeat.is_full);
            member.is_fresh(now) && is_same(&member.last)
        })
    }

    /// Takes a heartbeat in. Answers a warning for the operator, where the node's clock is newly off.
    pub fn on_heartbeat(&mut self, node: &NodeId, heartbeat: Heartbeat, now: Now) -> Option<String> {
        let member = self.members.get_mut(node)?;
        // After a silence the time in which its store answers is counted anew: the store may have been away meanwhile.
        let store_since = member.store_since.filter(|_| member.is_fresh(now));
        member.store_since = heartbeat.store_ok.then(|| store_since.unwrap_or(now.mono));
        member.heard_at = now.mono;
        member.last = heartbeat;
        // The heartbeat's own wall time would mislead where the heartbeat has waited in a buffer.
        member.clock_offset_ms = heartbeat.clock_offset_ms.unwrap_or(member.clock_offset_ms);
        let is_off = OFFSET_MS_MAX < member.clock_offset_ms.abs();
        let is_new = is_off && !member.is_offset_said;
        member.is_offset_said = is_off;
        is_new.then(|| format!("the clock of {} is {} ms off from this host's", member.server, member.clock_offset_ms))
    }

    /// The link is gone; answers the node at its other end.
    pub fn on_unlinked(&mut self, link: LinkId, now: Now) -> Option<NodeId> {
        let (node, member) = self.members.iter_mut().find(|(_, member)| member.link == Some(link))?;
        member.link = None;
        member.silent_since = Some(now.wall.second());
        Some(node.clone())
    }

    /// The node at the other end of the link.
    pub fn node_of(&self, link: LinkId) -> Option<NodeId> {
        self.members.iter().find(|(_, member)| member.link == Some(link)).map(|(node, _)| node.clone())
    }

    /// The node's link; none where it has none.
    pub fn link_of(&self, node: &NodeId) -> Option<LinkId> {
        self.members.get(node)?.link
    }

    /// The node with this server, linked or not.
    pub fn node_at(&self, server: &Server) -> Option<NodeId> {
        self.members.iter().find(|(_, member)| member.server == *server).map(|(node, _)| node.clone())
    }

    /// The links of all nodes.
    pub fn links(&self) -> Vec<LinkId> {
        self.members.values().filter_map(|member| member.link).collect()
    }

    /// The node's server; empty where it has not greeted.
    pub fn server_of(&self, node: &NodeId) -> Server {
        self.members.get(node).map(|member| member.server.clone()).unwrap_or_default()
    }

    /// The nodes with a link.
    pub fn candidates(&self, now: Now) -> Vec<Candidate> {
        let candidate = |(node, member): (&NodeId, &Member)| Candidate {
            node: node.clone(),
            server: member.server.clone(),
            labels: member.labels.clone(),
            capacity: member.capacity,
            takes_new: member.is_settled && member.is_fresh(now) && !member.last.is_draining,
            is_full: member.last.is_full,
        };
        self.members.iter().filter(|(_, member)| member.link.is_some()).map(candidate).collect()
    }

    /// The nodes whose leases have surely ended since the last call.
    pub fn take_released(&mut self, now: Now) -> Vec<NodeId> {
        let mut released = Vec::new();
        for (node, member) in &mut self.members {
            let is_over = member.lease_end.plus_ms(LEASE_MARGIN_MS) <= now.mono;
            if is_over && member.may_be_released() {
                member.is_released = true;
                released.push(node.clone());
            }
        }
        released
    }

    /// The links of nodes that have said nothing for a whole lease.
    pub fn dead_links(&self, now: Now) -> Vec<LinkId> {
        let is_dead = |member: &&Member| member.heard_at.plus_ms(LEASE_MS) <= now.mono;
        self.members.values().filter(is_dead).filter_map(|member| member.link).collect()
    }

    /// The nodes without a link whose leases are over, each with the second since when it is silent.
    pub fn lost(&self) -> Vec<(NodeId, Second)> {
        let lost = self.members.iter().filter(|(_, member)| member.link.is_none() && member.is_released);
        lost.filter_map(|(node, member)| Some((node.clone(), member.silent_since?))).collect()
    }

    /// A node other than the leader's own that is well, and whose store has answered for `STORE_FIRM_MS`.
    pub fn with_store(&self, now: Now) -> Option<Server> {
        let is_firm = |since: Mono| since.plus_ms(STORE_FIRM_MS) <= now.mono;
        let is_well = |member: &&Member| {
            let is_other = member.link.is_some() && !member.is_own();
            is_other && member.is_settled && member.is_fresh(now) && !member.last.is_draining
        };
        let mut well = self.members.values().filter(is_well);
        well.find(|member| member.store_since.is_some_and(is_firm)).map(|member| member.server.clone())
    }

    /// Removes a lost node.
    pub fn forget(&mut self, node: &NodeId) {
        self.members.remove(node);
    }

    /// Lists when the next lease is surely over.
    pub fn timers(&self, timers: &mut Timers) {
        let ends = self.members.values().filter(|member| member.may_be_released());
        timers.set(Timer::LeaseEnd, ends.map(|member| member.lease_end.plus_ms(LEASE_MARGIN_MS)).min());
    }

    /// The nodes for `/cluster`.
    pub fn view(&self, now: Now) -> Vec<NodeView> {
        let view = |member: &Member| NodeView {
            server: member.server.clone(),
            role: if member.is_own() { Role::Leader } else { Role::Follower },
            state: member.state(now),
            running: member.last.running,
            queued: member.last.waiting,
            throttled: member.last.is_full,
            refused: member.last.refused,
            capacity: member.capacity,
            clock_offset_ms: member.clock_offset_ms,
            last_contact_ms: now.mono.since(member.heard_at).as_millis() as u64,
            store_ok: member.last.store_ok,
        };
        // A node that has not greeted yet has no server to be shown by.
        self.members.values().filter(|member| !member.server.0.is_empty()).map(view).collect()
    }

    /// Asserts that no two nodes share a link, and no two linked nodes an address.
    pub fn check_invariants(&self) {
        let here = || self.members.values().filter(|member| member.link.is_some());
        let links: BTreeSet<LinkId> = here().filter_map(|member| member.link).collect();
        let servers: BTreeSet<&Server> = here().map(|member| &member.server).collect();
        assert_eq!(links.len(), here().count(), "a link belongs to two nodes");
        assert_eq!(servers.len(), here().count(), "two nodes are here with one address");
        assert!(here().all(|member| member.silent_since.is_none()), "a node is linked and silent");
        assert!(here().filter(|member| member.is_own()).count() <= 1, "two nodes are the leader's own");
    }
}

impl Member {
    fn expected(now: Now, lease_end: Mono) -> Member {
        Member {
            server: Server::default(),
            incarnation: Incarnation::default(),
            link: None,
            is_settled: false,
            capacity: 0,
            labels: Vec::new(),
            has_forgotten: false,
            searched: Incarnation::default(),
            last: Heartbeat::default(),
            store_since: None,
            clock_offset_ms: 0,
            is_offset_said: false,
            heard_at: now.mono,
            silent_since: Some(now.wall.second()),
            lease_end,
            is_released: false,
        }
    }

    /// Whether the end of its lease matters. It does not for a node that is linked and settled: its own daemon ends its
    /// mutex runs when the lease is over, and tells the leader.
    fn may_be_released(&self) -> bool {
        !self.is_released && (self.link.is_none() || !self.is_settled)
    }

    /// The leader's own node.
    fn is_own(&self) -> bool {
        self.link == Some(LinkId::Loopback)
    }

    fn is_fresh(&self, now: Now) -> bool {
        now.mono < self.heard_at.plus_ms(SUSPECT_MS)
    }

    /// Whether this node is alive and another one greets with its id. A restarted node is no double: it has the same
    /// address, and a later incarnation.
    fn is_double(&self, hello: &Hello, now: Now) -> bool {
        let is_heard = self.link.is_some() && self.is_fresh(now);
        let is_other = self.server != hello.server || hello.incarnation < self.incarnation;
        self.is_own() || is_heard && is_other
    }

    fn state(&self, now: Now) -> NodeState {
        if self.is_released {
            NodeState::Lost
        } else if self.link.is_none() || !self.is_fresh(now) {
            NodeState::Suspect
        } else if self.last.is_draining {
            NodeState::Draining
        } else {
            NodeState::Alive
        }
    }
}

#[cfg(test)]
mod tests;
