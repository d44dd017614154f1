//! The store goes away, and the daemon dies meanwhile: every run still gets its log row.

use crate::support::api::Reply;
use crate::support::cluster::ran_or_was_cancelled;
use crate::support::daemon::Node;
use crate::support::mariadb::{Database, Server};
use crate::support::process::{is_alive, send_signal};
use crate::support::row::Row;
use crate::support::time::{pass, second, timed};
use crate::support::witness::Witness;
use crate::support::{mariadb, wait_to_see, wait_until};
use mysql::prelude::Queryable;
use rustix::process::Signal;
use std::time::Duration;

/// The processes that die while the store is away.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Nobody,
    Daemon,
    Both,
}

/// A job whose runs go on while the store is away, and write some output.
struct Long {
    witness: Witness,
    id: u64,
}

fn long_job(node: &Node) -> Long {
    let witness = node.witness("seen");
    let id = node.api.add_every_second(&format!("echo its words; {}", witness.around("sleep 3")), "");
    witness.wait_count("begin", 3);
    Long { witness, id }
}

impl Long {
    /// Waits until every run that began has ended and its row is on the disk; gives the number of rows.
    fn wait_spooled(&self, node: &Node) -> usize {
        self.witness.wait_all_ended();
        let ended = self.witness.attempts("end");
        let last = ended.last().expect("some have run").trim_end_matches("#1");
        wait_until("the rows are spooled", || {
            std::fs::read_to_string(node.path("data/spool")).unwrap_or_default().contains(last)
        });
        ended.len()
    }

    /// Checks that every run that has ended has its row, with its output.
    fn check(&self, node: &Node) {
        node.api.stop_job(self.id);
        self.witness.wait_all_ended();
        let ended = self.witness.attempts("end");
        wait_reads_log(node);
        let rows = node.api.wait_for_rows(self.id, "ok", ended.len());
        for attempt in &ended {
            let of_it = rows.iter().filter(|row| row.attempt() == *attempt);
            let outputs: Vec<&str> = of_it.map(|row| row.output()).collect();
            assert_eq!(outputs, ["its words\n"], "{attempt}");
        }
        assert!(node.api.rows_with(self.id, "lost").is_empty());
        let length = || std::fs::metadata(node.path("data/spool")).map_or(u64::MAX, |spool| spool.len());
        wait_to_see("an empty spool", length, |length| *length == 0);
    }
}

#[track_caller]
fn wait_reads_log(node: &Node) {
    wait_to_see("the log is read again", || node.api.get("/log/list"), |reply| reply.status == 200);
}

/// Waits until a job can be started: the node leads, and has its store.
#[track_caller]
fn wait_starts(node: &Node, id: u64) {
    wait_to_see("the node takes a start", || node.api.get(&format!("/cron/start/{id}")), |reply| reply.status == 200);
}

fn kill(node: &mut Node, victim: Victim) {
    match victim {
        Victim::Nobody => {}
        Victim::Daemon => {
            let daemon = node.daemon_pid();
            send_signal(Signal::KILL, daemon);
            node.wait_for_other_daemon(daemon);
            wait_answers(node);
        }
        Victim::Both => {
            node.kill_whole();
            node.launch();
            wait_answers(node);
        }
    }
}

/// Waits until the API answers, whatever it answers.
fn wait_answers(node: &Node) {
    wait_until("the API answers", || node.api.try_get("/cron/list").is_some());
}

#[test]
fn rows_of_runs_while_mysql_was_away_outlive_the_daemon_and_its_guardian() {
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
        wait_starts(&node, long.id);
        long.check(&node);
    }
}

#[test]
fn rows_of_runs_while_the_embedded_store_was_locked_outlive_the_daemon() {
    for victim in [Victim::Nobody, Victim::Both] {
        eprintln!("{victim:?}");
        let mut node = Node::started("");
        let long = long_job(&node);
        let locker = rusqlite::Connection::open(node.path("data/wing-crontab.db")).unwrap();
        wait_until("the store is locked", || locker.execute_batch("BEGIN IMMEDIATE").is_ok());
        long.wait_spooled(&node);
        kill(&mut node, victim);
        locker.execute_batch("ROLLBACK").unwrap();
        wait_starts(&node, long.id);
        long.check(&node);
    }
}

#[test]
fn a_client_is_told_that_another_program_holds_the_embedded_store() {
    let node = Node::started("");
    let locker = rusqlite::Connection::open(node.path("data/wing-crontab.db")).unwrap();
    wait_until("the store is locked", || locker.execute_batch("BEGIN IMMEDIATE").is_ok());
    node.api.post("/cron/add", "cronSet=* * * * * *&command=true").refused(503, "database is locked");
    locker.execute_batch("ROLLBACK").unwrap();
    node.api.wait_takes_changes();
}

#[test]
fn a_damaged_spool_is_set_aside_and_its_readable_rows_are_written() {
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
    wait_until("the node takes a stop", || {
        node.api.is_up() && node.api.get(&format!("/cron/stop/{}", long.id)).status == 200
    });
    // One row could not be read. The mark of its run has the outcome, but not the output.
    let rows = node.api.wait_for_rows(long.id, "ok", count);
    assert_eq!(rows.iter().filter(|row| row.output().contains("its output is lost")).count(), 1);
    assert!(node.path("data/spool.damaged").is_file());
    assert!(node.stop().success());
}

/// How a database goes away.
#[derive(Clone, Copy, Debug)]
enum Absence {
    Dead,
    Hanging,
}

impl Absence {
    fn begin(self, server: &mut Server) {
        match self {
            Absence::Dead => server.stop(false),
            Absence::Hanging => send_signal(Signal::STOP, server.pid()),
        }
    }

    fn end(self, server: &mut Server) {
        match self {
            Absence::Dead => server.start(),
            Absence::Hanging => send_signal(Signal::CONT, server.pid()),
        }
    }
}

/// A node with two jobs of every second that are to be stopped, and one idle job.
struct Stopping {
    node: Node,
    witness: Witness,
    plain: u64,
    mutex: u64,
    idle: u64,
}

impl Stopping {
    fn started(database: &Database) -> Stopping {
        let node = Node::started(&database.toml());
        let witness = node.witness("seen");
        let plain = node.api.add_every_second(&witness.write("x"), "");
        let mutex = node.api.add_every_second(&format!("{}; sleep 2", witness.write("m")), "is_mutex=1");
        let idle = node.api.add_idle("true", "");
        ["x", "m"].iter().for_each(|word| witness.wait_count(word, 2));
        Stopping { node, witness, plain, mutex, idle }
    }

    /// Stops both jobs while the store is away; gives the second of the last answer.
    fn stop_unstored(&self) -> i64 {
        let api = &self.node.api;
        let took = timed(|| {
            for id in [self.plain, self.mutex] {
                api.get(&format!("/cron/stop/{id}")).refused(503, &format!("in force, not stored: job {id}"));
            }
        });
        let answered_at = second();
        assert!(took < Duration::from_millis(3_500), "{took:?}");
        assert_eq!(self.are_stopped(), [true, true, false]);
        answered_at
    }

    /// Only a stop is done without the store.
    fn check_other_changes_are_refused(&self) {
        let (api, plain, idle) = (&self.node.api, self.plain, self.idle);
        api.get(&format!("/cron/start/{plain}")).refused(503, "nothing was changed");
        api.get(&format!("/cron/delete/{idle}")).refused(503, "");
        api.get(&format!("/cron/stop/{plain}")).refused(503, "in force, not stored");
    }

    /// Whether each job is stopped, by the list.
    fn are_stopped(&self) -> Vec<bool> {
        self.node.api.jobs().iter().map(|job| job["stop"].as_bool().unwrap()).collect()
    }

    /// Waits until the log calls exactly those runs ok that were started; all others were cancelled.
    fn check_rows(&self, id: u64, word: &str) {
        let started = self.witness.attempts(word);
        let ok = || {
            let mut attempts: Vec<String> = self.node.api.rows_with(id, "ok").iter().map(Row::attempt).collect();
            attempts.sort();
            attempts
        };
        wait_to_see(&format!("rows of these runs and no others: {started:?}"), ok, |ok| *ok == started);
        let rows = self.node.api.rows(id);
        assert!(rows.iter().all(ran_or_was_cancelled), "{rows:?}");
    }
}

#[track_caller]
fn check_stop_without_store(server: &mut Server, absence: Absence) {
    eprintln!("{absence:?}");
    let database = server.database("utf8mb4");
    let mut stopping = Stopping::started(&database);
    absence.begin(server);
    let answered_at = stopping.stop_unstored();
    stopping.check_other_changes_are_refused();
    pass(3);
    let seen = stopping.witness.read();
    assert!(seen.iter().all(|seen| seen.scheduled_at <= answered_at), "{seen:?} after {answered_at}");
    absence.end(server);
    // The daemon stores the stops without another request.
    let stored = || database.connect().query::<bool, _>("SELECT stop FROM cron WHERE stop ORDER BY id").unwrap();
    wait_to_see("both stops are stored", stored, |stored| *stored == [true, true]);
    stopping.node.api.wait_takes_changes();
    wait_reads_log(&stopping.node);
    pass(2);
    assert_eq!(stopping.witness.read(), seen, "no run has started since");
    stopping.check_rows(stopping.plain, "x");
    stopping.check_rows(stopping.mutex, "m");
    assert!(stopping.node.stop().success());
    stopping.node.start();
    assert_eq!(stopping.are_stopped()[..2], [true, true]);
    assert_eq!(stopping.witness.read(), seen);
}

#[test]
fn a_stop_holds_at_once_while_the_store_is_away_and_is_stored_when_it_is_back() {
    let Some(mut server) = mariadb::server() else { return };
    for absence in [Absence::Dead, Absence::Hanging] {
        check_stop_without_store(&mut server, absence);
    }
}

#[test]
fn the_refusal_of_a_store_is_told_in_the_stores_own_words() {
    let Some(database) = mariadb::database() else { return };
    let (user, name) = (format!("'{0}'@'127.0.0.1'", database.name), &database.name);
    let grant = format!("GRANT ALL ON {name}.* TO {user}");
    database.run(&[&format!("CREATE USER {user} IDENTIFIED BY 'x'"), &grant]);
    let toml = database.toml().replace("\"root\"", &format!("\"{name}\""));
    let toml = toml.replace("password = \"\"", "password = \"x\"");
    let node = Node::started(&toml);
    let id = node.api.add_every_second("true", "");
    let idle = node.api.add_idle("true", "");
    node.api.wait_for_rows(id, "ok", 1);
    let end_connections = format!("KILL USER {user}");
    database.run(&[&format!("REVOKE INSERT, UPDATE, DELETE ON {name}.* FROM {user}"), &end_connections]);
    node.wait_said("the journal waits, and runs with it");
    let denied = |reply: Reply, opening: &str| {
        let message = reply.message();
        assert!(message.starts_with(opening), "{message}");
        assert!(
            !message.contains("not answer") && !message.contains("be reached"),
            "the store answers, and the message says that it does not: {message}"
        );
        reply.refused(503, "command denied to user");
    };
    // In the second round the changes wait behind the first one, which is tried again and again.
    for _ in 0..2 {
        let add = "cronSet=@daily&command=true";
        denied(node.api.post("/cron/add", add), "nothing was changed: ");
        denied(node.api.post(&format!("/cron/run/{idle}"), ""), "whether the run is started is not known yet");
        denied(node.api.post("/cluster/pause", ""), "paused in the memory of this leader, not stored: ");
        let stop = node.api.get(&format!("/cron/stop/{idle}"));
        assert!(!stop.message().contains("answers"), "{}", stop.body);
        stop.refused(503, "in force, not stored");
        denied(node.api.get("/health"), "the journal has not been written for ");
    }
    database.run(&[&grant, &end_connections]);
    wait_to_see("the node takes a resume", || node.api.post("/cluster/resume", ""), |reply| reply.status == 200);
    node.wait_health(200);
}
