//! The limit of open descriptors. Each run takes two descriptors and each connection one, so the daemon may need more
//! than the soft limit that it was started with. Commands still get that limit.
//!
//! A child inherits the limit of the whole process, and posix_spawn cannot set another one. So the limit is raised only
//! when descriptors run short, and lowered again afterwards; most daemons never raise it. While it is raised, commands
//! are started by `launch`, which sets it back and costs one exec more.
//!
//! Not the hard limit: the soft one is never raised above it.
//!
//! Invariant: the limit does not change while a command is being started.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::os::fd::AsRawFd;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

/// A reader starts a command; a writer changes the limit. So the limit does not change during a start.
static STARTING: RwLock<()> = RwLock::new(());

/// Descriptors run short when fewer than so many are left below the limit.
const SPARE: u64 = 128;

/// Raises the soft limit to the hard one where descriptors run short. `newest` was just opened: a new descriptor has
/// the lowest free number, so a high number means that many are open.
pub fn raise_if_short(newest: &impl AsRawFd) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum && is_short(newest, &limit) {
        // The reactor must not wait for a start: the next descriptor will raise the limit.
        let Ok(_nobody_starts) = STARTING.try_write() else { return };
        // An error needs no report here: where the limit stays too low, the call that opens one too many reports it.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
}

/// How many descriptors this process may have at the most.
pub fn descriptors_max() -> usize {
    getrlimit(Resource::Nofile).maximum.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX))
}

fn is_short(newest: &impl AsRawFd, limit: &Rlimit) -> bool {
    let newest = newest.as_raw_fd() as u64;
    limit.current.is_some_and(|most| most <= newest + SPARE.min(most / 2))
}

/// The limit that the daemon was started with, and that its commands get.
#[derive(Debug)]
pub struct Given(Rlimit);

impl Given {
    /// The limit as it is now. To be called before it is raised.
    pub fn now() -> Given {
        Given(getrlimit(Resource::Nofile))
    }

    /// Raises the limit, or lowers it again, as `newest` shows (see `raise_if_short`). Then the limit stays until the
    /// guard is dropped. The number is the limit that a command must be set back to; none while it is not raised.
    pub fn to_set_back(&self, newest: &impl AsRawFd) -> (RwLockReadGuard<'static, ()>, Option<u64>) {
        let now = getrlimit(Resource::Nofile);
        let is_raised = now.current != self.0.current;
        if is_raised != self.is_needed(newest) {
            let _nobody_starts = STARTING.write().unwrap_or_else(PoisonError::into_inner);
            let current = if is_raised { self.0.current } else { now.maximum };
            // As above, an error needs no report.
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
