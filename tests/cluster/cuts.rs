//! Nodes on hosts of their own, in network namespaces, and networks that break: cut off, cut one way, dropped, refused.

use crate::Cluster;
use crate::support::network::{Network, network};
use crate::support::witness::Witness;
use crate::support::{consul, daemon::Node, mariadb, wait_until};
use wing_crontab::worker::clock;

struct Hosts {
    cluster: Cluster,
    witness: Witness,
    mutex: Witness,
    ids: Vec<u64>,
    mutex_id: u64,
    // Behind the nodes, so that they end first.
    network: Network,
    _services: (mariadb::Server, consul::Agent),
}

/// Three hosts under load.
fn hosts() -> Option<Hosts> {
    hosts_with(Network::gateway)
}

/// With the database at this address.
fn hosts_with(database: fn(&Network) -> String) -> Option<Hosts> {
    let network = network(3)?;
    let (server, agent) = (mariadb::server_at(&database(&network))?, consul::agent_at(&network.gateway())?);
    server.allow("node");
    let toml = format!(
        "consul_address = \"{}\"\nservice_name = \"{}\"\nlock_key = \"{}\"\ncluster_secret = \"of this test\"\n{}",
        agent.address(),
        consul::name(),
        consul::name(),
        server.database("utf8mb4").toml().replace("\"root\"", "\"node\"")
    );
    let node = |host: usize| Node::in_namespace(&network.namespace(host), &network.address(host), &toml);
    let mut nodes: Vec<Node> = (0..3).map(node).collect();
    nodes.iter_mut().for_each(Node::start);
    let cluster = Cluster { nodes, folder: tempfile::tempdir().unwrap() };
    cluster.wait_alive(3);
    let (witness, mutex) = (cluster.witness("seen"), cluster.witness("mutex"));
    let ids: Vec<u64> = (0..3).map(|_| cluster.add("* * * * * *", &witness.write("x"), "")).collect();
    let mutex_id = cluster.add("* * * * * *", &mutex.around("sleep 0.5"), "is_mutex=1");
    wait_until("they run", || witness.count("x") >= 9 && mutex.count("end") >= 3);
    Some(Hosts { cluster, witness, mutex, ids, mutex_id, network, _services: (server, agent) })
}

impl Hosts {
    /// Does something to the network for so long, and waits until all have found together again.
    fn broken(&self, secs: u64, what: impl FnOnce(&Network), heal: impl FnOnce(&Network)) {
        let start = clock::mono();
        what(&self.network);
        wait_until("the time is over", || clock::mono().since(start).as_secs() >= secs);
        heal(&self.network);
        self.cluster.wait_alive(3);
        let seen = self.witness.count("x");
        wait_until("it goes on", || seen + 9 <= self.witness.count("x"));
    }

    /// The jobs' own witness and the log agree; answers how many runs are not ok.
    fn finish(&self) -> usize {
        self.ids.iter().chain([&self.mutex_id]).for_each(|id| self.cluster.stop_job(*id));
        let not_ok = |rows: Vec<serde_json::Value>| {
            let not_ok = rows.iter().filter(|row| row["state"] != "ok" && row["state"] != "cancelled");
            not_ok.map(|row| eprintln!("not run: {row}")).count()
        };
        let ended = self.mutex.attempts("end").into_iter().collect();
        assert_eq!(crate::overlap_max(&self.mutex, &ended), 1);
        let lost: usize = self.ids.iter().map(|id| not_ok(self.cluster.check(*id, &self.witness, "x"))).sum();
        lost + not_ok(self.cluster.check(self.mutex_id, &self.mutex, "begin"))
    }
}

#[test]
fn hosts_that_are_cut_off_lose_nothing_when_they_come_back_in_time() {
    let Some(hosts) = hosts() else { return };
    for secs in [3, 13] {
        let leader = hosts.cluster.leader();
        hosts.broken(secs, |network| network.set_link(leader, false), |network| network.set_link(leader, true));
        let worker = (hosts.cluster.leader() + 1) % 3;
        hosts.broken(secs, |network| network.set_link(worker, false), |network| network.set_link(worker, true));
    }
    // Mutex runs of a host that was cut off until its lease was over were ended there.
    assert!(hosts.finish() <= 4);
}

#[test]
fn ways_that_are_cut_between_two_hosts_or_to_a_service_double_nothing() {
    let Some(hosts) = hosts() else { return };
    let leader = hosts.cluster.leader();
    let (worker, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let [leaders, workers] = [leader, worker].map(|host| hosts.network.address(host));
    let gateway = hosts.network.gateway();
    // One way, in silence: the leader hears the worker, and is not heard.
    hosts.broken(
        5,
        |network| network.block(leader, &workers, "blackhole"),
        |network| network.unblock(leader, &workers),
    );
    // Both ways, refused.
    hosts.broken(
        5,
        |network| {
            network.block(worker, &leaders, "unreachable");
            network.block(leader, &workers, "unreachable");
        },
        |network| {
            network.unblock(worker, &leaders);
            network.unblock(leader, &workers);
        },
    );
    // A worker, and then whoever leads, without database and Consul.
    hosts.broken(5, |network| network.block(other, &gateway, "blackhole"), |network| network.unblock(other, &gateway));
    let leader = hosts.cluster.leader();
    hosts.broken(
        5,
        |network| network.block(leader, &gateway, "blackhole"),
        |network| network.unblock(leader, &gateway),
    );
    assert!(hosts.finish() <= 4);
}

#[test]
fn a_leader_that_alone_has_lost_the_store_lets_another_lead_and_stays_away_from_it() {
    let Some(hosts) = hosts_with(Network::other_gateway) else { return };
    let database = hosts.network.other_gateway();
    for how in ["blackhole", "unreachable"] {
        let leader = hosts.cluster.leader();
        let node = &hosts.cluster.nodes[leader];
        let start = clock::mono();
        hosts.network.block(leader, &database, how);
        wait_until("another leads", || hosts.cluster.leader() != leader);
        eprintln!("{how}: another leads after {} ms", clock::mono().since(start).as_millis());
        let seen = hosts.witness.count("x");
        // Longer than it abstains.
        wait_until("the time is over", || clock::mono().since(start).as_secs() >= 18);
        assert_ne!(hosts.cluster.leader(), leader, "without the store it does not come back");
        assert!(seen + 9 <= hosts.witness.count("x"), "runs go on");
        wait_until("it is seen to be without the store", || {
            let nodes = hosts.cluster.view().unwrap_or_default();
            nodes["nodes"].as_array().is_some_and(|nodes| {
                nodes.iter().all(|shown| shown["store_ok"] == (shown["server"] != node.server.as_str()))
            })
        });
        hosts.network.unblock(leader, &database);
        hosts.cluster.wait_alive(3);
    }
    // Where it is slow to say so the others see its lock value stand still.
    assert!(hosts.cluster.nodes.iter().any(|node| node.said().contains("the lead is handed over")));
    assert_eq!(hosts.finish(), 0);
}

#[test]
fn a_leader_that_has_lost_the_store_with_all_others_goes_on_leading() {
    let Some(hosts) = hosts_with(Network::other_gateway) else { return };
    let database = hosts.network.other_gateway();
    for how in ["blackhole", "unreachable"] {
        let (leader, said) = (hosts.cluster.leader(), hosts.cluster.nodes.iter().map(Node::said));
        let before: Vec<usize> = said.map(|said| said.len()).collect();
        hosts.broken(
            8,
            |network| (0..3).for_each(|host| network.block(host, &database, how)),
            |network| (0..3).for_each(|host| network.unblock(host, &database)),
        );
        assert_eq!(hosts.cluster.leader(), leader);
        for (node, before) in hosts.cluster.nodes.iter().zip(before) {
            assert!(!node.said()[before..].contains("handed over"), "{how}: {}", node.said());
        }
    }
    assert_eq!(hosts.finish(), 0);
}
