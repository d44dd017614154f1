//! Hosts that lose the database and nothing else: who has it leads.

use crate::hosts::{Hosts, pass};
use crate::support::daemon::Node;
use crate::support::network::Network;
use crate::support::wait_until;
use wing_crontab::worker::clock;

/// The jobs are stopped, and everything that was due has run.
fn finish(hosts: &Hosts) {
    hosts.ids.iter().chain([&hosts.mutex_id]).for_each(|id| hosts.cluster.stop_job(*id));
    let ended = hosts.mutex.attempts("end").into_iter().collect();
    assert_eq!(crate::overlap_max(&hosts.mutex, &ended), 1);
    let plain = hosts.ids.iter().flat_map(|id| hosts.cluster.check(*id, &hosts.plain, "x"));
    let rows: Vec<serde_json::Value> =
        plain.chain(hosts.cluster.check(hosts.mutex_id, &hosts.mutex, "begin")).collect();
    let not_run = rows.iter().filter(|row| row["state"] != "ok" && row["state"] != "cancelled");
    assert_eq!(not_run.collect::<Vec<_>>(), Vec::<&serde_json::Value>::new());
}

#[test]
fn a_leader_that_alone_has_lost_the_store_lets_another_lead_and_stays_away_from_it() {
    let Some(hosts) = Hosts::with_database_at(Network::other_gateway, "") else { return };
    let database = hosts.network.other_gateway();
    for how in ["blackhole", "unreachable"] {
        let leader = hosts.leader();
        let node = &hosts.cluster.nodes[leader];
        let start = clock::mono();
        hosts.network.block(leader, &database, how);
        wait_until("another leads", || hosts.leader() != leader);
        eprintln!("{how}: another leads after {} ms", clock::mono().since(start).as_millis());
        let seen = hosts.plain.count("x");
        // Longer than it abstains.
        pass(14);
        assert_ne!(hosts.leader(), leader, "without the store it does not come back");
        assert!(seen + 9 <= hosts.plain.count("x"), "runs go on");
        wait_until("it is seen to be without the store", || {
            let nodes = hosts.cluster.view().unwrap_or_default();
            nodes["nodes"].as_array().is_some_and(|nodes| {
                nodes.iter().all(|shown| shown["store_ok"] == (shown["server"] != node.server.as_str()))
            })
        });
        hosts.network.unblock(leader, &database);
        hosts.wait_well();
    }
    // Where it is slow to say so the others see its lock value stand still.
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
