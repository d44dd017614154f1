//! What proc(5) tells of a process, and signals to it.
//!
//! Not about which processes there should be: `daemon` knows the guardian and its daemon.

use rustix::process::{Pid, Signal, kill_process};
use std::fs;

/// A process that is gone already takes no signal. That is no mistake.
pub fn send_signal(signal: Signal, pid: u32) {
    let _ = kill_process(Pid::from_raw(pid as i32).expect("a pid is not 0"), signal);
}

/// The live children of a process, whichever of its threads started them.
pub fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let texts = tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
    texts.flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()).collect()
}

/// Whether the process is there and not a zombie.
pub fn is_alive(pid: u32) -> bool {
    state(pid).is_some_and(|state| !['Z', 'X'].contains(&state))
}

/// Whether a signal has stopped the process.
pub fn is_stopped(pid: u32) -> bool {
    state(pid) == Some('T')
}

/// The letter that proc(5) gives a process's state.
fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// How many threads a process has.
pub fn threads(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

/// The memory that a process has now, in kB.
pub fn resident_kb(pid: u32) -> u64 {
    status_kb(pid, "VmRSS:")
}

/// The most memory that a process has had, in kB.
pub fn peak_kb(pid: u32) -> u64 {
    status_kb(pid, "VmHWM:")
}

fn status_kb(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("the kernel tells it");
    line.split_whitespace().next().and_then(|kb| kb.parse().ok()).expect("a number of kB")
}

/// The processor time of a process itself, without its children's, in hundredths of a second.
pub fn cpu_ticks(pid: u32) -> u64 {
    cpu_ticks_in(&format!("/proc/{pid}/stat"))
}

/// The processor time of the process's first thread alone, in hundredths of a second.
pub fn main_thread_ticks(pid: u32) -> u64 {
    cpu_ticks_in(&format!("/proc/{pid}/task/{pid}/stat"))
}

fn cpu_ticks_in(path: &str) -> u64 {
    let stat = fs::read_to_string(path).expect("the process is there");
    let fields: Vec<&str> = stat.rsplit_once(')').expect("the name ends").1.split_whitespace().collect();
    [11, 12].iter().map(|at| fields[*at].parse::<u64>().expect("a number of ticks")).sum()
}
