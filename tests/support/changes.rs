//! A change to a job of every second: which outcomes the seconds before it must have, and which runs may not begin
//! after it.
//!
//! The old definition decides each second until the change takes force, whatever delays the change: the second has a
//! run, or a row says why not. Once the change is answered, no run of the old definition begins. How soon the answer
//! comes is not checked here.

use super::api::{Api, Reply};
use super::jobs::EVERY_SECOND;
use super::outcomes::Outcomes;
use super::row::Row;
use super::time::{pass_until, second};
use super::witness::{Seen, Witness};
use super::{wait_for, wait_to_see};

/// The runs of a job are checked for so long after its change.
const BEHIND_SECS: i64 = 6;
/// A row for refusals of one job comes every ten seconds; a slow machine gets three times as long.
const TOLD_WITHIN_SECS: i64 = 30;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Change {
    Stop,
    Update,
    Delete,
}

/// A job of every second.
#[derive(Debug)]
pub struct Job {
    pub id: u64,
    pub witness: Witness,
}

/// A change that came into force between the seconds `asked` and `answered`, or within one of them.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    pub change: Change,
    pub asked: i64,
    pub answered: i64,
    /// The time of the answer by the clock that also tells when a process was born.
    answered_ticks: u64,
}

/// Hundredths of a second since the host's start, as in proc(5)'s starttime.
fn ticks() -> u64 {
    let uptime = std::fs::read_to_string("/proc/uptime").expect("proc is there");
    let number = uptime.split(' ').next().unwrap_or_default().replace('.', "");
    number.parse().expect("seconds with two decimals")
}

/// A command that writes down its definition, and when its process was born.
fn command(witness: &Witness, definition: &str) -> String {
    witness.write(&format!("{definition}@$(cut -d' ' -f22 /proc/$$/stat)"))
}

impl Job {
    pub fn added(api: &Api, witness: Witness) -> Job {
        let id = api.add_every_second(&command(&witness, "old"), "");
        Job { id, witness }
    }

    pub fn wait_runs(&self) {
        wait_to_see("three runs", || self.witness.read(), |seen| seen.len() >= 3);
    }

    /// What the runs wrote, each with the time at which its process was born. The word is the definition.
    fn seen(&self) -> Vec<(Seen, u64)> {
        let born = |seen: Seen| {
            let (definition, ticks) = seen.word.split_once('@').expect("the command writes both");
            let (word, ticks) = (definition.to_string(), ticks.parse().expect("a number of ticks"));
            (Seen { word, ..seen }, ticks)
        };
        self.witness.read().into_iter().map(born).collect()
    }
}

impl Change {
    /// Asks for the change until it is in force, by a 200 or by a 503 that says so.
    pub fn make(self, api: &Api, job: &Job) -> Made {
        let mut asked = second();
        wait_for("the change holds", || {
            let reply = self.ask(api, job);
            let (answered, answered_ticks) = (second(), ticks());
            eprintln!("{self:?} of job {} at {answered}, asked at {asked}: {}", job.id, reply.body);
            let says = |words: &str| reply.body["message"].as_str().is_some_and(|message| message.contains(words));
            if reply.status == 200 || says("in force") {
                return Some(Made { change: self, asked, answered, answered_ticks });
            }
            // After any other answer the change may be in force already.
            if says("nothing was changed") {
                asked = second();
            }
            None
        })
    }

    fn ask(self, api: &Api, job: &Job) -> Reply {
        match self {
            Change::Stop => api.get(&format!("/cron/stop/{}", job.id)),
            Change::Delete => api.get(&format!("/cron/delete/{}", job.id)),
            Change::Update => api.update(job.id, EVERY_SECOND, &command(&job.witness, "new")),
        }
    }
}

impl Made {
    /// Waits until every second must have its outcome, and gives what is wrong with the job's seconds. `rows` reads its
    /// log.
    pub fn faults(&self, job: &Job, rows: impl Fn() -> Vec<Row>) -> Vec<String> {
        pass_until(self.answered + BEHIND_SECS);
        let owed_until = match self.change {
            Change::Update => self.answered + BEHIND_SECS - 2,
            Change::Stop | Change::Delete => self.asked,
        };
        let outcomes = job.outcomes(owed_until.max(self.answered + 1), owed_until, rows);
        let mut faults = self.faults_of_runs(&job.seen());
        let mut check = |what: &str, mut seconds: Vec<i64>| {
            seconds.retain(|second| what != "without outcome" || *second <= owed_until);
            let told = |second: &i64| format!("{second} {:?}", outcomes.at(*second));
            let seconds: Vec<String> = seconds.iter().map(told).collect();
            if !seconds.is_empty() {
                faults.push(format!("{what}: {}", seconds.join(", ")));
            }
        };
        check("without outcome", outcomes.without.clone());
        check("doubled", outcomes.doubled.clone());
        faults.into_iter().map(|fault| format!("{self:?}, job {}: {fault}", job.id)).collect()
    }

    fn faults_of_runs(&self, seen: &[(Seen, u64)]) -> Vec<String> {
        let fault = |(seen, born): &(Seen, u64)| {
            // /proc/uptime and /proc/PID/stat may round that clock differently.
            let is_behind = self.answered_ticks + 1 < *born || self.answered < seen.scheduled_at;
            match seen.word.as_str() {
                "old" if is_behind => {
                    let centiseconds = *born as i64 - self.answered_ticks as i64;
                    Some(format!("of the old definition, {centiseconds} cs after the answer: {seen:?}"))
                }
                "new" if seen.scheduled_at <= self.asked => Some(format!("of the new definition, before it: {seen:?}")),
                _ => None,
            }
        };
        seen.iter().filter_map(fault).collect()
    }
}

impl Job {
    /// The outcomes of the seconds from the job's first run to `last`, as soon as each second until `owed_until` has
    /// one, or has had enough time for it.
    pub fn outcomes(&self, last: i64, owed_until: i64, rows: impl Fn() -> Vec<Row>) -> Outcomes {
        let late = second() + TOLD_WITHIN_SECS;
        wait_for("every second is explained", || {
            let seen: Vec<Seen> = self.seen().into_iter().map(|(seen, _)| Seen { word: "x".into(), ..seen }).collect();
            let first = seen.iter().map(|seen| seen.scheduled_at).min().expect("it has run");
            let outcomes = Outcomes::of(self.id, &rows(), &seen, "x", first..=last);
            let is_owed = outcomes.without.iter().any(|second| *second <= owed_until);
            (!is_owed || late <= second()).then_some(outcomes)
        })
    }

    /// What is wrong with a job that nobody changed: each of its seconds must have run, and only once.
    pub fn faults_of_untouched(&self, last: i64, rows: impl Fn() -> Vec<Row>) -> Vec<String> {
        let outcomes = self.outcomes(last, last, rows);
        let wrong = outcomes.by_second.iter().filter(|(_, told)| told.as_slice() != ["ran"]);
        wrong.map(|(second, told)| format!("untouched job {}: {second} {told:?}", self.id)).collect()
    }
}
