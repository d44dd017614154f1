//! A real daemon under its guardian, from a configuration of its own in a folder of its own.

use super::api::Api;
use super::{free_port, wait_for, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use tempfile::TempDir;
use wing_crontab::core::time::STALLED;

pub const BINARY: &str = env!("CARGO_BIN_EXE_wing-crontab");

/// A node's folder and configuration; the daemon in it may be started, ended and started again.
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

    /// In a network namespace that has this address.
    pub fn in_namespace(namespace: &str, host: &str, extra: &str) -> Node {
        let mut node = Node::at(host, extra);
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

    /// A node that answers.
    pub fn started(extra: &str) -> Node {
        let mut node = Node::new(extra);
        node.start();
        node
    }

    pub fn env(mut self, name: &str, value: &str) -> Node {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Runs as another user; only root may do that.
    pub fn by_user(mut self, uid: u32) -> Node {
        std::os::unix::fs::chown(self.folder.path(), Some(uid), Some(uid)).expect("root may give a folder away");
        self.uid = Some(uid);
        self
    }

    /// Starts by way of a shell that runs these lines before it becomes the daemon.
    pub fn after(mut self, script: &str) -> Node {
        self.through = ["/bin/sh", "-c", &format!("{script}\nexec \"$0\" \"$@\"")].map(String::from).into();
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
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

    /// Starts it and does not wait.
    pub fn launch(&mut self) {
        let stderr = fs::OpenOptions::new().append(true).create(true).open(self.path("stderr")).expect("a log file");
        let mut command = Command::new(BINARY);
        if let Some(namespace) = &self.namespace {
            command = Command::new(super::program("ip").expect("it has made the namespace"));
            // It becomes what it is told to run, so its pid is the guardian's.
            command.args(["netns", "exec", namespace, BINARY]);
        }
        if let Some(uid) = self.uid {
            // Where the sources lie not every user may look.
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

    /// What it said on stderr so far.
    pub fn said(&self) -> String {
        fs::read_to_string(self.path("stderr")).unwrap_or_default()
    }

    #[track_caller]
    pub fn wait_said(&self, words: &str) {
        wait_until(&format!("stderr says {words:?}"), || self.said().contains(words));
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

    /// Signals the guardian, as an operator does.
    pub fn signal(&self, signal: Signal) {
        send_signal(signal, self.guardian_pid());
    }

    /// kill -9 of the daemon and of its guardian, with neither noticing the other's death: what ran goes on.
    ///
    /// The guardian is stopped and dies last. A stopped daemon would be woken by the guardian's death, because the kernel
    /// lets no orphaned process group stay stopped (setpgid(2)), and would end its runs in the moment that it has left.
    pub fn kill_whole(&mut self) {
        let (guardian, daemon) = (self.guardian_pid(), self.daemon_pid());
        send_signal(Signal::STOP, guardian);
        wait_until("the guardian stands still", || state(guardian) == Some('T'));
        send_signal(Signal::KILL, daemon);
        send_signal(Signal::KILL, guardian);
        self.wait();
        wait_until("the daemon is gone", || !is_alive(daemon));
    }

    /// Whether it has ended, or is about to without our doing.
    pub fn is_over(&mut self) -> bool {
        let guardian = self.guardian.as_mut().expect("it was launched");
        (0..200).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            matches!(guardian.try_wait(), Ok(Some(_)))
        })
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> ExitStatus {
        let mut guardian = self.guardian.take().expect("it runs");
        wait_for("the daemon ends", || guardian.try_wait().expect("it is our child"))
    }

    /// SIGTERM, and waits for the end.
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
        // Two signals: the second leaves no time to what still runs.
        for pid in children(guardian.id()).into_iter().chain([guardian.id()]) {
            send_signal(Signal::CONT, pid);
        }
        send_signal(Signal::TERM, guardian.id());
        send_signal(Signal::INT, guardian.id());
        let is_over = (0..2_000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            matches!(guardian.try_wait(), Ok(Some(_)))
        });
        if !is_over {
            children(guardian.id()).into_iter().for_each(|pid| send_signal(Signal::KILL, pid));
            let _ = guardian.kill();
            let _ = guardian.wait();
        }
        // Whatever the test was about: no part of the daemon may have slept over its own time.
        assert!(std::thread::panicking() || !self.said().contains(STALLED), "{}", self.said());
    }
}

/// Runs the binary to its end with these arguments.
pub fn run(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    finish(Command::new(BINARY).args(arguments).current_dir(folder))
}

/// Runs a command to its end: its code, what it said on stdout and on stderr.
pub fn finish(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.stdin(Stdio::null()).output().expect("the program is there");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// A process that is gone already takes no signal, and that is no mistake.
pub fn send_signal(signal: Signal, pid: u32) {
    let _ = kill_process(Pid::from_raw(pid as i32).expect("a pid is not 0"), signal);
}

/// The live children of a process, whichever of its threads started them.
pub fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let texts = tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
    texts.flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()).collect()
}

/// What `/debug/vars` on this address (`pprof_listen`) counts.
pub fn counters(address: &str) -> BTreeMap<String, u64> {
    let mut answer = ureq::get(format!("http://{address}/debug/vars")).call().expect("it answers");
    serde_json::from_str(&answer.body_mut().read_to_string().expect("a text")).expect("names and numbers")
}

/// Whether the process is there and not a zombie.
pub fn is_alive(pid: u32) -> bool {
    state(pid).is_some_and(|state| !['Z', 'X'].contains(&state))
}

/// The letter that proc(5) gives a process's state.
fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// The threads of a process.
pub fn threads(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}
