//! The table against a plain model, over many random steps.

use super::*;
use crate::model::Version;

const STAGES: [Stage; 8] = [
    Stage::Waiting(WaitsFor::Permit),
    Stage::Waiting(WaitsFor::Node),
    Stage::Waiting(WaitsFor::PermitAndNode),
    Stage::Waiting(WaitsFor::Decision),
    Stage::Planned,
    Stage::Moving,
    Stage::Sent,
    Stage::Over,
];

/// The table, the model, and the dice.
#[derive(Default)]
struct Bench {
    table: RunTable,
    /// The stage of every run.
    model: BTreeMap<Attempt, Stage>,
    /// How often a run has entered each of `STAGES`.
    entered: [usize; STAGES.len()],
    random: u64,
}

/// The dice. Few attempts, nodes and entries, so that runs meet in every index.
impl Bench {
    fn draw(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.random >> 33) % below
    }

    fn attempt(&mut self) -> Attempt {
        let (job, second) = (JobId(self.draw(4) as u32), Second(self.draw(3) as i64));
        Attempt { run: RunKey::scheduled(job, second), number: 1 + self.draw(2) as u32 }
    }

    fn stage(&mut self) -> Stage {
        STAGES[self.draw(STAGES.len() as u64) as usize]
    }

    fn entry(&mut self) -> EntryId {
        EntryId(self.draw(9) as i64)
    }

    /// One of three nodes, or nobody.
    fn node(&mut self) -> NodeId {
        match self.draw(4) {
            0 => NodeId::default(),
            node => NodeId(format!("node {node}").into()),
        }
    }

    /// A new version of the job. Job 0 is a mutex job, two runs of job 1 go at one time, the others have no limit.
    fn job(&mut self, id: JobId) -> Arc<Job> {
        let (is_mutex, max_parallel) = (id == JobId(0), if id == JobId(1) { 2 } else { 0 });
        Arc::new(Job { id, is_mutex, max_parallel, version: Version(self.draw(9)), ..Job::default() })
    }

    /// A run that is planned, delayed, or left by a former leader.
    fn run(&mut self, attempt: Attempt) -> InFlightRun {
        let planned = InFlightRun::planned(self.job(attempt.run.cron_id), self.node(), false, Second(0).wall());
        let ready_at = Mono(0).plus_ms(self.draw(5));
        match self.draw(3) {
            0 => planned,
            1 => InFlightRun { stage: Stage::Delayed, keeps_open: Some(self.entry()), ready_at, ..planned },
            _ => {
                let left = InFlightRun { entry: Some(self.entry()), ..planned };
                let stage = self.stage();
                InFlightRun { stage: if suits(&left, stage) { stage } else { Stage::Over }, ..left }
            }
        }
    }
}

/// Whether a run like this one may be in the stage.
fn suits(run: &InFlightRun, stage: Stage) -> bool {
    match stage {
        Stage::Waiting(WaitsFor::Permit | WaitsFor::PermitAndNode) => run.is_limited(),
        Stage::Sent => !run.node.is_nobody(),
        _ => true,
    }
}

/// The steps.
impl Bench {
    /// Whether the parts over the table may bring the attempt to this stage. That of an unknown one changes nothing.
    fn may_go(&self, attempt: Attempt, stage: Stage) -> bool {
        let may_go = |run: &InFlightRun| {
            let is_ready = run.entry.is_some() || stage == Stage::Planned;
            is_ready && run.stage.may_become(stage) && suits(run, stage)
        };
        self.table.get(attempt).is_none_or(may_go)
    }

    fn note(&mut self, attempt: Attempt, stage: Stage) {
        if let Some(former) = self.model.get_mut(&attempt) {
            *former = stage;
            self.entered[STAGES.iter().position(|known| *known == stage).unwrap()] += 1;
        }
    }

    fn step(&mut self) {
        let attempt = self.attempt();
        match self.draw(10) {
            0 => {
                let run = self.run(attempt);
                let former = self.model.insert(attempt, run.stage);
                assert_eq!(self.table.insert(attempt, run).map(|run| run.stage), former);
            }
            1 => assert_eq!(self.table.remove(attempt).map(|run| run.stage), self.model.remove(&attempt)),
            2 | 3 => {
                let of = |run: &InFlightRun| run.entry.into_iter().chain(run.keeps_open).collect();
                let former: Vec<EntryId> = self.table.get(attempt).map(of).unwrap_or_default();
                let entry = self.entry();
                assert!(self.table.set_entry(attempt, entry).eq(former));
            }
            4 if self.may_go(attempt, Stage::Moving) => {
                let node = self.node();
                self.table.move_to(attempt, node.clone());
                self.note(attempt, Stage::Moving);
                assert!(self.table.get(attempt).is_none_or(|run| run.node == node));
            }
            5 if self.may_go(attempt, Stage::Planned) => {
                let (job, node) = (self.job(attempt.run.cron_id), self.node());
                self.table.plan_again(attempt, job, node);
                self.note(attempt, Stage::Planned);
            }
            6 => self.mark(attempt),
            _ => {
                let stage = self.stage();
                if stage != Stage::Planned && self.may_go(attempt, stage) {
                    self.table.set_stage(attempt, stage);
                    self.note(attempt, stage);
                    assert!(self.table.get(attempt).is_none_or(|run| run.question == 0));
                }
            }
        }
    }

    /// Notes something that leaves the stage as it is.
    fn mark(&mut self, attempt: Attempt) {
        match self.draw(3) {
            0 => self.table.set_question(attempt, 7),
            1 => self.table.set_followed(attempt),
            _ => self.table.set_killed(attempt),
        }
    }
}

/// The comparisons.
impl Bench {
    fn compare(&mut self) {
        assert!(self.table.all().map(|(attempt, run)| (attempt, &run.stage)).eq(&self.model));
        self.compare_stages();
        self.compare_nodes();
        self.compare_runs();
    }

    /// The attempts in stages for which `is_so` holds.
    fn with(&self, is_so: impl Fn(Stage) -> bool) -> impl Iterator<Item = Attempt> {
        self.model.iter().filter(move |(_, stage)| is_so(**stage)).map(|(attempt, _)| *attempt)
    }

    fn compare_stages(&mut self) {
        let attempt = self.attempt();
        let stage = self.model.get(&attempt).copied();
        assert_eq!((self.table.stage(attempt), self.table.has(attempt)), (stage, stage.is_some()));
        assert_eq!(self.table.is_waiting(attempt), matches!(stage, Some(Stage::Waiting(_))));
        assert!(stage.is_none_or(|stage| self.table.is(attempt, stage)));
        let is_unplaced = |stage| matches!(stage, Stage::Waiting(WaitsFor::Node | WaitsFor::PermitAndNode));
        assert!(self.with(is_unplaced).eq(self.table.unplaced().iter().copied()));
        let id = attempt.run.cron_id;
        let is_queued = |stage| matches!(stage, Stage::Waiting(WaitsFor::Permit | WaitsFor::PermitAndNode));
        let first = self.with(is_queued).find(|attempt| attempt.run.cron_id == id);
        assert_eq!(self.table.first_in_queue(id), first);
    }

    fn compare_nodes(&mut self) {
        let node = NodeId(format!("node {}", 1 + self.draw(3)).into());
        let on = |attempt: &Attempt| self.table.get(*attempt).is_some_and(|run| run.node == node);
        let sent: Vec<Attempt> = self.with(|stage| stage == Stage::Sent).filter(on).collect();
        let over: Vec<Attempt> = self.with(|stage| stage == Stage::Over).filter(on).collect();
        let moving = self.with(|stage| stage == Stage::Moving).filter(on).count();
        let is_unlimited = |attempt: &Attempt| 1 < attempt.run.cron_id.0;
        let planned = self.with(|stage| stage == Stage::Planned).filter(on).filter(is_unlimited).count();
        assert_eq!(self.table.taken(&node), sent.len() + moving + planned);
        assert_eq!(self.table.nodes().contains(&node), !sent.is_empty() || !over.is_empty());
        assert_eq!((self.table.sent_to(&node), self.table.over_on(&node)), (sent, over));
    }

    fn compare_runs(&mut self) {
        let (attempt, entry, then) = (self.attempt(), self.entry(), Mono(0).plus_ms(self.draw(5)));
        let all = || self.table.all();
        let of_job = all().filter(|(of, _)| of.run.cron_id == attempt.run.cron_id);
        assert!(of_job.map(|(of, _)| of).eq(self.table.of_job(attempt.run.cron_id).map(|(of, _)| of)));
        let of_run = all().filter(|(of, _)| of.run == attempt.run);
        assert!(of_run.map(|(of, _)| of).eq(self.table.of_run(attempt.run).map(|(of, _)| of)));
        let names =
            |run: &InFlightRun| usize::from(run.entry == Some(entry)) + usize::from(run.keeps_open == Some(entry));
        assert_eq!(self.table.named_by(entry), all().map(|(_, run)| names(run)).sum::<usize>());
        let is_delayed = |(_, run): &(&Attempt, &InFlightRun)| run.stage == Stage::Delayed && run.entry.is_some();
        let mut delayed: Vec<(Mono, Attempt)> = all().filter(is_delayed).map(|(of, run)| (run.ready_at, *of)).collect();
        delayed.sort();
        assert_eq!(self.table.next_delayed(), delayed.first().map(|(ready_at, _)| *ready_at));
        delayed.retain(|(ready_at, _)| *ready_at <= then);
        assert!(self.table.delayed_until(then).into_iter().eq(delayed.into_iter().map(|(_, of)| of)));
        let others = BTreeSet::from([attempt]);
        let is_later = |of: &Attempt, other: &Attempt| of.run == other.run && of.number < other.number;
        let is_followed = |of: &Attempt| is_later(of, &attempt) || self.model.keys().any(|other| is_later(of, other));
        assert!(self.model.keys().copied().filter(is_followed).eq(self.table.followed_by(&others)));
    }
}

#[test]
fn the_table_is_that_of_a_plain_model_after_every_step() {
    let mut bench = Bench { random: 7, ..Bench::default() };
    for _ in 0..20_000 {
        bench.step();
        bench.table.check_invariants();
        bench.compare();
    }
    assert!(bench.entered.iter().all(|count| 50 < *count), "{:?} of {STAGES:?}", bench.entered);
}
