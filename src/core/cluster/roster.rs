//! The nodes, as their leader sees them: who is there, what it may be given, and when its lease is surely over.
//!
//! ```text
//! (expected) -> Hello -> Greeted -> Holdings -> Settled <-> Suspect -> (lease over) Lost
//! ```
//!
//! Not the place that knows what a node has: that is `dispatch`'s.
//!
//! Invariant: a lease is counted from our own sending of the last answer, which lies after the node's counting of it.

use crate::core::node::LEASE_MS;
use crate::core::runs::Candidate;
use crate::core::time::{Timer, Timers};
use crate::model::command::{NodeState, NodeView, Role};
use crate::model::message::{Heartbeat, Hello, LinkId};
use crate::model::{Incarnation, Mono, NodeId, Now, Second, Server};
use std::collections::BTreeMap;

/// A node that has said nothing for so long gets nothing new.
const SUSPECT_MS: u64 = 1_000;
/// A node's word that its store answers counts after so long: what has been away for all is there again for all by then,
/// however long a leader that asks again and again may have to wait.
const STORE_FIRM_MS: u64 = 2_500;
/// Between the end of a lease and our reliance on it.
const MARGIN_MS: u64 = 1_000;
/// A clock that is off by more is warned of.
const OFFSET_MS_MAX: i64 = 250;

/// The leader's own node.
#[derive(Clone, Debug)]
pub struct Own {
    pub node: NodeId,
    pub server: Server,
    pub labels: Vec<String>,
}

#[derive(Debug)]
pub struct Roster {
    own: NodeId,
    members: BTreeMap<NodeId, Member>,
}

#[derive(Debug)]
struct Member {
    /// Empty until it says Hello.
    server: Server,
    incarnation: Incarnation,
    link: Option<LinkId>,
    /// Its holdings are taken in.
    is_settled: bool,
    capacity: usize,
    labels: Vec<String>,
    last: Heartbeat,
    /// Since when it says that its store answers.
    store_since: Option<Mono>,
    clock_offset_ms: i64,
    is_offset_said: bool,
    heard_at: Mono,
    /// Since when it is silent, by the wall clock; none while it is linked.
    silent_since: Option<Second>,
    lease_end: Mono,
    is_released: bool,
}

impl Roster {
    pub fn new(own: Own, capacity: usize, now: Now) -> Roster {
        let Own { node: own, server, labels } = own;
        let member = Member { server, capacity, labels, is_settled: true, ..Member::expected(now, Mono::NEVER) };
        Roster { members: BTreeMap::from([(own.clone(), Member { silent_since: None, ..member })]), own }
    }

    /// A node that may have something from a former leader's days, and a lease until then.
    pub fn expect(&mut self, node: NodeId, lease_end: Mono, now: Now) {
        self.members.entry(node).or_insert_with(|| Member::expected(now, lease_end));
    }

    /// Takes a node in; the error is for it to read.
    pub fn on_hello(&mut self, link: LinkId, hello: &Hello, now: Now) -> Result<Option<LinkId>, String> {
        let is_namesake = |(id, member): (&NodeId, &Member)| {
            *id != hello.node_id && member.server == hello.server && (*id == self.own || member.link.is_some())
        };
        if self.members.iter().any(is_namesake) {
            return Err(format!("another node is here as {}: give each a bind_address of its own", hello.server));
        }
        if let Some(double) = self.members.get(&hello.node_id).filter(|member| self.is_double(member, hello, now)) {
            return Err(format!(
                "a node with this node's id is here as {}: was data_dir copied? Remove the file node_id from the copy and start \
                 it again",
                double.server
            ));
        }
        let member = self.members.entry(hello.node_id.clone()).or_insert_with(|| Member::expected(now, now.mono));
        // A link of before is dead or about to be: what it still carries is not for this life.
        let former = member.link.replace(link);
        member.server = hello.server.clone();
        member.incarnation = hello.incarnation;
        member.capacity = hello.capacity;
        member.labels = hello.labels.clone();
        member.is_settled = false;
        member.heard_at = now.mono;
        member.silent_since = None;
        Ok(former)
    }

    /// Whether the node id is somebody else's, who lives. A node that was restarted is not: its new life has the same
    /// address, and comes after the old one.
    fn is_double(&self, member: &Member, hello: &Hello, now: Now) -> bool {
        let is_heard = member.link.is_some() && now.mono < member.heard_at.plus_ms(SUSPECT_MS);
        let is_other = member.server != hello.server || hello.incarnation < member.incarnation;
        hello.node_id == self.own || is_heard && is_other
    }

    pub fn on_settled(&mut self, node: &NodeId) {
        if let Some(member) = self.members.get_mut(node) {
            member.is_settled = true;
            member.is_released = false;
        }
    }

    /// Counts a lease that is being granted for so long.
    pub fn on_granted(&mut self, node: &NodeId, now: Now) {
        if let Some(member) = self.members.get_mut(node) {
            member.lease_end = member.lease_end.max(now.mono.plus_ms(LEASE_MS));
        }
    }

    /// Whether our own node's system has no room for another process.
    pub fn set_own_full(&mut self, is_full: bool) {
        if let Some(member) = self.members.get_mut(&self.own) {
            member.last.is_full = is_full;
        }
    }

    /// Answers a warning, where there is one.
    pub fn on_heartbeat(&mut self, node: &NodeId, heartbeat: Heartbeat, now: Now) -> Option<String> {
        let member = self.members.get_mut(node)?;
        // What it may have said in between is not known.
        let store_since = member.store_since.filter(|_| now.mono < member.heard_at.plus_ms(SUSPECT_MS));
        member.store_since = heartbeat.store_ok.then(|| store_since.unwrap_or(now.mono));
        member.heard_at = now.mono;
        member.last = heartbeat;
        // What the node's clock shows when this arrives says nothing: it may have lain in a buffer.
        member.clock_offset_ms = heartbeat.clock_offset_ms.unwrap_or(member.clock_offset_ms);
        let is_off = OFFSET_MS_MAX < member.clock_offset_ms.abs();
        let is_new = is_off && !member.is_offset_said;
        member.is_offset_said = is_off;
        is_new.then(|| format!("the clock of {} is {} ms off from this one", member.server, member.clock_offset_ms))
    }

    /// The link is gone; answers whose it was.
    pub fn on_unlinked(&mut self, link: LinkId, now: Now) -> Option<NodeId> {
        let (node, member) = self.members.iter_mut().find(|(_, member)| member.link == Some(link))?;
        member.link = None;
        member.silent_since = Some(now.wall.second());
        Some(node.clone())
    }

    pub fn node_of(&self, link: LinkId) -> Option<NodeId> {
        self.members.iter().find(|(_, member)| member.link == Some(link)).map(|(node, _)| node.clone())
    }

    pub fn link_of(&self, node: &NodeId) -> Option<LinkId> {
        self.members.get(node)?.link
    }

    pub fn node_at(&self, server: &Server) -> Option<NodeId> {
        self.members.iter().find(|(_, member)| member.server == *server).map(|(node, _)| node.clone())
    }

    pub fn links(&self) -> Vec<LinkId> {
        self.members.values().filter_map(|member| member.link).collect()
    }

    pub fn server_of(&self, node: &NodeId) -> Server {
        self.members.get(node).map(|member| member.server.clone()).unwrap_or_default()
    }

    /// The nodes that can be spoken to. `is_draining`: whether our own takes no new runs.
    pub fn candidates(&self, is_draining: bool, now: Now) -> Vec<Candidate> {
        let candidate = |(node, member): (&NodeId, &Member)| {
            let is_own = *node == self.own;
            let is_fresh = now.mono < member.heard_at.plus_ms(SUSPECT_MS);
            let takes_new =
                if is_own { !is_draining } else { member.is_settled && is_fresh && !member.last.is_draining };
            let (server, labels, capacity) = (member.server.clone(), member.labels.clone(), member.capacity);
            let (node, is_full) = (node.clone(), member.last.is_full);
            (is_own || member.link.is_some()).then_some(Candidate {
                node,
                server,
                labels,
                capacity,
                takes_new,
                is_full,
            })
        };
        self.members.iter().filter_map(candidate).collect()
    }

    /// Nodes whose leases have ended since the last time.
    pub fn take_released(&mut self, now: Now) -> Vec<NodeId> {
        let mut released = Vec::new();
        for (node, member) in &mut self.members {
            let is_over = *node != self.own && member.lease_end.plus_ms(MARGIN_MS) <= now.mono;
            if is_over && member.may_be_released() {
                member.is_released = true;
                released.push(node.clone());
            }
        }
        released
    }

    /// Links that say nothing any more.
    pub fn dead_links(&self, now: Now) -> Vec<LinkId> {
        let is_dead = |member: &&Member| member.heard_at.plus_ms(LEASE_MS) <= now.mono;
        self.members.values().filter(is_dead).filter_map(|member| member.link).collect()
    }

    /// Nodes without a link whose leases are over, with since when they are silent.
    pub fn lost(&self) -> Vec<(NodeId, Second)> {
        let lost = self.members.iter().filter(|(_, member)| member.link.is_none() && member.is_released);
        lost.filter_map(|(node, member)| Some((node.clone(), member.silent_since?))).collect()
    }

    /// A node that is well and whose store answers, beside our own.
    pub fn with_store(&self, now: Now) -> Option<Server> {
        let is_well = |(node, member): &(&NodeId, &Member)| {
            let is_fresh = now.mono < member.heard_at.plus_ms(SUSPECT_MS);
            **node != self.own && member.link.is_some() && member.is_settled && is_fresh && !member.last.is_draining
        };
        let mut well = self.members.iter().filter(is_well);
        let is_firm = |since: Mono| since.plus_ms(STORE_FIRM_MS) <= now.mono;
        well.find(|(_, member)| member.store_since.is_some_and(is_firm)).map(|(_, member)| member.server.clone())
    }

    /// A lost node of which nothing is left to know.
    pub fn forget(&mut self, node: &NodeId) {
        self.members.remove(node);
    }

    pub fn timers(&self, timers: &mut Timers) {
        let ends = self.members.iter().filter(|(node, member)| **node != self.own && member.may_be_released());
        timers.set(Timer::LeaseEnd, ends.map(|(_, member)| member.lease_end.plus_ms(MARGIN_MS)).min());
    }

    /// `own` is what our own node would say of itself.
    pub fn view(&self, own: Heartbeat, now: Now) -> Vec<NodeView> {
        let view = |(node, member): (&NodeId, &Member)| {
            let is_own = *node == self.own;
            let last = if is_own { own } else { member.last };
            NodeView {
                server: member.server.clone(),
                role: if is_own { Role::Leader } else { Role::Follower },
                state: member.state(is_own, last.is_draining, now),
                running: last.running,
                queued: last.waiting,
                throttled: last.is_full,
                refused: last.refused,
                capacity: member.capacity,
                clock_offset_ms: if is_own { 0 } else { member.clock_offset_ms },
                last_contact_ms: if is_own { 0 } else { now.mono.since(member.heard_at).as_millis() as u64 },
                store_ok: last.store_ok,
            }
        };
        // A node that has not said its name has nothing to show.
        self.members.iter().filter(|(_, member)| !member.server.0.is_empty()).map(view).collect()
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

    /// One that is here has ended what it had to end when its lease was over.
    fn may_be_released(&self) -> bool {
        !self.is_released && (self.link.is_none() || !self.is_settled)
    }

    fn state(&self, is_own: bool, is_draining: bool, now: Now) -> NodeState {
        let is_silent = self.link.is_none() || self.heard_at.plus_ms(SUSPECT_MS) <= now.mono;
        if self.is_released {
            NodeState::Lost
        } else if is_silent && !is_own {
            NodeState::Suspect
        } else if is_draining {
            NodeState::Draining
        } else {
            NodeState::Alive
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Incarnation;

    const OWN: &str = "10.0.0.1:9991";

    fn roster() -> Roster {
        let own = Own { node: NodeId("own".into()), server: Server(OWN.into()), labels: Vec::new() };
        Roster::new(own, 5, at(0))
    }

    fn at(ms: u64) -> Now {
        Now { mono: Mono(0).plus_ms(ms), ..Now::default() }
    }

    #[test]
    fn a_node_has_the_store_when_it_has_said_so_for_a_while_and_is_well() {
        let other = NodeId("other".into());
        let own = Own { node: NodeId("own".into()), server: Server("10.0.0.1:9991".into()), labels: Vec::new() };
        let server = Server("10.0.0.2:9991".into());
        let mut roster = Roster::new(own, 10, at(0));
        let hello = Hello {
            node_id: other.clone(),
            server: server.clone(),
            incarnation: Incarnation(1),
            capacity: 10,
            labels: Vec::new(),
        };
        let link = LinkId::In(1);
        roster.on_hello(link, &hello, at(0)).unwrap();
        roster.on_settled(&other);
        // Its beats from then until then, all alike; who has the store after the last.
        let mut beats = |from, to, store_ok| {
            for ms in (from..=to).step_by(100) {
                roster.on_heartbeat(&other, Heartbeat { store_ok, ..Heartbeat::default() }, at(ms));
            }
            roster.with_store(at(to))
        };
        let firm = STORE_FIRM_MS;
        assert_eq!(beats(0, firm - 100, true), None);
        assert_eq!(beats(firm, firm, true), Some(server.clone()));
        assert_eq!(beats(firm + 100, firm + 100, false), None);
        assert_eq!(beats(firm + 200, 2 * firm + 100, true), None, "counted anew");
        assert_eq!(beats(2 * firm + 200, 2 * firm + 200, true), Some(server.clone()));
        let silent = 2 * firm + 200 + SUSPECT_MS;
        assert_eq!(beats(silent, silent + firm - 100, true), None, "anew after a silence too");
        let last = silent + firm;
        assert_eq!(beats(last, last, true), Some(server));
        assert_eq!(roster.with_store(at(last + SUSPECT_MS)), None, "it says nothing any more");
        roster.on_unlinked(link, at(last));
        assert_eq!(roster.with_store(at(last)), None);
    }

    #[test]
    fn a_clock_that_is_off_is_warned_of_once_however_long_the_heartbeats_took() {
        let mut roster = roster();
        let node = NodeId("a".into());
        hello(&mut roster, 1, ("a", 2, 1), 0).unwrap();
        let mut warning = |clock_offset_ms| {
            // Sent long ago.
            let heartbeat = Heartbeat { clock_offset_ms, ..Heartbeat::default() };
            roster.on_heartbeat(&node, heartbeat, Now { wall: Second(1_000).wall(), ..at(100) })
        };
        assert_eq!(warning(None), None);
        assert_eq!(warning(Some(-OFFSET_MS_MAX)), None);
        let said = warning(Some(-OFFSET_MS_MAX - 1)).unwrap();
        assert!(said.contains("10.0.0.2:9991 is -251 ms off"), "{said}");
        assert_eq!(warning(Some(-OFFSET_MS_MAX - 2)), None, "once");
        assert_eq!(warning(None), None, "nothing new is known");
        assert_eq!(warning(Some(0)), None);
        assert!(warning(Some(OFFSET_MS_MAX + 1)).is_some());
    }

    /// What becomes of the Hello of a node's life, over a link with that number.
    fn hello(roster: &mut Roster, link: u64, (node_id, host, life): (&str, u8, u64), ms: u64) -> Result<(), String> {
        let hello = Hello {
            node_id: NodeId(node_id.into()),
            server: Server(format!("10.0.0.{host}:9991").into()),
            incarnation: Incarnation(life),
            capacity: 5,
            labels: Vec::new(),
        };
        roster.on_hello(LinkId::In(link), &hello, at(ms)).map(|_| ())
    }

    #[test]
    fn a_node_that_was_restarted_takes_the_place_of_its_last_life() {
        let mut roster = roster();
        hello(&mut roster, 1, ("a", 2, 1), 0).unwrap();
        hello(&mut roster, 2, ("a", 2, 2), 10).unwrap();
        assert_eq!(roster.node_of(LinkId::In(1)), None);
        assert_eq!(roster.link_of(&NodeId("a".into())), Some(LinkId::In(2)));
        hello(&mut roster, 3, ("a", 2, 2), 20).unwrap();
    }

    #[test]
    fn a_copied_data_dir_is_refused_while_the_other_is_heard() {
        let mut roster = roster();
        hello(&mut roster, 1, ("a", 2, 5), 0).unwrap();
        let reason = hello(&mut roster, 2, ("a", 3, 9), SUSPECT_MS - 1).unwrap_err();
        assert!(reason.contains("here as 10.0.0.2:9991") && reason.contains("node_id"), "{reason}");
        assert!(hello(&mut roster, 3, ("a", 2, 4), SUSPECT_MS - 1).is_err(), "an older life that is alive");
        assert_eq!(roster.link_of(&NodeId("a".into())), Some(LinkId::In(1)));
        hello(&mut roster, 4, ("a", 3, 9), SUSPECT_MS).unwrap();
    }

    #[test]
    fn a_node_that_moved_is_taken_in_once_its_old_link_is_gone() {
        let mut roster = roster();
        hello(&mut roster, 1, ("a", 2, 1), 0).unwrap();
        roster.on_unlinked(LinkId::In(1), at(1));
        hello(&mut roster, 2, ("a", 3, 2), 2).unwrap();
    }

    #[test]
    fn no_other_node_may_have_the_leaders_id_or_anybodys_address() {
        let mut roster = roster();
        assert!(hello(&mut roster, 1, ("own", 2, 1), 0).unwrap_err().contains(OWN));
        assert!(hello(&mut roster, 1, ("a", 1, 1), 0).unwrap_err().contains("bind_address"));
        hello(&mut roster, 1, ("a", 2, 1), 0).unwrap();
        assert!(hello(&mut roster, 2, ("b", 2, 1), 0).unwrap_err().contains("bind_address"));
    }
}
