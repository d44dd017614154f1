//! The seed's calls, field by field, and when they hold.

use crate::support::daemon::Node;
use crate::support::wait_until;
use crate::support::witness::Witness;
use serde_json::json;

#[test]
fn the_seeds_own_curl_lines_work() {
    let node = Node::started("");
    let api = &node.api;
    assert_eq!(api.get("/cron/list").ok(), json!([]));
    assert_eq!(api.get("/log/list").ok(), json!({"list": [], "total": 0}));
    let form = "cronSet=*/1 * * * * *&command=php -v&remark=&stop=0&start_time=0&end_time=0&is_mutex=1";
    let added = api.post("/cron/add", form).ok();
    let expect = |id: &serde_json::Value, stop: bool, command: &str| {
        json!({"id": id, "cron_set": "*/1 * * * * *", "command": command, "remark": "", "stop": stop, "start_time": 0,
               "end_time": 0, "is_mutex": true, "lock_limit": 0, "misfire": "all", "on_lost": "skip", "max_parallel": 0,
               "timeout": 0, "retry_times": 0, "retry_delay": 0, "run_as": "", "work_dir": "", "env": {}, "shell": "",
               "node": "", "jitter": 0})
    };
    let id = &added["id"];
    assert_eq!(added, expect(id, false, "php -v"));
    assert_eq!(api.get("/cron/list").ok(), json!([added]));
    assert_eq!(api.get(&format!("/cron/stop/{id}")).ok(), expect(id, true, "php -v"));
    assert_eq!(api.get(&format!("/cron/stop/{id}")).ok(), expect(id, true, "php -v"), "again is no mistake");
    assert_eq!(api.get("/cron/list").ok()[0]["stop"], true);
    assert_eq!(api.get(&format!("/cron/start/{id}")).ok(), expect(id, false, "php -v"));
    let form = format!("id={id}&{}", form.replace("php -v", "php -m"));
    assert_eq!(api.post("/cron/update", &form).ok(), expect(id, false, "php -m"));
    assert_eq!(api.get(&format!("/cron/delete/{id}")).ok(), expect(id, false, "php -m"));
    assert_eq!(api.get("/cron/list").ok(), json!([]));
    api.get(&format!("/cron/delete/{id}")).refused(404, "there is no such job");
}

#[test]
fn bad_input_is_refused_with_its_reason_and_changes_nothing() {
    let node = Node::started("");
    let api = &node.api;
    let id = api.add("0 0 0 1 1 *", "true", "remark=一&is_mutex=1");
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
    let job = api.get("/cron/list").ok()[0].clone();
    assert_eq!((&job["command"], &job["remark"], &job["lock_limit"]), (&json!(command), &json!("备注"), &json!(7)));
    let second = api.add("0 0 0 1 1 *", command, "");
    assert_eq!(api.get("/cron/list").ok()[1]["command"], command, "through a form it is the same");
    let updated = api.post(&format!("/cron/update?id={id}"), "cronSet=@daily&command=true").ok();
    assert_eq!(
        (&updated["cron_set"], &updated["remark"], &updated["is_mutex"]),
        (&json!("@daily"), &json!(""), &json!(false))
    );
    assert_eq!(updated["lock_limit"], 7, "what the older system's clients do not know is kept");
    assert!(id < second);
    // A POST without a body, as curl -X POST sends it: all that it says stands in its URL.
    let bare = |target: &str| crate::http::ask(&node, format!("POST {target} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
    assert!(bare("/cron/add?cronSet=@daily&command=true").contains("\"cron_set\":\"@daily\""));
    assert!(bare(&format!("/cron/stop/{id}")).contains("\"stop\":true"));
}

#[test]
fn a_change_holds_once_it_is_answered() {
    let node = Node::started("");
    let witness = Witness::new(node.folder.path(), "seen");
    let api = &node.api;
    let id = api.add("* * * * * *", &witness.write("old"), "");
    wait_until("the job runs", || witness.count("old") >= 2);
    api.post("/cron/update", &format!("id={id}&cronSet=* * * * * *&command={}", encoded(&witness.write("new")))).ok();
    let old = witness.count("old");
    wait_until("the new definition runs", || witness.count("new") >= 2);
    assert_eq!(witness.count("old"), old, "no run of the old definition starts after the answer");
    let (first_new, last_old) = {
        let seen = witness.read();
        let at =
            |word: &str| seen.iter().filter(|seen| seen.word == word).map(|seen| seen.scheduled_at).collect::<Vec<_>>();
        (at("new")[0], *at("old").last().unwrap())
    };
    assert!(last_old < first_new && first_new <= last_old + 2, "{last_old} {first_new}");

    api.get(&format!("/cron/stop/{id}")).ok();
    let stopped_at = witness.read().len();
    let other = Witness::new(node.folder.path(), "other");
    let clock = api.add("* * * * * *", &other.write("tick"), "");
    wait_until("two seconds pass", || other.count("tick") >= 3);
    assert_eq!(witness.read().len(), stopped_at, "no run starts after stop was answered");
    api.get(&format!("/cron/start/{id}")).ok();
    wait_until("it runs again", || stopped_at < witness.read().len());
    api.get(&format!("/cron/delete/{id}")).ok();
    let deleted_at = witness.read().len();
    let ticks = other.count("tick");
    wait_until("two seconds pass", || other.count("tick") >= ticks + 3);
    assert_eq!(witness.read().len(), deleted_at);
    api.get(&format!("/cron/delete/{clock}")).ok();
    witness.attempts("new");
    other.attempts("tick");
}

#[test]
fn a_job_runs_only_in_its_window() {
    let node = Node::started("");
    let api = &node.api;
    let [both, from, until, over] =
        ["both", "from", "until", "over"].map(|name| Witness::new(node.folder.path(), name));
    let now = wing_crontab::worker::clock::now().wall.second().0;
    api.add("* * * * * *", &both.write("x"), &format!("start_time={}&end_time={}", now + 3, now + 5));
    api.add("* * * * * *", &from.write("x"), &format!("start_time={}", now + 3));
    api.add("* * * * * *", &until.write("x"), &format!("end_time={}", now + 5));
    api.add("* * * * * *", &over.write("x"), &format!("end_time={}", now - 5));
    wait_until("the windows are over", || from.read().iter().any(|seen| now + 7 <= seen.scheduled_at));
    let seconds = |witness: &Witness| witness.read().iter().map(|seen| seen.scheduled_at - now).collect::<Vec<_>>();
    assert_eq!(seconds(&both), [3, 4]);
    assert_eq!(seconds(&from)[..3], [3, 4, 5]);
    assert!(seconds(&until).iter().all(|second| *second < 5) && seconds(&until).contains(&4));
    assert!(seconds(&over).is_empty());
}

#[test]
fn rows_written_by_hand_are_taken_up_by_a_reload_and_at_a_restart() {
    let mut node = Node::started("");
    let [reloaded, restarted] = ["reloaded", "restarted"].map(|name| Witness::new(node.folder.path(), name));
    let insert = |witness: &Witness| {
        let database = rusqlite::Connection::open(node.path("data/wing-crontab.db")).unwrap();
        database.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
        let sql = "INSERT INTO cron (cron_set, command) VALUES ('* * * * * *', ?)";
        database.execute(sql, [witness.write("x")]).unwrap();
        database.execute("INSERT INTO cron (cron_set, command) VALUES ('77 * * * * *', 'never')", []).unwrap();
    };
    insert(&reloaded);
    node.signal(rustix::process::Signal::HUP);
    node.wait_said("reloaded: 2 jobs changed or new, 0 gone");
    wait_until("the row runs", || reloaded.count("x") > 0);
    assert!(node.said().contains("job 2: cron_set: second: 77 is beyond 59"), "{}", node.said());
    insert(&restarted);
    assert!(node.stop().success());
    node.start();
    wait_until("the other row runs", || restarted.count("x") > 0);
    assert_eq!(node.api.get("/cron/list").ok().as_array().unwrap().len(), 4);
}

/// As a form's value.
pub fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
