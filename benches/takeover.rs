//! `make bench-takeover`: how long a cluster of three is without a leader, for each way in which one can be lost.
//!
//! Measured from the fault until the lock's value shows a new epoch and a tick taken under it: from then on runs are
//! given out again. It needs MariaDB and Consul as the tests do.

#[path = "../tests/support/mod.rs"]
mod support;

use rustix::process::Signal;
use std::time::Instant;
use support::daemon::{Node, send_signal};
use support::{consul, mariadb, wait_until};

const ROUNDS: usize = 10;
const PAUSES: usize = 3;

/// What is done to the leader, and how often.
type Fault = (&'static str, usize, fn(&mut Node));

struct Cluster<'a> {
    nodes: Vec<Node>,
    agent: &'a consul::Agent,
    lock: String,
}

fn main() {
    let (Some(database), Some(agent)) = (mariadb::database(), consul::agent()) else { return };
    let (service, lock) = (consul::name(), consul::name());
    let toml = format!(
        "consul_address = \"{}\"\nservice_name = \"{service}\"\nlock_key = \"{lock}\"\n{}",
        agent.address(),
        database.toml()
    );
    let mut cluster = Cluster { nodes: (0..3).map(|_| Node::started(&toml)).collect(), agent, lock };
    println!("| fault | next leader after: median / max of {ROUNDS}, ms |\n|---|---|");
    let faults: [Fault; 5] = [
        ("clean stop", ROUNDS, |node| node.signal(Signal::TERM)),
        ("kill -9 of the daemon", ROUNDS, |node| send_signal(Signal::KILL, node.daemon_pid())),
        ("kill -9 of the guardian", ROUNDS, |node| node.signal(Signal::KILL)),
        ("kill -9 of both", ROUNDS, |node| {
            let daemon = node.daemon_pid();
            send_signal(Signal::STOP, daemon);
            node.signal(Signal::KILL);
            send_signal(Signal::KILL, daemon);
        }),
        ("SIGSTOP of both", PAUSES, |node| {
            let daemon = node.daemon_pid();
            node.signal(Signal::STOP);
            send_signal(Signal::STOP, daemon);
        }),
    ];
    for (name, rounds, fault) in faults {
        let mut took_ms: Vec<u128> = (0..rounds).map(|_| cluster.measure(fault)).collect();
        took_ms.sort();
        println!("| {name} | {} / {} |", took_ms[took_ms.len() / 2], took_ms[took_ms.len() - 1]);
    }
}

impl Cluster<'_> {
    /// Hits the leader, and answers how long it took until there was another (or it again).
    fn measure(&mut self, fault: fn(&mut Node)) -> u128 {
        wait_until("all are alive", || {
            let view =
                self.nodes.iter().find_map(|node| node.api.try_get("/cluster")).filter(|reply| reply.status == 200);
            let nodes = view.and_then(|reply| reply.body["data"]["nodes"].as_array().cloned()).unwrap_or_default();
            nodes.iter().filter(|node| node["state"] == "alive").count() == 3
        });
        let (epoch, leader) = self.lead();
        let at = self.nodes.iter().position(|node| node.server == leader).expect("the leader is one of ours");
        let start = Instant::now();
        fault(&mut self.nodes[at]);
        wait_until("there is a new epoch", || epoch < self.lead().0);
        let took_ms = start.elapsed().as_millis();
        let node = &mut self.nodes[at];
        send_signal(Signal::CONT, node.guardian_pid());
        support::daemon::children(node.guardian_pid()).into_iter().for_each(|pid| send_signal(Signal::CONT, pid));
        if node.is_over() {
            node.wait();
            node.start();
        }
        took_ms
    }

    /// The epoch and the leader, by the lock.
    fn lead(&self) -> (u64, String) {
        let lock = self.agent.lock(&self.lock).filter(|(session, _)| session.is_some());
        let value = lock.map(|(_, value)| value).unwrap_or_default();
        (value["epoch"].as_u64().unwrap_or(0), value["server"].as_str().unwrap_or_default().to_string())
    }
}
