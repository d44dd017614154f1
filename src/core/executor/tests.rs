//! The executor, driven step by step as the node drives it.

use super::*;
use crate::core::io::{Effect, Mail};
use crate::core::ports::{Kill, KillHow, Log, Work};
use crate::model::run::Manual;
use crate::model::status::RunStatus;
use crate::model::{Exit, Job, LogRow, RunKey, Second};
use std::sync::Arc;

const T: i64 = 1_000;

/// One executor with its surroundings, and what it has done that was not looked at yet.
struct Bench {
    executor: Executor,
    logbook: Logbook,
    fx: Effects,
    now: Now,
    spawns: Vec<(WorkId, Attempt)>,
    kills: Vec<(WorkId, Kill)>,
    rows: Vec<LogRow>,
    told: Vec<ToLeader>,
    notices: Vec<String>,
}

impl Bench {
    fn new(limits: Limits) -> Bench {
        let now = Now { mono: Mono(0).plus_ms(500_000), wall: Second(T).wall() };
        let mut bench = Bench {
            executor: Executor::new(Server::default(), limits, &[]),
            logbook: Logbook::default(),
            fx: Effects::default(),
            now,
            spawns: Vec::new(),
            kills: Vec::new(),
            rows: Vec::new(),
            told: Vec::new(),
            notices: Vec::new(),
        };
        bench.logbook.on_opened();
        bench.executor.extend_lease(Mono::NEVER, &mut bench.fx, now);
        bench
    }

    fn pass_ms(&mut self, ms: u64) {
        self.now.mono = self.now.mono.plus_ms(ms);
        self.now.wall.0 += ms as i64 * 1_000_000;
        self.poll();
    }

    fn poll(&mut self) {
        self.executor.poll(&mut self.logbook, &mut self.fx, self.now, self.now.wall);
        // Rows are committed as soon as they are there.
        self.logbook.hurry(self.now);
        self.logbook.poll(&mut self.fx, self.now);
        while let Some(output) = self.fx.take() {
            match output {
                Effect::Work(id, Work::Spawn(spawn)) => self.spawns.push((id, spawn.attempt)),
                Effect::Work(id, Work::Kill(kill)) => self.kills.push((id, kill)),
                Effect::Work(id, Work::Log(Log::Write(rows))) => {
                    self.rows.extend(rows.iter().cloned());
                    for attempt in self.logbook.on_written(id, Ok(()), &mut self.fx, self.now) {
                        self.executor.forget(attempt, &mut self.fx);
                    }
                }
                Effect::Notice(notice) => self.notices.push(notice.text),
                _ => {}
            }
        }
        while let Some(mail) = self.fx.take_mail() {
            match mail {
                Mail::ToLeader(message) => self.told.push(message),
                Mail::ToNode(..) => panic!("{mail:?}"),
            }
        }
    }

    /// What it waits for first.
    fn due(&self) -> Option<Mono> {
        Timers::first(self.now, |timers| self.executor.timers(timers)).map(|(_, at)| at)
    }

    fn dispatch(&mut self, orders: Vec<Order>) {
        self.executor.on_dispatch(orders, &mut self.logbook, &mut self.fx, self.now);
        self.poll();
    }

    fn spawned(&mut self, id: WorkId, result: Result<u32, SpawnError>) {
        let result = result.map(|pid| Started { pid, at: self.now.wall });
        self.executor.on_spawned(id, result, &mut self.logbook, &mut self.fx, self.now);
        self.poll();
    }

    /// Every spawn that was asked for works; answers whose.
    fn start_all(&mut self) -> Vec<Attempt> {
        let mut started = Vec::new();
        while !self.spawns.is_empty() {
            for (id, attempt) in std::mem::take(&mut self.spawns) {
                started.push(attempt);
                self.spawned(id, Ok(77));
            }
        }
        started
    }

    fn refuse_all(&mut self) -> Vec<Attempt> {
        let refused = std::mem::take(&mut self.spawns);
        for (id, _) in &refused {
            self.spawned(*id, Err(SpawnError::Exhausted("not started: no room".into())));
        }
        refused.into_iter().map(|(_, attempt)| attempt).collect()
    }

    fn exit(&mut self, attempt: Attempt) {
        self.executor.on_exited(attempt, Exit::Code(0), "said".into(), &mut self.logbook, &mut self.fx, self.now);
        self.poll();
    }

    /// What is left of the run that was ended is gone as well.
    fn killed(&mut self) {
        for (id, _) in std::mem::take(&mut self.kills) {
            self.executor.on_killed(id, &mut self.logbook, &mut self.fx, self.now);
        }
        self.poll();
    }

    fn kill(&mut self, attempt: Attempt) {
        self.executor.kill(attempt, &mut self.logbook, &mut self.fx, self.now);
        self.poll();
    }

    fn take_kills(&mut self) -> Vec<KillHow> {
        std::mem::take(&mut self.kills).into_iter().map(|(_, kill)| kill.how).collect()
    }

    fn states(&self) -> Vec<RunState> {
        self.rows.iter().map(|row| row.state).collect()
    }

    fn finished(&self, attempt: Attempt) -> Option<RunState> {
        self.told.iter().find_map(|message| match message {
            ToLeader::Finished { attempt: of, state } if *of == attempt => Some(*state),
            _ => None,
        })
    }
}

fn attempt(job: u32, second: i64) -> Attempt {
    Attempt { run: RunKey::scheduled(JobId(job), Second(second)), number: 1 }
}

fn order_of(job: Job, second: i64) -> Order {
    let attempt = attempt(job.id.0, second);
    let expires = (!job.is_mutex).then(|| Second(second + 60));
    let (dispatch_time, dispatch_server) = (Second(second), Server::default());
    Order { attempt, job: Arc::new(job), late: second < T, expires, dispatch_time, dispatch_server }
}

fn order(job: u32, second: i64) -> Order {
    order_of(Job { id: JobId(job), ..Job::default() }, second)
}

fn limits(max_running: usize) -> Limits {
    Limits { max_running, ..Limits::default() }
}

#[test]
fn late_runs_take_what_those_on_time_leave_and_jobs_take_turns() {
    let mut bench = Bench::new(limits(1));
    let mutex = order_of(Job { id: JobId(9), is_mutex: true, ..Job::default() }, T - 30);
    let mut manual = order(8, T - 30);
    manual.attempt.run.manual = Some(Manual { epoch: 1, count: 1 });
    let manual_attempt = manual.attempt;
    let late = [order(1, T - 9), order(1, T - 8), order(2, T - 3)];
    bench.dispatch(late.into_iter().chain([order(3, T), mutex, manual, order(4, T + 5)]).collect());
    let mut started: Vec<Attempt> = Vec::new();
    for _ in 0..6 {
        let run = bench.start_all();
        assert_eq!(run.len(), 1, "one has a place");
        started.extend(&run);
        bench.exit(run[0]);
    }
    assert_eq!(
        started,
        [attempt(9, T - 30), attempt(3, T), manual_attempt, attempt(1, T - 9), attempt(2, T - 3), attempt(1, T - 8)]
    );
    assert_eq!(bench.executor.load().waiting, 1);
    assert_eq!(bench.due(), Some(bench.now.mono.plus_ms(5_000)), "armed");
    bench.pass_ms(5_000);
    assert_eq!(bench.start_all(), [attempt(4, T + 5)]);
    assert_eq!(bench.executor.counters().started, 7);
}

#[test]
fn a_flood_does_not_delay_what_falls_due_later() {
    let mut bench = Bench::new(limits(2));
    bench.dispatch((1..=5_000).map(|job| order(job, T)).chain([order(9_000, T + 10)]).collect());
    bench.pass_ms(10_000);
    assert_eq!(bench.start_all(), [attempt(1, T), attempt(2, T)]);
    bench.exit(attempt(1, T));
    assert_eq!(bench.start_all(), [attempt(9_000, T + 10)]);
    bench.exit(attempt(2, T));
    assert_eq!(bench.start_all(), [attempt(3, T)]);
}

#[test]
fn too_many_of_one_job_are_refused_and_another_job_is_not() {
    let mut bench = Bench::new(Limits { max_running: 1, max_pending_per_job: 3, ..Limits::default() });
    bench.dispatch(vec![order(7, T)]);
    bench.start_all();
    let by_hand =
        Attempt { run: RunKey { manual: Some(Manual { epoch: 1, count: 1 }), ..attempt(1, T).run }, number: 1 };
    let asked = Order { attempt: by_hand, ..order(1, T) };
    bench.dispatch((0..5).map(|at| order(1, T - at)).chain([asked]).collect());
    for at in [3, 4] {
        assert!(bench.told.contains(&ToLeader::Refused(vec![attempt(1, T - at)])), "{:?}", bench.told);
    }
    assert_eq!(bench.states(), [RunState::Skipped], "what was asked for by hand has a row of its own");
    assert_eq!(bench.finished(by_hand), Some(RunState::Skipped));
    assert!(bench.rows[0].output.contains("(max_pending_per_job)"), "{:?}", bench.rows[0]);
    bench.dispatch(vec![order(2, T)]);
    let mutex = Job { id: JobId(3), is_mutex: true, ..Job::default() };
    bench.dispatch((0..5).map(|at| order_of(mutex.clone(), T - at)).collect());
    assert_eq!((bench.rows.len(), bench.executor.load().waiting), (1, 3 + 1 + 5));
    // An order that is told again takes no second place.
    bench.dispatch((0..3).map(|at| order(1, T - at)).collect());
    assert_eq!(bench.rows.len(), 1);
}

#[test]
fn runs_that_are_over_and_have_no_row_yet_take_room_as_well() {
    let limits = Limits { max_running: 1, max_pending: 1, ..Limits::default() };
    let mut bench = Bench::new(limits);
    bench.dispatch((0..limits.held_max() as u32 + 2).map(|at| order(at + 1, T + 9)).collect());
    bench.poll();
    assert_eq!(bench.states(), [RunState::Shed; 2]);
    assert!(bench.rows[0].output.contains("wait for the store"), "{:?}", bench.rows[0]);
}

#[test]
fn a_draining_node_gives_back_what_comes_to_it_all_the_same() {
    let mut bench = Bench::new(limits(9));
    bench.dispatch(vec![order(1, T)]);
    bench.poll();
    bench.executor.drain();
    bench.executor.hand_back(&mut bench.fx);
    bench.dispatch(vec![order(1, T), order(2, T + 1)]);
    bench.poll();
    let returned = bench.told.iter().any(|told| *told == ToLeader::Returned(vec![attempt(2, T + 1)]));
    assert!(returned, "{:?}", bench.told);
    assert_eq!(bench.executor.load().waiting, 0);
}

#[test]
fn a_run_that_takes_too_long_is_asked_then_made_to_end() {
    let mut bench = Bench::new(limits(9));
    bench.dispatch(vec![order_of(Job { id: JobId(1), timeout: 3, ..Job::default() }, T)]);
    bench.start_all();
    bench.pass_ms(2_999);
    assert_eq!(bench.take_kills(), []);
    assert_eq!(bench.due(), Some(bench.now.mono.plus_ms(1)));
    bench.pass_ms(1);
    assert_eq!(bench.take_kills(), [KillHow::Ask]);
    bench.pass_ms(5_000);
    assert_eq!(bench.take_kills(), [KillHow::Force]);
    assert_eq!(bench.due(), None);
    bench.exit(attempt(1, T));
    assert_eq!(bench.rows, [], "what is left of it comes first");
    bench.killed();
    assert_eq!(bench.states(), [RunState::Timeout]);
    assert_eq!(bench.rows[0].output, "said\n[ended: it ran longer than its job's timeout]\n");
    assert_eq!(bench.rows[0].use_time_ms, 8_000);
}

#[track_caller]
fn check_limit(job: Job, expect_ms: Option<u64>, expect_line: &str) {
    let mut bench = Bench::new(limits(9));
    bench.dispatch(vec![order_of(Job { id: JobId(1), ..job }, T)]);
    bench.start_all();
    let at = bench.due();
    assert_eq!(at, expect_ms.map(|ms| bench.now.mono.plus_ms(ms)));
    bench.pass_ms(expect_ms.unwrap_or(100_000));
    bench.exit(attempt(1, T));
    bench.killed();
    assert!(bench.rows[0].output.contains(expect_line), "{:?}", bench.rows[0]);
}

#[test]
fn of_two_limits_the_earlier_counts_and_lock_limit_is_for_mutexes() {
    let job = |is_mutex, lock_limit, timeout| Job { is_mutex, lock_limit, timeout, ..Job::default() };
    check_limit(job(true, 2, 5), Some(2_000), "longer than lock_limit");
    check_limit(job(true, 5, 2), Some(2_000), "its job's timeout");
    check_limit(job(true, 5, 0), Some(5_000), "longer than lock_limit");
    check_limit(job(false, 2, 5), Some(5_000), "its job's timeout");
    check_limit(job(false, 2, 0), None, "said");
}

#[test]
fn alarms_of_runs_that_are_over_are_gone() {
    let mut bench = Bench::new(limits(9));
    for second in T..T + 100 {
        bench.dispatch(vec![order_of(Job { id: JobId(1), timeout: 86_400, ..Job::default() }, second)]);
        bench.start_all();
        bench.exit(attempt(1, second));
        assert_eq!(bench.due(), None);
        bench.pass_ms(1_000);
    }
    assert_eq!(bench.states(), [RunState::Ok; 100]);
}

#[test]
fn an_operator_ends_a_run_and_asking_again_changes_nothing() {
    let mut bench = Bench::new(limits(9));
    bench.dispatch(vec![order_of(Job { id: JobId(1), timeout: 6, ..Job::default() }, T)]);
    bench.start_all();
    bench.pass_ms(2_000);
    bench.kill(attempt(1, T));
    bench.kill(attempt(1, T));
    assert_eq!(bench.take_kills(), [KillHow::Ask]);
    bench.pass_ms(4_999);
    bench.kill(attempt(1, T));
    assert_eq!(bench.take_kills(), [], "its timeout is over meanwhile, and it is being ended already");
    bench.pass_ms(1);
    assert_eq!(bench.take_kills(), [KillHow::Force]);
    bench.kill(attempt(1, T));
    assert_eq!(bench.take_kills(), [KillHow::Force], "it is still there, and asking is of no use");
    bench.exit(attempt(1, T));
    bench.kill(attempt(1, T));
    bench.killed();
    bench.kill(attempt(1, T));
    assert_eq!(bench.states(), [RunState::Killed]);
    assert_eq!(bench.rows[0].output, "said\n[killed: by an operator]\n");
}

#[test]
fn without_a_grace_a_run_is_made_to_end_at_once() {
    let mut bench = Bench::new(Limits { kill_grace_ms: 0, ..Limits::default() });
    bench.dispatch(vec![order(1, T)]);
    bench.start_all();
    bench.kill(attempt(1, T));
    assert_eq!(bench.take_kills(), [KillHow::Force]);
}

#[test]
fn what_has_not_begun_is_cancelled_by_a_kill() {
    let mut bench = Bench::new(limits(1));
    bench.dispatch(vec![order(1, T)]);
    bench.start_all();
    bench.dispatch(vec![order(2, T), order(3, T + 50)]);
    bench.kill(attempt(2, T));
    bench.kill(attempt(3, T + 50));
    assert_eq!(bench.states(), [RunState::Cancelled; 2]);
    assert!(bench.rows[0].output.contains("cancelled: an operator ended it before it began"));
    assert_eq!(bench.finished(attempt(3, T + 50)), Some(RunState::Cancelled));
    bench.kill(attempt(99, T));
    assert_eq!(bench.told.len(), 2, "of what is not held nothing is said");
    bench.exit(attempt(1, T));
    bench.pass_ms(60_000);
    assert!(bench.spawns.is_empty());
}

#[test]
fn a_run_killed_while_it_is_being_started_is_ended_as_soon_as_it_runs() {
    let mut bench = Bench::new(limits(9));
    bench.dispatch(vec![order(1, T), order(2, T), order(3, T)]);
    (1..=3).for_each(|job| bench.kill(attempt(job, T)));
    assert_eq!((bench.take_kills(), bench.rows.len()), (vec![], 0));
    let ids: Vec<WorkId> = std::mem::take(&mut bench.spawns).into_iter().map(|(id, _)| id).collect();
    bench.spawned(ids[0], Ok(7));
    assert_eq!(bench.take_kills(), [KillHow::Ask]);
    bench.spawned(ids[1], Err(SpawnError::NoLease));
    bench.spawned(ids[2], Err(SpawnError::Exhausted("no room".into())));
    assert_eq!(bench.states(), [RunState::Cancelled; 2]);
}

#[test]
fn a_run_without_room_waits_at_the_front_and_goes_when_there_is_room() {
    let mut bench = Bench::new(limits(100));
    bench.dispatch((1..=3).map(|job| order(job, T)).collect());
    bench.start_all();
    bench.dispatch((4..=20).map(|job| order(job, T)).collect());
    let refused = bench.refuse_all();
    assert_eq!(refused, [4, 5, 6, 7].map(|job| attempt(job, T)), "those that were on their way");
    assert!(bench.spawns.is_empty(), "then it waits");
    assert!(bench.executor.load().is_full);
    assert_eq!(bench.notices.len(), 1, "{:?}", bench.notices);
    bench.exit(attempt(1, T));
    assert_eq!(bench.refuse_all(), [attempt(7, T)], "in the place of the one that has ended");
    bench.pass_ms(100);
    assert_eq!(bench.refuse_all(), [attempt(7, T)], "one tries after the pause");
    bench.pass_ms(199);
    assert!(bench.spawns.is_empty());
    bench.pass_ms(1);
    let probe = std::mem::take(&mut bench.spawns);
    assert_eq!(probe.len(), 1);
    bench.spawned(probe[0].0, Ok(5));
    let started = bench.start_all();
    assert_eq!(started.len(), 16, "there is room again");
    assert_eq!(bench.notices.len(), 1);
    bench.pass_ms(5_000);
    assert!(!bench.executor.load().is_full);
    assert_eq!(bench.notices.len(), 2, "{:?}", bench.notices);
    assert_eq!((bench.rows.len(), bench.executor.counters().put_off), (1, 6));
}

#[test]
fn a_run_without_room_is_missed_when_its_time_is_over_while_others_run() {
    let mut bench = Bench::new(limits(100));
    bench.dispatch(vec![order(1, T)]);
    bench.start_all();
    bench.dispatch(vec![order(2, T)]);
    for _ in 0..70 {
        bench.refuse_all();
        bench.pass_ms(1_000);
    }
    assert_eq!(bench.states(), [RunState::Missed]);
    assert!(bench.executor.counters().put_off < 70);
}

#[test]
fn where_nothing_runs_and_nothing_can_a_run_fails_with_the_reason() {
    let mut bench = Bench::new(Limits { misfire_grace_secs: 10, ..Limits::default() });
    bench.dispatch(vec![order_of(Job { id: JobId(1), is_mutex: true, ..Job::default() }, T)]);
    while bench.rows.is_empty() {
        bench.refuse_all();
        bench.pass_ms(100);
        assert!(bench.now.wall.second().0 < T + 15);
    }
    assert_eq!(bench.states(), [RunState::Failed]);
    assert_eq!(bench.rows[0].output, "[not started: no room]\n");
    assert!(T + 10 <= bench.now.wall.second().0);
}

#[test]
fn what_comes_back_without_room_is_dropped_by_a_cancel_and_given_back_by_a_drain() {
    let mut bench = Bench::new(limits(9));
    bench.dispatch(vec![order(1, T), order(2, T)]);
    bench.executor.on_cancel(JobId(1), None, &mut bench.fx);
    bench.executor.drain();
    bench.poll();
    assert_eq!(bench.told, [], "the threads have them");
    bench.refuse_all();
    let cancelled = ToLeader::Cancelled { cron_id: JobId(1), dropped: vec![attempt(1, T)] };
    assert_eq!(bench.told, [cancelled, ToLeader::Returned(vec![attempt(2, T)])]);
    assert_eq!(bench.executor.holdings(), []);
}

#[test]
fn what_had_no_lease_goes_on_with_one_save_mutex_runs() {
    let mut bench = Bench::new(limits(9));
    bench.executor.lease = Mono(0);
    let mutex = Job { id: JobId(2), is_mutex: true, ..Job::default() };
    bench.dispatch(vec![order(1, T), order_of(mutex.clone(), T), order_of(mutex, T + 9)]);
    assert!(bench.spawns.is_empty());
    let held = |bench: &Bench| bench.executor.holdings().into_iter().map(|(_, held)| held).collect::<Vec<_>>();
    assert_eq!(held(&bench), [Held::Waiting, Held::Parked, Held::Waiting]);
    bench.executor.extend_lease(Mono::NEVER, &mut bench.fx, bench.now);
    bench.poll();
    assert_eq!(bench.start_all(), [attempt(1, T)]);
    assert_eq!(held(&bench), [Held::Begun, Held::Parked, Held::Parked]);
    bench.pass_ms(10_000);
    assert!(bench.spawns.is_empty(), "its mutex may be another's by now");
}

#[test]
fn people_see_what_is_held() {
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

#[test]
fn what_waits_for_too_long_is_told_as_missed_though_no_place_comes_free() {
    let mut bench = Bench::new(limits(1));
    bench.dispatch(vec![order(1, T)]);
    bench.start_all();
    let mutex = Job { id: JobId(4), is_mutex: true, ..Job::default() };
    bench.dispatch(vec![order(2, T), order(3, T - 20), order_of(mutex, T)]);
    assert_eq!(bench.due(), Some(bench.now.mono.plus_ms(41_000)));
    bench.pass_ms(40_999);
    assert_eq!(bench.rows.len(), 0);
    bench.pass_ms(1);
    assert_eq!((bench.rows[0].attempt, bench.rows[0].state), (attempt(3, T - 20), RunState::Missed));
    bench.pass_ms(100_000);
    assert_eq!((bench.rows[1].attempt, bench.rows.len()), (attempt(2, T), 2), "a mutex run waits however long");
    assert_eq!(bench.due(), None);
}
