//! A flood: 50,000 runs due in one second. Most of them cannot be taken, and each is accounted for all the same.

use crate::support::daemon::{Node, counters};
use crate::support::{flood, free_port, wait_for, wait_until};
use std::collections::BTreeMap;

#[test]
fn each_of_50_000_runs_of_one_second_is_accounted_for() {
    let debug = format!("127.0.0.1:{}", free_port());
    let mut node = Node::new(&format!("max_running = 20\nmax_pending = 500\npprof_listen = \"{debug}\"\n"));
    let at = flood::prepare(&mut node, flood::RUNS, "true", 10);
    node.start();
    wait_until("the second comes", || at < wing_crontab::worker::clock::now().wall.second().0);
    wait_until("every run has its row", || {
        node.api.get("/log/list?limit=1").ok()["total"].as_u64() >= Some(flood::RUNS as u64)
    });
    let rows: Vec<serde_json::Value> = (1..=5)
        .flat_map(|page| {
            let page = wait_for("a page", || node.api.try_get(&format!("/log/list?limit=10000&page={page}")));
            page.body["data"]["list"].as_array().unwrap().clone()
        })
        .collect();
    let mut states: BTreeMap<String, u64> = BTreeMap::new();
    let mut jobs = std::collections::BTreeSet::new();
    for row in &rows {
        assert_eq!(row["time"], at, "{row}");
        assert!(jobs.insert(row["cron_id"].as_u64().unwrap()), "it has two rows: {row}");
        *states.entry(row["state"].as_str().unwrap().into()).or_default() += 1;
    }
    assert_eq!(jobs.len(), flood::RUNS);
    let counters = counters(&debug);
    for (state, count) in &states {
        assert_eq!(counters[&format!("runs_{state}")], *count, "{state}: {counters:?}");
    }
    assert_eq!(counters["runs_started"], states["ok"], "{counters:?}");
    assert!(states["ok"] >= 300 && states["shed"] >= flood::RUNS as u64 - 1_500, "{states:?}");
}
