//! Ending whole runs: the process group of a run, and every other process that descends from it.
//!
//! A process belongs to a run when it is in the run's control group, which it cannot leave (root can). Not every host has
//! such groups, and not every run has one. A process without one belongs to a run when its timer slack is the run's tag
//! (the slack survives fork, exec, setsid and `env -i`) and it did not start before the run. Where this program may not read slacks (without CAP_SYS_NICE), it goes by
//! the process group and the environment. Every descendant of such a process belongs to the run as well. Without control
//! groups a process is not found that has left its process group, lost its parents, and set another slack; or, without
//! CAP_SYS_NICE, cleared its environment.
//!
//! Another daemon on the same host uses the same tags. But a guardian is the subreaper of its runs' orphans, so a
//! process that is not below our guardian is not ours. Orphans are searched only after a guardian and its daemon were
//! killed together. A slack alone does not make a process an orphan of ours, because systemd's TimerSlackNSec gives any
//! service one: the process must be in the control group of the daemon that wrote the marks, too. The orphans of two
//! such daemons in one control group could be mistaken for each other where their tags are equal; each daemon begins at a
//! random tag, so that is unlikely.
//!
//! Not here: which runs are to end; the pool and the guardian say that.
//!
//! Invariants: only processes of the run get a signal; a process that got the pid of an ended one has another start
//! time. Whatever the marks say, this process, those above it and the host's first one get none.

use super::cgroups::Cgroups;
use super::marks::{Mark, cgroup_of};
use crate::worker::clock;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open, pidfd_send_signal};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// The name of a guardian's process, by which `ps` and this file know it (at most 15 bytes).
pub const GUARDIAN_NAME: &str = "wing-guardian";
const BETWEEN_ROUNDS: Duration = Duration::from_millis(10);

/// Asks the process group of a run to end (TERM), and every process of its control group that has left the process group.
pub fn ask(mark: &Mark, cgroups: Option<&Cgroups>) {
    if is_leader_alive(mark)
        && let Some(pid) = Pid::from_raw(mark.pid as i32)
    {
        // An error means that the process has just ended, as wanted.
        let _ = kill_process_group(pid, Signal::TERM);
    }
    if let Some((cgroups, name)) = cgroups.zip(mark.cgroup()) {
        let has_left = |pid: &u32| Stat::of(*pid).is_some_and(|stat| stat.group != mark.pid);
        cgroups.pids(&name).into_iter().filter(has_left).for_each(|pid| ask_member(pid, &name));
    }
}

/// Asks one process, unless another one has got its pid meanwhile.
fn ask_member(pid: u32, cgroup: &str) {
    let process = Pid::from_raw(pid as i32).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    if let Some(process) = process.filter(|_| groups.split(['/', '\n']).any(|part| part == cgroup)) {
        let _ = pidfd_send_signal(process, Signal::TERM);
    }
}

/// Whether the group has a process left. A zombie that its parent has not reaped counts as one.
pub fn has_group(leader: u32) -> bool {
    Pid::from_raw(leader as i32).is_some_and(|pid| rustix::process::test_kill_process_group(pid).is_ok())
}

/// Where the processes of a run are to be found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Family {
    /// Among the descendants of this process, our guardian.
    Below(u32),
    /// Among the processes that have no guardian above them, because their own is dead, and that are in this control
    /// group (see `cgroup_of`; none where it is not known).
    Orphans { cgroup: Option<u64> },
}

/// Kills every process of these runs, in rounds until none is left, or for about `limit_ms`; the first round is always
/// made. Calls `between` after each round. Answers, for each run, the processes that are still there.
///
/// A second round finds none, as a rule: a killed process is over within milliseconds. There are more rounds where a
/// process started another one between two of them, and where one sleeps uninterruptibly (in a system call on a disk or
/// a file server that hangs). Such a process ends when that call does, and nobody can do anything about that.
#[expect(clippy::disallowed_methods, reason = "no event tells when processes that are not our children have ended")]
pub fn end_runs(
    marks: &[Mark],
    family: Family,
    cgroups: Option<&Cgroups>,
    limit_ms: u64,
    mut between: impl FnMut(),
) -> Vec<BTreeSet<u32>> {
    let wanted = Wanted::new(marks, family);
    let until = clock::mono().plus_ms(limit_ms);
    let groups = cgroups.map_or(Vec::new(), |cgroups| {
        marks.iter().filter_map(Mark::cgroup).map(|name| (cgroups, name)).collect::<Vec<_>>()
    });
    loop {
        let populated = groups.iter().filter(|(cgroups, name)| cgroups.is_populated(name));
        let populated = populated.inspect(|(cgroups, name)| cgroups.kill(name)).count();
        let found = wanted.find(&Processes::read());
        if found.is_empty() && populated == 0 {
            return vec![BTreeSet::new(); marks.len()];
        }
        for pid in found.iter().filter_map(|pid| Pid::from_raw(*pid as i32)) {
            let _ = kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(BETWEEN_ROUNDS);
        between();
        if until <= clock::mono() {
            return marks.iter().map(|mark| still_there(mark, family, cgroups)).collect();
        }
    }
}

fn still_there(mark: &Mark, family: Family, cgroups: Option<&Cgroups>) -> BTreeSet<u32> {
    let mut found = Wanted::new(std::slice::from_ref(mark), family).find(&Processes::read());
    found.extend(cgroups.zip(mark.cgroup()).iter().flat_map(|(cgroups, name)| cgroups.pids(name)));
    found
}

/// When the process was started, in clock ticks since boot. No other process has the same pid and start time.
pub fn start_time(pid: u32) -> Option<u64> {
    Stat::of(pid).map(|stat| stat.start_time)
}

fn is_leader_alive(mark: &Mark) -> bool {
    mark.pid != 0 && start_time(mark.pid) == Some(mark.pid_start)
}

/// The runs whose processes are looked for.
struct Wanted<'a> {
    by_tag: BTreeMap<u64, &'a Mark>,
    by_group: BTreeMap<u32, &'a Mark>,
    family: Family,
}

impl<'a> Wanted<'a> {
    fn new(marks: &'a [Mark], family: Family) -> Wanted<'a> {
        let started = marks.iter().filter(|mark| mark.pid != 0);
        Wanted {
            by_tag: marks.iter().filter(|mark| mark.may_run()).map(|mark| (mark.tag, mark)).collect(),
            by_group: started.map(|mark| (mark.pid, mark)).collect(),
            family,
        }
    }

    fn find(&self, all: &Processes) -> BTreeSet<u32> {
        let spared = all.above(std::process::id());
        let may_be = |stat: &Stat| !spared.contains(&stat.pid) && !stat.is_guardian;
        let is_one = |(pid, stat): &(&u32, &Stat)| may_be(stat) && self.has(**pid, stat) && self.is_ours(stat, all);
        let mut found: BTreeSet<u32> = all.0.iter().filter(is_one).map(|(pid, _)| *pid).collect();
        // And their descendants, one generation in each round.
        loop {
            let below = all.0.values().filter(|stat| found.contains(&stat.parent) && !found.contains(&stat.pid));
            let below: Vec<u32> = below.filter(|stat| may_be(stat)).map(|stat| stat.pid).collect();
            if below.is_empty() {
                break;
            }
            found.extend(below);
        }
        // A zombie needs no signal: it is dead, and only waits to be reaped.
        found.retain(|pid| !matches!(all.0[pid].state, b'Z' | b'X'));
        found
    }

    fn has(&self, pid: u32, stat: &Stat) -> bool {
        let is_no_older = |mark: &&Mark| mark.pid_start <= stat.start_time;
        let group = self.by_group.get(&stat.group).filter(|mark| is_no_older(mark));
        let slack = fs::read_to_string(format!("/proc/{pid}/timerslack_ns")).ok();
        match slack.and_then(|slack| slack.trim().parse::<u64>().ok()) {
            Some(slack) if self.by_tag.get(&slack).is_some_and(is_no_older) && self.is_in_cgroup(pid) => true,
            Some(_) => group.is_some_and(|mark| is_leader_alive(mark)),
            None => group.is_some() || self.has_environment(pid),
        }
    }

    fn is_in_cgroup(&self, pid: u32) -> bool {
        match self.family {
            Family::Orphans { cgroup: Some(cgroup) } => cgroup_of(&pid.to_string()) == Some(cgroup),
            Family::Orphans { cgroup: None } | Family::Below(_) => true,
        }
    }

    fn has_environment(&self, pid: u32) -> bool {
        let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else { return false };
        let entries = || environment.split(|byte| *byte == 0);
        let has = |line: String| entries().any(|entry| entry == line.as_bytes());
        entries().any(|entry| entry.starts_with(b"WING_RUN_KEY="))
            && self.by_tag.values().any(|mark| {
                has(format!("WING_RUN_KEY={}", mark.attempt.run))
                    && has(format!("WING_ATTEMPT={}", mark.attempt.number))
            })
    }

    /// Whether the process is where the family is searched: its nearest guardian is ours, or, for orphans, it has none.
    fn is_ours(&self, stat: &Stat, all: &Processes) -> bool {
        let parent = |stat: &&Stat| all.0.get(&stat.parent);
        let mut ancestors = std::iter::successors(parent(&stat), parent);
        match self.family {
            Family::Below(guardian) => {
                ancestors.find(|stat| stat.pid == guardian || stat.is_guardian).is_some_and(|stat| stat.pid == guardian)
            }
            Family::Orphans { .. } => !ancestors.any(|stat| stat.is_guardian),
        }
    }
}

/// The processes of the host at one moment, by pid.
struct Processes(BTreeMap<u32, Stat>);

impl Processes {
    fn read() -> Processes {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        Processes(pids.filter_map(|pid| Some((pid, Stat::of(pid)?))).collect())
    }

    /// This process, those above it, and the host's first one.
    fn above(&self, pid: u32) -> BTreeSet<u32> {
        let parent = |pid: &u32| self.0.get(pid).map(|stat| stat.parent);
        std::iter::successors(Some(pid), parent).chain([1]).collect()
    }
}

struct Stat {
    pid: u32,
    is_guardian: bool,
    state: u8,
    parent: u32,
    group: u32,
    start_time: u64,
}

impl Stat {
    fn of(pid: u32) -> Option<Stat> {
        let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything, parentheses and blanks included.
        let name_start = text.iter().position(|byte| *byte == b'(')? + 1;
        let name_end = text.iter().rposition(|byte| *byte == b')')?;
        let is_guardian = text.get(name_start..name_end)? == GUARDIAN_NAME.as_bytes() && runs_this_program(pid);
        let mut fields = std::str::from_utf8(text.get(name_end + 2..)?).ok()?.split(' ');
        let state = fields.next()?.bytes().next()?;
        let parent = fields.next()?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        let start_time = fields.nth(16)?.parse().ok()?;
        Some(Stat { pid, is_guardian, state, parent, group, start_time })
    }
}

/// Whether the process runs this very program: any process may take a guardian's name. Where this user may not see what
/// it runs, the name counts.
fn runs_this_program(pid: u32) -> bool {
    let file = |process: &str| fs::metadata(format!("/proc/{process}/exe")).map(|file| (file.dev(), file.ino()));
    match (file(&pid.to_string()), file("self")) {
        (Ok(its), Ok(own)) => its == own,
        _ => true,
    }
}
