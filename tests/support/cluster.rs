//! Several nodes of one cluster, with one database and one Consul.
//!
//! A node is named by its index in `nodes`. A call to the cluster goes to any node that answers.

use super::consul::{self, Agent, Names};
use super::daemon::Node;
use super::jobs::has_one_row_each;
use super::mariadb::Database;
use super::row::Row;
use super::witness::{Seen, Witness, overlap_max};
use super::{wait_for, wait_to_see, wait_until};
use serde_json::Value;
use std::collections::BTreeSet;

/// The line of app.toml that makes nodes on different hosts one cluster.
pub const SECRET: &str = "cluster_secret = \"the secret of this test\"\n";

pub struct Cluster {
    pub nodes: Vec<Node>,
    pub folder: tempfile::TempDir,
}

impl Cluster {
    /// Nodes that know each other and a leader, on a database of their own.
    pub fn started(count: usize) -> Option<Cluster> {
        Cluster::on(&super::mariadb::database()?, count)
    }

    pub fn on(database: &Database, count: usize) -> Option<Cluster> {
        let toml = toml(consul::agent()?, &Names::new(), database);
        Some(Cluster::of((0..count).map(|_| Node::new(&toml)).collect()))
    }

    /// Starts these nodes and waits until all of them are alive.
    pub fn of(mut nodes: Vec<Node>) -> Cluster {
        nodes.iter_mut().for_each(Node::start);
        let cluster = Cluster { nodes, folder: tempfile::tempdir().expect("a folder can be made") };
        cluster.wait_alive(cluster.nodes.len());
        cluster
    }

    pub fn witness(&self, name: &str) -> Witness {
        Witness::new(self.folder.path(), name)
    }
}

/// The lines of app.toml of a node of a cluster.
pub fn toml(agent: &Agent, names: &Names, database: &Database) -> String {
    format!("{}{SECRET}{}", agent.toml(names), database.toml())
}

// The nodes and the leader.
impl Cluster {
    /// What `/cluster` shows, by the first node that answers.
    pub fn view(&self) -> Option<Value> {
        self.nodes.iter().find_map(|node| {
            let reply = node.api.try_get("/cluster")?;
            (reply.status == 200).then(|| reply.body["data"].clone())
        })
    }

    /// The nodes that `/cluster` shows; none where nobody answers.
    pub fn shown(&self) -> Vec<Value> {
        let view = self.view().unwrap_or_default();
        view["nodes"].as_array().cloned().unwrap_or_default()
    }

    /// The servers that are shown in this state.
    pub fn states(&self, state: &str) -> BTreeSet<String> {
        let nodes = self.shown().into_iter().filter(|node| node["state"] == state);
        nodes.filter_map(|node| node["server"].as_str().map(String::from)).collect()
    }

    /// Waits until so many nodes are shown as alive.
    #[track_caller]
    pub fn wait_alive(&self, count: usize) {
        wait_to_see(&format!("{count} nodes are alive"), || self.states("alive"), |alive| alive.len() == count);
    }

    /// Waits until this server is shown in this state.
    #[track_caller]
    pub fn wait_state(&self, server: &str, state: &str) {
        wait_to_see(&format!("{server} is {state}"), || self.states(state), |servers| servers.contains(server));
    }

    /// Waits until the nodes are shown as `is_wanted` wants them.
    #[track_caller]
    pub fn wait_shown(&self, what: &str, is_wanted: impl Fn(&[Value]) -> bool) {
        wait_to_see(what, || self.shown(), |nodes| is_wanted(nodes));
    }

    /// Waits until every node's `/health` answers with this status.
    #[track_caller]
    pub fn wait_health(&self, status: u16) {
        self.nodes.iter().for_each(|node| node.wait_health(status));
    }

    /// The index of the node that leads, once there is one.
    #[track_caller]
    pub fn leader(&self) -> usize {
        wait_for("a leader among the nodes", || self.known_leader())
    }

    fn known_leader(&self) -> Option<usize> {
        let leader = self.view()?["leader"].as_str()?.to_string();
        self.index_of(&leader)
    }

    /// Waits until another node leads than this one; gives its index.
    #[track_caller]
    pub fn wait_for_other_leader(&self, former: usize) -> usize {
        let is_other = |leader: &Option<usize>| leader.is_some_and(|leader| leader != former);
        let leader = wait_to_see(&format!("another leader than node {former}"), || self.known_leader(), is_other);
        leader.expect("it was seen")
    }

    /// A node that does not lead.
    #[track_caller]
    pub fn follower(&self) -> usize {
        (self.leader() + 1) % self.nodes.len()
    }

    pub fn index_of(&self, server: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.server == server)
    }

    /// The server of the node that leads.
    #[track_caller]
    pub fn leader_server(&self) -> &str {
        &self.nodes[self.leader()].server
    }

    #[track_caller]
    pub fn restart(&mut self, at: usize) {
        assert!(self.nodes[at].stop().success(), "{}", self.nodes[at].said());
        self.nodes[at].start();
    }
}

// Jobs and their rows.
impl Cluster {
    #[track_caller]
    pub fn add_every_second(&self, command: &str, rest: &str) -> u64 {
        self.nodes[0].api.add_every_second(command, rest)
    }

    #[track_caller]
    pub fn add_idle(&self, command: &str, rest: &str) -> u64 {
        self.nodes[0].api.add_idle(command, rest)
    }

    /// So many jobs of every second with the same command; gives their ids.
    #[track_caller]
    pub fn add_several(&self, count: usize, command: &str) -> Vec<u64> {
        (0..count).map(|_| self.add_every_second(command, "")).collect()
    }

    /// Stops the job through any node, as often as it takes.
    #[track_caller]
    pub fn stop_job(&self, id: u64) {
        let is_stopped_by =
            |node: &Node| node.api.try_get(&format!("/cron/stop/{id}")).is_some_and(|reply| reply.status == 200);
        wait_until(&format!("job {id} is stopped"), || self.nodes.iter().any(is_stopped_by));
    }

    #[track_caller]
    pub fn stop_jobs(&self, ids: &[u64]) {
        ids.iter().for_each(|id| self.stop_job(*id));
    }

    /// The job's rows, by any node that answers.
    #[track_caller]
    pub fn rows(&self, id: u64) -> Vec<Row> {
        wait_for("a node that reads the log", || {
            self.nodes.iter().find_map(|node| {
                let reply = node.api.try_get(&format!("/log/list?limit=10000&cron_id={id}"))?;
                let rows = reply.body["data"]["list"].as_array()?;
                (reply.status == 200).then(|| rows.iter().cloned().map(Row).collect())
            })
        })
    }

    /// Waits until the job has a row for each second from its first run to its last, and gives its rows. Compares them
    /// with what the runs wrote: a run that is `ok` in the log has written `word`, and a run that is skipped, missed or
    /// cancelled has not. A run that is lost, killed or failed may have written it or not.
    #[track_caller]
    pub fn check(&self, id: u64, witness: &Witness, word: &str) -> Vec<Row> {
        let mut started = witness.attempts(word);
        started.retain(|attempt| attempt.starts_with(&format!("{id}-")));
        let seconds = started.iter().map(|attempt| second_of(attempt));
        let (first, last) = (seconds.clone().min().expect("it ran"), seconds.max().expect("it ran"));
        let what = format!("one row of job {id} for each second from {first} to {last}");
        let rows = wait_to_see(&what, || self.rows(id), |rows| has_one_row_each(rows, first, last));
        for row in &rows {
            let was_started = started.contains(&row.attempt());
            match row.state() {
                "ok" => assert!(was_started, "{row} was not run"),
                "lost" | "failed" | "killed" => {}
                _ => assert!(!was_started, "{row} was run"),
            }
        }
        rows
    }

    /// Compares the job's rows with what its runs wrote, as `check` does; each run must be ok or cancelled.
    #[track_caller]
    pub fn check_all_ran(&self, id: u64, witness: &Witness, word: &str) {
        let mut rows = self.check(id, witness, word);
        rows.retain(|row| !ran_or_was_cancelled(row));
        assert_eq!(rows, [], "not run");
    }
}

pub fn ran_or_was_cancelled(row: &Row) -> bool {
    ["ok", "cancelled"].contains(&row.state())
}

/// The second of an attempt, which is written `JOB-SECOND#ATTEMPT`.
fn second_of(attempt: &str) -> i64 {
    let second = attempt.split_once('-').and_then(|(_, rest)| rest.split_once('#'));
    second.and_then(|(second, _)| second.parse().ok()).unwrap_or_else(|| panic!("no second in {attempt}"))
}

/// How many runs were between `begin` and `end` at one time, at most. A run that wrote no `end` was ended at an unknown
/// moment and does not count.
pub fn overlap_max_of_ended(witness: &Witness) -> i32 {
    let ended: BTreeSet<String> = witness.attempts("end").into_iter().collect();
    let seen: Vec<Seen> = witness.read().into_iter().filter(|seen| ended.contains(&seen.attempt)).collect();
    overlap_max(&seen)
}
