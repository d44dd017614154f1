//! Tests of the API's requests and responses, a line a case.

use super::*;
use crate::model::access::{Level, Proof};
use crate::model::command::{Answer, JobDraft, JobList, ListedJob, RunOutput};
use crate::model::log_row::{LastRun, LogPage};
use crate::model::output::{OutputPart, OutputState};
use crate::model::status::RunStatus;
use crate::model::{Attempt, Job, RunState, Second};
use std::sync::Arc;

/// As `super::command`, for a caller who may do everything.
fn command(request: &Request) -> Result<Command, Response> {
    let caller = Caller { name: "boss".into(), level: Level::Admin, by: Proof::Token, token: None };
    super::command(request, &caller)
}

fn request(method: &str, target: &str, body: &str) -> Request {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Request {
        method: method.into(),
        path: path.into(),
        query: query.as_bytes().to_vec(),
        body: body.as_bytes().to_vec(),
        has_body: !body.is_empty(),
        ..Request::default()
    }
}

fn text(response: Response) -> String {
    String::from_utf8(response.body).unwrap()
}

fn draft() -> JobDraft {
    JobDraft::default().with("cron_set", "*/1 * * * * *").with("command", "php -v")
}

#[track_caller]
fn check(method: &str, target: &str, body: &str, expect: Command) {
    assert_eq!(command(&request(method, target, body)), Ok(expect));
}

#[track_caller]
fn refuse(method: &str, target: &str, body: &str, status: u16, words: &str) {
    let response = command(&request(method, target, body)).unwrap_err();
    let text = String::from_utf8(response.body).unwrap();
    assert_eq!(response.status, status, "{text}");
    assert!(text.starts_with(&format!("{{\"code\":{status},\"data\":null,\"message\":\"")), "{text}");
    assert!(text.contains(words), "{text} does not say {words:?}");
}

#[test]
fn the_older_systems_calls_are_understood() {
    check("GET", "/cron/list", "", Command::ListJobs(None));
    check("GET", "/cron/list?_=1", "", Command::ListJobs(None));
    check("GET", "/cron/stop/1538", "", Command::StopJob(JobId(1538)));
    check("GET", "/cron/start/1538", "", Command::StartJob(JobId(1538)));
    check("GET", "/cron/delete/1633", "", Command::DeleteJob(JobId(1633)));
    check("POST", "/cron/delete/1633", "", Command::DeleteJob(JobId(1633)));
    let body = "cronSet=*/1 * * * * *&command=php -v&remark=&stop=0&start_time=0&end_time=0&is_mutex=1";
    check("POST", "/cron/add", body, Command::AddJob(draft().with("is_mutex", true), None));
    let body = format!("id=1307&{body}");
    check("POST", "/cron/update", &body, Command::UpdateJob(JobId(1307), draft().with("is_mutex", true)));
}

#[test]
fn parameters_come_as_form_json_or_query() {
    let expect = Command::AddJob(draft().with("is_mutex", true).with("end_time", 9), None);
    check("POST", "/cron/add", "cron_set=*/1+*+*+*+*+*&command=php%20-v&is_mutex=true&end_time=9", expect.clone());
    check(
        "POST",
        "/cron/add",
        r#"{"cron_set":"*/1 * * * * *","command":"php -v","is_mutex":true,"end_time":9}"#,
        expect.clone(),
    );
    check(
        "POST",
        "/cron/add",
        r#" {"cronSet":"*/1 * * * * *","command":"php -v","is_mutex":"1","end_time":"9","remark":null}"#,
        expect.clone(),
    );
    check("POST", "/cron/add?cronSet=*/1%20*%20*%20*%20*%20*&is_mutex=1&end_time=9", "command=php -v", expect);
    let utf_8 = Command::AddJob(draft().with("command", "echo 你好 😀"), None);
    check("POST", "/cron/add", "cronSet=*/1 * * * * *&command=echo 你好 😀", utf_8.clone());
    check("POST", "/cron/add", "cronSet=*/1 * * * * *&command=echo%20%E4%BD%A0%E5%A5%BD%20%F0%9F%98%80", utf_8);
}

#[test]
fn the_log_filter_has_its_defaults_and_bounds() {
    let filter = LogFilter { page: 1, limit: 50, ..LogFilter::default() };
    check("GET", "/log/list", "", Command::ListLogs(filter.clone()));
    check("GET", "/log/list?cron_id=&search=&page=&limit=", "", Command::ListLogs(filter.clone()));
    let narrow = LogFilter {
        cron_id: Some(JobId(7)),
        search: Some("a%b".into()),
        dispatch_server: Some("127.0.0.1:9991".into()),
        run_server: Some("127.0.0.1:9992".into()),
        page: 3,
        limit: 10_000,
    };
    let target =
        "/log/list?cron_id=7&search=a%25b&dispatch_server=127.0.0.1:9991&run_server=127.0.0.1:9992&page=3&limit=10000";
    check("GET", target, "", Command::ListLogs(narrow));
    refuse("GET", "/log/list?limit=10001", "", 400, "limit: \\\"10001\\\" is not a whole number from 1 to 10000");
    refuse("GET", "/log/list?limit=0", "", 400, "limit");
    refuse("GET", "/log/list?page=0", "", 400, "page");
    refuse("GET", "/log/list?cron_id=abc", "", 400, "cron_id");
    refuse("POST", "/log/list", "", 405, "send GET");
}

#[test]
fn a_part_of_the_job_list_is_asked_for_by_page_limit_or_search() {
    let filter = JobFilter { search: None, page: 1, limit: 50 };
    check("GET", "/cron/list?page=&limit=&search=", "", Command::ListJobs(None));
    check("GET", "/cron/list?page=1", "", Command::ListJobs(Some(filter.clone())));
    check(
        "GET",
        "/cron/list?limit=10000&_=5",
        "",
        Command::ListJobs(Some(JobFilter { limit: 10_000, ..filter.clone() })),
    );
    let search = JobFilter { search: Some("100%_done".into()), page: 2, ..filter };
    check("GET", "/cron/list?search=100%25_done&page=2", "", Command::ListJobs(Some(search)));
    refuse("GET", "/cron/list?limit=10001", "", 400, "limit: \\\"10001\\\" is not a whole number from 1 to 10000");
    refuse("GET", "/cron/list?page=0", "", 400, "page");
    refuse("GET", "/cron/list?serach=x", "", 400, "serach: there is no such parameter");
    refuse("POST", "/cron/list", "", 405, "send GET");
}

#[test]
fn one_answer_names_all_mistakes() {
    refuse("POST", "/cron/add", "", 411, "Content-Length");
    refuse("POST", "/cron/add", "remark=x", 400, "cronSet: it is required");
    refuse("POST", "/cron/add?remark=x", "", 400, "command: it is required");
    refuse("GET", "/log/list?cron_idd=3", "", 400, "cron_idd: there is no such parameter");
    refuse("POST", "/cron/add", "cronSet=* * * * * *&command=   ", 400, "command: it is required");
    let add = |rest: &str| format!("cronSet=* * * * * *&command=x&{rest}");
    refuse(
        "POST",
        "/cron/add",
        &add("start_time=-1"),
        400,
        "start_time: \\\"-1\\\" is not a whole number from 0 to 253402300799",
    );
    refuse("POST", "/cron/add", &add("start_time=1.5"), 400, "start_time");
    refuse("POST", "/cron/add", &add("end_time=99999999999999999999"), 400, "end_time");
    refuse("POST", "/cron/add", &add("end_time=253402300800"), 400, "end_time");
    refuse("POST", "/cron/add", &add("start_time=5&end_time=5"), 400, "end_time: it must be after start_time");
    refuse("POST", "/cron/add", &add("is_mutex=2"), 400, "is_mutex: \\\"2\\\" is neither 0 nor 1");
    refuse("POST", "/cron/add", &add("stop=yes"), 400, "stop");
    refuse("POST", "/cron/add", &add("is_mutx=1"), 400, "is_mutx: there is no such parameter");
    refuse("POST", "/cron/add", &add("stop=0&stop=1"), 400, "stop: it is given twice");
    refuse("POST", "/cron/add", &add("cron_set=1 * * * * *"), 400, "cronSet: it is given twice");
    refuse("POST", "/cron/add", "cronSet=* * * * * *&command=a%00b", 400, "command: it has a NUL");
    refuse("POST", "/cron/add", "cronSet=* * * * * *&command=a%FFb", 400, "not UTF-8");
    refuse("POST", "/cron/add", "{\"cronSet\":", 400, "not a JSON object");
    refuse("POST", "/cron/add", "{\"command\":[1]}", 400, "command: a text");
    refuse("POST", "/cron/update", "cronSet=* * * * * *&command=x", 400, "id: it is required");
    refuse("POST", "/cron/update", "id=0&cronSet=* * * * * *&command=x", 400, "id");
    refuse("GET", "/cron/stop/abc", "", 400, "id: \\\"abc\\\"");
    refuse("GET", "/cron/stop/2147483648", "", 400, "id");
    refuse("GET", "/cron/stop", "", 404, "/cron/list");
    refuse("GET", "/nothing", "", 404, "there is no");
    refuse("GET", "/cron/add", "", 405, "send POST");
    refuse("PUT", "/cron/stop/1", "", 405, "PUT is not taken");
}

#[test]
fn texts_are_taken_up_to_their_length_in_characters() {
    let add = |chars: usize| format!("cronSet=* * * * * *&command={}", "中".repeat(chars));
    assert!(command(&request("POST", "/cron/add", &add(2048))).is_ok());
    refuse("POST", "/cron/add", &add(2049), 400, "command: it has 2049 characters, at most 2048");
    let remark = |chars: usize| format!("cronSet=* * * * * *&command=x&remark={}", "中".repeat(chars));
    assert!(command(&request("POST", "/cron/add", &remark(1024))).is_ok());
    refuse("POST", "/cron/add", &remark(1025), 400, "remark");
    let set = |chars: usize| format!("command=x&cronSet={}", "1".repeat(chars));
    assert!(command(&request("POST", "/cron/add", &set(128))).is_ok());
    refuse("POST", "/cron/add", &set(129), 400, "cronSet");
}

#[test]
fn a_job_is_shown_with_the_older_systems_fields_first() {
    let job = Job {
        id: JobId(1633),
        cron_set: "*/1 * * * * *".into(),
        command: "php -v".into(),
        is_mutex: true,
        ..Job::default()
    };
    let response = reply(&Ok(Answer::Job(job.into())));
    let expect = r#"{"code":200,"data":{"id":1633,"cron_set":"*/1 * * * * *","command":"php -v","remark":"","stop":false,"start_time":0,"end_time":0,"is_mutex":true,"lock_limit":0,"misfire":"all","on_lost":"skip","max_parallel":0,"timeout":0,"retry_times":0,"retry_delay":0,"run_as":"","work_dir":"","env":{},"shell":"","node":"","jitter":0},"message":"ok"}"#;
    assert_eq!(String::from_utf8(response.body).unwrap(), expect);
    assert_eq!(response.status, 200);
}

/// The example of an answer in docs/api.md is the answer to the first curl line above it.
#[test]
fn the_manual_shows_the_answer_to_an_added_job_as_it_is() {
    let form = "cronSet=*/1 * * * * *&command=date&remark=my first";
    let manual = include_str!("../../docs/api.md").replace('\n', "");
    assert!(manual.contains(&format!("curl http://127.0.0.1:9990/cron/add -d \"{form}\"")), "{form} is not there");
    let Ok(Command::AddJob(draft, _)) = command(&request("POST", "/cron/add", form)) else { panic!("{form}") };
    let mut job = Job { id: JobId(1), ..Job::default() };
    draft.apply(&mut job);
    let answer = text(reply(&Ok(Answer::Job(job.into()))));
    assert!(manual.contains(&answer), "docs/api.md does not show {answer}");
}

#[test]
fn a_listed_job_has_its_next_and_last_run_behind_its_own_fields() {
    let job = Arc::new(Job { id: JobId(7), ..Job::default() });
    let last = LastRun { state: Some("failed".into()), time: 1_700_000_000, use_time_ms: 45 };
    let ran =
        ListedJob { job: Arc::clone(&job), next_time: Some(Second(1_700_000_060)), last: Some(last), error: None };
    let never = ListedJob { job: Arc::clone(&job), next_time: None, last: None, error: None };
    let own = text(reply(&Ok(Answer::Job(job))));
    let own = own.strip_prefix(r#"{"code":200,"data":{"#).unwrap().strip_suffix(r#"},"message":"ok"}"#).unwrap();
    let ran_text =
        format!(r#"{{{own},"next_time":1700000060,"last_state":"failed","last_time":1700000000,"last_use_time":45}}"#);
    let never_text = format!(r#"{{{own},"next_time":null,"last_state":null,"last_time":null,"last_use_time":null}}"#);
    let whole = JobList { jobs: vec![ran.clone(), never], total: None };
    let expect = format!(r#"{{"code":200,"data":[{ran_text},{never_text}],"message":"ok"}}"#);
    assert_eq!(text(reply(&Ok(Answer::Jobs(whole)))), expect, "all of them are an array, as the older system has it");
    let page = JobList { jobs: vec![ran], total: Some(31) };
    let expect = format!(r#"{{"code":200,"data":{{"list":[{ran_text}],"total":31}},"message":"ok"}}"#);
    assert_eq!(text(reply(&Ok(Answer::Jobs(page)))), expect);
}

#[test]
fn an_empty_log_is_an_empty_list() {
    let response = reply(&Ok(Answer::Logs(LogPage::default())));
    assert_eq!(response.body, br#"{"code":200,"data":{"list":[],"total":0},"message":"ok"}"#);
}

#[test]
fn what_keeps_a_job_under_control_is_taken_and_checked() {
    let body = "cronSet=* * * * * *&command=x&misfire=once&on_lost=rerun&max_parallel=2&timeout=3&retry_times=4&retry_delay=5\
                &run_as=nobody&work_dir=/tmp&env={\"A\":\"b\"}&shell=/bin/bash&node=gpu&jitter=6";
    let expect = JobDraft::default()
        .with("cron_set", "* * * * * *")
        .with("command", "x")
        .with("misfire", "once")
        .with("on_lost", "rerun")
        .with("max_parallel", 2)
        .with("timeout", 3)
        .with("retry_times", 4)
        .with("retry_delay", 5)
        .with("run_as", "nobody")
        .with("work_dir", "/tmp")
        .with("env", "{\"A\":\"b\"}")
        .with("shell", "/bin/bash")
        .with("node", "gpu")
        .with("jitter", 6);
    check("POST", "/cron/add", body, Command::AddJob(expect, None));
    // In JSON the environment may be an object; an empty text clears a column.
    let json = r#"{"cronSet":"*/1 * * * * *","command":"php -v","env":{"A":"b"},"run_as":""}"#;
    let expect = draft().with("env", "{\"A\":\"b\"}").with("run_as", "");
    check("POST", "/cron/add", json, Command::AddJob(expect, None));
    let wrong = |rest: &str, words: &str| {
        refuse("POST", "/cron/add", &format!("cronSet=* * * * * *&command=x&{rest}"), 400, words);
    };
    wrong("misfire=never", "misfire: \\\"never\\\" is not one of all, once, skip");
    wrong("on_lost=1", "not one of skip, rerun");
    wrong("max_parallel=-1", "max_parallel");
    wrong("jitter=86401", "from 0 to 86400");
    wrong("work_dir=tmp", "work_dir: it is not an absolute path");
    wrong("shell=bash", "shell: it is not an absolute path");
    wrong("env=A", "env: a JSON object of texts");
    wrong("env={\"A\":1}", "env: a JSON object of texts");
    wrong("env={\"A=\":\"1\"}", "cannot be a variable");
    wrong("env={\"WING_X\":\"1\"}", "the daemon's own");
}

#[test]
fn an_output_is_asked_for_by_its_run_key() {
    let run = "7-1700000000-m3.1".parse().unwrap();
    let query = OutputQuery { run, attempt: None, from: 0, follow: false };
    check("GET", "/run/output/7-1700000000-m3.1", "", Command::ReadOutput(query));
    let target = "/run/output/7-1700000000-m3.1?from=9&attempt=2&follow=1";
    check("GET", target, "", Command::ReadOutput(OutputQuery { attempt: Some(2), from: 9, follow: true, ..query }));
    refuse("GET", "/run/output/7", "", 400, "a run key looks like");
    refuse("GET", "/run/output/7-1%0a", "", 400, "run_key");
    refuse("GET", "/run/output/7-1?from=-1", "", 400, "from");
    refuse("GET", "/run/output/7-1?attempt=x", "", 400, "attempt");
    refuse("GET", "/run/output/7-1?follow=2", "", 400, "follow");
    refuse("GET", "/run/output/7-1?form=1", "", 400, "form: there is no such parameter");
    refuse("POST", "/run/output/7-1", "", 405, "send GET");
    refuse("GET", "/run/output", "", 404, "/run/output/{run_key}");
    for path in ["/run/kill/1-2?x=1", "/cron/run/1?x=1", "/cluster/pause?x=1"] {
        refuse("POST", path, "", 400, "x: there is no such parameter; there are none");
    }
}

#[test]
fn an_output_is_shown_in_whole_characters() {
    let show = |bytes: &[u8], is_over: bool| {
        let attempt = Attempt { run: "7-100".parse().unwrap(), number: 1 };
        let bytes = bytes.to_vec();
        let next = 10 + bytes.len() as u64;
        let part = OutputPart { bytes, next, is_over, ..OutputPart::empty(RunStatus::Running, 10) };
        let response = reply(&Ok(Answer::Output(RunOutput { attempt, server: Server("a".into()), part })));
        let body: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
        (body["data"]["output"].as_str().unwrap().to_string(), body["data"]["next"].as_u64().unwrap())
    };
    assert_eq!(show("a中".as_bytes(), false), ("a中".into(), 14));
    assert_eq!(show(b"a\xe4\xb8", false), ("a".into(), 11));
    assert_eq!(show(b"\xff\xe4", false), ("\u{fffd}".into(), 11));
    assert_eq!(show(b"a\xff", false), ("a\u{fffd}".into(), 12), "this never becomes a character");
    assert_eq!(show(b"a\xe4\xb8", true), ("a\u{fffd}".into(), 13), "nothing comes after it");
    assert_eq!(show(b"", false), ("".into(), 10));
    let attempt = Attempt { run: "7-100".parse().unwrap(), number: 1 };
    let part = OutputPart { state: OutputState::Over(RunState::Failed), ..OutputPart::empty(RunStatus::Running, 3) };
    let response = reply(&Ok(Answer::Output(RunOutput { attempt, server: Server("a:1".into()), part })));
    let expect = r#"{"code":200,"data":{"run_key":"7-100","attempt":1,"server":"a:1","state":"failed","from":3,"next":3,"output":"","is_over":false},"message":"ok"}"#;
    assert_eq!(String::from_utf8(response.body).unwrap(), expect);
}

#[test]
fn every_call_and_every_field_of_a_job_is_in_the_manual() {
    let manual = include_str!("../../docs/api.md");
    for call in PATHS.split(", ") {
        assert!(manual.contains(&format!("| `{call}` |")), "docs/api.md does not list {call}");
        let mut headings = manual.lines().filter_map(|line| line.strip_prefix("## "));
        assert!(headings.any(|heading| heading.split(", ").any(|named| named == call)), "{call} has no section");
    }
    let job: serde_json::Value = serde_json::from_str(&text(reply(&Ok(Answer::Job(Job::default().into()))))).unwrap();
    for field in job["data"].as_object().unwrap().keys() {
        assert!(manual.contains(&format!("`{field}`")), "docs/api.md does not explain {field}");
    }
}
