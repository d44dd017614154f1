//! What the node has: every attempt with how far it has come, and what follows from that for each input without a look
//! at all of them.
//!
//! Not the place that decides how far an attempt goes: that is the executor's.
//!
//! Invariant: the counts and the index are those of the holdings: whatever changes a stage goes through here.

use super::EndedBy;
use crate::core::io::FoundState;
use crate::core::ports::Started;
use crate::model::message::{Held, HeldRun, Order};
use crate::model::status::RunStatus;
use crate::model::{Attempt, Exit, JobId, RunKey, Second, Version};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug)]
pub struct Holding {
    /// None for a mark that was found and that no leader has spoken of yet.
    pub order: Option<Order>,
    pub version: Version,
    /// Where somebody ends it.
    pub ended_by: Option<EndedBy>,
    phase: Phase,
}

#[derive(Clone, Debug)]
pub enum Phase {
    Found(FoundState),
    Armed,
    Ready,
    Parked,
    Spawning {
        /// To be ended as soon as it runs.
        is_killed: bool,
    },
    Running(Started),
    /// The main process is over, what is left of its run is being killed.
    Ending(Started, Exit, String),
    Over,
}

impl Holding {
    pub fn new(order: Option<Order>, version: Version, phase: Phase) -> Holding {
        Holding { order, version, ended_by: None, phase }
    }

    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    pub fn is_mutex(&self) -> bool {
        self.order.as_ref().is_some_and(|order| order.job.is_mutex)
    }

    pub fn held(&self) -> Held {
        match self.phase {
            Phase::Parked if self.is_mutex() => Held::Parked,
            Phase::Found(FoundState::Held) => Held::Parked,
            Phase::Armed | Phase::Ready | Phase::Parked => Held::Waiting,
            Phase::Found(FoundState::Unknown) => Held::Unknown,
            _ => Held::Begun,
        }
    }

    pub fn is_unstarted(&self) -> bool {
        matches!(self.held(), Held::Waiting | Held::Parked)
    }

    /// As people see it; nothing of what is over.
    fn view(&self, attempt: Attempt) -> Option<HeldRun> {
        let (status, started) = match self.phase {
            Phase::Armed => (RunStatus::Armed, None),
            Phase::Ready | Phase::Parked | Phase::Spawning { .. } => (RunStatus::Queued, None),
            Phase::Running(started) if self.ended_by.is_none() => (RunStatus::Running, Some(started)),
            Phase::Running(started) | Phase::Ending(started, _, _) => (RunStatus::Ending, Some(started)),
            Phase::Found(_) | Phase::Over => return None,
        };
        let (pid, started_ms) = started.map_or((0, 0), |started| (started.pid, started.at.ms()));
        Some(HeldRun { attempt, status, pid, started_ms })
    }
}

#[derive(Debug, Default)]
pub struct Holdings {
    all: BTreeMap<Attempt, Holding>,
    counts: Counts,
}

/// What is known without a look at all holdings.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Counts {
    /// Not started.
    waiting: usize,
    running: usize,
    /// Of each job that is no mutex: its time has come, and it waits for its turn.
    ready: BTreeMap<JobId, usize>,
    /// What waits for its turn, by the last second in which it may still start.
    expiring: BTreeSet<(Second, Attempt)>,
    /// What a lease lets go on.
    parked: BTreeSet<Attempt>,
}

impl Holdings {
    pub fn get(&self, attempt: Attempt) -> Option<&Holding> {
        self.all.get(&attempt)
    }

    pub fn phase(&self, attempt: Attempt) -> Option<&Phase> {
        self.get(attempt).map(Holding::phase)
    }

    pub fn iter(&self) -> impl Iterator<Item = (Attempt, &Holding)> {
        self.all.iter().map(|(attempt, holding)| (*attempt, holding))
    }

    /// In place of what there was of it.
    pub fn insert(&mut self, attempt: Attempt, holding: Holding) {
        self.remove(attempt);
        self.counts.count(attempt, &holding, true);
        self.all.insert(attempt, holding);
    }

    pub fn remove(&mut self, attempt: Attempt) -> Option<Holding> {
        let holding = self.all.remove(&attempt)?;
        self.counts.count(attempt, &holding, false);
        Some(holding)
    }

    /// Answers the stage that it had.
    pub fn set_phase(&mut self, attempt: Attempt, phase: Phase) -> Option<Phase> {
        let holding = self.all.get_mut(&attempt)?;
        self.counts.count(attempt, holding, false);
        let former = std::mem::replace(&mut holding.phase, phase);
        self.counts.count(attempt, holding, true);
        Some(former)
    }

    /// The first who ends it is the one that is told.
    pub fn set_ended_by(&mut self, attempt: Attempt, ended_by: EndedBy) {
        if let Some(holding) = self.all.get_mut(&attempt) {
            holding.ended_by.get_or_insert(ended_by);
        }
    }

    /// All, what is over included.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    pub fn waiting(&self) -> usize {
        self.counts.waiting
    }

    pub fn running(&self) -> usize {
        self.counts.running
    }

    /// Runs of the job that wait for their turn; none is counted of a mutex job.
    pub fn ready_of(&self, id: JobId) -> usize {
        self.counts.ready.get(&id).copied().unwrap_or(0)
    }

    /// Of what waits for its turn, the first that may no longer start after some second, and that second.
    pub fn first_expiring(&self) -> Option<(Second, Attempt)> {
        self.counts.expiring.first().copied()
    }

    /// Those that a lease lets go on.
    pub fn parked(&self) -> Vec<Attempt> {
        self.counts.parked.iter().copied().collect()
    }

    pub fn unstarted(&self) -> Vec<Attempt> {
        self.iter().filter(|(_, holding)| holding.is_unstarted()).map(|(attempt, _)| attempt).collect()
    }

    /// The job's runs of versions below; with none, of all.
    pub fn of_job(&self, id: JobId, below: Option<Version>) -> impl Iterator<Item = (Attempt, &Holding)> {
        let first = Attempt { run: RunKey::scheduled(id, Second(i64::MIN)), number: 0 };
        self.all
            .range(first..)
            .map(|(attempt, holding)| (*attempt, holding))
            .take_while(move |(attempt, _)| attempt.run.cron_id == id)
            .filter(move |(_, holding)| below.is_none_or(|below| holding.version < below))
    }

    /// For people: what runs first, so many at most.
    pub fn views(&self, max: usize) -> Vec<HeldRun> {
        let views = self.iter().filter_map(|(attempt, holding)| holding.view(attempt));
        let (mut begun, waiting): (Vec<HeldRun>, Vec<HeldRun>) = views.partition(|run| run.pid != 0);
        begun.extend(waiting);
        begun.truncate(max);
        begun
    }
}

impl Counts {
    fn count(&mut self, attempt: Attempt, holding: &Holding, is_in: bool) {
        let change = |count: &mut usize| *count = if is_in { *count + 1 } else { count.saturating_sub(1) };
        if holding.is_unstarted() {
            change(&mut self.waiting);
        }
        let expires = holding.order.as_ref().and_then(|order| order.expires);
        if let (Phase::Ready, Some(expires)) = (&holding.phase, expires) {
            keep(&mut self.expiring, (expires, attempt), is_in);
        }
        match holding.phase {
            Phase::Running(_) => change(&mut self.running),
            Phase::Ready if !holding.is_mutex() => {
                let ready = self.ready.entry(attempt.run.cron_id).or_default();
                change(ready);
                if *ready == 0 {
                    self.ready.remove(&attempt.run.cron_id);
                }
            }
            Phase::Parked if !holding.is_mutex() => keep(&mut self.parked, attempt, is_in),
            _ => {}
        }
    }
}

fn keep<T: Ord>(set: &mut BTreeSet<T>, item: T, is_in: bool) {
    if is_in {
        set.insert(item);
    } else {
        set.remove(&item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Job, Server, Wall};
    use std::sync::Arc;

    fn order(attempt: Attempt, is_mutex: bool) -> Order {
        let job = Arc::new(Job { id: attempt.run.cron_id, is_mutex, ..Job::default() });
        let expires = (!is_mutex).then_some(attempt.run.scheduled_at.plus(60));
        let (dispatch_time, dispatch_server) = (Second(1), Server::default());
        Order { attempt, job, late: false, expires, dispatch_time, dispatch_server }
    }

    fn phase(at: u64) -> Phase {
        let started = Started { pid: 7, at: Wall(0) };
        match at % 8 {
            0 => Phase::Found(FoundState::Held),
            1 => Phase::Armed,
            2 => Phase::Ready,
            3 => Phase::Parked,
            4 => Phase::Spawning { is_killed: false },
            5 => Phase::Running(started),
            6 => Phase::Ending(started, Exit::Code(0), String::new()),
            _ => Phase::Over,
        }
    }

    #[test]
    fn the_counts_are_those_of_the_holdings_after_every_step() {
        let mut holdings = Holdings::default();
        let mut random = 7_u64;
        let mut draw = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % below
        };
        for _ in 0..5_000 {
            let job = draw(4);
            let attempt = Attempt { run: RunKey::scheduled(JobId(job as u32), Second(draw(9) as i64)), number: 1 };
            match draw(4) {
                0 => {
                    let order = (draw(5) != 0).then(|| order(attempt, job == 0));
                    holdings.insert(attempt, Holding::new(order, Version(1), phase(draw(8))));
                }
                1 => drop(holdings.remove(attempt)),
                _ => drop(holdings.set_phase(attempt, phase(draw(8)))),
            }
            let mut recount = Counts::default();
            holdings.iter().for_each(|(attempt, holding)| recount.count(attempt, holding, true));
            assert_eq!(holdings.counts, recount);
        }
        assert!(holdings.all.len() > 10);
    }

    #[test]
    fn people_see_what_runs_first_and_nothing_that_is_over() {
        let mut holdings = Holdings::default();
        let attempt = |second| Attempt { run: RunKey::scheduled(JobId(1), Second(second)), number: 1 };
        for second in 0..8 {
            let holding = Holding::new(Some(order(attempt(second), false)), Version(1), phase(second as u64));
            holdings.insert(attempt(second), holding);
        }
        holdings.set_ended_by(attempt(6), EndedBy::Operator);
        let stages = |max| holdings.views(max).iter().map(|run| run.status).collect::<Vec<_>>();
        use RunStatus::{Armed, Ending, Queued, Running};
        assert_eq!(stages(100), [Running, Ending, Armed, Queued, Queued, Queued]);
        assert_eq!(stages(3), [Running, Ending, Armed]);
    }
}
