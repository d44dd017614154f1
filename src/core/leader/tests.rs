//! The leader with a store that takes every entry at once, and answers a change when the test says so.

use super::*;
use crate::core::Lender;
use crate::core::io::Effect;
use crate::core::jobs::scheduler::Scheduler;
use crate::core::time::bounds::CHANGE_SILENT_MS;
use crate::model::command::Command;
use crate::model::{Incarnation, Job, JobId, NodeId, RunKey, Zones};

struct Bench {
    leader: Leader,
    lender: Lender,
    now: Now,
    entries: i64,
    changes: Vec<WorkId>,
}

impl Bench {
    /// A leader with a job of every second, and no node that takes a run.
    fn new() -> Bench {
        let now = Now { wall: Second(1_000).wall(), mono: Mono(0).plus_ms(1_000) };
        let mut scheduler = Scheduler::new(Zones::default(), Second(1_000));
        scheduler.put(Job { id: JobId(1), cron_set: "* * * * * *".into(), ..Job::default() }).unwrap();
        let hello = Hello {
            node_id: NodeId("own".into()),
            server: Server("10.0.0.1:9991".into()),
            incarnation: Incarnation(1),
            capacity: 9,
            labels: Vec::new(),
            has_forgotten: false,
        };
        let limits = RunLimits { max_pending_per_job: 9, unplaced_max: 9, grace_secs: 600, part_runs_max: 100 };
        let setup = LeaderSetup { hello, limits, leases_end: now.mono, plan_ahead_ms: 0, kill_grace_ms: 0 };
        let mut lender = Lender::default();
        let jobs = Lent { scheduler, as_of: AsOf::default(), again: Vec::new() };
        let leader = Leader::establish(setup, Epoch(1), Loaded::default(), jobs, &mut lender.at(now));
        Bench { leader, lender, now, entries: 0, changes: Vec::new() }
    }

    fn pass_ms(&mut self, ms: u64) {
        self.now.mono = self.now.mono.plus_ms(ms);
        self.now.wall = Wall(self.now.wall.0 + ms as i64 * 1_000_000);
        self.poll();
    }

    fn poll(&mut self) {
        let mut cx = self.lender.at(self.now);
        self.leader.poll(&mut cx);
        while let Some(effect) = cx.fx.take() {
            match effect {
                Effect::Work(id, Work::Lead(Lead::Journal(_))) => {
                    self.entries += 1;
                    let entry = Ok(Journaled::Entry(EntryId(self.entries)));
                    self.leader.on_journaled(id, entry, &mut cx);
                    self.leader.poll(&mut cx);
                }
                Effect::Work(id, Work::Lead(Lead::Change { .. })) => self.changes.push(id),
                _ => {}
            }
        }
        self.leader.check_invariants();
    }

    fn change(&mut self, client: u64, command: Command) {
        self.leader.change(RequestId(client), command);
        self.poll();
    }
}

#[test]
fn a_run_that_an_unstored_stop_took_back_is_cancelled_when_its_job_is_deleted() {
    let mut bench = Bench::new();
    bench.pass_ms(1_000);
    let run = RunKey::scheduled(JobId(1), Second(1_001));
    assert!(bench.leader.runs.latest_open(run).is_some_and(|(_, run)| run.stage().is_waiting()), "no node takes it");
    // The store does not answer the delete, so the stop is put in force before it is stored.
    bench.change(1, Command::DeleteJob(JobId(1)));
    bench.change(2, Command::StopJob(JobId(1)));
    bench.pass_ms(CHANGE_SILENT_MS);
    assert_eq!(bench.leader.runs.undecided().collect::<Vec<_>>(), [JobId(1)]);
    // The store is back and makes the delete, so the stop is not needed any more.
    let id = bench.changes.pop().unwrap();
    bench.leader.on_changed(id, Ok(JobId(1)), &mut bench.lender.at(bench.now));
    bench.poll();
    assert!(bench.leader.runs.latest_open(run).is_none(), "{:?}", bench.leader.runs.latest_open(run));
    assert!(bench.lender.logbook.has(Attempt { run, number: 1 }), "its row says that it is cancelled");
}
