//! One node with a real MariaDB and a real Consul, as the older system's app.toml names them.

use crate::cgroups::{folder, hidden, pids};
use crate::support::consul::{Agent, Names};
use crate::support::daemon::{Node, counters};
use crate::support::mariadb::Database;
use crate::support::process::{is_alive, send_signal};
use crate::support::time::{check_gapless, timed};
use crate::support::{consul, free_port, mariadb, wait_for, wait_to_see, wait_until};
use mysql::prelude::Queryable;
use rustix::process::Signal;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// The lines of app.toml for this database and this agent, under names of the test's own.
fn app_toml(database: &Database, agent: &Agent) -> (String, Names) {
    let names = Names::new();
    (format!("{}{}", agent.toml(&names), database.toml()), names)
}

/// A node with the text of the older system's app.toml; only addresses and the database's name are the test's own.
fn node_of_older_system(database: &Database, agent: &Agent) -> (Node, String) {
    let [bind, http, pprof] = [(); 3].map(|()| free_port().to_string());
    let values = [
        ("{consul}", agent.address()),
        ("{bind}", bind.clone()),
        ("{http}", http.clone()),
        ("{pprof}", pprof.clone()),
        ("{mysql}", database.port.to_string()),
        ("{name}", database.name.clone()),
    ];
    let text =
        values.iter().fold(include_str!("older_app.toml").to_string(), |text, (name, value)| text.replace(name, value));
    let mut node = Node::new("");
    node.edit(|_| text);
    node.server = format!("127.0.0.1:{bind}");
    node.api.address = format!("127.0.0.1:{http}");
    (node, format!("127.0.0.1:{pprof}"))
}

#[test]
fn the_app_toml_of_the_older_system_works_unchanged() {
    let (Some(database), Some(agent)) = (mariadb::database(), consul::agent()) else { return };
    database
        .run(&["CREATE USER 'older'@'127.0.0.1' IDENTIFIED BY '123456'", "GRANT ALL ON *.* TO 'older'@'127.0.0.1'"]);
    let (mut node, debug) = node_of_older_system(&database, agent);
    node.start();
    let witness = node.witness("seen");
    let id = node.api.add("*/1 * * * * *", &witness.write("x"), "is_mutex=1");
    witness.wait_count("x", 3);
    node.api.stop_job(id);
    let row = node.api.wait_for_rows(id, "ok", witness.attempts("x").len()).remove(0);
    assert_eq!([&row["dispatch_server"], &row["run_server"]], [&node.server; 2], "{row}");
    let stored: Option<(String, i8)> = database.connect().query_first("SELECT cron_set, is_mutex FROM cron").unwrap();
    assert_eq!(stored, Some(("*/1 * * * * *".into(), 1)));
    check_consul_knows_the_leader(agent, &node);
    assert!(counters(&debug).contains_key("http_requests"));
    assert!(!node.said().contains("123456"), "the password is in a line");
    assert!(node.stop().success());
    assert_eq!(agent.lock("wing-crontab-lock").unwrap().0, None, "the lock is released");
    assert!(agent.service("wing-crontab-service").is_empty(), "the service is deregistered");
}

#[track_caller]
fn check_consul_knows_the_leader(agent: &Agent, node: &Node) {
    wait_for_leader_tag(agent, "wing-crontab-service");
    let (session, value) = agent.lock("wing-crontab-lock").unwrap();
    assert!(session.is_some());
    assert_eq!(value["server"], node.server);
    let (epoch, tick, incarnation) = (&value["epoch"], &value["tick"], &value["incarnation"]);
    assert!(epoch.as_u64() == Some(1) && tick.is_i64() && incarnation.is_u64(), "{value}");
}

/// Waits until the service has the tag of a leader.
#[track_caller]
fn wait_for_leader_tag(agent: &Agent, service: &str) {
    let tags = || agent.service(service).first().map(|service| service["Service"]["Tags"][0].clone());
    let leads = |tag: &Option<Value>| tag.as_ref().is_some_and(|tag| tag == "isleader:true");
    wait_to_see(&format!("{service} is registered as the leader"), tags, leads);
}

#[test]
fn a_node_whose_session_is_lost_takes_the_lead_again_under_a_new_epoch() {
    let (Some(database), Some(agent)) = (mariadb::database(), consul::agent()) else { return };
    let (toml, names) = app_toml(&database, agent);
    let node = Node::started(&toml);
    let witness = node.witness("seen");
    node.api.add_every_second(&witness.write("x"), "");
    witness.wait_count("x", 2);
    let (session, before) = agent.lock(&names.lock).unwrap();
    agent.put(&format!("/v1/session/destroy/{}", session.unwrap()), "");
    let is_led_anew = |(session, value): &(Option<String>, Value)| {
        session.is_some() && before["epoch"].as_u64() < value["epoch"].as_u64()
    };
    wait_to_see("the lock is held under a new epoch", || agent.lock(&names.lock).unwrap(), is_led_anew);
    witness.wait_more("x", 2);
    check_gapless(&witness.sorted_seconds("x"));
}

#[test]
fn runs_go_on_while_consul_is_away_and_the_node_registers_again() {
    let (Some(database), Some(mut agent)) = (mariadb::database(), consul::own_agent()) else { return };
    let (toml, names) = app_toml(&database, &agent);
    let node = Node::started(&toml);
    let witness = node.witness("seen");
    node.api.add_every_second(&witness.write("x"), "");
    witness.wait_count("x", 2);
    agent.stop();
    node.wait_said("trying again until it answers");
    witness.wait_more("x", 12);
    node.api.add_idle("true", "");
    // The agent has lost its memory: the node has to register and to take the lock again.
    agent.start();
    wait_for_leader_tag(&agent, &names.service);
    let has_session =
        |lock: &Option<(Option<String>, Value)>| lock.as_ref().is_some_and(|(session, _)| session.is_some());
    wait_to_see("the lock has a session", || agent.lock(&names.lock), has_session);
    witness.wait_more("x", 2);
    check_gapless(&witness.sorted_seconds("x"));
}

#[test]
fn a_node_that_starts_without_database_and_consul_says_so_and_waits_for_them() {
    let (Some(mut server), Some(mut agent)) = (mariadb::server(), consul::own_agent()) else { return };
    let database = server.database("utf8mb4");
    let (toml, _) = app_toml(&database, &agent);
    server.stop(true);
    agent.stop();
    let mut node = Node::new(&toml);
    node.launch();
    node.wait_said("connect to MySQL");
    let reply = wait_for("an answer of the API", || node.api.try_get("/cron/list"));
    reply.refused(503, "connect to MySQL");
    node.api.get("/log/list").refused(503, "connect to MySQL");
    node.api.post("/cron/add", "cronSet=* * * * * *&command=true").refused(503, "nothing was changed");
    server.start();
    node.wait_said("the store is open");
    node.wait_said("Consul");
    node.api.post("/cron/add", "cronSet=* * * * * *&command=true").refused(503, "Consul");
    agent.start();
    let witness = node.witness("seen");
    node.api.wait_takes_changes();
    node.api.add_every_second(&witness.write("x"), "");
    witness.wait_count("x", 2);
}

#[test]
fn a_store_that_goes_away_delays_rows_and_loses_none() {
    let (Some(mut server), Some(agent)) = (mariadb::server(), consul::agent()) else { return };
    let database = server.database("utf8mb4");
    let (toml, _) = app_toml(&database, agent);
    let node = Node::started(&toml);
    let witness = node.witness("seen");
    let id = node.api.add_every_second(&witness.write("x"), "");
    let long = node.api.add_every_second("sleep 4; echo rows wait", "is_mutex=1");
    witness.wait_count("x", 2);
    server.stop(false);
    node.wait_said("the journal waits");
    node.api.post("/cron/add", "cronSet=* * * * * *&command=true").refused(503, "");
    node.api.get("/log/list").refused(503, "MySQL");
    let jobs = node.api.jobs();
    assert_eq!(jobs.len(), 2, "the leader has the jobs in memory");
    assert!(jobs[0]["next_time"].is_i64() && jobs[0]["last_state"].is_null(), "{jobs:?}");
    node.api.get("/cron/list?search=echo").refused(503, "MySQL");
    node.wait_said("log rows wait");
    server.start();
    witness.wait_more("x", 3);
    node.api.stop_job(id);
    let attempts = witness.attempts("x");
    check_gapless(&witness.sorted_seconds("x"));
    node.api.wait_for_rows(id, "ok", attempts.len());
    node.api.wait_for_rows(long, "ok", 1);
    assert!(node.api.rows_with(long, "lost").is_empty());
}

#[test]
fn kill_9_with_mysql_and_consul_loses_and_doubles_nothing() {
    let (Some(database), Some(agent)) = (mariadb::database(), consul::agent()) else { return };
    let (toml, _) = app_toml(&database, agent);
    let node = Node::started(&toml);
    let witness = node.witness("seen");
    let id = node.api.add_every_second(&witness.write("x"), "");
    for _ in 0..3 {
        witness.wait_more("x", 2);
        node.kill_daemon();
    }
    witness.wait_more("x", 2);
    node.wait_up_again();
    node.api.stop_job(id);
    witness.attempts("x");
    let seconds = witness.sorted_seconds("x");
    node.api.wait_for_one_row_each(id, seconds[0], seconds[seconds.len() - 1]);
}

#[test]
fn a_node_with_another_lock_key_on_the_same_database_is_refused() {
    let (Some(database), Some(agent)) = (mariadb::database(), consul::agent()) else { return };
    let (toml, _) = app_toml(&database, agent);
    let mut first = Node::started(&toml);
    first.api.wait_takes_changes();
    let (other, names) = app_toml(&database, agent);
    let mut second = Node::new(&other);
    second.launch();
    assert_eq!(second.wait().code(), Some(2));
    assert!(second.said().contains("this database belongs to the cluster with lock_key"), "{}", second.said());
    assert!(agent.service(&names.service).is_empty(), "a refused node does not stay registered");
    assert!(first.stop().success());
}

#[test]
fn a_node_without_consul_beside_another_on_the_same_database_is_refused() {
    let Some(database) = mariadb::database() else { return };
    let toml = database.toml();
    let first = Node::started(&toml);
    // A leader without jobs writes entries, too.
    let entries = || database.connect().query_first::<u64, _>("SELECT COUNT(*) FROM journal").unwrap();
    wait_to_see("an entry in the journal", entries, |entries| *entries > Some(0));
    let mut second = Node::new(&toml);
    second.launch();
    assert_eq!(second.wait().code(), Some(2));
    assert!(second.said().contains("stands alone") && second.said().contains(&first.server), "{}", second.said());
}

#[test]
fn a_daemon_that_hangs_has_its_mutex_runs_ended_with_its_lease_and_goes_on_when_it_wakes() {
    let (Some(database), Some(agent)) = (mariadb::database(), consul::agent()) else { return };
    let (toml, _) = app_toml(&database, agent);
    let node = Node::started(&toml);
    let [mutex, plain] = ["mutex", "plain"].map(|name| node.path(name));
    let pid = |path: &Path| -> Option<u32> { std::fs::read_to_string(path).ok()?.lines().next()?.parse().ok() };
    let hide = hidden(&node, "exec sleep 300");
    let command = format!("{hide}; echo $$ >> {}; exec sleep 300", mutex.display());
    let held = node.api.add_every_second(&command, "is_mutex=1");
    let other = node.api.add_every_second(&format!("echo $$ >> {}; exec sleep 300", plain.display()), "");
    let (mutex, plain) = wait_for("the pids of both runs", || Some((pid(&mutex)?, pid(&plain)?)));
    let hiding = pids(&node, 1)[0];
    node.api.stop_job(other);
    let daemon = node.daemon_pid();
    let after = timed(|| {
        send_signal(Signal::STOP, daemon);
        wait_until("the mutex run is ended", || !is_alive(mutex));
    });
    assert!(Duration::from_secs(5) < after, "it is ended before its lease of 10 s is over: {after:?}");
    assert!(is_alive(plain), "a run without a mutex goes on");
    if folder(&node).is_some() {
        wait_until("what hides of the mutex run is ended", || !is_alive(hiding));
    }
    send_signal(Signal::CONT, daemon);
    let row = node.api.wait_for_row(held, "killed");
    assert!(row.output().contains("its lease was over"), "{row}");
    wait_until("the same daemon leads on and has lost no run", || {
        node.api.rows_with(held, "lost").is_empty() && node.daemon_pid() == daemon && node.api.takes_changes()
    });
}

#[test]
fn a_consul_with_acls_takes_the_right_token_and_no_other() {
    let (Some(database), Some(agent)) = (mariadb::database(), consul::own_agent_with_acls("its-token")) else { return };
    let (toml, names) = app_toml(&database, &agent);
    let mut node = Node::started(&toml).env("WING_CONSUL_TOKEN", "its-token");
    node.wait_said("Consul: ");
    assert!(node.said().contains("403"), "{}", node.said());
    assert!(agent.lock(&names.lock).is_none());
    assert!(node.stop().success());
    node.start();
    node.api.wait_takes_changes();
    assert_eq!(agent.service(&names.service)[0]["Service"]["Service"], names.service);
    assert!(!node.said().contains("its-token"));
    assert!(node.stop().success());
    assert_eq!(agent.lock(&names.lock).unwrap().0, None);
}

#[test]
fn a_new_token_in_its_file_is_used_when_consul_refuses_the_former_one_or_at_a_hangup() {
    let (Some(database), Some(agent)) = (mariadb::database(), consul::own_agent_with_acls("its-token")) else { return };
    let (toml, names) = app_toml(&database, &agent);
    let mut node = Node::new(&format!("{toml}consul_token_file = \"token\"\n"));
    let path = node.path("token");
    let write = |token: &str| std::fs::write(&path, format!("{token}\n")).unwrap();
    let policy = r#"{"Policies": [{"Name": "global-management"}]}"#;
    let made = || -> serde_json::Value { serde_json::from_str(&agent.put("/v1/acl/token", policy)).unwrap() };
    let tokens = [made(), made()];
    let [first, second] = tokens.each_ref().map(|token| token["SecretID"].as_str().unwrap());
    write("no-such-token");
    node.start();
    node.wait_said("answered 403");
    write(first);
    node.api.wait_takes_changes();
    // A hangup has the file read again, though the token in use is still good.
    let is_another = "token has another token: it is used from now on";
    assert_eq!(node.said().matches(is_another).count(), 1, "{}", node.said());
    let refused = || node.said().matches("answered 403").count();
    let before = refused();
    write(second);
    node.signal(Signal::HUP);
    node.wait_said_times(is_another, 2);
    agent.delete(&format!("/v1/acl/token/{}", tokens[0]["AccessorID"].as_str().unwrap()));
    wait_ticks(&agent, &names.lock, 5);
    assert_eq!(refused(), before, "{}", node.said());
    assert!([first, second].iter().all(|token| !node.said().contains(token)), "a token is in a line");
    // While the file is empty or missing, the token in use stays in use.
    write("");
    node.signal(Signal::HUP);
    node.wait_said("token: it is empty");
    std::fs::remove_file(&path).unwrap();
    node.signal(Signal::HUP);
    node.wait_said("token: No such file");
    wait_ticks(&agent, &names.lock, 3);
    assert!(node.api.takes_changes() && node.stop().success());
}

/// Waits until the lock's value has been renewed for so many seconds.
#[track_caller]
fn wait_ticks(agent: &Agent, lock: &str, secs: i64) {
    let tick = || agent.lock(lock).unwrap().1["tick"].as_i64().unwrap();
    let until = tick() + secs;
    wait_to_see(&format!("a lock value of second {until}"), tick, |tick| until <= *tick);
}
