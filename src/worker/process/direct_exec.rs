//! Direct exec, the way around the shell: a command without shell syntax is executed as the shell would have executed
//! it, and the start of the shell is saved.
//!
//! It is open only where nobody can see the difference. A shell that starts a child for its last command (as Debian's
//! dash does) can be told from none: its command is no group leader, and one that a signal kills is an exit code and a
//! word. So the shell is tried once, at the start of the daemon: what it makes of a plain command, whether it becomes
//! that command itself, and what it does to the environment.
//!
//! Whatever is in doubt goes to the shell: a program that is not found or not to be executed, a script, a builtin, a
//! path that leaves the root file system (its other end may hang, and must not hang us), and so does whatever could not
//! be executed after all; the exit codes 126 and 127 and their words are always the shell's own.

use super::words::words;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The shells whose words we know, by the names of their programs.
const SHELLS: [&str; 2] = ["bash", "dash"];
/// Variables by which a shell may be told to read files first, to find programs in another way, or to tell the time.
const MOVING: [&str; 14] = [
    "BASHOPTS",
    "BASH_ENV",
    "ENV",
    "EPOCHREALTIME",
    "EPOCHSECONDS",
    "EXECIGNORE",
    "LINENO",
    "POSIXLY_CORRECT",
    "RANDOM",
    "SECONDS",
    "SHELLOPTS",
    "SRANDOM",
    "SSH2_CLIENT",
    "SSH_CLIENT",
];
/// Variables that a shell sets for its commands.
const SET_BY_SHELL: [&str; 4] = ["OLDPWD", "PWD", "SHLVL", "_"];
/// The program by which the shell is tried: it prints the pid and the environment that the shell gave it.
const TRIED: &str = "/bin/cat";

#[derive(Debug)]
pub struct DirectExec {
    /// As the shell hands it on, `_` aside.
    environment: Vec<(OsString, OsString)>,
    /// Whether the shell tells each program by `_` where it was found.
    tells_path: bool,
    /// Where programs are looked for.
    folders: Vec<PathBuf>,
    /// The daemon's own directory as the shell calls it, and which it is.
    pwd: PathBuf,
    directory: (u64, u64),
}

impl DirectExec {
    /// Tries the shell with this environment, which must have all names that a command's has.
    pub fn try_out(shell: &Path, environment: &[(OsString, OsString)]) -> Option<DirectExec> {
        let is_known = shell.canonicalize().is_ok_and(|program| SHELLS.iter().any(|name| program.ends_with(name)));
        let is_moving =
            |name: &OsString| MOVING.iter().any(|moving| name == moving) || name.as_bytes().starts_with(b"BASH_FUNC_");
        let is_changed = rustix::process::getuid() != rustix::process::geteuid()
            || rustix::process::getgid() != rustix::process::getegid();
        if !is_known || is_changed || environment.iter().any(|(name, _)| is_moving(name)) {
            return None;
        }
        let value = |name: &str| environment.iter().find(|(had, _)| had == name).map(|(_, value)| value);
        let folders = folders(value("PATH")?)?;
        let mut handed_on = hand_on(shell, environment)?;
        let path = handed_on.iter().position(|(name, _)| name == "_").map(|at| handed_on.remove(at).1);
        let pwd = handed_on.iter().find(|(name, _)| name == "PWD").map(|(_, value)| PathBuf::from(value))?;
        let here = std::fs::metadata(".").ok()?;
        let is_as_given = |(name, handed): &(OsString, OsString)| {
            SET_BY_SHELL.iter().any(|set| name == set)
                || environment.iter().any(|(had, value)| had == name && value == handed)
        };
        let is_understood = handed_on.iter().all(is_as_given) && path.as_ref().is_none_or(|path| path == TRIED);
        let direct = DirectExec {
            environment: handed_on,
            tells_path: path.is_some(),
            folders,
            pwd,
            directory: (here.dev(), here.ino()),
        };
        (is_understood && direct.is_in_place()).then_some(direct)
    }

    /// The command as the shell would execute it; none where that is the shell's own affair.
    pub fn command(&self, command: &str) -> Option<Command> {
        let words = words(command)?;
        let (first, rest) = words.split_first()?;
        let program = self.find(first)?;
        if !self.is_in_place() {
            return None;
        }
        let mut command = super::command(&program);
        command.arg0(first).args(rest).env_clear();
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if self.tells_path {
            command.env("_", &program);
        }
        Some(command)
    }

    fn find(&self, word: &str) -> Option<PathBuf> {
        let paths = self.folders.iter().map(|folder| folder.join(word));
        let paths = if word.starts_with('/') { vec![PathBuf::from(word)] } else { paths.collect() };
        let first = paths.into_iter().find_map(|path| look(&path).map(|is_program| (path, is_program)));
        first.and_then(|(path, is_program)| is_program.then_some(path))
    }

    /// Whether the daemon's directory still has the name that the shell would find right.
    fn is_in_place(&self) -> bool {
        let here = open(&self.pwd, OFlags::PATH | OFlags::DIRECTORY).and_then(fstat);
        here.is_ok_and(|here| (here.st_dev, here.st_ino) == self.directory)
    }
}

/// What a name leads to: surely a program, or a file that only the shell may know how to run; none: nothing at all.
fn look(path: &Path) -> Option<bool> {
    match open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY) {
        Err(Errno::NOENT | Errno::NOTDIR) => None,
        Err(_) => Some(false),
        Ok(file) => {
            let is_for_all = |stat: rustix::fs::Stat| stat.st_mode & 0o170_111 == 0o100_111;
            let mut magic = [0; 4];
            let is_program = fstat(&file).is_ok_and(is_for_all) && File::from(file).read_exact(&mut magic).is_ok();
            Some(is_program && &magic == b"\x7fELF")
        }
    }
}

/// Opens what can be reached without leaving the root file system.
fn open(path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    openat2(CWD, path, flags | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::NO_XDEV)
}

/// The folders of a PATH that every shell reads alike.
fn folders(path: &OsStr) -> Option<Vec<PathBuf>> {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-".contains(byte);
    let folder = |bytes: &[u8]| {
        let is_clear = bytes.starts_with(b"/") && !bytes.ends_with(b"/") && !bytes.windows(2).any(|pair| pair == b"//");
        (is_clear && bytes.iter().all(is_plain)).then(|| PathBuf::from(OsStr::from_bytes(bytes)))
    };
    path.as_bytes().split(|byte| *byte == b':').map(folder).collect()
}

/// The environment that a command of this shell gets, where the shell becomes the command.
fn hand_on(shell: &Path, environment: &[(OsString, OsString)]) -> Option<Vec<(OsString, OsString)>> {
    look(Path::new(TRIED)).filter(|is_program| *is_program)?;
    let mut command = super::command(shell);
    command.arg("-c").arg(format!("{TRIED} /proc/self/stat /proc/self/environ")).env_clear();
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().ok()?;
    let pid = child.id().to_string();
    let output = child.wait_with_output().ok().filter(|output| output.status.success() && output.stderr.is_empty())?;
    let end = output.stdout.iter().position(|byte| *byte == b'\n')?;
    let (stat, environ) = output.stdout.split_at(end + 1);
    let entries = environ.split(|byte| *byte == 0).filter(|entry| !entry.is_empty());
    let pair = |entry: &[u8]| {
        let at = entry.iter().position(|byte| *byte == b'=')?;
        Some((OsString::from_vec(entry[..at].to_vec()), OsString::from_vec(entry[at + 1..].to_vec())))
    };
    let has_become = stat.split(|byte| *byte == b' ').next() == Some(pid.as_bytes());
    has_become.then(|| entries.map(pair).collect())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_path_that_every_shell_reads_alike_is_searched() {
        let folders = |path: &str| folders(OsStr::new(path)).map(|folders| folders.len());
        assert_eq!(folders("/usr/local/bin:/usr/bin:/bin"), Some(3));
        assert_eq!(folders("/opt/a_b-c.d/bin"), Some(1));
        for path in
            ["", ":/bin", "/bin:", "/bin::/sbin", "bin", "/bin:.", "~/bin:/bin", "/bin/", "//bin", "/a b", "/x%func"]
        {
            assert_eq!(folders(path), None, "{path:?}");
        }
    }

    #[test]
    fn only_a_binary_that_all_may_execute_is_surely_a_program() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &[u8], mode: u32| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
            look(&path)
        };
        assert_eq!(file("program", b"\x7fELF and more", 0o755), Some(true));
        assert_eq!(file("private", b"\x7fELF and more", 0o700), Some(false));
        assert_eq!(file("data", b"\x7fELF and more", 0o644), Some(false));
        assert_eq!(file("script", b"#!/bin/sh\n", 0o755), Some(false));
        assert_eq!(file("empty", b"", 0o755), Some(false));
        assert_eq!(look(folder.path()), Some(false));
        assert_eq!(look(&folder.path().join("none")), None);
        assert_eq!(look(&folder.path().join("program/below")), None);
        assert_eq!(look(Path::new("/proc/self/exe")), Some(false), "another file system");
    }
}
