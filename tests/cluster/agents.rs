//! Each node has a Consul agent of its own, as on hosts of their own. When an agent dies, or all of Consul, a node that
//! reaches the database and the leader stays in the cluster.

use crate::support::cluster::Cluster;
use crate::support::daemon::Node;
use crate::support::witness::Witness;
use crate::support::{cluster, consul, mariadb, wait_to_see};
use std::time::{Duration, Instant};

/// How many jobs run every second.
const JOBS: usize = 4;
/// How long a node may need to notice that its agent is away and to be back in the cluster: 3 s for that, as for a
/// takeover, and 3 s for each of two attempts to reach the leader.
const BACK_MAX: Duration = Duration::from_secs(12);

struct Hosts {
    cluster: Cluster,
    /// The runs; and, as the word of `places`, the node of each.
    seen: Witness,
    places: Witness,
    ids: Vec<u64>,
    // A struct's fields are dropped in order: the nodes, above, must end before their agents.
    agents: Vec<consul::Agent>,
    server: consul::Agent,
}

impl Hosts {
    /// Three nodes that run jobs, each with its own agent.
    fn started() -> Option<Hosts> {
        let (database, server) = (mariadb::database()?, consul::own_agent()?);
        let agents: Vec<consul::Agent> = (0..3).map(|_| server.client()).collect::<Option<_>>()?;
        let names = consul::Names::new();
        let node = |(at, agent): (usize, &consul::Agent)| {
            Node::new(&cluster::toml(agent, &names, &database)).env("PLACE", &format!("at{at}"))
        };
        let cluster = Cluster::of(agents.iter().enumerate().map(node).collect());
        let (seen, places) = (cluster.witness("seen"), cluster.witness("places"));
        let command = format!("{}; {}", seen.write("x"), places.write("$PLACE"));
        let ids = cluster.add_several(JOBS, &command);
        let hosts = Hosts { cluster, seen, places, ids, agents, server };
        (0..3).for_each(|at| hosts.wait_run(at));
        Some(hosts)
    }

    /// Waits until some more runs are made at that node.
    fn wait_run(&self, at: usize) {
        self.places.wait_more(&format!("at{at}"), 3);
    }

    /// Waits until the node is a full member: `/cluster` shows it, it gets runs, and it forwards changes.
    fn wait_member(&self, at: usize) {
        self.cluster.wait_state(&self.cluster.nodes[at].server, "alive");
        self.wait_run(at);
        let api = &self.cluster.nodes[at].api;
        let id = api.add_idle("true", "");
        api.delete_job(id);
    }

    /// Stops the jobs and checks that every second was run once.
    fn finish(&self) {
        self.cluster.stop_jobs(&self.ids);
        self.ids.iter().for_each(|id| self.cluster.check_all_ran(*id, &self.seen, "x"));
    }
}

/// Takes the leader's agent away, and gives it back when the node has become a follower.
fn takes_the_leaders_agent(take: fn(&mut consul::Agent), give: fn(&mut consul::Agent)) {
    let Some(mut hosts) = Hosts::started() else { return };
    let former = hosts.cluster.leader();
    take(&mut hosts.agents[former]);
    let start = Instant::now();
    hosts.cluster.wait_for_other_leader(former);
    eprintln!("another leads after {:?}", start.elapsed());
    hosts.wait_member(former);
    let took = start.elapsed();
    eprintln!("the former leader gets runs after {took:?}");
    assert!(took < BACK_MAX, "{took:?}");
    give(&mut hosts.agents[former]);
    let health = || hosts.cluster.nodes[former].api.get("/health").ok();
    wait_to_see("the former leader reaches its agent", health, |health| health["consul_ok"] == true);
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
    let at = hosts.cluster.follower();
    hosts.agents[at].stop();
    hosts.wait_member(at);
    hosts.cluster.restart(at);
    let start = Instant::now();
    hosts.wait_member(at);
    let took = start.elapsed();
    eprintln!("it gets runs after {took:?}");
    assert!(took < BACK_MAX, "{took:?}");
    hosts.finish();
}

#[test]
fn nodes_that_are_restarted_while_all_of_consul_is_away_join_the_same_leader() {
    let Some(mut hosts) = Hosts::started() else { return };
    let leader = hosts.cluster.leader();
    hosts.server.stop();
    hosts.agents.iter_mut().for_each(consul::Agent::stop);
    for at in [(leader + 1) % 3, (leader + 2) % 3] {
        hosts.cluster.restart(at);
        hosts.wait_member(at);
    }
    assert_eq!(hosts.cluster.leader(), leader);
    hosts.finish();
}
