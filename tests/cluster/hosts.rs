//! Nodes on hosts of their own, in network namespaces, with a database and a Consul of their own: everything that can be
//! taken away from a cluster can be taken away from this one.

use crate::Cluster;
use crate::support::daemon::{Node, send_signal};
use crate::support::network::{Network, network};
use crate::support::witness::Witness;
use crate::support::{consul, mariadb, wait_until};
use rustix::process::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Jobs that run every second, beside one mutex job.
pub const PLAIN_JOBS: usize = 3;
/// A run that starts later is not on time.
const ON_TIME_NS: i128 = 1_000_000_000;
/// So many seconds in a row on time, and all is well.
const WELL_SECS: i64 = 4;

pub struct Hosts {
    pub cluster: Cluster,
    pub plain: Witness,
    pub mutex: Witness,
    pub ids: Vec<u64>,
    pub mutex_id: u64,
    // Behind the nodes, so that they end first.
    /// Consul's agents on the hosts, where they have agents of their own.
    _agents: Vec<consul::Agent>,
    pub network: Network,
    pub server: mariadb::Server,
    pub agent: consul::Agent,
}

impl Hosts {
    /// Three hosts under load. `extra` are lines of app.toml.
    pub fn started(extra: &str) -> Option<Hosts> {
        Hosts::with_database_at(Network::gateway, extra)
    }

    /// With the database at this address.
    pub fn with_database_at(address: fn(&Network) -> String, extra: &str) -> Option<Hosts> {
        Hosts::with(address, false, extra)
    }

    /// Each with a Consul agent of its own, as in the field.
    pub fn with_agents() -> Option<Hosts> {
        Hosts::with(Network::gateway, true, "")
    }

    fn with(database_at: fn(&Network) -> String, has_agents: bool, extra: &str) -> Option<Hosts> {
        let network = network(3)?;
        let (server, agent) = (mariadb::server_at(&database_at(&network))?, consul::agent_at(&network.gateway())?);
        let with_agents = if has_agents { 0..3 } else { 0..0 };
        let agents: Vec<consul::Agent> =
            with_agents.map(|host| agent.client_on(&network, host)).collect::<Option<_>>()?;
        server.allow("node");
        let toml = format!(
            "service_name = \"{}\"\nlock_key = \"{}\"\ncluster_secret = \"of this test\"\n{extra}{}",
            consul::name(),
            consul::name(),
            server.database("utf8mb4").toml().replace("\"root\"", "\"node\"")
        );
        let node = |host: usize| {
            let toml = format!("consul_address = \"{}\"\n{toml}", agents.get(host).unwrap_or(&agent).address());
            let node = Node::in_namespace(&network.namespace(host), &network.address(host), &toml);
            // Jobs can write down where they ran.
            node.env("PLACE", &place(host))
        };
        let mut nodes: Vec<Node> = (0..3).map(node).collect();
        nodes.iter_mut().for_each(Node::start);
        let cluster = Cluster { nodes, folder: tempfile::tempdir().unwrap() };
        cluster.wait_alive(3);
        let (plain, mutex) = (cluster.witness("plain"), cluster.witness("mutex"));
        let ids: Vec<u64> = (0..PLAIN_JOBS).map(|_| cluster.add("* * * * * *", &plain.write("x"), "")).collect();
        let mutex_id = cluster.add("* * * * * *", &mutex.around("sleep 0.5"), "is_mutex=1");
        let hosts = Hosts { cluster, plain, mutex, ids, mutex_id, _agents: agents, network, server, agent };
        hosts.wait_well();
        Some(hosts)
    }

    pub fn leader(&self) -> usize {
        self.cluster.leader()
    }

    /// One that does not lead.
    pub fn worker(&self) -> usize {
        (self.leader() + 1) % 3
    }

    /// Waits until all nodes are there, and some seconds in a row that begin after this are on time.
    pub fn wait_well(&self) {
        self.cluster.wait_alive(3);
        self.wait_served();
    }

    /// Waits for some seconds in a row on time, whoever is there.
    pub fn wait_served(&self) {
        let from = second();
        wait_until("the seconds are on time again", || {
            std::thread::sleep(Duration::from_millis(100));
            let served = self.served();
            let Some(last) = served.last_key_value().map(|(second, _)| *second) else { return false };
            let is_well =
                |first: i64| (first..first + WELL_SECS).all(|second| served.get(&second) == Some(&PLAIN_JOBS));
            (from + 1..=last - WELL_SECS).any(is_well)
        });
    }

    /// How many plain runs were on time, by second.
    pub fn served(&self) -> BTreeMap<i64, usize> {
        let mut served: BTreeMap<i64, BTreeSet<String>> = BTreeMap::new();
        for seen in self.plain.read() {
            let runs = served.entry(seen.scheduled_at).or_default();
            if seen.at_ns - i128::from(seen.scheduled_at) * 1_000_000_000 < ON_TIME_NS {
                runs.insert(seen.attempt);
            }
        }
        served.into_iter().map(|(second, runs)| (second, runs.len())).collect()
    }

    // What is done to them.

    pub fn kill_daemon(&self, host: usize) {
        send_signal(Signal::KILL, self.cluster.nodes[host].daemon_pid());
    }

    /// Daemon and guardian at once: what runs there goes on until the next start.
    pub fn kill_whole(&mut self, host: usize) {
        self.cluster.nodes[host].kill_whole();
    }

    pub fn stop_for(&self, host: usize, secs: u64) {
        let pids = self.pids(host);
        pids.iter().for_each(|pid| send_signal(Signal::STOP, *pid));
        pass(secs);
        pids.iter().rev().for_each(|pid| send_signal(Signal::CONT, *pid));
    }

    fn pids(&self, host: usize) -> [u32; 2] {
        [self.cluster.nodes[host].daemon_pid(), self.cluster.nodes[host].guardian_pid()]
    }

    /// Nothing that the host sends arrives, and nothing is sent to it.
    pub fn cut_for(&self, host: usize, secs: u64) {
        self.network.set_link(host, false);
        pass(secs);
        self.network.set_link(host, true);
    }

    /// The same, and the host's own link stays up: it is not told that nothing comes through.
    pub fn cut_far_for(&self, host: usize, secs: u64) {
        self.network.set_far_link(host, false);
        pass(secs);
        self.network.set_far_link(host, true);
    }

    /// What each host of `from` sends to these addresses is dropped (`blackhole`) or refused (`unreachable`).
    pub fn block_for(&self, blocks: &[(usize, String)], how: &str, secs: u64) {
        blocks.iter().for_each(|(host, address)| self.network.block(*host, address, how));
        pass(secs);
        blocks.iter().for_each(|(host, address)| self.network.unblock(*host, address));
    }
}

/// What jobs find in `$PLACE` on that host.
pub fn place(host: usize) -> String {
    format!("at{host}")
}

/// Lets so much time pass: that of a fault.
pub fn pass(secs: u64) {
    let start = Instant::now();
    wait_long(secs, || Duration::from_secs(secs) <= start.elapsed());
}

fn wait_long(secs: u64, mut is_so: impl FnMut() -> bool) {
    // `wait_until` gives up after a minute, which a fault may last.
    for _ in 0..secs / 30 {
        let start = Instant::now();
        wait_until("half a minute is over", || is_so() || Duration::from_secs(30) <= start.elapsed());
    }
    wait_until("the time is over", is_so);
}

/// The second that it is.
pub fn second() -> i64 {
    wing_crontab::worker::clock::now().wall.second().0
}
