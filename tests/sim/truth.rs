//! The events that really happened, which the nodes cannot see, and the checks of the promises against them.

use crate::outcomes::{Outcomes, due_of};
use crate::store::Store;
use crate::world::{MS, SECOND, WALL};
use std::collections::{BTreeMap, BTreeSet};
use wing_crontab::core::jobs::schedule::Schedule;
use wing_crontab::model::command::{ClusterView, RequestId};
use wing_crontab::model::config::Limits;
use wing_crontab::model::journal::Entry;
use wing_crontab::model::{Attempt, Exit, Job, JobId, RunKey, RunState, Second, Zones};

/// How late a run may start when all is well.
const ON_TIME: u64 = 1_500 * MS;
/// For how many seconds at the end all must be well.
const WELL_SECS: i64 = 25;
/// How many runs of a mutex job must start in these seconds.
const STARTS_OF_MUTEX_MIN: usize = 4;
/// How many seconds the entry of a tick may stay open when all is well.
const TICK_OPEN_SECS: i64 = 5;
/// The same for the entry of a retry.
const RETRY_OPEN_SECS: i64 = 10;
/// For so long a leader may not know that a change is stored.
const UNKNOWN_SECS: i64 = 75;
/// How long a stop may take to be in force.
const UNSTORED_SECS: i64 = 5;

#[derive(Debug, Default)]
pub struct Truth {
    /// When each attempt was started.
    pub starts: BTreeMap<Attempt, u64>,
    /// Mutex jobs whose processes run now.
    running: BTreeMap<JobId, BTreeMap<Attempt, usize>>,
    ok: BTreeSet<Attempt>,
    /// Changes that were answered with 200, and the time of the answer.
    answers: Vec<(Job, u64)>,
    /// Stops that were in force before they were stored, each with the second in which it came into force.
    unstored: Vec<(JobId, i64)>,
    /// The runs that users were promised, and the runs that users were told are over.
    wanted: BTreeSet<RunKey>,
    ended: BTreeSet<RunKey>,
    /// When each host last started a run.
    started_at: BTreeMap<usize, u64>,
    /// Calls that must be answered with success, and the hosts that were asked.
    calls: BTreeMap<RequestId, usize>,
    /// The step and the time of the present event.
    pub moment: (u64, u64),
    /// Whether the nodes must keep the inner rules, too.
    knows_rules: bool,
    pub violations: Vec<String>,
}

impl Truth {
    pub fn new(knows_rules: bool) -> Truth {
        Truth { knows_rules, ..Truth::default() }
    }

    /// How long a run of the job takes.
    pub fn duration(&self, job: &Job) -> u64 {
        let number = u64::from(job.id.0);
        match job.command.as_str() {
            "long" => 14_000 * MS,
            "few" => 1_000 * MS,
            _ => (20 + number * 131 % 400) * MS,
        }
    }

    /// How an attempt ends when nobody ends it.
    pub fn exit(&self, attempt: Attempt, job: &Job) -> Exit {
        Exit::Code(i32::from(job.command == "failing" && attempt.number <= job.retry_times))
    }

    /// A promise to users is broken.
    pub fn broken(&mut self, what: String) {
        let (step, now) = self.moment;
        self.violations.push(format!("step {step}, {:.3} s: {what}", now as f64 / SECOND as f64));
    }

    /// An inner rule is broken: a promise depends on it.
    pub fn rule(&mut self, what: String) {
        if self.knows_rules {
            self.broken(what);
        }
    }

    /// Adds the violations that the store has noticed.
    pub fn hear(&mut self, store: &mut Store) {
        std::mem::take(&mut store.wrong).into_iter().for_each(|wrong| self.rule(wrong));
    }

    /// An attempt was started. `is_excused` tells whether a host's guardian stands still, or has just woken: then a
    /// mutex run may overlap the one on that host (a limit of the promises that docs/cluster.md states).
    pub fn started(
        &mut self,
        attempt: Attempt,
        job: &Job,
        (host, at): (usize, u64),
        is_excused: impl Fn(usize) -> bool,
    ) {
        self.started_at.insert(host, at);
        if self.starts.insert(attempt, at).is_some() {
            self.broken(format!("{attempt} was started twice, now on host {host}"));
        }
        if self.ended.contains(&attempt.run) {
            self.broken(format!("{attempt} was started after its run was answered to be over"));
        }
        if job.is_mutex {
            let running = self.running.entry(job.id).or_default();
            let other = running.iter().find(|(_, there)| !is_excused(**there)).map(|(other, there)| (*other, *there));
            running.insert(attempt, host);
            if let Some((other, there)) = other {
                self.broken(format!("{attempt} on host {host} overlaps {other} on host {there}"));
            }
        }
        let is_older = |answered: &Job, when: u64| answered.id == job.id && when < at && job.version < answered.version;
        if let Some((answered, _)) = self.answers.iter().find(|(answered, when)| is_older(answered, *when)) {
            let (old, new) = (job.version.0, answered.version.0);
            self.broken(format!("{attempt} of version {old} was started after version {new} was answered"));
        }
    }

    pub fn ended(&mut self, attempt: Attempt, is_ok: bool) {
        self.running.entry(attempt.run.cron_id).or_default().remove(&attempt);
        if is_ok {
            self.ok.insert(attempt);
        }
    }

    /// A call to a host that must succeed, because all is well.
    pub fn called(&mut self, client: RequestId, host: usize) {
        self.calls.insert(client, host);
    }

    pub fn replied(&mut self, client: RequestId, is_ok: bool) {
        if is_ok {
            self.calls.remove(&client);
        }
    }

    pub fn answered(&mut self, job: Job, at: u64) {
        self.answers.push((job, at));
    }

    /// A user was told that a run will be made or, with a state, that it is over.
    pub fn controlled(&mut self, run: RunKey, state: Option<RunState>, is_running: bool) {
        if state.is_none() {
            self.wanted.insert(run);
            return;
        }
        if is_running {
            self.broken(format!("run {run} was answered to be over and is running"));
        }
        self.ended.insert(run);
    }

    /// Checks what a leader shows of its nodes.
    pub fn shown(&mut self, view: &ClusterView, limits: &Limits) {
        for node in &view.nodes {
            if limits.max_running < node.running || limits.max_pending + limits.max_running < node.queued {
                self.rule(format!("{} has {} running and {} queued", node.server, node.running, node.queued));
            }
        }
    }

    /// Checks, after everything has healed, the log and the journal for the seconds from `first` to `last`.
    pub fn check(&mut self, store: &Store, steady: &[Job], first: i64, last: i64) {
        self.check_log(store, last);
        steady.iter().for_each(|job| self.check_seconds(store, job, first, last));
        steady.iter().for_each(|job| self.check_health(job, last));
        self.check_journal(store, last);
    }

    /// Checks that every node gets runs and passes calls on when all is well, whether or not it reaches Consul.
    pub fn check_hosts(&mut self, hosts: usize, last: i64) {
        let well_at = ((last - WELL_SECS) * SECOND as i64 - WALL) as u64;
        for host in 0..hosts {
            if self.started_at.get(&host).is_none_or(|at| *at < well_at) {
                self.broken(format!("host {host} got no run, when all was well"));
            }
        }
        for host in std::mem::take(&mut self.calls).into_values() {
            self.broken(format!("a call to host {host} was not answered well, when all was well"));
        }
    }

    /// Checks that the log agrees with what happened.
    fn check_log(&mut self, store: &Store, last: i64) {
        let told_by = ((last - 10) * SECOND as i64 - WALL) as u64;
        let rowless = self.starts.iter().filter(|(attempt, at)| **at <= told_by && !store.logs.contains_key(attempt));
        for attempt in rowless.map(|(attempt, _)| *attempt).collect::<Vec<Attempt>>() {
            self.broken(format!("{attempt} was started and has no row"));
        }
        let has_row = |run: &RunKey| store.logs.keys().any(|attempt| attempt.run == *run);
        for run in self.wanted.iter().filter(|run| !has_row(run)).copied().collect::<Vec<RunKey>>() {
            self.broken(format!("run {run} was promised and has no row"));
        }
        for (attempt, row) in &store.logs {
            if row.state == RunState::Ok && !self.ok.contains(attempt) {
                self.broken(format!("{attempt} is logged ok and did not end well"));
            }
            let is_unstarted = matches!(row.state, RunState::Missed | RunState::Cancelled);
            if is_unstarted && self.starts.contains_key(attempt) {
                self.broken(format!("{attempt} is logged {} and was started", row.state.as_str()));
            }
        }
    }

    /// Checks that every second in which the job is due has a visible outcome.
    fn check_seconds(&mut self, store: &Store, job: &Job, first: i64, last: i64) {
        let is_due = due_of(job);
        let outcomes = Outcomes::of(store, job.id);
        for second in (first..=last).filter(|second| is_due(*second)) {
            if !outcomes.is_told(second) {
                self.broken(format!("job {} has no outcome for second {second}", job.id));
            }
        }
    }

    /// Checks the same for a job that is changed all the time: it is due by the definition in force in each second.
    pub fn check_changed(&mut self, store: &Store, id: JobId, first: i64, last: i64) {
        let definitions: Vec<&Job> = store.definitions.iter().filter(|job| job.id == id).collect();
        let outcomes = Outcomes::of(store, id);
        let first = first.max(definitions.first().map_or(i64::MAX, |job| job.since.0));
        for second in first..=last {
            if self.is_surely_due(&definitions, second) && !outcomes.is_told(second) {
                self.broken(format!("job {id}, changed all the time, has no outcome for second {second}"));
            }
            let attempt = Attempt { run: RunKey::scheduled(id, Second(second)), number: 1 };
            if outcomes.is_settled(second) && self.starts.contains_key(&attempt) {
                self.broken(format!("{attempt} was cancelled before a change, and was started"));
            }
        }
    }

    /// Whether the job is due in the second by every definition that a leader may have in force. A leader keeps a
    /// definition in force until it knows that the next one is stored. A stop that is in force and not stored is known
    /// to it alone.
    fn is_surely_due(&self, definitions: &[&Job], second: i64) -> bool {
        let Some(at) = definitions.iter().rposition(|job| job.since.0 <= second) else { return false };
        let current = definitions[at];
        let answer = self.answers.iter().find(|(job, _)| (job.id, job.version) == (current.id, current.version));
        let known_at = answer.map_or(current.since.0 + UNKNOWN_SECS, |(_, at)| (WALL + *at as i64) / SECOND as i64 + 1);
        let is_known = known_at < second;
        // A stop that the store refuses may be in force until a later definition is stored.
        let is_replaced = |at: i64| definitions.iter().any(|job| at < job.since.0 && job.since.0 <= second);
        let is_unstored = self.unstored.iter().any(|(id, at)| {
            let is_over = *at + UNKNOWN_SECS <= second && is_replaced(*at);
            *id == current.id && *at - UNSTORED_SECS <= second && !is_over
        });
        let former = at.checked_sub(1).map(|at| definitions[at]).filter(|_| !is_known);
        !is_unstored && due_of(current)(second) && former.is_none_or(|former| due_of(former)(second))
    }

    /// A stop of this job is in force, and not stored yet.
    pub fn unstored(&mut self, id: JobId, second: i64) {
        self.unstored.push((id, second));
    }

    /// Checks that runs start on time when all is well, and that no mutex is stuck.
    fn check_health(&mut self, job: &Job, last: i64) {
        let runs = self.starts.iter().filter(|(attempt, _)| attempt.run.cron_id == job.id);
        let recent = runs.filter(|(attempt, _)| last - WELL_SECS <= attempt.run.scheduled_at.0);
        let recent: BTreeMap<i64, u64> = recent.map(|(attempt, at)| (attempt.run.scheduled_at.0, *at)).collect();
        if job.command == "failing" && !self.is_retried_to_the_end(job, last) {
            self.broken(format!("no run of job {} was retried to its end, when all was well", job.id));
        }
        if job.is_mutex || job.max_parallel != 0 {
            if recent.len() < STARTS_OF_MUTEX_MIN {
                self.broken(format!("of mutex job {} only {} runs were started at the end", job.id, recent.len()));
            }
            return;
        }
        let schedule = Schedule::parse(&job.cron_set, &Zones::default()).expect("it was added");
        for second in (last - WELL_SECS..=last).filter(|second| schedule.matches(Second(*second))) {
            let due = (second * SECOND as i64 - WALL) as u64;
            match recent.get(&second) {
                None => self.broken(format!("job {} was not started for second {second}, when all was well", job.id)),
                Some(at) if due + ON_TIME < *at => {
                    let late_ms = (at - due) / MS;
                    self.broken(format!("job {} was {late_ms} ms late for second {second}, when all was well", job.id));
                }
                Some(_) => {}
            }
        }
    }

    fn is_retried_to_the_end(&self, job: &Job, last: i64) -> bool {
        let is_recent = |attempt: &&Attempt| last - WELL_SECS <= attempt.run.scheduled_at.0;
        let ok = self.ok.iter().filter(is_recent);
        ok.filter(|attempt| attempt.run.cron_id == job.id).any(|attempt| attempt.number == 1 + job.retry_times)
    }

    /// Checks that every entry is closed soon after the last of its runs has ended (an entry with a retry, later).
    fn check_journal(&mut self, store: &Store, last: i64) {
        let open = store.journal.iter().filter(|(_, (_, is_done))| !is_done);
        let is_old = |id: &i64, entry: &Entry| match entry.tick {
            Some(tick) => tick.0 < last - TICK_OPEN_SECS,
            None => store.written_at.get(id).is_some_and(|at| *at < last - RETRY_OPEN_SECS),
        };
        for (id, (entry, _)) in open.filter(|(id, (entry, _))| is_old(id, entry)) {
            let row = |attempt: &Attempt| store.logs.get(attempt).map(|row| (row.state, row.run_server.clone()));
            let runs: Vec<_> = entry.body.runs.iter().map(|run| (run.attempt.to_string(), row(&run.attempt))).collect();
            self.broken(format!("journal entry {id} of tick {:?} is still open: {runs:?}", entry.tick));
        }
    }
}
