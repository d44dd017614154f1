//! Strangers at the door of the cluster: rubbish, silence, another secret.

use crate::Cluster;
use crate::support::{wait_until, witness::Witness};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

fn closes(stream: &mut TcpStream) -> Duration {
    let start = Instant::now();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut bytes = [0; 4_096];
    while let Ok(1..) = stream.read(&mut bytes) {}
    start.elapsed()
}

#[test]
fn strangers_are_cut_and_cost_the_cluster_nothing() {
    let Some(cluster) = Cluster::started(2) else { return };
    let witness: Witness = cluster.witness("seen");
    cluster.add("* * * * * *", &witness.write("x"), "");
    let server = &cluster.nodes[cluster.leader()].server;
    for rubbish in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 64], &[255; 64], &[0, 0, 0, 2, 1, 2], b"\0\0\0\x22\x01\x01aaaa"]
    {
        let mut stream = TcpStream::connect(server).unwrap();
        stream.write_all(rubbish).unwrap();
        assert!(closes(&mut stream) < Duration::from_secs(50), "{rubbish:?}");
    }
    // Many that say nothing at all, and one that sends for ever.
    let mut silent: Vec<TcpStream> = (0..300).map(|_| TcpStream::connect(server).unwrap()).collect();
    let seen = witness.count("x");
    wait_until("it goes on", || seen + 3 <= witness.count("x"));
    silent.iter_mut().for_each(|stream| assert!(closes(stream) < Duration::from_secs(50)));
    assert_eq!(cluster.states("alive").map(|alive| alive.len()), Some(2));
}

#[test]
fn a_node_with_another_secret_is_no_part_of_it() {
    let Some(mut cluster) = Cluster::started(2) else { return };
    let follower = 1 - cluster.leader();
    assert!(cluster.nodes[follower].stop().success());
    cluster.nodes[follower].edit(|text| text.replace("of this test", "of another"));
    cluster.nodes[follower].start();
    wait_until("the leader says why", || cluster.nodes[1 - follower].said().contains("it has not our cluster_secret"));
    assert_eq!(
        cluster.nodes[1 - follower].api.get("/cluster").ok()["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|node| node["state"] == "alive")
            .count(),
        1
    );
    cluster.nodes[follower]
        .api
        .post("/cron/add", "cronSet=* * * * * *&command=true")
        .refused(503, "nothing was changed");
}
