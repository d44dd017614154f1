//! Consul's token. An operator may replace it in its file while the daemon runs.
//!
//! The file is read again when Consul refuses the token in force, and when the operator sends HUP.
//!
//! Not here: the calls that carry the token; see `consul`.
//!
//! Invariant: the token in force stays until the file has another one.

use crate::model::config::{ConsulConfig, Secret};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// The token in force, and the file that it comes from.
#[derive(Debug)]
pub struct Token {
    /// None: the token stands in the configuration and cannot change.
    file: Option<PathBuf>,
    in_force: Mutex<Option<Secret>>,
    is_to_be_read: AtomicBool,
}

impl Token {
    pub fn new(config: &ConsulConfig) -> Token {
        let in_force = Mutex::new(config.token.clone());
        Token { file: config.token_file.clone(), in_force, is_to_be_read: AtomicBool::new(false) }
    }

    /// Has the file read before the token's next use. This call does not block.
    pub fn read_again(&self) {
        self.is_to_be_read.store(true, Ordering::Relaxed);
    }

    /// The token to use; none where Consul wants none. May read the file.
    pub fn in_force(&self) -> Option<Secret> {
        if self.is_to_be_read.swap(false, Ordering::Relaxed)
            && let Err(reason) = self.read()
        {
            log::warn!("{reason}; the token in force stays: mend the file and send HUP");
        }
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the file again, and answers its token where that is not the one that Consul refused. An error is dropped,
    /// because the caller reports Consul's refusal.
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
            log::info!("{} has another token: it is used from now on", file.display());
            *in_force = Some(token);
        }
        Ok(())
    }
}
