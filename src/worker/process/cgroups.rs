//! Control groups (cgroup v2): each run is started in a group of its own, which its processes cannot leave by any name,
//! session or parent that they take. A run is killed whole by its group, and the group knows what processor time and
//! memory the run took.
//!
//! The groups of a daemon are in one folder, which its guardian makes or finds; `setup` does that. Where the host has no
//! such groups, or this user may not make any, runs are known by their marks alone (see `kill`).
//!
//! Not a record of runs: the marks are that. A group is found by the name that its run's mark gives it.
//!
//! Invariants: nothing outside this folder is written or killed; a group's name is used for one run only, as long as the
//! host runs; a group is removed only when no process is in it.

mod entry;
mod keeper;
mod place;
mod setup;

use super::program::Program;
use crate::model::Usage;
pub use keeper::Keeper;
use rustix::fd::AsFd;
use rustix::fs::{AtFlags, Dir, Mode, OFlags, mkdirat, openat, unlinkat};
use rustix::io::Errno;
pub use setup::{remove_unused, set_up};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

/// How the names of groups begin. `try` is that of no run.
const RUN: &str = "run-";
/// The most groups that a run may have made below its own, and that are looked into. Only root's runs can make any.
const BELOW_MAX: usize = 256;
/// The most bytes that are read of a group's file: the pids of some ten thousand processes.
const FILE_BYTES_MAX: u64 = 1 << 17;

/// The folder of a daemon's groups; and those in which earlier daemons on the same data_dir had theirs.
#[derive(Debug)]
pub struct Cgroups {
    /// New groups are made in the first.
    folders: Vec<OwnedFd>,
}

/// What became of a group that was to be removed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Removal {
    Gone,
    /// Processes are in it.
    InUse,
}

/// The name of the group of a run that was given this tag, and whose mark said `starting` at this time, in clock ticks
/// since boot. None: the mark is of a version that knew no groups. A tag comes again, but not within one clock tick.
pub fn name(tag: u64, starting_at: u64) -> Option<String> {
    (starting_at != 0).then(|| format!("{RUN}{tag}-{starting_at}"))
}

impl Cgroups {
    /// The groups in this folder, which the guardian has passed.
    pub fn passed(folder: OwnedFd) -> Cgroups {
        Cgroups { folders: vec![folder] }
    }

    /// The folder as a daemon inherits it.
    pub fn to_pass(&self) -> io::Result<&OwnedFd> {
        let folder = self.folders.first().ok_or(io::ErrorKind::NotFound)?;
        rustix::io::fcntl_setfd(folder, rustix::io::FdFlags::empty())?;
        Ok(folder)
    }

    /// Makes a group. Error: also where there is one of this name.
    pub fn make(&self, name: &str) -> io::Result<OwnedFd> {
        let folder = self.folders.first().ok_or(io::ErrorKind::NotFound)?;
        mkdirat(folder, name, Mode::from_bits_retain(0o755))?;
        Ok(openat(folder, name, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// Starts a program in a group that was made. See `entry`.
    pub fn start(program: &Program, input: impl AsFd, output: impl AsFd, group: &OwnedFd) -> io::Result<u32> {
        entry::start(program, input, output, group.as_fd())
    }

    /// Removes a group, with those that its run made below it.
    pub fn remove(&self, name: &str) -> Removal {
        let mut removal = Removal::Gone;
        for folder in &self.folders {
            let is_gone =
                |group: &str| matches!(unlinkat(folder, group, AtFlags::REMOVEDIR), Ok(()) | Err(Errno::NOENT));
            // Hardly any run makes groups of its own: a look below costs more than the removal.
            let is_left = || with_those_below(folder, name).iter().rev().filter(|group| !is_gone(group)).count() != 0;
            if !is_gone(name) && is_left() {
                removal = Removal::InUse;
            }
        }
        removal
    }

    /// Whether a process is in the group, or in one below it. A zombie is in none.
    pub fn is_populated(&self, name: &str) -> bool {
        let file = format!("{name}/cgroup.events");
        self.folders
            .iter()
            .any(|folder| read(folder, &file).is_ok_and(|events| events.lines().any(|line| line == "populated 1")))
    }

    /// The processes in the group and in those below it.
    pub fn pids(&self, name: &str) -> Vec<u32> {
        let mut pids = Vec::new();
        for folder in &self.folders {
            for group in with_those_below(folder, name) {
                let text = read(folder, &format!("{group}/cgroup.procs")).unwrap_or_default();
                // 0 is a process outside of our PID namespace.
                pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid != 0));
            }
        }
        pids
    }

    /// Kills every process in the group and in those below it, at one time: none can start another meanwhile.
    pub fn kill(&self, name: &str) {
        for folder in &self.folders {
            // A group that is not there has no process.
            let file = openat(folder, format!("{name}/cgroup.kill"), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
            let _ = file.map(|file| File::from(file).write_all(b"1"));
        }
    }

    /// What the processes of the group took so far.
    pub fn usage(&self, name: &str) -> Usage {
        let text = |file: &str| self.folders.iter().find_map(|folder| read(folder, &format!("{name}/{file}")).ok());
        let cpu_us = text("cpu.stat").and_then(|text| {
            text.lines().find_map(|line| line.strip_prefix("usage_usec ")?.trim().parse::<u64>().ok())
        });
        // Only where the group has the memory controller, and the kernel is 5.19 or newer.
        let memory_bytes = text("memory.peak").and_then(|text| text.trim().parse::<u64>().ok());
        Usage {
            cpu_ms: cpu_us.map(|micros| (micros + 500) / 1_000),
            memory_kb_max: memory_bytes.map(|bytes| bytes.div_ceil(1_024)),
        }
    }

    /// The names of all groups of runs.
    pub fn names(&self) -> Vec<String> {
        let all = self.folders.iter().flat_map(|folder| below(folder, "."));
        all.filter(|name| name.starts_with(RUN)).collect()
    }
}

/// The group and those below it, each before those below itself, by their paths from the folder.
fn with_those_below(folder: &OwnedFd, name: &str) -> Vec<String> {
    let mut groups = vec![name.to_string()];
    let mut at = 0;
    while let Some(group) = groups.get(at).cloned().filter(|_| groups.len() < BELOW_MAX) {
        groups.extend(below(folder, &group).into_iter().map(|name| format!("{group}/{name}")));
        at += 1;
    }
    groups
}

/// The names of the groups right below this one.
fn below(folder: &OwnedFd, group: &str) -> Vec<String> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let entries = openat(folder, group, flags, Mode::empty()).and_then(Dir::new);
    let entries = entries.into_iter().flatten().flatten();
    let groups = entries.filter(|entry| entry.file_type() == rustix::fs::FileType::Directory);
    let names = groups.filter_map(|entry| entry.file_name().to_str().ok().map(str::to_string));
    names.filter(|name| name != "." && name != "..").collect()
}

fn read(folder: &OwnedFd, file: &str) -> io::Result<String> {
    let file = openat(folder, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = String::new();
    File::from(file).take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}
