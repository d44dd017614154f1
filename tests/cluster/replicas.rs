//! A new leader knows the jobs from its replica: every change, whichever node took it, and no job that was deleted.

use crate::support::api::{Api, Reply};
use crate::support::cluster::Cluster;
use crate::support::jobs::EVERY_SECOND;
use crate::support::process::send_signal;
use crate::support::witness::{Seen, Witness};
use crate::support::{mariadb, wait_to_see};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeSet;

/// The commands in the list of jobs, as a node tells it.
fn listed(api: &Api) -> BTreeSet<String> {
    api.jobs().iter().map(|job| job["command"].as_str().unwrap().to_string()).collect()
}

/// Kills the leader, its daemon and its guardian; gives the next leader.
fn kill_leader(cluster: &mut Cluster) -> usize {
    let at = cluster.leader();
    let daemon = cluster.nodes[at].daemon_pid();
    send_signal(Signal::STOP, daemon);
    cluster.nodes[at].signal(Signal::KILL);
    send_signal(Signal::KILL, daemon);
    cluster.nodes[at].wait();
    cluster.wait_for_other_leader(at)
}

/// Checks the answer to a change after a node's death. If the node died with a run of the job, the answer says so with
/// 503.
#[track_caller]
fn is_in_force(reply: Reply) {
    match reply.status {
        200 => drop(reply.ok()),
        _ => reply.refused(503, "the change is stored and in force, but a node is cut off"),
    }
}

/// Waits until these words, and no others, are written in every second.
fn wait_only(witness: &Witness, words: &[&str]) {
    let expect: BTreeSet<String> = words.iter().map(|word| word.to_string()).collect();
    let words_of = |seen: &[Seen], second: i64| -> BTreeSet<String> {
        seen.iter().filter(|seen| seen.scheduled_at == second).map(|seen| seen.word.clone()).collect()
    };
    let begin = witness.last_second().unwrap_or(0);
    // The last seconds that are surely over, with what was written for each.
    let look = || -> Vec<(i64, BTreeSet<String>)> {
        let seen = witness.read();
        let end = witness.last_second().unwrap_or(0);
        (end - 3..end).map(|second| (second, words_of(&seen, second))).collect()
    };
    let is_so =
        |last: &[(i64, BTreeSet<String>)]| last.iter().all(|(second, words)| begin + 3 < *second && *words == expect);
    wait_to_see(&format!("three seconds of {words:?}"), look, |last| is_so(last));
}

#[test]
fn a_new_leader_knows_every_change_that_was_answered() {
    let Some(mut cluster) = Cluster::started(3) else { return };
    let witness = cluster.witness("seen");
    let [kept, changed, stopped, deleted] =
        ["kept", "old", "stopped", "deleted"].map(|word| cluster.add_every_second(&witness.write(word), ""));
    wait_only(&witness, &["kept", "old", "stopped", "deleted"]);
    // Each change goes through another node, and the leader dies when the last one is answered.
    let leader = cluster.leader();
    let (one, other) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.nodes[one].api.update(changed, EVERY_SECOND, &witness.write("new")).ok();
    cluster.nodes[other].api.stop_job(stopped);
    cluster.nodes[leader].api.delete_job(deleted);
    cluster.nodes[one].api.add_every_second(&witness.write("added"), "");
    let next = kill_leader(&mut cluster);
    let expect = ["kept", "new", "stopped", "added"].map(|word| witness.write(word)).into_iter().collect();
    assert_eq!(listed(&cluster.nodes[next].api), expect);
    wait_only(&witness, &["kept", "new", "added"]);
    // The node that leads now can change jobs that it knows only from the former leader.
    is_in_force(cluster.nodes[next].api.get(&format!("/cron/start/{stopped}")));
    is_in_force(cluster.nodes[next].api.get(&format!("/cron/delete/{kept}")));
    wait_only(&witness, &["new", "added", "stopped"]);
    witness.attempts("new");
}

#[test]
fn rows_edited_by_hand_are_known_to_the_next_leader_once_the_leader_has_reloaded() {
    let Some(database) = mariadb::database() else { return };
    let Some(mut cluster) = Cluster::on(&database, 3) else { return };
    let witness = cluster.witness("seen");
    let [edited, removed] = ["old", "removed"].map(|word| cluster.add_every_second(&witness.write(word), ""));
    wait_only(&witness, &["old", "removed"]);
    // Once the jobs run everywhere, every replica has the rows as they were.
    wait_only(&witness, &["old", "removed"]);
    database.run(&[
        &format!("UPDATE cron SET command = '{}' WHERE id = {edited}", witness.write("new")),
        &format!("DELETE FROM cron WHERE id = {removed}"),
        &format!("INSERT INTO cron (cron_set, command) VALUES ('{EVERY_SECOND}', '{}')", witness.write("inserted")),
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
    let ids = cluster.add_several(5, &witness.write("x"));
    witness.wait_count("x", 15);
    for _ in 0..3 {
        let next = kill_leader(&mut cluster);
        let shown = |value: &Value| value["id"].as_u64().unwrap();
        let jobs = cluster.nodes[next].api.jobs();
        assert_eq!(jobs.iter().map(shown).collect::<Vec<u64>>(), ids);
        witness.wait_more("x", 15);
        cluster.nodes[1 - next].start();
        cluster.wait_alive(2);
    }
    cluster.stop_jobs(&ids);
    witness.attempts("x");
}
