//! With a real MariaDB and a real Consul, as the seed's app.toml has them.

use crate::support::daemon::{Node, is_alive, send_signal};
use crate::support::witness::Witness;
use crate::support::{consul, mariadb, wait_for, wait_until};
use mysql::prelude::Queryable;
use rustix::process::Signal;

/// The lines of app.toml for this database and this agent, under names of the test's own.
fn keys(database: &mariadb::Database, agent: &consul::Agent) -> (String, String, String) {
    let (service, lock) = (consul::name(), consul::name());
    let toml = format!(
        "consul_address = \"{}\"\nservice_name = \"{service}\"\nlock_key = \"{lock}\"\n{}",
        agent.address(),
        database.toml()
    );
    (toml, service, lock)
}

#[test]
fn the_older_systems_own_app_toml_works_unchanged() {
    let (Some(database), Some(agent)) = (mariadb::database(), consul::agent()) else { return };
    let conn = || database.connect();
    conn().query_drop("CREATE USER 'seed'@'127.0.0.1' IDENTIFIED BY '123456'").unwrap();
    conn().query_drop("GRANT ALL ON *.* TO 'seed'@'127.0.0.1'").unwrap();
    let (bind, http, pprof) = (crate::support::free_port(), crate::support::free_port(), crate::support::free_port());
    // The text of the specification; only addresses and names are this test's own.
    let text = format!(
        r#"##这个就是consul的服务地址了，本地调试模式使用127.0.0.1:8500即可
consul_address = "{consul}"
##服务名称，用于consul的服务注册
service_name = "wing-crontab-service"
##用来选leader时的竞争锁的key值
##集群内所有的节点的key要保持一致
lock_key = "wing-crontab-lock"
##tcp服务的监听地址
##不允许使用"0.0.0.0:9991"这种模式，必须要指定具体的ip和端口
##原因是这个监听的地址要用于服务发现
bind_address = "127.0.0.1:{bind}"
##http接口的服务监听端口，这个可以使用"0.0.0.0:9990"这种模式
http_bind_address = "0.0.0.0:{http}"
##这个用于性能监控调优，如果不想打开，去掉留空就可以了
pprof_listen = "127.0.0.1:{pprof}"
##日志级别
# 0 =	PanicLevel Level = iota
log_level=5
##如下几个字段是mysql相关的连接配置
mysql_user = "seed"
mysql_password = "123456"
mysql_host = "127.0.0.1"
mysql_port = {mysql}
mysql_database = "{name}"
mysql_charset = "utf8"
"#,
        consul = agent.address(),
        mysql = database.port,
        name = database.name,
    );
    let mut node = Node::new("");
    node.edit(|_| text);
    node.api.address = format!("127.0.0.1:{http}");
    node.start();
    let witness = Witness::new(node.folder.path(), "seen");
    let id = node.api.add("*/1 * * * * *", &witness.write("x"), "is_mutex=1");
    wait_until("it runs", || witness.count("x") >= 3);
    node.api.get(&format!("/cron/stop/{id}")).ok();
    let attempts = witness.attempts("x").len();
    wait_until("each run has its row", || node.api.logs_with(id, "ok").len() >= attempts);
    let row = &node.api.logs("")[0];
    assert_eq!(
        (row["dispatch_server"].as_str(), row["run_server"].as_str()),
        (Some(&*format!("127.0.0.1:{bind}")), Some(&*format!("127.0.0.1:{bind}")))
    );
    let stored: (String, i8) = conn().query_first("SELECT cron_set, is_mutex FROM cron").unwrap().unwrap();
    assert_eq!(stored, ("*/1 * * * * *".into(), 1));
    assert!(!node.said().contains("123456"), "the password is in no line");
    wait_until("it tells that it leads", || {
        agent.service("wing-crontab-service").iter().any(|service| service["Service"]["Tags"][0] == "isleader:true")
    });
    let (session, value) = agent.lock("wing-crontab-lock").unwrap();
    assert!(session.is_some());
    assert_eq!(value["server"], format!("127.0.0.1:{bind}"));
    assert!(
        value["epoch"].as_u64() == Some(1) && value["tick"].as_i64().is_some() && value["incarnation"].is_u64(),
        "{value}"
    );
    let vars =
        ureq::get(format!("http://127.0.0.1:{pprof}/debug/vars")).call().unwrap().body_mut().read_to_string().unwrap();
    assert!(vars.contains("http_requests"), "{vars}");
    assert!(node.stop().success());
    assert_eq!(agent.lock("wing-crontab-lock").unwrap().0, None, "the lock is released");
    assert!(agent.service("wing-crontab-service").is_empty(), "the service is deregistered");
}

#[test]
fn a_lost_session_is_noticed_and_the_lead_taken_anew() {
    let (Some(database), Some(agent)) = (mariadb::database(), consul::agent()) else { return };
    let (toml, _, lock) = keys(&database, agent);
    let node = Node::started(&toml);
    let witness = Witness::new(node.folder.path(), "seen");
    node.api.add("* * * * * *", &witness.write("x"), "");
    wait_until("it runs", || witness.count("x") >= 2);
    let (session, before) = agent.lock(&lock).unwrap();
    agent.put(&format!("/v1/session/destroy/{}", session.unwrap()), "");
    wait_until("it leads again with a new epoch", || {
        let (session, value) = agent.lock(&lock).unwrap();
        session.is_some() && before["epoch"].as_u64() < value["epoch"].as_u64()
    });
    let seen = witness.count("x");
    wait_until("it goes on", || seen + 2 <= witness.count("x"));
    let mut seconds: Vec<i64> = witness.read().iter().map(|seen| seen.scheduled_at).collect();
    seconds.sort();
    assert!(seconds.windows(2).all(|pair| pair[1] == pair[0] + 1), "no second is missing and none twice: {seconds:?}");
}

#[test]
fn consul_that_goes_away_stops_nothing_and_is_found_again() {
    let (Some(database), Some(mut agent)) = (mariadb::database(), consul::own_agent()) else { return };
    let (toml, service, lock) = keys(&database, &agent);
    let node = Node::started(&toml);
    let witness = Witness::new(node.folder.path(), "seen");
    node.api.add("* * * * * *", &witness.write("x"), "");
    wait_until("it runs", || witness.count("x") >= 2);
    agent.stop();
    node.wait_said("trying again until it answers");
    let seen = witness.count("x");
    wait_until("it goes on without Consul", || seen + 12 <= witness.count("x"));
    node.api.add("0 0 0 1 1 *", "true", "");
    // Its memory is gone: everything has to be told anew.
    agent.start();
    wait_until("it is registered again and leads", || {
        let tags = agent.service(&service).first().map(|service| service["Service"]["Tags"][0].clone());
        tags.is_some_and(|tag| tag == "isleader:true")
            && agent.lock(&lock).is_some_and(|(session, _)| session.is_some())
    });
    let seen = witness.count("x");
    wait_until("it goes on", || seen + 2 <= witness.count("x"));
    let mut seconds: Vec<i64> = witness.read().iter().map(|seen| seen.scheduled_at).collect();
    seconds.sort();
    assert!(seconds.windows(2).all(|pair| pair[1] == pair[0] + 1), "no second is missing and none twice: {seconds:?}");
}

#[test]
fn both_away_at_the_start_are_said_and_waited_for() {
    let (Some(mut server), Some(mut agent)) = (mariadb::server(), consul::own_agent()) else { return };
    let database = server.database("utf8mb4");
    let (toml, _, _) = keys(&database, &agent);
    server.stop(true);
    agent.stop();
    let mut node = Node::new(&toml);
    node.launch();
    node.wait_said("connect to MySQL");
    let reply = wait_for("the API answers", || {
        std::net::TcpStream::connect(&node.api.address).ok().map(|_| node.api.get("/cron/list"))
    });
    reply.refused(503, "connect to MySQL");
    node.api.get("/log/list").refused(503, "connect to MySQL");
    node.api.post("/cron/add", "cronSet=* * * * * *&command=true").refused(503, "nothing was changed");
    server.start();
    node.wait_said("the store is open");
    node.wait_said("Consul");
    node.api.post("/cron/add", "cronSet=* * * * * *&command=true").refused(503, "Consul");
    agent.start();
    let witness = Witness::new(node.folder.path(), "seen");
    wait_until("it leads", || node.api.post("/cron/add", "cronSet=0 0 0 1 1 *&command=true").status == 200);
    node.api.add("* * * * * *", &witness.write("x"), "");
    wait_until("it runs", || witness.count("x") >= 2);
}

#[test]
fn a_store_that_goes_away_delays_rows_and_loses_none() {
    let (Some(mut server), Some(agent)) = (mariadb::server(), consul::agent()) else { return };
    let database = server.database("utf8mb4");
    let (toml, _, _) = keys(&database, agent);
    let node = Node::started(&toml);
    let witness = Witness::new(node.folder.path(), "seen");
    let id = node.api.add("* * * * * *", &witness.write("x"), "");
    let long = node.api.add("* * * * * *", "sleep 4; echo rows wait", "is_mutex=1");
    wait_until("it runs", || witness.count("x") >= 2);
    server.stop(false);
    node.wait_said("the journal waits");
    node.api.post("/cron/add", "cronSet=* * * * * *&command=true").refused(503, "");
    node.api.get("/log/list").refused(503, "MySQL");
    let list = node.api.get("/cron/list").ok();
    assert_eq!(list.as_array().unwrap().len(), 2, "the leader has the jobs in memory");
    assert!(list[0]["next_time"].is_i64() && list[0]["last_state"].is_null(), "{list}");
    node.api.get("/cron/list?search=echo").refused(503, "MySQL");
    wait_until("the log waits", || node.said().contains("log rows wait"));
    server.start();
    let seen = witness.count("x");
    wait_until("it goes on", || seen + 3 <= witness.count("x"));
    node.api.get(&format!("/cron/stop/{id}")).ok();
    let attempts = witness.attempts("x");
    let mut seconds: Vec<i64> = witness.read().iter().map(|seen| seen.scheduled_at).collect();
    seconds.sort();
    assert!(seconds.windows(2).all(|pair| pair[1] == pair[0] + 1), "caught up, within the grace: {seconds:?}");
    wait_until("each run has its row", || node.api.logs_with(id, "ok").len() >= attempts.len());
    wait_until("the long one too", || !node.api.logs_with(long, "ok").is_empty());
    assert!(node.api.logs_with(long, "lost").is_empty());
}

#[test]
fn kill_9_with_mysql_and_consul_loses_and_doubles_nothing() {
    let (Some(database), Some(agent)) = (mariadb::database(), consul::agent()) else { return };
    let (toml, _, _) = keys(&database, agent);
    let node = Node::started(&toml);
    let witness = Witness::new(node.folder.path(), "seen");
    let id = node.api.add("* * * * * *", &witness.write("x"), "");
    for _ in 0..3 {
        let seen = witness.count("x");
        wait_until("it runs", || seen + 2 <= witness.count("x"));
        send_signal(Signal::KILL, node.daemon_pid());
    }
    let seen = witness.count("x");
    wait_until("it runs", || seen + 2 <= witness.count("x") && node.api.is_up());
    node.api.get(&format!("/cron/stop/{id}")).ok();
    witness.attempts("x");
    let seconds: Vec<i64> = witness.read().iter().map(|seen| seen.scheduled_at).collect();
    let (first, last) = (*seconds.iter().min().unwrap(), *seconds.iter().max().unwrap());
    wait_until("every second has one outcome", || {
        let rows = node.api.logs(&format!("cron_id={id}"));
        (first..=last).all(|second| rows.iter().filter(|row| row["time"] == second).count() == 1)
    });
}

#[test]
fn another_lock_key_on_the_same_database_is_refused() {
    let (Some(database), Some(agent)) = (mariadb::database(), consul::agent()) else { return };
    let (toml, _, _) = keys(&database, agent);
    let mut first = Node::started(&toml);
    wait_until("it leads", || first.api.post("/cron/add", "cronSet=0 0 0 1 1 *&command=true").status == 200);
    let (other, service, _) = keys(&database, agent);
    let mut second = Node::new(&other);
    second.launch();
    assert_eq!(second.wait().code(), Some(2));
    assert!(second.said().contains("this database belongs to the cluster with lock_key"), "{}", second.said());
    assert!(agent.service(&service).is_empty(), "what is refused does not stay registered");
    assert!(first.stop().success());
}

#[test]
fn standing_alone_beside_another_on_the_same_database_is_refused() {
    let Some(database) = mariadb::database() else { return };
    let toml = database.toml();
    let first = Node::started(&toml);
    // It has nothing to do yet.
    wait_until("it has said in the journal that it leads", || {
        let count: Option<u64> = database.connect().query_first("SELECT COUNT(*) FROM journal").unwrap();
        count > Some(0)
    });
    let mut second = Node::new(&toml);
    second.launch();
    assert_eq!(second.wait().code(), Some(2));
    assert!(second.said().contains("stands alone") && second.said().contains(&first.server), "{}", second.said());
}

#[test]
fn a_daemon_that_hangs_has_its_mutex_runs_ended_with_its_lease_and_goes_on_when_it_wakes() {
    let (Some(database), Some(agent)) = (mariadb::database(), consul::agent()) else { return };
    let (toml, _, _) = keys(&database, agent);
    let node = Node::started(&toml);
    let [mutex, plain] = ["mutex", "plain"].map(|name| node.path(name));
    let pid =
        |path: &std::path::Path| -> Option<u32> { std::fs::read_to_string(path).ok()?.lines().next()?.parse().ok() };
    let held = node.api.add("* * * * * *", &format!("echo $$ >> {}; exec sleep 300", mutex.display()), "is_mutex=1");
    let other = node.api.add("* * * * * *", &format!("echo $$ >> {}; exec sleep 300", plain.display()), "");
    let (mutex, plain) = wait_for("both run", || Some((pid(&mutex)?, pid(&plain)?)));
    node.api.get(&format!("/cron/stop/{other}")).ok();
    let daemon = node.daemon_pid();
    let stopped_at = wing_crontab::worker::clock::mono();
    send_signal(Signal::STOP, daemon);
    wait_until("the mutex run is ended", || !is_alive(mutex));
    let after = wing_crontab::worker::clock::mono().since(stopped_at).as_millis();
    assert!(5_000 < after, "not before its lease of 10 s is over: {after} ms");
    assert!(is_alive(plain), "a run without a mutex goes on");
    send_signal(Signal::CONT, daemon);
    let row = wait_for("its row", || node.api.logs_with(held, "killed").pop());
    assert!(row["output"].as_str().unwrap().contains("its lease was over"), "{row}");
    wait_until("it runs again", || {
        node.api.logs_with(held, "lost").is_empty() && node.daemon_pid() == daemon && is_leading(&node)
    });
}

#[test]
fn a_consul_with_acls_takes_the_right_token_and_no_other() {
    let (Some(database), Some(agent)) = (mariadb::database(), consul::own_agent_with_acls("its-token")) else { return };
    let (toml, service, lock) = keys(&database, &agent);
    let mut node = Node::started(&toml).env("WING_CONSUL_TOKEN", "its-token");
    node.wait_said("Consul: ");
    assert!(node.said().contains("403"), "{}", node.said());
    assert!(agent.lock(&lock).is_none());
    assert!(node.stop().success());
    node.start();
    wait_until("it leads", || is_leading(&node));
    assert_eq!(agent.service(&service)[0]["Service"]["Service"], service);
    assert!(!node.said().contains("its-token"));
    assert!(node.stop().success());
    assert_eq!(agent.lock(&lock).unwrap().0, None);
}

#[test]
fn a_new_token_in_its_file_is_taken_up_when_consul_refuses_the_old_one_and_when_it_is_told_to() {
    let (Some(database), Some(agent)) = (mariadb::database(), consul::own_agent_with_acls("its-token")) else { return };
    let (toml, _, lock) = keys(&database, &agent);
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
    wait_until("it leads with the new one", || is_leading(&node));
    // One that is still good is given up when the operator says so.
    let taken_up = || node.said().matches("the token in token is another one").count();
    assert_eq!(taken_up(), 1, "{}", node.said());
    let refused = || node.said().matches("answered 403").count();
    let before = refused();
    write(second);
    node.signal(Signal::HUP);
    wait_until("it is read again", || taken_up() == 2);
    agent.delete(&format!("/v1/acl/token/{}", tokens[0]["AccessorID"].as_str().unwrap()));
    let tick = || agent.lock(&lock).unwrap().1["tick"].as_i64().unwrap();
    let seen = tick();
    wait_until("its lock is kept with the new one", || seen + 5 <= tick());
    assert_eq!(refused(), before, "{}", node.said());
    assert!([first, second].iter().all(|token| !node.said().contains(token)), "a token is in no line");
    // A file that is not there, or empty for a moment, takes nothing away.
    write("");
    node.signal(Signal::HUP);
    node.wait_said("token: it is empty");
    std::fs::remove_file(&path).unwrap();
    node.signal(Signal::HUP);
    node.wait_said("token: No such file");
    let seen = tick();
    wait_until("it goes on", || seen + 3 <= tick());
    assert!(is_leading(&node) && node.stop().success());
}

/// Whether it takes changes.
fn is_leading(node: &Node) -> bool {
    node.api.post("/cron/add", "cronSet=0 0 0 1 1 *&command=true").status == 200
}
