//! A healthy cluster: the nodes share the work, any of them takes changes, and any of them may be drained.

use crate::support::cluster::{Cluster, overlap_max_of_ended};
use crate::support::row::Row;
use crate::support::time::{check_gapless, now_ns, second};
use crate::support::{wait_to_see, wait_until};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

#[test]
fn runs_are_shared_evenly_and_the_log_tells_where_each_was() {
    let Some(cluster) = Cluster::started(3) else { return };
    let witness = cluster.witness("seen");
    let ids = cluster.add_several(9, &witness.write("x"));
    witness.wait_count("x", 100);
    cluster.stop_jobs(&ids);
    let leader = cluster.leader_server();
    let mut by_server: BTreeMap<String, usize> = BTreeMap::new();
    for id in &ids {
        for row in cluster.check(*id, &witness, "x") {
            assert_eq!(row["dispatch_server"], *leader);
            if row["state"] == "ok" {
                *by_server.entry(row.run_server().into()).or_default() += 1;
            }
        }
    }
    let total: usize = by_server.values().sum();
    assert_eq!(by_server.len(), 3);
    assert!(
        by_server.values().all(|count| (*count as f64 - total as f64 / 3.0).abs() <= total as f64 * 0.1),
        "{by_server:?}"
    );
}

#[test]
fn a_single_job_runs_on_one_node_after_the_other() {
    let Some(cluster) = Cluster::started(3) else { return };
    let witness = cluster.witness("seen");
    let id = cluster.add_every_second(&witness.write("x"), "");
    witness.wait_count("x", 9);
    cluster.stop_job(id);
    let mut by_server: BTreeMap<String, usize> = BTreeMap::new();
    for row in cluster.check(id, &witness, "x") {
        *by_server.entry(row.run_server().into()).or_default() += 1;
    }
    assert!(by_server.len() == 3 && by_server.values().all(|count| *count >= 2), "{by_server:?}");
}

#[test]
fn a_change_through_any_node_holds_in_the_whole_cluster() {
    let Some(cluster) = Cluster::started(3) else { return };
    let witness = cluster.witness("seen");
    for (at, node) in cluster.nodes.iter().enumerate() {
        let other = &cluster.nodes[(at + 1) % 3];
        let id = node.api.add_every_second(&witness.write("x"), "");
        let has = |id: u64| other.api.jobs().iter().any(|job| job["id"] == id);
        assert!(has(id), "the next node does not know the job at once");
        witness.wait_more("x", 3);
        other.api.stop_job(id);
        let stopped = witness.count("x");
        let clock = node.api.add_every_second(&cluster.witness("clock").write("x"), "");
        cluster.witness("clock").wait_more("x", 2);
        node.api.delete_job(clock);
        assert_eq!(witness.count("x"), stopped, "no run starts after stop was answered");
        node.api.delete_job(id);
        other.api.get(&format!("/cron/delete/{id}")).refused(404, "no such job");
    }
    cluster.nodes[1].api.post("/cron/add", "cronSet=99 * * * * *&command=x").refused(400, "second: 99");
    witness.attempts("x");
}

#[test]
fn every_node_lists_the_jobs_alike() {
    let Some(cluster) = Cluster::started(3) else { return };
    let ran = cluster.add_every_second("true", "remark=one");
    wait_to_see("a row of the job", || cluster.rows(ran), |rows| !rows.is_empty());
    cluster.stop_job(ran);
    for at in 1..6 {
        cluster.add_idle(&format!("echo {at}"), "jitter=3600&remark=many");
    }
    for query in ["", "?limit=3&page=2", "?search=many&limit=2", "?search=nobody"] {
        let lists = || -> Vec<Value> {
            cluster.nodes.iter().map(|node| node.api.get(&format!("/cron/list{query}")).ok()).collect()
        };
        wait_to_see("the same list from all nodes", lists, |lists| lists.iter().all(|list| *list == lists[0]));
    }
    let list = cluster.nodes[0].api.get("/cron/list").ok();
    assert!(list[0]["last_state"] == "ok" && list[0]["next_time"].is_null() && list[1]["next_time"].is_i64(), "{list}");
}

#[test]
fn every_node_shows_the_same_cluster() {
    let Some(cluster) = Cluster::started(3) else { return };
    let leader = cluster.leader_server();
    for node in &cluster.nodes {
        let view = node.api.get("/cluster").ok();
        assert_eq!(view["leader"], *leader);
        assert!(view["epoch"].as_u64() >= Some(1) && view["watermark"].as_i64().is_some());
        let nodes = view["nodes"].as_array().unwrap();
        assert_eq!(nodes.len(), 3);
        for shown in nodes {
            let role = if shown["server"] == *leader { "leader" } else { "follower" };
            assert_eq!((&shown["role"], &shown["state"]), (&json!(role), &json!("alive")), "{shown}");
            assert!(
                shown["capacity"].as_u64() == Some(11_024) && shown["running"] == 0 && shown["queued"] == 0,
                "{shown}"
            );
            assert!(shown["clock_offset_ms"].as_i64().unwrap().abs() < 1_000, "{shown}");
        }
    }
}

#[test]
fn a_drained_node_gets_no_run_any_more_and_finishes_its_own() {
    let Some(cluster) = Cluster::started(3) else { return };
    let leader = cluster.leader();
    let drained = cluster.nodes[(leader + 1) % 3].server.clone();
    let witness = cluster.witness("seen");
    let id = cluster.add_every_second(&witness.around("sleep 3"), "");
    witness.wait_count("begin", 6);
    cluster.nodes[0].api.post("/cluster/drain", "server=127.0.0.1:1").refused(404, "no such node");
    cluster.nodes[0].api.post("/cluster/drain", &format!("server={drained}")).ok();
    cluster.wait_state(&drained, "draining");
    let now = witness.last_second().unwrap();
    witness.wait_for_second(now + 6);
    cluster.stop_job(id);
    witness.wait_all_ended();
    let rows = cluster.check(id, &witness, "begin");
    let late = rows.iter().filter(|row| row.time() > now + 1 && row["run_server"] == *drained);
    assert_eq!(late.count(), 0);
    assert!(rows.iter().all(|row| row["state"] != "lost"), "{rows:?}");
}

#[test]
fn a_run_that_a_drained_node_was_about_to_start_is_started_by_another() {
    let Some(mut cluster) = Cluster::started(3) else { return };
    let witness = cluster.witness("seen");
    let word = |at: usize| format!("job{at}");
    let ids: Vec<u64> = (0..12).map(|at| cluster.add_every_second(&witness.write(&word(at)), "is_mutex=1")).collect();
    let go_on = |what: &str| {
        let before: Vec<usize> = (0..12).map(|at| witness.count(&word(at))).collect();
        wait_until(what, || (0..12).all(|at| before[at] + 4 <= witness.count(&word(at))));
    };
    go_on("they run");
    // A leader gives runs to nodes in the second half of the second before.
    let leader = cluster.leader();
    for (at, phase_ms) in [((leader + 1) % 3, 700), ((leader + 2) % 3, 900)] {
        wait_until("that moment of a second", || (phase_ms..phase_ms + 50).contains(&(now_ns() / 1_000_000 % 1_000)));
        let server = cluster.nodes[at].server.clone();
        cluster.nodes[leader].api.post("/cluster/drain", &format!("server={server}")).ok();
        go_on("they run without it");
    }
    cluster.nodes[leader].api.post("/cluster/drain", &format!("server={}", cluster.nodes[leader].server)).ok();
    let draining = cluster.states("draining");
    assert_eq!(draining.len(), 3, "a leader is drained as any other node: {draining:?}");
    for at in [(leader + 1) % 3, (leader + 2) % 3] {
        cluster.restart(at);
    }
    cluster.wait_alive(2);
    go_on("they run on those that are back");
    for (at, id) in ids.iter().enumerate() {
        cluster.stop_job(*id);
        let rows = cluster.check(*id, &witness, &word(at));
        assert!(rows.iter().all(|row| row["state"] == "ok"), "{rows:?}");
    }
}

#[test]
fn a_mutex_job_never_overlaps_itself_wherever_it_runs() {
    let Some(cluster) = Cluster::started(3) else { return };
    let witness = cluster.witness("seen");
    let id = cluster.add_every_second(&witness.around("sleep 1.3"), "is_mutex=1");
    witness.wait_count("end", 8);
    cluster.stop_job(id);
    witness.wait_all_ended();
    assert_eq!(overlap_max_of_ended(&witness), 1);
    let ok = || -> Vec<String> {
        let rows = cluster.rows(id);
        rows.iter().filter(|row| row["state"] == "ok").map(|row| row.run_server().to_string()).collect()
    };
    let servers = wait_to_see("the rows of eight runs", ok, |servers| servers.len() >= 8);
    let servers: BTreeSet<String> = servers.into_iter().collect();
    assert!(servers.len() >= 2, "{servers:?}");
}

#[test]
fn a_node_without_free_memory_gets_no_run_while_another_has_some() {
    let Some(mut cluster) = Cluster::started(2) else { return };
    let full = 1 - cluster.leader();
    cluster.nodes[full].stop();
    cluster.nodes[full].edit(|text| format!("{text}min_free_memory_mb = 1000000000\n"));
    cluster.nodes[full].start();
    cluster.wait_alive(2);
    let (server, other) = (cluster.nodes[full].server.clone(), cluster.nodes[1 - full].server.clone());
    let witness = cluster.witness("seen");
    let id = cluster.add_every_second(&witness.write("x"), "");
    cluster.wait_shown("the node without memory is throttled", |nodes| {
        nodes.iter().any(|node| node["server"] == server && node["throttled"] == true)
    });
    // The runs of the next tick may have been given to it already.
    let from = second() + 2;
    let later = || -> Vec<Row> { cluster.rows(id).into_iter().filter(|row| from <= row.time()).collect() };
    let rows = wait_to_see("the rows of five seconds", later, |rows| rows.len() >= 5);
    assert!(rows.iter().all(|row| row["state"] == "ok" && row["run_server"] == other), "{rows:?}");
    let mut seconds: Vec<i64> = rows.iter().map(|row| row.time()).collect();
    seconds.sort();
    check_gapless(&seconds);
}
