//! Checks of table `log`.

use super::{Check, Connect, added, attempt, job, leading, page, row};
use std::collections::BTreeMap;
use std::sync::Arc;
use wing_crontab::model::log_row::{LastRun, LogFilter};
use wing_crontab::model::{Attempt, JobId, LogRow, RunState, Second, Server};
use wing_crontab::worker::store::Store;

pub const CHECKS: [Check; 6] = [
    ("a definite state replaces lost, and nothing a definite state", upserting),
    ("log rows are found by every filter, newest first", listing),
    ("the row of an attempt is found, and of a run's latest", finding),
    ("the last run of a job is what its newest row says", last_runs),
    ("any text comes back from the log", odd_texts),
    ("a page of large rows ends early and says so", large_pages),
];

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
    // The row of a run that was started replaces one by which the run was not.
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
    assert_eq!((newest.cpu_ms, newest.memory_kb_max), (Some(1_234), Some(5_678)));
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
    assert!(!store.retain_logs(Second(110)).unwrap(), "no old row is left");
    let left = page(store, LogFilter::default());
    assert_eq!((left.total, left.rows.last().map(|row| row.time)), (15, Some(110)));
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
    // More ids than one statement looks up.
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

fn large_pages(connect: Connect) {
    let (mut store, _) = leading(connect);
    let (large, lines) = ("x".repeat(1_000_000), "\n".repeat(1_000_000));
    let outputs = (0..40).map(|_| "small").chain([&*large; 12]).chain([&*lines; 6]).chain((0..100).map(|_| "small"));
    let rows: Vec<LogRow> = outputs.zip(1..).map(|(output, at)| row(attempt(7, at), RunState::Ok, output)).collect();
    rows.chunks(20).for_each(|rows| store.write_logs(rows).unwrap());
    let mut seen = |page_number: u64, limit: u64| {
        let filter = LogFilter { cron_id: Some(JobId(7)), page: page_number, limit, ..LogFilter::default() };
        let page = page(&mut *store, filter);
        let times: Vec<i64> = page.rows.iter().map(|row| row.time).collect();
        let first = times.first().copied().unwrap_or(0);
        assert!(times.iter().zip(0..).all(|(time, back)| *time == first - back), "one after the other: {times:?}");
        (first, times.len(), page.is_truncated, page.total)
    };
    // A line end is two bytes of JSON: four such rows are all that an answer holds.
    assert_eq!(seen(1, 10_000), (158, 104, true, 158));
    assert_eq!(seen(1, 104), (158, 104, false, 158));
    assert_eq!(seen(2, 106), (52, 8, true, 158), "the large ones");
    assert_eq!(seen(15, 8), (46, 8, false, 158), "the last of them, and small ones");
    assert_eq!(seen(2, 118), (40, 40, false, 158));
    assert_eq!(seen(3, 100), (0, 0, false, 158));
}
