//! Ending runs whole: the process group, and whatever else was born from the run.
//!
//! A process belongs to a run when its timer slack is the run's tag: the slack survives fork, exec, setsid and `env -i`.
//! Where it may not be read (without CAP_SYS_NICE), the environment and the process group must do; a process that has
//! changed all three is not found. A process that has changed its slack is found by its group.
//!
//! Invariant: no process is signalled that was not born from the run: a pid that was given to somebody else meanwhile
//! has another start time.

use super::marks::Mark;
use crate::core::work::KillHow;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::fs;
use std::time::Duration;

/// Rounds over the processes until none is left; new ones may be born between two.
const ROUNDS_MAX: usize = 200;
const BETWEEN_ROUNDS: Duration = Duration::from_millis(10);

/// Signals the processes of a run. `Force` returns when they are gone, or after two seconds if one will not go.
pub fn kill(mark: &Mark, how: KillHow) {
    match how {
        KillHow::Ask => {
            if is_leader_alive(mark)
                && let Some(pid) = Pid::from_raw(mark.pid as i32)
            {
                // An error means that it has just ended, which is what was wanted.
                let _ = kill_process_group(pid, Signal::TERM);
            }
        }
        KillHow::Force => drop(sweep(std::slice::from_ref(mark), || ())),
    }
}

/// Kills every process of these runs, until none is left. `between` is called after each round. Answers how many
/// processes would not go.
pub fn sweep(marks: &[Mark], mut between: impl FnMut()) -> usize {
    let mut left = 0;
    for _ in 0..ROUNDS_MAX {
        let found: Vec<Process> =
            processes().filter(|process| marks.iter().any(|mark| process.belongs_to(mark))).collect();
        if found.is_empty() {
            return 0;
        }
        for process in &found {
            if let Some(pid) = Pid::from_raw(process.pid as i32) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        left = found.len();
        std::thread::sleep(BETWEEN_ROUNDS);
        between();
    }
    left
}

/// When the process was started, in clock ticks since boot; with its pid it names a process for good.
pub fn start_time(pid: u32) -> Option<u64> {
    Stat::of(pid).map(|stat| stat.start_time)
}

fn is_leader_alive(mark: &Mark) -> bool {
    mark.pid != 0 && start_time(mark.pid) == Some(mark.pid_start)
}

struct Process {
    pid: u32,
    stat: Stat,
    slack: Option<u64>,
}

struct Stat {
    state: u8,
    group: u32,
    start_time: u64,
}

impl Stat {
    fn of(pid: u32) -> Option<Stat> {
        let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything, parentheses and blanks included.
        let after_name = text.iter().rposition(|byte| *byte == b')')? + 2;
        let text = std::str::from_utf8(text.get(after_name..)?).ok()?;
        let mut fields = text.split(' ');
        let state = fields.next()?.bytes().next()?;
        let group = fields.nth(1)?.parse().ok()?;
        let start_time = fields.nth(16)?.parse().ok()?;
        Some(Stat { state, group, start_time })
    }
}

impl Process {
    fn belongs_to(&self, mark: &Mark) -> bool {
        // A dead one needs no signal; its parent has yet to take notice.
        if matches!(self.stat.state, b'Z' | b'X') {
            return false;
        }
        let is_in_group = mark.pid != 0 && self.stat.group == mark.pid;
        match self.slack {
            Some(slack) if slack == mark.tag => true,
            Some(_) => is_in_group && is_leader_alive(mark),
            None => is_in_group && mark.pid_start <= self.stat.start_time || self.has_environment_of(mark),
        }
    }

    fn has_environment_of(&self, mark: &Mark) -> bool {
        let Ok(environment) = fs::read(format!("/proc/{}/environ", self.pid)) else { return false };
        let has = |line: String| environment.split(|byte| *byte == 0).any(|entry| entry == line.as_bytes());
        has(format!("WING_RUN_KEY={}", mark.attempt.run)) && has(format!("WING_ATTEMPT={}", mark.attempt.number))
    }
}

fn processes() -> impl Iterator<Item = Process> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter_map(|pid: u32| {
        let slack = fs::read_to_string(format!("/proc/{pid}/timerslack_ns")).ok();
        Some(Process { pid, stat: Stat::of(pid)?, slack: slack.and_then(|slack| slack.trim().parse().ok()) })
    })
}
