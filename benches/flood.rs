//! `make bench-flood`: 50,000 runs due in one second on one node. It measures the effects on the daemon's memory, on
//! the API, and on the lateness of other jobs.

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};
use support::daemon::Node;
use support::flood;
use support::process::peak_kb;
use support::time::pass_until;
use support::witness::Witness;

/// The limits that must not be exceeded.
const RSS_MB_MAX: u64 = 200;
const ANSWER_MS_MAX: u128 = 100;
const LATE_MS_MAX: f64 = 1_000.0;
/// How long the flood is watched.
const WATCH: Duration = Duration::from_secs(30);

/// The results.
struct Measured {
    peak_mb: u64,
    /// Sorted.
    answers_ms: Vec<u128>,
    mutex_runs: usize,
    mutex_ms: f64,
    minute_runs: usize,
    minute_ms: f64,
    rows: u64,
}

fn main() {
    let measured = measure();
    measured.print();
    println!("kept: {}", if measured.is_kept() { "yes" } else { "NO" });
}

fn measure() -> Measured {
    let mut node = Node::new("");
    let (mutex, minute) = (node.witness("mutex"), node.witness("minute"));
    let at = flood::prepare(&mut node, flood::RUNS, "true", 15);
    node.start();
    node.wait_health(200);
    node.api.add_every_second(&mutex.write("x"), "is_mutex=1");
    // This job is due once a minute, ten seconds after the flood.
    node.api.add(&format!("{} * * * * *", (at + 10) % 60), &minute.write("x"), "");
    let pid = node.daemon_pid();
    pass_until(at - 1);
    Measured {
        answers_ms: ask_all_the_time(&node),
        peak_mb: peak_kb(pid) / 1_024,
        rows: node.api.get("/log/list?limit=1&run_server=").ok()["total"].as_u64().unwrap_or(0),
        mutex_runs: mutex.count("x"),
        mutex_ms: latest_ms(&mutex),
        minute_runs: minute.count("x"),
        minute_ms: latest_ms(&minute),
    }
}

/// How long each answer took, sorted.
fn ask_all_the_time(node: &Node) -> Vec<u128> {
    let (start, mut answers_ms) = (Instant::now(), Vec::new());
    while start.elapsed() < WATCH {
        let asked = Instant::now();
        let path = if answers_ms.len() % 2 == 0 { "/cluster" } else { "/log/list?limit=1" };
        node.api.get(path).ok();
        answers_ms.push(asked.elapsed().as_millis());
    }
    answers_ms.sort_unstable();
    answers_ms
}

/// How late the latest of these runs started.
fn latest_ms(witness: &Witness) -> f64 {
    let late_ns = witness.read().into_iter().map(|seen| seen.at_ns - i128::from(seen.scheduled_at) * 1_000_000_000);
    late_ns.max().unwrap_or(0) as f64 / 1e6
}

impl Measured {
    fn slowest_ms(&self) -> u128 {
        self.answers_ms.last().copied().unwrap_or(0)
    }

    fn is_kept(&self) -> bool {
        let in_time = self.mutex_ms <= LATE_MS_MAX && self.minute_ms <= LATE_MS_MAX && self.minute_runs != 0;
        self.peak_mb < RSS_MB_MAX && self.slowest_ms() <= ANSWER_MS_MAX && in_time
    }

    fn print(&self) {
        let Measured { peak_mb, answers_ms, mutex_runs, mutex_ms, minute_ms, rows, .. } = self;
        let (answers, slowest, median) = (answers_ms.len(), self.slowest_ms(), answers_ms[answers_ms.len() / 2]);
        println!("| | measured | promised |\n|---|---|---|");
        println!("| daemon's peak memory | {peak_mb} MB | {RSS_MB_MAX} MB |");
        println!("| slowest of {answers} answers, median | {slowest}, {median} ms | {ANSWER_MS_MAX} ms |");
        println!(
            "| mutex job of every second, latest of {mutex_runs} starts | {mutex_ms:.0} ms late | {LATE_MS_MAX} ms |"
        );
        println!("| job of once a minute, beside the flood | {minute_ms:.0} ms late | {LATE_MS_MAX} ms |");
        println!("| log rows after {} s | {rows} | |", WATCH.as_secs());
    }
}
