//! A change that meets the daemon behind its time: each second before it is decided by the definition of that time, and
//! told.

use crate::misfire::stop_for;
use crate::support::changes::{Change, Job, pass_until, second};
use crate::support::daemon::Node;
use crate::support::wait_until;
use crate::support::witness::Witness;

/// The whole node stands still; the change is there when it goes on.
#[track_caller]
fn check_after_standing_still(change: Change) {
    let node = Node::started("");
    let job = |name: &str| Job::added(&node.api, Witness::new(node.folder.path(), name));
    let (changed, untouched) = (job("changed"), job("untouched"));
    [&changed, &untouched].into_iter().for_each(Job::wait_runs);
    let (away, mut made) = std::thread::scope(|scope| {
        let mut making = None;
        let away = stop_for(&node, 5, || making = Some(scope.spawn(|| change.make(&node.api, &changed))));
        (away, making.expect("it was spawned").join().expect("the change holds"))
    });
    // Nothing takes force while nobody is there.
    made.asked = away.last + 1;
    let rows = |id: u64| node.api.logs(&format!("cron_id={id}"));
    let mut faults = made.faults(&changed, || rows(changed.id));
    // Its last seconds are still on their way.
    faults.extend(untouched.faults_of_untouched(second() - 3, || rows(untouched.id)));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_stop_that_meets_a_daemon_behind_its_time_leaves_no_second_before_it_untold() {
    check_after_standing_still(Change::Stop);
}

#[test]
fn an_update_that_meets_a_daemon_behind_its_time_leaves_no_second_before_it_untold() {
    check_after_standing_still(Change::Update);
}

#[test]
fn a_delete_that_meets_a_daemon_behind_its_time_leaves_no_second_before_it_untold() {
    check_after_standing_still(Change::Delete);
}

/// Paused for five seconds; gives the first and the last of them.
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
fn a_change_that_is_refused_or_changes_nothing_leaves_what_is_due_as_it_was() {
    let node = Node::started("");
    let job = |name: &str| Job::added(&node.api, Witness::new(node.folder.path(), name));
    let (refused, started, untouched) = (job("refused"), job("started"), job("untouched"));
    [&refused, &started, &untouched].into_iter().for_each(Job::wait_runs);
    let (first, last) = pause(&node, || {
        for cron_set in ["99 * * * * *", "TZ=No/Where * * * * * *", "0 0 0 30 2 *"] {
            let form = format!("id={}&cronSet={cron_set}&command=true", refused.id);
            node.api.post("/cron/update", &form).refused(400, "cronSet");
        }
        node.api.get(&format!("/cron/start/{}", started.id)).ok();
    });
    for job in [&refused, &started, &untouched] {
        let ran = |at: i64| job.witness.read().iter().filter(|seen| seen.scheduled_at == at).count();
        wait_until(&format!("job {} ran for each second of the pause", job.id), || {
            (first..=last).all(|at| ran(at) == 1)
        });
    }
}

#[test]
fn rows_edited_by_hand_rule_no_second_before_they_were_read() {
    let node = Node::started("");
    let [daily, new] = ["daily", "new"].map(|name| Witness::new(node.folder.path(), name));
    let id = node.api.add("0 0 0 1 1 *", &daily.write("x"), "");
    let mut read_at = 0;
    pause(&node, || {
        let database = rusqlite::Connection::open(node.path("data/wing-crontab.db")).unwrap();
        database.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
        database.execute("UPDATE cron SET cron_set = '* * * * * *' WHERE id = ?", [id]).unwrap();
        let insert = "INSERT INTO cron (cron_set, command) VALUES ('* * * * * *', ?)";
        database.execute(insert, [new.write("x")]).unwrap();
        read_at = second();
        node.signal(rustix::process::Signal::HUP);
        node.wait_said("reloaded: 2 jobs changed or new, 0 gone");
    });
    for witness in [daily, new] {
        wait_until("it runs as it was edited", || witness.read().len() >= 3);
        let early = witness.read().iter().any(|seen| seen.scheduled_at < read_at);
        assert!(!early, "read at {read_at}: {:?}", witness.read());
    }
}

/// So many jobs of every second that a debug build falls behind for good.
#[test]
fn a_daemon_that_lags_for_good_takes_changes_all_the_same() {
    let mut node = Node::started("max_running = 1\nmax_pending = 1\n");
    let first = node.api.add("* * * * * *", "true", "");
    node.stop();
    let mut database = rusqlite::Connection::open(node.path("data/wing-crontab.db")).unwrap();
    let rows = database.transaction().unwrap();
    for _ in 0..150_000 {
        rows.execute("INSERT INTO cron (cron_set, command) VALUES ('* * * * * *', 'true')", []).unwrap();
    }
    rows.commit().unwrap();
    node.start();
    wait_until("it leads", || node.api.get("/health").body["data"]["leader"] == node.server.as_str());
    pass_until(second() + 5);
    for change in ["stop", "start", "delete"] {
        node.api.get(&format!("/cron/{change}/{first}")).ok();
    }
    let form = format!("id={}&cronSet=@daily&command=true", first + 1);
    node.api.post("/cron/update", &form).ok();
    node.api.get("/cron/stop/999999").refused(404, "no such job");
}
