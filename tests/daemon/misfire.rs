//! Seconds that pass while the daemon is stopped or away: each has one outcome, by the policy of its job.

use crate::support::daemon::{Node, send_signal};
use crate::support::wait_until;
use crate::support::witness::{Seen, Witness};
use rustix::process::Signal;
use serde_json::Value;

/// A job of a policy, and what its runs wrote down.
struct Policy {
    id: u64,
    witness: Witness,
}

/// The seconds that surely passed unhandled. A tick is taken a moment ahead, so the first second behind the stop may have
/// been; and with the last one the daemon may be in time.
pub struct Away {
    pub first: i64,
    pub last: i64,
}

fn now() -> i64 {
    wing_crontab::worker::clock::now().wall.second().0
}

fn add(node: &Node, name: &str, misfire: &str) -> Policy {
    let witness = Witness::new(node.folder.path(), name);
    let id = node.api.add("* * * * * *", &witness.write("x"), misfire);
    wait_until("it runs", || witness.count("x") >= 2);
    Policy { id, witness }
}

fn pass(seconds: i64) {
    let from = now();
    wait_until("seconds pass", || from + seconds <= now());
}

/// Stops guardian and daemon, both at the mercy of nobody, for so long.
pub fn stop_for(node: &Node, seconds: i64, meanwhile: impl FnOnce()) -> Away {
    let pids = [node.guardian_pid(), node.daemon_pid()];
    pids.into_iter().for_each(|pid| send_signal(Signal::STOP, pid));
    let is_stopped = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.starts_with('T')
    };
    wait_until("both are stopped", || pids.iter().all(|pid| is_stopped(*pid)));
    let from = now();
    meanwhile();
    pass(seconds);
    let away = Away { first: from + 2, last: now() - 1 };
    pids.into_iter().rev().for_each(|pid| send_signal(Signal::CONT, pid));
    away
}

/// Kills both, and starts anew after so long.
fn kill_for(node: &mut Node, seconds: i64) -> Away {
    node.kill_whole();
    let from = now();
    pass(seconds);
    let away = Away { first: from + 2, last: now() - 1 };
    node.start();
    away
}

/// What the job's rows say of its seconds, oldest first: every second from the first to the last has exactly one.
#[track_caller]
fn rows(node: &Node, policy: &Policy) -> Vec<Value> {
    node.api.get(&format!("/cron/stop/{}", policy.id)).ok();
    let last = policy.witness.read().iter().map(|seen| seen.scheduled_at).max().unwrap();
    let mut rows = Vec::new();
    wait_until("every second has its row", || {
        rows = node.api.logs(&format!("cron_id={}", policy.id));
        rows.sort_by_key(|row| row["time"].as_i64());
        let first = rows[0]["time"].as_i64().unwrap();
        (first..=last).all(|second| rows.iter().any(|row| row["time"] == second))
    });
    let seconds: Vec<i64> = rows.iter().map(|row| row["time"].as_i64().unwrap()).collect();
    assert!(seconds.windows(2).all(|pair| pair[1] == pair[0] + 1), "{seconds:?}");
    let ran = policy.witness.attempts("x");
    // Of one that ran when both were killed nobody can say how far it came.
    for row in rows.iter().filter(|row| row["state"] != "lost") {
        let attempt = format!("{}#1", row["run_key"].as_str().unwrap());
        assert!(ran.contains(&attempt) != (row["state"] == "missed"), "{row}, {ran:?}");
    }
    rows
}

fn within<'a>(rows: &'a [Value], away: &Away) -> Vec<&'a Value> {
    let is_within = |row: &&Value| (away.first..=away.last).contains(&row["time"].as_i64().unwrap());
    rows.iter().filter(is_within).collect()
}

fn ran_at(policy: &Policy, second: i64) -> Seen {
    policy.witness.read().into_iter().find(|seen| seen.scheduled_at == second).unwrap()
}

#[track_caller]
fn check_missed(row: &Value, why: &str) {
    let expect =
        format!("[missed: 1 run due from {0} to {0} (unix seconds), not handled in time: {why}]\n", row["time"]);
    assert_eq!(row["output"], expect);
}

/// The three policies over one gap within the grace.
fn check_policies(node: &mut Node, leave: impl FnOnce(&mut Node) -> Away) {
    let [all, once, skip] = ["all", "once", "skip"].map(|name| add(node, name, &format!("misfire={name}")));
    let away = leave(node);
    assert!(away.first + 2 <= away.last, "the gap is long enough to tell");
    let back = |policy: &Policy| policy.witness.read().iter().any(|seen| away.last + 4 <= seen.scheduled_at);
    wait_until("they run again", || [&all, &once, &skip].into_iter().all(back));

    let late = rows(node, &all);
    for row in within(&late, &away) {
        assert_eq!(row["state"], "ok", "{row}");
        let second = row["time"].as_i64().unwrap();
        assert!(i128::from(away.last) * 1_000_000_000 < ran_at(&all, second).at_ns, "late, for nobody was there");
    }
    let starts: Vec<i64> = within(&late, &away).iter().map(|row| row["start_time"].as_i64().unwrap()).collect();
    assert!(starts.is_sorted(), "the oldest first: {starts:?}");

    let mut one = rows(node, &once).into_iter().filter(|row| away.first <= row["time"].as_i64().unwrap());
    let the_one = one.find(|row| row["state"] != "missed").unwrap();
    let second = the_one["time"].as_i64().unwrap();
    assert!(away.last <= second, "all before the last are missed, {second} ran");
    assert!(i128::from(second + 1) * 1_000_000_000 <= ran_at(&once, second).at_ns, "and the last one runs, late");
    let missed: Vec<Value> = rows(node, &once).into_iter().filter(|row| row["state"] == "missed").collect();
    missed.iter().for_each(|row| check_missed(row, "a later one runs for all of them (misfire=once)"));

    let none = rows(node, &skip);
    within(&none, &away).iter().for_each(|row| assert_eq!(row["state"], "missed", "{row}"));
    let missed = none.iter().filter(|row| row["state"] == "missed");
    missed.for_each(|row| check_missed(row, "none is run late (misfire=skip)"));
}

#[test]
fn seconds_in_which_the_daemon_was_stopped_run_all_once_or_not() {
    check_policies(&mut Node::started(""), |node| stop_for(node, 5, || ()));
}

#[test]
fn seconds_in_which_no_daemon_was_there_run_all_once_or_not() {
    check_policies(&mut Node::started(""), |node| kill_for(node, 5));
}

#[test]
fn beyond_the_grace_there_is_one_row_per_job_and_gap_whatever_its_policy() {
    let mut node = Node::started("misfire_grace = 2\n");
    let policies = ["all", "once", "skip"].map(|name| add(&node, name, &format!("misfire={name}")));
    let away = kill_for(&mut node, 8);
    for policy in &policies {
        wait_until("it runs again", || policy.witness.read().iter().any(|seen| away.last + 4 <= seen.scheduled_at));
        node.api.get(&format!("/cron/stop/{}", policy.id)).ok();
        let rows = node.api.logs_with(policy.id, "missed");
        let of_gap: Vec<&Value> =
            rows.iter().filter(|row| row["output"].as_str().unwrap().contains("misfire_grace")).collect();
        assert_eq!(of_gap.len(), 1, "{rows:?}");
        let last = of_gap[0]["time"].as_i64().unwrap();
        let text = of_gap[0]["output"].as_str().unwrap();
        let words: Vec<i64> = text.split(' ').filter_map(|word| word.parse().ok()).collect();
        let [count, first, until] = words[..] else { panic!("{text}") };
        assert_eq!((until, count), (last, last - first + 1), "{text}");
        assert!(first <= away.first && away.last - 4 <= last, "{text}, away from {} to {}", away.first, away.last);
        let attempts = policy.witness.attempts("x");
        assert!((first..=last).all(|second| !attempts.contains(&format!("{}-{second}#1", policy.id))), "{attempts:?}");
    }
}

#[test]
fn a_job_that_was_added_while_the_daemon_stood_still_has_no_run_for_the_time_before() {
    let node = Node::started("");
    let old = add(&node, "old", "");
    let (api, witness) = (node.api.clone(), Witness::new(node.folder.path(), "new"));
    let command = witness.write("x");
    let mut adding = None;
    let away = stop_for(&node, 4, || adding = Some(std::thread::spawn(move || api.add("* * * * * *", &command, ""))));
    let id = adding.unwrap().join().unwrap();
    wait_until("both run", || {
        [&old.witness, &witness]
            .iter()
            .all(|witness| witness.read().iter().any(|seen| away.last + 4 <= seen.scheduled_at))
    });
    rows(&node, &old);
    let new = Policy { id, witness };
    let first = rows(&node, &new)[0]["time"].as_i64().unwrap();
    assert!(away.last < first, "first {first}, away from {} to {}", away.first, away.last);
}
