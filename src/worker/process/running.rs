//! A process that was started: how its end is noticed, and what it took.
//!
//! Not its start: `spawn` does that. Not its output: the reactor reads it.
//!
//! Invariant: a process is reaped once, by `try_wait`.

use super::cgroups::Cgroups;
use crate::core::io::ports::{SpawnError, Started};
use crate::model::{Exit, Usage, Wall};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

/// A process that was started.
#[derive(Debug)]
pub struct Running {
    /// Becomes readable when the process has ended.
    pub pidfd: OwnedFd,
    /// The read end of the pipe, which does not block.
    pub output: OwnedFd,
    pub started: Started,
    /// The name of the run's control group; none where it has none.
    pub cgroup: Option<String>,
    /// The most memory that the daemon itself has had, in units of 1,024 bytes. The process began in the daemon's memory,
    /// and the kernel counts that as its own.
    daemon_kb_max: u64,
}

/// A process that was started and is not watched yet.
pub struct Begun {
    pub pid: u32,
    pub output: OwnedFd,
    pub at: Wall,
    /// The name of its control group; none where it has none of its own.
    pub cgroup: Option<String>,
}

/// Watches over a process that has begun. Where that is not possible, the process is killed.
pub fn watch(begun: Begun, cgroups: Option<&Cgroups>) -> Result<Running, SpawnError> {
    let Begun { pid, output, at, cgroup } = begun;
    let opened = Pid::from_raw(pid as i32).ok_or(rustix::io::Errno::SRCH).and_then(|process| {
        pidfd_open(process, PidfdFlags::NONBLOCK).inspect_err(|_| {
            let _ = kill_process_group(process, Signal::KILL);
        })
    });
    match opened {
        Ok(pidfd) => Ok(Running { pidfd, output, started: Started { pid, at }, cgroup, daemon_kb_max: own_kb_max() }),
        Err(error) => {
            // Its end could not be noticed, so it must not go on.
            let group = cgroups.zip(cgroup.as_ref());
            group.iter().for_each(|(cgroups, name)| cgroups.kill(name));
            let _ = wait(pid, 0);
            group.iter().for_each(|(cgroups, name)| _ = cgroups.remove(name));
            Err(SpawnError::Failed(format!("started and killed at once: its end cannot be watched: {error}")))
        }
    }
}

impl Running {
    /// How the process ended, and what it took with those of its descendants that it has waited for; none while it runs.
    /// Reaps it.
    pub fn try_wait(&mut self) -> Option<(Exit, Usage)> {
        match wait(self.started.pid, libc::WNOHANG) {
            Ok(None) => None,
            Ok(Some((exit, rusage))) => Some((exit, self.usage(&rusage))),
            // Nothing else reaps it, so this cannot happen. If it did, a wrong code is better than a run without an
            // end.
            Err(()) => Some((Exit::Code(-1), Usage::default())),
        }
    }

    fn usage(&self, rusage: &libc::rusage) -> Usage {
        let micros = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
        let cpu_us = micros(rusage.ru_utime) + micros(rusage.ru_stime);
        let memory_kb_max = Some(rusage.ru_maxrss as u64).filter(|kb| self.daemon_kb_max < *kb);
        Usage { cpu_ms: Some((cpu_us + 500) / 1_000), memory_kb_max }
    }
}

/// Reaps a child. None: it has not ended. Error: it is no child of ours.
fn wait(pid: u32, flags: libc::c_int) -> Result<Option<(Exit, libc::rusage)>, ()> {
    let (mut status, mut rusage) = (0, MaybeUninit::zeroed());
    let reaped = loop {
        // SAFETY: the call writes to these two only.
        let reaped = unsafe { libc::wait4(pid as libc::pid_t, &mut status, flags, rusage.as_mut_ptr()) };
        if reaped != -1 || std::io::Error::last_os_error().kind() != std::io::ErrorKind::Interrupted {
            break reaped;
        }
    };
    // SAFETY: numbers, which the kernel has written, or which are zero.
    let rusage = unsafe { rusage.assume_init() };
    let exit = match libc::WIFEXITED(status) {
        true => Exit::Code(libc::WEXITSTATUS(status)),
        false => Exit::Signal(libc::WTERMSIG(status)),
    };
    match reaped {
        -1 => Err(()),
        0 => Ok(None),
        _ => Ok(Some((exit, rusage))),
    }
}

fn own_kb_max() -> u64 {
    let mut rusage = MaybeUninit::zeroed();
    // SAFETY: the call writes to this only, and what it does not write is zero.
    let rusage: libc::rusage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, rusage.as_mut_ptr());
        rusage.assume_init()
    };
    rusage.ru_maxrss as u64
}
