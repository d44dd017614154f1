//! The configuration, as app.toml gives it.
//!
//! Not the reading of the file: `crate::config` does that, the other rooms only read the values.
//!
//! Invariant: a `Config` was checked as a whole.

use super::access::AccessConfig;
use super::{Server, Zones};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The longest `max_output_bytes`: more would not fit into one store statement.
pub const OUTPUT_BYTES_MAX: usize = 4 << 20;

#[derive(Clone, Debug)]
pub struct Config {
    /// The concrete `ip:port` that names this node.
    pub bind_address: Server,
    pub http_bind_address: SocketAddr,
    pub access: AccessConfig,
    pub pprof_listen: Option<SocketAddr>,
    pub log_level: log::LevelFilter,
    pub log_file: Option<PathBuf>,
    pub data_dir: PathBuf,
    pub service_name: String,
    pub lock_key: String,
    /// None where the node stands alone.
    pub consul: Option<ConsulConfig>,
    pub cluster: ClusterConfig,
    /// None for the embedded store in `data_dir`.
    pub mysql: Option<MysqlConfig>,
    /// The absolute path of a program that takes `-c COMMAND`.
    pub shell: PathBuf,
    pub drain_timeout_ms: u64,
    pub limits: Limits,
    pub zones: HostZones,
    /// How long log rows are kept; 0 for ever.
    pub log_retention_days: u32,
    /// Names for this node, beside its server, that a job's `node` may have.
    pub labels: Vec<String>,
    /// Whether the whole output of a run is kept in data_dir, beside the part of it that is in the log row.
    pub spool_output: bool,
}

/// The time zones, and messages about their origin.
#[derive(Clone, Debug)]
pub struct HostZones {
    pub zones: Zones,
    /// Two lines for people: the zone of schedules that name none, and the source of the zones' data.
    pub told: [String; 2],
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct ConsulConfig {
    /// `host:port`.
    pub address: String,
    pub token: Option<Secret>,
    /// The file that the token comes from, if it does: a new token may be put there at any time.
    pub token_file: Option<PathBuf>,
}

/// How nodes trust each other.
#[derive(Clone, Debug, Default)]
pub struct ClusterConfig {
    /// Without one the node speaks only to nodes of its own host, unless `insecure`.
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
    /// Runs that wait on this node, for their second or for capacity.
    pub max_pending: usize,
    /// Runs of one mutex job that wait for its running one; and runs of any other job in the ready queue of one node.
    pub max_pending_per_job: usize,
    /// How late a run may still start.
    pub misfire_grace_secs: u32,
    /// Bytes of output kept of one run, at most `OUTPUT_BYTES_MAX`.
    pub max_output_bytes: usize,
    /// The time between TERM and KILL.
    pub kill_grace_ms: u64,
    /// With less free memory than this, fewer runs are started at one time; 0 sets no such limit.
    pub min_free_memory_mb: u64,
    /// Runs in one part of a tick: a part is one statement, and its size stays well below a store's limit. Not a key of
    /// app.toml.
    pub part_runs_max: usize,
}

/// How many runs that are over and wait for their log row a node may have, beside those that `max_pending` allows.
const OVER_MAX: usize = 10_000;

impl Limits {
    /// How many runs a node may hold in all: running and waiting ones (a leader gives it a tenth beyond `max_running`
    /// and `max_pending`), and those that are over and have no committed log row yet.
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
    /// The secret that a file holds: its text without the end of the line.
    pub fn of_file(text: &str) -> Secret {
        Secret(text.trim_end_matches(['\n', '\r']).into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
