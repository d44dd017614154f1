//! Tests of changes, with a store that answers only when a test says so.

use super::*;
use crate::core::Lender;
use crate::core::io::Effect;
use crate::core::jobs::scheduler::Scheduler;
use crate::core::runs::ledger::journaler::Journaler;
use crate::model::command::JobDraft;
use crate::model::{Epoch, NodeId, Second, Version, Zones};

const CRON_SET: &str = "* * * * * *";

/// Changes of jobs 1 to 3, with a leader that puts urgent stops in force, and the statements that the store was sent.
struct World {
    changes: Changes,
    ledger: Ledger,
    lender: Lender,
    now: Now,
    put: Vec<(u32, u64)>,
    replies: Vec<(u64, String)>,
    asked: Vec<(WorkId, Change)>,
}

impl World {
    fn new() -> World {
        let mut scheduler = Scheduler::new(Zones::default(), Second(0));
        for id in 1..=3 {
            let job = Job { id: JobId(id), cron_set: CRON_SET.into(), version: Version(5), ..Job::default() };
            scheduler.put(job).unwrap();
        }
        World {
            changes: Changes::default(),
            ledger: Ledger { jobs: scheduler, journal: Journaler::new(Epoch(1)) },
            lender: Lender::default(),
            now: Now::default(),
            put: Vec::new(),
            replies: Vec::new(),
            asked: Vec::new(),
        }
    }

    fn push(&mut self, client: u64, command: Command) {
        self.changes.push(RequestId(client), command);
        self.poll();
    }

    fn wait(&mut self, ms: u64) {
        self.now.mono = self.now.mono.plus_ms(ms);
        self.poll();
    }

    fn poll(&mut self) {
        let mut cx = self.lender.at(self.now);
        self.changes.poll(true, &mut self.ledger, &mut cx);
        while let Some(urgent) = self.changes.next_urgent(&mut self.ledger, &mut cx) {
            self.put.push((urgent.job.id.0, urgent.job.version.0));
            let job = self.ledger.jobs.put(urgent.job).unwrap();
            if let Some(client) = urgent.client {
                self.changes.settling.wait_unstored(client, job, BTreeSet::from([NodeId("node".into())]));
            }
        }
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(effect) = self.lender.fx.take() {
            match effect {
                Effect::Work(id, Work::Lead(Lead::Change { change, .. })) => self.asked.push((id, *change)),
                Effect::Reply(client, reply) => {
                    let text = reply.map_or_else(|error| error.message, |_| "ok".into());
                    self.replies.push((client.0, text));
                }
                Effect::Notice(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The node has dropped its old runs of this job.
    fn cancelled(&mut self, id: u32) {
        self.changes.settling.on_cancelled(&NodeId("node".into()), JobId(id), &mut self.lender.fx);
        self.drain();
    }

    /// The store answers its last statement.
    fn answer(&mut self, result: Result<(), StoreError>) -> Option<Made> {
        let (id, change) = self.asked.pop().unwrap();
        let given = match &change {
            Change::Add(..) => JobId(9),
            Change::Put(job) => job.id,
            Change::Delete { id, .. } => *id,
        };
        let mut cx = self.lender.at(self.now);
        let made = self.changes.on_changed(id, result.map(|()| given), &mut cx);
        self.poll();
        made
    }

    #[track_caller]
    fn expect_reply(&mut self, client: u64, words: &str) {
        let (to, text) = self.replies.pop().expect(words);
        assert_eq!(to, client);
        assert!(text.contains(words), "{text:?} does not say {words:?}");
    }

    /// The ids and the versions of the jobs that the store is to put.
    fn asked(&self) -> Vec<(u32, u64)> {
        let put = |(_, change): &(WorkId, Change)| match change {
            Change::Put(job) => Some((job.id.0, job.version.0)),
            _ => None,
        };
        self.asked.iter().filter_map(put).collect()
    }
}

/// A change that is no stop.
fn update(id: u32) -> Command {
    Command::UpdateJob(JobId(id), JobDraft::default().with("cron_set", CRON_SET))
}

fn away() -> StoreError {
    StoreError::Away("away".into())
}

#[test]
fn a_stop_that_does_not_reach_the_store_is_in_force_at_once_and_asked_until_it_is_stored() {
    let mut world = World::new();
    world.push(1, Command::StopJob(JobId(1)));
    assert_eq!((world.asked(), world.put.len()), (vec![(1, 6)], 0), "the store first");
    assert!(world.answer(Err(away())).is_none());
    assert_eq!(world.put, [(1, 6)]);
    assert!(world.replies.is_empty(), "the node is waited for");
    world.cancelled(1);
    world.expect_reply(1, "in force, not stored: job 1");
    for _ in 0..3 {
        world.wait(2_000);
        assert_eq!(world.asked(), [(1, 6)], "the same again");
        assert!(world.answer(Err(away())).is_none());
    }
    world.wait(2_000);
    let made = world.answer(Ok(())).unwrap();
    assert!(made.is_in_force && made.client.is_none());
    assert!(world.replies.is_empty() && world.changes.is_idle());
}

#[test]
fn stops_behind_a_change_without_an_answer_go_ahead_of_it_and_are_stored_after_it_in_their_order() {
    let mut world = World::new();
    world.push(1, update(3));
    world.push(2, Command::StopJob(JobId(2)));
    world.push(3, Command::DeleteJob(JobId(1)));
    world.push(4, Command::StopJob(JobId(1)));
    world.wait(CHANGE_SILENT_MS - 1);
    assert!(world.put.is_empty() && world.replies.is_empty());
    let first = Timers::first(world.now, |timers| world.changes.timers(timers));
    assert_eq!(first, Some((Timer::ChangeSilence, world.now.mono.plus_ms(1))));
    world.wait(1);
    assert_eq!(world.put, [(2, 6), (1, 6)]);
    world.expect_reply(3, "nothing was changed");
    world.push(5, Command::DeleteJob(JobId(3)));
    world.wait(ANSWER_MS - CHANGE_SILENT_MS);
    world.expect_reply(1, "whether the change is stored is not known yet");
    world.wait(ANSWER_MS);
    world.expect_reply(5, "nothing was changed");
    assert!(!world.answer(Ok(())).unwrap().is_in_force);
    assert_eq!(world.asked(), [(2, 6)]);
    assert!(world.answer(Ok(())).unwrap().is_in_force);
    assert_eq!(world.asked(), [(1, 6)]);
    // It is stored before its node has answered, so its client gets the usual answer.
    assert!(world.answer(Ok(())).unwrap().is_in_force);
    world.cancelled(1);
    world.expect_reply(4, "ok");
    world.cancelled(2);
    world.expect_reply(2, "ok");
    assert!(world.changes.is_idle());
}

#[test]
fn a_stop_is_based_on_a_change_of_its_job_that_may_be_stored() {
    let mut world = World::new();
    let draft = JobDraft::default().with("cron_set", CRON_SET).with("command", "new");
    world.push(1, Command::UpdateJob(JobId(1), draft));
    world.push(2, Command::StopJob(JobId(1)));
    world.wait(CHANGE_SILENT_MS);
    assert_eq!((world.asked(), &world.put[..]), (vec![(1, 6)], &[(1, 7)][..]));
    let job = world.ledger.jobs.job(JobId(1)).unwrap();
    assert!(job.stop && job.command == "new");
    assert!(!world.answer(Ok(())).unwrap().is_in_force);
    assert_eq!(world.asked(), [(1, 7)]);
}

#[test]
fn a_stop_that_is_in_force_and_asked_for_again_is_stored_once() {
    let mut world = World::new();
    world.push(1, Command::StopJob(JobId(1)));
    world.answer(Err(away()));
    world.push(2, Command::StopJob(JobId(1)));
    world.push(3, Command::StopJob(JobId(2)));
    world.push(4, Command::StopJob(JobId(2)));
    assert_eq!(world.put, [(1, 6), (1, 6), (2, 6), (2, 6)]);
    [1, 1, 2, 2].into_iter().for_each(|id| world.cancelled(id));
    assert_eq!(world.replies.len(), 4);
    world.wait(2_000);
    world.answer(Ok(()));
    assert_eq!(world.asked(), [(2, 6)]);
    world.answer(Ok(()));
    assert!(world.changes.is_idle() && world.asked.is_empty());
}

#[test]
fn a_stop_that_the_store_refuses_is_reported_and_not_tried_again() {
    let mut world = World::new();
    world.push(1, Command::StopJob(JobId(1)));
    world.answer(Err(away()));
    world.wait(2_000);
    assert!(world.answer(Err(StoreError::Permanent("edited by hand".into()))).unwrap().is_in_force);
    world.push(2, Command::StopJob(JobId(8)));
    world.expect_reply(2, "no such job");
    world.cancelled(1);
    world.expect_reply(1, "in force, not stored");
    assert!(world.changes.is_idle());
    assert_eq!(world.changes.under_way(), [JobId(1)], "the row is otherwise");
}

#[test]
fn a_change_that_is_not_a_stop_is_not_made_without_the_store() {
    let mut world = World::new();
    world.push(1, update(1));
    world.answer(Err(away()));
    world.expect_reply(1, "nothing was changed");
    assert!(world.put.is_empty() && world.changes.is_idle());
}
