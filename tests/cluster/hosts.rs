//! Nodes on hosts of their own, in network namespaces, with a database and a Consul of their own: a test can cut each
//! host off from each other one and from each service.

use crate::support::cluster::Cluster;
use crate::support::daemon::Node;
use crate::support::network::{Network, network};
use crate::support::time::{pass, second};
use crate::support::witness::Witness;
use crate::support::{cluster, consul, mariadb, wait_for_every};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Jobs that run every second, beside one mutex job.
pub const PLAIN_JOBS: usize = 3;
/// A run that starts so long after its second or later is not on time.
const ON_TIME_NS: i128 = 1_000_000_000;
/// All is well when the runs of so many seconds in a row were on time.
const WELL_SECS: i64 = 4;

pub struct Hosts {
    pub cluster: Cluster,
    pub plain: Witness,
    pub mutex: Witness,
    pub ids: Vec<u64>,
    pub mutex_id: u64,
    // A struct's fields are dropped in order: the nodes, above, must end before the services.
    /// Consul's agents on the hosts, where each host has its own.
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

    /// The same, where each host has a Consul agent of its own, as in production.
    pub fn with_agents() -> Option<Hosts> {
        Hosts::with(Network::gateway, true, "")
    }

    fn with(database_at: fn(&Network) -> String, has_agents: bool, extra: &str) -> Option<Hosts> {
        let network = network(3)?;
        let (server, agent) = (mariadb::server_at(&database_at(&network))?, consul::agent_at(&network.gateway())?);
        let with_agents = if has_agents { 0..3 } else { 0..0 };
        let agents: Vec<consul::Agent> =
            with_agents.map(|host| agent.client_on(&network, host)).collect::<Option<_>>()?;
        let (names, database) = (consul::Names::new(), server.database_for_hosts());
        let node = |host: usize| {
            let toml = cluster::toml(agents.get(host).unwrap_or(&agent), &names, &database);
            let toml = format!("{toml}{extra}");
            let node = Node::in_namespace(&network.namespace(host), &network.address(host), &toml);
            // Jobs can write down where they ran.
            node.env("PLACE", &place(host))
        };
        let cluster = Cluster::of((0..3).map(node).collect());
        let (plain, mutex) = (cluster.witness("plain"), cluster.witness("mutex"));
        let ids = cluster.add_several(PLAIN_JOBS, &plain.write("x"));
        let mutex_id = cluster.add_every_second(&mutex.around("sleep 0.5"), "is_mutex=1");
        let hosts = Hosts { cluster, plain, mutex, ids, mutex_id, _agents: agents, network, server, agent };
        hosts.wait_well();
        Some(hosts)
    }

    pub fn leader(&self) -> usize {
        self.cluster.leader()
    }

    /// A host that does not lead.
    pub fn worker(&self) -> usize {
        self.cluster.follower()
    }

    /// Waits until all nodes are there, and the runs of some seconds in a row from now on were on time.
    pub fn wait_well(&self) {
        self.cluster.wait_alive(3);
        self.wait_served();
    }

    /// Waits until the runs of some seconds in a row from now on were on time, however many nodes are there.
    pub fn wait_served(&self) {
        let from = second();
        wait_for_every(Duration::from_millis(100), "some seconds in a row on time", || {
            let served = self.served();
            let last = *served.last_key_value()?.0;
            let is_well =
                |first: i64| (first..first + WELL_SECS).all(|second| served.get(&second) == Some(&PLAIN_JOBS));
            (from + 1..=last - WELL_SECS).any(is_well).then_some(())
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

    // The faults.

    pub fn kill_daemon(&self, host: usize) {
        self.cluster.nodes[host].kill_daemon();
    }

    /// Kills daemon and guardian at once: the runs there go on until the next start.
    pub fn kill_whole(&mut self, host: usize) {
        self.cluster.nodes[host].kill_whole();
    }

    pub fn stop_for(&self, host: usize, secs: u64) {
        self.cluster.nodes[host].standing_still(|| pass(secs));
    }

    /// Cuts the host's link: nothing that it sends arrives, and nothing arrives at it.
    pub fn cut_for(&self, host: usize, secs: u64) {
        self.network.set_link(host, false);
        pass(secs);
        self.network.set_link(host, true);
    }

    /// The same beyond the host's own link, which stays up: the host's network does not report the cut.
    pub fn cut_far_for(&self, host: usize, secs: u64) {
        self.network.set_far_link(host, false);
        pass(secs);
        self.network.set_far_link(host, true);
    }

    /// Drops (`blackhole`) or refuses (`unreachable`) the packets that each of these hosts sends to the given address.
    pub fn block_for(&self, blocks: &[(usize, String)], how: &str, secs: u64) {
        blocks.iter().for_each(|(host, address)| self.network.block(*host, address, how));
        pass(secs);
        blocks.iter().for_each(|(host, address)| self.network.unblock(*host, address));
    }
}

/// The value of `$PLACE` for jobs on that host.
pub fn place(host: usize) -> String {
    format!("at{host}")
}
