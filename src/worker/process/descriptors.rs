//! The limit of open descriptors. Each run takes two and each connection one, so more may be needed than the soft limit
//! that the daemon was given; commands get that limit all the same.
//!
//! The limit is the whole process's, and posix_spawn cannot give a child another one. So it is raised not at the start
//! but when descriptors run short, and lowered again afterwards: most daemons start all their commands with the limit
//! as it was given. While it is raised, commands go by way of `launch`, which sets it back and costs one exec more.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::os::fd::AsRawFd;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

/// Held by whoever starts a command, so that the limit does not change under it; taken to change the limit.
static STARTING: RwLock<()> = RwLock::new(());

/// So many more may be opened before anybody looks again.
const SPARE: u64 = 128;

/// Raises the limit as far as it may be when `newest`, a descriptor just opened, shows that they run short: a new one
/// always has the lowest number that is free.
pub fn raise_if_short(newest: &impl AsRawFd) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum && is_short(newest, &limit) {
        // While a command is being started the next descriptor will do: nobody is kept waiting, the reactor least of
        // all.
        let Ok(_nobody_starts) = STARTING.try_write() else { return };
        // What is refused here is refused again, with a reason, to whoever opens the one too many.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
}

fn is_short(newest: &impl AsRawFd, limit: &Rlimit) -> bool {
    let newest = newest.as_raw_fd() as u64;
    limit.current.is_some_and(|most| most <= newest + SPARE.min(most / 2))
}

/// The limit that the daemon was given and that its commands get.
#[derive(Debug)]
pub struct Given(Rlimit);

impl Given {
    /// Called before anybody has raised it.
    pub fn now() -> Given {
        Given(getrlimit(Resource::Nofile))
    }

    /// What a command must be set back to, as long as the limit is raised; it stays so until the guard is dropped.
    /// Raises the limit, or takes it back, where `newest` shows that it should be.
    pub fn to_set_back(&self, newest: &impl AsRawFd) -> (RwLockReadGuard<'static, ()>, Option<u64>) {
        let now = getrlimit(Resource::Nofile);
        let is_raised = now.current != self.0.current;
        if is_raised != self.is_needed(newest) {
            let _nobody_starts = STARTING.write().unwrap_or_else(PoisonError::into_inner);
            let current = if is_raised { self.0.current } else { now.maximum };
            // What is refused here is refused again, with a reason, to whoever opens the one too many.
            let _ = setrlimit(Resource::Nofile, Rlimit { current, maximum: now.maximum });
        }
        let starting = STARTING.read().unwrap_or_else(PoisonError::into_inner);
        let is_raised = getrlimit(Resource::Nofile).current != self.0.current;
        (starting, self.0.current.filter(|_| is_raised))
    }

    fn is_needed(&self, newest: &impl AsRawFd) -> bool {
        is_short(newest, &self.0) || self.0.current.is_some_and(|most| most / 2 <= newest.as_raw_fd() as u64)
    }
}
