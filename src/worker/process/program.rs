//! A program with all that it is executed with.
//!
//! Not here: the choice of the program.
//!
//! Invariant: the environment is the whole one; nothing is inherited beside it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program to execute. It may be started by std, or inside a control group.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its absolute path.
    pub path: PathBuf,
    /// What it is told to be called: its argument number 0.
    pub name: OsString,
    pub arguments: Vec<OsString>,
    pub environment: BTreeMap<OsString, OsString>,
}

impl Program {
    /// The program at this path, called so, without arguments and environment.
    pub fn new(path: impl AsRef<Path>, name: impl AsRef<OsStr>) -> Program {
        Program {
            path: path.as_ref().into(),
            name: name.as_ref().into(),
            arguments: Vec::new(),
            environment: BTreeMap::new(),
        }
    }

    /// The same as std executes it.
    pub fn command(&self) -> Command {
        let mut command = super::command(&self.path);
        command.arg0(&self.name).args(&self.arguments).env_clear().envs(&self.environment);
        command
    }
}
