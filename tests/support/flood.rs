//! Many jobs that are due in one and the same second.

use super::daemon::Node;
use super::time::second;
use rusqlite::params;

pub const RUNS: usize = 50_000;

/// Writes so many jobs straight into the store of a node that is not running. Each is due once, so many seconds from
/// now; gives that second.
pub fn prepare(node: &mut Node, jobs: usize, command: &str, seconds: i64) -> i64 {
    // The first start makes the tables.
    node.start();
    node.stop();
    let mut connection = node.database();
    let transaction = connection.transaction().expect("nobody else has it");
    let at = second() + seconds;
    {
        let sql = "INSERT INTO cron (cron_set, command, start_time, end_time) VALUES ('* * * * * *', ?, ?, ?)";
        let mut insert = transaction.prepare(sql).expect("the table is there");
        for _ in 0..jobs {
            insert.execute(params![command, at, at + 1]).expect("a job is inserted");
        }
    }
    transaction.commit().expect("the disk has space");
    at
}
