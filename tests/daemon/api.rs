//! The older system's calls, field by field, and from when on a change counts.

use crate::support::api::{Api, Reply};
use crate::support::daemon::Node;
use crate::support::jobs::{EVERY_SECOND, encoded};
use crate::support::time::second;
use crate::support::wait_to_see;
use crate::support::witness::Witness;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use wing_crontab::core::jobs::schedule::jitter::offset_secs;
use wing_crontab::model::JobId;

#[test]
fn the_curl_lines_of_the_older_system_work() {
    let node = Node::started("");
    let api = &node.api;
    assert_eq!(api.get("/cron/list").ok(), json!([]));
    assert_eq!(api.get("/log/list").ok(), json!({"list": [], "total": 0}));
    let form = "cronSet=*/1 * * * * *&command=php -v&remark=&stop=0&start_time=0&end_time=0&is_mutex=1";
    let added = api.post("/cron/add", form).ok();
    let expect = |id: &serde_json::Value, stop: bool, command: &str| {
        json!({"id": id, "cron_set": "*/1 * * * * *", "command": command, "remark": "", "stop": stop, "start_time": 0,
               "end_time": 0, "is_mutex": true, "lock_limit": 0})
    };
    let id = &added["id"];
    assert_eq!(older_fields(&added), expect(id, false, "php -v"));
    let jobs = api.jobs();
    assert_eq!((jobs.len(), older_fields(&jobs[0])), (1, older_fields(&added)));
    let call = |action: &str| older_fields(&api.get(&format!("/cron/{action}/{id}")).ok());
    assert_eq!(call("stop"), expect(id, true, "php -v"));
    assert_eq!(call("stop"), expect(id, true, "php -v"), "a second stop is no error");
    assert_eq!(api.jobs()[0]["stop"], true);
    assert_eq!(call("start"), expect(id, false, "php -v"));
    let form = format!("id={id}&{}", form.replace("php -v", "php -m"));
    assert_eq!(older_fields(&api.post("/cron/update", &form).ok()), expect(id, false, "php -m"));
    assert_eq!(call("delete"), expect(id, false, "php -m"));
    assert_eq!(api.get("/cron/list").ok(), json!([]));
    api.get(&format!("/cron/delete/{id}")).refused(404, "there is no such job");
}

/// The fields that a job has in the older system.
fn older_fields(job: &Value) -> Value {
    let names = ["id", "cron_set", "command", "remark", "stop", "start_time", "end_time", "is_mutex", "lock_limit"];
    names.into_iter().map(|name| (name.to_string(), job[name].clone())).collect::<serde_json::Map<_, _>>().into()
}

#[test]
fn the_list_tells_when_a_job_runs_next_and_how_its_last_run_ended() {
    let node = Node::started("");
    let api = &node.api;
    let ended =
        [("ok", "sleep 0.1"), ("failed", "exit 3")].map(|(state, command)| (state, api.add_every_second(command, "")));
    ended.into_iter().for_each(|(state, id)| check_last_run(api, id, state));
}

#[track_caller]
fn check_last_run(api: &Api, id: u64, state: &str) {
    wait_to_see(&format!("job {id} with the last state {state}"), || api.job(id), |job| job["last_state"] == state);
    let before = second();
    let next = api.job(id)["next_time"].as_i64().expect("it runs every second");
    assert!((before + 1..=second() + 1).contains(&next), "{next} after {before}");
    api.stop_job(id);
    let (job, newest) = wait_to_see(
        "the job's last run is that of its newest row",
        || (api.job(id), api.rows(id).remove(0)),
        |(job, newest)| job["last_time"] == newest["time"],
    );
    assert_eq!((&job["last_state"], &job["last_use_time"]), (&newest["state"], &newest["use_time"]));
    assert_eq!(job["next_time"], Value::Null, "a stopped job has no next run");
}

#[test]
fn the_list_tells_no_last_run_of_a_job_that_never_ran() {
    let node = Node::started("");
    let api = &node.api;
    let now = second();
    let never = api.add_idle("true", "");
    let window = api.add_idle("true", &format!("end_time={}", now + 5));
    let nothing = json!({"last_state": null, "last_time": null, "last_use_time": null});
    for id in [never, window] {
        let job = api.job(id);
        nothing.as_object().unwrap().iter().for_each(|(name, value)| assert_eq!(job[name], *value));
        assert_eq!(job["next_time"].is_null(), id == window, "{job}");
    }
    let new_year = api.job(never)["next_time"].as_i64().unwrap();
    assert!(now < new_year && new_year % 86_400 == 0, "{new_year}");
}

#[test]
fn the_list_comes_by_page_and_by_search() {
    let node = Node::started("");
    let api = &node.api;
    let ids: Vec<u64> = (0..12).map(|at| api.add_idle(&format!("echo Job{at}%_"), "remark=备注")).collect();
    let of = |query: &str| {
        let page = api.get(&format!("/cron/list?{query}")).ok();
        let list = page["list"].as_array().unwrap().iter().map(|job| job["id"].as_u64().unwrap());
        (page["total"].as_u64().unwrap(), list.collect::<Vec<u64>>())
    };
    assert_eq!(api.jobs().len(), 12, "all of them, as an array");
    assert_eq!(of("page=1"), (12, ids.clone()));
    assert_eq!(of("limit=5"), (12, ids[..5].to_vec()));
    assert_eq!(of("page=3&limit=5"), (12, ids[10..].to_vec()));
    assert_eq!(of("page=4&limit=5"), (12, vec![]));
    assert_eq!(of(&format!("search={}", encoded("job11%_"))), (1, ids[11..].to_vec()));
    assert_eq!(of(&format!("search={}&limit=3&page=2", encoded("备注"))), (12, ids[3..6].to_vec()));
    assert_eq!(of(&format!("search={}", encoded("0 0 0 1 1 *"))).0, 12);
    assert!(of(&format!("search={}", ids[7])).1.contains(&ids[7]), "by its id");
    assert_eq!(of("search=Job11__"), (0, vec![]));
    api.get("/cron/list?limit=0").refused(400, "limit");
    api.get("/cron/list?serach=x").refused(400, "serach: there is no such parameter");
}

#[test]
fn jobs_with_jitter_run_at_seconds_of_their_own() {
    let node = Node::started("");
    let witness = node.witness("seen");
    let offset = |id: u64| i64::from(offset_secs(JobId(id as u32), 4));
    let ids: Vec<u64> = (0..5).map(|_| node.api.add("*/5 * * * * *", &witness.write("x"), "jitter=4")).collect();
    for job in node.api.jobs() {
        assert_eq!(job["next_time"].as_i64().unwrap() % 5, offset(job["id"].as_u64().unwrap()), "{job}");
    }
    let has_run = |attempts: &[String], id: u64| attempts.iter().any(|attempt| attempt.starts_with(&format!("{id}-")));
    wait_to_see(
        &format!("a run of each of the jobs {ids:?}"),
        || witness.attempts("x"),
        |attempts| ids.iter().all(|id| has_run(attempts, *id)),
    );
    for seen in witness.read() {
        let id = seen.attempt.split_once('-').unwrap().0.parse().unwrap();
        assert_eq!(seen.scheduled_at % 5, offset(id), "{seen:?}");
    }
    let spread: BTreeSet<i64> = ids.iter().map(|id| offset(*id)).collect();
    assert!(3 <= spread.len(), "{spread:?}");
}

#[test]
fn bad_input_is_refused_with_its_reason_and_changes_nothing() {
    let node = Node::started("");
    let api = &node.api;
    let id = api.add_idle("true", "remark=一&is_mutex=1");
    let before = api.get("/cron/list").ok();
    let add = |form: &str| api.post("/cron/add", form);
    add("cronSet=99 * * * * *&command=x").refused(400, "cronSet: second: 99 is beyond 59");
    add("cronSet=0 0 0 30 2 *&command=x").refused(400, "cronSet: day-of-month: it can never match");
    add("cronSet=* * * * *&command=x").refused(400, "six fields");
    add("cronSet=* * * * * *").refused(400, "command: it is required");
    add("cronSet=* * * * * *&command=x&is_mutex=2").refused(400, "is_mutex");
    add("cronSet=* * * * * *&command=x&start_time=5&end_time=4").refused(400, "end_time");
    add(&format!("cronSet=* * * * * *&command={}", "x".repeat(2_049))).refused(400, "at most 2048");
    api.post("/cron/update", &format!("id={}&cronSet=* * * * * *&command=x", id + 1)).refused(404, "no such job");
    api.post("/cron/update", &format!("id={id}&cronSet=* * * * * FRI-MON&command=x")).refused(400, "day-of-week");
    for action in ["stop", "start", "delete"] {
        api.get(&format!("/cron/{action}/{}", id + 1)).refused(404, "no such job");
        api.get(&format!("/cron/{action}/abc")).refused(400, "abc");
    }
    api.get("/cron/add").refused(405, "POST");
    api.get("/none").refused(404, "/cron/list");
    api.get("/log/list?limit=10001").refused(400, "limit");
    assert_eq!(api.get("/cron/list").ok(), before);
}

#[test]
fn every_form_of_parameters_is_taken_and_texts_come_back_as_they_were() {
    let node = Node::started("");
    let api = &node.api;
    let command = "echo 'a&b=c%d+e' \"你好 😀\" \\ $HOME; printf '%s\\n' '\\'";
    let body =
        json!({"cron_set": "0 0 0 1 1 *", "command": command, "remark": "备注", "is_mutex": true, "lock_limit": 7});
    let id = api.post("/cron/add", &body.to_string()).ok()["id"].as_u64().unwrap();
    let job = api.jobs()[0].clone();
    assert_eq!((&job["command"], &job["remark"], &job["lock_limit"]), (&json!(command), &json!("备注"), &json!(7)));
    let other = api.add_idle(command, "");
    assert_eq!(api.jobs()[1]["command"], command, "through a form it is the same");
    let updated = api.post(&format!("/cron/update?id={id}"), "cronSet=@daily&command=true").ok();
    assert_eq!(
        (&updated["cron_set"], &updated["remark"], &updated["is_mutex"]),
        (&json!("@daily"), &json!(""), &json!(false))
    );
    assert_eq!(updated["lock_limit"], 7, "a field that the older system's clients do not send is kept");
    assert!(id < other);
    // A POST without a body, as curl -X POST sends it: its parameters are in its URL.
    let bare =
        |target: &str| crate::http::ask(&node, format!("POST {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
    assert!(bare("/cron/add?cronSet=@daily&command=true").contains("\"cron_set\":\"@daily\""));
    assert!(bare(&format!("/cron/stop/{id}")).contains("\"stop\":true"));
}

#[test]
fn the_type_of_a_body_decides_how_it_is_read() {
    let node = Node::started("");
    let bom = format!("\u{feff}{BODY_JSON}");
    for (kind, body) in [
        (FORM, BODY_FORM),
        ("Application/X-WWW-Form-Urlencoded; charset=UTF-8", BODY_FORM),
        (JSON, BODY_JSON),
        (JSON, &bom),
        ("application/json;charset=utf-8", BODY_JSON),
        ("application/vnd.api+json", BODY_JSON),
        // curl -d sends everything with the type of a form.
        (FORM, BODY_JSON),
    ] {
        assert_eq!(post_of(&node, kind, body).ok()["command"], "{ true; }", "{kind}");
    }
    let without_type = |body: &str| {
        let head = format!("POST /cron/add HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
        crate::http::ask(&node, format!("{head}{body}").as_bytes())
    };
    for body in [BODY_FORM, BODY_JSON] {
        assert!(without_type(body).contains("\"code\":200"), "without a type it is read as curl's form is: {body}");
    }
    let reply = post_of(&node, "multipart/form-data", "");
    assert!(reply.message().contains("required"), "an empty body needs no reader: {}", reply.body);
}

const BODY_FORM: &str = "cronSet=@yearly&command=%7B+true%3B+%7D";
const BODY_JSON: &str = r#"{"cronSet":"@yearly","command":"{ true; }"}"#;
const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

fn post_of(node: &Node, kind: &str, body: &str) -> Reply {
    node.api.post_of(kind, "/cron/add", body.as_bytes())
}

#[test]
fn a_body_that_is_not_what_its_type_says_is_refused_with_the_reason() {
    let node = Node::started("");
    let count = || node.api.jobs().len();
    let before = count();
    for (kind, body, status, words) in [
        (JSON, BODY_FORM, 400, "the body is not JSON"),
        (JSON, "[{}]", 400, "the body is a JSON array; an object of parameters is expected"),
        (JSON, "\"text\"", 400, "the body is a JSON text; an object of parameters is expected"),
        (JSON, "{\"cronSet\":", 400, "the body is not JSON"),
        (FORM, "{\"cronSet\":", 400, "the body is no form, and not a JSON object"),
        (FORM, "{x}=1&cronSet=@yearly&command=true", 400, "the body is no form, and not a JSON object"),
        (
            "multipart/form-data; boundary=x",
            "--x\r\n",
            415,
            "multipart/form-data is not read here; send application/x-www-form",
        ),
        ("text/plain;charset=UTF-8", BODY_JSON, 415, "text/plain is not read here"),
        ("application/xml", "<a/>", 415, "application/xml is not read here"),
    ] {
        post_of(&node, kind, body).refused(status, words);
    }
    assert_eq!(count(), before, "nothing was added");
}

#[test]
fn a_whole_number_is_one_however_json_writes_it() {
    let node = Node::started("");
    let body = |limit: &str| format!(r#"{{"cronSet":"@yearly","command":"true","lock_limit":{limit},"is_mutex":1.0}}"#);
    for limit in ["100", "100.0", "1e2", "\"100\""] {
        let job = node.api.post_of("application/json", "/cron/add", body(limit).as_bytes()).ok();
        assert_eq!((&job["lock_limit"], &job["is_mutex"]), (&json!(100), &json!(true)), "{limit}");
    }
    for limit in ["100.5", "-1.0", "1e99", "[100]"] {
        node.api.post_of("application/json", "/cron/add", body(limit).as_bytes()).refused(400, "lock_limit: ");
    }
}

#[test]
fn an_update_counts_once_it_is_answered() {
    let node = Node::started("");
    let witness = node.witness("seen");
    let api = &node.api;
    let id = api.add_every_second(&witness.write("old"), "");
    witness.wait_count("old", 2);
    api.update(id, EVERY_SECOND, &witness.write("new")).ok();
    let old = witness.count("old");
    witness.wait_count("new", 2);
    assert_eq!(witness.count("old"), old, "no run of the old definition starts after the answer");
    let (last_old, first_new) = (*witness.seconds("old").last().unwrap(), witness.seconds("new")[0]);
    assert!(last_old < first_new && first_new <= last_old + 2, "{last_old} {first_new}");
    witness.attempts("new");
}

#[test]
fn a_stop_a_start_and_a_delete_count_once_they_are_answered() {
    let node = Node::started("");
    let witness = node.witness("seen");
    let api = &node.api;
    let id = api.add_every_second(&witness.write("x"), "");
    witness.wait_count("x", 2);
    api.stop_job(id);
    let stopped_at = witness.read().len();
    let other = node.witness("other");
    let clock = api.add_every_second(&other.write("tick"), "");
    other.wait_count("tick", 3);
    assert_eq!(witness.read().len(), stopped_at, "no run starts after stop was answered");
    api.start_job(id);
    witness.wait_more("x", 1);
    api.delete_job(id);
    let deleted_at = witness.read().len();
    other.wait_more("tick", 3);
    assert_eq!(witness.read().len(), deleted_at, "no run starts after delete was answered");
    api.delete_job(clock);
    witness.attempts("x");
    other.attempts("tick");
}

#[test]
fn a_window_may_lie_beyond_2038() {
    // 2100-01-01, and the last second of the year 9999.
    const LATE: i64 = 4_102_444_800;
    const LAST: i64 = 253_402_300_799;
    let node = Node::started("");
    let later = node.api.add("TZ=UTC 0 0 0 * * *", "true", &format!("start_time={LATE}&end_time={LAST}"));
    let mut job = node.api.jobs()[0].clone();
    assert_eq!(job["id"], later);
    assert_eq!(
        [&job["start_time"], &job["end_time"], &job["next_time"]],
        [LATE, LAST, LATE].map(Value::from).each_ref()
    );
    let form = format!("id={later}&cronSet=* * * * * *&command=true&end_time={LAST}");
    node.api.post("/cron/update", &form).ok();
    node.api.wait_for_rows(later, "ok", 1);
    job = node.api.jobs()[0].clone();
    assert_eq!(job["end_time"], LAST);
    let beyond = format!("cronSet=* * * * * *&command=true&end_time={}", LAST + 1);
    node.api.post("/cron/add", &beyond).refused(400, "end_time");
}

#[test]
fn a_job_runs_only_in_its_window() {
    let node = Node::started("");
    let api = &node.api;
    let [both, from, until, over] = ["both", "from", "until", "over"].map(|name| node.witness(name));
    let now = second();
    api.add_every_second(&both.write("x"), &format!("start_time={}&end_time={}", now + 3, now + 5));
    api.add_every_second(&from.write("x"), &format!("start_time={}", now + 3));
    api.add_every_second(&until.write("x"), &format!("end_time={}", now + 5));
    api.add_every_second(&over.write("x"), &format!("end_time={}", now - 5));
    from.wait_for_second(now + 7);
    let seconds = |witness: &Witness| witness.read().iter().map(|seen| seen.scheduled_at - now).collect::<Vec<_>>();
    assert_eq!(seconds(&both), [3, 4]);
    assert_eq!(seconds(&from)[..3], [3, 4, 5]);
    assert!(seconds(&until).iter().all(|second| *second < 5) && seconds(&until).contains(&4));
    assert!(seconds(&over).is_empty());
}

#[test]
fn rows_written_by_hand_are_taken_up_by_a_reload_and_at_a_restart() {
    let mut node = Node::started("");
    let [reloaded, restarted] = ["reloaded", "restarted"].map(|name| node.witness(name));
    let insert = |witness: &Witness| {
        let database = node.database();
        let sql = "INSERT INTO cron (cron_set, command) VALUES ('* * * * * *', ?)";
        database.execute(sql, [witness.write("x")]).unwrap();
        database.execute("INSERT INTO cron (cron_set, command) VALUES ('77 * * * * *', 'never')", []).unwrap();
    };
    insert(&reloaded);
    node.signal(rustix::process::Signal::HUP);
    node.wait_said("reloaded: 2 jobs changed or new, 0 gone");
    reloaded.wait_count("x", 1);
    assert!(node.said().contains("job 2: cron_set: second: 77 is beyond 59"), "{}", node.said());
    insert(&restarted);
    assert!(node.stop().success());
    node.start();
    restarted.wait_count("x", 1);
    assert_eq!(node.api.jobs().len(), 4);
}

#[test]
fn a_row_whose_schedule_cannot_be_read_says_why_in_the_list() {
    let mut node = Node::started("");
    let good = node.api.add_idle("true", "");
    assert!(node.stop().success());
    let database = node.database();
    for cron_set in ["77 * * * * *", "0 0 0 30 2 *"] {
        database.execute("INSERT INTO cron (cron_set, command) VALUES (?, 'by hand')", [cron_set]).unwrap();
    }
    drop(database);
    node.start();
    let errors =
        |jobs: &Value| jobs.as_array().unwrap().iter().map(|job| job.get("error").cloned()).collect::<Vec<_>>();
    let why = ["cron_set: second: 77 is beyond 59", "cron_set: day-of-month: it can never match"];
    for (query, has_good) in [("", true), ("?page=1", true), ("?search=by+hand", false)] {
        let list = node.api.get(&format!("/cron/list{query}")).ok();
        let errors = errors(list.get("list").unwrap_or(&list));
        let (first, bad) = errors.split_at(usize::from(has_good));
        assert!(first.iter().all(Option::is_none), "a job whose schedule is right has no error");
        let says = |(error, why): (&Option<Value>, &&str)| error.as_ref().unwrap().as_str().unwrap().starts_with(why);
        assert!(bad.len() == 2 && bad.iter().zip(&why).all(says), "{query}: {errors:?}");
    }
    let id = good + 1;
    let updated = node.api.post("/cron/update", &format!("id={id}&cronSet=@daily&command=true")).ok();
    assert_eq!(updated["cron_set"], "@daily");
    let list = node.api.get("/cron/list").ok();
    assert!(
        list[1].get("error").is_none() && list[1]["next_time"].is_i64() && list[2].get("error").is_some(),
        "{list}"
    );
}
