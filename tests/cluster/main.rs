//! Several nodes with one database and one Consul: nothing starts twice, nothing is missed, a mutex holds, whoever dies.

#[path = "../support/mod.rs"]
mod support;

mod agents;
mod changes;
mod copies;
mod disasters;
mod faults;
mod heals;
mod health;
mod hosts;
mod links;
mod output;
mod proxy;
mod reads;
mod store;
mod together;

use serde_json::Value;
use std::collections::BTreeSet;
use support::daemon::Node;
use support::witness::Witness;
use support::{consul, mariadb, wait_for, wait_until};

/// Nodes of one cluster.
struct Cluster {
    nodes: Vec<Node>,
    folder: tempfile::TempDir,
}

impl Cluster {
    /// Nodes that know each other and a leader.
    fn started(count: usize) -> Option<Cluster> {
        Cluster::on(&mariadb::database()?, count)
    }

    /// On a database of the test's own.
    fn on(database: &mariadb::Database, count: usize) -> Option<Cluster> {
        let agent = consul::agent()?;
        let (service, lock) = (consul::name(), consul::name());
        let toml = format!(
            "consul_address = \"{}\"\nservice_name = \"{service}\"\nlock_key = \"{lock}\"\ncluster_secret = \"of this test\"\n{}",
            agent.address(),
            database.toml()
        );
        let mut nodes: Vec<Node> = (0..count).map(|_| Node::new(&toml)).collect();
        nodes.iter_mut().for_each(Node::start);
        let cluster = Cluster { nodes, folder: tempfile::tempdir().unwrap() };
        cluster.wait_alive(count);
        Some(cluster)
    }

    /// Waits until some node shows so many that are alive.
    fn wait_alive(&self, count: usize) {
        wait_until(&format!("{count} nodes are alive"), || {
            self.states("alive").is_some_and(|alive| alive.len() == count)
        });
    }

    /// The servers that the leader shows in a state, as any node that answers tells it.
    fn states(&self, state: &str) -> Option<BTreeSet<String>> {
        let view = self.view()?;
        let nodes = view["nodes"].as_array()?.iter().filter(|node| node["state"] == state);
        Some(nodes.filter_map(|node| node["server"].as_str().map(String::from)).collect())
    }

    fn view(&self) -> Option<Value> {
        self.nodes.iter().find_map(|node| {
            let reply = node.api.try_get("/cluster")?;
            (reply.status == 200).then(|| reply.body["data"].clone())
        })
    }

    /// The place of the node that leads, among `nodes`.
    fn leader(&self) -> usize {
        wait_for("a leader that is known", || {
            let leader = self.view()?["leader"].as_str()?.to_string();
            self.nodes.iter().position(|node| node.server == leader)
        })
    }

    fn witness(&self, name: &str) -> Witness {
        Witness::new(self.folder.path(), name)
    }

    /// Adds a job through any node, as often as it takes.
    fn add(&self, cron_set: &str, command: &str, rest: &str) -> u64 {
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("cronSet", cron_set)
            .append_pair("command", command)
            .finish();
        let reply = self.nodes[0].api.post("/cron/add", &format!("{form}&{rest}"));
        reply.ok()["id"].as_u64().unwrap()
    }

    /// The log rows of a job, by any node that answers.
    fn rows(&self, id: u64) -> Vec<Value> {
        wait_for("a node tells the log", || {
            self.nodes.iter().find_map(|node| {
                let reply = node.api.try_get(&format!("/log/list?limit=10000&cron_id={id}"))?;
                (reply.status == 200).then(|| reply.body["data"]["list"].as_array().cloned().unwrap_or_default())
            })
        })
    }

    fn stop_job(&self, id: u64) {
        wait_until("the job is stopped", || {
            self.nodes
                .iter()
                .any(|node| node.api.try_get(&format!("/cron/stop/{id}")).is_some_and(|reply| reply.status == 200))
        });
    }

    /// Waits until every second that the job saw has one row, and holds the log against what the job wrote: what the
    /// log calls ok was run, what was run is in the log, and only what `may` name in `lost` was not.
    fn check(&self, id: u64, witness: &Witness, word: &str) -> Vec<Value> {
        let started: BTreeSet<String> = witness.attempts(word).into_iter().collect();
        let of_job = |attempt: &String| attempt.starts_with(&format!("{id}-"));
        let started: BTreeSet<String> = started.into_iter().filter(of_job).collect();
        let second = |attempt: &String| -> i64 {
            attempt.split_once('-').unwrap().1.split_once('#').unwrap().0.parse().unwrap()
        };
        let (first, last) = (started.iter().map(second).min().unwrap(), started.iter().map(second).max().unwrap());
        let rows = wait_for("every second has its one row", || {
            let rows = self.rows(id);
            let has_one = |at: i64| rows.iter().filter(|row| row["time"] == at).count() == 1;
            (first..=last).all(has_one).then_some(rows)
        });
        for row in &rows {
            let attempt = format!("{}#1", row["run_key"].as_str().unwrap());
            let was_started = started.contains(&attempt);
            match row["state"].as_str().unwrap() {
                "ok" => assert!(was_started, "{row} was not run"),
                "lost" | "failed" | "killed" => {}
                _ => assert!(!was_started, "{row} was run"),
            }
        }
        rows
    }
}

/// The largest number of runs that were between `begin` and `end` at one time; a run that never wrote `end` counts as over
/// when the next one began.
fn overlap_max(witness: &Witness, ended: &BTreeSet<String>) -> i32 {
    let seen = witness.read();
    let mut events: Vec<(i128, i32)> = Vec::new();
    for begin in seen.iter().filter(|seen| seen.word == "begin" && ended.contains(&seen.attempt)) {
        let end = seen.iter().find(|seen| seen.word == "end" && seen.attempt == begin.attempt).unwrap();
        events.extend([(begin.at_ns, 1), (end.at_ns, -1)]);
    }
    events.sort();
    let mut running = 0;
    events.iter().fold(0, |most, (_, change)| {
        running += change;
        most.max(running)
    })
}
