//! The configuration, as app.toml gives it.
//!
//! Not the reading of the file: `crate::config` does that, the other rooms only read the values.
//!
//! Invariant: a `Config` was checked as a whole.

use super::access::AccessConfig;
use super::tls::TlsFiles;
use super::{Server, Zones};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The largest `max_output_bytes`: a longer output would not fit into one statement of a store.
pub const OUTPUT_BYTES_MAX: usize = 4 << 20;

/// The configuration, checked whole.
#[derive(Clone, Debug)]
pub struct Config {
    /// The `ip:port` at which other nodes reach this one, and its name.
    pub bind_address: Server,
    pub http_bind_address: SocketAddr,
    pub access: AccessConfig,
    pub pprof_listen: Option<SocketAddr>,
    pub log_level: log::LevelFilter,
    pub log_file: Option<PathBuf>,
    pub data_dir: PathBuf,
    pub service_name: String,
    pub lock_key: String,
    /// None: the node stands alone.
    pub consul: Option<ConsulConfig>,
    pub cluster: ClusterConfig,
    /// None: the store is the embedded one in `data_dir`.
    pub mysql: Option<MysqlConfig>,
    /// The absolute path of a program that takes `-c COMMAND`.
    pub shell: PathBuf,
    /// The names of variables that a command which runs as another user gets of the daemon's environment.
    pub env_pass: Vec<String>,
    /// Each run has a control group of its own, where the host lets us make one.
    pub run_cgroup: bool,
    pub drain_timeout_ms: u64,
    pub limits: Limits,
    pub zones: HostZones,
    /// How long log rows are kept; 0 for ever.
    pub log_retention_days: u32,
    /// Further names of this node, beside its server, that a job's `node` may have.
    pub labels: Vec<String>,
    /// Whether whole outputs are kept in data_dir. A log row has only `max_output_bytes` of one.
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

/// Where Consul's agent is, and the token that its calls carry.
#[derive(Clone, Debug)]
pub struct ConsulConfig {
    /// `host:port`.
    pub address: String,
    /// None: it is spoken to by plain HTTP.
    pub tls: Option<TlsFiles>,
    pub token: Option<Secret>,
    /// The token's file, in which an operator may replace it at any time; none where the token is in app.toml.
    pub token_file: Option<PathBuf>,
}

/// How nodes trust each other.
#[derive(Clone, Debug, Default)]
pub struct ClusterConfig {
    /// None: the node has links only to nodes of its own host, which share a secret by their database, unless it is
    /// `insecure`.
    pub secret: Option<Secret>,
    /// Without a secret the node trusts every node that connects.
    pub insecure: bool,
}

/// Where the database is, and who logs in to it.
#[derive(Clone, Debug)]
pub struct MysqlConfig {
    pub user: String,
    pub password: Secret,
    pub host: String,
    pub port: u16,
    pub database: String,
    pub tls: MysqlTls,
    /// Without CAs unless the server is verified.
    pub tls_files: TlsFiles,
}

/// Whether connections to the database are encrypted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum MysqlTls {
    Off,
    /// Where the server offers it. Whoever can change what crosses the network can prevent it.
    #[default]
    Prefer,
    /// Always, with any server: this defends against listeners only.
    Require,
    /// Always, and the certificate must be a CA's, and for the server's name.
    Verify,
}

impl MysqlTls {
    /// Every value, as app.toml has it.
    pub const NAMES: [(&str, MysqlTls); 4] = [
        ("off", MysqlTls::Off),
        ("prefer", MysqlTls::Prefer),
        ("require", MysqlTls::Require),
        ("verify", MysqlTls::Verify),
    ];

    /// The name in app.toml.
    pub fn name(self) -> &'static str {
        MysqlTls::NAMES.iter().find(|(_, tls)| *tls == self).map_or("", |(name, _)| name)
    }
}

/// The limits of one node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// The most runs that run at one time.
    pub max_running: usize,
    /// The most runs that wait, for their second or for capacity.
    pub max_pending: usize,
    /// For a mutex job, the most runs that wait with the leader for the running one. For any other job, the most of its
    /// runs in the ready queue of a node.
    pub max_pending_per_job: usize,
    /// How late a run may still start.
    pub misfire_grace_secs: u32,
    /// How many bytes of a run's output are kept, at most `OUTPUT_BYTES_MAX`.
    pub max_output_bytes: usize,
    /// The time between TERM and KILL.
    pub kill_grace_ms: u64,
    /// While less memory than this is free, fewer runs are started at one time; 0 sets no such limit.
    pub min_free_memory_mb: u64,
    /// The most runs in one part of a tick. A part is one statement, and must stay well below a store's limit. Not a
    /// key of app.toml.
    pub part_runs_max: usize,
}

/// How many ended runs without a committed log row a node may hold, beside those that `max_pending` allows.
const OVER_MAX: usize = 10_000;

impl Limits {
    /// How many runs a node may hold in all: running and waiting ones (a leader may give it a tenth more than
    /// `max_running` and `max_pending`), and ended ones whose log rows are not committed yet.
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

/// A text that `Debug` does not print, so that no log line can have it.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct Secret(pub String);

impl Secret {
    /// The secret in a file: the file's text without the end of the line.
    pub fn of_file(text: &str) -> Secret {
        Secret(text.trim_end_matches(['\n', '\r']).into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
