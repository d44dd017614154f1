//! The guardian: the daemon's parent. It starts a dead daemon again, ends the runs of a dead daemon, and ends mutex
//! runs when the lease is over, even where the daemon hangs.
//!
//! It locks data_dir; the daemon inherits the lock, so data_dir stays locked until both have ended. It is the subreaper
//! of the runs' orphans. It alone has the write end of a pipe that the daemon reads: an end of file tells the daemon
//! that its guardian is dead.
//!
//! Not a place for decisions about runs: it knows them by the marks only.
//!
//! Invariant: while a process of an earlier daemon's unfinished runs is alive (and can be killed), no daemon is
//! started.

mod lock;

use super::cgroups::{self, Cgroups};
use super::kill::{Family, GUARDIAN_NAME, end_runs};
use super::marks::{self, Mark, Snapshot};
use super::secrets::Secrets;
use crate::core::time::bounds::{
    GUARDIAN_BACKOFF_FIRST_MS, GUARDIAN_BACKOFF_MS_MAX, GUARDIAN_GRACE_MS, GUARDIAN_KILL_MS, GUARDIAN_LOOK_MS,
    KILL_ALL_MS, SOUND_LIFE_MS,
};
use crate::worker::{clock, own_files};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getpid, getppid, kill_process, set_child_subreaper, setsid, wait,
};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1};
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The hidden first argument of a daemon. The second one is `LOCK,PIPE` or `LOCK,PIPE,CGROUPS`: descriptors.
pub const UNDER_GUARDIAN: &str = "--under-guardian";
const SOUND_LIFE: Duration = Duration::from_millis(SOUND_LIFE_MS);
const BACKOFF_FIRST: Duration = Duration::from_millis(GUARDIAN_BACKOFF_FIRST_MS);
const BACKOFF_LAST: Duration = Duration::from_millis(GUARDIAN_BACKOFF_MS_MAX);
/// The exit code of a daemon that could not be started.
pub const CANNOT_START: i32 = 2;
/// The exit code of a daemon whose cluster or store has refused it for good.
pub const REFUSED: i32 = 3;
/// A panic's exit code.
const PANICKED: i32 = 101;

/// What a daemon gets from its guardian.
#[derive(Debug)]
pub struct DaemonLink {
    /// Becomes readable (end of file) when the guardian is dead.
    pub death_pipe: OwnedFd,
    /// Keeps data_dir locked.
    pub lock: OwnedFd,
    /// The folder of the control groups of runs; none where runs have none.
    pub cgroups: Option<OwnedFd>,
    /// The guardian's pid. Where the guardian died before the daemon asked, the process that adopted the daemon.
    pub guardian: u32,
}

/// Takes up the descriptors that the guardian passed as `LOCK,PIPE` or `LOCK,PIPE,CGROUPS`. Error: the text is not that, or the descriptors
/// are not open.
pub fn adopt(text: &str) -> Result<DaemonLink, String> {
    let numbers: Option<Vec<RawFd>> = text.split(',').map(|number| number.parse().ok().filter(|fd| *fd > 2)).collect();
    let Some(([lock, pipe], cgroups)) = numbers.as_deref().and_then(|numbers| numbers.split_first_chunk::<2>()) else {
        return Err(format!("{UNDER_GUARDIAN} {text}: only the guardian passes this; start wing-crontab without it"));
    };
    // SAFETY: the guardian opened these for us, and no other part of this process knows their numbers. The daemon
    // does this first, so no other file can have got one of the numbers.
    let [lock, death_pipe] = [*lock, *pipe].map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    // SAFETY: as above.
    let cgroups = cgroups.first().map(|fd| unsafe { OwnedFd::from_raw_fd(*fd) });
    for fd in [Some(&lock), Some(&death_pipe), cgroups.as_ref()].into_iter().flatten() {
        fcntl_setfd(fd, FdFlags::CLOEXEC).map_err(|error| format!("{UNDER_GUARDIAN} {text}: {error}"))?;
    }
    // In a session of its own, it has no terminal, and neither have the runs: a run could type into the operator's shell
    // otherwise. The guardian keeps the terminal, and passes Ctrl-C on.
    setsid().map_err(|error| format!("{UNDER_GUARDIAN} {text}: leave the terminal: {error}"))?;
    // The guardian executes /proc/self/exe (its own version, even after an upgrade on the disk), and the kernel names
    // the process "exe" after it.
    let _ = rustix::thread::set_name(c"wing-crontab");
    let guardian = getppid().map_or(1, |pid| pid.as_raw_pid() as u32);
    Ok(DaemonLink { death_pipe, lock, cgroups, guardian })
}

/// Runs this program once more as a daemon with these arguments, and restarts it until it exits by itself. Answers its
/// exit code. Errors: data_dir cannot be made or is locked, or a system call that the guardian needs is refused.
/// `secrets` are the variables that only the daemon gets; `has_cgroups`: runs have control groups, where they can.
pub fn guard(data_dir: &Path, arguments: Vec<OsString>, secrets: Secrets, has_cgroups: bool) -> Result<i32, String> {
    let program = PathBuf::from("/proc/self/exe");
    let guardian = Guardian::new(data_dir, program, arguments)?;
    let cgroups = if has_cgroups { set_up_cgroups(data_dir) } else { None };
    if !has_cgroups {
        log::info!("runs have no control groups: run_cgroup = \"off\"");
    }
    let mut guardian = Guardian { secrets, cgroups, ..guardian };
    guardian.run().map_err(|error| format!("guard the daemon: {error}"))
}

/// Makes the folder for the control groups of runs, and says of it, or why there is none.
fn set_up_cgroups(data_dir: &Path) -> Option<Cgroups> {
    match cgroups::set_up(data_dir) {
        Ok((cgroups, told)) => {
            log::info!("{told}");
            Some(cgroups)
        }
        Err(reason) => {
            log::warn!("runs have no control groups: {reason}; a process that hides from its run is not found");
            None
        }
    }
}

struct Guardian {
    marks_path: PathBuf,
    program: PathBuf,
    arguments: Vec<OsString>,
    secrets: Secrets,
    lock: File,
    /// The read end, for the daemon; and the write end, which the guardian never closes.
    death_pipe: (OwnedFd, OwnedFd),
    signals: Vec<(i32, UnixStream)>,
    expired: Option<Expired>,
    /// None: runs have no control groups.
    cgroups: Option<Cgroups>,
}

/// A lease that is over, and since when the guardian knows that (both by the monotonic clock).
#[derive(Clone, Copy)]
struct Expired {
    lease_ns: u64,
    at_ns: u64,
}

/// The result of a look at the lease.
enum LeaseWatch {
    /// Look again after so many milliseconds.
    For(u64),
    /// The daemon ended meanwhile.
    Ended(End),
}

/// How a daemon ended.
enum End {
    /// It exited with this code.
    Exited(i32),
    /// A signal or a panic ended it: which, for the log.
    Died(String),
}

impl Guardian {
    fn new(data_dir: &Path, program: PathBuf, arguments: Vec<OsString>) -> Result<Guardian, String> {
        let fail = |what: &str, error: io::Error| format!("{what} {}: {error}", data_dir.display());
        // Commands that run as another user must not read what other jobs run and write.
        own_files::close_to_others(data_dir)?.iter().for_each(|warning| log::warn!("{warning}"));
        let lock = lock::lock(data_dir)?;
        let death_pipe = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|error| fail("watch over", error.into()))?;
        for inherited in [lock.as_raw_fd(), death_pipe.0.as_raw_fd()] {
            // SAFETY: both are open for as long as the guardian is.
            let fd = unsafe { rustix::fd::BorrowedFd::borrow_raw(inherited) };
            fcntl_setfd(fd, FdFlags::empty()).map_err(|error| fail("watch over", error.into()))?;
        }
        // An error must not stop us: without the name, `kill` only cannot tell our runs from another daemon's.
        let _ = CString::new(GUARDIAN_NAME).map(|name| rustix::thread::set_name(&name));
        set_child_subreaper(Some(getpid())).map_err(|error| fail("watch over", error.into()))?;
        marks::leave_tag().map_err(|error| fail("watch over", error))?;
        let heard = [SIGCHLD, SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1];
        let signals = heard.into_iter().map(listen).collect::<io::Result<_>>();
        Ok(Guardian {
            marks_path: marks::path(data_dir),
            program,
            arguments,
            secrets: Vec::new(),
            lock,
            death_pipe,
            signals: signals.map_err(|error| fail("watch over", error))?,
            expired: None,
            cgroups: None,
        })
    }

    fn run(&mut self) -> io::Result<i32> {
        // Where a guardian and its daemon were killed together, nobody has ended their runs.
        let cgroup = Snapshot::read(&self.marks_path).ok().flatten().and_then(|snapshot| snapshot.cgroup);
        self.end_runs("left by an earlier daemon", Family::Orphans { cgroup });
        self.cgroups.iter_mut().for_each(|cgroups| cgroups::remove_unused(cgroups, false));
        let mut backoff = Duration::ZERO;
        let mut has_died = false;
        loop {
            let started_at = clock::mono();
            if has_died {
                // The marks may have been out of reach at the death: data_dir was away, and is back now.
                self.end_runs("of the dead daemon", own_family());
            }
            let daemon = self.start()?;
            match self.watch(daemon)? {
                // A daemon did start before, so what stops this one (a full disk, a port in use) may pass.
                End::Exited(CANNOT_START) if has_died => {
                    log::error!("the daemon could not be started; it is tried again");
                }
                End::Exited(code) => {
                    self.end_runs("left by the daemon", own_family());
                    self.cgroups.iter_mut().for_each(|cgroups| cgroups::remove_unused(cgroups, true));
                    return Ok(if code == REFUSED { CANNOT_START } else { code });
                }
                End::Died(how) => {
                    has_died = true;
                    log::error!("the daemon died ({how}); its runs are ended and it is started again");
                    self.end_runs("of the dead daemon", own_family());
                }
            }
            let has_lived = SOUND_LIFE <= clock::mono().since(started_at);
            if !has_lived && self.is_told_to_end(backoff)? {
                return Ok(0);
            }
            backoff = if has_lived { Duration::ZERO } else { (backoff * 2).clamp(BACKOFF_FIRST, BACKOFF_LAST) };
        }
    }

    fn start(&self) -> io::Result<Pid> {
        let mut descriptors = format!("{},{}", self.lock.as_raw_fd(), self.death_pipe.0.as_raw_fd());
        if let Some(cgroups) = &self.cgroups {
            descriptors.push_str(&format!(",{}", cgroups.to_pass()?.as_raw_fd()));
        }
        let mut command = super::command(&self.program);
        command.arg0("wing-crontab").arg(UNDER_GUARDIAN).arg(descriptors).args(&self.arguments);
        command.envs(self.secrets.iter().map(|(name, value)| (name, value)));
        let child =
            command.spawn().map_err(|error| io::Error::new(error.kind(), format!("start the daemon: {error}")))?;
        Ok(Pid::from_child(&child))
    }

    /// Until the daemon ends: passes signals on, reaps, and ends mutex runs when the lease is over.
    fn watch(&mut self, daemon: Pid) -> io::Result<End> {
        loop {
            if let Some(end) = reap(Some(daemon))? {
                return Ok(end);
            }
            let timeout_ms = match self.keep_lease(daemon) {
                LeaseWatch::For(timeout_ms) => timeout_ms,
                LeaseWatch::Ended(end) => return Ok(end),
            };
            self.sleep(Duration::from_millis(timeout_ms))?;
            for signal in self.take_signals() {
                // An error means that the daemon is dead: `reap` will tell.
                let _ = kill_process(daemon, signal);
            }
        }
    }

    /// Ends the mutex runs if the lease is over. Where a mutex run is still being started a while later, it kills the
    /// daemon: that run has no pid to kill yet.
    fn keep_lease(&mut self, daemon: Pid) -> LeaseWatch {
        const IDLE_MS: u64 = 60_000;
        let Ok(Some(snapshot)) = Snapshot::read(&self.marks_path) else {
            return LeaseWatch::For(GUARDIAN_LOOK_MS * 10);
        };
        let now = clock::mono();
        if now < snapshot.lease {
            self.expired = None;
            let left_ms = snapshot.lease.since(now).as_millis() as u64 + 1;
            return LeaseWatch::For(left_ms.min(IDLE_MS));
        }
        let mutex: Vec<Mark> = snapshot.marks.into_iter().filter(|mark| mark.is_mutex && mark.may_run()).collect();
        if mutex.is_empty() {
            return LeaseWatch::For(GUARDIAN_LOOK_MS);
        }
        let is_new = self.expired.is_none_or(|expired| expired.lease_ns != snapshot.lease.0);
        let expired = if is_new {
            Expired { lease_ns: snapshot.lease.0, at_ns: now.0 }
        } else {
            self.expired.unwrap_or(Expired { lease_ns: 0, at_ns: now.0 })
        };
        self.expired = Some(expired);
        if is_new {
            log::warn!("the lease is over: the guardian ends {} mutex runs", mutex.len());
        }
        let mut end = None;
        // The next look goes on with what is left, and with runs that were started meanwhile.
        end_runs(&mutex, own_family(), self.cgroups.as_ref(), GUARDIAN_KILL_MS, || {
            end = end.take().or_else(|| reap(Some(daemon)).ok().flatten())
        });
        if let Some(end) = end {
            return LeaseWatch::Ended(end);
        }
        let is_late = expired.at_ns + GUARDIAN_GRACE_MS * 1_000_000 <= now.0;
        if is_late && mutex.iter().any(Mark::is_starting) {
            log::error!(
                "the lease is over and the daemon may still be starting a mutex run: the guardian kills the daemon"
            );
            let _ = kill_process(daemon, Signal::KILL);
        }
        LeaseWatch::For(GUARDIAN_LOOK_MS)
    }

    /// Kills the runs that may have processes, as the marks say, and waits until these are gone. Where one cannot be
    /// killed, it says so and goes on: other jobs need the daemon.
    fn end_runs(&self, whose: &str, family: Family) {
        let marks = match Snapshot::read(&self.marks_path) {
            Ok(Some(snapshot)) => snapshot.marks,
            // There is no file, or none that can be read: the daemon will tell the operator.
            _ => return,
        };
        let running: Vec<Mark> = marks.into_iter().filter(Mark::may_run).collect();
        if running.is_empty() {
            return;
        }
        log::info!("ending {} runs {whose}", running.len());
        let left = end_runs(&running, family, self.cgroups.as_ref(), KILL_ALL_MS, || drop(reap(None)));
        let left: usize = left.iter().map(|left| left.len()).sum();
        if left != 0 {
            log::error!("{left} processes of runs {whose} cannot be killed (uninterruptible sleep?)");
        }
    }

    /// Sleeps until a signal comes or the time is over.
    fn sleep(&self, timeout: Duration) -> io::Result<()> {
        let mut fds: Vec<PollFd> = self.signals.iter().map(|(_, stream)| PollFd::new(stream, PollFlags::IN)).collect();
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits before the daemon is started again; true where a signal to end comes meanwhile.
    fn is_told_to_end(&mut self, time: Duration) -> io::Result<bool> {
        let until = clock::mono().plus_ms(time.as_millis() as u64);
        while clock::mono() < until {
            self.sleep(until.since(clock::mono()))?;
            drop(reap(None));
            if self.take_signals().iter().any(|signal| ![Signal::HUP, Signal::USR1].contains(signal)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The signals for the daemon that have come since the last call.
    fn take_signals(&mut self) -> Vec<Signal> {
        let mut taken = Vec::new();
        for (signal, stream) in &mut self.signals {
            let mut bytes = [0; 64];
            let count = stream.read(&mut bytes).unwrap_or(0);
            let passed = match *signal {
                SIGTERM | SIGQUIT => Signal::TERM,
                SIGINT => Signal::INT,
                SIGHUP => Signal::HUP,
                SIGUSR1 => Signal::USR1,
                _ => continue,
            };
            taken.extend(std::iter::repeat_n(passed, count));
        }
        taken
    }
}

fn own_family() -> Family {
    Family::Below(std::process::id())
}

/// Reaps every child that has ended. Answers how the daemon ended; none where it has not.
fn reap(daemon: Option<Pid>) -> io::Result<Option<End>> {
    let mut end = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if Some(pid) == daemon => end = Some(how_ended(status)),
            Ok(Some(_)) => {}
            Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(end),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn how_ended(status: WaitStatus) -> End {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(PANICKED), _) => End::Died("it panicked".into()),
        (Some(code), _) => End::Exited(code),
        // A daemon handles these signals once it is ready: this one came before, so nothing was to be ended.
        (None, Some(SIGTERM | SIGINT)) => End::Exited(0),
        (None, signal) => End::Died(format!("signal {}", signal.unwrap_or(0))),
    }
}

/// Makes a stream that becomes readable when the signal comes. A handler is used, not a blocked mask, because a child
/// would inherit the mask.
fn listen(signal: i32) -> io::Result<(i32, UnixStream)> {
    let (read_end, write_end) = UnixStream::pair()?;
    read_end.set_nonblocking(true)?;
    signal_hook::low_level::pipe::register(signal, write_end)?;
    Ok((signal, read_end))
}
