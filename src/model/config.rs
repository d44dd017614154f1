//! What app.toml says, checked and whole. `crate::config` makes it; the rooms only read it.

use super::{Server, Zones};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The longest `max_output_bytes`: more would not fit into one store statement.
pub const OUTPUT_BYTES_MAX: usize = 4 << 20;

#[derive(Clone, Debug)]
pub struct Config {
    /// The concrete `ip:port` that names this node; checked to be one.
    pub bind_address: Server,
    pub http_bind_address: SocketAddr,
    pub pprof_listen: Option<SocketAddr>,
    pub log_level: log::LevelFilter,
    pub log_file: Option<PathBuf>,
    pub data_dir: PathBuf,
    pub service_name: String,
    pub lock_key: String,
    /// None: standing alone.
    pub consul: Option<ConsulConfig>,
    pub cluster: ClusterConfig,
    /// None: the embedded store in `data_dir`.
    pub mysql: Option<MysqlConfig>,
    /// An absolute path; given `-c COMMAND`.
    pub shell: PathBuf,
    pub drain_timeout_ms: u64,
    pub limits: Limits,
    pub zones: HostZones,
    /// 0: log rows are kept for ever.
    pub log_retention_days: u32,
    /// What a job's `node` may name beside the server.
    pub labels: Vec<String>,
    /// Whether the whole output of a run is kept in data_dir, beside what the log row keeps of it.
    pub spool_output: bool,
}

/// The zones, and for people where they come from.
#[derive(Clone, Debug)]
pub struct HostZones {
    pub zones: Zones,
    /// The zone of schedules that name none, and whose data are used: two lines.
    pub told: [String; 2],
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct ConsulConfig {
    /// `host:port`.
    pub address: String,
    pub token: Option<Secret>,
    /// Where the token comes from, if from a file: it may be replaced there.
    pub token_file: Option<PathBuf>,
}

/// How nodes trust each other.
#[derive(Clone, Debug, Default)]
pub struct ClusterConfig {
    /// None: only nodes of this host are spoken to, unless `insecure`.
    pub secret: Option<Secret>,
    pub insecure: bool,
}

#[derive(Clone, Debug)]
pub struct MysqlConfig {
    pub user: String,
    pub password: Secret,
    pub host: String,
    pub port: u16,
    pub database: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Processes at one time on this node.
    pub max_running: usize,
    /// Runs that wait on this node for their second or for a place.
    pub max_pending: usize,
    /// Runs of one mutex job that wait for the one that runs, and of any other that wait on one node for their turn.
    pub max_pending_per_job: usize,
    /// How late a run may still start.
    pub misfire_grace_secs: u32,
    /// Output kept of one run, at most `OUTPUT_BYTES_MAX`.
    pub max_output_bytes: usize,
    /// Between TERM and KILL.
    pub kill_grace_ms: u64,
    /// With less free memory fewer runs are started at one time; 0: whatever is free.
    pub min_free_memory_mb: u64,
    /// Runs in one part of a tick: a part is one statement, and stays well below what a store takes. No key of app.toml.
    pub part_runs_max: usize,
}

/// Runs that are over and wait for their log row, beyond those for which `max_pending` has room.
const OVER_MAX: usize = 10_000;

impl Limits {
    /// What a node may have in all: what runs and waits (a leader gives it a tenth beyond `max_running` and
    /// `max_pending`), and what is over and has no committed log row yet.
    pub fn held_max(&self) -> usize {
        self.max_running + 2 * self.max_pending + OVER_MAX
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_running: 1_024,
            max_pending: 10_000,
            max_pending_per_job: 60,
            misfire_grace_secs: 60,
            max_output_bytes: 1 << 20,
            kill_grace_ms: 5_000,
            min_free_memory_mb: 0,
            part_runs_max: 5_000,
        }
    }
}

/// A text that is never printed.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct Secret(pub String);

impl Secret {
    /// As it stands in a file of its own: without the line's end.
    pub fn of_file(text: &str) -> Secret {
        Secret(text.trim_end_matches(['\n', '\r']).into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
