//! The limit of open descriptors. Each run takes two and each connection one, so more may be needed than the soft limit
//! that the daemon was given; commands get that limit all the same.
//!
//! The limit is the whole process's, and posix_spawn cannot give a child another one. So it is raised not at the start
//! but when descriptors run short, and lowered again afterwards: most daemons start all their commands with the limit as
//! it was given. While it is raised, commands go by way of `launch`, which sets it back and costs one exec more.

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use std::os::fd::AsRawFd;

/// So many more may be opened before anybody looks again.
const ROOM: u64 = 128;

/// Raises the limit as far as it may be when `newest`, a descriptor just opened, shows that they run short: a new one
/// always has the lowest number that is free.
pub fn make_room(newest: &impl AsRawFd) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum && is_short(newest, &limit) {
        // What is refused here is refused again, with a reason, to whoever opens the one too many.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
}

fn is_short(newest: &impl AsRawFd, limit: &Rlimit) -> bool {
    let newest = newest.as_raw_fd() as u64;
    limit.current.is_some_and(|most| most <= newest + ROOM.min(most / 2))
}

/// The limit that the daemon was given and that its commands get.
#[derive(Debug)]
pub struct Given(Rlimit);

impl Given {
    /// Called before anybody has raised it.
    pub fn now() -> Given {
        Given(getrlimit(Resource::Nofile))
    }

    /// What a command must be set back to, as long as the limit is raised. Takes it back where `newest` shows that it is
    /// not needed any more.
    pub fn to_set_back(&self, newest: &impl AsRawFd) -> Option<u64> {
        make_room(newest);
        let now = getrlimit(Resource::Nofile);
        if now.current == self.0.current {
            return None;
        }
        let is_needed = self.0.current.is_some_and(|most| most / 2 <= newest.as_raw_fd() as u64);
        if is_needed || is_short(newest, &self.0) || setrlimit(Resource::Nofile, self.0).is_err() {
            return self.0.current;
        }
        None
    }

    /// Where the limit was raised while a command was being started, it may have got the raised one: for a moment more.
    pub fn correct(&self, child: Pid) {
        if getrlimit(Resource::Nofile).current != self.0.current {
            // An error means that it is over already, or another user's by now.
            let _ = prlimit(Some(child), Resource::Nofile, self.0);
        }
    }
}
