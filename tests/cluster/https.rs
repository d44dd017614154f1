//! A node that speaks https among others that do not: what nodes say to each other and to Consul does not change.

use crate::support::certificates::ECDSA;
use crate::support::cluster::{Cluster, toml};
use crate::support::consul::{Names, agent};
use crate::support::daemon::Node;
use crate::support::https::Https;
use crate::support::{mariadb, wait_to_see};
use rustix::process::Signal;

#[test]
fn a_node_that_speaks_https_hands_calls_on_and_takes_the_lead() {
    let (Some(database), Some(agent)) = (mariadb::database(), agent()) else { return };
    let names = Names::new();
    let lines = toml(agent, &names, &database);
    let mut cluster = Cluster::of(vec![Node::new(&lines)]);
    let witness = cluster.witness("seen");
    let Some(https) = Https::with(ECDSA, &lines) else { return };
    let leader = cluster.nodes[0].server.clone();
    cluster.wait_alive(2);
    assert_eq!(https.get("/cluster").ok()["leader"], leader, "the one that speaks https follows");
    https.add_every_second(&witness.write("x"));
    witness.wait_count("x", 2);
    // The check is one that the node itself passes: Consul asks nobody by http.
    let checks: serde_json::Value =
        serde_json::from_str(&agent.get(&format!("/v1/health/checks/{}", names.service)).unwrap()).unwrap();
    let of_node: Vec<(&str, &str)> = checks
        .as_array()
        .unwrap()
        .iter()
        .map(|check| (check["Status"].as_str().unwrap(), check["Type"].as_str().unwrap()))
        .collect();
    assert_eq!(of_node, [("passing", "ttl"); 2], "{checks}");
    cluster.nodes[0].signal(Signal::TERM);
    cluster.nodes[0].wait();
    let leads = || https.get("/cluster").body["data"]["leader"].clone();
    wait_to_see("the other one leads", leads, |leader| *leader == https.node.server.as_str());
    witness.wait_more("x", 2);
    https.get("/health").ok();
}
