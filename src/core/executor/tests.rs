//! The executor, driven step by step as the node drives it. The tests of its parts are beside them, on the same bench.

use super::*;
use crate::core::Lender;
use crate::core::io::ports::{Kill, KillHow, Left, Log, SpawnError, Started, Work, WorkId};
use crate::core::io::{Effect, Ended, Mail};
use crate::model::message::Order;
use crate::model::status::RunStatus;
use crate::model::{Exit, Job, JobId, LogRow, RunKey, RunState, Second, Usage};
use std::sync::Arc;

pub const T: i64 = 1_000;

/// One executor with all that it needs, and its effects that the test has not looked at yet.
pub struct Bench {
    pub executor: Executor,
    pub lender: Lender,
    pub now: Now,
    pub spawns: Vec<(WorkId, Attempt)>,
    pub kills: Vec<(WorkId, Kill)>,
    pub rows: Vec<LogRow>,
    pub told: Vec<ToLeader>,
    pub marks: Vec<MarkOp>,
    pub notices: Vec<String>,
}

impl Bench {
    pub fn new(limits: Limits) -> Bench {
        let now = Now { mono: Mono(0).plus_ms(500_000), wall: Second(T).wall() };
        let mut bench = Bench {
            executor: Executor::new(Server::default(), limits, &[]),
            lender: Lender::default(),
            now,
            spawns: Vec::new(),
            kills: Vec::new(),
            rows: Vec::new(),
            told: Vec::new(),
            marks: Vec::new(),
            notices: Vec::new(),
        };
        bench.lender.logbook.on_opened();
        bench.extend_lease();
        bench
    }

    /// Gives the executor an input, and lets it act on its due timers.
    pub fn give(&mut self, input: impl FnOnce(&mut Executor, &mut Context)) {
        let mut cx = self.lender.at(self.now);
        input(&mut self.executor, &mut cx);
        self.poll();
    }

    pub fn extend_lease(&mut self) {
        self.give(|executor, cx| executor.extend_lease(Mono::NEVER, cx));
    }

    pub fn pass_ms(&mut self, ms: u64) {
        self.now.mono = self.now.mono.plus_ms(ms);
        self.now.wall.0 += ms as i64 * 1_000_000;
        self.poll();
    }

    pub fn poll(&mut self) {
        let mut cx = self.lender.at(self.now);
        self.executor.poll(self.now.wall, &mut cx);
        // Rows are committed as soon as they are there.
        self.lender.logbook.hurry(self.now);
        self.lender.logbook.poll(&mut self.lender.fx, self.now);
        while let Some(output) = self.lender.fx.take() {
            match output {
                Effect::Work(id, Work::Spawn(spawn)) => self.spawns.push((id, spawn.attempt)),
                Effect::Work(id, Work::Kill(kill)) => self.kills.push((id, kill)),
                Effect::Mark(op) => self.marks.push(op),
                Effect::Work(id, Work::Log(Log::Write(rows))) => {
                    self.rows.extend(rows.iter().cloned());
                    for attempt in self.lender.logbook.on_written(id, Ok(()), &mut self.lender.fx, self.now) {
                        self.executor.forget(attempt, &mut self.lender.fx);
                    }
                }
                Effect::Notice(notice) => self.notices.push(notice.text),
                _ => {}
            }
        }
        self.executor.check_invariants();
        while let Some(mail) = self.lender.fx.take_mail() {
            match mail {
                Mail::ToLeader(message) => self.told.push(message),
                Mail::ToNode(..) | Mail::Loopback(_) => panic!("{mail:?}"),
            }
        }
    }

    /// When its first timer is due.
    pub fn due(&self) -> Option<Mono> {
        Timers::first(self.now, |timers| self.executor.timers(timers)).map(|(_, at)| at)
    }

    pub fn dispatch(&mut self, orders: Vec<Order>) {
        self.give(|executor, cx| executor.on_dispatch(orders, cx.now.wall, cx));
    }

    pub fn spawned(&mut self, id: WorkId, result: Result<u32, SpawnError>) {
        let result = result.map(|pid| Started { pid, at: self.now.wall });
        self.give(|executor, cx| executor.on_spawned(id, result, cx));
    }

    /// The users of all spawns that were asked for are looked up; answers the spawns.
    pub fn look_up_all(&mut self) -> Vec<(WorkId, Attempt)> {
        let spawns = std::mem::take(&mut self.spawns);
        spawns.iter().for_each(|(id, _)| self.give(|executor, _| executor.on_looking_up(*id)));
        spawns
    }

    /// Every spawn that was asked for succeeds; answers the attempts.
    pub fn start_all(&mut self) -> Vec<Attempt> {
        let mut started = Vec::new();
        while !self.spawns.is_empty() {
            for (id, attempt) in std::mem::take(&mut self.spawns) {
                started.push(attempt);
                self.spawned(id, Ok(77));
            }
        }
        started
    }

    pub fn refuse_all(&mut self) -> Vec<Attempt> {
        let refused = std::mem::take(&mut self.spawns);
        for (id, _) in &refused {
            self.spawned(*id, Err(SpawnError::Exhausted("not started: no memory".into())));
        }
        refused.into_iter().map(|(_, attempt)| attempt).collect()
    }

    pub fn exit(&mut self, attempt: Attempt) {
        let ended = Ended { exit: Exit::Code(0), output: "said".into(), usage: Usage::default() };
        self.give(|executor, cx| executor.on_exited(attempt, ended, cx));
    }

    /// The last processes of the runs that are being ended are killed.
    pub fn killed(&mut self) {
        self.killed_but(Left { is_sure: true, ..Left::default() });
    }

    /// The same, and this is left of each.
    pub fn killed_but(&mut self, left: Left) {
        for (id, _) in std::mem::take(&mut self.kills) {
            self.give(|executor, cx| executor.on_killed(id, left.clone(), cx));
        }
    }

    pub fn kill(&mut self, attempt: Attempt) {
        self.give(|executor, cx| executor.kill(attempt, cx));
    }

    pub fn take_kills(&mut self) -> Vec<KillHow> {
        std::mem::take(&mut self.kills).into_iter().map(|(_, kill)| kill.how).collect()
    }

    pub fn states(&self) -> Vec<RunState> {
        self.rows.iter().map(|row| row.state).collect()
    }

    pub fn finished(&self, attempt: Attempt) -> Option<RunState> {
        self.told.iter().find_map(|message| match message {
            ToLeader::Finished { attempt: of, state, .. } if *of == attempt => Some(*state),
            _ => None,
        })
    }
}

pub fn attempt(job: u32, second: i64) -> Attempt {
    Attempt { run: RunKey::scheduled(JobId(job), Second(second)), number: 1 }
}

pub fn order_of(job: Job, second: i64) -> Order {
    let attempt = attempt(job.id.0, second);
    let expires = (!job.is_mutex).then(|| Second(second + 60));
    let (dispatch_time, dispatch_server) = (Second(second), Server::default());
    Order { attempt, job: Arc::new(job), late: second < T, expires, dispatch_time, dispatch_server }
}

pub fn order(job: u32, second: i64) -> Order {
    order_of(Job { id: JobId(job), ..Job::default() }, second)
}

pub fn limits(max_running: usize) -> Limits {
    Limits { max_running, ..Limits::default() }
}

#[test]
fn runs_that_waited_for_a_lease_start_with_it_save_mutex_runs() {
    let mut bench = Bench::new(limits(9));
    bench.executor.lease = Mono(0);
    let mutex = Job { id: JobId(2), is_mutex: true, ..Job::default() };
    bench.dispatch(vec![order(1, T), order_of(mutex.clone(), T), order_of(mutex, T + 9)]);
    assert!(bench.spawns.is_empty());
    let held = |bench: &Bench| bench.executor.holdings().into_iter().map(|(_, held)| held).collect::<Vec<_>>();
    assert_eq!(held(&bench), [Held::Waiting, Held::Parked, Held::Waiting]);
    bench.extend_lease();
    bench.poll();
    assert_eq!(bench.start_all(), [attempt(1, T)]);
    assert_eq!(held(&bench), [Held::Begun, Held::Parked, Held::Parked]);
    bench.pass_ms(10_000);
    assert!(bench.spawns.is_empty(), "its mutex may have gone to another run");
}

#[test]
fn the_list_for_people_has_the_held_runs() {
    let mut bench = Bench::new(limits(1));
    bench.dispatch(vec![order(1, T + 5), order(2, T), order(3, T)]);
    bench.start_all();
    let started_ms = bench.now.wall.ms();
    let seen: Vec<_> =
        bench.executor.runs().iter().map(|run| (run.attempt, run.status, run.pid, run.started_ms)).collect();
    assert_eq!(
        seen,
        [
            (attempt(2, T), RunStatus::Running, 77, started_ms),
            (attempt(1, T + 5), RunStatus::Armed, 0, 0),
            (attempt(3, T), RunStatus::Queued, 0, 0),
        ]
    );
    bench.kill(attempt(2, T));
    assert_eq!(bench.executor.runs()[0].status, RunStatus::Ending);
}
