//! Both stores are held to one contract.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use support::mariadb;
use wing_crontab::core::ports::{Bump, Change, Differences, Journaled, Loaded, Since, StoreError, StoredLeader};
use wing_crontab::model::command::RequestKey;
use wing_crontab::model::job::JobFilter;
use wing_crontab::model::journal::{
    Body, ChangeNote, DelayedRun, Entry, EntryId, MissedGap, MissedWhy, PlannedRun, RefusedRun,
};
use wing_crontab::model::log_row::{LastRun, LogFilter, LogPage};
use wing_crontab::model::{
    Attempt, Epoch, Job, JobId, LogRow, Misfire, NodeId, OnLost, RunKey, RunState, Second, Server, Version, Wall,
};
use wing_crontab::worker::store::{Hand, Store};
use wing_crontab::worker::store::{mysql::MysqlStore, sqlite::SqliteStore};

/// Makes connections to one and the same empty store.
type Connect<'a> = &'a dyn Fn() -> Box<dyn Store>;

/// What a store must do, and the check of it.
type Check = (&'static str, fn(Connect));

const CHECKS: [Check; 25] = [
    ("migrations may be applied again and by several at once", opening),
    ("a store that is there answers", answering),
    ("every bump makes the epoch one larger", bumping),
    ("whoever took the lead last is named to everybody", naming),
    ("another lock_key is refused", foreign_lock_key),
    ("standing alone is refused beside another's young journal", standing_alone),
    ("an entry is written once, however often it is asked", journaling),
    ("a deposed leader changes nothing", deposed),
    ("what is open is told to the next leader, with what is logged", loading),
    ("what a client asks for twice is done once", asking_twice),
    ("a pause is remembered", pausing),
    ("every column of a job comes back", all_columns),
    ("done entries go, but never the watermark's", closing),
    ("jobs are added, put and deleted, each once", changing),
    ("a row changed by hand is not overwritten", changed_by_hand),
    ("a copy of the jobs is read in pages, by id", paging),
    ("a copy of the jobs is told what it lacks, by readers and at a load alike", differing),
    ("a copy that the journal does not reach back to, or that lacks too much, is told so", lacking_too_much),
    ("a definite state replaces lost, and nothing a definite state", upserting),
    ("log rows are found by every filter, newest first", listing),
    ("the row of an attempt is found, and of a run's latest", finding),
    ("jobs are found by text and by id, a page at a time", finding_jobs),
    ("the last run of a job is what its newest row says", last_runs),
    ("any text comes back from the log", odd_texts),
    ("times after 2038 come back as they are", late_times),
];

#[test]
fn the_embedded_store() {
    for (name, check) in CHECKS {
        eprintln!("{name}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        check(&|| Box::new(SqliteStore::new(&path, Hand::Lead, Default::default())));
    }
}

#[test]
fn mariadb() {
    for (name, check) in CHECKS {
        eprintln!("{name}");
        let Some(database) = mariadb::database() else { return };
        check(&|| Box::new(MysqlStore::new(&database.config(), Hand::Lead)));
    }
}

fn answering(connect: Connect) {
    connect().open().unwrap();
    assert_eq!(connect().ping(), Ok(()));
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

fn page(store: &mut dyn Store, filter: LogFilter) -> LogPage {
    let limit = if filter.limit == 0 { 50 } else { filter.limit };
    store.list_logs(&LogFilter { page: filter.page.max(1), limit, ..filter }).unwrap()
}

fn opening(connect: Connect) {
    std::thread::scope(|scope| {
        let opened: Vec<_> = (0..3)
            .map(|_| connect())
            .map(|mut store| scope.spawn(move || support::wait_for("open", || store.open().ok())))
            .collect();
        opened.into_iter().for_each(|thread| drop(thread.join().unwrap()));
    });
    let mut store = connect();
    let opened = store.open().unwrap();
    assert_eq!(opened.advice, Vec::<String>::new());
    assert_eq!(store.list_jobs().unwrap(), []);
    assert_eq!(page(&mut *store, LogFilter::default()), LogPage::default());
}

fn bumping(connect: Connect) {
    let (mut store, first) = leading(connect);
    assert_eq!(first, Epoch(1));
    let mut other = connect();
    other.open().unwrap();
    assert_eq!(other.bump(&bump("b")).unwrap().epoch, Epoch(2));
    assert_eq!(store.bump(&bump("a")).unwrap().epoch, Epoch(3));
    let loaded = store.load(Epoch(3), &Since::default()).unwrap();
    assert_eq!(loaded, Loaded { differences: Some(Differences::default()), ..Loaded::default() });
}

fn naming(connect: Connect) {
    let (mut store, mut reader) = (connect(), connect());
    store.open().unwrap();
    assert_eq!(reader.leader(), Ok(None), "nobody yet");
    for node in ["a", "b", "b"] {
        let bump = Bump { server: Server(format!("{node}:1").into()), ..bump(node) };
        let epoch = store.bump(&bump).unwrap().epoch;
        let Bump { lock_key, server, node_id, .. } = bump;
        assert_eq!(reader.leader(), Ok(Some(StoredLeader { lock_key, epoch, server, node_id })));
    }
}

fn foreign_lock_key(connect: Connect) {
    let (_, _) = leading(connect);
    let mut other = connect();
    other.open().unwrap();
    let refused = other.bump(&Bump { lock_key: "its key".into(), ..bump("b") }).unwrap_err();
    assert!(
        matches!(&refused, StoreError::Permanent(why) if why.contains("\"key\"") && why.contains("its key")),
        "{refused}"
    );
}

fn standing_alone(connect: Connect) {
    let (mut store, epoch) = leading(connect);
    let alone = |node: &str| Bump { alone: true, ..bump(node) };
    assert_eq!(store.bump(&alone("b")).unwrap().epoch, Epoch(2), "nothing is in the journal");
    assert_eq!(store.bump(&bump("a")).unwrap().epoch, Epoch(epoch.0 + 2));
    store.journal(&entry(Epoch(3), 1, Some(100), 0)).unwrap();
    let refused = store.bump(&alone("b")).unwrap_err();
    assert!(matches!(&refused, StoreError::Permanent(why) if why.contains("10.0.0.1:9991 led")), "{refused}");
    assert_eq!(store.bump(&alone("a")).unwrap().epoch, Epoch(4), "its own rows are no other's");
    let patient = Bump { lease_ms: 0, ..alone("b") };
    assert_eq!(store.bump(&patient).unwrap().epoch, Epoch(5), "an old journal is nobody's any more");
}

fn journaling(connect: Connect) {
    let (mut store, epoch) = leading(connect);
    let first = store.journal(&entry(epoch, 1, Some(100), 0)).unwrap();
    assert_eq!(store.journal(&entry(epoch, 1, Some(100), 0)).unwrap(), first);
    let second = store.journal(&entry(epoch, 2, None, 0)).unwrap();
    assert_ne!(second, first);
    assert_ne!(store.journal(&entry(epoch, 3, None, 0)).unwrap(), second, "without a tick there may be many");
    let next = store.bump(&bump("b")).unwrap().epoch;
    assert_eq!(store.journal(&entry(next, 1, Some(100), 0)).unwrap(), Journaled::TickTaken);
    assert!(matches!(store.journal(&entry(next, 2, Some(100), 1)).unwrap(), Journaled::Entry(_)));
    assert_eq!(store.load(next, &Since::default()).unwrap().watermark, Some(Second(100)));
    store.journal(&entry(next, 3, Some(101), 1)).unwrap();
    assert_eq!(
        store.load(next, &Since::default()).unwrap().watermark,
        Some(Second(100)),
        "without its part 0 a tick is not whole"
    );
}

fn deposed(connect: Connect) {
    let (mut store, epoch) = leading(connect);
    let id = store.change(epoch, 1, &added(1, job("* * * * * *", "true"))).unwrap();
    let known = store.journal(&entry(epoch, 2, Some(100), 0)).unwrap();
    let mut other = connect();
    other.open().unwrap();
    let next = other.bump(&bump("b")).unwrap().epoch;
    let stored = other.load(next, &Since::default()).unwrap();
    let put = Job { id, version: Version(2), ..job("* * * * * *", "false") };
    assert_eq!(store.journal(&entry(epoch, 3, Some(101), 0)), Err(StoreError::Deposed));
    // It is in, but to hear that would make a deposed leader believe in its lead.
    assert_eq!(store.journal(&entry(epoch, 2, Some(100), 0)), Err(StoreError::Deposed));
    assert_eq!(store.change(epoch, 4, &added(4, job("* * * * * *", "true"))), Err(StoreError::Deposed));
    assert_eq!(store.change(epoch, 5, &Change::Put(put)), Err(StoreError::Deposed));
    assert_eq!(store.change(epoch, 6, &Change::Delete { id, version: Version(1) }), Err(StoreError::Deposed));
    let Journaled::Entry(entry) = known else { panic!("{known:?}") };
    assert_eq!(store.close(epoch, &[entry], Wall(0)), Err(StoreError::Deposed));
    assert_eq!(store.load(epoch, &Since::default()), Err(StoreError::Deposed));
    assert_eq!(other.load(next, &Since::default()).unwrap(), stored);
}

fn loading(connect: Connect) {
    let (mut store, epoch) = leading(connect);
    let refused =
        RefusedRun { run: RunKey::scheduled(JobId(8), Second(100)), version: Version(1), state: RunState::Skipped };
    let gap = MissedGap {
        cron_id: JobId(9),
        version: Version(1),
        first: Second(90),
        last: Second(99),
        count: 10,
        at_least: false,
        why: MissedWhy::Skip,
    };
    let runs = [7, 6].map(|id| PlannedRun { attempt: attempt(id, 100), version: Version(1), node: 0 });
    let body = Body {
        nodes: vec![NodeId("a".into())],
        runs: runs.to_vec(),
        delayed: vec![DelayedRun {
            attempt: Attempt { number: 2, ..attempt(5, 90) },
            version: Version(1),
            due: Second(130),
        }],
        refused: vec![refused],
        missed: vec![gap],
        settled: vec![MissedGap { cron_id: JobId(10), ..gap }],
        changes: vec![ChangeNote { cron_id: JobId(7), version: None }],
        decided_to: Some(Second(98)),
    };
    let whole = Entry { body, ..entry(epoch, 1, Some(100), 0) };
    store.journal(&whole).unwrap();
    let of_gap = Attempt { run: RunKey::scheduled(JobId(9), Second(99)), number: 0 };
    let of_settled = Attempt { run: RunKey::scheduled(JobId(10), Second(99)), number: 0 };
    store.write_logs(&[row(attempt(7, 100), RunState::Ok, ""), row(of_gap, RunState::Missed, "")]).unwrap();
    store.write_logs(&[row(of_settled, RunState::Cancelled, "")]).unwrap();
    store.write_logs(&[row(attempt(6, 101), RunState::Ok, "another run")]).unwrap();
    // Of a run that is named all attempts count; and a later row may explain a refusal that has none of its own.
    let second = Attempt { number: 2, ..attempt(7, 100) };
    let coalesced = |second: i64| Attempt { run: RunKey::scheduled(JobId(8), Second(second)), number: 0 };
    let rows = [(second, RunState::Failed), (coalesced(105), RunState::Skipped), (coalesced(110), RunState::Skipped)];
    store.write_logs(&rows.map(|(attempt, state)| row(attempt, state, ""))).unwrap();
    let loaded = store.load(epoch, &Since::default()).unwrap();
    assert_eq!(loaded.open.len(), 1);
    assert_eq!(loaded.open[0].entry, whole);
    let logged = [
        (attempt(7, 100), RunState::Ok),
        (second, RunState::Failed),
        (of_gap, RunState::Missed),
        (of_settled, RunState::Cancelled),
        (coalesced(105), RunState::Skipped),
    ];
    assert_eq!(loaded.logged, BTreeMap::from(logged));
}

fn asking_twice(connect: Connect) {
    let (mut store, epoch) = leading(connect);
    let asked = |request, key: &str, id| Entry {
        body: Body {
            nodes: vec![NodeId("a".into())],
            runs: vec![PlannedRun { attempt: attempt(id, 100), version: Version(1), node: 0 }],
            ..Body::default()
        },
        request_key: Some(RequestKey(key.into())),
        ..entry(epoch, request, None, 0)
    };
    let first = store.journal(&asked(1, "k", 7)).unwrap();
    assert!(matches!(first, Journaled::Entry(_)));
    assert_eq!(store.journal(&asked(1, "k", 7)).unwrap(), first, "the same statement again");
    assert_eq!(store.journal(&asked(2, "k", 8)).unwrap(), Journaled::Known(asked(1, "k", 7).body), "the client again");
    assert!(matches!(store.journal(&asked(3, "other", 8)).unwrap(), Journaled::Entry(_)));
    let id = store.change(epoch, 4, &added(4, job("* * * * * *", "true"))).unwrap();
    assert_eq!(store.change(epoch, 5, &added(4, job("* * * * * *", "false"))).unwrap(), id);
    assert_eq!(store.list_jobs().unwrap().len(), 1);
    let next = connect().bump(&bump("b")).unwrap().epoch;
    assert_eq!(store.change(epoch, 6, &added(4, job("* * * * * *", "true"))), Err(StoreError::Deposed));
    assert_eq!(store.change(next, 1, &added(4, job("* * * * * *", "true"))).unwrap(), id, "by the next leader too");
    assert_eq!(
        store.journal(&Entry { epoch: next, ..asked(2, "k", 8) }).unwrap(),
        Journaled::Known(asked(1, "k", 7).body)
    );
}

fn pausing(connect: Connect) {
    let (mut store, epoch) = leading(connect);
    assert!(!store.load(epoch, &Since::default()).unwrap().is_paused);
    for paused in [true, true, false, false] {
        store.pause(epoch, paused).unwrap();
        assert_eq!(store.load(epoch, &Since::default()).unwrap().is_paused, paused);
    }
    store.pause(epoch, true).unwrap();
    let next = store.bump(&bump("b")).unwrap().epoch;
    assert_eq!(store.pause(epoch, false), Err(StoreError::Deposed));
    assert!(store.load(next, &Since::default()).unwrap().is_paused, "the next leader knows it");
}

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

fn closing(connect: Connect) {
    let (mut store, epoch) = leading(connect);
    let mut entries = Vec::new();
    for tick in 100..105 {
        match store.journal(&entry(epoch, tick as u64, Some(tick), 0)).unwrap() {
            Journaled::Entry(id) => entries.push(id),
            other => panic!("tick {tick} is new: {other:?}"),
        }
    }
    store.close(epoch, &entries[..2], Wall(0)).unwrap();
    assert_eq!(store.load(epoch, &Since::default()).unwrap().open.len(), 3);
    store.close(epoch, &entries[..2], Wall(0)).unwrap();
    store.close(epoch, &entries[2..], Wall(0)).unwrap();
    let loaded = store.load(epoch, &Since::default()).unwrap();
    assert_eq!((loaded.open.len(), loaded.watermark), (0, Some(Second(104))));
    // Deletion comes with some of the closings, and then takes all that is old.
    let far = Wall(i64::MAX);
    (0..61).for_each(|_| store.close(epoch, &[], far).unwrap());
    assert_eq!(store.load(epoch, &Since::default()).unwrap().watermark, Some(Second(104)));
    let next = store.bump(&bump("b")).unwrap().epoch;
    assert!(matches!(store.journal(&entry(next, 1, Some(103), 0)).unwrap(), Journaled::Entry(_)), "103 was deleted");
    assert_eq!(store.journal(&entry(next, 2, Some(104), 0)).unwrap(), Journaled::TickTaken);
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

/// An entry of a tick, so that the journal goes on.
fn tick(store: &mut dyn Store, epoch: Epoch, request: u64, tick: i64) -> EntryId {
    match store.journal(&entry(epoch, request, Some(tick), 0)).unwrap() {
        Journaled::Entry(id) => id,
        other => panic!("tick {tick} is new: {other:?}"),
    }
}

fn paging(connect: Connect) {
    let (mut store, epoch) = leading(connect);
    assert_eq!(store.read_batch(JobId(0), 10).unwrap(), Default::default());
    let ids: Vec<JobId> = (1..=5)
        .map(|request| store.change(epoch, request, &added(request, job("* * * * * *", "true"))).unwrap())
        .collect();
    let entry = tick(&mut *store, epoch, 6, 100);
    let first = store.read_batch(JobId(0), 3).unwrap();
    assert_eq!((first.as_of, first.jobs.len()), (entry, 3));
    assert_eq!(first.jobs[0], Job { id: ids[0], ..job("* * * * * *", "true") });
    let second = store.read_batch(first.jobs[2].id, 3).unwrap();
    let read: Vec<JobId> = [first.jobs, second.jobs].concat().iter().map(|job| job.id).collect();
    assert_eq!(read, ids);
    assert_eq!(store.read_batch(ids[4], 3).unwrap().jobs, []);
}

fn differing(connect: Connect) {
    let (mut store, epoch) = leading(connect);
    let add = |store: &mut dyn Store, request: u64| {
        store.change(epoch, request, &added(request, job("* * * * * *", "true"))).unwrap()
    };
    let [changed, deleted, kept] = [1, 2, 3].map(|request| add(&mut *store, request));
    let before = tick(&mut *store, epoch, 4, 100);
    let since = Since { as_of: before, newest: kept, again: Vec::new() };
    let nothing = Differences { as_of: before, ..Differences::default() };
    assert_eq!(store.differences(&since).unwrap(), Some(nothing.clone()));
    let put = Job { id: changed, version: Version(2), ..job("1 2 3 * * *", "false") };
    store.change(epoch, 5, &Change::Put(put.clone())).unwrap();
    store.change(epoch, 6, &Change::Delete { id: deleted, version: Version(1) }).unwrap();
    let added = add(&mut *store, 7);
    let runs = vec![PlannedRun { attempt: attempt(9, 101), version: Version(1), node: 0 }];
    let body = Body { nodes: vec![NodeId("\"changes\":[".into())], runs, ..Body::default() };
    store.journal(&Entry { body, ..entry(epoch, 8, None, 0) }).unwrap();
    let after = tick(&mut *store, epoch, 9, 101);
    let new = Job { id: added, ..job("* * * * * *", "true") };
    let told = Differences { as_of: after, changed: vec![put, new.clone()], gone: vec![deleted], last: Some(deleted) };
    assert_eq!(store.differences(&since).unwrap(), Some(told.clone()));
    assert_eq!(store.load(epoch, &since).unwrap().differences, Some(told));
    let last = store.read_batch(JobId(0), 1).unwrap().last;
    assert!(last.is_none() || last == Some(deleted), "{last:?}");
    let again = Since { as_of: after, newest: added, again: vec![kept, deleted] };
    let told = store.differences(&again).unwrap().unwrap();
    assert!(told.changed.contains(&Job { id: kept, ..new }), "whatever the journal says: {told:?}");
    assert!(told.gone.contains(&deleted));
    // Notes of what was changed by hand: several in one entry.
    let notes = [kept, added].map(|cron_id| ChangeNote { cron_id, version: Some(Version(1)) });
    let body = Body { changes: notes.to_vec(), ..Body::default() };
    store.journal(&Entry { body, ..entry(epoch, 10, None, 0) }).unwrap();
    let told = store.differences(&Since { again: Vec::new(), ..again }).unwrap().unwrap();
    let ids: BTreeSet<JobId> = told.changed.iter().map(|job| job.id).collect();
    assert!(ids.contains(&kept) && ids.contains(&added) && told.last == Some(added), "{told:?}");
}

fn lacking_too_much(connect: Connect) {
    let (mut store, epoch) = leading(connect);
    let first = tick(&mut *store, epoch, 1, 100);
    let last = tick(&mut *store, epoch, 2, 101);
    let since = |as_of| Since { as_of, ..Since::default() };
    assert!(store.differences(&since(first)).unwrap().is_some());
    store.close(epoch, &[first, last], Wall(0)).unwrap();
    (0..60).for_each(|_| store.close(epoch, &[], Wall(i64::MAX)).unwrap());
    assert_eq!(store.differences(&since(first)).unwrap(), None, "its entry was deleted");
    assert_eq!(store.load(epoch, &since(first)).unwrap().differences, None);
    assert!(store.differences(&since(last)).unwrap().is_some());
    assert_eq!(store.differences(&since(EntryId(last.0 + 1_000))).unwrap(), None, "a journal of another time");
    let again = |count: u32| Since { again: (1..=count).map(JobId).collect(), ..since(last) };
    assert_eq!(store.differences(&again(5_000)).unwrap().unwrap().gone.len(), 5_000);
    assert_eq!(store.differences(&again(5_001)).unwrap(), None);
}

fn upserting(connect: Connect) {
    let (mut store, _) = leading(connect);
    let one = attempt(7, 100);
    let states = |store: &mut dyn Store| -> Vec<(String, String)> {
        let rows = page(store, LogFilter::default()).rows;
        rows.into_iter().map(|row| (row.state.unwrap(), row.output)).collect()
    };
    store.write_logs(&[row(one, RunState::Lost, "first")]).unwrap();
    store.write_logs(&[row(one, RunState::Lost, "second")]).unwrap();
    assert_eq!(states(&mut *store), [("lost".into(), "first".into())]);
    store.write_logs(&[row(one, RunState::Ok, "true end")]).unwrap();
    store.write_logs(&[row(one, RunState::Failed, "too late")]).unwrap();
    store.write_logs(&[row(one, RunState::Lost, "too late")]).unwrap();
    assert_eq!(states(&mut *store), [("ok".into(), "true end".into())]);
    store.write_logs(&[row(Attempt { number: 2, ..one }, RunState::Ok, "another attempt")]).unwrap();
    assert_eq!(states(&mut *store).len(), 2);
    // Whoever ran it knows better than whoever says that it never was.
    let other = attempt(7, 101);
    let never = |output| LogRow { start_time_ms: 0, ..row(other, RunState::Cancelled, output) };
    store.write_logs(&[never("first")]).unwrap();
    store.write_logs(&[never("second")]).unwrap();
    assert!(states(&mut *store).contains(&("cancelled".into(), "first".into())));
    store.write_logs(&[row(other, RunState::Failed, "it ran")]).unwrap();
    store.write_logs(&[never("third")]).unwrap();
    store.write_logs(&[row(other, RunState::Lost, "fourth")]).unwrap();
    assert!(states(&mut *store).contains(&("failed".into(), "it ran".into())));
    assert_eq!(states(&mut *store).len(), 3);
    let rows = page(&mut *store, LogFilter::default()).rows;
    assert!(rows.iter().all(|row| row.start_time_ms != Some(0)), "{rows:?}");
}

fn finding(connect: Connect) {
    let (mut store, _) = leading(connect);
    let one = attempt(7, 100);
    assert_eq!(store.find_log(one.run, None).unwrap(), None);
    for number in [1, 3, 2] {
        store.write_logs(&[row(Attempt { number, ..one }, RunState::Failed, &format!("try {number}"))]).unwrap();
    }
    store.write_logs(&[row(attempt(8, 100), RunState::Ok, "another run")]).unwrap();
    let mut find = |number: Option<u32>| store.find_log(one.run, number).unwrap().map(|row| (row.attempt, row.output));
    assert_eq!(find(None), Some((Some(3), "try 3".into())));
    assert_eq!(find(Some(1)), Some((Some(1), "try 1".into())));
    assert_eq!(find(Some(4)), None);
    let row = store.find_log(one.run, Some(2)).unwrap().unwrap();
    assert_eq!((row.state.as_deref(), row.run_server.as_str()), (Some("failed"), "10.0.0.2:9991"));
}

fn listing(connect: Connect) {
    let (mut store, _) = leading(connect);
    let rows: Vec<LogRow> = (0..25)
        .map(|at: u32| LogRow {
            run_server: Server(Arc::from(if at.is_multiple_of(2) { "10.0.0.2:9991" } else { "10.0.0.3:9991" })),
            ..row(attempt(1 + at % 5, 100 + i64::from(at)), RunState::Ok, &format!("line {at} 100%_done\\ 'quoted'"))
        })
        .collect();
    store.write_logs(&rows).unwrap();
    let store = &mut *store;
    let all = page(store, LogFilter::default());
    assert_eq!((all.total, all.rows.len()), (25, 25));
    assert!(all.rows.windows(2).all(|pair| pair[1].id < pair[0].id));
    let newest = &all.rows[0];
    assert_eq!((newest.cron_id, newest.time, newest.use_time_ms), (JobId(5), 124, 45));
    assert_eq!((newest.dispatch_time, newest.start_time_ms), (1_700_000_000, Some(1_700_000_000_123)));
    assert_eq!((newest.run_key.as_deref(), newest.attempt), (Some("5-124"), Some(1)));
    assert_eq!((newest.state.as_deref(), newest.exit_code, newest.version), (Some("ok"), Some(0), Some(2)));
    assert_eq!((newest.dispatch_server.as_str(), newest.run_server.as_str()), ("10.0.0.1:9991", "10.0.0.2:9991"));
    let total = |store: &mut dyn Store, filter: LogFilter| page(store, filter).total;
    assert_eq!(total(store, LogFilter { cron_id: Some(JobId(3)), ..LogFilter::default() }), 5);
    let search = |text: &str| LogFilter { search: Some(text.into()), ..LogFilter::default() };
    assert_eq!(total(store, search("line 7")), 1);
    assert_eq!(total(store, search("LINE 7")), 1, "case does not matter");
    assert_eq!(total(store, search("100%_done\\ 'quoted'")), 25, "taken literally");
    assert_eq!(total(store, search("100%line")), 0);
    assert_eq!(total(store, LogFilter { run_server: Some("10.0.0.3:9991".into()), ..LogFilter::default() }), 12);
    assert_eq!(total(store, LogFilter { dispatch_server: Some("10.0.0.3:9991".into()), ..LogFilter::default() }), 0);
    let third = page(store, LogFilter { page: 3, limit: 10, ..LogFilter::default() });
    assert_eq!((third.total, third.rows.len(), third.rows[4].time), (25, 5, 100));
    assert_eq!(page(store, LogFilter { page: u64::MAX, limit: 10_000, ..LogFilter::default() }).rows, []);
    store.retain_logs(Second(110)).unwrap();
    let left = page(store, LogFilter::default());
    assert_eq!((left.total, left.rows.last().map(|row| row.time)), (15, Some(110)));
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

fn last_runs(connect: Connect) {
    let (mut store, epoch) = leading(connect);
    let mut add = |at: u64| store.change(epoch, at, &added(at, job("* * * * * *", "true"))).unwrap();
    let [ran, missed, never, other] = [1, 2, 3, 4].map(&mut add);
    let rows = [
        row(attempt(ran.0, 100), RunState::Ok, ""),
        row(attempt(missed.0, 100), RunState::Ok, ""),
        LogRow { use_time_ms: 7, ..row(attempt(ran.0, 101), RunState::Failed, "") },
        row(Attempt { number: 0, ..attempt(missed.0, 105) }, RunState::Missed, ""),
        row(attempt(other.0, 99), RunState::Ok, ""),
    ];
    rows.iter().for_each(|row| store.write_logs(std::slice::from_ref(row)).unwrap());
    let last = |state: &str, time, use_time_ms| LastRun { state: Some(state.into()), time, use_time_ms };
    let expect =
        BTreeMap::from([(ran, last("failed", 101, 7)), (missed, last("missed", 105, 45)), (other, last("ok", 99, 45))]);
    // More than one statement asks for.
    let unknown = (1_000..2_000).map(JobId);
    let ids: Vec<JobId> = [ran, missed, never].into_iter().chain(unknown).chain([other]).collect();
    assert_eq!(store.last_runs(&ids).unwrap(), expect);
    assert_eq!(store.last_runs(&[never]).unwrap(), BTreeMap::new());
    assert_eq!(store.last_runs(&[]).unwrap(), BTreeMap::new());
}

fn odd_texts(connect: Connect) {
    let (mut store, _) = leading(connect);
    let long = "x".repeat(3 << 20);
    let texts = ["", "'", "\\", "\"; DROP TABLE log; --", "a\0b", "\r\n\t", "你好 😀", "\u{fffd}", "?", long.as_str()];
    let rows: Vec<LogRow> = texts.iter().zip(1..).map(|(text, id)| row(attempt(id, 100), RunState::Ok, text)).collect();
    store.write_logs(&rows).unwrap();
    let read = page(&mut *store, LogFilter::default()).rows;
    let outputs: Vec<&str> = read.iter().rev().map(|row| row.output.as_str()).collect();
    assert!(outputs == texts, "{:?}", outputs.iter().map(|text| text.len()).collect::<Vec<_>>());
}
