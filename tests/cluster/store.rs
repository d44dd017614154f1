//! Hosts that lose the database and nothing else: a node that still reaches it leads.

use crate::hosts::Hosts;
use crate::support::cluster::overlap_max_of_ended;
use crate::support::daemon::Node;
use crate::support::network::Network;
use crate::support::time::pass;
use serde_json::Value;
use std::time::Instant;

/// Stops the jobs and checks that every due run was made.
fn finish(hosts: &Hosts) {
    hosts.cluster.stop_jobs(&hosts.ids);
    hosts.cluster.stop_job(hosts.mutex_id);
    assert_eq!(overlap_max_of_ended(&hosts.mutex), 1);
    hosts.ids.iter().for_each(|id| hosts.cluster.check_all_ran(*id, &hosts.plain, "x"));
    hosts.cluster.check_all_ran(hosts.mutex_id, &hosts.mutex, "begin");
}

#[test]
fn a_leader_that_alone_has_lost_the_store_lets_another_lead_and_stays_away_from_it() {
    let Some(hosts) = Hosts::with_database_at(Network::other_gateway, "") else { return };
    let database = hosts.network.other_gateway();
    for how in ["blackhole", "unreachable"] {
        let leader = hosts.leader();
        let node = &hosts.cluster.nodes[leader];
        let start = Instant::now();
        hosts.network.block(leader, &database, how);
        hosts.cluster.wait_for_other_leader(leader);
        eprintln!("{how}: another leads after {} ms", start.elapsed().as_millis());
        let seen = hosts.plain.count("x");
        // After 14 s the node may stand for election again.
        pass(14);
        assert_ne!(hosts.leader(), leader, "a node without the store leads again");
        assert!(seen + 9 <= hosts.plain.count("x"), "the runs do not go on");
        hosts.cluster.wait_shown("this node alone is without the store", |nodes| {
            let is_right = |shown: &Value| shown["store_ok"] == (shown["server"] != node.server.as_str());
            !nodes.is_empty() && nodes.iter().all(is_right)
        });
        hosts.network.unblock(leader, &database);
        hosts.wait_well();
    }
    // Where the leader hands over too slowly, another node notices that its lock value does not change.
    assert!(hosts.cluster.nodes.iter().any(|node| node.said().contains("the lead is handed over")));
    finish(&hosts);
}

#[test]
fn a_leader_that_has_lost_the_store_with_all_others_goes_on_leading() {
    let Some(hosts) = Hosts::with_database_at(Network::other_gateway, "") else { return };
    let database = hosts.network.other_gateway();
    for how in ["blackhole", "unreachable"] {
        let (leader, said) = (hosts.leader(), hosts.cluster.nodes.iter().map(Node::said));
        let before: Vec<usize> = said.map(|said| said.len()).collect();
        let blocks = [0, 1, 2].map(|host| (host, database.clone()));
        hosts.block_for(&blocks, how, 8);
        hosts.wait_well();
        assert_eq!(hosts.leader(), leader);
        for (node, before) in hosts.cluster.nodes.iter().zip(before) {
            let said = node.said()[before..].to_string();
            assert!(!said.contains("handed over") && !said.contains("leading"), "{how}: {said}");
        }
    }
    finish(&hosts);
}
