//! What really happened, kept apart from the nodes, and the promises that it is held against.

use crate::store::Store;
use std::collections::{BTreeMap, BTreeSet};
use wing_crontab::core::schedule::Schedule;
use wing_crontab::model::command::RequestId;
use wing_crontab::model::{Attempt, Job, JobId, RunKey, RunState, Second};

const MS: u64 = 1_000_000;

#[derive(Debug, Default)]
pub struct Truth {
    pub starts: BTreeSet<Attempt>,
    /// Mutex jobs whose processes run now.
    running: BTreeMap<JobId, BTreeMap<Attempt, usize>>,
    ok: BTreeSet<Attempt>,
    /// Changes that were answered with 200, and when.
    answers: Vec<(Job, u64)>,
    pub violations: Vec<String>,
}

impl Truth {
    /// How long a run of the job takes.
    pub fn duration(&self, job: &Job) -> u64 {
        let number = u64::from(job.id.0);
        match job.command.as_str() {
            "long" => 14_000 * MS,
            _ => (20 + number * 131 % 400) * MS,
        }
    }

    /// `is_excused`: whether a host's guardian stands still, or has only just woken: then a mutex may overlap what runs there,
    /// which is a stated limit.
    pub fn started(&mut self, attempt: Attempt, job: &Job, host: usize, at: u64, is_excused: impl Fn(usize) -> bool) {
        if !self.starts.insert(attempt) {
            self.violations.push(format!("{attempt} was started twice, now on host {host}"));
        }
        if job.is_mutex {
            let running = self.running.entry(job.id).or_default();
            if let Some((other, there)) = running.iter().find(|(_, there)| !is_excused(**there)) {
                self.violations.push(format!("{attempt} on host {host} overlaps {other} on host {there}"));
            }
            running.insert(attempt, host);
        }
        let older = self
            .answers
            .iter()
            .find(|(answered, when)| answered.id == job.id && *when < at && job.version < answered.version);
        if let Some((answered, _)) = older {
            let (old, new) = (job.version.0, answered.version.0);
            self.violations.push(format!("{attempt} of version {old} was started after version {new} was answered"));
        }
    }

    pub fn ended(&mut self, attempt: Attempt, _host: usize, _at: u64, is_ok: bool) {
        self.running.entry(attempt.run.cron_id).or_default().remove(&attempt);
        if is_ok {
            self.ok.insert(attempt);
        }
    }

    pub fn answered(&mut self, _client: RequestId, job: Job, at: u64) {
        self.answers.push((job, at));
    }

    /// After everything has healed: what the log must say of the seconds from `first` to `last`.
    pub fn check(&mut self, store: &Store, steady: &[Job], first: i64, last: i64) {
        let mut wrong = Vec::new();
        for attempt in self.starts.iter().filter(|attempt| attempt.run.scheduled_at.0 <= last - 10) {
            if !store.logs.contains_key(attempt) {
                wrong.push(format!("{attempt} was started and has no row"));
            }
        }
        for (attempt, row) in &store.logs {
            if row.state == RunState::Ok && !self.ok.contains(attempt) {
                wrong.push(format!("{attempt} is logged ok and did not end well"));
            }
        }
        let gaps: Vec<_> = store.journal.values().flat_map(|(entry, _)| entry.body.missed.clone()).collect();
        for job in steady {
            let schedule = Schedule::parse(&job.cron_set, &jiff::tz::TimeZone::UTC).expect("it was added");
            for second in first..=last {
                let is_told = [1, 0].iter().any(|number| {
                    let run = RunKey::scheduled(job.id, Second(second));
                    store.logs.contains_key(&Attempt { run, number: *number })
                });
                let is_in_gap =
                    gaps.iter().any(|gap| gap.cron_id == job.id && gap.first.0 <= second && second <= gap.last.0);
                if schedule.matches(Second(second)) && !is_told && !is_in_gap {
                    wrong.push(format!("job {} has no outcome for second {second}", job.id));
                }
            }
        }
        for (id, (entry, done)) in &store.journal {
            if !done && entry.tick.is_none_or(|tick| tick.0 < last - 5) {
                let row = |attempt: &Attempt| store.logs.get(attempt).map(|row| (row.state, row.run_server.clone()));
                let runs: Vec<_> =
                    entry.body.runs.iter().map(|run| (run.attempt.to_string(), row(&run.attempt))).collect();
                wrong.push(format!("journal entry {id} of tick {:?} is still open: {runs:?}", entry.tick));
            }
        }
        self.violations.append(&mut wrong);
    }
}
