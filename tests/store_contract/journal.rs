//! Checks of tables `scheduler` and `journal`: the leader's epoch, and the entries.

use super::{Check, Connect, added, attempt, bump, entry, job, leading, page, row, support};
use std::collections::BTreeMap;
use wing_crontab::core::io::ports::{Bump, Change, Differences, Journaled, Loaded, Since, StoreError, StoredLeader};
use wing_crontab::model::command::RequestKey;
use wing_crontab::model::journal::{Body, ChangeNote, DelayedRun, Entry, MissedGap, MissedWhy, PlannedRun, RefusedRun};
use wing_crontab::model::log_row::{LogFilter, LogPage};
use wing_crontab::model::{Attempt, Epoch, Job, JobId, NodeId, RunKey, RunState, Second, Server, Version, Wall};

pub const CHECKS: [Check; 12] = [
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
    ("done entries go, but never the watermark's", closing),
];

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

fn answering(connect: Connect) {
    connect().open().unwrap();
    assert_eq!(connect().ping(), Ok(()));
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
    // The entry is in the journal, but an answer of success would tell a deposed leader that it still leads.
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
    let whole = Entry { body: full_body(), ..entry(epoch, 1, Some(100), 0) };
    store.journal(&whole).unwrap();
    let of_gap = Attempt { run: RunKey::scheduled(JobId(9), Second(99)), number: 0 };
    let of_settled = Attempt { run: RunKey::scheduled(JobId(10), Second(99)), number: 0 };
    store.write_logs(&[row(attempt(7, 100), RunState::Ok, ""), row(of_gap, RunState::Missed, "")]).unwrap();
    store.write_logs(&[row(of_settled, RunState::Cancelled, "")]).unwrap();
    store.write_logs(&[row(attempt(6, 101), RunState::Ok, "another run")]).unwrap();
    // The rows of all attempts of a named run count, and a refusal without a row may be explained by a later one.
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

/// A body that names runs of every kind.
fn full_body() -> Body {
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
    Body {
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
    }
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
    // Only some calls of `close` delete, and such a call deletes all old entries.
    let far = Wall(i64::MAX);
    (0..61).for_each(|_| store.close(epoch, &[], far).unwrap());
    assert_eq!(store.load(epoch, &Since::default()).unwrap().watermark, Some(Second(104)));
    let next = store.bump(&bump("b")).unwrap().epoch;
    assert!(matches!(store.journal(&entry(next, 1, Some(103), 0)).unwrap(), Journaled::Entry(_)), "103 was deleted");
    assert_eq!(store.journal(&entry(next, 2, Some(104), 0)).unwrap(), Journaled::TickTaken);
}
