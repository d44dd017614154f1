//! Reads are answered from memory where that is possible. A refused read has a message that does not mention changes.

use crate::support::api::{Api, Reply};
use crate::support::cluster::Cluster;
use crate::support::jobs::IDLE;
use crate::support::process::send_signal;
use crate::support::time::pass;
use crate::support::{mariadb, wait_to_see};
use rustix::process::Signal;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Every node answers these, whichever service is away.
const LISTS: [&str; 2] = ["/cron/list", "/cron/list?page=1&limit=2"];
/// A node that does not know the answer, or cannot find it out, refuses these.
const OTHERS: [&str; 6] =
    ["/cron/list?search=true", "/log/list?limit=1", "/run/list", "/run/output/1-1", "/cluster", "/health"];
/// Words of answers to changes.
const OF_CHANGES: [&str; 5] = ["changed", "change ", "carried out", "is stored", "is started"];

/// All answers of these nodes while something is done. A node that is gone gives none.
fn answers_during(apis: &[Api], act: impl FnOnce()) -> Vec<(&'static str, Reply)> {
    let (is_over, answers) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for (api, path) in apis.iter().flat_map(|api| LISTS.iter().chain(&OTHERS).map(move |path| (api, *path))) {
            let (is_over, answers) = (&is_over, &answers);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let reply = api.try_get(path).map(|reply| (path, reply));
                    answers.lock().unwrap().extend(reply);
                    // Nothing is waited for: this is how often the nodes are asked, for as long as the act takes.
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
        }
        act();
        is_over.store(true, Ordering::Relaxed);
    });
    answers.into_inner().unwrap()
}

/// Checks that the lists have the jobs `ids`, and that refusals do not speak of changes.
fn check(answers: &[(&'static str, Reply)], ids: &[u64]) {
    for (path, Reply { status, body }) in answers {
        if LISTS.contains(path) {
            assert_eq!(*status, 200, "{path}: {body}");
            let (list, count) = if path.contains("page") { (&body["data"]["list"], 2) } else { (&body["data"], 3) };
            let listed: Vec<u64> = list.as_array().unwrap().iter().map(|job| job["id"].as_u64().unwrap()).collect();
            assert_eq!(listed, ids[..count], "{path}");
        } else if *status != 200 {
            let message = body["message"].as_str().unwrap();
            assert!(OF_CHANGES.iter().all(|words| !message.contains(words)), "{path}: {status} {message}");
        }
    }
    assert!(LISTS.iter().all(|list| answers.iter().any(|(path, _)| path == list)));
}

fn apis(cluster: &Cluster) -> Vec<Api> {
    cluster.nodes.iter().map(|node| node.api.clone()).collect()
}

/// Adds three jobs, and checks that every node knows them.
fn jobs(cluster: &Cluster) -> Vec<u64> {
    let ids: Vec<u64> = (0..3).map(|_| cluster.add_idle("true", "")).collect();
    cluster.nodes.iter().for_each(|node| assert_eq!(node.api.jobs().len(), 3));
    ids
}

#[test]
fn every_node_lists_the_jobs_while_the_database_is_away() {
    let Some(mut server) = mariadb::server() else { return };
    let database = server.database("utf8mb4");
    let Some(cluster) = Cluster::on(&database, 3) else { return };
    let ids = jobs(&cluster);
    let answers = answers_during(&apis(&cluster), || {
        for is_gentle in [true, false] {
            server.stop(is_gentle);
            pass(5);
            server.start();
            pass(3);
        }
        send_signal(Signal::STOP, server.pid());
        pass(6);
        send_signal(Signal::CONT, server.pid());
        pass(3);
    });
    check(&answers, &ids);
    let of_searches = || answers.iter().filter(|(path, _)| path.contains("search"));
    let refused = of_searches().filter(|(_, reply)| reply.status == 503);
    let says_what_works = |reply: &Reply| reply.message().contains("/cron/list without search");
    assert!(refused.clone().count() != 0 && refused.clone().all(|(_, reply)| says_what_works(reply)));
    // After an outage, too, a change through one node is in the others' lists at once.
    let update = || cluster.nodes[0].api.update(ids[0], IDLE, "new");
    wait_to_see("an update is taken again", update, |reply| reply.status == 200);
    for node in &cluster.nodes {
        assert_eq!(node.api.jobs()[0]["command"], "new");
    }
}

#[test]
fn every_node_lists_the_jobs_while_the_lead_changes_hands() {
    let Some(mut cluster) = Cluster::started(3) else { return };
    let ids = jobs(&cluster);
    let api = &cluster.nodes[0].api;
    api.update(ids[0], IDLE, "sleep 2").ok();
    // Each node gets a run, so that a leader that gets TERM goes on until its run has ended.
    for _ in 0..3 {
        api.run_job(ids[0]);
    }
    api.wait_for_runs("running", 3);
    let leader = cluster.leader();
    let answers = answers_during(&apis(&cluster), || {
        cluster.nodes[leader].signal(Signal::TERM);
        pass(4);
    });
    check(&answers, &ids);
    cluster.nodes[leader].wait();
    cluster.nodes[leader].start();
    cluster.wait_alive(3);
    let leader = cluster.leader();
    let others: Vec<Api> =
        apis(&cluster).into_iter().filter(|api| api.address != cluster.nodes[leader].api.address).collect();
    let answers = answers_during(&others, || {
        cluster.nodes[leader].kill_whole();
        pass(3);
    });
    check(&answers, &ids);
}
