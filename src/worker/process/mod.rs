//! Processes: how runs are started and ended; and the marks and the guardian, which outlive the daemon.
//!
//! Not a place for decisions about runs: the core says which run starts or ends, and when.
//!
//! Invariant: a process of a run is found by the tag that it inherited, even after setsid, with a cleared environment,
//! or under a new parent (for the exceptions see `kill`).

#![expect(unsafe_code, reason = "some calls for signals, descriptors and mapped memory have no safe form")]

mod account;
pub mod cgroups;
mod descriptors;
mod direct_exec;
mod guardian;
mod inheritance;
pub mod kill;
mod launch;
mod marks;
mod memory;
mod program;
mod running;
mod secrets;
mod spawn;
mod words;

pub use account::Account;
pub use descriptors::{descriptors_max, raise_if_short};
pub use guardian::{CANNOT_START, DaemonLink, REFUSED, UNDER_GUARDIAN, adopt, guard};
pub use inheritance::{end_inheritance, survive_signals};
pub use launch::{LAUNCH, NOT_LAUNCHED, launch};
pub use marks::{Mark, MarkBook, OpenedMarks, Snapshot, Ticket, cgroup_of};
pub use memory::FreeMemory;
pub use running::Running;
pub use secrets::take_secrets;
pub use spawn::{Spawner, Start};

/// A program to start. Everything that this program starts is made here.
#[expect(clippy::disallowed_methods, reason = "the one place where processes are made")]
fn command(program: impl AsRef<std::ffi::OsStr>) -> std::process::Command {
    std::process::Command::new(program)
}

/// Ends this process at once by SIGABRT, so that the guardian starts a new daemon.
#[expect(clippy::disallowed_methods, reason = "the one place where a process ends itself")]
pub fn die() -> ! {
    std::process::abort()
}

/// The pid of this process's parent: our guardian, while it is alive. 0: none in this pid namespace.
pub fn parent() -> u32 {
    rustix::process::getppid().map_or(0, |pid| pid.as_raw_pid() as u32)
}

/// Fills the bytes with random ones, of the kernel's for secrets.
pub fn random(bytes: &mut [u8]) -> Result<(), String> {
    let filled = rustix::rand::getrandom(&mut *bytes, rustix::rand::GetRandomFlags::empty());
    match filled {
        Ok(count) if count == bytes.len() => Ok(()),
        Ok(_) => Err("get random bytes: there are too few".into()),
        Err(error) => Err(format!("get random bytes: {error}")),
    }
}

/// An error without a /proc of this pid namespace: the guardian starts the daemon as /proc/self/exe, and finds the
/// processes of runs in /proc.
pub fn require_proc() -> Result<(), String> {
    match std::path::Path::new("/proc/self/exe").exists() {
        true => Ok(()),
        false => Err("/proc is needed, and this process is not in it: mount it (mount -t proc proc /proc)".into()),
    }
}

/// Hides this process's environment, which may have secrets, from other processes of the same user, such as its
/// commands. It cannot be hidden from root.
pub fn hide_environment() {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        log::warn!("hide the environment from commands: {error}; keep secrets in files (the keys *_file)");
    }
}
