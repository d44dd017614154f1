//! Seconds that pass while the daemon is stopped or gone: each has one outcome, by the misfire policy of its job.

use crate::support::daemon::Node;
use crate::support::row::Row;
use crate::support::time::{check_gapless, pass, second};
use crate::support::witness::{Seen, Witness};

/// A job of every second with a misfire policy, and what its runs wrote down.
struct Policy {
    id: u64,
    witness: Witness,
}

/// The seconds that certainly passed without being handled. The daemon takes a tick ahead of its second, so it may have
/// handled the second after its stop; and it may be in time for the second in which it goes on.
pub struct Away {
    pub first: i64,
    pub last: i64,
}

fn add(node: &Node, name: &str, misfire: &str) -> Policy {
    let witness = node.witness(name);
    let id = node.api.add_every_second(&witness.write("x"), misfire);
    witness.wait_count("x", 2);
    Policy { id, witness }
}

/// Lets guardian and daemon stand still for so long; `meanwhile` is done at the beginning.
pub fn stop_for(node: &Node, secs: u64, meanwhile: impl FnOnce()) -> Away {
    node.standing_still(|| away_for(secs, meanwhile))
}

/// Kills guardian and daemon, and starts them again after so long.
fn kill_for(node: &mut Node, secs: u64) -> Away {
    node.kill_whole();
    let away = away_for(secs, || ());
    node.start();
    away
}

fn away_for(secs: u64, meanwhile: impl FnOnce()) -> Away {
    let from = second();
    meanwhile();
    pass(secs);
    Away { first: from + 2, last: second() - 1 }
}

/// Stops the job and gives its rows, oldest first, once every second from the first to the last has exactly one.
#[track_caller]
fn rows(node: &Node, policy: &Policy) -> Vec<Row> {
    node.api.stop_job(policy.id);
    let last = policy.witness.last_second().unwrap();
    let first = node.api.wait_for_first_row(policy.id).time();
    let mut rows = node.api.wait_for_one_row_each(policy.id, first, last);
    rows.sort_by_key(|row| row.time());
    check_gapless(&rows.iter().map(|row| row.time()).collect::<Vec<i64>>());
    let ran = policy.witness.attempts("x");
    // Nobody can say how far a lost run came.
    for row in rows.iter().filter(|row| row["state"] != "lost") {
        assert!(ran.contains(&row.attempt()) != (row["state"] == "missed"), "{row}, {ran:?}");
    }
    rows
}

fn within<'a>(rows: &'a [Row], away: &Away) -> Vec<&'a Row> {
    let is_within = |row: &&Row| (away.first..=away.last).contains(&row.time());
    rows.iter().filter(is_within).collect()
}

fn ns(second: i64) -> i128 {
    i128::from(second) * 1_000_000_000
}

fn ran_at(policy: &Policy, second: i64) -> Seen {
    policy.witness.read().into_iter().find(|seen| seen.scheduled_at == second).unwrap()
}

#[track_caller]
fn check_missed(row: &Row, why: &str) {
    let expect =
        format!("[missed: 1 run due from {0} to {0} (unix seconds), not handled in time: {why}]\n", row["time"]);
    assert_eq!(row["output"], expect);
}

/// Checks the three policies with one gap within the grace.
fn check_policies(node: &mut Node, leave: impl FnOnce(&mut Node) -> Away) {
    let [all, once, skip] = ["all", "once", "skip"].map(|name| add(node, name, &format!("misfire={name}")));
    let away = leave(node);
    assert!(away.first + 2 <= away.last, "the gap is too short to tell the policies apart");
    [&all, &once, &skip].iter().for_each(|policy| policy.witness.wait_for_second(away.last + 4));
    check_all(node, &all, &away);
    check_once(node, &once, &away);
    check_skip(node, &skip, &away);
}

#[track_caller]
fn check_all(node: &Node, all: &Policy, away: &Away) {
    let late = rows(node, all);
    for row in within(&late, away) {
        assert_eq!(row["state"], "ok", "{row}");
        let seen = ran_at(all, row.time());
        assert!(ns(away.last) < seen.at_ns, "it ran while nobody could start it: {seen:?}");
    }
    let starts: Vec<i64> = within(&late, away).iter().map(|row| row["start_time"].as_i64().unwrap()).collect();
    assert!(starts.is_sorted(), "they run oldest first: {starts:?}");
}

#[track_caller]
fn check_once(node: &Node, once: &Policy, away: &Away) {
    let rows = rows(node, once);
    let ran = rows.iter().find(|row| away.first <= row.time() && row["state"] != "missed").unwrap();
    assert!(away.last <= ran.time(), "only the last second of the gap may run: {ran}");
    let seen = ran_at(once, ran.time());
    assert!(ns(ran.time() + 1) <= seen.at_ns, "the last second of the gap runs late: {seen:?}");
    let missed = rows.iter().filter(|row| row["state"] == "missed");
    missed.for_each(|row| check_missed(row, "a later one runs for all of them (misfire=once)"));
}

#[track_caller]
fn check_skip(node: &Node, skip: &Policy, away: &Away) {
    let none = rows(node, skip);
    within(&none, away).iter().for_each(|row| assert_eq!(row["state"], "missed", "{row}"));
    let missed = none.iter().filter(|row| row["state"] == "missed");
    missed.for_each(|row| check_missed(row, "none is run late (misfire=skip)"));
}

#[test]
fn seconds_in_which_the_daemon_stood_still_run_all_once_or_not_by_policy() {
    check_policies(&mut Node::started(""), |node| stop_for(node, 5, || ()));
}

#[test]
fn seconds_in_which_there_was_no_daemon_run_all_once_or_not_by_policy() {
    check_policies(&mut Node::started(""), |node| kill_for(node, 5));
}

#[test]
fn beyond_the_grace_there_is_one_row_per_job_and_gap_whatever_its_policy() {
    let mut node = Node::started("misfire_grace = 2\n");
    let policies = ["all", "once", "skip"].map(|name| add(&node, name, &format!("misfire={name}")));
    let away = kill_for(&mut node, 8);
    for policy in &policies {
        policy.witness.wait_for_second(away.last + 4);
        node.api.stop_job(policy.id);
        let rows = node.api.rows_with(policy.id, "missed");
        let of_gap: Vec<&Row> = rows.iter().filter(|row| row.output().contains("misfire_grace")).collect();
        assert_eq!(of_gap.len(), 1, "{rows:?}");
        let (last, text) = (of_gap[0].time(), of_gap[0].output());
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
    let (api, witness) = (node.api.clone(), node.witness("new"));
    let command = witness.write("x");
    let mut adding = None;
    let away = stop_for(&node, 4, || adding = Some(std::thread::spawn(move || api.add_every_second(&command, ""))));
    let id = adding.unwrap().join().unwrap();
    [&old.witness, &witness].iter().for_each(|witness| witness.wait_for_second(away.last + 4));
    rows(&node, &old);
    let new = Policy { id, witness };
    let first = rows(&node, &new)[0].time();
    assert!(away.last < first, "first {first}, away from {} to {}", away.first, away.last);
}
