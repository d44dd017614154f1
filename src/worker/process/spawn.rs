//! Starting a command: `SHELL -c COMMAND`, in a process group of its own. Its output and its errors go into one pipe,
//! so they are read in the order in which they were written.
//!
//! There are three ways. Most commands are started with the shell as a child of this process. A command that needs no
//! shell is started by `direct_exec`, where the shell allows it. A job with a user, a directory or a shell of its own is
//! started by `launch`. The spawning thread sets the tag for itself, and the child inherits it.
//!
//! Each process is started in a control group of its own, where there are any. Without one std starts it: that needs no
//! code between fork and exec, so std uses posix_spawn, which is as quick for a large daemon as for a small one.
//!
//! Not here: whether a run may start; the core decides that. Only the lease is checked again.
//!
//! Invariant: the mark says `starting` before a process is started, and `started` before the core hears of the process.

use super::account::{Account, Accounts};
use super::cgroups::Cgroups;
use super::descriptors::Given;
use super::direct_exec::DirectExec;
use super::launch::Launch;
use super::marks::{Marks, Ticket};
use super::program::Program;
use super::running::{Begun, Running, watch};
use super::secrets;
use crate::core::io::ports::SpawnError;
use crate::model::job::parse_env;
use crate::model::{Attempt, Job, JobId, Mono, RunKey, Second, Wall};
use crate::worker::clock;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Where a command that runs as another user finds programs.
const CLEAN_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Starts commands. The spawning threads share it.
#[derive(Debug)]
pub struct Spawner {
    shell: PathBuf,
    marks: Arc<Marks>,
    /// The daemon's environment without the variables that are its own, read once.
    environment: Vec<(OsString, OsString)>,
    /// What a command that runs as another user has of it.
    clean: Vec<(OsString, OsString)>,
    direct: Option<DirectExec>,
    accounts: Accounts,
    descriptors: Given,
    /// None: runs have no groups here.
    cgroups: Option<Arc<Cgroups>>,
    /// It was said that a group could not be made.
    has_failed: AtomicBool,
}

/// An attempt to start.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    pub attempt: Attempt,
    pub job: &'a Job,
    /// None: the daemon's user.
    pub account: Option<&'a Account>,
}

/// A control group for a run, and its name.
struct Group<'a> {
    folder: &'a Cgroups,
    name: String,
    group: OwnedFd,
}

impl Spawner {
    /// Reads the daemon's environment, and tries the shell for direct exec. Blocks for some milliseconds.
    #[expect(clippy::disallowed_methods, reason = "the environment is for the commands, and handed on whole")]
    pub fn new(shell: PathBuf, marks: Arc<Marks>, env_pass: &[String], cgroups: Option<Arc<Cgroups>>) -> Spawner {
        let is_own = |name: &OsString| name.as_bytes().starts_with(secrets::PREFIX);
        let environment: Vec<(OsString, OsString)> = std::env::vars_os().filter(|(name, _)| !is_own(name)).collect();
        let is_passed = |name: &OsString| name == "LANG" || env_pass.iter().any(|passed| name == &**passed);
        let mut clean = vec![("PATH".into(), CLEAN_PATH.into())];
        clean.extend(environment.iter().filter(|(name, _)| is_passed(name)).cloned());
        let run = RunKey::scheduled(JobId(0), Second(0));
        let tried = [&environment[..], &told(Attempt { run, number: 0 })].concat();
        let direct = DirectExec::try_out(&shell, &tried);
        log::debug!("direct exec of commands without shell syntax: {}", if direct.is_some() { "yes" } else { "no" });
        let (accounts, descriptors, has_failed) = (Accounts::default(), Given::now(), AtomicBool::new(false));
        Spawner { shell, marks, environment, clean, direct, accounts, descriptors, cgroups, has_failed }
    }

    /// The account of the user that the job names (none where it names no user), or why it cannot be used: the command
    /// must not run as another one. None: it must be looked up first. Does not block.
    pub fn account(&self, job: &Job) -> Option<Result<Option<Arc<Account>>, SpawnError>> {
        if job.run_as.is_empty() {
            return Some(Ok(None));
        }
        if !rustix::process::geteuid().is_root() {
            let reason =
                format!("run_as {}: only a daemon that runs as root can start commands as another user", job.run_as);
            return Some(Err(not_started(&reason)));
        }
        let kept = self.accounts.kept(&job.run_as)?;
        Some(kept.map(Some).map_err(|reason| not_started(&reason)))
    }

    /// As `account`, for a run that has waited since this moment. Blocks for some milliseconds, and for two seconds where
    /// the host's directories hang.
    pub fn look_up(&self, job: &Job, since: Mono) -> Result<Option<Arc<Account>>, SpawnError> {
        self.accounts.look_up(&job.run_as, since).map(Some).map_err(|reason| not_started(&reason))
    }

    /// Starts the attempt's command, unless the lease is over. Blocks for about a millisecond.
    pub fn spawn(&self, start: Start, ticket: Ticket) -> Result<Running, SpawnError> {
        let name = self.marks.starting(ticket);
        // The mark comes before the look at the lease, so that the guardian knows of every process that may be started.
        let is_leased = clock::mono() < self.marks.lease();
        let begun = if is_leased {
            let group = name.and_then(|name| self.group(name));
            let begun = self.start(start, ticket.tag, group.as_ref());
            begun.inspect_err(|_| _ = group.map(|group| group.folder.remove(&group.name)))
        } else {
            Err(SpawnError::NoLease)
        };
        let begun = begun.inspect_err(|_| self.marks.back_to_held(ticket))?;
        self.marks.started(ticket, begun.pid, super::kill::start_time(begun.pid).unwrap_or(0));
        watch(begun, self.cgroups.as_deref())
    }

    /// A new control group. Where it cannot be made, the run is started without one: that is said once.
    fn group(&self, name: String) -> Option<Group<'_>> {
        let folder = self.cgroups.as_deref()?;
        match folder.make(&name) {
            Ok(group) => Some(Group { folder, name, group }),
            Err(error) => {
                if !self.has_failed.swap(true, Ordering::Relaxed) {
                    log::warn!(
                        "make the control group {name}: {error}; runs are started without one for as long as that fails"
                    );
                }
                None
            }
        }
    }

    fn start(&self, start: Start, tag: u64, group: Option<&Group>) -> Result<Begun, SpawnError> {
        let job = start.job;
        let shell = if job.shell.is_empty() { &self.shell } else { Path::new(&job.shell) };
        let refused = |error: io::Error| spawn_error(shell, &error);
        let (output, write_end) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|error| refused(error.into()))?;
        rustix::fs::fcntl_setfl(&output, OFlags::NONBLOCK).map_err(|error| refused(error.into()))?;
        let (_starting, set_back) = self.descriptors.to_set_back(&output);
        let is_bare = [&job.run_as, &job.work_dir, &job.env, &job.shell].iter().all(|column| column.is_empty());
        let direct = self.direct.as_ref().filter(|_| is_bare && set_back.is_none());
        let direct = direct.and_then(|direct| direct.program(&job.command)).and_then(|mut program| {
            program.environment.extend(told(start.attempt));
            // After an error nothing was started, and the shell tries, so that the message is the shell's.
            execute(&program, &write_end, tag, group).ok()
        });
        let (at, pid) = match direct {
            Some(begun) => begun,
            None => {
                let program = self.by_shell(start, shell, set_back).map_err(|reason| not_started(&reason))?;
                execute(&program, &write_end, tag, group).map_err(refused)?
            }
        };
        Ok(Begun { pid, output, at, cgroup: group.map(|group| group.name.clone()) })
    }

    fn by_shell(&self, start: Start, shell: &Path, descriptors: Option<u64>) -> Result<Program, String> {
        let Start { job, account, .. } = start;
        let environment = self.environment(start, shell)?;
        let script = job.script();
        let has_own = account.is_some() || !job.work_dir.is_empty() || !job.shell.is_empty();
        if has_own || descriptors.is_some() {
            let launch = Launch { account, descriptors, work_dir: &job.work_dir };
            return Ok(launch.program(shell, &["-c", &script], &environment));
        }
        let mut program = Program::new(shell, shell);
        program.arguments.extend(["-c".into(), script.into()]);
        program.environment.extend(environment);
        Ok(program)
    }

    /// The daemon's environment (of which another user gets little, because it is root's), then the user's variables, the
    /// job's, and those about the run: a later one replaces an earlier one of the same name.
    fn environment(&self, start: Start, shell: &Path) -> Result<Vec<(OsString, OsString)>, String> {
        let Start { attempt, job, account } = start;
        let own = parse_env(&job.env).map_err(|error| format!("env: {error}"))?;
        let mut environment = if account.is_some() { self.clean.clone() } else { self.environment.clone() };
        let mut set = |name: &str, value: OsString| environment.push((name.into(), value));
        if let Some(account) = account {
            set("HOME", account.home.clone());
            set("LOGNAME", account.name.clone());
            set("SHELL", shell.into());
            set("USER", account.name.clone());
        }
        if !job.work_dir.is_empty() {
            set("PWD", (&job.work_dir).into());
        }
        own.into_iter().for_each(|(name, value)| set(&name, value.into()));
        environment.extend(told(attempt));
        Ok(environment)
    }
}

/// The variables that tell a command about its run.
fn told(attempt: Attempt) -> [(OsString, OsString); 4] {
    [
        ("WING_CRON_ID", attempt.run.cron_id.to_string()),
        ("WING_SCHEDULED_AT", attempt.run.scheduled_at.0.to_string()),
        ("WING_RUN_KEY", attempt.run.to_string()),
        ("WING_ATTEMPT", attempt.number.to_string()),
    ]
    .map(|(name, value)| (name.into(), value.into()))
}

fn not_started(reason: &str) -> SpawnError {
    SpawnError::Failed(format!("not started: {reason}"))
}

/// Starts the program, in the group where there is one. Answers when, and the pid.
fn execute(program: &Program, output: &OwnedFd, tag: u64, group: Option<&Group>) -> io::Result<(Wall, u32)> {
    rustix::thread::set_current_timer_slack(NonZeroU64::new(tag))?;
    let at = clock::now().wall;
    let pid = match group {
        Some(Group { group, .. }) => {
            File::open("/dev/null").and_then(|null| Cgroups::start(program, null, output, group))
        }
        None => by_std(program, output),
    };
    // None sets this thread's slack back to its default; that cannot fail.
    let _ = rustix::thread::set_current_timer_slack(None);
    Ok((at, pid?))
}

fn by_std(program: &Program, output: &OwnedFd) -> io::Result<u32> {
    let mut command = program.command();
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output.try_clone()?).process_group(0);
    Ok(command.spawn()?.id())
}

fn spawn_error(shell: &Path, error: &io::Error) -> SpawnError {
    let reason = |advice: &str| format!("not started: {} -c: {error}{advice}", shell.display());
    match Errno::from_io_error(error) {
        Some(Errno::AGAIN | Errno::NOMEM) => SpawnError::Exhausted(reason(
            "; the host has no resources for another process: see ulimit -u, pids.max and free memory",
        )),
        Some(Errno::MFILE | Errno::NFILE) => {
            SpawnError::Exhausted(reason("; too many files are open: raise ulimit -n or lower max_running"))
        }
        Some(Errno::NOENT | Errno::ACCESS) => SpawnError::Failed(reason("; is the config key shell right?")),
        Some(Errno::TOOBIG) => {
            SpawnError::Failed(reason("; the command and the daemon's environment together are too long"))
        }
        _ => SpawnError::Failed(reason("")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_resources_is_another_error_than_a_command_that_cannot_start() {
        let refused = |errno: Errno| spawn_error(Path::new("/bin/sh"), &errno.into());
        for (errno, words) in [
            (Errno::AGAIN, "ulimit -u"),
            (Errno::NOMEM, "free memory"),
            (Errno::MFILE, "ulimit -n"),
            (Errno::NFILE, "max_running"),
        ] {
            let SpawnError::Exhausted(reason) = refused(errno) else { panic!("{errno:?} passes") };
            assert!(reason.starts_with("not started: /bin/sh -c: ") && reason.contains(words), "{reason}");
        }
        for (errno, words) in
            [(Errno::NOENT, "config key shell"), (Errno::TOOBIG, "too long"), (Errno::IO, "os error 5")]
        {
            let SpawnError::Failed(reason) = refused(errno) else { panic!("{errno:?} stays") };
            assert!(reason.contains(words), "{reason}");
        }
    }
}
