//! The lock of data_dir: one guardian with its daemon has it at a time.
//!
//! Not the leader's lock of a cluster; Consul has that one.
//!
//! Invariant: while a guardian or its daemon lives, no other one gets the lock. Nobody else can keep it from us.

use crate::core::time::bounds::GUARDIAN_PATIENCE_MS;
use crate::worker::process::kill::start_time;
use crate::worker::{clock, own_files};
use rustix::fs::FlockOperation;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_millis(GUARDIAN_PATIENCE_MS);
/// The time between two tries.
const EVERY: Duration = Duration::from_millis(20);
/// A pid has no more digits.
const PID_BYTES_MAX: u64 = 16;

/// Locks data_dir, and writes this process's pid into the file. Error: another guardian or its daemon lives.
#[expect(clippy::disallowed_methods, reason = "no event tells when a lock is given up")]
pub fn lock(data_dir: &Path) -> Result<File, String> {
    let path = data_dir.join("lock");
    let fail = |error: io::Error| format!("lock {}: {error}", path.display());
    let mut file = own_files::open(&path).map_err(fail)?;
    let started_at = clock::mono();
    while let Err(error) = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        if error != rustix::io::Errno::WOULDBLOCK {
            return Err(fail(error.into()));
        }
        if let Some(stranger) = stranger(&file) {
            log::warn!("{}: {stranger} holds it, and has no right to: it is made anew", path.display());
            file = own_files::make_anew(&path).map_err(fail)?;
            continue;
        }
        let holder = holder(&file);
        // A living guardian keeps the lock. A dead one's daemon will end soon, so it is worth a wait.
        let is_alive = holder.parse().ok().and_then(start_time).is_some();
        if is_alive || PATIENCE <= clock::mono().since(started_at) {
            return Err(format!(
                "data_dir {} is in use by another wing-crontab (pid {holder}): stop it, or give this one a data_dir of its own",
                data_dir.display(),
            ));
        }
        std::thread::sleep(EVERY);
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(fail)?;
    Ok(file)
}

/// The pid that the file names.
fn holder(file: &File) -> String {
    let mut holder = String::new();
    let _ = { file }.rewind().and_then(|()| file.take(PID_BYTES_MAX).read_to_string(&mut holder));
    holder.trim().into()
}

/// Who has taken the lock, where that was no guardian of ours. While the file could be read by all, every user could take
/// it.
fn stranger(file: &File) -> Option<String> {
    let inode = file.metadata().ok()?.ino();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let pid = locks.lines().find_map(|line| flock_holder(line, inode))?;
    let own = rustix::process::geteuid().as_raw();
    match fs::metadata(format!("/proc/{pid}")).map(|metadata| metadata.uid()) {
        // A process that hides its environment, as we do, seems to be root's.
        Ok(uid) if uid == own || uid == 0 => None,
        Ok(uid) => Some(format!("process {pid} of user {uid}")),
        // A dead guardian's daemon still has its guardian's lock, and the file names that one.
        Err(_) if holder(file) == pid.to_string() => None,
        Err(_) => Some(format!("the child of an ended process {pid}")),
    }
}

/// The pid in a line of /proc/locks such as `1: FLOCK  ADVISORY  WRITE 732 fe:00:1187 0 EOF`, where the lock is this
/// inode's.
fn flock_holder(line: &str, inode: u64) -> Option<u32> {
    let mut fields = line.split_whitespace().skip_while(|field| *field != "FLOCK");
    let pid = fields.nth(3)?.parse().ok()?;
    let of: u64 = fields.next()?.rsplit(':').next()?.parse().ok()?;
    (of == inode).then_some(pid)
}
