//! Starting a command: `SHELL -c COMMAND`, in a process group of its own, with both its outputs in one pipe so that they
//! are read in the order in which they were written.
//!
//! Nothing here needs code between fork and exec, so std takes its posix_spawn path: as quick for a large daemon as for a
//! small one. The tag is put on the spawning thread and inherited.
//!
//! Invariant: the mark says `starting` before anything is started, and `started` before anybody hears of it.

use super::marks::{Marks, Ticket};
use crate::core::work::{SpawnError, Started};
use crate::model::{Attempt, Exit, Job};
use crate::worker::clock;
use rustix::fs::OFlags;
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::ffi::OsString;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

/// What the daemon may be told by its environment and no command may know.
const SECRETS: [&str; 3] = ["WING_MYSQL_PASSWORD", "WING_CONSUL_TOKEN", "WING_CLUSTER_SECRET"];

/// Starts commands. One is shared by the spawning threads.
#[derive(Debug)]
pub struct Spawner {
    shell: PathBuf,
    marks: Arc<Marks>,
    /// The daemon's environment without its secrets, read once.
    environment: Vec<(OsString, OsString)>,
}

/// A process that was started.
#[derive(Debug)]
pub struct Running {
    child: Child,
    pub pidfd: OwnedFd,
    /// Both outputs, not blocking.
    pub output: OwnedFd,
    pub started: Started,
}

impl Spawner {
    pub fn new(shell: PathBuf, marks: Arc<Marks>) -> Spawner {
        let is_secret = |name: &OsString| SECRETS.iter().any(|secret| name == secret);
        let environment = std::env::vars_os().filter(|(name, _)| !is_secret(name)).collect();
        Spawner { shell, marks, environment }
    }

    /// Starts the attempt's command, if the lease still holds. Blocks for about a millisecond.
    pub fn spawn(&self, attempt: Attempt, job: &Job, ticket: Ticket) -> Result<Running, SpawnError> {
        self.marks.starting(ticket);
        // Looked at after the mark is set: from here on the guardian knows that something may be starting.
        if self.marks.lease() <= clock::mono() {
            self.marks.back_to_held(ticket);
            return Err(SpawnError::NoLease);
        }
        let started = self.start(attempt, job, ticket).map_err(|error| SpawnError::Failed(self.reason(&error)))?;
        Ok(started)
    }

    fn start(&self, attempt: Attempt, job: &Job, ticket: Ticket) -> io::Result<Running> {
        let (output, write_end) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        rustix::fs::fcntl_setfl(&output, OFlags::NONBLOCK)?;
        let mut command = Command::new(&self.shell);
        command
            .arg("-c")
            .arg(&job.command)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env("WING_CRON_ID", job.id.to_string())
            .env("WING_SCHEDULED_AT", attempt.run.scheduled_at.0.to_string())
            .env("WING_RUN_KEY", attempt.run.to_string())
            .env("WING_ATTEMPT", attempt.number.to_string())
            .stdin(Stdio::null())
            .stderr(write_end.try_clone()?)
            .stdout(write_end)
            .process_group(0);
        rustix::thread::set_current_timer_slack(NonZeroU64::new(ticket.tag))?;
        let at = clock::now();
        let child = command.spawn();
        // Zero is back to this thread's own default.
        rustix::thread::set_current_timer_slack(None)?;
        let child = child?;
        self.marks.started(ticket, child.id(), super::kill::start_time(child.id()).unwrap_or(0));
        let pid = Pid::from_child(&child);
        Ok(Running {
            pidfd: pidfd_open(pid, PidfdFlags::NONBLOCK)?,
            output,
            started: Started { pid: child.id(), at: at.wall },
            child,
        })
    }

    fn reason(&self, error: &io::Error) -> String {
        use rustix::io::Errno;
        let advice = match Errno::from_io_error(error) {
            Some(Errno::NOENT | Errno::ACCESS) => "; is the config key shell right?",
            Some(Errno::AGAIN | Errno::NOMEM) => {
                "; the host has no room for another process: see ulimit -u, pids.max and free memory"
            }
            Some(Errno::MFILE | Errno::NFILE) => "; too many files are open: raise ulimit -n or lower max_running",
            Some(Errno::TOOBIG) => "; the command and the daemon's environment together are too long",
            _ => "",
        };
        format!("not started: {} -c: {error}{advice}", self.shell.display())
    }
}

impl Running {
    /// How it ended, once it has. Reaps it.
    pub fn try_wait(&mut self) -> Option<Exit> {
        match self.child.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(match status.code() {
                Some(code) => Exit::Code(code),
                None => Exit::Signal(status.signal().unwrap_or(0)),
            }),
            // Nobody else waits for it, so this cannot be; a run that never ends would be worse than an odd code.
            Err(_) => Some(Exit::Code(-1)),
        }
    }
}
