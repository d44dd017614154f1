//! The store goes away, and the daemon dies meanwhile: what ran is told all the same.

use crate::support::api::Reply;
use crate::support::daemon::{Node, is_alive, send_signal};
use crate::support::witness::Witness;
use crate::support::{mariadb, wait_until};
use mysql::prelude::Queryable;
use rustix::process::Signal;
use wing_crontab::worker::clock;

/// Who dies while the store is away.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Nobody,
    Daemon,
    Both,
}

/// A job whose runs outlive the store, and say something.
struct Long {
    witness: Witness,
    id: u64,
}

fn long_job(node: &Node) -> Long {
    let witness = Witness::new(node.folder.path(), "seen");
    let id = node.api.add("* * * * * *", &format!("echo its words; {}", witness.around("sleep 3")), "");
    wait_until("some run", || witness.count("begin") >= 3);
    Long { witness, id }
}

impl Long {
    /// Waits until everything that had begun has ended, and its rows are on the disk; answers how many there are.
    fn wait_spooled(&self, node: &Node) -> usize {
        wait_until("what ran has ended", || self.witness.count("begin") == self.witness.count("end"));
        let ended = self.witness.attempts("end");
        let last = ended.last().expect("some have run").trim_end_matches("#1");
        wait_until("the rows are spooled", || {
            std::fs::read_to_string(node.path("data/spool")).unwrap_or_default().contains(last)
        });
        ended.len()
    }

    /// Every run that has ended has its true row, with its output.
    fn check(&self, node: &Node) {
        node.api.get(&format!("/cron/stop/{}", self.id)).ok();
        wait_until("what ran has ended", || self.witness.count("begin") == self.witness.count("end"));
        let ended = self.witness.attempts("end");
        wait_until("the log is read again", || node.api.get("/log/list").status == 200);
        wait_until("each run has its row", || node.api.logs_with(self.id, "ok").len() >= ended.len());
        let rows = node.api.logs_with(self.id, "ok");
        for attempt in &ended {
            let of_it = rows.iter().filter(|row| format!("{}#1", row["run_key"].as_str().unwrap()) == *attempt);
            let outputs: Vec<&str> = of_it.map(|row| row["output"].as_str().unwrap()).collect();
            assert_eq!(outputs, ["its words\n"], "{attempt}");
        }
        assert!(node.api.logs_with(self.id, "lost").is_empty());
        wait_until("the spool is emptied", || {
            std::fs::metadata(node.path("data/spool")).is_ok_and(|spool| spool.len() == 0)
        });
    }
}

fn kill(node: &mut Node, victim: Victim) {
    match victim {
        Victim::Nobody => {}
        Victim::Daemon => {
            let daemon = node.daemon_pid();
            send_signal(Signal::KILL, daemon);
            wait_until("another daemon is there", || node.daemon_pid() != daemon);
            wait_answers(node);
        }
        Victim::Both => {
            node.kill_whole();
            node.launch();
            wait_answers(node);
        }
    }
}

/// The API is there, whatever it answers.
fn wait_answers(node: &Node) {
    wait_until("the API answers", || node.api.try_get("/cron/list").is_some());
}

#[test]
fn rows_of_what_ran_while_mysql_was_away_outlive_the_daemon_and_its_guardian() {
    let Some(mut server) = mariadb::server() else { return };
    for victim in [Victim::Nobody, Victim::Daemon, Victim::Both] {
        eprintln!("{victim:?}");
        let mut node = Node::started(&server.database("utf8mb4").toml());
        let long = long_job(&node);
        server.stop(false);
        long.wait_spooled(&node);
        kill(&mut node, victim);
        kill(&mut node, victim);
        server.start();
        wait_until("it leads", || node.api.get(&format!("/cron/start/{}", long.id)).status == 200);
        long.check(&node);
    }
}

#[test]
fn rows_of_what_ran_while_the_embedded_store_was_locked_outlive_the_daemon() {
    for victim in [Victim::Nobody, Victim::Both] {
        eprintln!("{victim:?}");
        let mut node = Node::started("");
        let long = long_job(&node);
        let locker = rusqlite::Connection::open(node.path("data/wing-crontab.db")).unwrap();
        wait_until("the store is locked", || locker.execute_batch("BEGIN IMMEDIATE").is_ok());
        long.wait_spooled(&node);
        kill(&mut node, victim);
        locker.execute_batch("ROLLBACK").unwrap();
        wait_until("it leads", || node.api.get(&format!("/cron/start/{}", long.id)).status == 200);
        long.check(&node);
    }
}

#[test]
fn a_spool_that_is_damaged_is_set_aside_and_what_can_be_read_of_it_is_written() {
    let Some(mut server) = mariadb::server() else { return };
    let mut node = Node::started(&server.database("utf8mb4").toml());
    let long = long_job(&node);
    server.stop(false);
    let count = long.wait_spooled(&node);
    let daemon = node.daemon_pid();
    send_signal(Signal::STOP, node.guardian_pid());
    send_signal(Signal::KILL, daemon);
    wait_until("the daemon is gone", || !is_alive(daemon));
    let mut spool = std::fs::read(node.path("data/spool")).unwrap();
    spool[30] ^= 1;
    std::fs::write(node.path("data/spool"), spool).unwrap();
    server.start();
    send_signal(Signal::CONT, node.guardian_pid());
    node.wait_said("is damaged: it is set aside as");
    wait_until("it leads", || node.api.is_up() && node.api.get(&format!("/cron/stop/{}", long.id)).status == 200);
    // The one whose row could not be read is told by its mark.
    wait_until("each run has a row", || node.api.logs_with(long.id, "ok").len() >= count);
    let without = |row: &&serde_json::Value| row["output"].as_str().unwrap().contains("its output is lost");
    assert_eq!(node.api.logs_with(long.id, "ok").iter().filter(without).count(), 1);
    assert!(node.path("data/spool.damaged").is_file());
    assert!(node.stop().success());
}

/// Lets so much time pass.
fn pass(secs: u64) {
    let start = clock::mono();
    wait_until("the time is over", || clock::mono().since(start).as_secs() >= secs);
}

#[test]
fn a_stop_holds_at_once_while_the_store_is_away_and_is_stored_when_it_is_back() {
    let Some(mut server) = mariadb::server() else { return };
    for hangs in [false, true] {
        eprintln!("hangs: {hangs}");
        let database = server.database("utf8mb4");
        let mut node = Node::started(&database.toml());
        let witness = Witness::new(node.folder.path(), "seen");
        let id = node.api.add("* * * * * *", &witness.write("x"), "");
        let mutex = node.api.add("* * * * * *", &format!("{}; sleep 2", witness.write("m")), "is_mutex=1");
        let other = node.api.add("0 0 0 1 1 *", "true", "");
        wait_until("they run", || witness.count("x") >= 2 && witness.count("m") >= 2);
        let pid = server.pid();
        if hangs {
            send_signal(Signal::STOP, pid)
        } else {
            server.stop(false)
        }
        let start = clock::mono();
        for id in [id, mutex] {
            node.api.get(&format!("/cron/stop/{id}")).refused(503, &format!("in force, not stored: job {id}"));
        }
        let answered = (clock::mono().since(start).as_millis(), clock::now().wall.second().0);
        assert!(answered.0 < 3_500, "{} ms", answered.0);
        let list = node.api.get("/cron/list").ok();
        let stops = |list: &serde_json::Value| -> Vec<bool> {
            list.as_array().unwrap().iter().map(|job| job["stop"].as_bool().unwrap()).collect()
        };
        assert_eq!(stops(&list), [true, true, false]);
        // What is not a stop is not done without the store.
        node.api.get(&format!("/cron/start/{id}")).refused(503, "nothing was changed");
        node.api.get(&format!("/cron/delete/{other}")).refused(503, "");
        node.api.get(&format!("/cron/stop/{id}")).refused(503, "in force, not stored");
        pass(3);
        let seen = witness.read();
        assert!(seen.iter().all(|seen| seen.scheduled_at <= answered.1), "{seen:?} after {}", answered.1);
        if hangs {
            send_signal(Signal::CONT, pid)
        } else {
            server.start()
        }
        wait_until("they are stored without being asked again", || {
            let stored = database.connect().query::<bool, _>("SELECT stop FROM cron WHERE stop ORDER BY id");
            stored.unwrap() == [true, true]
        });
        wait_until("it takes changes again", || {
            node.api.post("/cron/add", "cronSet=0 0 0 1 1 *&command=true").status == 200
        });
        wait_until("the log is read again", || node.api.get("/log/list").status == 200);
        pass(2);
        assert_eq!(witness.read(), seen, "nothing has started since");
        for (id, word) in [(id, "x"), (mutex, "m")] {
            let mut started = witness.attempts(word);
            started.sort();
            let told = || {
                let mut told: Vec<String> = node.api.logs_with(id, "ok").iter().map(attempt).collect();
                told.sort();
                told
            };
            wait_until("what ran is told, and nothing else is said to have run", || told() == started);
            let rows = node.api.logs(&format!("cron_id={id}"));
            let states = rows.iter().map(|row| row["state"].as_str().unwrap());
            assert!(
                states.clone().all(|state| ["ok", "cancelled"].contains(&state)),
                "{:?}",
                states.collect::<Vec<_>>()
            );
        }
        assert!(node.stop().success());
        node.start();
        assert_eq!(stops(&node.api.get("/cron/list").ok())[..2], [true, true]);
        assert_eq!(witness.read(), seen);
    }
}

fn attempt(row: &serde_json::Value) -> String {
    format!("{}#{}", row["run_key"].as_str().unwrap(), row["attempt"])
}

#[test]
fn a_store_that_refuses_is_told_by_its_own_words() {
    let Some(database) = mariadb::database() else { return };
    let root = || database.connect();
    let user = format!("'{}'@'127.0.0.1'", database.name);
    root().query_drop(format!("CREATE USER {user} IDENTIFIED BY 'x'")).unwrap();
    root().query_drop(format!("GRANT ALL ON {}.* TO {user}", database.name)).unwrap();
    let toml = database
        .toml()
        .replace("\"root\"", &format!("\"{}\"", database.name))
        .replace("password = \"\"", "password = \"x\"");
    let node = Node::started(&toml);
    let id = node.api.add("* * * * * *", "true", "");
    let idle = node.api.add("0 0 0 1 1 *", "true", "");
    wait_until("it runs", || !node.api.logs_with(id, "ok").is_empty());
    root().query_drop(format!("REVOKE INSERT, UPDATE, DELETE ON {}.* FROM {user}", database.name)).unwrap();
    root().query_drop(format!("KILL USER {user}")).unwrap();
    node.wait_said("the journal waits, and runs with it");
    let denied = |reply: Reply, opening: &str| {
        let message = reply.body["message"].as_str().unwrap().to_string();
        assert!(message.starts_with(opening), "{message}");
        assert!(!message.contains("not answer") && !message.contains("to be reached"), "it answers: {message}");
        reply.refused(503, "command denied to user");
    };
    // At the first asking, and when others wait behind a change that is asked again and again.
    for _ in 0..2 {
        let add = "cronSet=@daily&command=true";
        denied(node.api.post("/cron/add", add), "nothing was changed: ");
        denied(node.api.post(&format!("/cron/run/{idle}"), ""), "whether the run is started is not known yet");
        denied(node.api.post("/cluster/pause", ""), "paused in the memory of this leader, not stored: ");
        let stop = node.api.get(&format!("/cron/stop/{idle}"));
        assert!(!stop.body["message"].as_str().unwrap().contains("answers"), "{}", stop.body);
        stop.refused(503, "in force, not stored");
        denied(node.api.get("/health"), "the journal has not been written for ");
    }
    root().query_drop(format!("GRANT ALL ON {}.* TO {user}", database.name)).unwrap();
    root().query_drop(format!("KILL USER {user}")).unwrap();
    wait_until("it works again", || node.api.post("/cluster/resume", "").status == 200);
    wait_until("and says so", || node.api.get("/health").status == 200);
}
