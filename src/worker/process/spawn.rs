//! Starting a command: `SHELL -c COMMAND`, in a process group of its own. Its output and its errors go into one pipe,
//! so they are read in the order in which they were written.
//!
//! There are three ways. Most commands are started with the shell as a child of this process. That needs no code
//! between fork and exec, so std uses posix_spawn, which is as quick for a large daemon as for a small one. A command
//! that needs no shell is started by `direct_exec`, where the shell allows it. A job with a user, a directory or a
//! shell of its own is started by `launch`. The spawning thread sets the tag for itself, and the child inherits it.
//!
//! Not here: whether a run may start; the core decides that. Only the lease is checked again.
//!
//! Invariant: the mark says `starting` before a process is started, and `started` before the core hears of the process.

use super::account::{Account, look_up};
use super::descriptors::Given;
use super::direct_exec::DirectExec;
use super::launch::Launch;
use super::marks::{Marks, Ticket};
use super::secrets;
use crate::core::io::ports::{SpawnError, Started};
use crate::model::job::parse_env;
use crate::model::{Attempt, Exit, Job, JobId, RunKey, Second, Wall};
use crate::worker::clock;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::ffi::OsString;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

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
    descriptors: Given,
}

/// A process that was started.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// Becomes readable when the process has ended.
    pub pidfd: OwnedFd,
    /// The read end of the pipe, which does not block.
    pub output: OwnedFd,
    pub started: Started,
}

/// A process that was started and is not watched yet.
struct Begun {
    child: Child,
    output: OwnedFd,
    at: Wall,
}

impl Spawner {
    /// Reads the daemon's environment, and tries the shell for direct exec. Blocks for some milliseconds.
    #[expect(clippy::disallowed_methods, reason = "the environment is for the commands, and handed on whole")]
    pub fn new(shell: PathBuf, marks: Arc<Marks>, env_pass: &[String]) -> Spawner {
        let is_own = |name: &OsString| name.as_bytes().starts_with(secrets::PREFIX);
        let environment: Vec<(OsString, OsString)> = std::env::vars_os().filter(|(name, _)| !is_own(name)).collect();
        let is_passed = |name: &OsString| name == "LANG" || env_pass.iter().any(|passed| name == &**passed);
        let mut clean = vec![("PATH".into(), CLEAN_PATH.into())];
        clean.extend(environment.iter().filter(|(name, _)| is_passed(name)).cloned());
        let run = RunKey::scheduled(JobId(0), Second(0));
        let tried = [&environment[..], &told(Attempt { run, number: 0 })].concat();
        let direct = DirectExec::try_out(&shell, &tried);
        log::debug!("direct exec of commands without shell syntax: {}", if direct.is_some() { "yes" } else { "no" });
        Spawner { shell, marks, environment, clean, direct, descriptors: Given::now() }
    }

    /// Starts the attempt's command, unless the lease is over. Blocks for about a millisecond.
    pub fn spawn(&self, attempt: Attempt, job: &Job, ticket: Ticket) -> Result<Running, SpawnError> {
        self.marks.starting(ticket);
        // The mark comes before the look at the lease, so that the guardian knows of every process that may be started.
        let is_leased = clock::mono() < self.marks.lease();
        let begun = if is_leased { self.start(attempt, job, ticket) } else { Err(SpawnError::NoLease) };
        let Begun { child, output, at } = begun.inspect_err(|_| self.marks.back_to_held(ticket))?;
        self.marks.started(ticket, child.id(), super::kill::start_time(child.id()).unwrap_or(0));
        watch(child, output, at)
    }

    fn start(&self, attempt: Attempt, job: &Job, ticket: Ticket) -> Result<Begun, SpawnError> {
        let shell = if job.shell.is_empty() { &self.shell } else { Path::new(&job.shell) };
        let refused = |error: io::Error| spawn_error(shell, &error);
        let (output, write_end) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|error| refused(error.into()))?;
        rustix::fs::fcntl_setfl(&output, OFlags::NONBLOCK).map_err(|error| refused(error.into()))?;
        let (_starting, set_back) = self.descriptors.to_set_back(&output);
        let is_bare = [&job.run_as, &job.work_dir, &job.env, &job.shell].iter().all(|column| column.is_empty());
        let direct = self.direct.as_ref().filter(|_| is_bare && set_back.is_none());
        let direct = direct.and_then(|direct| direct.command(&job.command)).and_then(|mut command| {
            command.envs(told(attempt));
            // After an error nothing was started, and the shell tries, so that the message is the shell's.
            execute(command, &write_end, ticket).ok()
        });
        let (at, child) = match direct {
            Some(child) => child,
            None => {
                let command = self.by_shell(attempt, job, shell, set_back);
                let command = command.map_err(|reason| SpawnError::Failed(format!("not started: {reason}")))?;
                execute(command, &write_end, ticket).map_err(refused)?
            }
        };
        Ok(Begun { child, output, at })
    }

    fn by_shell(&self, attempt: Attempt, job: &Job, shell: &Path, descriptors: Option<u64>) -> Result<Command, String> {
        let account = account(job)?;
        let environment = self.environment(attempt, job, account.as_ref(), shell)?;
        let script = job.script();
        let has_own = account.is_some() || !job.work_dir.is_empty() || !job.shell.is_empty();
        if has_own || descriptors.is_some() {
            let launch = Launch { account: account.as_ref(), descriptors, work_dir: &job.work_dir };
            return Ok(launch.command(shell, &["-c", &script], &environment));
        }
        let mut command = super::command(shell);
        command.arg("-c").arg(script).env_clear().envs(environment);
        Ok(command)
    }

    /// The daemon's environment (of which another user gets little, because it is root's), then the user's variables, the
    /// job's, and those about the run: a later one replaces an earlier one of the same name.
    fn environment(
        &self,
        attempt: Attempt,
        job: &Job,
        account: Option<&Account>,
        shell: &Path,
    ) -> Result<Vec<(OsString, OsString)>, String> {
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

/// The account of the user that a job names; none where it names no user. A user who cannot be used is an error: the
/// command must not run as another one.
fn account(job: &Job) -> Result<Option<Account>, String> {
    if job.run_as.is_empty() {
        return Ok(None);
    }
    if !rustix::process::geteuid().is_root() {
        return Err(format!(
            "run_as {}: only a daemon that runs as root can start commands as another user",
            job.run_as
        ));
    }
    look_up(&job.run_as).map(Some)
}

fn execute(mut command: Command, output: &OwnedFd, ticket: Ticket) -> io::Result<(Wall, Child)> {
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output.try_clone()?).process_group(0);
    rustix::thread::set_current_timer_slack(NonZeroU64::new(ticket.tag))?;
    let at = clock::now().wall;
    let child = command.spawn();
    // None sets this thread's slack back to its default; that cannot fail.
    let _ = rustix::thread::set_current_timer_slack(None);
    Ok((at, child?))
}

fn watch(mut child: Child, output: OwnedFd, at: Wall) -> Result<Running, SpawnError> {
    let pid = Pid::from_child(&child);
    match pidfd_open(pid, PidfdFlags::NONBLOCK) {
        Ok(pidfd) => Ok(Running { pidfd, output, started: Started { pid: child.id(), at }, child }),
        Err(error) => {
            // Its end could not be noticed, so it must not go on.
            let _ = kill_process_group(pid, Signal::KILL);
            let _ = child.wait();
            Err(SpawnError::Failed(format!("started and killed at once: its end cannot be watched: {error}")))
        }
    }
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

impl Running {
    /// How the process ended; none while it runs. Reaps it.
    pub fn try_wait(&mut self) -> Option<Exit> {
        match self.child.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(match status.code() {
                Some(code) => Exit::Code(code),
                None => Exit::Signal(status.signal().unwrap_or(0)),
            }),
            // Nothing else reaps it, so this cannot happen. If it did, a wrong code is better than a run without an
            // end.
            Err(_) => Some(Exit::Code(-1)),
        }
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
