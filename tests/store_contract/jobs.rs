//! The rows of jobs.

use super::{Check, Connect, added, attempt, entry, job, leading, mariadb, page, row};
use wing_crontab::core::io::ports::{Change, Since, StoreError};
use wing_crontab::model::columns::{self, COLUMNS, Column, Kind, TIME_MAX};
use wing_crontab::model::job::JobFilter;
use wing_crontab::model::log_row::LogFilter;
use wing_crontab::model::value::Value;
use wing_crontab::model::{Job, JobId, LogRow, Misfire, OnLost, RunState, Second, Version};
use wing_crontab::worker::store::{Hand, Store};
use wing_crontab::worker::store::{mysql::MysqlStore, sqlite::SqliteStore};

pub const CHECKS: [Check; 6] = [
    ("every column of a job comes back", all_columns),
    ("every column holds the longest text and the largest number that it takes", limits),
    ("jobs are added, put and deleted, each once", changing),
    ("a row changed by hand is not overwritten", changed_by_hand),
    ("jobs are found by text and by id, a page at a time", finding_jobs),
    ("times after 2038 come back as they are", late_times),
];

/// Every column of a job, as it was written.
fn all_columns(connect: Connect) {
    let (mut store, epoch) = leading(connect);
    let whole = Job {
        stop: true,
        start_time: 1,
        end_time: 2,
        is_mutex: true,
        lock_limit: 3,
        misfire: Misfire::Once,
        on_lost: OnLost::Rerun,
        max_parallel: 4,
        timeout: 5,
        retry_times: 6,
        retry_delay: 7,
        run_as: "nobody".into(),
        work_dir: "/tmp".into(),
        env: r#"{"A":"b"}"#.into(),
        shell: "/bin/bash".into(),
        node: "gpu".into(),
        jitter: 8,
        ..job("* * * * * *", "true")
    };
    let id = store.change(epoch, 1, &added(1, whole.clone())).unwrap();
    assert_eq!(store.list_jobs().unwrap(), [Job { id, ..whole.clone() }]);
    let put = Job { id, version: Version(2), misfire: Misfire::Skip, jitter: 9, ..whole };
    store.change(epoch, 2, &Change::Put(put.clone())).unwrap();
    assert_eq!(store.list_jobs().unwrap(), [put]);
}

fn limits(connect: Connect) {
    let (mut store, epoch) = leading(connect);
    let mut full = job("", "");
    columns::given().for_each(|column| column.set(&mut full, largest(column)));
    let id = store.change(epoch, 1, &added(1, full.clone())).unwrap();
    assert_eq!(store.list_jobs().unwrap(), [Job { id, ..full.clone() }]);
    let put = Job { id, version: Version(2), ..columns::new_job() };
    store.change(epoch, 2, &Change::Put(put.clone())).unwrap();
    assert_eq!(store.list_jobs().unwrap(), [put]);
}

fn largest(column: &Column) -> Value<'static> {
    match column.kind {
        Kind::Text { chars_max }
        | Kind::Line { chars_max }
        | Kind::Lines { chars_max }
        | Kind::Path { chars_max }
        | Kind::Env { chars_max } => "中".repeat(chars_max).into(),
        Kind::Word(words) => words[words.len() - 1].into(),
        Kind::Flag => Value::Flag(true),
        Kind::Whole { max, .. } | Kind::Seconds { max } => Value::Number(max),
        Kind::Time => Value::Number(TIME_MAX),
    }
}

fn changing(connect: Connect) {
    let (mut store, epoch) = leading(connect);
    let first = store.change(epoch, 1, &added(1, job("* * * * * *", "echo 你好"))).unwrap();
    let second = store.change(epoch, 2, &added(2, job("* * * * * *", "echo 你好"))).unwrap();
    assert!(JobId(0) < first && first < second);
    let put = Job { id: first, version: Version(2), stop: true, is_mutex: false, ..job("1 2 3 * * *", "false") };
    assert_eq!(store.change(epoch, 3, &Change::Put(put.clone())).unwrap(), first);
    let other = Job { id: second, ..job("* * * * * *", "echo 你好") };
    assert_eq!(store.list_jobs().unwrap(), [put.clone(), other]);
    assert_eq!(store.change(epoch, 4, &Change::Delete { id: second, version: Version(1) }).unwrap(), second);
    assert_eq!(store.list_jobs().unwrap(), [put]);
    let third = store.change(epoch, 5, &added(5, job("@daily", "true"))).unwrap();
    assert!(second < third, "an id is never given twice");
    assert_eq!(store.load(epoch, &Since::default()).unwrap().open.len(), 0, "a note is a record, nothing waits for it");
}

fn changed_by_hand(connect: Connect) {
    let (mut store, epoch) = leading(connect);
    let id = store.change(epoch, 1, &added(1, job("* * * * * *", "true"))).unwrap();
    let stored = Job { id, ..job("* * * * * *", "true") };
    let refused = store.change(epoch, 2, &Change::Put(Job { version: Version(5), ..stored.clone() })).unwrap_err();
    assert!(matches!(&refused, StoreError::Permanent(why) if why.contains("by hand")), "{refused}");
    let refused = store.change(epoch, 3, &Change::Delete { id, version: Version(4) }).unwrap_err();
    assert!(matches!(&refused, StoreError::Permanent(why) if why.contains("by hand")), "{refused}");
    assert_eq!(store.list_jobs().unwrap(), [stored]);
}

fn finding_jobs(connect: Connect) {
    let (mut store, epoch) = leading(connect);
    let jobs: Vec<Job> = (1..=25)
        .map(|at| {
            let odd = if at == 7 { "100%_done\\ 'quoted' 你好" } else { "plain" };
            let job = Job { remark: odd.into(), ..job("*/5 * * * * *", &format!("echo Line {at}")) };
            let id = store.change(epoch, at, &added(at, job.clone())).unwrap();
            Job { id, ..job }
        })
        .collect();
    let find = |store: &mut dyn Store, search: Option<&str>, page: u64, limit: u64| {
        let filter = JobFilter { search: search.map(Into::into), page, limit };
        let page = store.find_jobs(&filter).unwrap();
        (page.total, page.jobs)
    };
    let store = &mut *store;
    assert_eq!(find(store, None, 1, 10), (Some(25), jobs[..10].to_vec()));
    assert_eq!(find(store, None, 3, 10), (Some(25), jobs[20..].to_vec()));
    assert_eq!(find(store, None, u64::MAX, 10_000), (Some(25), vec![]));
    let mut check = |search: &str, expect: &[Job]| {
        assert_eq!(find(store, Some(search), 1, 50), (Some(expect.len() as u64), expect.to_vec()), "{search}");
    };
    check("line 25", &jobs[24..]);
    check("100%_done\\ 'quoted'", &jobs[6..7]);
    check("你好", &jobs[6..7]);
    check("100%done", &[]);
    check("*/5 * *", &jobs);
    check("nowhere", &[]);
    let id = jobs[12].id.0;
    let by_number = find(store, Some(&id.to_string()), 1, 50).1;
    assert!(by_number.contains(&jobs[12]), "by its id: {by_number:?}");
    assert_eq!(find(store, Some("echo line"), 2, 20), (Some(25), jobs[20..].to_vec()));
}

fn late_times(connect: Connect) {
    // 2100-01-01, and the last second of the year 9999.
    const LATE: i64 = 4_102_444_800;
    const LAST: i64 = 253_402_300_799;
    let (mut store, epoch) = leading(connect);
    let late = Job { start_time: LATE, end_time: LAST, since: Second(LATE), ..job("@daily", "true") };
    let id = store.change(epoch, 1, &added(1, late.clone())).unwrap();
    assert_eq!(store.list_jobs().unwrap(), [Job { id, ..late.clone() }]);
    let put = Job { id, version: Version(2), start_time: LATE + 1, ..late };
    store.change(epoch, 2, &Change::Put(put.clone())).unwrap();
    assert_eq!(store.list_jobs().unwrap(), [put]);
    let written = LogRow {
        dispatch_time: Second(LATE - 1),
        start_time_ms: LATE * 1_000,
        ..row(attempt(id.0, LATE), RunState::Ok, "")
    };
    store.write_logs(&[written]).unwrap();
    let found = page(&mut *store, LogFilter::default()).rows.remove(0);
    assert_eq!((found.time, found.dispatch_time, found.start_time_ms), (LATE, LATE - 1, Some(LATE * 1_000)));
    store.journal(&entry(epoch, 3, Some(LATE), 0)).unwrap();
    let loaded = store.load(epoch, &Since::default()).unwrap();
    assert_eq!((loaded.watermark, loaded.open[0].entry.tick), (Some(Second(LATE)), Some(Second(LATE))));
}

/// A row that another program adds with an id alone gets from the database the defaults of `model::columns`.
fn has_defaults(store: &mut dyn Store) {
    let mut expect = Job::default();
    COLUMNS.iter().for_each(|column| column.set(&mut expect, column.default.clone()));
    assert_eq!(store.list_jobs().unwrap(), [Job { id: JobId(1), ..expect }]);
}

#[test]
fn a_row_without_values_gets_the_defaults_in_the_embedded_store() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let mut store = SqliteStore::new(&path, Hand::Lead, Default::default());
    store.open().unwrap();
    rusqlite::Connection::open(&path).unwrap().execute_batch("INSERT INTO cron DEFAULT VALUES").unwrap();
    has_defaults(&mut store);
}

#[test]
fn a_row_without_values_gets_the_defaults_in_mariadb() {
    let Some(database) = mariadb::database() else { return };
    let mut store = MysqlStore::new(&database.config(), Hand::Lead);
    store.open().unwrap();
    database.run(&["INSERT INTO cron () VALUES ()"]);
    has_defaults(&mut store);
}
