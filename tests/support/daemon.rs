//! A real daemon under its guardian, with a folder and an app.toml of its own.

use super::api::{Api, Reply};
use super::gate::Gate;
use super::process::{children, is_alive, is_stopped, send_signal};
use super::witness::Witness;
use super::{free_port, wait_for, wait_until};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use tempfile::TempDir;
use wing_crontab::core::time::STALLED;

pub const BINARY: &str = env!("CARGO_BIN_EXE_wing-crontab");

/// A node: its folder stays while its daemon is started, ended and started again.
pub struct Node {
    pub folder: TempDir,
    pub server: String,
    pub api: Api,
    environment: Vec<(String, String)>,
    uid: Option<u32>,
    namespace: Option<String>,
    through: Vec<String>,
    guardian: Option<Child>,
}

impl Node {
    /// A node that is not started yet. `extra` are lines of app.toml.
    pub fn new(extra: &str) -> Node {
        Node::at("127.0.0.1", extra)
    }

    /// The same in a network namespace that has this address.
    pub fn in_namespace(namespace: &str, host: &str, extra: &str) -> Node {
        // The test itself asks from another address.
        let mut node = Node::at(host, &format!("http_allow = [\"10.0.0.0/8\", \"127.0.0.0/8\"]\n{extra}"));
        node.namespace = Some(namespace.into());
        node
    }

    fn at(host: &str, extra: &str) -> Node {
        let folder = tempfile::Builder::new().prefix("wing-node-").tempdir().expect("a folder can be made");
        let (bind, http) = (free_port(), free_port());
        let (server, http) = (format!("{host}:{bind}"), format!("{host}:{http}"));
        let toml = format!(
            "bind_address = \"{server}\"\nhttp_bind_address = \"{http}\"\ndata_dir = \"{}\"\n{extra}",
            folder.path().join("data").display()
        );
        fs::write(folder.path().join("app.toml"), toml).expect("the folder takes a file");
        Node {
            folder,
            server,
            api: Api { address: http },
            environment: Vec::new(),
            uid: None,
            namespace: None,
            through: Vec::new(),
            guardian: None,
        }
    }

    /// A node whose API answers.
    pub fn started(extra: &str) -> Node {
        let mut node = Node::new(extra);
        node.start();
        node
    }

    pub fn env(mut self, name: &str, value: &str) -> Node {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Has the daemon run as this user; only root may do that.
    pub fn by_user(mut self, uid: u32) -> Node {
        std::os::unix::fs::chown(self.folder.path(), Some(uid), Some(uid)).expect("root may give a folder away");
        self.uid = Some(uid);
        self
    }

    /// Has a shell run these lines before it becomes the daemon.
    pub fn after(mut self, script: &str) -> Node {
        self.through = ["/bin/sh", "-c", &format!("{script}\nexec \"$0\" \"$@\"")].map(String::from).into();
        self
    }

    /// Starts in a mount namespace of its own, in which this shell line has been run.
    pub fn with_own_mounts(self, script: &str) -> Node {
        let inside = format!("{script}\nexec \"$0\" \"$@\"");
        self.after(&format!("[ -n \"$INSIDE\" ] || INSIDE=1 exec unshare -m /bin/sh -c '{inside}' \"$0\" \"$@\""))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file in the node's folder that jobs write to.
    pub fn witness(&self, name: &str) -> Witness {
        Witness::new(self.folder.path(), name)
    }

    /// A gate in the node's folder that jobs wait at.
    pub fn gate(&self) -> Gate {
        Gate::new(self.path("gate"))
    }

    /// Writes a file that may be executed into the node's folder; gives its path.
    pub fn script(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).expect("the folder takes a file");
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("the file is ours");
        path.display().to_string()
    }

    /// The embedded store, for what is written by hand; others may have it open.
    pub fn database(&self) -> rusqlite::Connection {
        let database = rusqlite::Connection::open(self.path("data/wing-crontab.db")).expect("the store is a file");
        database.busy_timeout(std::time::Duration::from_secs(10)).expect("SQLite waits for others");
        database
    }

    pub fn config(&self) -> PathBuf {
        self.path("app.toml")
    }

    /// Replaces app.toml's text.
    pub fn edit(&self, change: impl FnOnce(String) -> String) {
        let text = fs::read_to_string(self.config()).expect("app.toml was written");
        fs::write(self.config(), change(text)).expect("app.toml can be written");
    }

    /// Starts it and waits until it answers the API.
    pub fn start(&mut self) {
        self.launch();
        self.wait_up();
    }

    /// Starts it without waiting for its API.
    pub fn launch(&mut self) {
        let stderr = fs::OpenOptions::new().append(true).create(true).open(self.path("stderr")).expect("a log file");
        let mut command = Command::new(BINARY);
        if let Some(namespace) = &self.namespace {
            command = Command::new(super::program("ip").expect("it has made the namespace"));
            // `ip` replaces itself by the daemon, so that its pid is the guardian's.
            command.args(["netns", "exec", namespace, BINARY]);
        }
        if let Some(uid) = self.uid {
            // Not every user may read the folder of the sources.
            let copy = self.path("wing-crontab");
            fs::copy(BINARY, &copy).expect("the folder takes a file");
            command = Command::new(copy);
            command.uid(uid).gid(uid);
        }
        if let Some((first, rest)) = self.through.split_first() {
            command = Command::new(first);
            command.args(rest).arg(BINARY);
        }
        let child = command
            .arg("--config")
            .arg(self.config())
            .env("TZ", "UTC")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("the binary was built");
        self.guardian = Some(child);
    }

    pub fn wait_up(&mut self) {
        wait_until("the API answers", || {
            let guardian = self.guardian.as_mut().expect("it was launched");
            if let Some(status) = guardian.try_wait().expect("it is our child") {
                panic!(
                    "the daemon ended with {status}:\n{}",
                    fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default()
                );
            }
            self.api.is_up()
        });
    }

    /// Waits until the API answers reads again, after another daemon was started.
    #[track_caller]
    pub fn wait_up_again(&self) {
        wait_until("the API answers", || self.api.is_up());
    }

    /// Waits until `/health` answers with this status.
    #[track_caller]
    pub fn wait_health(&self, status: u16) {
        let is_so = |reply: &Reply| reply.status == status;
        super::wait_to_see(&format!("/health answers {status}"), || self.api.get("/health"), is_so);
    }

    /// What the daemon has printed to stderr so far.
    pub fn said(&self) -> String {
        fs::read_to_string(self.path("stderr")).unwrap_or_default()
    }

    #[track_caller]
    pub fn wait_said(&self, words: &str) {
        wait_until(&format!("stderr says {words:?}"), || self.said().contains(words));
    }

    /// Waits until stderr has these words so many times.
    #[track_caller]
    pub fn wait_said_times(&self, words: &str, times: usize) {
        let count = || self.said().matches(words).count();
        super::wait_to_see(&format!("stderr says {words:?} {times} times"), count, |count| times <= *count);
    }

    pub fn guardian_pid(&self) -> u32 {
        self.guardian.as_ref().expect("it runs").id()
    }

    /// The pid of the daemon itself, once there is one.
    pub fn daemon_pid(&self) -> u32 {
        let guardian = self.guardian_pid();
        wait_for("the guardian has a daemon", || {
            children(guardian).into_iter().find(|pid| {
                let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                command.split(|byte| *byte == 0).any(|word| word == b"--under-guardian")
            })
        })
    }

    /// Sends the guardian a signal, as an operator does.
    pub fn signal(&self, signal: Signal) {
        send_signal(signal, self.guardian_pid());
    }

    /// kill -9 of the daemon alone; its guardian starts another.
    pub fn kill_daemon(&self) {
        send_signal(Signal::KILL, self.daemon_pid());
    }

    /// Waits until another daemon than this one is there.
    #[track_caller]
    pub fn wait_for_other_daemon(&self, former: u32) -> u32 {
        super::wait_to_see("another daemon", || self.daemon_pid(), |pid| *pid != former)
    }

    /// Stops guardian and daemon, as on a host that hangs, while `act` runs.
    pub fn standing_still<T>(&self, act: impl FnOnce() -> T) -> T {
        let pids = [self.guardian_pid(), self.daemon_pid()];
        pids.into_iter().for_each(|pid| send_signal(Signal::STOP, pid));
        wait_until("guardian and daemon stand still", || pids.iter().all(|pid| is_stopped(*pid)));
        let done = act();
        pids.into_iter().rev().for_each(|pid| send_signal(Signal::CONT, pid));
        done
    }

    /// kill -9 of the daemon and its guardian so that neither notices the other's death: the runs go on.
    ///
    /// The guardian is stopped first and killed last. If the daemon were stopped instead, the guardian's death would
    /// wake it, because the kernel wakes an orphaned process group (setpgid(2)), and then it would end its runs.
    pub fn kill_whole(&mut self) {
        let (guardian, daemon) = (self.guardian_pid(), self.daemon_pid());
        send_signal(Signal::STOP, guardian);
        wait_until("the guardian stands still", || is_stopped(guardian));
        send_signal(Signal::KILL, daemon);
        send_signal(Signal::KILL, guardian);
        self.wait();
        wait_until("the daemon is gone", || !is_alive(daemon));
    }

    /// Whether the guardian ends by itself within two seconds.
    pub fn is_over(&mut self) -> bool {
        ends_within(self.guardian.as_mut().expect("it was launched"), 2)
    }

    /// Waits until the guardian has ended.
    pub fn wait(&mut self) -> ExitStatus {
        let mut guardian = self.guardian.take().expect("it runs");
        wait_for("the daemon ends", || guardian.try_wait().expect("it is our child"))
    }

    /// Sends SIGTERM and waits until the guardian has ended.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let Some(mut guardian) = self.guardian.take() else { return };
        if std::thread::panicking() {
            eprintln!("stderr of {}:\n{}", self.server, fs::read_to_string(self.path("stderr")).unwrap_or_default());
        }
        // The second signal ends at once the runs that are left.
        for pid in children(guardian.id()).into_iter().chain([guardian.id()]) {
            send_signal(Signal::CONT, pid);
        }
        send_signal(Signal::TERM, guardian.id());
        send_signal(Signal::INT, guardian.id());
        if !ends_within(&mut guardian, 20) {
            children(guardian.id()).into_iter().for_each(|pid| send_signal(Signal::KILL, pid));
            let _ = guardian.kill();
            let _ = guardian.wait();
        }
        // In every test: no part of the daemon may have missed a timer of its own.
        assert!(std::thread::panicking() || !self.said().contains(STALLED), "{}", self.said());
    }
}

/// Whether the process ends by itself within so many seconds.
fn ends_within(process: &mut Child, secs: u64) -> bool {
    (0..secs * 100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        matches!(process.try_wait(), Ok(Some(_)))
    })
}

/// Runs the program to its end with these arguments, in this folder.
pub fn run(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    finish(Command::new(BINARY).args(arguments).current_dir(folder))
}

/// Runs a command to its end; gives its exit code, its stdout and its stderr.
pub fn finish(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.stdin(Stdio::null()).output().expect("the program is there");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// The counters that `/debug/vars` on this address (`pprof_listen`) shows.
pub fn counters(address: &str) -> BTreeMap<String, u64> {
    let mut answer = ureq::get(format!("http://{address}/debug/vars")).call().expect("it answers");
    serde_json::from_str(&answer.body_mut().read_to_string().expect("a text")).expect("names and numbers")
}
