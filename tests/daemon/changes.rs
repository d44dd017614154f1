//! A change that meets the daemon behind its time: each second before it is decided by the definition of that time, and
//! told.

use crate::misfire::stop_for;
use crate::support::changes::{Change, Job, second};
use crate::support::daemon::Node;
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
