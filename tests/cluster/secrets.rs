//! Nodes with another secret than the leader's, and nodes that are given none.

use crate::support::cluster::{self, Cluster, SECRET};
use crate::support::daemon::Node;
use crate::support::{consul, mariadb};
use std::io::{Read, Write};
use std::net::TcpStream;
use wing_crontab::model::config::Secret;
use wing_crontab::wire::handshake::{Handshake, Key, rejection};

/// A node of the cluster of this one, with what is edited in its app.toml.
fn node_beside(node: &Node, edit: impl FnOnce(String) -> String) -> Node {
    let toml = std::fs::read_to_string(node.config()).unwrap();
    let own = |line: &&str| !line.contains("bind_address") && !line.contains("data_dir");
    Node::new(&edit(toml.lines().filter(own).collect::<Vec<_>>().join("\n")))
}

#[test]
fn a_node_with_another_secret_takes_the_lead_only_where_nobody_else_does() {
    let Some(mut cluster) = Cluster::started(2) else { return };
    let mut leader = cluster.leader();
    let mut other = node_beside(&cluster.nodes[leader], |toml| toml.replace("of this test", "of another"));
    other.launch();
    other.wait_said("this node cannot speak with the leader");
    // The lead changes hands again and again: whoever is quicker would have it.
    for is_death in [false, false, false, false, true] {
        match is_death {
            false => assert!(cluster.nodes[leader].stop().success()),
            true => cluster.nodes[leader].kill_whole(),
        }
        assert_eq!(cluster.wait_for_other_leader(leader), 1 - leader);
        cluster.nodes[leader].start();
        cluster.wait_alive(2);
        leader = 1 - leader;
    }
    assert!(!other.said().contains("leading: epoch"), "{}", other.said());
    let said = other.said().matches("this node cannot speak with the leader").count();
    assert!((2..=6).contains(&said), "once for each leader: {}", other.said());
    // Where nobody is left that it could keep from the lead, it goes on.
    cluster.nodes.iter_mut().for_each(|node| assert!(node.stop().success()));
    other.wait_said("leading: epoch");
    other.wait_health(200);
    assert!(other.stop().success());
}

#[test]
fn nodes_of_one_host_that_are_given_no_secret_share_one_that_strangers_do_not_have() {
    let Some(database) = mariadb::database() else { return };
    let Some(agent) = consul::agent() else { return };
    let toml = cluster::toml(agent, &consul::Names::new(), &database).replace(SECRET, "");
    let mut nodes: Vec<Node> = (0..3).map(|_| Node::new(&toml)).collect();
    // All of them find a new database.
    nodes.iter_mut().for_each(Node::launch);
    nodes.iter_mut().for_each(Node::wait_up);
    let cluster = Cluster { nodes, folder: tempfile::tempdir().unwrap() };
    cluster.wait_alive(3);
    let mut stream = TcpStream::connect(cluster.leader_server()).unwrap();
    let (_, first) = Handshake::dial(&Key::of(&Secret::default())).unwrap();
    stream.write_all(&first).unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, rejection(), "a stranger without a secret is no node");
}
