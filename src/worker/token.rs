//! Consul's token, which may be replaced in its file while the daemon runs.
//!
//! Read again when Consul refuses the one in force, and when the operator says so.
//!
//! Invariant: the token in force stays until another one is found.

use crate::model::config::{ConsulConfig, Secret};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

#[derive(Debug)]
pub struct Token {
    /// None: it comes from elsewhere and cannot change.
    file: Option<PathBuf>,
    in_force: Mutex<Option<Secret>>,
    is_to_be_read: AtomicBool,
}

impl Token {
    pub fn new(config: &ConsulConfig) -> Token {
        let in_force = Mutex::new(config.token.clone());
        Token { file: config.token_file.clone(), in_force, is_to_be_read: AtomicBool::new(false) }
    }

    /// The file is read before the next use. This itself does not block.
    pub fn read_again(&self) {
        self.is_to_be_read.store(true, Ordering::Relaxed);
    }

    pub fn in_force(&self) -> Option<Secret> {
        if self.is_to_be_read.swap(false, Ordering::Relaxed)
            && let Err(reason) = self.read()
        {
            log::warn!("{reason}; the token in force is kept");
        }
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Another one than this, which was refused; none where there is none. The refusal itself is told by others.
    pub fn instead_of(&self, refused: Option<&Secret>) -> Option<Secret> {
        let _ = self.read();
        self.in_force().filter(|token| Some(token) != refused)
    }

    fn read(&self) -> Result<(), String> {
        let Some(file) = &self.file else { return Ok(()) };
        let fail = |reason: &str| format!("read consul_token_file {}: {reason}", file.display());
        let text = std::fs::read_to_string(file).map_err(|error| fail(&error.to_string()))?;
        let token = Secret::of_file(&text);
        if token.0.is_empty() {
            return Err(fail("it is empty"));
        }
        let mut in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        if in_force.as_ref() != Some(&token) {
            log::info!("the token in {} is another one: it is used from now on", file.display());
            *in_force = Some(token);
        }
        Ok(())
    }
}
