//! Each node has a Consul agent of its own, as on hosts of their own. An agent that dies, or all of Consul, takes nobody out
//! of the cluster who reaches the database and the leader.

use crate::Cluster;
use crate::support::daemon::Node;
use crate::support::witness::Witness;
use crate::support::{consul, mariadb, wait_until};
use std::time::{Duration, Instant};

/// How many jobs run every second.
const JOBS: usize = 4;
/// To notice that an agent is away, and to be back in the cluster: the takeover's 3 s, and as much again for each of two
/// attempts to reach the leader.
const BACK_MAX: Duration = Duration::from_secs(12);

struct Hosts {
    cluster: Cluster,
    /// What ran, and where: the word is the node's place.
    seen: Witness,
    places: Witness,
    ids: Vec<u64>,
    // Behind the nodes, so that they end first.
    agents: Vec<consul::Agent>,
    server: consul::Agent,
}

impl Hosts {
    /// Three nodes that run jobs, each with its own agent.
    fn started() -> Option<Hosts> {
        let (database, server) = (mariadb::database()?, consul::own_agent()?);
        let agents: Vec<consul::Agent> = (0..3).map(|_| server.client()).collect::<Option<_>>()?;
        let (service, lock) = (consul::name(), consul::name());
        let node = |(at, agent): (usize, &consul::Agent)| {
            let toml = format!(
                "consul_address = \"{}\"\nservice_name = \"{service}\"\nlock_key = \"{lock}\"\ncluster_secret = \"of this test\"\n{}",
                agent.address(),
                database.toml()
            );
            Node::new(&toml).env("PLACE", &format!("at{at}"))
        };
        let mut nodes: Vec<Node> = agents.iter().enumerate().map(node).collect();
        nodes.iter_mut().for_each(Node::start);
        let cluster = Cluster { nodes, folder: tempfile::tempdir().unwrap() };
        cluster.wait_alive(3);
        let (seen, places) = (cluster.witness("seen"), cluster.witness("places"));
        let command = format!("{}; {}", seen.write("x"), places.write("$PLACE"));
        let ids = (0..JOBS).map(|_| cluster.add("* * * * * *", &command, "")).collect();
        let hosts = Hosts { cluster, seen, places, ids, agents, server };
        (0..3).for_each(|at| hosts.wait_run(at));
        Some(hosts)
    }

    /// Waits until some more runs are made at that node.
    fn wait_run(&self, at: usize) {
        let word = format!("at{at}");
        let before = self.places.count(&word);
        wait_until(&format!("node {at} gets runs"), || before + 3 <= self.places.count(&word));
    }

    /// The node is one of the cluster as any other: it is shown, it gets runs, and passes changes on.
    fn wait_member(&self, at: usize) {
        let server = &self.cluster.nodes[at].server;
        wait_until(&format!("node {at} is alive"), || {
            self.cluster.states("alive").is_some_and(|alive| alive.contains(server))
        });
        self.wait_run(at);
        let api = &self.cluster.nodes[at].api;
        let id = api.add("0 0 0 1 1 *", "true", "");
        api.get(&format!("/cron/delete/{id}")).ok();
    }

    /// The jobs are stopped, and every second was run once.
    fn finish(&self) {
        self.ids.iter().for_each(|id| self.cluster.stop_job(*id));
        for id in &self.ids {
            let rows = self.cluster.check(*id, &self.seen, "x");
            let not_run = rows.iter().filter(|row| row["state"] != "ok" && row["state"] != "cancelled");
            assert_eq!(not_run.collect::<Vec<_>>(), Vec::<&serde_json::Value>::new());
        }
    }
}

/// Takes its agent from the leader, and gives it back when the node has been the next leader's for a while.
fn takes_the_leaders_agent(take: fn(&mut consul::Agent), give: fn(&mut consul::Agent)) {
    let Some(mut hosts) = Hosts::started() else { return };
    let former = hosts.cluster.leader();
    take(&mut hosts.agents[former]);
    let start = Instant::now();
    wait_until("another leads", || hosts.cluster.leader() != former);
    eprintln!("another leads after {:?}", start.elapsed());
    hosts.wait_member(former);
    let took = start.elapsed();
    eprintln!("the former leader gets runs after {took:?}");
    assert!(took < BACK_MAX, "{took:?}");
    give(&mut hosts.agents[former]);
    wait_until("its agent knows it again", || hosts.cluster.nodes[former].api.get("/health").ok()["consul_ok"] == true);
    hosts.wait_member(former);
    hosts.finish();
}

#[test]
fn a_leader_whose_agent_dies_follows_the_next_one() {
    takes_the_leaders_agent(consul::Agent::stop, consul::Agent::start);
}

#[test]
fn a_leader_whose_agent_hangs_follows_the_next_one() {
    takes_the_leaders_agent(|agent| agent.set_hanging(true), |agent| agent.set_hanging(false));
}

#[test]
fn a_node_that_is_started_while_its_agent_is_dead_joins() {
    let Some(mut hosts) = Hosts::started() else { return };
    let at = (hosts.cluster.leader() + 1) % 3;
    hosts.agents[at].stop();
    hosts.wait_member(at);
    assert!(hosts.cluster.nodes[at].stop().success());
    hosts.cluster.nodes[at].start();
    let start = Instant::now();
    hosts.wait_member(at);
    let took = start.elapsed();
    eprintln!("it gets runs after {took:?}");
    assert!(took < BACK_MAX, "{took:?}");
    hosts.finish();
}

#[test]
fn nodes_that_are_restarted_while_all_of_consul_is_away_join_the_leader_that_leads_on() {
    let Some(mut hosts) = Hosts::started() else { return };
    let leader = hosts.cluster.leader();
    hosts.server.stop();
    hosts.agents.iter_mut().for_each(consul::Agent::stop);
    for at in [(leader + 1) % 3, (leader + 2) % 3] {
        assert!(hosts.cluster.nodes[at].stop().success());
        hosts.cluster.nodes[at].start();
        hosts.wait_member(at);
    }
    assert_eq!(hosts.cluster.leader(), leader);
    hosts.finish();
}
