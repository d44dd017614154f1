//! Strangers that connect to the cluster with rubbish, silence or another secret, and nodes that may not join.

use crate::support::api::Reply;
use crate::support::cluster::Cluster;
use crate::support::daemon::Node;
use crate::support::network::network;
use crate::support::{cluster, consul, mariadb, wait_to_see, wait_until};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use wing_crontab::wire::frame::VERSION;
use wing_crontab::worker::process::CANNOT_START;

/// How long the other end takes to close the connection.
fn closes_after(stream: &mut TcpStream) -> Duration {
    let start = Instant::now();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut bytes = [0; 4_096];
    while let Ok(1..) = stream.read(&mut bytes) {}
    start.elapsed()
}

#[test]
fn strangers_are_cut_and_cost_the_cluster_nothing() {
    let Some(cluster) = Cluster::started(2) else { return };
    let witness = cluster.witness("seen");
    cluster.add_every_second(&witness.write("x"), "");
    let server = cluster.leader_server();
    for rubbish in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 64], &[255; 64], &[0, 0, 0, 2, 1, 2], b"\0\0\0\x22\x01\x01aaaa"]
    {
        let mut stream = TcpStream::connect(server).unwrap();
        stream.write_all(rubbish).unwrap();
        assert!(closes_after(&mut stream) < Duration::from_secs(50), "{rubbish:?}");
    }
    // Many strangers that say nothing at all.
    let mut silent: Vec<TcpStream> = (0..300).map(|_| TcpStream::connect(server).unwrap()).collect();
    witness.wait_more("x", 3);
    silent.iter_mut().for_each(|stream| assert!(closes_after(stream) < Duration::from_secs(50)));
    assert_eq!(cluster.states("alive").len(), 2);
}

#[test]
fn a_node_with_another_secret_does_not_join() {
    let Some(mut cluster) = Cluster::started(2) else { return };
    let follower = 1 - cluster.leader();
    assert!(cluster.nodes[follower].stop().success());
    cluster.nodes[follower].edit(|text| text.replace("of this test", "of another"));
    cluster.nodes[follower].start();
    cluster.nodes[1 - follower].wait_said("it has another cluster_secret");
    let clear = "this node cannot speak with the leader";
    cluster.nodes[follower].wait_said(clear);
    cluster.nodes[follower].api.get("/health").refused(503, clear);
    let view = cluster.nodes[1 - follower].api.get("/cluster").ok();
    let alive = view["nodes"].as_array().unwrap().iter().filter(|node| node["state"] == "alive");
    assert_eq!(alive.count(), 1);
    let reply = cluster.nodes[follower].api.post("/cron/add", "cronSet=* * * * * *&command=true");
    reply.refused(503, "nothing was changed");
}

/// A test that holds the lock of a cluster and writes its value, as a leader on another host does.
struct OtherLeader {
    agent: &'static consul::Agent,
    key: String,
    session: String,
    value: Value,
    ticks: u64,
    written_at: Instant,
}

impl OtherLeader {
    fn new(agent: &'static consul::Agent, key: &str, server: &str, node_id: &str) -> OtherLeader {
        let made = agent.put("/v1/session/create", r#"{"Checks": [], "LockDelay": "0s"}"#);
        let made: Value = serde_json::from_str(&made).unwrap();
        let session = made["ID"].as_str().unwrap().to_string();
        let value = json!({"epoch": 1, "tick": 0, "server": server, "node_id": node_id, "incarnation": 1});
        let mut leader = OtherLeader { agent, key: key.into(), session, value, ticks: 0, written_at: Instant::now() };
        leader.write();
        leader
    }

    fn write(&mut self) {
        self.ticks += 1;
        self.value["tick"] = self.ticks.into();
        self.written_at = Instant::now();
        let path = format!("/v1/kv/{}?acquire={}", self.key, self.session);
        assert_eq!(self.agent.put(&path, &self.value.to_string()).trim(), "true");
    }

    /// Leads until the condition holds.
    fn until(&mut self, what: &str, mut is_so: impl FnMut() -> bool) {
        wait_until(what, || {
            if self.written_at.elapsed() > Duration::from_millis(500) {
                self.write();
            }
            is_so()
        });
    }
}

/// A node with a cluster of its own, which is not started yet; with the agent and the name of the lock.
fn lone_node() -> Option<(Node, &'static consul::Agent, String)> {
    let (database, agent, names) = (mariadb::database()?, consul::agent()?, consul::Names::new());
    Some((Node::new(&cluster::toml(agent, &names, &database)), agent, names.lock))
}

/// Gives this id to a node that was not started yet, as a copied data_dir would.
fn set_node_id(node: &Node, id: &str) {
    std::fs::create_dir_all(node.path("data")).unwrap();
    std::fs::write(node.path("data/node_id"), id).unwrap();
}

#[track_caller]
fn is_refused(server: Option<&str>, node_id: &str, reason: &str) {
    let Some((mut node, agent, lock)) = lone_node() else { return };
    let own_id = "0123456789abcdef0123456789abcdef";
    set_node_id(&node, own_id);
    let server = server.map_or(node.server.clone(), String::from);
    let mut other = OtherLeader::new(agent, &lock, &server, node_id);
    node.launch();
    other.until("the node says why it ends", || node.said().contains(reason));
    assert_eq!(node.wait().code(), Some(CANNOT_START), "{}", node.said());
    assert_eq!(agent.lock(&lock).unwrap().0, Some(other.session), "the node has touched the leader's lock");
    assert!(!node.said().contains("registered with Consul"), "{}", node.said());
}

#[test]
fn a_node_ends_when_the_leader_has_its_address_or_its_id_or_is_out_of_its_reach() {
    is_refused(None, "an id of another", "another node leads as");
    is_refused(Some("127.0.0.1:1"), "0123456789abcdef0123456789abcdef", "was data_dir copied");
    is_refused(Some("10.255.255.1:1"), "an id of another", "is reached from this host only");
}

#[test]
fn a_node_with_a_copied_data_dir_is_refused_and_the_first_goes_on() {
    let Some(mut cluster) = Cluster::started(2) else { return };
    let leader = cluster.leader();
    let toml: String = std::fs::read_to_string(cluster.nodes[0].config()).unwrap();
    let shared = toml.lines().filter(|line| !line.contains("bind_address") && !line.contains("data_dir"));
    let shared = shared.collect::<Vec<_>>().join("\n");
    for of in [1 - leader, leader] {
        let mut copy = Node::new(&shared);
        set_node_id(&copy, &std::fs::read_to_string(cluster.nodes[of].path("data/node_id")).unwrap());
        copy.launch();
        if of == leader {
            copy.wait_said("has this node's id: was data_dir copied");
            assert_eq!(copy.wait().code(), Some(CANNOT_START), "{}", copy.said());
        } else {
            copy.wait_said("the leader rejects this node: a node with this node's id is here as");
            cluster.nodes[leader].wait_said("is rejected: a node with this node's id is here as");
            let said = copy.said().matches("the leader rejects this node").count();
            assert_eq!(said, 1, "once: {}", copy.said());
            assert!(copy.stop().success());
        }
        let both: BTreeSet<String> = cluster.nodes.iter().map(|node| node.server.clone()).collect();
        assert_eq!(cluster.states("alive"), both);
        assert_eq!(cluster.leader(), leader);
    }
    // A node that is restarted is not taken for a copy, however quickly it is back.
    cluster.nodes[1 - leader].kill_daemon();
    cluster.nodes[1 - leader].wait_said_times("following", 2);
    assert!(!cluster.nodes[1 - leader].said().contains("the leader rejects this node"));
    assert!(cluster.nodes[1 - leader].stop().success());
}

#[test]
fn a_stranger_that_sends_slowly_is_cut_in_time() {
    let Some(cluster) = Cluster::started(1) else { return };
    let mut stream = TcpStream::connect(&cluster.nodes[0].server).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let (start, mut sent, mut heard) = (Instant::now(), 0, 0);
    // A first message of 17 s at this pace.
    let bytes = [&[0, 0, 0, 50, VERSION, 0][..], &[7; 48]].concat();
    loop {
        match stream.read(&mut [0; 256]) {
            Ok(0) => break,
            Ok(count) => heard += count,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
        if stream.write_all(&bytes[sent..sent + 1]).is_err() {
            break;
        }
        sent += 1;
    }
    assert!(start.elapsed() < Duration::from_secs(15) && sent < bytes.len(), "{sent} bytes");
    assert_eq!(heard, 0, "a stranger hears nothing");
    assert_eq!(cluster.states("alive").len(), 1);
}

#[track_caller]
fn wait_knows_a_leader(node: &Node) {
    let knows_one = |reply: &Option<Reply>| reply.as_ref().is_some_and(|reply| reply.status == 200);
    wait_to_see(&format!("{} knows a leader", node.server), || node.api.try_get("/cluster"), knows_one);
}

#[test]
fn either_end_names_another_version_of_the_protocol() {
    let former = VERSION - 1;
    let challenge = [&[0, 0, 0, 34, former, 0][..], &[7; 32]].concat();
    let clear = &format!("it speaks version {former} of the protocol (or is no node), this node version {VERSION}");
    let Some((mut node, agent, lock)) = lone_node() else { return };
    // The other end connects to the node.
    node.start();
    wait_knows_a_leader(&node);
    let mut stream = TcpStream::connect(&node.server).unwrap();
    stream.write_all(&challenge).unwrap();
    node.wait_said(clear);
    let mut heard = [0; 6];
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(heard, [0, 0, 0, 2, VERSION, 1], "the other end does not learn this node's version");
    assert!(node.stop().success());
    // The node connects to the other end.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut leader = OtherLeader::new(agent, &lock, &listener.local_addr().unwrap().to_string(), "another");
    std::fs::remove_file(node.path("stderr")).unwrap();
    node.start();
    let mut links = Vec::new();
    leader.until("the node names the version", || {
        if let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.write_all(&challenge);
            links.push(stream);
        }
        node.said().contains(clear)
    });
}

#[test]
fn with_the_older_systems_app_toml_one_host_works_and_says_that_more_need_a_secret() {
    let Some(network) = network(2) else { return };
    let (server, agent) = (mariadb::server_at(&network.gateway()), consul::agent_at(&network.gateway()));
    let (Some(server), Some(agent)) = (server, agent) else { return };
    let toml = format!("consul_address = \"{}\"\n{}", agent.address(), server.database_for_hosts().toml());
    let [mut first, mut second] =
        [0, 1].map(|host| Node::in_namespace(&network.namespace(host), &network.address(host), &toml));
    first.start();
    wait_knows_a_leader(&first);
    let witness = first.witness("seen");
    first.api.add_every_second(&witness.write("x"), "");
    witness.wait_count("x", 2);
    second.start();
    for node in [&first, &second] {
        node.wait_said("cluster_secret: it is not set, so this node connects to no node");
        let said = node.said().matches("cluster_secret: it is not set").count();
        assert_eq!(said, 1, "the daemon says it, and its guardian does not: {}", node.said());
    }
    let clear = format!("this node cannot speak with the leader, {}: without cluster_secret", first.server);
    second.wait_said(&clear);
    second.api.get("/health").refused(503, &clear);
    second.api.post("/cron/add", "cronSet=* * * * * *&command=true").refused(503, &first.server);
}
