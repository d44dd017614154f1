//! The ends of groups: what the processes took is read, and the group is removed. One in which a process was left on
//! purpose stays until that process has ended: it is looked at again every second.
//!
//! Not the ends of runs: a run is over with its main process, whatever it leaves behind.
//!
//! Invariant: no more than `IN_USE_MAX` groups are remembered.

use super::{Cgroups, Removal};
use crate::model::Usage;
use std::collections::VecDeque;
use std::sync::Arc;

/// How many groups of ended runs are looked at again. Beyond it the oldest is forgotten: the next start removes it.
const IN_USE_MAX: usize = 1_024;

/// Reads and removes the groups of ended runs.
#[derive(Debug)]
pub struct Keeper {
    cgroups: Arc<Cgroups>,
    /// The groups of ended runs in which processes were left.
    in_use: VecDeque<String>,
}

impl Keeper {
    /// It begins with the groups that earlier daemons left.
    pub fn new(cgroups: Arc<Cgroups>) -> Keeper {
        let names = cgroups.names();
        let mut keeper = Keeper { cgroups, in_use: VecDeque::new() };
        names.into_iter().for_each(|name| keeper.remove(name));
        keeper
    }

    /// The group's run is over. Answers what its processes took.
    pub fn end(&mut self, name: String) -> Usage {
        let usage = self.cgroups.usage(&name);
        self.remove(name);
        usage
    }

    /// Whether no group has to be looked at again.
    pub fn is_idle(&self) -> bool {
        self.in_use.is_empty()
    }

    /// Removes the groups that have become empty.
    pub fn look_again(&mut self) {
        self.in_use.retain(|name| self.cgroups.remove(name) == Removal::InUse);
    }

    fn remove(&mut self, name: String) {
        if self.cgroups.remove(&name) == Removal::InUse {
            self.in_use.push_back(name);
            if IN_USE_MAX < self.in_use.len() {
                self.in_use.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, Mode, OFlags};

    /// A keeper of ordinary folders, which behave as groups do; one with a file in it is in use.
    fn keeper(folder: &std::path::Path) -> Keeper {
        let opened = rustix::fs::openat(CWD, folder, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        Keeper::new(Arc::new(Cgroups::passed(opened)))
    }

    #[test]
    fn a_group_in_use_is_looked_at_again_and_one_beyond_the_limit_is_left_to_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = |at: usize| folder.path().join(format!("run-{at}"));
        let groups = || std::fs::read_dir(folder.path()).unwrap().count();
        std::fs::create_dir_all(path(0).join("below/further")).unwrap();
        std::fs::create_dir(folder.path().join("try")).unwrap();
        let mut own = keeper(folder.path());
        assert!(own.is_idle() && groups() == 1, "an empty group of an earlier daemon is removed, and nothing else");
        for at in 0..=IN_USE_MAX {
            std::fs::create_dir(path(at)).unwrap();
            std::fs::write(path(at).join("process"), "").unwrap();
            own.end(format!("run-{at}"));
        }
        own.look_again();
        assert_eq!((own.in_use.len(), groups()), (IN_USE_MAX, IN_USE_MAX + 2));
        (0..=IN_USE_MAX).for_each(|at| std::fs::remove_file(path(at).join("process")).unwrap());
        own.look_again();
        assert!(own.is_idle() && groups() == 2 && path(0).exists());
        assert!(keeper(folder.path()).is_idle() && groups() == 1);
    }
}
