//! The held runs: this table alone owns the runs of this node, with their phases, the index and the ready queue.
//!
//! Not the place that decides when a phase changes: that is the executor.
//!
//! Invariants: a phase changes here and nowhere else, along the arrows of the diagram in `executor`; index and ready
//! queue agree with the runs at every moment.

use super::EndedBy;
use super::index::Index;
use super::ready_queue::{Rank, ReadyQueue};
use super::run::{Alarm, Phase, Run};
use crate::core::io::ports::WorkId;
use crate::model::message::HeldRun;
use crate::model::{Attempt, JobId, Mono, RunKey, Second, Version};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub struct HeldRuns {
    all: BTreeMap<Attempt, Run>,
    index: Index,
    ready: ReadyQueue,
}

/// Changes.
impl HeldRuns {
    /// Puts the run in; it replaces the attempt's former one. A run that was ready and still is, with the same rank,
    /// keeps its position in the queue.
    pub fn insert(&mut self, attempt: Attempt, run: Run) {
        if let Some(former) = self.all.get(&attempt) {
            debug_assert!(former.is_unstarted(), "{attempt} is taken anew and has begun already: {former:?}");
            self.index.strike(attempt, former);
        }
        self.index.enter(attempt, &run);
        let rank = run.rank();
        let former = self.all.insert(attempt, run);
        self.requeue(attempt, former.and_then(|former| former.rank()), rank);
    }

    pub fn remove(&mut self, attempt: Attempt) -> Option<Run> {
        let run = self.all.remove(&attempt)?;
        debug_assert!(run.phase.may_be_last(), "{attempt} is forgotten while something of it runs: {run:?}");
        self.index.strike(attempt, &run);
        self.requeue(attempt, run.rank(), None);
        Some(run)
    }

    /// Answers the former phase. A run that becomes ready goes behind those of its rank.
    pub fn set_phase(&mut self, attempt: Attempt, phase: Phase) -> Option<Phase> {
        let run = self.all.get_mut(&attempt)?;
        debug_assert!(phase.may_follow(&run.phase), "{attempt} goes from {:?} to {phase:?}", run.phase);
        let is_freed = matches!((&run.phase, &phase), (Phase::Parked, Phase::Ready));
        debug_assert!(!is_freed || !run.is_mutex(), "{attempt} is a parked mutex run and starts without a new order");
        let former_rank = run.rank();
        self.index.strike(attempt, run);
        let former = std::mem::replace(&mut run.phase, phase);
        run.alarm = run.alarm.filter(|_| matches!(run.phase, Phase::Running(_)));
        self.index.enter(attempt, run);
        let rank = run.rank();
        self.requeue(attempt, former_rank, rank);
        Some(former)
    }

    /// The run could not be started: it is ready again, as the next of its rank.
    pub fn put_back(&mut self, attempt: Attempt) {
        self.set_phase(attempt, Phase::Ready);
        self.ready.move_to_front(attempt);
    }

    /// Notes why the run is ended. The first reason counts.
    pub fn set_ended_by(&mut self, attempt: Attempt, ended_by: EndedBy) {
        if let Some(run) = self.all.get_mut(&attempt) {
            debug_assert!(matches!(run.phase, Phase::Running(_)), "{attempt} is ended and does not run: {run:?}");
            run.ended_by.get_or_insert(ended_by);
        }
    }

    /// Replaces the run's alarm.
    pub fn set_alarm(&mut self, attempt: Attempt, alarm: Option<Alarm>) {
        let Some(run) = self.all.get_mut(&attempt) else { return };
        debug_assert!(matches!(run.phase, Phase::Running(_)), "{attempt} has an alarm and does not run: {run:?}");
        self.index.strike(attempt, run);
        run.alarm = alarm;
        self.index.enter(attempt, run);
    }

    /// Takes the due alarms away, the earliest first.
    pub fn take_due_alarms(&mut self, now: Mono) -> Vec<(Attempt, Alarm)> {
        let due: Vec<Attempt> = until(&self.index.alarms, now).collect();
        let alarm_of = |attempt| self.get(attempt).and_then(|run| run.alarm);
        let alarms: Vec<(Attempt, Alarm)> = due.into_iter().filter_map(|at| Some((at, alarm_of(at)?))).collect();
        alarms.iter().for_each(|(attempt, _)| self.set_alarm(*attempt, None));
        alarms
    }

    /// Picks the run to start now. The caller gives it another phase, which takes it out of the queue.
    pub fn next_ready(&mut self, now: Second) -> Option<Attempt> {
        self.ready.next(now)
    }

    fn requeue(&mut self, attempt: Attempt, former: Option<Rank>, rank: Option<Rank>) {
        if former == rank {
            return;
        }
        if former.is_some() {
            self.ready.remove(attempt);
        }
        if let Some(rank) = rank {
            self.ready.push(attempt, rank);
        }
    }
}

/// Questions.
impl HeldRuns {
    pub fn get(&self, attempt: Attempt) -> Option<&Run> {
        self.all.get(&attempt)
    }

    pub fn phase(&self, attempt: Attempt) -> Option<&Phase> {
        self.get(attempt).map(|run| &run.phase)
    }

    pub fn iter(&self) -> impl Iterator<Item = (Attempt, &Run)> {
        self.all.iter().map(|(attempt, run)| (*attempt, run))
    }

    /// How many runs there are, those that are over included.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// How many runs have not started.
    pub fn waiting(&self) -> usize {
        self.index.waiting
    }

    /// When the first second of an armed run begins.
    pub fn first_armed(&self) -> Option<Mono> {
        self.index.armed.first().map(|((at, _), _)| *at)
    }

    /// The armed runs whose second has begun, the earliest first.
    pub fn due(&self, now: Mono) -> Vec<Attempt> {
        until(&self.index.armed, (now, u64::MAX)).collect()
    }

    /// How many runs are in the ready queue.
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// How many runs of the job are in the ready queue; always 0 for a mutex job.
    pub fn ready_of(&self, id: JobId) -> usize {
        self.index.ready_of.get(&id).copied().unwrap_or(0)
    }

    /// The second after which the first run in the ready queue may no longer start.
    pub fn first_expiring(&self) -> Option<Second> {
        self.index.expiring.first().map(|(expires, _)| *expires)
    }

    /// The runs in the ready queue that may no longer start.
    pub fn expired(&self, now: Second) -> Vec<Attempt> {
        until(&self.index.expiring, now.plus(-1)).collect()
    }

    /// The parked runs that are ready again with a new lease: those of no mutex job.
    pub fn parked(&self) -> Vec<Attempt> {
        self.index.parked.iter().copied().collect()
    }

    /// The runs that are with the spawning threads.
    pub fn spawning(&self) -> impl ExactSizeIterator<Item = Attempt> {
        self.index.spawning.values().copied()
    }

    /// The run that this work starts.
    pub fn spawned_by(&self, work: WorkId) -> Option<Attempt> {
        self.index.spawning.get(&work).copied()
    }

    pub fn running(&self) -> impl ExactSizeIterator<Item = Attempt> {
        self.index.running.iter().copied()
    }

    /// When the first alarm is due.
    pub fn first_alarm(&self) -> Option<Mono> {
        self.index.alarms.first().map(|(at, _)| *at)
    }

    /// How many runs have no main process any more and are still being ended.
    pub fn ending(&self) -> usize {
        self.index.ending.len()
    }

    /// The run whose last processes this work kills.
    pub fn ended_by(&self, work: WorkId) -> Option<Attempt> {
        self.index.ending.get(&work).copied()
    }

    pub fn unstarted(&self) -> Vec<Attempt> {
        self.iter().filter(|(_, run)| run.is_unstarted()).map(|(attempt, _)| attempt).collect()
    }

    /// The job's runs of versions older than `below`; of every version where that is none.
    pub fn of_job(&self, id: JobId, below: Option<Version>) -> impl Iterator<Item = (Attempt, &Run)> {
        let first = Attempt { run: RunKey::scheduled(id, Second(i64::MIN)), number: 0 };
        self.all
            .range(first..)
            .map(|(attempt, run)| (*attempt, run))
            .take_while(move |(attempt, _)| attempt.run.cron_id == id)
            .filter(move |(_, run)| below.is_none_or(|below| run.version < below))
    }

    /// The runs as people see them: at most `max`, those with a process first.
    pub fn views(&self, max: usize) -> Vec<HeldRun> {
        let views = self.iter().filter_map(|(attempt, run)| run.view(attempt));
        let (mut begun, waiting): (Vec<HeldRun>, Vec<HeldRun>) = views.partition(|run| run.pid != 0);
        begun.extend(waiting);
        begun.truncate(max);
        begun
    }

    /// Counts everything again. Costs a look at every run.
    pub fn check_invariants(&self) {
        self.iter().for_each(|(attempt, run)| run.check_invariants(attempt));
        assert_eq!(self.index, Index::of(self.iter()), "the index is not that of the held runs");
        let ready = self.iter().filter(|(_, run)| run.rank().is_some()).map(|(attempt, _)| attempt);
        assert!(ready.eq(self.ready.attempts()), "the ready queue does not hold exactly the runs that are ready");
        self.ready.check_invariants();
    }
}

/// The attempts up to and with `last`, in order.
fn until<T: Copy + Ord>(entries: &BTreeSet<(T, Attempt)>, last: T) -> impl Iterator<Item = Attempt> {
    entries.iter().take_while(move |(at, _)| *at <= last).map(|(_, attempt)| *attempt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::io::FoundState;
    use crate::core::io::ports::{KillHow, Started};
    use crate::model::message::Order;
    use crate::model::status::RunStatus;
    use crate::model::{Exit, Job, Server, Usage, Wall};
    use std::sync::Arc;

    fn attempt(job: u32, second: i64) -> Attempt {
        Attempt { run: RunKey::scheduled(JobId(job), Second(second)), number: 1 }
    }

    fn order(attempt: Attempt, is_mutex: bool, late: bool) -> Order {
        let job = Arc::new(Job { id: attempt.run.cron_id, is_mutex, ..Job::default() });
        let expires = (!is_mutex).then_some(attempt.run.scheduled_at.plus(60));
        let (dispatch_time, dispatch_server) = (Second(1), Server::default());
        Order { attempt, job, late, expires, dispatch_time, dispatch_server }
    }

    /// The phases, each with work of its own number.
    fn phase(at: u64, work: u64) -> Phase {
        let (work, started) = (WorkId(work), Started { pid: 7, at: Wall(0) });
        match at % 7 {
            0 => Phase::Armed { at: Mono(0).plus_ms(work.0 % 5), arrival: work.0 },
            1 => Phase::Ready,
            2 => Phase::Parked,
            3 => Phase::Spawning { work, is_killed: false },
            4 => Phase::Running(started),
            5 => Phase::Ending { work, started, exit: Exit::Code(0), output: String::new(), usage: Usage::default() },
            _ => Phase::Over,
        }
    }

    #[test]
    fn index_and_queue_are_those_of_the_runs_after_every_step() {
        let mut held = HeldRuns::default();
        let mut random = 7_u64;
        let mut draw = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % below
        };
        let mut phases_seen = [0; 7];
        for step in 0..20_000 {
            let job = draw(4) as u32;
            let attempt = attempt(job, draw(9) as i64);
            let known = held.get(attempt).map(|run| (run.is_unstarted(), run.phase.may_be_last()));
            let (at, next) = (draw(7), phase(draw(7), step));
            match draw(8) {
                0 | 1 if known.is_none_or(|(is_unstarted, _)| is_unstarted) => {
                    let run = match draw(9) {
                        0 => Run::found(Version(0), FoundState::Held),
                        _ => Run::ordered(order(attempt, job == 0, draw(2) == 0), phase(at % 3, step)),
                    };
                    held.insert(attempt, run);
                }
                2 if known.is_some_and(|(_, may_be_last)| may_be_last) => drop(held.remove(attempt)),
                3 if matches!(held.phase(attempt), Some(Phase::Running(_))) => {
                    let alarm = Alarm { at: Mono(0).plus_ms(at), how: KillHow::Ask, ended_by: EndedBy::Timeout };
                    held.set_alarm(attempt, Some(alarm));
                    held.set_ended_by(attempt, EndedBy::Timeout);
                }
                4 if matches!(held.phase(attempt), Some(Phase::Spawning { .. })) => held.put_back(attempt),
                5 if at == 0 => drop(held.take_due_alarms(Mono(0).plus_ms(draw(7)))),
                _ => {
                    if held.get(attempt).is_some_and(|run| may_become(run, &next)) {
                        phases_seen[(0..7).find(|at| same(&phase(*at, step), &next)).unwrap() as usize] += 1;
                        held.set_phase(attempt, next);
                    }
                }
            }
            held.check_invariants();
        }
        assert!(phases_seen[1..].iter().all(|count| 5 < *count), "{phases_seen:?}");
    }

    /// Whether the executor may ask for this step.
    fn may_become(run: &Run, next: &Phase) -> bool {
        let is_freed = run.is_mutex() && matches!((&run.phase, next), (Phase::Parked, Phase::Ready));
        let is_known = run.order.is_some() && run.ended_by.is_some() || !matches!(next, Phase::Ending { .. });
        next.may_follow(&run.phase) && is_known && !is_freed
    }

    fn same(one: &Phase, other: &Phase) -> bool {
        std::mem::discriminant(one) == std::mem::discriminant(other)
    }

    #[test]
    fn an_order_that_is_told_again_leaves_a_ready_run_its_place() {
        let mut held = HeldRuns::default();
        (1..=3).for_each(|job| {
            held.insert(attempt(job, 9), Run::ordered(order(attempt(job, 9), false, false), Phase::Ready));
        });
        held.insert(attempt(1, 9), Run::ordered(order(attempt(1, 9), false, false), Phase::Ready));
        held.insert(attempt(2, 9), Run::ordered(order(attempt(2, 9), false, true), Phase::Ready));
        let picked: Vec<u32> = std::iter::from_fn(|| {
            let next = held.next_ready(Second(9))?;
            held.set_phase(next, Phase::Over);
            Some(next.run.cron_id.0)
        })
        .collect();
        assert_eq!(picked, [1, 3, 2], "the second is late by now");
    }

    #[test]
    fn people_see_running_runs_first_and_none_that_is_over() {
        let mut held = HeldRuns::default();
        (0..7).for_each(|at| {
            let attempt = attempt(1, at as i64);
            held.insert(attempt, Run::ordered(order(attempt, false, false), phase(at, at)));
        });
        held.insert(attempt(1, 9), Run::found(Version(0), FoundState::Held));
        use RunStatus::{Armed, Ending, Queued, Running};
        let seen = |max| held.views(max).iter().map(|run| run.status).collect::<Vec<_>>();
        assert_eq!(seen(100), [Running, Ending, Armed, Queued, Queued, Queued]);
        assert_eq!(seen(3), [Running, Ending, Armed]);
    }
}
