//! The variables of the environment that are for this program alone: those whose names begin with `WING_`, some of which
//! are secrets. No command gets one, and /proc/PID/environ shows their values no more once they are taken.
//!
//! Not here: what they mean; see `config`.
//!
//! Invariant: after `take_secrets` this process's environment has none of them.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// How these variables' names begin.
pub const PREFIX: &[u8] = b"WING_";

/// Names and values.
pub type Secrets = Vec<(OsString, OsString)>;

/// Takes them out of the environment, and wipes their values where the kernel shows them. To be called while there is
/// one thread, and after the configuration was read.
#[expect(clippy::disallowed_methods, reason = "the environment is read here to be cleaned")]
pub fn take_secrets() -> Secrets {
    let is_ours = |name: &OsString| name.as_bytes().starts_with(PREFIX);
    let secrets: Secrets = std::env::vars_os().filter(|(name, _)| is_ours(name)).collect();
    let names = secrets.iter().filter_map(|(name, _)| CString::new(name.clone().into_vec()).ok());
    for name in names {
        // SAFETY: there is one thread, so nobody else reads or changes the environment meanwhile. `getenv` answers null or
        // a string in memory that this process may write (its stack, where the kernel has put it), up to its NUL.
        unsafe {
            let value = libc::getenv(name.as_ptr());
            if !value.is_null() {
                std::ptr::write_bytes(value, 0, libc::strlen(value));
            }
            libc::unsetenv(name.as_ptr());
        }
    }
    secrets
}
