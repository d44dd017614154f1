//! A healthy cluster: work is shared, any node will do, a node may be drained.

use crate::Cluster;
use crate::support::{wait_for, wait_until};
use serde_json::json;
use std::collections::BTreeMap;

#[test]
fn runs_are_shared_evenly_and_the_log_tells_who_ran_what() {
    let Some(cluster) = Cluster::started(3) else { return };
    let witness = cluster.witness("seen");
    let ids: Vec<u64> = (0..9).map(|_| cluster.add("* * * * * *", &witness.write("x"), "")).collect();
    wait_until("a hundred runs", || witness.count("x") >= 100);
    ids.iter().for_each(|id| cluster.stop_job(*id));
    let leader = &cluster.nodes[cluster.leader()].server;
    let mut by_server: BTreeMap<String, usize> = BTreeMap::new();
    for id in &ids {
        for row in cluster.check(*id, &witness, "x") {
            assert_eq!(row["dispatch_server"], *leader);
            if row["state"] == "ok" {
                *by_server.entry(row["run_server"].as_str().unwrap().into()).or_default() += 1;
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
fn a_single_job_takes_turns_among_the_nodes() {
    let Some(cluster) = Cluster::started(3) else { return };
    let witness = cluster.witness("seen");
    let id = cluster.add("* * * * * *", &witness.write("x"), "");
    wait_until("nine runs", || witness.count("x") >= 9);
    cluster.stop_job(id);
    let mut by_server: BTreeMap<String, usize> = BTreeMap::new();
    for row in cluster.check(id, &witness, "x") {
        *by_server.entry(row["run_server"].as_str().unwrap().into()).or_default() += 1;
    }
    assert!(by_server.len() == 3 && by_server.values().all(|count| *count >= 2), "{by_server:?}");
}

#[test]
fn a_change_through_any_node_holds_in_the_whole_cluster() {
    let Some(cluster) = Cluster::started(3) else { return };
    let witness = cluster.witness("seen");
    for (at, node) in cluster.nodes.iter().enumerate() {
        let other = &cluster.nodes[(at + 1) % 3];
        let id = node.api.add("* * * * * *", &witness.write("x"), "");
        let has = |id: u64| other.api.get("/cron/list").ok().as_array().unwrap().iter().any(|job| job["id"] == id);
        assert!(has(id), "the next node knows it at once");
        let before = witness.count("x");
        wait_until("it runs", || before + 3 <= witness.count("x"));
        other.api.get(&format!("/cron/stop/{id}")).ok();
        let stopped = witness.count("x");
        let clock = node.api.add("* * * * * *", &cluster.witness("clock").write("x"), "");
        let ticks = cluster.witness("clock").count("x");
        wait_until("some seconds pass", || ticks + 2 <= cluster.witness("clock").count("x"));
        node.api.get(&format!("/cron/delete/{clock}")).ok();
        assert_eq!(witness.count("x"), stopped, "no run starts after stop was answered");
        node.api.get(&format!("/cron/delete/{id}")).ok();
        other.api.get(&format!("/cron/delete/{id}")).refused(404, "no such job");
    }
    cluster.nodes[1].api.post("/cron/add", "cronSet=99 * * * * *&command=x").refused(400, "second: 99");
    witness.attempts("x");
}

#[test]
fn every_node_lists_the_jobs_alike() {
    let Some(cluster) = Cluster::started(3) else { return };
    let ran = cluster.add("* * * * * *", "true", "remark=one");
    wait_until("it ran", || !cluster.rows(ran).is_empty());
    cluster.stop_job(ran);
    for at in 1..6 {
        cluster.add("0 0 0 1 1 *", &format!("echo {at}"), "jitter=3600&remark=many");
    }
    for query in ["", "?limit=3&page=2", "?search=many&limit=2", "?search=nobody"] {
        wait_until("all say the same", || {
            let lists = cluster.nodes.iter().map(|node| node.api.get(&format!("/cron/list{query}")).ok());
            let lists: Vec<serde_json::Value> = lists.collect();
            lists.iter().all(|list| *list == lists[0])
        });
    }
    let list = cluster.nodes[0].api.get("/cron/list").ok();
    assert!(list[0]["last_state"] == "ok" && list[0]["next_time"].is_null() && list[1]["next_time"].is_i64(), "{list}");
}

#[test]
fn the_view_is_the_same_from_everywhere() {
    let Some(cluster) = Cluster::started(3) else { return };
    let leader = &cluster.nodes[cluster.leader()].server;
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
fn a_drained_node_gets_nothing_new_and_finishes_what_runs() {
    let Some(cluster) = Cluster::started(3) else { return };
    let leader = cluster.leader();
    let drained = cluster.nodes[(leader + 1) % 3].server.clone();
    let witness = cluster.witness("seen");
    let id = cluster.add("* * * * * *", &witness.around("sleep 3"), "");
    wait_until("they run", || witness.count("begin") >= 6);
    cluster.nodes[0].api.post("/cluster/drain", "server=127.0.0.1:1").refused(404, "no such node");
    cluster.nodes[0].api.post("/cluster/drain", &format!("server={drained}")).ok();
    wait_until("it drains", || cluster.states("draining").is_some_and(|states| states.contains(&drained)));
    let now = witness.read().iter().map(|seen| seen.scheduled_at).max().unwrap();
    wait_until("more runs", || witness.read().iter().any(|seen| seen.scheduled_at >= now + 6));
    cluster.stop_job(id);
    wait_until("all are over", || witness.count("begin") == witness.count("end"));
    let rows = cluster.check(id, &witness, "begin");
    let late = rows.iter().filter(|row| row["time"].as_i64().unwrap() > now + 1 && row["run_server"] == *drained);
    assert_eq!(late.count(), 0);
    assert!(rows.iter().all(|row| row["state"] != "lost"), "{rows:?}");
}

#[test]
fn what_a_node_that_is_drained_was_about_to_start_is_started_by_another() {
    let Some(mut cluster) = Cluster::started(3) else { return };
    let witness = cluster.witness("seen");
    let word = |at: usize| format!("job{at}");
    let ids: Vec<u64> = (0..12).map(|at| cluster.add("* * * * * *", &witness.write(&word(at)), "is_mutex=1")).collect();
    let go_on = |what: &str| {
        let before: Vec<usize> = (0..12).map(|at| witness.count(&word(at))).collect();
        wait_until(what, || (0..12).all(|at| before[at] + 4 <= witness.count(&word(at))));
    };
    go_on("they run");
    // Runs are given out in the second half of the second before theirs.
    let leader = cluster.leader();
    for (at, phase_ms) in [((leader + 1) % 3, 700), ((leader + 2) % 3, 900)] {
        wait_until("its moment", || {
            let ms = wing_crontab::worker::clock::now().wall.ms() % 1_000;
            (phase_ms..phase_ms + 50).contains(&ms)
        });
        let server = cluster.nodes[at].server.clone();
        cluster.nodes[leader].api.post("/cluster/drain", &format!("server={server}")).ok();
        go_on("they run without it");
    }
    cluster.nodes[leader].api.post("/cluster/drain", &format!("server={}", cluster.nodes[leader].server)).ok();
    let draining = cluster.states("draining");
    assert_eq!(draining.map(|states| states.len()), Some(3), "a leader is drained like any other");
    for at in [(leader + 1) % 3, (leader + 2) % 3] {
        assert!(cluster.nodes[at].stop().success());
        cluster.nodes[at].start();
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
    let id = cluster.add("* * * * * *", &witness.around("sleep 1.3"), "is_mutex=1");
    wait_until("eight runs are over", || witness.count("end") >= 8);
    cluster.stop_job(id);
    wait_until("all are over", || witness.count("begin") == witness.count("end"));
    let ended = witness.attempts("end").into_iter().collect();
    assert_eq!(crate::overlap_max(&witness, &ended), 1);
    let servers: std::collections::BTreeSet<String> = wait_for("the rows", || {
        let rows = cluster.rows(id);
        let ok = rows.iter().filter(|row| row["state"] == "ok");
        let servers: Vec<String> = ok.map(|row| row["run_server"].as_str().unwrap().into()).collect();
        (servers.len() >= 8).then_some(servers)
    })
    .into_iter()
    .collect();
    assert!(servers.len() >= 2, "{servers:?}");
}

#[test]
fn a_node_without_room_for_processes_is_spared_while_another_has_some() {
    let Some(mut cluster) = Cluster::started(2) else { return };
    let full = 1 - cluster.leader();
    cluster.nodes[full].stop();
    cluster.nodes[full].edit(|text| format!("{text}min_free_memory_mb = 1000000000\n"));
    cluster.nodes[full].start();
    cluster.wait_alive(2);
    let (server, other) = (cluster.nodes[full].server.clone(), cluster.nodes[1 - full].server.clone());
    let witness = cluster.witness("seen");
    let id = cluster.add("* * * * * *", &witness.write("x"), "");
    wait_until("it is shown as throttled", || {
        let view = cluster.view().unwrap_or_default();
        let mut nodes = view["nodes"].as_array().cloned().unwrap_or_default().into_iter();
        nodes.any(|node| node["server"] == server && node["throttled"] == true)
    });
    // The next tick may have been given away already.
    let from = wing_crontab::worker::clock::now().wall.second().0 + 2;
    let rows = wait_for("five seconds, each run by the other node", || {
        let rows: Vec<_> = cluster.rows(id).into_iter().filter(|row| row["time"].as_i64() >= Some(from)).collect();
        (rows.len() >= 5).then_some(rows)
    });
    assert!(rows.iter().all(|row| row["state"] == "ok" && row["run_server"] == other), "{rows:?}");
    let mut seconds: Vec<i64> = rows.iter().map(|row| row["time"].as_i64().unwrap()).collect();
    seconds.sort();
    assert!(seconds.windows(2).all(|pair| pair[1] == pair[0] + 1), "{seconds:?}");
}
