//! nginx in front of a cluster, with config/nginx.conf: a read is answered while any node can answer it, and a change
//! is never made twice.

use crate::support::api::{Api, Reply};
use crate::support::cluster::Cluster;
use crate::support::daemon::Node;
use crate::support::process::send_signal;
use crate::support::{mariadb, network, proxy, wait_to_see, wait_until};
use rustix::process::Signal;
use std::io::{BufRead, BufReader, Write};
use std::time::{Duration, Instant};

/// Adds some jobs through the proxy; gives the statuses of the answers.
fn add_some(api: &Api, word: &str) -> Vec<u16> {
    let add = |at| {
        let request =
            ureq::post(format!("http://{}/cron/add", api.address)).config().http_status_as_error(false).build();
        // nginx's own answers are no JSON.
        let form = [("cronSet", "0 0 0 1 1 *"), ("command", "true"), ("remark", &format!("{word}-{at}."))];
        request.send_form(form).expect("nginx answers").status().as_u16()
    };
    (0..6).map(add).collect()
}

/// How many jobs each of these requests has added.
fn added(api: &Api, word: &str) -> Vec<u64> {
    let count = |at| api.get(&format!("/cron/list?search={word}-{at}.&limit=10")).ok()["total"].as_u64().unwrap();
    (0..6).map(count).collect()
}

#[test]
fn a_dead_node_is_passed_over_by_reads_and_changes() {
    let Some(mut cluster) = Cluster::started(2) else { return };
    let Some(proxy) = proxy::proxy(&[&cluster.nodes[0].api, &cluster.nodes[1].api], |file| file) else { return };
    let follower = 1 - cluster.leader();
    cluster.nodes[follower].kill_whole();
    for _ in 0..6 {
        proxy.api.get("/cron/list").ok();
    }
    assert_eq!(add_some(&proxy.api, "dead"), [200; 6]);
    assert_eq!(added(&cluster.nodes[1 - follower].api, "dead"), [1; 6]);
}

#[test]
fn a_node_that_hangs_delays_reads_and_doubles_no_change() {
    let Some(cluster) = Cluster::started(2) else { return };
    let apis = [&cluster.nodes[0].api, &cluster.nodes[1].api];
    let quick = |file: String| file.replace("proxy_read_timeout 40s;", "proxy_read_timeout 1s;");
    let Some(proxy) = proxy::proxy(&apis, quick) else { return };
    let follower = 1 - cluster.leader();
    send_signal(Signal::STOP, cluster.nodes[follower].daemon_pid());
    // nginx tries the hanging node at most once a second.
    let mut statuses: Vec<u16> = Vec::new();
    wait_until("a change has gone to the node that hangs", || {
        proxy.api.get("/cron/list").ok();
        statuses = add_some(&proxy.api, &format!("hangs{}", statuses.len()));
        statuses.contains(&504)
    });
    send_signal(Signal::CONT, cluster.nodes[follower].daemon_pid());
    proxy.api.get("/cron/list").ok();
    cluster.wait_alive(2);
    let all = cluster.nodes[1 - follower].api.jobs();
    let mut remarks: Vec<&str> = all.iter().filter_map(|job| job["remark"].as_str()).collect();
    let count = remarks.len();
    remarks.sort();
    remarks.dedup();
    assert_eq!(remarks.len(), count, "a change was made twice: {all:?}");
}

#[test]
fn a_node_that_answers_503_is_passed_over_by_reads_alone() {
    let Some(database) = mariadb::database() else { return };
    let well = Node::started(&database.toml());
    // A node without Consul that never reaches its database.
    let mut sick = Node::new(&database.toml().replace(&database.port.to_string(), "1"));
    sick.launch();
    let is_sick = |reply: &Option<Reply>| reply.as_ref().is_some_and(|reply| reply.status == 503);
    wait_to_see("the sick node answers", || sick.api.try_get("/health"), is_sick);
    let Some(proxy) = proxy::proxy(&[&sick.api, &well.api], |file| file.replace("fail_timeout=1s", "max_fails=0"))
    else {
        return;
    };
    for _ in 0..6 {
        proxy.api.get("/cron/list").ok();
        proxy.api.get("/health").ok();
    }
    let statuses = add_some(&proxy.api, "sick");
    assert_eq!(
        statuses.iter().filter(|status| **status == 503).count(),
        3,
        "the nodes are not asked one after the other: {statuses:?}"
    );
    let made: Vec<u64> = statuses.iter().map(|status| u64::from(*status == 200)).collect();
    assert_eq!(added(&well.api, "sick"), made);
    let id = well.api.add_idle("true", "");
    let replies: Vec<Reply> = (0..2).map(|_| proxy.api.get(&format!("/cron/stop/{id}"))).collect();
    let mut statuses: Vec<u16> = replies.iter().map(|reply| reply.status).collect();
    statuses.sort();
    assert_eq!(statuses, [200, 503], "a change by GET was passed on to the other node");
}

/// The first line of the answer to a request for this host.
fn first_line(proxy: &str, host: &str) -> String {
    let mut stream = std::net::TcpStream::connect(proxy).unwrap();
    write!(stream, "GET /cron/list HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    BufReader::new(stream).lines().next().expect("nginx answers").unwrap()
}

#[test]
fn the_older_systems_proxy_on_another_host_needs_one_line_of_http_allow() {
    let Some(network) = network::network(1) else { return };
    // It has http_allow with the network of the proxy, and no other key about access.
    let mut node = Node::in_namespace(&network.namespace(0), &network.address(0), "");
    node.start();
    let Some(proxy) = proxy::proxy(&[&node.api], |file| file) else { return };
    assert!(first_line(&proxy.api.address, "wing.crontab.com").contains(" 200 "));
    let other = first_line(&proxy.api.address, "evil.example");
    assert!(other.contains(" 403 "), "a name that is not the proxy's: {other}");
}

#[test]
fn output_that_is_followed_comes_through_as_it_is_written() {
    let node = Node::started("");
    let Some(proxy) = proxy::proxy(&[&node.api], |file| file) else { return };
    let id = node.api.add_idle("echo first; sleep 5; echo last", "");
    let run = node.api.run_job(id);
    let start = Instant::now();
    let mut stream = std::net::TcpStream::connect(&proxy.api.address).unwrap();
    write!(stream, "GET /run/output/{run}?follow=1 HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    assert!(lines.any(|line| line == "first"));
    assert!(start.elapsed() < Duration::from_secs(4), "the first line came with the end of the run");
    assert!(lines.any(|line| line == "last"));
}
