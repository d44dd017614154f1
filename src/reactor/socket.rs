//! The Unix socket in data_dir, where local tools reach the API without a token.
//!
//! Not the check who may use it: `api::access` does that by the peer's user.
//!
//! Invariants: nobody but the daemon's user and root can connect to a socket that has its name; a file or link that somebody
//! has put in its place is replaced, never followed or written to.

use mio::net::UnixListener;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

pub const NAME: &str = "api.sock";

/// The socket's file, which goes when this is dropped.
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Makes the socket. Call it only while data_dir is locked: a socket that is there is a dead daemon's.
pub fn listen(data_dir: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let folder = std::fs::File::open(data_dir)?;
    // A socket's path may have 107 bytes; by way of the open folder it is short whatever data_dir is.
    let short = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&folder)));
    let (new, path) = (format!("{NAME}.new"), data_dir.join(NAME));
    match std::fs::remove_file(data_dir.join(&new)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(short.join(&new))?;
    // It gets its name once it has its mode.
    std::fs::set_permissions(data_dir.join(&new), Permissions::from_mode(0o600))?;
    std::fs::rename(data_dir.join(&new), &path)?;
    Ok((listener, SocketFile(path)))
}
