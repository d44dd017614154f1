//! The output of a run can be read from any node, wherever the run is.

use crate::support::cluster::Cluster;
use crate::support::daemon::Node;
use crate::support::gate::Gate;
use crate::support::process::send_signal;
use crate::support::{wait_for, wait_to_see};
use rustix::process::Signal;
use serde_json::Value;
use std::thread::JoinHandle;

/// A run that waits at a gate, and the node that runs it.
struct Run {
    key: String,
    runner: usize,
    gate: Gate,
}

/// Starts a run on a node that does not lead. It writes a line, waits at its gate, and then does `rest`.
fn start_aside(cluster: &Cluster, rest: &str) -> Run {
    let leader = cluster.leader();
    for at in 0.. {
        let gate = Gate::new(cluster.folder.path().join(format!("gate-{at}")));
        let seen = cluster.folder.path().join(format!("seen-{at}"));
        let command = format!("echo $WING_RUN_KEY >> {}; echo before; {}; {rest}", seen.display(), gate.wait());
        let id = cluster.add_every_second(&command, "is_mutex=1");
        let key = wait_for("the key of a run that has begun", || {
            let text = std::fs::read_to_string(&seen).ok()?;
            Some(text.split_once('\n')?.0.to_string())
        });
        cluster.stop_job(id);
        let read = || cluster.nodes[0].api.get(&format!("/run/output/{key}")).ok();
        let output = wait_to_see("the run's first line", read, |output| output["next"] == 7);
        assert_eq!(output["output"], "before\n");
        let runner = output["server"].as_str().and_then(|server| cluster.index_of(server));
        let runner = runner.expect("one of the nodes has the run");
        if runner != leader {
            return Run { key, runner, gate };
        }
        gate.open();
    }
    unreachable!("the nodes get runs one after the other")
}

/// Follows the output from now on.
fn following(node: &Node, key: &str) -> JoinHandle<Vec<u8>> {
    let url = format!("http://{}/run/output/{key}?follow=1", node.api.address);
    let mut answer = ureq::get(url).call().expect("the stream begins");
    std::thread::spawn(move || {
        answer.body_mut().with_config().limit(1 << 30).read_to_vec().expect("the stream ends well")
    })
}

#[test]
fn every_node_streams_and_shows_the_output_of_a_run_on_another() {
    let Some(cluster) = Cluster::started(3) else { return };
    let run = start_aside(&cluster, "seq 1 100000; exit 3");
    let expect: String = (1..=100_000).map(|number| format!("{number}\n")).collect();
    let expect = format!("before\n{expect}[exit code 3]\n");
    let followers: Vec<_> = cluster.nodes.iter().map(|node| following(node, &run.key)).collect();
    run.gate.open();
    for follower in followers {
        assert!(follower.join().unwrap() == expect.as_bytes());
    }
    let told = |node: &Node| -> Value { node.api.get(&format!("/run/output/{}?from=588890", run.key)).ok() };
    for node in &cluster.nodes {
        let last = told(node);
        assert_eq!((&last["state"], &last["is_over"]), (&"failed".into(), &true.into()));
        assert_eq!(last["output"], expect[588_890..], "{last}");
        assert_eq!(last["server"], cluster.nodes[run.runner].server);
    }
    cluster.nodes[0].api.wait_for_row_of(&run.key);
    cluster.nodes[0].api.get("/run/output/7-1700000000").refused(404, "7-1700000000");
}

#[test]
fn a_stream_goes_on_when_the_leader_dies() {
    let Some(mut cluster) = Cluster::started(3) else { return };
    let run = start_aside(&cluster, "echo after");
    let leader = cluster.leader();
    let other = (0..3).find(|at| *at != leader && *at != run.runner).unwrap();
    let followers = [following(&cluster.nodes[other], &run.key), following(&cluster.nodes[run.runner], &run.key)];
    let dead = cluster.nodes.remove(leader);
    let (guardian, daemon) = (dead.guardian_pid(), dead.daemon_pid());
    [guardian, daemon].into_iter().for_each(|pid| send_signal(Signal::KILL, pid));
    let leads = |view: &Option<Value>| view.as_ref().is_some_and(|view| view["leader"] != dead.server);
    wait_to_see("another node leads", || cluster.view(), leads);
    run.gate.open();
    for follower in followers {
        assert_eq!(String::from_utf8(follower.join().unwrap()).unwrap(), "before\nafter\n");
    }
}

#[test]
fn a_node_that_does_not_answer_is_named() {
    let Some(cluster) = Cluster::started(3) else { return };
    let run = start_aside(&cluster, "echo after");
    let runner = &cluster.nodes[run.runner];
    let asked = &cluster.nodes[(0..3).find(|at| *at != run.runner).unwrap()];
    runner.standing_still(|| asked.api.get(&format!("/run/output/{}", run.key)).refused(503, &runner.server));
    run.gate.open();
    let state = wait_for("the state of the run that has ended", || {
        let reply = asked.api.get(&format!("/run/output/{}", run.key));
        (reply.status == 200 && reply.body["data"]["is_over"] == true).then(|| reply.body["data"]["state"].clone())
    });
    assert!(state == "ok" || state == "killed", "{state}");
}
