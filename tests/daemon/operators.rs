//! The wishes of operators: a run now, a pause, another attempt after a failed or lost one, a limit of runs at once.

use crate::support::api::Reply;
use crate::support::daemon::Node;
use crate::support::time::{check_gapless, pass_until, second};
use crate::support::wait_to_see;
use crate::support::witness::{Witness, overlap_max};
use serde_json::{Value, json};

/// The job's attempts and how they ended, in their order, once there are so many.
fn attempts(node: &Node, id: u64, count: usize) -> Vec<(u64, String)> {
    // The daemon may be on its way up again.
    let rows = || node.api.try_rows(id).unwrap_or_default();
    let mut rows = wait_to_see(&format!("{count} rows of job {id}"), rows, |rows| rows.len() >= count);
    rows.reverse();
    rows.iter().map(|row| (row["attempt"].as_u64().unwrap(), row.state().into())).collect()
}

#[test]
fn a_run_is_started_now_even_of_a_stopped_job_and_once_for_each_key() {
    let node = Node::started("");
    let witness = node.witness("seen");
    let id = node.api.add_idle(&witness.write("x"), "stop=1");
    let first = node.api.run_job(id);
    assert!(first.starts_with(&format!("{id}-")) && first.contains("-m"), "{first}");
    assert_eq!(node.api.wait_for_row_of(&first)["state"], "ok");
    let again = |key: &str| node.api.post_as(key, &format!("/cron/run/{id}"), "").ok()["run_key"].clone();
    let keyed = again("k-1");
    assert_eq!(keyed, again("k-1"), "a proxy that repeats the request gets the first answer again");
    assert_ne!(keyed, again("k-2"));
    witness.wait_count("x", 3);
    assert_eq!(witness.attempts("x").len(), 3);
    node.api.post("/cron/run/999", "").refused(404, "no such job");
    node.api.post("/cron/run/x", "").refused(400, "id");
    node.api.post_as(&"k".repeat(201), &format!("/cron/run/{id}"), "").refused(400, "Idempotency-Key");
}

#[test]
fn a_key_names_one_request_and_is_refused_for_any_other() {
    let node = Node::started("");
    let id = node.api.add_idle("true", "");
    node.api.post_as("k-1", &format!("/cron/run/{id}"), "").ok();
    let form = "cronSet=* * * * * *&command=true&stop=1";
    let added = node.api.post_as("a-1", "/cron/add", form).ok();
    assert_eq!(added, node.api.post_as("a-1", "/cron/add", form).ok());
    assert_ne!(added["id"], node.api.post_as("a-2", "/cron/add", form).ok()["id"]);
    // A client that gives another request's key makes a mistake, and the answer says so.
    node.api.post_as("a-1", "/cron/add", &form.replace("true", "false")).refused(409, "Idempotency-Key");
    node.api.post_as("k-1", &format!("/cron/run/{}", added["id"]), "").refused(409, "Idempotency-Key");
    assert_eq!(node.api.jobs().len(), 3);
}

#[test]
fn running_and_waiting_runs_are_listed_and_a_manual_run_obeys_the_mutex() {
    let node = Node::started("max_pending_per_job = 1\n");
    let witness = node.witness("seen");
    let gate = node.gate();
    let id = node.api.add_idle(&witness.around(&gate.wait()), "is_mutex=1");
    let keys = [node.api.run_job(id), node.api.run_job(id)];
    node.api.post(&format!("/cron/run/{id}"), "").refused(503, "max_pending_per_job");
    let list = node.api.wait_for_runs("running", 1);
    assert_eq!(list.len(), 2, "{list:?}");
    let shown =
        |run: &Value| (run["run_key"].clone(), run["cron_id"].clone(), run["state"].clone(), run["attempt"].clone());
    assert_eq!(shown(&list[0]), (json!(keys[0]), json!(id), json!("running"), json!(1)));
    assert_eq!(shown(&list[1]), (json!(keys[1]), json!(id), json!("waiting"), json!(1)));
    assert!(
        list[0]["pid"].as_u64() > Some(1) && list[0]["seconds"].as_u64().is_some() && list[0]["server"] == node.server
    );
    assert_eq!((&list[1]["pid"], &list[1]["started"]), (&Value::Null, &Value::Null));
    node.api.kill_run(&keys[1]);
    assert_eq!(node.api.wait_for_row_of(&keys[1])["state"], "cancelled");
    gate.open();
    assert_eq!(node.api.wait_for_row_of(&keys[0])["state"], "ok");
    let nothing = json!({"list": [], "total": 0});
    wait_to_see("an empty list of runs", || node.api.get("/run/list").ok(), |list| *list == nothing);
    node.api.post(&format!("/run/kill/{}", keys[0]), "").refused(404, "neither runs nor waits");
    node.api.post("/run/kill/rubbish", "").refused(400, "run_key");
}

#[test]
fn a_failure_is_tried_again_after_delays_that_double_and_keeps_its_mutex_meanwhile() {
    let node = Node::started("");
    let witness = node.witness("seen");
    // The first two attempts fail.
    let command = format!("{}; [ $WING_ATTEMPT -ge 3 ]", witness.write("x"));
    let id = node.api.add_idle(&command, "is_mutex=1&retry_times=5&retry_delay=1");
    let key = node.api.run_job(id);
    node.api.wait_for_first_row(id);
    assert_eq!(witness.count("x"), 1);
    let second = node.api.run_job(id);
    assert_eq!(attempts(&node, id, 4)[..3], [(1, "failed".into()), (2, "failed".into()), (3, "ok".into())]);
    let seen: Vec<String> = witness.read().into_iter().map(|seen| seen.attempt).take(3).collect();
    assert_eq!(seen, [format!("{key}#1"), format!("{key}#2"), format!("{key}#3")], "{second} waits for all of them");
    let at: Vec<i128> = witness.read().iter().map(|seen| seen.at_ns).collect();
    assert!(at[2] - at[1] > at[1] - at[0], "the second delay is not longer: {at:?}");
    let last = node.api.add_idle("exit 4", "retry_times=1");
    node.api.run_job(last);
    assert_eq!(attempts(&node, last, 2), [(1, "failed".into()), (2, "failed".into())], "there is no third attempt");
    let is_gone = |runs: &Vec<Value>| runs.iter().all(|run| run["cron_id"] != last);
    wait_to_see(&format!("no run of job {last}"), || node.api.runs(), is_gone);
}

#[test]
fn a_retry_that_waits_outlives_the_daemon_and_is_cancelled_with_its_job() {
    let node = Node::started("");
    let witness = node.witness("seen");
    let id = node.api.add_idle(&format!("{}; exit 1", witness.write("x")), "retry_times=1&retry_delay=6");
    let other = node.api.add_idle("exit 1", "retry_times=1&retry_delay=3000");
    let (key, cancelled) = (node.api.run_job(id), node.api.run_job(other));
    attempts(&node, id, 1);
    attempts(&node, other, 1);
    let delayed = || {
        let reply = node.api.try_get("/run/list")?;
        let list = reply.body["data"]["list"].as_array()?.clone();
        Some(list.iter().filter(|run| run["state"] == "delayed").count())
    };
    wait_to_see("two retries that wait", delayed, |delayed| *delayed == Some(2));
    node.kill_daemon();
    wait_to_see("two retries that wait for the next daemon", delayed, |delayed| *delayed == Some(2));
    node.api.stop_job(other);
    assert_eq!(attempts(&node, other, 2)[1], (2, "cancelled".into()));
    node.api.post(&format!("/run/kill/{cancelled}"), "").refused(404, "neither runs nor waits");
    assert_eq!(attempts(&node, id, 2)[1], (2, "failed".into()));
    assert_eq!(witness.attempts("x"), [format!("{key}#1"), format!("{key}#2")]);
}

#[test]
fn a_lost_run_is_run_again_where_that_is_wanted() {
    let node = Node::started("");
    let witness = node.witness("seen");
    let command = format!("{}; [ $WING_ATTEMPT -gt 1 ] || sleep 300", witness.write("x"));
    let again = node.api.add_idle(&command, "on_lost=rerun&is_mutex=1");
    let once = node.api.add_idle(&format!("{}; sleep 300", witness.write("once")), "");
    node.api.run_job(again);
    node.api.run_job(once);
    witness.wait_count("x", 1);
    witness.wait_count("once", 1);
    node.kill_daemon();
    assert_eq!(attempts(&node, again, 2), [(1, "lost".into()), (2, "ok".into())]);
    assert_eq!(attempts(&node, once, 1), [(1, "lost".into())]);
    assert_eq!((witness.attempts("x").len(), witness.attempts("once").len()), (2, 1));
}

#[test]
fn no_more_than_max_parallel_run_at_once_and_the_others_wait_in_order() {
    let node = Node::started("");
    let witness = node.witness("seen");
    let id = node.api.add_every_second(&witness.around("sleep 3.5"), "max_parallel=2");
    witness.wait_count("end", 5);
    node.api.stop_job(id);
    assert!(overlap_max(&witness.read()) <= 2, "{:?}", witness.read());
    check_gapless(&witness.seconds("begin"));
}

#[test]
fn a_job_runs_only_where_it_may() {
    let node = Node::started("labels = [\"gpu\"]\nmisfire_grace = 2\n");
    let witness = node.witness("seen");
    let [label, server, nowhere] = ["gpu", &node.server, "elsewhere"]
        .map(|place| node.api.add_idle(&witness.write("x"), &format!("node={place}")));
    for id in [label, server] {
        let key = node.api.run_job(id);
        assert_eq!(node.api.wait_for_row_of(&key)["state"], "ok");
    }
    let key = node.api.run_job(nowhere);
    assert_eq!(node.api.wait_for_row_of(&key)["state"], "missed", "there was no node on which it may run");
    assert_eq!(witness.count("x"), 2);
}

#[test]
fn no_scheduled_run_starts_during_a_pause_and_the_due_ones_follow_misfire() {
    let node = Node::started("");
    let [all, skip, hand] = ["all", "skip", "hand"].map(|name| node.witness(name));
    let id = node.api.add_every_second(&all.write("x"), "");
    let skipping = node.api.add_every_second(&skip.write("x"), "misfire=skip");
    let by_hand = node.api.add_idle(&hand.write("x"), "");
    [&all, &skip].iter().for_each(|witness| witness.wait_count("x", 2));
    assert_eq!(node.api.post("/cluster/pause", "").ok(), json!({"paused": true}));
    let paused_at = second();
    assert_eq!(node.api.get("/cluster").ok()["paused"], true);
    assert_eq!(node.api.get("/health").ok()["paused"], true);
    node.api.run_job(by_hand);
    hand.wait_count("x", 1);
    // A pause is stored: the next daemon keeps it.
    node.kill_daemon();
    let is_paused = |reply: &Option<Reply>| reply.as_ref().is_some_and(|reply| reply.body["data"]["paused"] == true);
    wait_to_see("the next daemon pauses", || node.api.try_get("/cluster"), is_paused);
    pass_until(paused_at + 6);
    let late = |witness: &Witness| witness.read().iter().filter(|seen| paused_at < seen.scheduled_at).count();
    assert_eq!((late(&all), late(&skip)), (0, 0));
    assert_eq!(node.api.post("/cluster/resume", "").ok(), json!({"paused": false}));
    wait_to_see("two runs after the pause", || late(&skip), |late| *late >= 2);
    [id, skipping].iter().for_each(|id| drop(node.api.stop_job(*id)));
    check_gapless(&all.sorted_seconds("x"));
    let missed = node.api.wait_for_rows(skipping, "missed", 4);
    assert!(missed[0].output().contains("misfire"), "{missed:?}");
    assert!(node.api.rows_with(id, "missed").is_empty());
}

#[test]
fn health_tells_a_probe_who_leads_and_whether_the_work_is_done() {
    let node = Node::started("");
    node.wait_health(200);
    let health = node.api.get("/health").ok();
    assert_eq!(health["server"], node.server);
    assert_eq!((&health["role"], &health["leader"]), (&json!("leader"), &json!(node.server)));
    assert_eq!((&health["store_ok"], &health["paused"]), (&json!(true), &json!(false)));
    node.api.post("/health", "").refused(405, "GET");
}
