//! A flood: 50,000 runs due in one second. The daemon cannot start most of them, and yet each has its row.

use crate::support::daemon::{Node, counters};
use crate::support::time::pass_until;
use crate::support::{flood, free_port, wait_to_see};
use std::collections::{BTreeMap, BTreeSet};

#[test]
fn each_of_50_000_runs_of_one_second_is_accounted_for() {
    let debug = format!("127.0.0.1:{}", free_port());
    let mut node = Node::new(&format!("max_running = 20\nmax_pending = 500\npprof_listen = \"{debug}\"\n"));
    let at = flood::prepare(&mut node, flood::RUNS, "true", 10);
    node.start();
    pass_until(at + 1);
    let total = || node.api.get("/log/list?limit=1").ok()["total"].as_u64();
    wait_to_see("a row for every run", total, |total| *total >= Some(flood::RUNS as u64));
    let states = count_states(&node, at);
    let counters = counters(&debug);
    for (state, count) in &states {
        assert_eq!(counters[&format!("runs_{state}")], *count, "{state}: {counters:?}");
    }
    assert_eq!(counters["runs_started"], states["ok"], "{counters:?}");
    assert!(states["ok"] >= 300 && states["shed"] >= flood::RUNS as u64 - 1_500, "{states:?}");
}

/// How many rows there are of each state. Each is the row of another job, for this second.
fn count_states(node: &Node, at: i64) -> BTreeMap<String, u64> {
    let mut states: BTreeMap<String, u64> = BTreeMap::new();
    let mut jobs = BTreeSet::new();
    for page in 1..=5 {
        for row in node.api.logs(&format!("page={page}")) {
            assert_eq!(row["time"], at, "{row}");
            assert!(jobs.insert(row["cron_id"].as_u64().unwrap()), "its job has two rows: {row}");
            *states.entry(row.state().into()).or_default() += 1;
        }
    }
    assert_eq!(jobs.len(), flood::RUNS);
    states
}
