//! `/health` tells probes whether the node does its work, not only whether the process is up.

use crate::support::api::Reply;
use crate::support::daemon::Node;
use crate::support::mariadb;
use crate::support::mariadb::Database;
use crate::support::process::send_signal;
use rustix::process::Signal;
use serde_json::Value;
use std::time::{Duration, Instant};

/// The answers of `/health` over so many seconds, many of them in each.
fn health_for(secs: u64, node: &Node) -> Vec<Reply> {
    let (start, mut replies) = (Instant::now(), Vec::new());
    while start.elapsed() < Duration::from_secs(secs) {
        replies.push(node.api.get("/health"));
        // Nothing is waited for: the answers over a time are the thing tested.
        std::thread::sleep(Duration::from_millis(5));
    }
    replies
}

fn data<'a>(reply: &'a Reply, field: &str) -> &'a Value {
    &reply.body["data"][field]
}

/// Every answer is a 503 for the store, and says each of these words.
#[track_caller]
fn check_store_is_ill(replies: &[Reply], words: &[&str]) {
    for reply in replies {
        assert_eq!((reply.status, data(reply, "store_ok")), (503, &false.into()), "{}", reply.body);
        assert!(words.iter().all(|words| reply.message().contains(words)), "{words:?}: {}", reply.message());
    }
}

/// A daemon on this database with its tables made, and the same database for a user who may be forbidden to write.
fn node_with_limited_user(database: &Database) -> (Node, Database) {
    assert!(Node::started(&database.toml()).stop().success(), "the tables are made");
    let database = database.limited();
    let node = Node::started(&database.toml());
    node.wait_health(200);
    (node, database)
}

/// Whether the leader has its store, as `/cluster` shows it.
fn store_ok(node: &Node) -> Value {
    node.api.get("/cluster").ok()["nodes"][0]["store_ok"].clone()
}

#[test]
fn a_healthy_daemon_with_nothing_to_do_is_never_called_ill_even_in_a_pause() {
    let (idle, paused) = (Node::started(""), Node::started(""));
    [&idle, &paused].iter().for_each(|node| node.wait_health(200));
    paused.api.post("/cluster/pause", "").ok();
    let (of_idle, of_paused) = std::thread::scope(|scope| {
        let of_paused = scope.spawn(|| health_for(20, &paused));
        (health_for(20, &idle), of_paused.join().unwrap())
    });
    for reply in of_idle.iter().chain(&of_paused) {
        assert_eq!(reply.status, 200, "{}", reply.body);
        assert_eq!(data(reply, "store_ok"), true);
        // An entry is written at least every five seconds.
        assert!(data(reply, "journal_age_ms").as_u64().unwrap() < 10_000, "{}", reply.body);
    }
    assert!(of_idle.iter().all(|reply| data(reply, "watermark_lag_secs").as_u64().unwrap() < 5));
}

#[test]
fn a_journal_that_may_not_be_written_is_told_until_it_may() {
    let Some(database) = mariadb::database() else { return };
    let (node, database) = node_with_limited_user(&database);
    database.forbid("INSERT", "journal");
    node.wait_health(503);
    let replies = health_for(12, &node);
    check_store_is_ill(&replies, &["the journal has not been written for ", "INSERT command denied"]);
    let ages: Vec<u64> = replies.iter().map(|reply| data(reply, "journal_age_ms").as_u64().unwrap()).collect();
    assert!(ages.is_sorted() && 12_000 <= ages[ages.len() - 1], "{ages:?}");
    let last = replies.last().unwrap();
    assert!(last.message().contains(&format!("for {} s", ages[ages.len() - 1] / 1_000)), "{}", last.message());
    assert!(data(last, "watermark_lag_secs").as_i64().unwrap() >= 5, "{}", last.body);
    assert_eq!(store_ok(&node), false);
    let cluster = node.api.get("/cluster").ok();
    assert!(
        cluster["journal_age_ms"].as_u64().unwrap() >= 12_000 && cluster["watermark_lag_secs"].as_i64().unwrap() >= 5
    );
    database.allow("INSERT", "journal");
    node.wait_health(200);
    assert_eq!(store_ok(&node), true);
}

#[test]
fn a_log_that_may_not_be_written_is_told_until_it_may() {
    let Some(database) = mariadb::database() else { return };
    let (node, database) = node_with_limited_user(&database);
    let id = node.api.add_every_second("true", "");
    database.forbid("INSERT", "log");
    node.wait_health(503);
    node.api.stop_job(id);
    check_store_is_ill(&health_for(4, &node), &["log rows", "INSERT command denied"]);
    assert_eq!(store_ok(&node), false);
    database.allow("INSERT", "log");
    node.wait_health(200);
}

#[test]
fn a_database_that_hangs_is_told_by_a_daemon_that_stands_alone() {
    let Some(server) = mariadb::server() else { return };
    let node = Node::started(&server.database("utf8mb4").toml());
    node.wait_health(200);
    send_signal(Signal::STOP, server.pid());
    node.wait_health(503);
    let replies = health_for(3, &node);
    assert!(
        replies.iter().all(|reply| reply.message().contains("the journal has not been written for ")),
        "{replies:?}"
    );
    send_signal(Signal::CONT, server.pid());
    node.wait_health(200);
}
