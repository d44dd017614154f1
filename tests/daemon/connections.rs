//! The database closes idle connections, or an operator ends them: no call is refused because of that.

use crate::support::daemon::Node;
use crate::support::jobs::IDLE;
use crate::support::{mariadb, wait_to_see};

/// Calls that read and calls that change something. The ones that post come with their form.
fn calls(id: u64) -> Vec<(String, Option<String>)> {
    let get = |path: &str| (path.to_string(), None);
    let post = |path: &str, form: String| (path.to_string(), Some(form));
    vec![
        get("/log/list?limit=1"),
        get("/log/list?search=x"),
        get("/cron/list?search=x"),
        get("/cron/list"),
        post("/cron/update", format!("id={id}&cronSet={IDLE}&command=true")),
        post("/cron/add", format!("cronSet={IDLE}&command=true")),
        get(&format!("/cron/stop/{id}")),
        get(&format!("/cron/start/{id}")),
        post(&format!("/cron/run/{id}"), String::new()),
        post("/cluster/pause", String::new()),
        post("/cluster/resume", String::new()),
        get(&format!("/cron/delete/{id}")),
        get("/cron/list?page=1&limit=1"),
    ]
}

/// Closes the connections before each call. No call is refused or carried out twice, and stderr has no warning.
fn check(node: &Node, close: impl Fn()) {
    let id = node.api.add_idle("true", "");
    for (path, form) in calls(id) {
        close();
        let reply = form.map_or_else(|| node.api.get(&path), |form| node.api.post(&path, &form));
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
        let health = node.api.get("/health");
        assert_eq!(health.status, 200, "after {path}: {}", health.body);
        // The next close must not interrupt the statement that writes the run's row: that would give a warning.
        if path.starts_with("/cron/run/") {
            node.api.wait_for_first_row(id);
        }
    }
    assert_eq!(node.api.rows(id).len(), 1);
    assert_eq!(node.api.jobs().len(), 1);
    let trouble = ["WARN", "ERROR", "wait"].map(|word| (word, node.said().contains(word)));
    assert!(trouble.iter().all(|(_, is_said)| !is_said), "{trouble:?}");
}

#[test]
fn the_first_call_after_idling_is_answered() {
    let Some(server) = mariadb::server() else { return };
    let database = server.database("utf8mb4");
    database.run(&["SET GLOBAL wait_timeout = 1, GLOBAL interactive_timeout = 1"]);
    let node = Node::started(&database.toml());
    check(&node, || drop(wait_to_see("no connections", || database.connections(), Vec::is_empty)));
}

#[test]
fn a_call_after_every_connection_was_ended_is_answered() {
    let Some(database) = mariadb::database() else { return };
    let node = Node::started(&database.toml());
    check(&node, || database.end_connections());
}
