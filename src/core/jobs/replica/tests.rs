//! Tests of the replica, with a store that answers step by step.

use super::*;
use crate::core::Lender;
use crate::core::io::Effect;
use crate::model::{Second, Version};

fn job(id: u32, version: u64) -> Job {
    let cron_set = if version.is_multiple_of(2) { "*/2 * * * * *" } else { "* * * * * *" };
    Job { id: JobId(id), version: Version(version), cron_set: cron_set.into(), ..Job::default() }
}

/// A replica, and its questions to the store, one at a time.
struct Bench {
    replica: Replica,
    lender: Lender,
    now: Now,
}

impl Bench {
    fn new() -> Bench {
        let mut bench =
            Bench { replica: Replica::new(Zones::default()), lender: Lender::default(), now: Now::default() };
        bench.replica.poll(None, &mut bench.lender.at(bench.now));
        bench
    }

    fn pass_ms(&mut self, ms: u64) {
        self.now.mono = self.now.mono.plus_ms(ms);
        self.replica.poll(None, &mut self.lender.at(self.now));
    }

    /// What it asks now.
    fn asked(&mut self) -> Option<(WorkId, Read)> {
        self.replica.check_invariants();
        std::iter::from_fn(|| self.lender.fx.take()).find_map(|output| match output {
            Effect::Work(id, Work::Read(read)) => Some((id, read)),
            _ => None,
        })
    }

    /// Answers the batch that is asked for from these rows; gives the id after which it begins.
    fn batch(&mut self, as_of: i64, rows: &[Job]) -> JobId {
        let Some((id, Read::Batch { after, limit })) = self.asked() else { panic!("no batch is asked for") };
        let jobs = rows.iter().filter(|job| after < job.id).take(limit).cloned().collect();
        let batch = JobBatch { as_of: EntryId(as_of), last: None, jobs };
        self.replica.on_batch(id, Ok(batch), &mut self.lender.at(self.now));
        after
    }

    /// Answers the question for differences with these; gives the question.
    fn differ(&mut self, differences: Option<Differences>) -> Since {
        let Some((id, Read::Differences(since))) = self.asked() else { panic!("no differences are asked for") };
        self.replica.on_differences(id, Ok(differences), &mut self.lender.at(self.now));
        since
    }

    fn versions(&self) -> Vec<(u32, u64)> {
        let scheduler = self.replica.scheduler.as_ref().unwrap();
        scheduler.jobs().map(|job| (job.id.0, job.version.0)).collect()
    }
}

#[test]
fn it_is_filled_batch_by_batch_and_then_gets_the_changes_of_that_time() {
    let mut bench = Bench::new();
    let mut rows: Vec<Job> = (1..=2_500).map(|id| job(id, 1)).collect();
    assert_eq!(bench.batch(7, &rows), JobId(0));
    assert!(!bench.replica.is_ready());
    // A job that was read is deleted and another changed; one that was not read yet is deleted; one is new.
    rows.retain(|job| ![5, 1_500].contains(&job.id.0));
    rows[9] = job(rows[9].id.0, 2);
    let changed = rows[9].clone();
    assert_eq!(bench.batch(8, &rows), JobId(1_000));
    assert_eq!(bench.batch(9, &rows), JobId(2_001));
    assert!(bench.replica.is_ready());
    let gone = vec![JobId(5), JobId(1_500)];
    let differences = Differences {
        as_of: EntryId(10),
        changed: vec![changed.clone(), job(2_501, 1)],
        gone,
        last: Some(JobId(1_500)),
    };
    let since = bench.differ(Some(differences));
    assert_eq!((since.as_of, since.newest), (EntryId(7), JobId(2_500)), "before the first batch was read");
    rows.push(job(2_501, 1));
    assert_eq!(bench.versions(), rows.iter().map(|job| (job.id.0, job.version.0)).collect::<Vec<_>>());
    bench.pass_ms(REPLICA_REFRESH_MS);
    let since = bench.differ(Some(Differences { as_of: EntryId(11), ..Differences::default() }));
    assert_eq!(since, Since { as_of: EntryId(10), newest: JobId(2_501), again: vec![JobId(1_500)] });
    bench.pass_ms(REPLICA_REFRESH_MS);
    assert_eq!(bench.differ(None).again, [JobId(1_500)], "until there is another last one");
}

#[test]
fn a_replica_that_lacks_too_much_is_read_anew_and_keeps_its_jobs_meanwhile() {
    let mut bench = Bench::new();
    let mut rows: Vec<Job> = (1..=5_000).map(|id| job(id, 1)).collect();
    while !bench.replica.is_ready() {
        bench.batch(1, &rows);
    }
    // All but a few jobs are gone: more than one step compares.
    rows.retain(|job| job.id.0.is_multiple_of(1_000));
    rows[1].version = Version(2);
    bench.differ(None);
    assert!(!bench.replica.is_ready());
    let mut pages = 0;
    while !bench.replica.is_ready() {
        bench.batch(2, &rows);
        pages += 1;
    }
    assert_eq!(bench.versions(), [(1_000, 1), (2_000, 2), (3_000, 1), (4_000, 1), (5_000, 1)]);
    assert_eq!(pages, 3);
    bench.differ(Some(Differences { as_of: EntryId(3), ..Differences::default() }));
    bench.pass_ms(REPLICA_STALE_MS);
    assert!(matches!(bench.asked(), Some((_, Read::Batch { after: JobId(0), .. }))), "too old for differences");
}

#[test]
fn a_list_that_needs_newer_jobs_has_the_store_asked_once_and_at_once() {
    let mut bench = Bench::new();
    assert!(bench.replica.jobs().is_none(), "no batch is there yet");
    bench.batch(1, &[job(1, 1)]);
    bench.differ(Some(Differences { as_of: EntryId(1), ..Differences::default() }));
    assert!(bench.replica.jobs().is_some());
    for result in [Ok(Some(Differences::default())), Err(StoreError::Away("away".into()))] {
        bench.now.mono = bench.now.mono.plus_ms(5);
        let wanted = Some(bench.now.mono);
        bench.replica.poll(wanted, &mut bench.lender.at(bench.now));
        let (id, _) = bench.asked().expect("it is asked before its time");
        bench.replica.poll(wanted, &mut bench.lender.at(bench.now));
        assert!(bench.asked().is_none() && !bench.replica.is_of(bench.now.mono));
        bench.replica.on_differences(id, result, &mut bench.lender.at(bench.now));
        assert!(bench.replica.is_of(bench.now.mono), "a store that is away has nothing newer to tell");
    }
}

#[test]
fn a_failed_read_is_repeated_and_an_answer_from_before_the_lead_has_no_effect() {
    let mut bench = Bench::new();
    let (id, _) = bench.asked().unwrap();
    bench.replica.on_batch(id, Err(StoreError::Away("away".into())), &mut bench.lender.at(bench.now));
    assert!(bench.asked().is_none());
    bench.now.mono = Timers::first(bench.now, |timers| bench.replica.timers(timers)).unwrap().1;
    bench.pass_ms(0);
    bench.batch(1, &[job(1, 1)]);
    let (id, read) = bench.asked().unwrap();
    assert!(matches!(read, Read::Differences(_)));
    let since = bench.replica.since();
    let changed =
        |version| Some(Differences { as_of: EntryId(5), changed: vec![job(1, version)], ..Differences::default() });
    assert_eq!(since.as_of, EntryId(1));
    assert!(bench.replica.bring_up(changed(3), bench.now.mono, &mut bench.lender.at(bench.now)));
    bench.replica.on_differences(id, Ok(changed(2)), &mut bench.lender.at(bench.now));
    assert_eq!(bench.versions(), [(1, 3)]);
    let mut lent = bench.replica.lend(bench.now);
    assert!(!bench.replica.is_ready());
    bench.pass_ms(10 * REPLICA_REFRESH_MS);
    assert!(bench.asked().is_none(), "the leader has the jobs");
    lent.scheduler.remove(JobId(1));
    lent.again = vec![JobId(1)];
    bench.replica.take_back(lent, bench.now);
    assert_eq!(bench.replica.since(), Since { as_of: EntryId(5), newest: JobId(0), again: vec![JobId(1)] });
}

#[test]
fn its_schedules_are_kept_near_the_present() {
    let mut bench = Bench::new();
    bench.batch(1, &[job(1, 1)]);
    bench.now.wall = Second(1_000_000).wall();
    bench.differ(Some(Differences::default()));
    assert_eq!(bench.replica.lend(bench.now).scheduler.cursor(), Second(1_000_000 - REPLICA_LAG_SECS));
}
