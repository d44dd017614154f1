//! Nodes that are killed, stopped and woken, under load: the jobs' own witness is the truth.

use crate::Cluster;
use crate::support::daemon::send_signal;
use crate::support::witness::Witness;
use crate::support::{wait_for, wait_until};
use rustix::process::Signal;

/// Who is hit.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Leader,
    Worker,
}

/// A cluster with every-second jobs that are running.
fn under_load(jobs: usize) -> Option<(Cluster, Witness, Vec<u64>)> {
    let cluster = Cluster::started(3)?;
    let witness = cluster.witness("seen");
    let ids = (0..jobs).map(|_| cluster.add("* * * * * *", &witness.write("x"), "")).collect();
    wait_until("they run", || witness.count("x") >= jobs * 3);
    Some((cluster, witness, ids))
}

/// Lets some more seconds pass, stops the jobs, and checks that each second of each job has its one outcome. Answers how
/// many were not run.
fn finish(cluster: &Cluster, witness: &Witness, ids: &[u64]) -> usize {
    let last = witness.read().iter().map(|seen| seen.scheduled_at).max().unwrap();
    wait_until("it goes on", || witness.read().iter().any(|seen| last + 4 <= seen.scheduled_at));
    ids.iter().for_each(|id| cluster.stop_job(*id));
    let not_ok = |id: &u64| {
        let rows = cluster.check(*id, witness, "x");
        let not_ok = rows.iter().filter(|row| row["state"] != "ok" && row["state"] != "cancelled");
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
            send_signal(Signal::KILL, cluster.nodes[at].daemon_pid());
            let seen = witness.count("x");
            wait_until("it goes on", || seen + 12 <= witness.count("x"));
            cluster.wait_alive(3);
        }
        let lost = finish(&cluster, &witness, &ids);
        assert!(lost <= 4 * 3, "{who:?}: only what was running can be lost: {lost}");
    }
}

#[test]
fn a_guardian_that_is_killed_takes_its_node_with_it_and_the_others_go_on() {
    for who in [Victim::Leader, Victim::Worker] {
        let Some((mut cluster, witness, ids)) = under_load(4) else { return };
        let at = victim(&cluster, who);
        cluster.nodes[at].signal(Signal::KILL);
        cluster.nodes[at].wait();
        let seen = witness.count("x");
        wait_until("it goes on", || seen + 12 <= witness.count("x"));
        cluster.nodes[at].start();
        cluster.wait_alive(3);
        let lost = finish(&cluster, &witness, &ids);
        assert!(lost <= 4, "{who:?}: only what was running can be lost: {lost}");
    }
}

#[test]
fn a_node_that_is_killed_whole_loses_what_it_held_and_no_more() {
    for who in [Victim::Leader, Victim::Worker] {
        let Some((mut cluster, witness, ids)) = under_load(4) else { return };
        let at = victim(&cluster, who);
        cluster.nodes[at].kill_whole();
        let seen = witness.count("x");
        wait_until("it goes on", || seen + 12 <= witness.count("x"));
        cluster.nodes[at].start();
        cluster.wait_alive(3);
        let lost = finish(&cluster, &witness, &ids);
        assert!(lost <= 8, "{who:?}: what it was sent within a second: {lost}");
    }
}

#[test]
fn a_node_that_is_stopped_and_woken_starts_nothing_that_others_have_started() {
    for (who, seconds) in [(Victim::Leader, 2), (Victim::Leader, 13), (Victim::Worker, 13)] {
        let Some((cluster, witness, ids)) = under_load(3) else { return };
        let at = victim(&cluster, who);
        let pids = [cluster.nodes[at].daemon_pid(), cluster.nodes[at].guardian_pid()];
        let stopped_at = wing_crontab::worker::clock::mono();
        pids.iter().for_each(|pid| send_signal(Signal::STOP, *pid));
        wait_until("the time is over", || wing_crontab::worker::clock::mono().since(stopped_at).as_secs() >= seconds);
        pids.iter().rev().for_each(|pid| send_signal(Signal::CONT, *pid));
        let seen = witness.count("x");
        wait_until("it goes on", || seen + 9 <= witness.count("x"));
        cluster.wait_alive(3);
        let lost = finish(&cluster, &witness, &ids);
        assert!(lost <= 6, "{who:?} for {seconds} s: what it was sent within a second: {lost}");
    }
}

#[test]
fn a_mutex_holds_through_it_all_and_never_sticks() {
    let Some(mut cluster) = Cluster::started(3) else { return };
    let witness = cluster.witness("seen");
    let id = cluster.add("* * * * * *", &witness.around("sleep 0.7"), "is_mutex=1");
    wait_until("it runs", || witness.count("end") >= 3);
    for round in 0..4 {
        let at = victim(&cluster, if round % 2 == 0 { Victim::Leader } else { Victim::Worker });
        if round < 2 {
            send_signal(Signal::KILL, cluster.nodes[at].daemon_pid());
        } else {
            cluster.nodes[at].signal(Signal::KILL);
            cluster.nodes[at].wait();
            cluster.nodes[at].start();
        }
        let seen = witness.count("end");
        wait_until("it goes on", || seen + 3 <= witness.count("end"));
    }
    cluster.stop_job(id);
    let ended = witness.attempts("end").into_iter().collect();
    assert_eq!(crate::overlap_max(&witness, &ended), 1);
    witness.attempts("begin");
}

#[test]
fn nodes_that_are_stopped_in_good_order_one_after_the_other_lose_nothing() {
    let Some((mut cluster, witness, ids)) = under_load(4) else { return };
    for at in 0..3 {
        assert!(cluster.nodes[at].stop().success(), "{}", cluster.nodes[at].said());
        let seen = witness.count("x");
        wait_until("it goes on", || seen + 8 <= witness.count("x"));
        cluster.nodes[at].start();
        cluster.wait_alive(3);
    }
    assert_eq!(finish(&cluster, &witness, &ids), 0);
}

#[test]
fn a_lost_worker_has_its_mutex_freed_when_its_lease_is_over() {
    let Some(mut cluster) = Cluster::started(2) else { return };
    let witness = cluster.witness("seen");
    let id = cluster.add("* * * * * *", &witness.around("sleep 300"), "is_mutex=1");
    wait_until("it runs", || witness.count("begin") == 1);
    let server = |cluster: &Cluster, state: &str| {
        let rows = cluster.rows(id);
        rows.iter().find(|row| row["state"] == state).map(|row| row["run_server"].as_str().unwrap().to_string())
    };
    // Whoever has it is killed whole; what ran there is killed by us, as a dead host would.
    let running = wait_for("a node says that it runs one", || {
        let nodes = cluster.view()?["nodes"].as_array()?.clone();
        let running = nodes.iter().find(|node| node["running"] == 1)?;
        Some(running["server"].as_str()?.to_string())
    });
    let at = cluster.nodes.iter().position(|node| node.server == running).unwrap();
    let runs = crate::support::daemon::children(cluster.nodes[at].daemon_pid());
    cluster.nodes[at].kill_whole();
    runs.into_iter().for_each(|pid| send_signal(Signal::KILL, pid));
    wait_until("the other node runs the next one", || witness.count("begin") == 2);
    assert_eq!(server(&cluster, "ok"), None);
    cluster.nodes[at].start();
    cluster.wait_alive(2);
    wait_until("what was lost is told", || server(&cluster, "lost") == Some(running.clone()));
}

#[test]
fn nodes_that_are_stopped_all_at_once_end_when_their_leases_do() {
    let Some(mut cluster) = Cluster::started(2) else { return };
    let witness = cluster.witness("seen");
    for _ in 0..2 {
        cluster.add("* * * * * *", &witness.around("sleep 200"), "is_mutex=1");
    }
    wait_until("both run", || witness.count("begin") == 2);
    cluster.nodes.iter().for_each(|node| node.signal(Signal::TERM));
    for node in &mut cluster.nodes {
        wait_until("it is over", || node.is_over());
        assert!(node.wait().success());
    }
}
