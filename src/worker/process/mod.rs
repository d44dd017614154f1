//! Processes: starting them, ending them whole, and the two things that outlive the daemon: the marks and the guardian.
//!
//! Invariant: a process of a run is found again whatever it did to itself (setsid, a cleared environment, a new
//! parent), by the tag that it was born with.

#![expect(unsafe_code, reason = "signals, descriptors and mapped memory have no safe form everywhere")]

mod account;
mod descriptors;
mod direct_exec;
mod guardian;
mod inheritance;
pub mod kill;
mod launch;
mod marks;
mod memory;
mod spawn;
mod words;

pub use descriptors::raise_if_short;
pub use guardian::{CANNOT_START, DaemonLink, REFUSED, UNDER_GUARDIAN, adopt, guard};
pub use inheritance::end_inheritance;
pub use launch::{LAUNCH, NOT_LAUNCHED, launch};
pub use marks::{Mark, MarkBook, Ticket};
pub use memory::FreeMemory;
pub use spawn::{Running, Spawner};

/// A program to start. Whatever this program starts begins here.
#[expect(clippy::disallowed_methods, reason = "the one place where processes are made")]
fn command(program: impl AsRef<std::ffi::OsStr>) -> std::process::Command {
    std::process::Command::new(program)
}

/// Ends this process at once by a signal, which the guardian takes for a death.
#[expect(clippy::disallowed_methods, reason = "the one place where a process ends itself")]
pub fn die() -> ! {
    std::process::abort()
}

/// The pid of this process's parent: our guardian, while it is alive.
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

/// Whose a process is, and how a daemon is started, is known by /proc: a bare root may have none, or one of other pids.
pub fn require_proc() -> Result<(), String> {
    match std::path::Path::new("/proc/self/exe").exists() {
        true => Ok(()),
        false => {
            Err("/proc is needed, and this process is not in it: mount it first (mount -t proc proc /proc)".into())
        }
    }
}

/// Keeps what this process was told in its environment from other processes of the same user, the commands among them.
/// Root sees everything all the same.
pub fn hide_environment() {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        log::warn!("hide the environment from commands: {error}");
    }
}
