//! What operators ask: a run now, a pause, another attempt after one that failed or was lost, no more than a few at once.

use crate::support::daemon::{Node, send_signal};
use crate::support::witness::Witness;
use crate::support::{wait_for, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Never due by itself.
const NEVER: &str = "0 0 0 1 1 *";

fn run(node: &Node, id: u64) -> String {
    node.api.post(&format!("/cron/run/{id}"), "").ok()["run_key"].as_str().unwrap().into()
}

fn row_of(node: &Node, id: u64, run_key: &str) -> Value {
    wait_for("its log row", || {
        node.api.logs(&format!("cron_id={id}")).into_iter().find(|row| row["run_key"] == run_key)
    })
}

/// The job's attempts and how they ended, in their order.
fn attempts(node: &Node, id: u64, count: usize) -> Vec<(u64, String)> {
    // The daemon may be on its way up again.
    let mut rows = wait_for("a row for each attempt", || {
        let reply = node.api.try_get(&format!("/log/list?cron_id={id}"))?;
        Some(reply.body["data"]["list"].as_array()?.clone()).filter(|rows| rows.len() >= count)
    });
    rows.reverse();
    rows.iter().map(|row| (row["attempt"].as_u64().unwrap(), row["state"].as_str().unwrap().into())).collect()
}

#[test]
fn a_run_is_started_now_even_of_a_stopped_job_and_once_for_each_key() {
    let node = Node::started("");
    let witness = Witness::new(node.folder.path(), "seen");
    let id = node.api.add(NEVER, &witness.write("x"), "stop=1");
    let first = run(&node, id);
    assert!(first.starts_with(&format!("{id}-")) && first.contains("-m"), "{first}");
    assert_eq!(row_of(&node, id, &first)["state"], "ok");
    let again = |key: &str| node.api.post_as(key, &format!("/cron/run/{id}"), "").ok()["run_key"].clone();
    let keyed = again("k-1");
    assert_eq!(keyed, again("k-1"), "a proxy that repeats it gets the first one's answer");
    assert_ne!(keyed, again("k-2"));
    wait_until("three runs", || witness.count("x") == 3);
    assert_eq!(witness.attempts("x").len(), 3);
    node.api.post("/cron/run/999", "").refused(404, "no such job");
    node.api.post("/cron/run/x", "").refused(400, "id");
    node.api.post_as(&"k".repeat(201), &format!("/cron/run/{id}"), "").refused(400, "Idempotency-Key");
    let form = "cronSet=* * * * * *&command=true&stop=1";
    let added = node.api.post_as("a-1", "/cron/add", form).ok();
    assert_eq!(added, node.api.post_as("a-1", "/cron/add", form).ok());
    assert_ne!(added["id"], node.api.post_as("a-2", "/cron/add", form).ok()["id"]);
    // A key that another request had is a client's mistake, and does not look like success.
    node.api.post_as("a-1", "/cron/add", &form.replace("true", "false")).refused(409, "Idempotency-Key");
    node.api.post_as("k-1", &format!("/cron/run/{}", added["id"]), "").refused(409, "Idempotency-Key");
    assert_eq!(node.api.get("/cron/list").ok().as_array().unwrap().len(), 3);
}

#[test]
fn what_runs_and_waits_is_listed_and_a_manual_run_obeys_the_mutex() {
    let node = Node::started("max_pending_per_job = 1\n");
    let witness = Witness::new(node.folder.path(), "seen");
    let gate = node.path("gate");
    let wait = format!("while [ ! -e {} ]; do sleep 0.1; done", gate.display());
    let id = node.api.add(NEVER, &witness.around(&wait), "is_mutex=1");
    let keys = [run(&node, id), run(&node, id)];
    node.api.post(&format!("/cron/run/{id}"), "").refused(503, "max_pending_per_job");
    let list = wait_for("one runs and one waits", || {
        let page = node.api.get("/run/list").ok();
        let list = page["list"].as_array().unwrap().clone();
        (list.len() == 2 && list[0]["state"] == "running").then_some(list)
    });
    let shown =
        |run: &Value| (run["run_key"].clone(), run["cron_id"].clone(), run["state"].clone(), run["attempt"].clone());
    assert_eq!(shown(&list[0]), (json!(keys[0]), json!(id), json!("running"), json!(1)));
    assert_eq!(shown(&list[1]), (json!(keys[1]), json!(id), json!("waiting"), json!(1)));
    assert!(
        list[0]["pid"].as_u64() > Some(1) && list[0]["seconds"].as_u64().is_some() && list[0]["server"] == node.server
    );
    assert_eq!((&list[1]["pid"], &list[1]["started"]), (&Value::Null, &Value::Null));
    node.api.post(&format!("/run/kill/{}", keys[1]), "").ok();
    assert_eq!(row_of(&node, id, &keys[1])["state"], "cancelled");
    std::fs::write(&gate, "").unwrap();
    assert_eq!(row_of(&node, id, &keys[0])["state"], "ok");
    wait_until("nothing is left", || node.api.get("/run/list").ok() == json!({"list": [], "total": 0}));
    node.api.post(&format!("/run/kill/{}", keys[0]), "").refused(404, "neither runs nor waits");
    node.api.post("/run/kill/rubbish", "").refused(400, "run_key");
}

#[test]
fn a_failure_is_tried_again_after_delays_that_double_and_keeps_its_mutex_meanwhile() {
    let node = Node::started("");
    let witness = Witness::new(node.folder.path(), "seen");
    // It fails until it was tried three times.
    let command = format!("{}; [ $WING_ATTEMPT -ge 3 ]", witness.write("x"));
    let id = node.api.add(NEVER, &command, "is_mutex=1&retry_times=5&retry_delay=1");
    let key = run(&node, id);
    wait_until("the first has failed", || {
        witness.count("x") == 1 && !node.api.logs(&format!("cron_id={id}")).is_empty()
    });
    let second = run(&node, id);
    assert_eq!(attempts(&node, id, 4)[..3], [(1, "failed".into()), (2, "failed".into()), (3, "ok".into())]);
    let seen: Vec<String> = witness.read().into_iter().map(|seen| seen.attempt).take(3).collect();
    assert_eq!(seen, [format!("{key}#1"), format!("{key}#2"), format!("{key}#3")], "{second} waited for it");
    let at: Vec<i128> = witness.read().iter().map(|seen| seen.at_ns).collect();
    assert!(at[2] - at[1] > at[1] - at[0], "the second delay is longer: {at:?}");
    let last = node.api.add(NEVER, "exit 4", "retry_times=1");
    run(&node, last);
    assert_eq!(attempts(&node, last, 2), [(1, "failed".into()), (2, "failed".into())], "and then it is over");
    wait_until("nothing is left of it", || {
        let list = node.api.get("/run/list").ok()["list"].as_array().unwrap().clone();
        list.iter().all(|run| run["cron_id"] != last)
    });
}

#[test]
fn a_retry_that_waits_outlives_the_daemon_and_is_cancelled_with_its_job() {
    let node = Node::started("");
    let witness = Witness::new(node.folder.path(), "seen");
    let id = node.api.add(NEVER, &format!("{}; exit 1", witness.write("x")), "retry_times=1&retry_delay=6");
    let other = node.api.add(NEVER, "exit 1", "retry_times=1&retry_delay=3000");
    let (key, cancelled) = (run(&node, id), run(&node, other));
    attempts(&node, id, 1);
    attempts(&node, other, 1);
    let delayed = || {
        let reply = node.api.try_get("/run/list")?;
        let list = reply.body["data"]["list"].as_array()?.clone();
        Some(list.iter().filter(|run| run["state"] == "delayed").count())
    };
    wait_until("both wait", || delayed() == Some(2));
    send_signal(Signal::KILL, node.daemon_pid());
    wait_until("both still wait, for another daemon", || delayed() == Some(2));
    node.api.get(&format!("/cron/stop/{other}")).ok();
    assert_eq!(attempts(&node, other, 2)[1], (2, "cancelled".into()));
    node.api.post(&format!("/run/kill/{cancelled}"), "").refused(404, "neither runs nor waits");
    assert_eq!(attempts(&node, id, 2)[1], (2, "failed".into()));
    assert_eq!(witness.attempts("x"), [format!("{key}#1"), format!("{key}#2")]);
}

#[test]
fn a_lost_run_is_run_again_where_that_is_wanted() {
    let node = Node::started("");
    let witness = Witness::new(node.folder.path(), "seen");
    let command = format!("{}; [ $WING_ATTEMPT -gt 1 ] || sleep 300", witness.write("x"));
    let again = node.api.add(NEVER, &command, "on_lost=rerun&is_mutex=1");
    let once = node.api.add(NEVER, &format!("{}; sleep 300", witness.write("once")), "");
    run(&node, again);
    run(&node, once);
    wait_until("both run", || witness.count("x") == 1 && witness.count("once") == 1);
    send_signal(Signal::KILL, node.daemon_pid());
    assert_eq!(attempts(&node, again, 2), [(1, "lost".into()), (2, "ok".into())]);
    assert_eq!(attempts(&node, once, 1), [(1, "lost".into())]);
    assert_eq!((witness.attempts("x").len(), witness.attempts("once").len()), (2, 1));
}

#[test]
fn no_more_than_max_parallel_run_at_once_and_the_others_wait_in_order() {
    let node = Node::started("");
    let witness = Witness::new(node.folder.path(), "seen");
    let id = node.api.add("* * * * * *", &witness.around("sleep 3.5"), "max_parallel=2");
    wait_until("five are over", || witness.count("end") >= 5);
    node.api.get(&format!("/cron/stop/{id}")).ok();
    let mut running = 0;
    for seen in witness.read() {
        running += if seen.word == "begin" { 1 } else { -1 };
        assert!(running <= 2, "three at once");
    }
    let begun: Vec<i64> =
        witness.read().iter().filter(|seen| seen.word == "begin").map(|seen| seen.scheduled_at).collect();
    assert!(begun.windows(2).all(|pair| pair[1] == pair[0] + 1), "none is left out: {begun:?}");
}

#[test]
fn a_job_runs_only_where_it_may() {
    let node = Node::started("labels = [\"gpu\"]\nmisfire_grace = 2\n");
    let witness = Witness::new(node.folder.path(), "seen");
    let [label, server, nowhere] = ["gpu", &node.server, "elsewhere"]
        .map(|place| node.api.add(NEVER, &witness.write("x"), &format!("node={place}")));
    for id in [label, server] {
        let key = run(&node, id);
        assert_eq!(row_of(&node, id, &key)["state"], "ok");
    }
    let key = run(&node, nowhere);
    assert_eq!(row_of(&node, nowhere, &key)["state"], "missed", "no node came that it may run on");
    assert_eq!(witness.count("x"), 2);
}

#[test]
fn nothing_scheduled_starts_during_a_pause_and_what_was_due_follows_misfire() {
    let node = Node::started("");
    let [all, skip, hand] = ["all", "skip", "hand"].map(|name| Witness::new(node.folder.path(), name));
    let id = node.api.add("* * * * * *", &all.write("x"), "");
    let skipping = node.api.add("* * * * * *", &skip.write("x"), "misfire=skip");
    let by_hand = node.api.add(NEVER, &hand.write("x"), "");
    wait_until("they run", || all.count("x") >= 2 && skip.count("x") >= 2);
    assert_eq!(node.api.post("/cluster/pause", "").ok(), json!({"paused": true}));
    let paused_at = wing_crontab::worker::clock::now().wall.second().0;
    assert_eq!(node.api.get("/cluster").ok()["paused"], true);
    assert_eq!(node.api.get("/health").ok()["paused"], true);
    run(&node, by_hand);
    wait_until("a run by hand goes on", || hand.count("x") == 1);
    // A pause is stored: the next daemon keeps it.
    send_signal(Signal::KILL, node.daemon_pid());
    wait_until("there is another daemon, that pauses", || {
        node.api.try_get("/cluster").is_some_and(|reply| reply.body["data"]["paused"] == true)
    });
    wait_until("some seconds pass", || paused_at + 5 < wing_crontab::worker::clock::now().wall.second().0);
    let late = |witness: &Witness| witness.read().iter().filter(|seen| paused_at < seen.scheduled_at).count();
    assert_eq!((late(&all), late(&skip)), (0, 0));
    assert_eq!(node.api.post("/cluster/resume", "").ok(), json!({"paused": false}));
    wait_until("it goes on", || late(&skip) >= 2);
    [id, skipping].iter().for_each(|id| drop(node.api.get(&format!("/cron/stop/{id}")).ok()));
    let mut seconds: Vec<i64> = all.read().iter().map(|seen| seen.scheduled_at).collect();
    // What is caught up starts two at a time.
    seconds.sort();
    assert!(seconds.windows(2).all(|pair| pair[1] == pair[0] + 1), "every second has run: {seconds:?}");
    let missed = wait_for("the skipped ones are told", || {
        Some(node.api.logs_with(skipping, "missed")).filter(|rows| rows.len() >= 4)
    });
    assert!(missed[0]["output"].as_str().unwrap().contains("misfire"), "{missed:?}");
    assert!(node.api.logs_with(id, "missed").is_empty());
}

#[test]
fn health_says_what_a_probe_wants_to_know() {
    let node = Node::started("");
    wait_until("it is well", || node.api.get("/health").status == 200);
    let health = node.api.get("/health").ok();
    assert_eq!(health["server"], node.server);
    assert_eq!((&health["role"], &health["leader"]), (&json!("leader"), &json!(node.server)));
    assert_eq!((&health["store_ok"], &health["paused"]), (&json!(true), &json!(false)));
    node.api.post("/health", "").refused(405, "GET");
}
