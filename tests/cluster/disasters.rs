//! One fault after the other under load, and a table of the effects, by what the jobs themselves wrote down.
//!
//! Each fault lasts some seconds; with `make test-faults WING_FAULTS=long` up to a minute.

use crate::hosts::{Hosts, PLAIN_JOBS};
use crate::support::row::Row;
use crate::support::time::{pass, second};
use crate::support::wait_for_every;
use crate::support::witness::Seen;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A fault that is over, and how many runs it may have cost.
struct Fault {
    name: String,
    from: i64,
    /// The last second that counts.
    to: i64,
    lost_max: usize,
}

/// What the fault did to the runs that were due meanwhile.
#[derive(Debug, Default)]
struct Outcome {
    due: usize,
    missed: usize,
    doubled: usize,
    late_ms: Vec<i128>,
    lost: usize,
    overlaps: usize,
    recovery_secs: i64,
}

struct Table {
    hosts: Hosts,
    faults: Vec<Fault>,
    is_long: bool,
}

/// How many runs a host can have when it is lost: those of this second and of the next one, of every job.
const HELD_BY_ONE: usize = 2 * (PLAIN_JOBS + 1);

impl Table {
    fn started() -> Option<Table> {
        let is_long = std::env::var("WING_FAULTS").as_deref() == Ok("long");
        // The rows of lost runs come at the end of the grace: in the short form of the test they are to come soon.
        let extra = if is_long { "" } else { "misfire_grace = 25\n" };
        Some(Table { hosts: Hosts::started(extra)?, faults: Vec::new(), is_long })
    }

    /// Causes the fault, waits until all is well again, and notes from when to when it lasted.
    fn fault(&mut self, name: &str, lost_max: usize, act: impl FnOnce(&mut Hosts)) {
        let from = second();
        act(&mut self.hosts);
        self.hosts.wait_well();
        self.faults.push(Fault { name: name.into(), from, to: second() - 2, lost_max });
    }

    /// The same for a fault that lasts some seconds: the first of `secs`, or in the long form each of them.
    fn lasting(&mut self, name: &str, secs: &[u64], lost_max: usize, mut act: impl FnMut(&mut Hosts, u64)) {
        let secs = if self.is_long { secs } else { &secs[..1] };
        for secs in secs {
            self.fault(&format!("{name}, {secs} s"), lost_max, |hosts| act(hosts, *secs));
        }
    }

    fn kills(&mut self) {
        self.fault("none", 0, |_| pass(3));
        self.fault("leader's daemon killed", PLAIN_JOBS + 1, |hosts| hosts.kill_daemon(hosts.leader()));
        self.fault("worker's daemon killed", PLAIN_JOBS + 1, |hosts| hosts.kill_daemon(hosts.worker()));
        self.fault("leader killed whole, started again", HELD_BY_ONE, |hosts| {
            let leader = hosts.leader();
            hosts.kill_whole(leader);
            hosts.wait_served();
            hosts.cluster.nodes[leader].start();
        });
        self.fault("leader and worker killed whole at once", 2 * HELD_BY_ONE, |hosts| {
            let (leader, worker) = (hosts.leader(), hosts.worker());
            hosts.kill_whole(leader);
            hosts.kill_whole(worker);
            hosts.wait_served();
            [leader, worker].iter().for_each(|host| hosts.cluster.nodes[*host].start());
        });
        self.fault("the nodes restarted one after the other", 0, |hosts| {
            for host in 0..3 {
                hosts.cluster.restart(host);
                hosts.cluster.wait_alive(3);
            }
        });
    }

    fn hangs_and_cuts(&mut self) {
        const SECS: [u64; 4] = [4, 1, 13, 60];
        self.lasting("leader stopped", &SECS, HELD_BY_ONE, |hosts, secs| hosts.stop_for(hosts.leader(), secs));
        self.lasting("worker stopped", &SECS, HELD_BY_ONE, |hosts, secs| hosts.stop_for(hosts.worker(), secs));
        self.lasting("leader cut off", &SECS, HELD_BY_ONE, |hosts, secs| hosts.cut_for(hosts.leader(), secs));
        self.lasting("worker cut off", &SECS, HELD_BY_ONE, |hosts, secs| hosts.cut_for(hosts.worker(), secs));
        self.lasting("leader and worker together cut off", &[12, 4, 60], 2 * HELD_BY_ONE, |hosts, secs| {
            let (leader, worker) = (hosts.leader(), hosts.worker());
            let other = 3 - leader - worker;
            let [leaders, workers, others] = [leader, worker, other].map(|host| hosts.network.address(host));
            let gateway = hosts.network.gateway();
            let blocks = [
                (leader, others.clone()),
                (leader, gateway.clone()),
                (worker, others),
                (worker, gateway),
                (other, leaders),
                (other, workers),
            ];
            hosts.block_for(&blocks, "blackhole", secs);
        });
        self.lasting("leader -> worker dropped", &SECS, HELD_BY_ONE, |hosts, secs| {
            let blocks = [(hosts.leader(), hosts.network.address(hosts.worker()))];
            hosts.block_for(&blocks, "blackhole", secs);
        });
        self.lasting("leader <-> worker refused", &SECS, HELD_BY_ONE, |hosts, secs| {
            let (leader, worker) = (hosts.leader(), hosts.worker());
            let blocks = [(leader, hosts.network.address(worker)), (worker, hosts.network.address(leader))];
            hosts.block_for(&blocks, "unreachable", secs);
        });
    }

    fn services(&mut self) {
        const SECS: [u64; 4] = [4, 1, 13, 50];
        self.lasting("leader without services", &SECS, HELD_BY_ONE, |hosts, secs| {
            hosts.block_for(&[(hosts.leader(), hosts.network.gateway())], "blackhole", secs);
        });
        self.lasting("worker without services", &SECS, HELD_BY_ONE, |hosts, secs| {
            hosts.block_for(&[(hosts.worker(), hosts.network.gateway())], "blackhole", secs);
        });
        self.lasting("database away", &SECS, 0, |hosts, secs| {
            hosts.server.stop(false);
            pass(secs);
            hosts.server.start();
        });
        self.fault("database restarted", 0, |hosts| {
            hosts.server.stop(true);
            hosts.server.start();
        });
        self.lasting("Consul away, its memory gone", &SECS, 0, |hosts, secs| {
            hosts.agent.stop();
            pass(secs);
            hosts.agent.start();
        });
    }

    /// Stops the jobs, waits for the last outcome, and checks each fault against what the jobs wrote.
    fn finish(self) {
        let Table { hosts, faults, .. } = self;
        let ids: Vec<u64> = hosts.ids.iter().chain([&hosts.mutex_id]).copied().collect();
        let last = faults.last().map_or(0, |fault| fault.to);
        hosts.cluster.stop_jobs(&ids);
        let rows: BTreeMap<u64, Vec<Row>> = ids.iter().map(|id| (*id, all_rows(&hosts, *id, last))).collect();
        let (plain, mutex) = (hosts.plain.read(), hosts.mutex.read());
        let outcomes: Vec<Outcome> = faults.iter().map(|fault| outcome(fault, &hosts, &rows, &plain, &mutex)).collect();
        print(&faults, &outcomes);
        for (fault, outcome) in faults.iter().zip(&outcomes) {
            let Outcome { missed, doubled, lost, overlaps, .. } = outcome;
            assert_eq!((*missed, *doubled, *overlaps), (0, 0, 0), "{}: missed, doubled, overlaps", fault.name);
            assert!(*lost <= fault.lost_max, "{}: {lost} lost, at most {} may be", fault.name, fault.lost_max);
        }
    }
}

/// The job's rows, once each second has one. The rows of lost runs come at the end of the grace.
fn all_rows(hosts: &Hosts, id: u64, last: i64) -> Vec<Row> {
    let first = |rows: &[Row]| rows.iter().filter_map(|row| row["time"].as_i64()).min();
    let mut rows = Vec::new();
    // A minute for the wait, and one more for the grace itself.
    for _ in 0..2 {
        let start = second();
        wait_for_every(Duration::from_millis(200), "every second has its row", || {
            rows = hosts.cluster.rows(id);
            let told: BTreeSet<i64> = rows.iter().filter_map(|row| row["time"].as_i64()).collect();
            let is_whole = first(&rows).is_some_and(|first| (first..=last).all(|second| told.contains(&second)));
            (is_whole || start + 50 < second()).then_some(())
        });
    }
    rows
}

fn outcome(fault: &Fault, hosts: &Hosts, rows: &BTreeMap<u64, Vec<Row>>, plain: &[Seen], mutex: &[Seen]) -> Outcome {
    let is_in = |second: i64| (fault.from..=fault.to).contains(&second);
    let seen: Vec<&Seen> = plain.iter().filter(|seen| is_in(seen.scheduled_at)).collect();
    let begins: Vec<&Seen> = mutex.iter().filter(|seen| seen.word == "begin" && is_in(seen.scheduled_at)).collect();
    let started: Vec<&str> = seen.iter().chain(&begins).map(|seen| seen.attempt.as_str()).collect();
    let different: BTreeSet<&str> = started.iter().copied().collect();
    let mut outcome = Outcome { doubled: started.len() - different.len(), ..Outcome::default() };
    for (id, rows) in rows {
        for second in fault.from..=fault.to {
            outcome.due += 1;
            let was_started = different.contains(format!("{id}-{second}#1").as_str());
            let state = rows.iter().find(|row| row["time"] == second).map(|row| row["state"].as_str().unwrap_or(""));
            match state {
                Some("lost" | "failed" | "killed") => outcome.lost += 1,
                Some("ok") => assert!(was_started, "{id}-{second} is logged ok and was not run"),
                Some(state @ ("skipped" | "cancelled")) => {
                    assert!(!was_started, "{id}-{second} is {state} and was run")
                }
                Some(_) | None => outcome.missed += 1,
            }
        }
    }
    outcome.late_ms = seen.iter().map(|seen| seen.at_ns / 1_000_000 - i128::from(seen.scheduled_at) * 1_000).collect();
    outcome.late_ms.sort();
    let served = hosts.served();
    let is_served = |second: &i64| served.get(second) == Some(&PLAIN_JOBS);
    let last_unserved = (fault.from..=fault.to).rev().find(|second| !is_served(second));
    outcome.recovery_secs = last_unserved.map_or(0, |second| second + 1 - fault.from);
    outcome.overlaps = overlaps(&begins, mutex);
    outcome
}

/// How many runs began between the beginning and the end of another one. A run that wrote no end was killed at an
/// unknown time, and does not count.
fn overlaps(begins: &[&Seen], mutex: &[Seen]) -> usize {
    let ends: BTreeMap<&str, i128> =
        mutex.iter().filter(|seen| seen.word == "end").map(|seen| (seen.attempt.as_str(), seen.at_ns)).collect();
    let spans: Vec<(i128, i128)> = mutex
        .iter()
        .filter(|seen| seen.word == "begin")
        .filter_map(|seen| Some((seen.at_ns, *ends.get(seen.attempt.as_str())?)))
        .collect();
    let is_within = |at: i128| spans.iter().any(|(begin, end)| *begin < at && at < *end);
    begins.iter().filter(|begin| is_within(begin.at_ns)).count()
}

fn print(faults: &[Fault], outcomes: &[Outcome]) {
    println!(
        "| {:<40} | due | missed | doubled | late p50 / p99 / max ms | lost | overlaps | recovery s |\n|{}|",
        "fault",
        ["-".repeat(42).as_str(), "---|---|---|---|---|---|---"].join("|")
    );
    for (fault, outcome) in faults.iter().zip(outcomes) {
        let Outcome { due, missed, doubled, late_ms, lost, overlaps, recovery_secs } = outcome;
        let late =
            |percent: usize| late_ms.get((late_ms.len() * percent / 100).min(late_ms.len().max(1) - 1)).unwrap_or(&0);
        let late = format!("{} / {} / {}", late(50), late(99), late(100));
        println!(
            "| {:<40} | {due} | {missed} | {doubled} | {late} | {lost} | {overlaps} | {recovery_secs} |",
            fault.name
        );
    }
}

#[test]
fn through_every_fault_nothing_is_missed_or_doubled_and_no_mutex_overlaps() {
    let Some(mut table) = Table::started() else { return };
    table.kills();
    table.hangs_and_cuts();
    table.services();
    table.finish();
}
