//! What the black-box tests share: real daemons, a real MariaDB, a real Consul, each on ports of its own, and what tests do
//! with them over and over.
//!
//! Each wait asks again until it is answered, and fails after `PATIENCE` with what it waited for. No process outlives its
//! test.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod api;
pub mod certificates;
pub mod changes;
pub mod cluster;
pub mod consul;
pub mod daemon;
pub mod flood;
pub mod gate;
pub mod jobs;
pub mod mariadb;
pub mod network;
pub mod outcomes;
pub mod process;
pub mod proxy;
pub mod row;
pub mod time;
pub mod witness;

use std::fmt::Debug;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// How long a test waits. Nothing takes so long, even on a slow machine, unless the program is broken.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks until there is an answer and gives it; panics with `what` when there is none within `PATIENCE`.
#[track_caller]
pub fn wait_for<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    wait_for_every(Duration::from_millis(5), what, ask)
}

/// As `wait_for`, with so much time between two questions: for a costly one, which would take the processors from what it
/// asks about.
#[track_caller]
pub fn wait_for_every<T>(pause: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain for: {what}");
        std::thread::sleep(pause);
    }
}

/// Looks until what is seen is as it should be, and gives it; panics with what was seen last when it is not so within
/// `PATIENCE`.
#[track_caller]
pub fn wait_to_see<T: Debug>(
    what: &str,
    mut look: impl FnMut() -> T,
    mut is_as_it_should: impl FnMut(&T) -> bool,
) -> T {
    let start = Instant::now();
    loop {
        let seen = look();
        if is_as_it_should(&seen) {
            return seen;
        }
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain for: {what}. This was there: {seen:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Asks until it is so; panics with `what` when it is not so within `PATIENCE`.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    wait_for(what, || is_so().then_some(()));
}

/// A port that nobody listens on. It lies below the range of outgoing connections, so that none of them takes it before the
/// test does.
pub fn free_port() -> u16 {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let of_process = (std::process::id().wrapping_mul(97) % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let port = FIRST + of_process.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}

/// Gives the service, or skips the test with the reason; under CI the test fails instead.
pub fn required<T>(service: &str, got: Result<T, String>) -> Option<T> {
    match got {
        Ok(service) => Some(service),
        Err(reason) => {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{service} is needed and not to be had: {reason}");
            eprintln!("SKIPPED: {service} is not to be had: {reason}");
            None
        }
    }
}

/// A program of the host, by name, on the path or where system programs are.
pub fn program(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/bin".into()]);
    folders.map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// A service that ends with this process, however this process ends: a shell beside the service reads a pipe that only we
/// hold, and kills the service when the pipe is closed.
pub struct Service {
    shell: Child,
}

impl Service {
    /// Starts `command` in `folder`, which is removed at the end. What it prints goes to the file `log` there.
    pub fn start(folder: &std::path::Path, command: &[&str]) -> Result<Service, String> {
        const SCRIPT: &str = r#"folder=$1; shift
"$@" >>"$folder/log" 2>&1 </dev/null &
pid=$!
read end
case $end in stop) kill -TERM $pid;; *) kill -KILL $pid;; esac
wait $pid
case $end in stop|kill) ;; *) rm -rf "$folder";; esac"#;
        let shell = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "sh"])
            .arg(folder)
            .args(command)
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("start {}: {error}", command[0]))?;
        Ok(Service { shell })
    }

    /// The service's own process.
    pub fn pid(&self) -> u32 {
        wait_for("the shell has started it", || process::children(self.shell.id()).first().copied())
    }

    /// Ends it as an operator would, or by kill -9. Its folder stays, so that it can be started again.
    pub fn stop(mut self, is_gentle: bool) {
        use std::io::Write;
        if let Some(mut pipe) = self.shell.stdin.take() {
            let word = if is_gentle { "stop\n" } else { "kill\n" };
            pipe.write_all(word.as_bytes()).expect("the shell beside the service is there");
        }
        self.shell.wait().expect("the shell beside the service is ours");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}
