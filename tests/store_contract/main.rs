//! The contract of the stores: the same checks for both of them.

#[path = "../support/mod.rs"]
mod support;

mod jobs;
mod journal;
mod logs;
mod replica;

use support::mariadb;
use wing_crontab::core::io::ports::{Bump, Change, Journaled};
use wing_crontab::model::command::RequestKey;
use wing_crontab::model::journal::{Body, Entry, EntryId};
use wing_crontab::model::log_row::{LogFilter, LogPage};
use wing_crontab::model::{
    Attempt, Epoch, Job, JobId, LogRow, NodeId, RunKey, RunState, Second, Server, Usage, Version,
};
use wing_crontab::worker::store::{Hand, Store};
use wing_crontab::worker::store::{mysql::MysqlStore, sqlite::SqliteStore};

/// Makes connections to one and the same empty store.
type Connect<'a> = &'a dyn Fn() -> Box<dyn Store>;

/// What a store must do, and the check of it.
type Check = (&'static str, fn(Connect));

fn checks() -> Vec<Check> {
    [&journal::CHECKS[..], &jobs::CHECKS, &replica::CHECKS, &logs::CHECKS].concat()
}

#[test]
fn the_embedded_store() {
    for (name, check) in checks() {
        eprintln!("{name}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        check(&|| Box::new(SqliteStore::new(&path, Hand::Lead, Default::default())));
    }
}

#[test]
fn mariadb() {
    for (name, check) in checks() {
        eprintln!("{name}");
        let Some(database) = mariadb::database() else { return };
        check(&|| Box::new(MysqlStore::new(&database.config(), Hand::Lead)));
    }
}

fn bump(node: &str) -> Bump {
    Bump {
        lock_key: "key".into(),
        server: Server("10.0.0.1:9991".into()),
        node_id: NodeId(node.into()),
        alone: false,
        lease_ms: 10_000,
    }
}

/// An open store that leads.
fn leading(connect: Connect) -> (Box<dyn Store>, Epoch) {
    let mut store = connect();
    store.open().unwrap();
    let epoch = store.bump(&bump("a")).unwrap().epoch;
    (store, epoch)
}

fn entry(epoch: Epoch, request: u64, tick: Option<i64>, part: u32) -> Entry {
    Entry { epoch, request, tick: tick.map(Second), part, body: Body::default(), request_key: None }
}

/// An entry of a tick, so that the journal goes on.
fn tick(store: &mut dyn Store, epoch: Epoch, request: u64, tick: i64) -> EntryId {
    match store.journal(&entry(epoch, request, Some(tick), 0)).unwrap() {
        Journaled::Entry(id) => id,
        other => panic!("tick {tick} is new: {other:?}"),
    }
}

/// A new job, under the key that its request number makes.
fn added(request: u64, job: Job) -> Change {
    Change::Add(job, RequestKey(request.to_string()))
}

fn attempt(id: u32, second: i64) -> Attempt {
    Attempt { run: RunKey::scheduled(JobId(id), Second(second)), number: 1 }
}

fn row(attempt: Attempt, state: RunState, output: &str) -> LogRow {
    LogRow {
        attempt,
        version: Version(2),
        state,
        exit_code: (state == RunState::Ok).then_some(0),
        output: output.into(),
        start_time_ms: 1_700_000_000_123,
        use_time_ms: 45,
        usage: Usage { cpu_ms: Some(1_234), memory_kb_max: (state == RunState::Ok).then_some(5_678) },
        dispatch_time: Second(1_700_000_000),
        dispatch_server: Server("10.0.0.1:9991".into()),
        run_server: Server("10.0.0.2:9991".into()),
    }
}

fn job(cron_set: &str, command: &str) -> Job {
    Job {
        cron_set: cron_set.into(),
        command: command.into(),
        remark: "备注".into(),
        start_time: 5,
        end_time: 2_000_000_000,
        is_mutex: true,
        lock_limit: 30,
        version: Version(1),
        since: Second(1_700_000_000),
        ..Job::default()
    }
}

fn page(store: &mut dyn Store, filter: LogFilter) -> LogPage {
    let limit = if filter.limit == 0 { 50 } else { filter.limit };
    store.list_logs(&LogFilter { page: filter.page.max(1), limit, ..filter }).unwrap()
}
