//! A file that does not exist yet, and that jobs wait for: a test decides by it when their runs may go on.

use std::path::PathBuf;

#[derive(Clone, Debug)]
pub struct Gate(PathBuf);

impl Gate {
    pub fn new(path: PathBuf) -> Gate {
        Gate(path)
    }

    /// The part of a command that waits until the gate is open.
    pub fn wait(&self) -> String {
        self.meanwhile("sleep 0.05")
    }

    /// The part of a command that does something again and again until the gate is open.
    pub fn meanwhile(&self, command: &str) -> String {
        format!("while [ ! -e {} ]; do {command}; done", self.0.display())
    }

    pub fn open(&self) {
        std::fs::write(&self.0, "").expect("the folder takes a file");
    }
}
