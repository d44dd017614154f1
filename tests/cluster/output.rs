//! Output is read from any node, wherever the run is.

use crate::Cluster;
use crate::support::daemon::{Node, children, send_signal};
use crate::support::{wait_for, wait_until};
use rustix::process::Signal;
use serde_json::Value;
use std::path::PathBuf;
use std::thread::JoinHandle;

/// A run, where it is, and what lets it go on.
struct Run {
    key: String,
    runner: usize,
    gate: PathBuf,
}

/// A run on a node that does not lead. It writes a line before the gate and `rest` after it.
fn start_aside(cluster: &Cluster, rest: &str) -> Run {
    let leader = cluster.leader();
    for at in 0.. {
        let (gate, seen) =
            (cluster.folder.path().join(format!("gate-{at}")), cluster.folder.path().join(format!("seen-{at}")));
        let command = format!(
            "echo $WING_RUN_KEY >> {}; echo before; while [ ! -e {} ]; do sleep 0.05; done; {rest}",
            seen.display(),
            gate.display()
        );
        let id = cluster.add("* * * * * *", &command, "is_mutex=1");
        let key = wait_for("it begins", || {
            let text = std::fs::read_to_string(&seen).ok()?;
            Some(text.split_once('\n')?.0.to_string())
        });
        cluster.stop_job(id);
        let output = wait_for("its first line", || {
            Some(cluster.nodes[0].api.get(&format!("/run/output/{key}")).ok()).filter(|output| output["next"] == 7)
        });
        assert_eq!(output["output"], "before\n");
        let runner = cluster.nodes.iter().position(|node| output["server"] == node.server).expect("one of them has it");
        if runner != leader {
            return Run { key, runner, gate };
        }
        std::fs::write(&gate, "").unwrap();
    }
    unreachable!("every node gets its turn")
}

/// A stream that has begun.
fn following(node: &Node, key: &str) -> JoinHandle<Vec<u8>> {
    let url = format!("http://{}/run/output/{key}?follow=1", node.api.address);
    let mut answer = ureq::get(url).call().expect("it is answered");
    std::thread::spawn(move || {
        answer.body_mut().with_config().limit(1 << 30).read_to_vec().expect("it ends as it should")
    })
}

#[test]
fn every_node_streams_and_tells_what_another_runs() {
    let Some(cluster) = Cluster::started(3) else { return };
    let run = start_aside(&cluster, "seq 1 100000; exit 3");
    let expect: String = (1..=100_000).map(|number| format!("{number}\n")).collect();
    let expect = format!("before\n{expect}[exit code 3]\n");
    let followers: Vec<_> = cluster.nodes.iter().map(|node| following(node, &run.key)).collect();
    std::fs::write(&run.gate, "").unwrap();
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
    wait_until("the row is there", || cluster.nodes[0].api.logs("").iter().any(|row| row["run_key"] == run.key));
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
    wait_until("another leads", || cluster.view().is_some_and(|view| view["leader"] != dead.server));
    std::fs::write(&run.gate, "").unwrap();
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
    let pids = [runner.guardian_pid(), runner.daemon_pid()];
    assert!(!children(pids[0]).is_empty());
    pids.into_iter().for_each(|pid| send_signal(Signal::STOP, pid));
    asked.api.get(&format!("/run/output/{}", run.key)).refused(503, &runner.server);
    pids.into_iter().rev().for_each(|pid| send_signal(Signal::CONT, pid));
    std::fs::write(&run.gate, "").unwrap();
    let state = wait_for("the run has ended", || {
        let reply = asked.api.get(&format!("/run/output/{}", run.key));
        (reply.status == 200 && reply.body["data"]["is_over"] == true).then(|| reply.body["data"]["state"].clone())
    });
    assert!(state == "ok" || state == "killed", "{state}");
}
