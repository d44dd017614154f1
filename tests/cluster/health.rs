//! Whether the work of the cluster is done, as each of its nodes tells it.

use crate::Cluster;
use crate::hosts::pass;
use crate::support::daemon::Node;
use crate::support::{mariadb, wait_until};
use serde_json::Value;
use std::time::Duration;

/// Waits until every node's `/health` answers so.
#[track_caller]
fn wait_all(cluster: &Cluster, status: u16) {
    wait_until(&format!("every node answers {status}"), || {
        cluster.nodes.iter().all(|node| node.api.get("/health").status == status)
    });
}

#[test]
fn every_node_tells_that_the_journal_may_not_be_written_and_the_lead_does_not_go_round() {
    let Some(database) = mariadb::database() else { return };
    assert!(Node::started(&database.toml()).stop().success(), "the tables are there");
    // They are no cluster's yet.
    database.run(&["DELETE FROM scheduler"]);
    let database = database.limited();
    let Some(cluster) = Cluster::on(&database, 3) else { return };
    wait_all(&cluster, 200);
    let leader = cluster.nodes[cluster.leader()].server.clone();
    database.forbid("INSERT", "journal");
    wait_all(&cluster, 503);
    let is_unwritable = |view: &Value| view["nodes"].as_array().unwrap().iter().all(|node| node["store_ok"] == false);
    wait_until("no node has its store", || cluster.view().is_some_and(|view| is_unwritable(&view)));
    for _ in 0..12 {
        pass(1);
        let view = cluster.view().unwrap();
        assert!(is_unwritable(&view) && view["leader"] == leader.as_str(), "{view}");
        for node in &cluster.nodes {
            let reply = node.api.get("/health");
            assert_eq!(reply.status, 503, "{}", reply.body);
            assert!(reply.body["message"].as_str().unwrap().contains("INSERT command denied"), "{}", reply.body);
            assert!(reply.body["data"]["journal_age_ms"].as_u64().unwrap() >= 1_000, "{}", reply.body);
        }
    }
    database.allow("INSERT", "journal");
    wait_all(&cluster, 200);
    wait_until("every node has its store", || {
        let view = cluster.view().unwrap_or_default();
        view["nodes"].as_array().is_some_and(|nodes| nodes.iter().all(|node| node["store_ok"] == true))
    });
}

#[test]
fn a_cluster_that_is_paused_is_well_and_keeps_its_leader() {
    let Some(cluster) = Cluster::started(3) else { return };
    wait_all(&cluster, 200);
    cluster.nodes[0].api.post("/cluster/pause", "").ok();
    wait_until("every node knows it", || {
        cluster.nodes.iter().all(|node| node.api.get("/health").ok()["paused"] == true)
    });
    let before = cluster.view().unwrap();
    // Much longer than a leader may stand still.
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
