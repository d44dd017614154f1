//! A database that hangs, refuses writes, takes no more connections, or ends them.

use super::{Trial, fail_for_a_while};
use crate::support::daemon::Node;
use crate::support::mariadb;
use crate::support::process::send_signal;
use mysql::prelude::Queryable;
use rustix::process::Signal;

#[test]
fn a_database_that_hangs_holds_up_runs_and_no_answer() {
    let Some(server) = mariadb::server() else { return };
    let trial = Trial::started(Node::new(&server.database("utf8mb4").toml()));
    send_signal(Signal::STOP, server.pid());
    trial.asked_while(fail_for_a_while);
    send_signal(Signal::CONT, server.pid());
    trial.check_outcomes();
}

#[test]
fn a_database_that_is_gone_for_a_while_holds_up_runs_and_no_answer() {
    let Some(mut server) = mariadb::server() else { return };
    let trial = Trial::started(Node::new(&server.database("utf8mb4").toml()));
    for is_gentle in [true, false] {
        server.stop(is_gentle);
        trial.asked_while(fail_for_a_while);
        server.start();
        trial.check_outcomes();
    }
}

#[test]
fn a_table_that_another_program_has_locked_holds_up_no_answer_and_no_run() {
    let Some(database) = mariadb::database() else { return };
    let trial = Trial::started(Node::new(&database.toml()));
    let mut other = database.connect();
    other.query_drop("LOCK TABLES log WRITE").unwrap();
    trial.node.api.get("/log/list").refused(503, "Lock wait timeout");
    trial.asked_while(|| trial.witness.wait_more("x", 3));
    other.query_drop("UNLOCK TABLES").unwrap();
    trial.check_outcomes();
}

#[test]
fn a_database_that_may_only_be_read_is_told_and_is_used_again_when_it_may_be_written() {
    let Some(server) = mariadb::server() else { return };
    let database = server.database("utf8mb4");
    let trial = Trial::started(Node::new(&database.for_a_user().toml()));
    database.run(&["SET GLOBAL read_only = ON"]);
    trial.asked_while(|| {
        fail_for_a_while();
        let health = trial.node.api.get("/health");
        assert!(health.message().contains("read"), "{health:?}");
        let add = trial.node.api.post("/cron/add", "cronSet=0 0 0 1 1 *&command=true");
        add.refused(503, "read");
    });
    database.run(&["SET GLOBAL read_only = OFF"]);
    trial.check_outcomes();
    trial.node.api.wait_takes_changes();
}

#[test]
fn a_database_without_a_free_connection_is_told_and_is_used_again_when_it_has_one() {
    let Some(server) = mariadb::server() else { return };
    let database = server.database("utf8mb4");
    let owner = database.for_a_user();
    let trial = Trial::started(Node::new(&owner.toml()));
    let mut administrator = database.connect();
    let mut others = Vec::new();
    trial.asked_while(|| {
        others = owner.without_connections(&mut administrator);
        trial.node.wait_health(503);
        fail_for_a_while();
        let health = trial.node.api.get("/health");
        assert!(health.message().contains("Too many connections"), "{health:?}");
    });
    drop(others);
    trial.check_outcomes();
}
