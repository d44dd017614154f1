//! A host that was cut off from everything, once the cut is healed: it is soon as well as before, and nobody complains of it.

use crate::hosts::{Hosts, pass, place};
use crate::support::wait_until;
use std::time::{Duration, Instant};
use wing_crontab::worker::clock;

/// From the heal until the host is as well as before: what it tries may have begun right before the heal (3 s) and be put
/// off once (2 s), it may have to ask who leads (1 s), and the next second's runs are given to it.
const BACK_MAX: Duration = Duration::from_secs(8);

/// Cuts a host off and heals that; how long it then takes until the host runs something, and until it shows the jobs.
fn back_after(hosts: &Hosts, host: usize, cut_secs: u64) -> [Duration; 2] {
    let (places, node) = (hosts.cluster.witness("places"), &hosts.cluster.nodes[host]);
    hosts.cut_far_for(host, cut_secs);
    let (healed, healed_ns) = (Instant::now(), i128::from(clock::now().wall.0));
    let is_run = || places.read().iter().any(|seen| seen.word == place(host) && healed_ns < seen.at_ns);
    let is_shown = || node.api.try_get("/cron/list").is_some_and(|reply| reply.status == 200);
    std::thread::scope(|scope| {
        let shown = scope.spawn(|| {
            wait_until("it shows the jobs", is_shown);
            healed.elapsed()
        });
        wait_until("it gets runs", is_run);
        [healed.elapsed(), shown.join().unwrap()]
    })
}

#[test]
fn a_host_that_was_cut_off_is_soon_as_well_as_before() {
    let Some(hosts) = Hosts::with_agents() else { return };
    let places = hosts.cluster.witness("places");
    for _ in 0..6 {
        hosts.cluster.add("* * * * * *", &places.write("$PLACE"), "");
    }
    for cut_secs in [8, 15] {
        for leads in [false, true] {
            let host = if leads { hosts.leader() } else { hosts.worker() };
            let [run, shown] = back_after(&hosts, host, cut_secs);
            eprintln!("cut off for {cut_secs} s, leading: {leads}: runs after {run:?}, shows the jobs after {shown:?}");
            assert!(run.max(shown) < BACK_MAX, "cut off for {cut_secs} s, leading: {leads}: {run:?}, {shown:?}");
            hosts.wait_well();
            // Longer than what lay in a buffer takes to be read.
            pass(2);
        }
    }
    for node in &hosts.cluster.nodes {
        let said = node.said();
        assert!(!said.contains("the clock of"), "all have one clock: {said}");
    }
}
