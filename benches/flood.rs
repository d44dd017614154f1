//! `make bench-flood`: 50,000 runs due in one second on one node, and what that does to everything else: the daemon's
//! memory, the API, and jobs beside the flood that want to be on time.

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};
use support::daemon::Node;
use support::witness::{Seen, Witness};
use support::{flood, wait_until};
use wing_crontab::worker::clock;

/// What is promised.
const RSS_MB_MAX: u64 = 200;
const ANSWER_MS_MAX: u128 = 100;
const LATE_MS_MAX: f64 = 1_000.0;
/// How long the flood is watched.
const WATCH: Duration = Duration::from_secs(30);

fn main() {
    let mut node = Node::new("");
    let (mutex, minute) = (node.witness("mutex"), node.witness("minute"));
    let at = flood::prepare(&mut node, flood::RUNS, "true", 15);
    node.start();
    wait_until("it leads", || node.api.get("/health").status == 200);
    node.api.add_every_second(&mutex.write("x"), "is_mutex=1");
    // Once a minute, ten seconds into the flood.
    node.api.add(&format!("{} * * * * *", (at + 10) % 60), &minute.write("x"), "");
    let pid = node.daemon_pid();
    wait_until("the second comes", || at - 1 <= second());
    let (start, mut answers_ms) = (Instant::now(), Vec::new());
    while start.elapsed() < WATCH {
        let asked = Instant::now();
        let path = if answers_ms.len() % 2 == 0 { "/cluster" } else { "/log/list?limit=1" };
        node.api.get(path).ok();
        answers_ms.push(asked.elapsed().as_millis());
    }
    answers_ms.sort_unstable();
    let peak_mb = peak_kb(pid) / 1_024;
    let ran = node.api.get("/log/list?limit=1&run_server=").ok()["total"].as_u64().unwrap_or(0);
    let worst = |seen: Vec<Seen>| seen.iter().map(late_ms).fold(0.0, f64::max);
    let (mutex_ms, minute_ms) = (worst(mutex.read()), worst(minute.read()));
    let slowest = answers_ms.last().copied().unwrap_or(0);
    println!("| | measured | promised |\n|---|---|---|");
    println!("| daemon's peak memory | {peak_mb} MB | {RSS_MB_MAX} MB |");
    println!(
        "| slowest of {} answers, median | {slowest}, {} ms | {ANSWER_MS_MAX} ms |",
        answers_ms.len(),
        answers_ms[answers_ms.len() / 2]
    );
    println!(
        "| mutex job of every second, latest start of {} | {mutex_ms:.0} ms late | {LATE_MS_MAX} ms |",
        mutex.count("x")
    );
    println!("| job of once a minute, beside the flood | {minute_ms:.0} ms late | {LATE_MS_MAX} ms |");
    println!("| log rows after {} s | {ran} | |", WATCH.as_secs());
    let is_kept =
        peak_mb < RSS_MB_MAX && slowest <= ANSWER_MS_MAX && mutex_ms <= LATE_MS_MAX && minute_ms <= LATE_MS_MAX;
    println!("kept: {}", if is_kept && minute.count("x") != 0 { "yes" } else { "NO" });
}

fn late_ms(seen: &Seen) -> f64 {
    (seen.at_ns - i128::from(seen.scheduled_at) * 1_000_000_000) as f64 / 1e6
}

fn peak_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kb| kb.parse().ok()).unwrap_or(0)
}
