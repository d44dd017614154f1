//! Launch: starting a command by way of this very program. The daemon executes it once more; the new process becomes
//! the user, changes to the directory, and then executes the shell, which thereby has the run's pid, group and tag.
//!
//! There are two reasons for it. posix_spawn cannot set a child's user, groups and limits, and a fork of a large daemon
//! is slow. And a job's own directory or shell may hang or fail: here that stops this one run, and not the daemon.
//!
//! Not for most commands: a launch costs one exec more; `spawn` says which commands need it.
//!
//! Invariants: a step that fails ends the run with exit code `NOT_LAUNCHED` and its message as the output; no step is
//! left out. The run's environment does not act on this program or on its loader, which may still be root: until the
//! shell is executed, each variable's name has a dot before it.

use super::account::Account;
use super::program::Program;
use rustix::fs::{Gid, Mode, Uid};
use rustix::process::{Resource, Rlimit, chdir, getrlimit, setrlimit, umask};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, set_capabilities, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};
use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::Path;

/// The hidden first argument of a launch.
pub const LAUNCH: &str = "--launch";
/// The exit code of a command that was not executed.
pub const NOT_LAUNCHED: u8 = 125;

/// The umask that a login gives: others may read what a command makes, and not write it.
const LOGIN_UMASK: Mode = Mode::from_bits_retain(0o022);
const NO_CAPABILITIES: CapabilitySets = CapabilitySets {
    effective: CapabilitySet::empty(),
    permitted: CapabilitySet::empty(),
    inheritable: CapabilitySet::empty(),
};

/// What a command needs and cannot inherit from the daemon.
#[derive(Debug)]
pub struct Launch<'a> {
    /// None: the daemon's user.
    pub account: Option<&'a Account>,
    /// The soft limit of descriptors. None: the daemon's.
    pub descriptors: Option<u64>,
    /// Empty: the daemon's directory.
    pub work_dir: &'a str,
}

impl Launch<'_> {
    /// The program that launches `program` with these arguments and this environment.
    pub fn program(&self, program: &Path, arguments: &[&str], environment: &[(OsString, OsString)]) -> Program {
        let mut launch = Program::new("/proc/self/exe", "wing-crontab");
        let user = self.account.map(|account| {
            let groups: Vec<String> = account.groups.iter().map(u32::to_string).collect();
            format!("{}:{}:{}", account.uid, account.gid, groups.join(","))
        });
        let descriptors = self.descriptors.map(|limit| limit.to_string());
        let own =
            [LAUNCH, &user.unwrap_or_default(), &descriptors.unwrap_or_default(), self.work_dir].map(OsString::from);
        launch.arguments.extend(own.into_iter().chain([program.into()]).chain(arguments.iter().map(OsString::from)));
        launch.environment.extend(environment.iter().map(|(name, value)| (hidden(name), value.clone())));
        launch
    }
}

fn hidden(name: &OsStr) -> OsString {
    OsString::from_vec([b".", name.as_bytes()].concat())
}

/// Launches, in the new process; `arguments` are those after `LAUNCH`. Returns only where a step failed, with the
/// message for the run's output.
#[expect(clippy::disallowed_methods, reason = "the environment is the run's, and handed on whole")]
pub fn launch(arguments: &[OsString]) -> String {
    let [user, descriptors, work_dir, program, arguments @ ..] = arguments else {
        return format!("not started: {LAUNCH}: only the daemon passes this; start wing-crontab without it");
    };
    let begun = become_user(user).and_then(|()| limit(descriptors)).and_then(|()| go_to(work_dir));
    begun.err().unwrap_or_else(|| {
        let name = |(name, value): (OsString, OsString)| Some((name.as_bytes().strip_prefix(b".")?.to_vec(), value));
        let environment = std::env::vars_os().filter_map(name).map(|(name, value)| (OsString::from_vec(name), value));
        let error = super::command(program).args(arguments).env_clear().envs(environment).exec();
        format!("not started: {}: {error}; see the job's shell, or the config key shell", program.display())
    })
}

fn limit(descriptors: &OsStr) -> Result<(), String> {
    if descriptors.is_empty() {
        return Ok(());
    }
    let fail =
        |what: &dyn Display| format!("not started: set the limit of descriptors to {}: {what}", descriptors.display());
    let soft = descriptors.to_str().and_then(|text| text.parse().ok()).ok_or_else(|| fail(&"it is no number"))?;
    let limit = Rlimit { current: Some(soft), ..getrlimit(Resource::Nofile) };
    setrlimit(Resource::Nofile, limit).map_err(|error| fail(&error))
}

fn go_to(work_dir: &OsStr) -> Result<(), String> {
    if work_dir.is_empty() {
        return Ok(());
    }
    chdir(work_dir).map_err(|error| format!("not started: work_dir {}: {error}", work_dir.display()))
}

/// Becomes `uid:gid:group,group` for good.
fn become_user(user: &OsStr) -> Result<(), String> {
    if user.is_empty() {
        return Ok(());
    }
    let fail = |what: &dyn Display| format!("not started: become the user {}: {what}", user.display());
    let (uid, gid, groups) = user.to_str().and_then(numbers).ok_or_else(|| fail(&"it is not a user"))?;
    // These calls change one thread, and this process has no other. The user comes last, because only root may change
    // the groups.
    set_thread_groups(&groups).map_err(|error| fail(&error))?;
    set_thread_res_gid(gid, gid, gid).map_err(|error| fail(&error))?;
    set_thread_res_uid(uid, uid, uid).map_err(|error| fail(&error))?;
    if !uid.is_root() {
        // Usually they are gone with the user, but the daemon may have been started so that they stay.
        clear_ambient_capability_set().map_err(|error| fail(&error))?;
        set_capabilities(None, NO_CAPABILITIES).map_err(|error| fail(&error))?;
    }
    umask(LOGIN_UMASK);
    let is_so = rustix::process::getuid() == uid
        && rustix::process::geteuid() == uid
        && rustix::process::getgid() == gid
        && rustix::process::getegid() == gid;
    if is_so { Ok(()) } else { Err(fail(&"the system reports success, and the user is another one")) }
}

fn numbers(text: &str) -> Option<(Uid, Gid, Vec<Gid>)> {
    // To system calls minus one means "leave it as it is".
    let number = |text: &str| text.parse::<u32>().ok().filter(|number| *number != u32::MAX);
    let mut fields = text.split(':');
    let uid = number(fields.next()?).map(Uid::from_raw)?;
    let gid = number(fields.next()?).map(Gid::from_raw)?;
    let groups: Option<Vec<Gid>> = fields.next()?.split(',').map(|text| number(text).map(Gid::from_raw)).collect();
    Some((uid, gid, groups?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_a_number_a_group_and_a_list_of_groups() {
        let ids = |text: &str| numbers(text).map(|(uid, gid, groups)| (uid.as_raw(), gid.as_raw(), groups.len()));
        assert_eq!(ids("1000:100:100,10"), Some((1_000, 100, 2)));
        assert_eq!(ids("0:0:0"), Some((0, 0, 1)));
        for text in [
            "",
            "1000",
            "1000:100",
            "1000:100:",
            "4294967295:1:1",
            "1:4294967295:1",
            "1:1:4294967295",
            "-1:1:1",
            "a:1:1",
        ] {
            assert_eq!(ids(text), None, "{text:?}");
        }
    }
}
