//! A change while the cluster lags: after or during an outage of the database, or during a pause. The old definition
//! decides each second before the change, and each of them has an outcome.

use crate::support::changes::{Change, Job, Made};
use crate::support::cluster::Cluster;
use crate::support::mariadb;
use crate::support::time::{pass, pass_until, second};

const AWAY_SECS: u64 = 6;

/// A cluster with a job that is to be changed and one that is not.
struct Changing {
    cluster: Cluster,
    jobs: Vec<Job>,
    untouched: Job,
}

impl Changing {
    fn started(database: &mariadb::Database, jobs: usize) -> Option<Changing> {
        let cluster = Cluster::on(database, 3)?;
        let job = |name: String| Job::added(&cluster.nodes[0].api, cluster.witness(&name));
        let changing = Changing {
            jobs: (0..jobs).map(|count| job(format!("changed{count}"))).collect(),
            untouched: job("untouched".into()),
            cluster,
        };
        changing.jobs.iter().chain([&changing.untouched]).for_each(Job::wait_runs);
        Some(changing)
    }

    /// Changes the job through the leader, which is the first to notice that the database is back.
    fn make(&self, change: Change, leader: usize, job: usize) -> Made {
        change.make(&self.cluster.nodes[leader].api, &self.jobs[job])
    }

    #[track_caller]
    fn finish(&self, made: &[Made]) {
        let rows = |id: u64| move || self.cluster.rows(id);
        let of_job = |(made, job): (&Made, &Job)| made.faults(job, rows(job.id));
        let mut faults: Vec<String> = made.iter().zip(&self.jobs).flat_map(of_job).collect();
        // The rows of the last seconds are still on their way.
        faults.extend(self.untouched.faults_of_untouched(second() - 3, rows(self.untouched.id)));
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }
}

fn check_after_an_outage(change: Change) {
    let Some(mut server) = mariadb::server() else { return };
    let Some(changing) = Changing::started(&server.database("utf8mb4"), 1) else { return };
    let leader = changing.cluster.leader();
    server.stop(false);
    pass(AWAY_SECS);
    server.start();
    let made = changing.make(change, leader, 0);
    changing.finish(&[made]);
}

#[test]
fn a_stop_right_after_an_outage_leaves_no_second_before_it_without_outcome() {
    check_after_an_outage(Change::Stop);
}

#[test]
fn an_update_right_after_an_outage_leaves_no_second_before_it_without_outcome() {
    check_after_an_outage(Change::Update);
}

#[test]
fn a_delete_right_after_an_outage_leaves_no_second_before_it_without_outcome() {
    check_after_an_outage(Change::Delete);
}

#[test]
fn a_stop_within_an_outage_leaves_no_second_before_it_without_outcome() {
    let Some(mut server) = mariadb::server() else { return };
    let Some(changing) = Changing::started(&server.database("utf8mb4"), 1) else { return };
    let leader = changing.cluster.leader();
    server.stop(false);
    pass(AWAY_SECS / 2);
    let made = changing.make(Change::Stop, leader, 0);
    pass(AWAY_SECS / 2);
    server.start();
    changing.finish(&[made]);
}

#[test]
fn a_change_within_a_pause_leaves_no_second_of_the_pause_without_outcome() {
    let Some(database) = mariadb::database() else { return };
    let Some(changing) = Changing::started(&database, 3) else { return };
    let leader = changing.cluster.leader();
    let api = &changing.cluster.nodes[leader].api;
    api.post("/cluster/pause", "").ok();
    let paused = second();
    pass_until(paused + 5);
    let changes = [Change::Stop, Change::Update, Change::Delete];
    let made: Vec<Made> = (0..).zip(changes).map(|(job, change)| changing.make(change, leader, job)).collect();
    pass_until(paused + 9);
    api.post("/cluster/resume", "").ok();
    pass_until(second() + 3);
    changing.finish(&made);
}
