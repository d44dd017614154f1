//! A host that was cut off from everything: soon after the heal it works as before, and no node logs trouble with it.

use crate::hosts::{Hosts, place};
use crate::support::time::{now_ns, pass};
use crate::support::wait_until;
use std::time::{Duration, Instant};

/// How long the host may need after the heal to work as before. It may have begun an attempt to connect right before
/// the heal (3 s), wait before the next one (2 s), ask who leads (1 s), and get runs of the second after that.
const BACK_MAX: Duration = Duration::from_secs(8);

/// Cuts a host off and heals that. Gives how long it then takes until the host has a run, and until it lists the jobs.
fn back_after(hosts: &Hosts, host: usize, cut_secs: u64) -> [Duration; 2] {
    let (places, node) = (hosts.cluster.witness("places"), &hosts.cluster.nodes[host]);
    hosts.cut_far_for(host, cut_secs);
    let (healed, healed_ns) = (Instant::now(), now_ns());
    let is_run = || places.read().iter().any(|seen| seen.word == place(host) && healed_ns < seen.at_ns);
    let is_shown = || node.api.try_get("/cron/list").is_some_and(|reply| reply.status == 200);
    std::thread::scope(|scope| {
        let shown = scope.spawn(|| {
            wait_until("the host lists the jobs", is_shown);
            healed.elapsed()
        });
        wait_until("the host gets runs", is_run);
        [healed.elapsed(), shown.join().unwrap()]
    })
}

#[test]
fn a_host_that_was_cut_off_is_soon_as_well_as_before() {
    let Some(hosts) = Hosts::with_agents() else { return };
    let places = hosts.cluster.witness("places");
    hosts.cluster.add_several(6, &places.write("$PLACE"));
    for cut_secs in [8, 15] {
        for leads in [false, true] {
            let host = if leads { hosts.leader() } else { hosts.worker() };
            let [run, shown] = back_after(&hosts, host, cut_secs);
            eprintln!("cut off for {cut_secs} s, leading: {leads}: runs after {run:?}, shows the jobs after {shown:?}");
            assert!(run.max(shown) < BACK_MAX, "cut off for {cut_secs} s, leading: {leads}: {run:?}, {shown:?}");
            hosts.wait_well();
            // After two seconds the bytes that waited in buffers are read.
            pass(2);
        }
    }
    for node in &hosts.cluster.nodes {
        let said = node.said();
        assert!(!said.contains("the clock of"), "a node warns of a clock, and all have the same: {said}");
    }
}
