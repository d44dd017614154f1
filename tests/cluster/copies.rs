//! What a new leader knows of the jobs: every change, whoever took it, and nothing that is gone.

use crate::Cluster;
use crate::support::api::{Api, Reply};
use crate::support::daemon::send_signal;
use crate::support::witness::Witness;
use crate::support::{mariadb, wait_until};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeSet;

/// The commands in the list of jobs, as a node tells it.
fn listed(api: &Api) -> BTreeSet<String> {
    let jobs = api.get("/cron/list").ok();
    jobs.as_array().unwrap().iter().map(|job| job["command"].as_str().unwrap().to_string()).collect()
}

/// Kills the leader whole; the place of the next one.
fn kill_leader(cluster: &mut Cluster) -> usize {
    let at = cluster.leader();
    let daemon = cluster.nodes[at].daemon_pid();
    send_signal(Signal::STOP, daemon);
    cluster.nodes[at].signal(Signal::KILL);
    send_signal(Signal::KILL, daemon);
    cluster.nodes[at].wait();
    let server = cluster.nodes[at].server.clone();
    wait_until("another leads", || cluster.view().is_some_and(|view| view["leader"] != server));
    cluster.leader()
}

/// A change after a node's death: the node may have died with a run of the job, and the answer then says so with 503.
#[track_caller]
fn is_in_force(reply: Reply) {
    match reply.status {
        200 => drop(reply.ok()),
        _ => reply.refused(503, "the change is stored and in force, but a node is cut off"),
    }
}

/// Waits until these words, and only these, are written with every second.
fn wait_only(witness: &Witness, words: &[&str]) {
    let last = || witness.read().iter().map(|seen| seen.scheduled_at).max().unwrap_or(0);
    let expect: BTreeSet<&str> = words.iter().copied().collect();
    let begin = last();
    wait_until(&format!("{words:?} run, each with every second"), || {
        let seen = witness.read();
        let end = last();
        begin + 6 < end
            && (end - 3..end).all(|second| {
                let of_second = seen.iter().filter(|seen| seen.scheduled_at == second);
                of_second.map(|seen| seen.word.as_str()).collect::<BTreeSet<&str>>() == expect
            })
    });
}

#[test]
fn a_new_leader_knows_every_change_that_was_answered() {
    let Some(mut cluster) = Cluster::started(3) else { return };
    let witness = cluster.witness("seen");
    let every = "* * * * * *";
    let [kept, changed, stopped, deleted] =
        ["kept", "old", "stopped", "deleted"].map(|word| cluster.add(every, &witness.write(word), ""));
    wait_only(&witness, &["kept", "old", "stopped", "deleted"]);
    // Each through another node, and the leader dies with the last answer.
    let follower = |cluster: &Cluster, at: usize| (cluster.leader() + 1 + at) % 3;
    let (one, other, leader) = (follower(&cluster, 0), follower(&cluster, 1), cluster.leader());
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("id", &changed.to_string())
        .append_pair("cronSet", every)
        .append_pair("command", &witness.write("new"))
        .finish();
    cluster.nodes[one].api.post("/cron/update", &form).ok();
    cluster.nodes[other].api.get(&format!("/cron/stop/{stopped}")).ok();
    cluster.nodes[leader].api.get(&format!("/cron/delete/{deleted}")).ok();
    cluster.nodes[one].api.add(every, &witness.write("added"), "");
    let next = kill_leader(&mut cluster);
    let expect = ["kept", "new", "stopped", "added"].map(|word| witness.write(word)).into_iter().collect();
    assert_eq!(listed(&cluster.nodes[next].api), expect);
    wait_only(&witness, &["kept", "new", "added"]);
    // The one that is left can change what it has only heard of.
    is_in_force(cluster.nodes[next].api.get(&format!("/cron/start/{stopped}")));
    is_in_force(cluster.nodes[next].api.get(&format!("/cron/delete/{kept}")));
    wait_only(&witness, &["new", "added", "stopped"]);
    witness.attempts("new");
}

#[test]
fn rows_edited_by_hand_are_known_to_the_next_leader_once_the_leader_was_told() {
    let Some(database) = mariadb::database() else { return };
    let Some(mut cluster) = Cluster::on(&database, 3) else { return };
    let witness = cluster.witness("seen");
    let every = "* * * * * *";
    let [edited, removed] = ["old", "removed"].map(|word| cluster.add(every, &witness.write(word), ""));
    wait_only(&witness, &["old", "removed"]);
    // Long enough for every copy to have the rows as they were.
    wait_only(&witness, &["old", "removed"]);
    database.run(&[
        &format!("UPDATE cron SET command = '{}' WHERE id = {edited}", witness.write("new")),
        &format!("DELETE FROM cron WHERE id = {removed}"),
        &format!("INSERT INTO cron (cron_set, command) VALUES ('{every}', '{}')", witness.write("inserted")),
    ]);
    let leader = cluster.leader();
    cluster.nodes[(leader + 1) % 3].signal(Signal::HUP);
    cluster.nodes[(leader + 1) % 3].wait_said("reload: this node does not lead");
    cluster.nodes[leader].signal(Signal::HUP);
    cluster.nodes[leader].wait_said("reloaded: 2 jobs changed or new, 1 gone");
    wait_only(&witness, &["new", "inserted"]);
    let next = kill_leader(&mut cluster);
    wait_only(&witness, &["new", "inserted"]);
    let again = kill_leader(&mut cluster);
    assert_ne!(again, next);
    wait_only(&witness, &["new", "inserted"]);
    assert_eq!(listed(&cluster.nodes[again].api), ["new", "inserted"].map(|word| witness.write(word)).into());
    witness.attempts("inserted");
}

#[test]
fn a_node_that_comes_later_may_lead_as_well() {
    let Some(mut cluster) = Cluster::started(2) else { return };
    let witness = cluster.witness("seen");
    let ids: Vec<u64> = (0..5).map(|_| cluster.add("* * * * * *", &witness.write("x"), "")).collect();
    wait_until("they run", || witness.count("x") >= 15);
    for _ in 0..3 {
        let next = kill_leader(&mut cluster);
        let shown = |value: &Value| value["id"].as_u64().unwrap();
        let jobs = cluster.nodes[next].api.get("/cron/list").ok();
        assert_eq!(jobs.as_array().unwrap().iter().map(shown).collect::<Vec<u64>>(), ids);
        let seen = witness.count("x");
        wait_until("it goes on", || seen + 15 <= witness.count("x"));
        cluster.nodes[1 - next].start();
        cluster.wait_alive(2);
    }
    ids.iter().for_each(|id| cluster.stop_job(*id));
    witness.attempts("x");
}
