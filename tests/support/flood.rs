//! Many jobs that are due in one and the same second.

use super::daemon::Node;
use rusqlite::{Connection, params};

pub const RUNS: usize = 50_000;

/// Writes so many jobs straight into the store of a node that is not running, due once, so many seconds from now.
/// Answers that second.
pub fn prepare(node: &mut Node, jobs: usize, command: &str, seconds: i64) -> i64 {
    // It makes its tables at its first start.
    node.start();
    node.stop();
    let mut connection = Connection::open(node.path("data/wing-crontab.db")).expect("the store is a file");
    let transaction = connection.transaction().expect("nobody else has it");
    let at = wing_crontab::worker::clock::now().wall.second().0 + seconds;
    {
        let sql = "INSERT INTO cron (cron_set, command, start_time, end_time) VALUES ('* * * * * *', ?, ?, ?)";
        let mut insert = transaction.prepare(sql).expect("the table is there");
        for _ in 0..jobs {
            insert.execute(params![command, at, at + 1]).expect("a job is inserted");
        }
    }
    transaction.commit().expect("the disk has room");
    at
}
