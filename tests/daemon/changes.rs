//! A change that comes while the daemon lags: the old definition decides each second before the change, and each of
//! them has an outcome.

use crate::misfire::stop_for;
use crate::support::api::Reply;
use crate::support::changes::{Change, Job};
use crate::support::daemon::Node;
use crate::support::time::{pass_until, second};
use crate::support::wait_to_see;

/// The whole node stands still, and the change waits for it to go on.
#[track_caller]
fn check_after_standing_still(change: Change) {
    let node = Node::started("");
    let job = |name: &str| Job::added(&node.api, node.witness(name));
    let (changed, untouched) = (job("changed"), job("untouched"));
    [&changed, &untouched].into_iter().for_each(Job::wait_runs);
    let (away, mut made) = std::thread::scope(|scope| {
        let mut making = None;
        let away = stop_for(&node, 5, || making = Some(scope.spawn(|| change.make(&node.api, &changed))));
        (away, making.expect("it was spawned").join().expect("the change holds"))
    });
    // No change can come into force while the node stands still.
    made.asked = away.last + 1;
    let rows = |id: u64| node.api.rows(id);
    let mut faults = made.faults(&changed, || rows(changed.id));
    // The rows of the last seconds are still on their way.
    faults.extend(untouched.faults_of_untouched(second() - 3, || rows(untouched.id)));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_stop_that_comes_while_the_daemon_lags_leaves_no_second_before_it_without_outcome() {
    check_after_standing_still(Change::Stop);
}

#[test]
fn an_update_that_comes_while_the_daemon_lags_leaves_no_second_before_it_without_outcome() {
    check_after_standing_still(Change::Update);
}

#[test]
fn a_delete_that_comes_while_the_daemon_lags_leaves_no_second_before_it_without_outcome() {
    check_after_standing_still(Change::Delete);
}

/// Pauses the node for five seconds; gives the first and the last second of the pause.
fn pause(node: &Node, meanwhile: impl FnOnce()) -> (i64, i64) {
    node.api.post("/cluster/pause", "").ok();
    let first = second() + 1;
    pass_until(first + 5);
    meanwhile();
    let last = second() - 1;
    node.api.post("/cluster/resume", "").ok();
    (first, last)
}

#[test]
fn a_change_that_is_refused_or_changes_nothing_leaves_the_due_runs_as_they_were() {
    let node = Node::started("");
    let job = |name: &str| Job::added(&node.api, node.witness(name));
    let (refused, started, untouched) = (job("refused"), job("started"), job("untouched"));
    [&refused, &started, &untouched].into_iter().for_each(Job::wait_runs);
    let (first, last) = pause(&node, || {
        for cron_set in ["99 * * * * *", "TZ=No/Where * * * * * *", "0 0 0 30 2 *"] {
            let form = format!("id={}&cronSet={cron_set}&command=true", refused.id);
            node.api.post("/cron/update", &form).refused(400, "cronSet");
        }
        node.api.start_job(started.id);
    });
    for job in [&refused, &started, &untouched] {
        let in_pause = || -> Vec<i64> {
            let mut seconds: Vec<i64> = job.witness.read().iter().map(|seen| seen.scheduled_at).collect();
            seconds.retain(|at| (first..=last).contains(at));
            seconds.sort();
            seconds
        };
        let expect: Vec<i64> = (first..=last).collect();
        wait_to_see(&format!("job {} ran once for each of {expect:?}", job.id), in_pause, |ran| *ran == expect);
    }
}

#[test]
fn rows_edited_by_hand_decide_no_second_before_they_were_read() {
    let node = Node::started("");
    let [daily, new] = ["daily", "new"].map(|name| node.witness(name));
    let id = node.api.add_idle(&daily.write("x"), "");
    let mut read_at = 0;
    pause(&node, || {
        let database = node.database();
        database.execute("UPDATE cron SET cron_set = '* * * * * *' WHERE id = ?", [id]).unwrap();
        let insert = "INSERT INTO cron (cron_set, command) VALUES ('* * * * * *', ?)";
        database.execute(insert, [new.write("x")]).unwrap();
        read_at = second();
        node.signal(rustix::process::Signal::HUP);
        node.wait_said("reloaded: 2 jobs changed or new, 0 gone");
    });
    for witness in [daily, new] {
        witness.wait_count("x", 3);
        let early = witness.read().iter().any(|seen| seen.scheduled_at < read_at);
        assert!(!early, "read at {read_at}: {:?}", witness.read());
    }
}

/// Asks for a change until it is made. On a busy machine the first answer may be that the result is not known yet, and
/// the next one that the job is unknown, because it was deleted.
#[track_caller]
fn wait_until_taken(what: &str, ask: impl Fn() -> Reply) {
    let mut was_late = false;
    wait_to_see(what, ask, |reply| {
        let is_made = reply.status == 200 || was_late && reply.status == 404;
        was_late = reply.status == 503;
        is_made
    });
}

/// A debug build falls behind with so many jobs of every second, and never catches up.
#[test]
fn a_daemon_that_lags_for_good_takes_changes_all_the_same() {
    let mut node = Node::started("max_running = 1\nmax_pending = 1\n");
    let first = node.api.add_every_second("true", "");
    node.stop();
    let mut database = node.database();
    let rows = database.transaction().unwrap();
    for _ in 0..150_000 {
        rows.execute("INSERT INTO cron (cron_set, command) VALUES ('* * * * * *', 'true')", []).unwrap();
    }
    rows.commit().unwrap();
    node.start();
    wait_to_see("the node leads", || node.api.get("/health").body, |health| health["data"]["leader"] == *node.server);
    pass_until(second() + 5);
    for change in ["stop", "start", "delete"] {
        wait_until_taken(change, || node.api.get(&format!("/cron/{change}/{first}")));
    }
    wait_until_taken("update", || node.api.update(first + 1, "@daily", "true"));
    node.api.get("/cron/stop/999999").refused(404, "no such job");
}
