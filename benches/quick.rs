//! `make bench-quick`: how late every-second jobs start, against a bare loop that starts as many of the same command on
//! the same machine.
//!
//! The jobs write down their own time: each is this program with `--stamp FILE`, which appends the time of its start.
//! The bare loop shows the best that is possible: two threads that start `SHELL -c COMMAND` at the second, read its
//! output, and reap it.

#[path = "../tests/support/mod.rs"]
mod support;

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use support::daemon::Node;
use support::process::{cpu_ticks, resident_kb};
use support::time::now_ns;
use support::wait_to_see;

const SECONDS: usize = 10;
const ROUNDS: usize = 2;
const BARE_THREADS: usize = 2;
/// How much later than the bare loop the daemon may be.
const RATIO_MAX: f64 = 1.5;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, word, file] = &arguments[..]
        && word == "--stamp"
    {
        return stamp(Path::new(file));
    }
    println!("| jobs a second | | late p50 / p99 / max ms | CPU, cores | RSS MB |\n|---|---|---|---|---|");
    let mut is_good = true;
    for jobs in [10, 100] {
        let (mut bare, mut ours, mut cost) = (Vec::new(), Vec::new(), Cost::default());
        for _ in 0..ROUNDS {
            bare.extend(bare_loop(jobs));
            let (late, round) = daemon(jobs);
            ours.extend(late);
            cost = round;
        }
        let (bare, ours) = (Late::of(bare), Late::of(ours));
        println!("| {jobs} | bare loop | {bare} | | |");
        println!("| {jobs} | wing-crontab | {ours} | {:.3} | {} |", cost.cores, cost.rss_kb / 1_024);
        let ratios = [ours.p50 / bare.p50, ours.p99 / bare.p99];
        println!("| {jobs} | ratio | {:.2} / {:.2} | | |", ratios[0], ratios[1]);
        is_good &= ratios.iter().all(|ratio| *ratio <= RATIO_MAX);
    }
    println!("\nwithin {RATIO_MAX} times the bare loop: {}", if is_good { "yes" } else { "NO" });
}

/// The command of the jobs: appends the present time to the file.
fn stamp(file: &Path) {
    let line = format!("{}\n", now_ns());
    let _ =
        OpenOptions::new().append(true).create(true).open(file).and_then(|mut file| file.write_all(line.as_bytes()));
}

fn command(file: &Path) -> String {
    let program = std::env::current_exe().expect("this program has a path");
    format!("exec {} --stamp {}", program.display(), file.display())
}

/// How late each start of the file was after its second.
fn lateness_ms(file: &Path) -> Vec<f64> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).map(|ns: i128| (ns % 1_000_000_000) as f64 / 1e6).collect()
}

fn bare_loop(jobs: usize) -> Vec<f64> {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let file = folder.path().join("bare");
    let command = command(&file);
    for _ in 0..SECONDS {
        std::thread::sleep(Duration::from_nanos((1_000_000_000 - now_ns() % 1_000_000_000) as u64));
        std::thread::scope(|scope| {
            for _ in 0..BARE_THREADS {
                scope.spawn(|| start_and_reap(&command, jobs / BARE_THREADS));
            }
        });
    }
    lateness_ms(&file)
}

fn start_and_reap(command: &str, count: usize) {
    let start = || {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", command]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        shell.spawn().expect("a shell starts")
    };
    for mut child in (0..count).map(|_| start()).collect::<Vec<_>>() {
        let mut said = Vec::new();
        let _ = child.stdout.take().expect("it is piped").read_to_end(&mut said);
        let _ = child.wait();
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    cores: f64,
    rss_kb: u64,
}

fn daemon(jobs: usize) -> (Vec<f64>, Cost) {
    let node = Node::started("");
    let file = node.path("stamps");
    let command = command(&file);
    for _ in 0..jobs {
        node.api.add_every_second(&command, "");
    }
    let starts = || lateness_ms(&file).len();
    // In the first seconds the jobs are still being added.
    wait_to_see("two runs of every job", starts, |starts| jobs * 2 <= *starts);
    let pid = node.daemon_pid();
    let (first, cpu, at) = (starts(), cpu_ticks(pid), now_ns());
    wait_to_see("the runs of some seconds", starts, |starts| first + jobs * SECONDS <= *starts);
    let cores = (cpu_ticks(pid) - cpu) as f64 / 100.0 / ((now_ns() - at) as f64 / 1e9);
    let late = lateness_ms(&file).split_off(first);
    (late, Cost { cores, rss_kb: resident_kb(pid) })
}

struct Late {
    p50: f64,
    p99: f64,
    max: f64,
}

impl Late {
    fn of(mut late: Vec<f64>) -> Late {
        late.sort_by(f64::total_cmp);
        let at = |share: f64| late[((late.len() - 1) as f64 * share).round() as usize];
        Late { p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}

impl std::fmt::Display for Late {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1} / {:.1} / {:.1}", self.p50, self.p99, self.max)
    }
}
