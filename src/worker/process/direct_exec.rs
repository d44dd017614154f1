//! Direct exec: a command without shell syntax is executed without a shell, which saves the time that a shell takes to
//! start.
//!
//! It is done only where nobody can see the difference. Some shells, such as Debian's dash, start a child for their
//! last command instead of becoming that command. With such a shell the difference shows: the command does not lead its
//! process group, and where a signal kills it, the shell reports an exit code and a message. So the daemon tries its
//! shell once, at its start, with a plain command: does the shell become the command, and how does it change the
//! environment?
//!
//! Not for commands in doubt; the shell gets these: a program that is not found or that not everybody may execute, a
//! script, a builtin, and a path that leaves the root file system (a network file system may hang, and the daemon must
//! not). A command that could not be executed directly goes to the shell as well.
//!
//! Invariant: the exit codes 126 and 127 and their messages always come from the shell.

use super::program::Program;
use super::words::words;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// The shells whose builtins and reserved words `words` knows, by the names of their programs.
const SHELLS: [&str; 2] = ["bash", "dash"];
/// Variables that make a shell read files first, find programs in another way, or change a value by itself.
const SPECIAL: [&str; 14] = [
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
/// The program with which the shell is tried: it prints the pid and the environment that the shell gave it.
const TRIED: &str = "/bin/cat";

/// A shell that direct exec can stand in for, and what it does for a command.
#[derive(Debug)]
pub struct DirectExec {
    /// The environment that the shell gives to a command, without the variable `_`.
    environment: Vec<(OsString, OsString)>,
    /// Whether the shell sets the variable `_` to the path of the program.
    tells_path: bool,
    /// The folders in which programs are searched, in this order.
    folders: Vec<PathBuf>,
    /// The daemon's directory as the shell calls it.
    pwd: PathBuf,
    /// The daemon's directory as the file system knows it: device and inode.
    directory: (u64, u64),
}

impl DirectExec {
    /// Tries the shell with this environment, which must have every variable that a command's environment has. None
    /// where somebody could see the difference.
    pub fn try_out(shell: &Path, environment: &[(OsString, OsString)]) -> Option<DirectExec> {
        let is_known = shell.canonicalize().is_ok_and(|program| SHELLS.iter().any(|name| program.ends_with(name)));
        let is_special = |name: &OsString| {
            SPECIAL.iter().any(|special| name == special) || name.as_bytes().starts_with(b"BASH_FUNC_")
        };
        // A shell behaves in another way where its effective user or group is not its real one.
        let is_set_id = rustix::process::getuid() != rustix::process::geteuid()
            || rustix::process::getgid() != rustix::process::getegid();
        if !is_known || is_set_id || environment.iter().any(|(name, _)| is_special(name)) {
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

    /// The command as the shell would execute it; none where only the shell can.
    pub fn program(&self, command: &str) -> Option<Program> {
        let words = words(command)?;
        let (first, rest) = words.split_first()?;
        let path = self.find(first)?;
        if !self.is_in_place() {
            return None;
        }
        let mut program = Program::new(&path, first);
        program.arguments.extend(rest.iter().map(OsString::from));
        program.environment.extend(self.environment.iter().cloned());
        if self.tells_path {
            program.environment.insert("_".into(), path.into());
        }
        Some(program)
    }

    fn find(&self, word: &str) -> Option<PathBuf> {
        let paths = self.folders.iter().map(|folder| folder.join(word));
        let paths = if word.starts_with('/') { vec![PathBuf::from(word)] } else { paths.collect() };
        let first = paths.into_iter().find_map(|path| look(&path).map(|is_program| (path, is_program)));
        first.and_then(|(path, is_program)| is_program.then_some(path))
    }

    /// Whether the daemon's directory still has its name: a shell looks at that before it sets PWD.
    fn is_in_place(&self) -> bool {
        let here = open(&self.pwd, OFlags::PATH | OFlags::DIRECTORY).and_then(fstat);
        here.is_ok_and(|here| (here.st_dev, here.st_ino) == self.directory)
    }
}

/// What is at this path: true for a program that everybody may execute, false for anything else; none for nothing.
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

/// Opens a file that can be reached without leaving the root file system.
fn open(path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    openat2(CWD, path, flags | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::NO_XDEV)
}

/// The folders of a PATH that every shell understands in the same way; none for another PATH.
fn folders(path: &OsStr) -> Option<Vec<PathBuf>> {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-".contains(byte);
    let folder = |bytes: &[u8]| {
        let is_clear = bytes.starts_with(b"/") && !bytes.ends_with(b"/") && !bytes.windows(2).any(|pair| pair == b"//");
        (is_clear && bytes.iter().all(is_plain)).then(|| PathBuf::from(OsStr::from_bytes(bytes)))
    };
    path.as_bytes().split(|byte| *byte == b':').map(folder).collect()
}

/// The environment that this shell gives to a command; none where the shell does not become the command.
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
    fn only_a_path_that_every_shell_understands_in_the_same_way_is_searched() {
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
