//! Asking the host's `getent`: the C library's own program, which loads the modules that nsswitch.conf names.
//!
//! Not a cache, and no reader of /etc/passwd: those stand beside it.
//!
//! Invariants: the program gets nothing of the daemon's environment and no shell; when the time is over it is killed with
//! what it has started. After one silence no further question is asked.

use super::files::{self, Account};
use crate::model::Mono;
use crate::worker::clock;
use crate::worker::process::program::Program;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};

/// Where a C library has it.
const PROGRAMS: [&str; 2] = ["/usr/bin/getent", "/bin/getent"];
const PATH: &str = "/usr/bin:/bin";
/// The longest answer: a user in as many groups as Linux allows (65,536) fits.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// The exit code for "there is none".
const NONE: i32 = 2;

/// Why no answer is to be had.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Silence {
    /// The time was over.
    Hangs,
    /// It cannot be started, or fails.
    Fails,
}

/// The questions about one user.
#[derive(Debug)]
pub struct Getent {
    until: Mono,
    /// Set by the first question that was not answered.
    pub silence: Option<Silence>,
}

impl Getent {
    /// It may be asked until this moment.
    pub fn until(until: Mono) -> Getent {
        Getent { until, silence: None }
    }

    /// It hung just now, and is not asked.
    pub fn given_up() -> Getent {
        Getent { until: Mono(0), silence: Some(Silence::Hangs) }
    }

    /// The account of a user who is not in /etc/passwd, by name, or by number; its own group is its only one.
    pub fn account(&mut self, user: &str) -> Result<Account, String> {
        let nobody = || format!("there is no such user in {}", files::PASSWD);
        // The number that is no user's is some modules' word for any.
        if files::number(user.as_bytes()).is_none() && user.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(nobody());
        }
        let text = self.ask("passwd", user.as_ref()).map_err(|reason| format!("{}, and {reason}", nobody()))?;
        let text = text.ok_or_else(|| format!("{}, nor in another directory of this host", nobody()))?;
        let line = text.strip_suffix(b"\n").unwrap_or(&text);
        let account = files::account_of(line.split(|byte| *byte == b':').collect());
        let is_meant = |account: &Account| files::number(user.as_bytes()).is_none_or(|uid| uid == account.uid);
        account.filter(is_meant).ok_or_else(|| {
            format!("getent passwd {user} answers what no user can be: {:?}", String::from_utf8_lossy(&text))
        })
    }

    /// The supplementary groups that a login of this user has.
    pub fn groups(&mut self, user: &OsStr) -> Result<Vec<u32>, String> {
        let text = self.ask("initgroups", user)?.unwrap_or_default();
        groups_of(&text, user.as_bytes()).ok_or_else(|| {
            format!(
                "getent initgroups {} answers no list of groups: {:?}",
                user.display(),
                String::from_utf8_lossy(&text)
            )
        })
    }

    /// None: there is nobody of this name.
    fn ask(&mut self, database: &str, user: &OsStr) -> Result<Option<Vec<u8>>, String> {
        let hangs = || "the host's directories (getent) do not answer in time".to_string();
        if self.silence == Some(Silence::Hangs) {
            return Err(hangs());
        }
        let answer = start(database, user).and_then(|child| answer(child, self.until));
        let shown = format!("getent {database} {}", user.display());
        let (silence, reason) = match answer {
            Ok((Some(0), text)) => return Ok(Some(text)),
            Ok((Some(NONE), _)) => return Ok(None),
            Ok((Some(code), _)) => (Silence::Fails, format!("{shown} fails with exit code {code}")),
            Ok((None, _)) => (Silence::Fails, format!("{shown} was killed")),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => (Silence::Hangs, hangs()),
            Err(error) => (Silence::Fails, format!("other directories cannot be asked: {shown}: {error}")),
        };
        self.silence = Some(silence);
        Err(reason)
    }
}

/// The groups in `NAME gid gid ...`; a name may have spaces.
fn groups_of(text: &[u8], user: &[u8]) -> Option<Vec<u32>> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let rest = text.strip_prefix(user)?;
    if !rest.is_empty() && rest[0] != b' ' {
        return None;
    }
    rest.split(|byte| *byte == b' ').filter(|word| !word.is_empty()).map(files::number).collect()
}

fn start(database: &str, user: &OsStr) -> io::Result<Child> {
    let mut started = Err(io::ErrorKind::NotFound.into());
    for path in PROGRAMS {
        let mut program = Program::new(path, path);
        program.arguments = vec![database.into(), user.into()];
        program.environment.insert("PATH".into(), OsString::from(PATH));
        let mut command = program.command();
        // With a group of its own it can be ended with what it has started.
        command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        started = command.spawn();
        if !started.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            break;
        }
    }
    started
}

/// What it says, and its exit code (none: a signal ended it). Nothing of it is left when this returns.
fn answer(mut child: Child, until: Mono) -> io::Result<(Option<i32>, Vec<u8>)> {
    let heard = hear(&mut child, until);
    if heard.is_err() {
        let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    }
    let status = child.wait()?;
    Ok((status.code(), heard?))
}

fn hear(child: &mut Child, until: Mono) -> io::Result<Vec<u8>> {
    let exit = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let mut output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let (mut text, mut part) = (Vec::new(), [0; 8 << 10]);
    loop {
        wait_for(&output, until)?;
        match output.read(&mut part)? {
            0 => break,
            count => text.extend(&part[..count]),
        }
        if ANSWER_BYTES_MAX < text.len() as u64 {
            return Err(io::Error::other(format!("it says more than {ANSWER_BYTES_MAX} bytes")));
        }
    }
    wait_for(&exit, until)?;
    Ok(text)
}

/// Waits until this can be read.
fn wait_for(what: impl AsFd, until: Mono) -> io::Result<()> {
    loop {
        let left = until.since(clock::mono());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&what, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_numbers_behind_the_name() {
        let groups = |text: &str, user: &str| groups_of(text.as_bytes(), user.as_bytes());
        assert_eq!(groups("alice                 10 100\n", "alice"), Some(vec![10, 100]));
        assert_eq!(groups("alice                 \n", "alice"), Some(vec![]));
        assert_eq!(groups("John Doe              7\n", "John Doe"), Some(vec![7]));
        assert_eq!(groups("7                     8\n", "7"), Some(vec![8]));
        for text in ["", "bob 10\n", "alice2 10\n", "alice x\n", "alice 4294967295\n", "alice -1\n", "alice 1\nbob 2\n"]
        {
            assert_eq!(groups(text, "alice"), None, "{text:?}");
        }
    }
}
