//! `make bench-takeover`: how long a cluster of three is without a leader, for each way to lose one.
//!
//! The time is measured from the fault until the lock's value shows a new epoch and a tick taken under it: from then on
//! runs are given out again. It needs MariaDB and Consul, as the tests do. JOBS=1000000 puts so many jobs into the
//! database, with SCHEDULES=1000 different schedules, all of them due in January only. ROUNDS=5 repeats each fault so
//! often.

#[path = "../tests/support/mod.rs"]
mod support;

use rustix::process::Signal;
use std::time::Instant;
use support::cluster::{self, Cluster};
use support::consul::{self, Agent, Names};
use support::daemon::Node;
use support::mariadb::{self, Database};
use support::process::{children, resident_kb, send_signal};
use support::wait_until;

/// A fault: its name, how often it is done, and the function that does it to the leader.
type Fault = (&'static str, usize, fn(&mut Node));

/// Three nodes, and the lock by which their leader is known.
struct Bench<'a> {
    cluster: Cluster,
    agent: &'a Agent,
    lock: String,
}

fn main() {
    let (Some(database), Some(agent)) = (mariadb::database(), consul::agent()) else { return };
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let (jobs, rounds) = (number("JOBS").unwrap_or(0), number("ROUNDS").unwrap_or(10));
    let names = Names::new();
    let toml = cluster::toml(agent, &names, &database);
    let mut nodes: Vec<Node> = (0..3).map(|_| Node::new(&toml)).collect();
    if jobs != 0 {
        fill(&database, &mut nodes[0], jobs, number("SCHEDULES").unwrap_or(1_000));
    }
    nodes.iter_mut().for_each(start);
    let cluster = Cluster { nodes, folder: tempfile::tempdir().expect("a folder can be made") };
    let mut bench = Bench { cluster, agent, lock: names.lock };
    println!("\n{jobs} jobs\n\n| fault | next leader after: median / max of {rounds}, ms |\n|---|---|");
    for (name, rounds, fault) in faults(rounds) {
        let mut took_ms: Vec<u128> = (0..rounds).map(|_| bench.measure(fault)).collect();
        took_ms.sort();
        println!("| {name} | {} / {} |", took_ms[took_ms.len() / 2], took_ms[took_ms.len() - 1]);
    }
    bench.reload();
}

/// Writes so many jobs into the database. The node's first start makes the tables.
fn fill(database: &Database, node: &mut Node, jobs: usize, schedules: usize) {
    node.start();
    node.stop();
    let sql = format!(
        "INSERT INTO cron (cron_set, command, remark) SELECT CONCAT(nth MOD 60, ' ', nth DIV 60 MOD 60, ' ',
         nth DIV 3600 MOD 24, ' ', nth DIV 86400 MOD 28 + 1, ' 1 *'), CONCAT('/usr/bin/true ', seq), 'of the bench'
         FROM (SELECT seq, seq MOD {schedules} AS nth FROM seq_1_to_{jobs}) AS numbers"
    );
    database.run(&[&sql]);
}

/// Starts the node and prints how long it takes until it could lead.
fn start(node: &mut Node) {
    let start = Instant::now();
    node.start();
    wait_until("the node has all jobs", || is_ready(node));
    let (ready_ms, memory_kb) = (start.elapsed().as_millis(), resident_kb(node.daemon_pid()));
    println!("{}: ready to lead after {ready_ms} ms, {} MB resident", node.server, memory_kb / 1_024);
}

fn faults(rounds: usize) -> [Fault; 5] {
    [
        ("clean stop", rounds, |node| node.signal(Signal::TERM)),
        ("kill -9 of the daemon", rounds, |node| node.kill_daemon()),
        ("kill -9 of the guardian", rounds, |node| node.signal(Signal::KILL)),
        ("kill -9 of both", rounds, |node| {
            let daemon = node.daemon_pid();
            node.signal(Signal::STOP);
            send_signal(Signal::KILL, daemon);
            node.signal(Signal::KILL);
        }),
        ("SIGSTOP of both", rounds.min(3), |node| {
            let daemon = node.daemon_pid();
            node.signal(Signal::STOP);
            send_signal(Signal::STOP, daemon);
        }),
    ]
}

/// Whether the daemon has all jobs in memory since it was last started.
fn is_ready(node: &Node) -> bool {
    let said = node.said();
    said.rfind(" wing-crontab ") < said.rfind("the replica of the jobs is complete")
}

impl Bench<'_> {
    /// Does this fault to the leader; gives the milliseconds until a node led under a new epoch.
    fn measure(&mut self, fault: fn(&mut Node)) -> u128 {
        self.cluster.wait_alive(3);
        wait_until("all could lead", || self.cluster.nodes.iter().all(is_ready));
        let (epoch, leader) = self.lead();
        let at = self.cluster.index_of(&leader).expect("the leader is one of the nodes");
        let start = Instant::now();
        fault(&mut self.cluster.nodes[at]);
        wait_until("there is a new epoch", || epoch < self.lead().0);
        let took_ms = start.elapsed().as_millis();
        let node = &mut self.cluster.nodes[at];
        send_signal(Signal::CONT, node.guardian_pid());
        children(node.guardian_pid()).into_iter().for_each(|pid| send_signal(Signal::CONT, pid));
        if node.is_over() {
            node.wait();
            node.start();
        }
        took_ms
    }

    /// Has the leader read all jobs again, and asks it for the cluster all the time.
    fn reload(&self) {
        let leader = self.lead().1;
        let node = &self.cluster.nodes[self.cluster.index_of(&leader).expect("the leader is one of the nodes")];
        let (start, mut slowest_ms) = (Instant::now(), 0);
        node.signal(Signal::HUP);
        wait_until("it has reloaded", || {
            let asked_at = Instant::now();
            node.api.get("/cluster").ok();
            slowest_ms = slowest_ms.max(asked_at.elapsed().as_millis());
            node.said().contains("] reloaded: ")
        });
        let took_ms = start.elapsed().as_millis();
        println!("\nSIGHUP: reloaded after {took_ms} ms; meanwhile an answer took {slowest_ms} ms at most");
    }

    /// The epoch and the leader, by the lock's value.
    fn lead(&self) -> (u64, String) {
        let lock = self.agent.lock(&self.lock).filter(|(session, _)| session.is_some());
        let value = lock.map(|(_, value)| value).unwrap_or_default();
        (value["epoch"].as_u64().unwrap_or(0), value["server"].as_str().unwrap_or_default().to_string())
    }
}
