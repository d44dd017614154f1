//! Nodes that are killed, stopped and woken under load. What the jobs wrote down is the truth.

use crate::support::cluster::{Cluster, overlap_max_of_ended, ran_or_was_cancelled};
use crate::support::process::{children, send_signal};
use crate::support::time::pass;
use crate::support::witness::Witness;
use crate::support::{wait_for, wait_to_see, wait_until};
use rustix::process::Signal;

/// Which node suffers the fault.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Leader,
    Worker,
}

/// A cluster with so many jobs of every second, once they run.
fn under_load(jobs: usize) -> Option<(Cluster, Witness, Vec<u64>)> {
    let cluster = Cluster::started(3)?;
    let witness = cluster.witness("seen");
    let ids = cluster.add_several(jobs, &witness.write("x"));
    witness.wait_count("x", jobs * 3);
    Some((cluster, witness, ids))
}

/// Lets some more seconds pass, stops the jobs, and checks that each second of each job has one outcome. Gives the number
/// of runs that failed or were lost.
fn finish(cluster: &Cluster, witness: &Witness, ids: &[u64]) -> usize {
    witness.wait_for_second(witness.last_second().unwrap() + 4);
    cluster.stop_jobs(ids);
    let not_ok = |id: &u64| {
        let rows = cluster.check(*id, witness, "x");
        let not_ok = rows.iter().filter(|row| !ran_or_was_cancelled(row));
        not_ok.map(|row| eprintln!("not run: {row}")).count()
    };
    ids.iter().map(not_ok).sum()
}

fn victim(cluster: &Cluster, victim: Victim) -> usize {
    let leader = cluster.leader();
    match victim {
        Victim::Leader => leader,
        Victim::Worker => (leader + 1) % cluster.nodes.len(),
    }
}

#[test]
fn a_daemon_that_is_killed_loses_at_most_what_it_ran() {
    for who in [Victim::Leader, Victim::Worker] {
        let Some((cluster, witness, ids)) = under_load(4) else { return };
        for _ in 0..3 {
            let at = victim(&cluster, who);
            cluster.nodes[at].kill_daemon();
            witness.wait_more("x", 12);
            cluster.wait_alive(3);
        }
        let lost = finish(&cluster, &witness, &ids);
        assert!(lost <= 4 * 3, "{who:?}: {lost} runs are lost, more than there were at once");
    }
}

#[test]
fn a_guardian_that_is_killed_takes_its_node_with_it_and_the_others_go_on() {
    for who in [Victim::Leader, Victim::Worker] {
        let Some((mut cluster, witness, ids)) = under_load(4) else { return };
        let at = victim(&cluster, who);
        cluster.nodes[at].signal(Signal::KILL);
        cluster.nodes[at].wait();
        witness.wait_more("x", 12);
        cluster.nodes[at].start();
        cluster.wait_alive(3);
        let lost = finish(&cluster, &witness, &ids);
        assert!(lost <= 4, "{who:?}: {lost} runs are lost, more than there were at once");
    }
}

#[test]
fn a_node_that_is_killed_whole_loses_what_it_held_and_no_more() {
    for who in [Victim::Leader, Victim::Worker] {
        let Some((mut cluster, witness, ids)) = under_load(4) else { return };
        let at = victim(&cluster, who);
        cluster.nodes[at].kill_whole();
        witness.wait_more("x", 12);
        cluster.nodes[at].start();
        cluster.wait_alive(3);
        let lost = finish(&cluster, &witness, &ids);
        assert!(lost <= 8, "{who:?}: {lost} runs are lost, more than the node had");
    }
}

#[test]
fn a_node_that_is_stopped_and_woken_starts_nothing_that_others_have_started() {
    for (who, seconds) in [(Victim::Leader, 2), (Victim::Leader, 13), (Victim::Worker, 13)] {
        let Some((cluster, witness, ids)) = under_load(3) else { return };
        let at = victim(&cluster, who);
        cluster.nodes[at].standing_still(|| pass(seconds));
        witness.wait_more("x", 9);
        cluster.wait_alive(3);
        let lost = finish(&cluster, &witness, &ids);
        assert!(lost <= 6, "{who:?} for {seconds} s: {lost} runs are lost, more than the node had");
    }
}

#[test]
fn a_mutex_holds_through_all_deaths_and_is_always_freed() {
    let Some(mut cluster) = Cluster::started(3) else { return };
    let witness = cluster.witness("seen");
    let id = cluster.add_every_second(&witness.around("sleep 0.7"), "is_mutex=1");
    witness.wait_count("end", 3);
    for round in 0..4 {
        let at = victim(&cluster, if round % 2 == 0 { Victim::Leader } else { Victim::Worker });
        if round < 2 {
            cluster.nodes[at].kill_daemon();
        } else {
            cluster.nodes[at].signal(Signal::KILL);
            cluster.nodes[at].wait();
            cluster.nodes[at].start();
        }
        witness.wait_more("end", 3);
    }
    cluster.stop_job(id);
    assert_eq!(overlap_max_of_ended(&witness), 1);
    witness.attempts("begin");
}

#[test]
fn nodes_that_are_stopped_in_good_order_one_after_the_other_lose_nothing() {
    let Some((mut cluster, witness, ids)) = under_load(4) else { return };
    for at in 0..3 {
        assert!(cluster.nodes[at].stop().success(), "{}", cluster.nodes[at].said());
        witness.wait_more("x", 8);
        cluster.nodes[at].start();
        cluster.wait_alive(3);
    }
    assert_eq!(finish(&cluster, &witness, &ids), 0);
}

#[test]
fn a_lost_worker_has_its_mutex_freed_when_its_lease_is_over() {
    let Some(mut cluster) = Cluster::started(2) else { return };
    let witness = cluster.witness("seen");
    let id = cluster.add_every_second(&witness.around("sleep 300"), "is_mutex=1");
    witness.wait_count("begin", 1);
    let server = |cluster: &Cluster, state: &str| {
        let rows = cluster.rows(id);
        rows.iter().find(|row| row["state"] == state).map(|row| row.run_server().to_string())
    };
    // The node that runs it is killed whole, and we kill the run: with a dead host it would be gone.
    let running = wait_for("a node that shows a run", || {
        let running = cluster.shown().into_iter().find(|node| node["running"] == 1)?;
        Some(running["server"].as_str()?.to_string())
    });
    let at = cluster.index_of(&running).unwrap();
    let runs = children(cluster.nodes[at].daemon_pid());
    cluster.nodes[at].kill_whole();
    runs.into_iter().for_each(|pid| send_signal(Signal::KILL, pid));
    witness.wait_count("begin", 2);
    assert_eq!(server(&cluster, "ok"), None);
    cluster.nodes[at].start();
    cluster.wait_alive(2);
    wait_to_see("the row of the lost run", || server(&cluster, "lost"), |lost| *lost == Some(running.clone()));
}

#[test]
fn nodes_that_are_stopped_all_at_once_end_when_their_leases_do() {
    let Some(mut cluster) = Cluster::started(2) else { return };
    let witness = cluster.witness("seen");
    for _ in 0..2 {
        cluster.add_every_second(&witness.around("sleep 200"), "is_mutex=1");
    }
    witness.wait_count("begin", 2);
    cluster.nodes.iter().for_each(|node| node.signal(Signal::TERM));
    for node in &mut cluster.nodes {
        wait_until("the node ends", || node.is_over());
        assert!(node.wait().success());
    }
}
