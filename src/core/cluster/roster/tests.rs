//! Tests of the roster: who is taken in, who is warned of, and when a lease is surely over.

use super::*;
use crate::model::Incarnation;

const OWN: &str = "10.0.0.1:9991";

fn hello_of(node_id: &str, server: &str, life: u64) -> Hello {
    Hello {
        node_id: NodeId(node_id.into()),
        server: Server(server.into()),
        incarnation: Incarnation(life),
        capacity: 5,
        labels: Vec::new(),
        has_forgotten: false,
    }
}

fn roster() -> Roster {
    let mut roster = Roster::default();
    roster.on_hello(LinkId::Loopback, &hello_of("own", OWN, 1), at(0)).unwrap();
    roster.on_settled(&NodeId("own".into()));
    roster
}

fn at(ms: u64) -> Now {
    Now { mono: Mono(0).plus_ms(ms), ..Now::default() }
}

#[test]
fn a_node_has_the_store_when_its_heartbeats_have_said_so_for_a_while() {
    let other = NodeId("other".into());
    let server = Server("10.0.0.2:9991".into());
    let mut roster = roster();
    let link = LinkId::In(1);
    roster.on_hello(link, &hello_of("other", &server.0, 1), at(0)).unwrap();
    roster.on_settled(&other);
    // Sends equal heartbeats from `from` to `to`; answers the node that has the store after the last.
    let mut heartbeats = |from, to, store_ok| {
        for ms in (from..=to).step_by(100) {
            roster.on_heartbeat(&other, Heartbeat { store_ok, ..Heartbeat::default() }, at(ms));
        }
        roster.with_store(at(to))
    };
    let firm = STORE_FIRM_MS;
    assert_eq!(heartbeats(0, firm - 100, true), None);
    assert_eq!(heartbeats(firm, firm, true), Some(server.clone()));
    assert_eq!(heartbeats(firm + 100, firm + 100, false), None);
    assert_eq!(heartbeats(firm + 200, 2 * firm + 100, true), None, "counted anew");
    assert_eq!(heartbeats(2 * firm + 200, 2 * firm + 200, true), Some(server.clone()));
    let silent = 2 * firm + 200 + SUSPECT_MS;
    assert_eq!(heartbeats(silent, silent + firm - 100, true), None, "anew after a silence too");
    let last = silent + firm;
    assert_eq!(heartbeats(last, last, true), Some(server));
    assert_eq!(roster.with_store(at(last + SUSPECT_MS)), None, "its heartbeats have ended");
    roster.on_unlinked(link, at(last));
    assert_eq!(roster.with_store(at(last)), None);
}

#[test]
fn a_clock_that_is_off_is_warned_of_once_however_long_the_heartbeats_took() {
    let mut roster = roster();
    let node = NodeId("a".into());
    hello(&mut roster, 1, ("a", 2, 1), 0).unwrap();
    let mut warning = |clock_offset_ms| {
        // Its wall time is that of 1970: it was sent long ago.
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

/// The roster's answer to the Hello of a node's incarnation, over the link with that number.
fn hello(roster: &mut Roster, link: u64, (node_id, host, life): (&str, u8, u64), ms: u64) -> Result<(), String> {
    let hello = hello_of(node_id, &format!("10.0.0.{host}:9991"), life);
    roster.on_hello(LinkId::In(link), &hello, at(ms)).map(|_| ())
}

#[test]
fn a_restarted_node_replaces_its_former_incarnation() {
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
    assert!(hello(&mut roster, 3, ("a", 2, 4), SUSPECT_MS - 1).is_err(), "an older incarnation that is alive");
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
fn no_other_node_may_have_the_leaders_id_or_the_address_of_a_linked_node() {
    let mut roster = roster();
    assert!(hello(&mut roster, 1, ("own", 2, 1), 0).unwrap_err().contains(OWN));
    assert!(hello(&mut roster, 1, ("a", 1, 1), 0).unwrap_err().contains("bind_address"));
    hello(&mut roster, 1, ("a", 2, 1), 0).unwrap();
    assert!(hello(&mut roster, 2, ("b", 2, 1), 0).unwrap_err().contains("bind_address"));
}
