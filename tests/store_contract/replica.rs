//! Checks of the reads by which a node keeps its replica of the jobs.

use super::{Check, Connect, added, attempt, entry, job, leading, tick};
use std::collections::BTreeSet;
use wing_crontab::core::io::ports::{Change, Differences, Since};
use wing_crontab::model::journal::{Body, ChangeNote, Entry, EntryId, PlannedRun};
use wing_crontab::model::{Job, JobId, NodeId, Version, Wall};
use wing_crontab::worker::store::Store;

pub const CHECKS: [Check; 3] = [
    ("a replica is read batch by batch, by id", paging),
    ("a replica gets the changes that it lacks, by a read and by a load alike", differing),
    ("a replica that the journal does not reach back to, or that lacks too much, gets no changes", lacking_too_much),
];

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
    // An entry with several notes, as a reload writes it for jobs that were changed by hand.
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
