//! `/health` in a cluster: each node says whether the cluster does its work.

use crate::support::cluster::Cluster;
use crate::support::daemon::Node;
use crate::support::time::pass;
use crate::support::{mariadb, wait_to_see};
use serde_json::Value;
use std::time::Duration;

#[test]
fn every_node_tells_that_the_journal_may_not_be_written_and_the_leader_stays() {
    let Some(database) = mariadb::database() else { return };
    assert!(Node::started(&database.toml()).stop().success(), "the tables are made");
    // The daemon that made the tables left its name in them.
    database.run(&["DELETE FROM scheduler"]);
    let database = database.limited();
    let Some(cluster) = Cluster::on(&database, 3) else { return };
    cluster.wait_health(200);
    let leader = cluster.leader_server().to_string();
    database.forbid("INSERT", "journal");
    cluster.wait_health(503);
    let all_have_store = |nodes: &[Value], store_ok: bool| nodes.iter().all(|node| node["store_ok"] == store_ok);
    cluster.wait_shown("no node has its store", |nodes| !nodes.is_empty() && all_have_store(nodes, false));
    for _ in 0..12 {
        pass(1);
        let view = cluster.view().unwrap();
        assert!(all_have_store(view["nodes"].as_array().unwrap(), false) && view["leader"] == leader, "{view}");
        for node in &cluster.nodes {
            let reply = node.api.get("/health");
            assert_eq!(reply.status, 503, "{}", reply.body);
            assert!(reply.message().contains("INSERT command denied"), "{}", reply.body);
            assert!(reply.body["data"]["journal_age_ms"].as_u64().unwrap() >= 1_000, "{}", reply.body);
        }
    }
    database.allow("INSERT", "journal");
    cluster.wait_health(200);
    cluster.wait_shown("every node has its store", |nodes| !nodes.is_empty() && all_have_store(nodes, true));
}

#[test]
fn a_cluster_that_is_paused_is_well_and_keeps_its_leader() {
    let Some(cluster) = Cluster::started(3) else { return };
    cluster.wait_health(200);
    cluster.nodes[0].api.post("/cluster/pause", "").ok();
    for node in &cluster.nodes {
        let health = || node.api.get("/health").ok();
        wait_to_see(&format!("{} knows of the pause", node.server), health, |health| health["paused"] == true);
    }
    let before = cluster.view().unwrap();
    // Time itself is the thing tested: nothing may change for much longer than a leader may stand still.
    for _ in 0..150 {
        std::thread::sleep(Duration::from_millis(100));
        for node in &cluster.nodes {
            let health = node.api.get("/health").ok();
            assert_eq!((&health["leader"], &health["paused"]), (&before["leader"], &true.into()), "{health}");
        }
    }
    let after = cluster.view().unwrap();
    assert_eq!((&after["leader"], &after["epoch"]), (&before["leader"], &before["epoch"]));
}
