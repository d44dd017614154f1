//! Strangers in great numbers at a node's port: they cost some memory and some log lines, and no second.

use crate::support::cluster::Cluster;
use crate::support::daemon::Node;
use crate::support::process::{peak_kb, resident_kb};
use std::collections::VecDeque;
use std::io::Write;
use std::net::TcpStream;
use wing_crontab::wire::frame::VERSION;

const STRANGERS: usize = 10_000;
/// How many of them the test keeps open: more than the node does.
const KEPT_OPEN: usize = 600;
const MEMORY_KB_MAX: u64 = 16 << 10;

/// Connects many strangers one after the other: garbage, silence, other versions, messages that are never whole.
fn flood(server: &str) {
    let whole = [&[0, 0, 0, 50, VERSION, 0][..], &[7; 48]].concat();
    let says = [&b"GET / HTTP/1.1\r\n\r\n"[..], &[], &[255; 600], &[0, 0, 0, 2, VERSION - 1, 0], &whole[..9], &whole];
    let mut open = VecDeque::new();
    for number in 0..STRANGERS {
        let mut stream = TcpStream::connect(server).expect("the listener takes connections");
        // The node may have cut it already.
        let _ = stream.write_all(says[number % says.len()]);
        open.push_back(stream);
        if KEPT_OPEN < open.len() {
            open.pop_front();
        }
    }
}

#[test]
fn ten_thousand_strangers_cost_bounded_memory_and_no_second() {
    let Some(cluster) = Cluster::started(2) else { return };
    let witness = cluster.witness("seen");
    let id = cluster.add_every_second(&witness.write("x"), "");
    witness.wait_more("x", 3);
    let leader = &cluster.nodes[cluster.leader()];
    let (daemon, server) = (leader.daemon_pid(), leader.server.clone());
    let before_kb = resident_kb(daemon);
    let flood = std::thread::spawn(move || flood(&server));
    // A node comes in between all of them.
    let toml = std::fs::read_to_string(leader.config()).unwrap();
    let own = |line: &&str| !line.contains("bind_address") && !line.contains("data_dir");
    let mut third = Node::new(&toml.lines().filter(own).collect::<Vec<_>>().join("\n"));
    third.start();
    third.wait_said("following");
    flood.join().unwrap();
    witness.wait_more("x", 3);
    cluster.check_all_ran(id, &witness, "x");
    assert_eq!(cluster.states("alive").len(), 3);
    println!("{} kB before, at most {} kB after", before_kb, peak_kb(daemon));
    let more_kb = peak_kb(daemon).saturating_sub(before_kb);
    assert!(more_kb < MEMORY_KB_MAX, "{more_kb} kB for {STRANGERS} strangers");
    leader.wait_said("more connections were cut; the last");
    let lines = leader.said().matches(" cut").count();
    assert!(lines < 30, "{lines} lines");
}
