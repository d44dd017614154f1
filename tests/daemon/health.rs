//! What probes go by: `/health` tells the truth about the work itself.

use crate::support::api::Reply;
use crate::support::daemon::{Node, send_signal};
use crate::support::{mariadb, wait_until};
use rustix::process::Signal;
use serde_json::Value;
use wing_crontab::worker::clock;

/// What `/health` says for so long, many times a second.
fn health_for(secs: u64, node: &Node) -> Vec<Reply> {
    let start = clock::mono();
    let mut replies = Vec::new();
    wait_until("the time is over", || {
        replies.push(node.api.get("/health"));
        clock::mono().since(start).as_secs() >= secs
    });
    replies
}

fn message(reply: &Reply) -> &str {
    reply.body["message"].as_str().unwrap()
}

fn data<'a>(reply: &'a Reply, field: &str) -> &'a Value {
    &reply.body["data"][field]
}

#[track_caller]
fn wait_status(node: &Node, status: u16) {
    wait_until(&format!("/health answers {status}"), || node.api.get("/health").status == status);
}

/// Whether the node that leads has its store, as it tells the cluster.
fn store_ok(node: &Node) -> Value {
    node.api.get("/cluster").ok()["nodes"][0]["store_ok"].clone()
}

#[test]
fn a_healthy_daemon_with_nothing_to_do_is_never_called_ill_not_in_a_pause_either() {
    let (idle, paused) = (Node::started(""), Node::started(""));
    [&idle, &paused].iter().for_each(|node| wait_status(node, 200));
    paused.api.post("/cluster/pause", "").ok();
    let (of_idle, of_paused) = std::thread::scope(|scope| {
        let of_paused = scope.spawn(|| health_for(20, &paused));
        (health_for(20, &idle), of_paused.join().unwrap())
    });
    for reply in of_idle.iter().chain(&of_paused) {
        assert_eq!(reply.status, 200, "{}", reply.body);
        assert_eq!(data(reply, "store_ok"), true);
        // An entry comes at least every five seconds.
        assert!(data(reply, "journal_age_ms").as_u64().unwrap() < 10_000, "{}", reply.body);
    }
    assert!(of_idle.iter().all(|reply| data(reply, "watermark_lag_secs").as_u64().unwrap() < 5));
}

#[test]
fn a_journal_that_may_not_be_written_is_told_for_as_long_as_it_is_so() {
    let Some(database) = mariadb::database() else { return };
    assert!(Node::started(&database.toml()).stop().success(), "the tables are there");
    let database = database.limited();
    let node = Node::started(&database.toml());
    wait_status(&node, 200);
    database.forbid("INSERT", "journal");
    wait_status(&node, 503);
    let replies = health_for(12, &node);
    for reply in &replies {
        assert_eq!((reply.status, data(reply, "store_ok")), (503, &false.into()), "{}", reply.body);
        assert!(message(reply).contains("the journal has not been written for "), "{}", message(reply));
        assert!(message(reply).contains("INSERT command denied"), "{}", message(reply));
    }
    let ages: Vec<u64> = replies.iter().map(|reply| data(reply, "journal_age_ms").as_u64().unwrap()).collect();
    assert!(ages.is_sorted() && 12_000 <= ages[ages.len() - 1], "{ages:?}");
    let last = replies.last().unwrap();
    assert!(message(last).contains(&format!("for {} s", ages[ages.len() - 1] / 1_000)), "{}", message(last));
    assert!(data(last, "watermark_lag_secs").as_i64().unwrap() >= 5, "{}", last.body);
    assert_eq!(store_ok(&node), false);
    let cluster = node.api.get("/cluster").ok();
    assert!(
        cluster["journal_age_ms"].as_u64().unwrap() >= 12_000 && cluster["watermark_lag_secs"].as_i64().unwrap() >= 5
    );
    database.allow("INSERT", "journal");
    wait_status(&node, 200);
    assert_eq!(store_ok(&node), true);
}

#[test]
fn a_log_that_may_not_be_written_is_told_too() {
    let Some(database) = mariadb::database() else { return };
    assert!(Node::started(&database.toml()).stop().success(), "the tables are there");
    let database = database.limited();
    let node = Node::started(&database.toml());
    let id = node.api.add("* * * * * *", "true", "");
    wait_status(&node, 200);
    database.forbid("INSERT", "log");
    wait_status(&node, 503);
    node.api.get(&format!("/cron/stop/{id}")).ok();
    for reply in health_for(4, &node) {
        assert_eq!((reply.status, data(&reply, "store_ok")), (503, &false.into()), "{}", reply.body);
        assert!(
            message(&reply).contains("log rows") && message(&reply).contains("INSERT command denied"),
            "{}",
            reply.body
        );
    }
    assert_eq!(store_ok(&node), false);
    database.allow("INSERT", "log");
    wait_status(&node, 200);
}

#[test]
fn a_database_that_hangs_is_told_by_a_daemon_that_stands_alone() {
    let Some(server) = mariadb::server() else { return };
    let node = Node::started(&server.database("utf8mb4").toml());
    wait_status(&node, 200);
    send_signal(Signal::STOP, server.pid());
    wait_status(&node, 503);
    let replies = health_for(3, &node);
    assert!(
        replies.iter().all(|reply| message(reply).contains("the journal has not been written for ")),
        "{replies:?}"
    );
    send_signal(Signal::CONT, server.pid());
    wait_status(&node, 200);
}
