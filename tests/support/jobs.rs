//! The calls of a test for jobs, their runs and their log rows.
//!
//! A call that has to succeed checks that it does. A wait has an end, and says on failure what it saw instead.

use super::api::{Api, Reply};
use super::row::Row;
use super::wait_to_see;
use serde_json::Value;

pub const EVERY_SECOND: &str = "* * * * * *";
/// Due at New Year's midnight, so that the job runs only when a test asks for a run.
pub const IDLE: &str = "0 0 0 1 1 *";

/// The text as the value of a form.
pub fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// A form of these fields.
pub fn form(fields: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

// Jobs.
impl Api {
    /// Adds a job and gives its id. `rest` is more of the form, such as `is_mutex=1`.
    #[track_caller]
    pub fn add(&self, cron_set: &str, command: &str, rest: &str) -> u64 {
        let form = form(&[("cronSet", cron_set), ("command", command)]);
        self.post("/cron/add", &format!("{form}&{rest}")).ok()["id"].as_u64().expect("a job has an id")
    }

    #[track_caller]
    pub fn add_every_second(&self, command: &str, rest: &str) -> u64 {
        self.add(EVERY_SECOND, command, rest)
    }

    /// A job that runs only when somebody asks for a run.
    #[track_caller]
    pub fn add_idle(&self, command: &str, rest: &str) -> u64 {
        self.add(IDLE, command, rest)
    }

    /// A job that is due in this second and in no other.
    #[track_caller]
    pub fn add_once(&self, at: i64, command: &str, rest: &str) -> u64 {
        self.add_every_second(command, &format!("start_time={at}&end_time={}&{rest}", at + 1))
    }

    pub fn update(&self, id: u64, cron_set: &str, command: &str) -> Reply {
        self.post("/cron/update", &form(&[("id", &id.to_string()), ("cronSet", cron_set), ("command", command)]))
    }

    #[track_caller]
    pub fn start_job(&self, id: u64) -> Value {
        self.get(&format!("/cron/start/{id}")).ok()
    }

    #[track_caller]
    pub fn stop_job(&self, id: u64) -> Value {
        self.get(&format!("/cron/stop/{id}")).ok()
    }

    #[track_caller]
    pub fn delete_job(&self, id: u64) -> Value {
        self.get(&format!("/cron/delete/{id}")).ok()
    }

    /// All jobs, as the list without parameters has them.
    #[track_caller]
    pub fn jobs(&self) -> Vec<Value> {
        let jobs = self.get("/cron/list").ok();
        jobs.as_array().expect("the list is an array").clone()
    }

    #[track_caller]
    pub fn job(&self, id: u64) -> Value {
        let jobs = self.jobs();
        jobs.iter().find(|job| job["id"] == id).unwrap_or_else(|| panic!("job {id} is not in {jobs:?}")).clone()
    }

    /// Whether the node takes changes. Asking adds an idle job.
    pub fn takes_changes(&self) -> bool {
        let form = form(&[("cronSet", IDLE), ("command", "true")]);
        self.try_post("/cron/add", &form).is_some_and(|reply| reply.status == 200)
    }

    #[track_caller]
    pub fn wait_takes_changes(&self) {
        super::wait_until(&format!("{} takes changes", self.address), || self.takes_changes());
    }
}

// Runs.
impl Api {
    /// Asks for a run now and gives its key.
    #[track_caller]
    pub fn run_job(&self, id: u64) -> String {
        let run = self.post(&format!("/cron/run/{id}"), "").ok();
        run["run_key"].as_str().expect("a run has a key").to_string()
    }

    /// Ends a run and gives the state that the answer tells.
    #[track_caller]
    pub fn kill_run(&self, run_key: &str) -> Value {
        self.post(&format!("/run/kill/{run_key}"), "").ok()["state"].clone()
    }

    /// The runs that `/run/list` shows.
    #[track_caller]
    pub fn runs(&self) -> Vec<Value> {
        self.get("/run/list").ok()["list"].as_array().expect("the list is an array").clone()
    }

    /// Waits until so many of the runs have this state; gives all of them.
    #[track_caller]
    pub fn wait_for_runs(&self, state: &str, count: usize) -> Vec<Value> {
        let has_state = |runs: &Vec<Value>| runs.iter().filter(|run| run["state"] == state).count() == count;
        wait_to_see(&format!("{count} runs that are {state}"), || self.runs(), has_state)
    }
}

// Commands.
impl Api {
    /// Runs each of these once (a command, and more of its job's form) and gives the rows in the same order.
    #[track_caller]
    pub fn run_each(&self, jobs: &[(&str, &str)]) -> Vec<Row> {
        let ids: Vec<u64> = jobs.iter().map(|(command, rest)| self.add_every_second(command, rest)).collect();
        let rows = ids.iter().map(|id| self.wait_for_first_row(*id)).collect();
        ids.iter().for_each(|id| drop(self.delete_job(*id)));
        rows
    }

    /// Runs the command once and gives the row.
    #[track_caller]
    pub fn run_once(&self, command: &str, rest: &str) -> Row {
        self.run_each(&[(command, rest)]).remove(0)
    }
}

// Rows of the log.
impl Api {
    /// Log rows, newest first; `query` is such as `cron_id=1`.
    #[track_caller]
    pub fn logs(&self, query: &str) -> Vec<Row> {
        let page = self.get(&format!("/log/list?limit=10000&{query}")).ok();
        page["list"].as_array().expect("list is an array").iter().cloned().map(Row).collect()
    }

    /// A job's rows, newest first.
    #[track_caller]
    pub fn rows(&self, id: u64) -> Vec<Row> {
        self.logs(&format!("cron_id={id}"))
    }

    /// A job's rows, where the node answers.
    pub fn try_rows(&self, id: u64) -> Option<Vec<Row>> {
        let reply = self.try_get(&format!("/log/list?limit=10000&cron_id={id}"))?;
        Some(reply.body["data"]["list"].as_array()?.iter().cloned().map(Row).collect())
    }

    /// A job's rows of this state, newest first.
    #[track_caller]
    pub fn rows_with(&self, id: u64, state: &str) -> Vec<Row> {
        self.rows(id).into_iter().filter(|row| row["state"] == state).collect()
    }

    /// Waits until the job has at least so many rows of this state; gives them, newest first.
    #[track_caller]
    pub fn wait_for_rows(&self, id: u64, state: &str, count: usize) -> Vec<Row> {
        let with_state = |rows: &[Row]| rows.iter().filter(|row| row["state"] == state).count();
        let what = format!("{count} rows of job {id} with the state {state}");
        let mut rows = wait_to_see(&what, || self.rows(id), |rows| with_state(rows) >= count);
        rows.retain(|row| row["state"] == state);
        rows
    }

    /// Waits until the job has a row of this state; gives the newest one.
    #[track_caller]
    pub fn wait_for_row(&self, id: u64, state: &str) -> Row {
        self.wait_for_rows(id, state, 1).remove(0)
    }

    /// Waits until the job has a row, whatever its state; gives the oldest one.
    #[track_caller]
    pub fn wait_for_first_row(&self, id: u64) -> Row {
        let mut rows = wait_to_see(&format!("a row of job {id}"), || self.rows(id), |rows| !rows.is_empty());
        rows.pop().expect("it is not empty")
    }

    /// Waits until the run has its row.
    #[track_caller]
    pub fn wait_for_row_of(&self, run_key: &str) -> Row {
        let is_it = |row: &Row| row["run_key"] == run_key;
        let has_it = |rows: &Vec<Row>| rows.iter().any(is_it);
        let rows = wait_to_see(&format!("the row of run {run_key}"), || self.logs(""), has_it);
        rows.into_iter().find(is_it).expect("it was seen")
    }

    /// Waits until each second from the first to the last has exactly one row of the job; gives all of its rows.
    #[track_caller]
    pub fn wait_for_one_row_each(&self, id: u64, first: i64, last: i64) -> Vec<Row> {
        let what = format!("one row of job {id} for each second from {first} to {last}");
        wait_to_see(&what, || self.rows(id), |rows| has_one_row_each(rows, first, last))
    }
}

pub fn has_one_row_each(rows: &[Row], first: i64, last: i64) -> bool {
    (first..=last).all(|second| rows.iter().filter(|row| row["time"] == second).count() == 1)
}
