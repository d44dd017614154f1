//! Reads app.toml into a `Config`, and checks all of it at once. The error lists every mistake, each with the file, the
//! key, and the values that are expected.
//!
//! A secret comes from the key itself, from a file of its own, or from the environment. No message has one in it.
//!
//! Not here: whether an address can be bound, or a database answers; the daemon's start finds that out.
//!
//! Invariant: a `Config` has no value that is known to be wrong before anything is opened but files.

pub mod access;
mod exposed;
mod reader;
mod secrets;
mod services;
mod tls;
pub mod zones;

use crate::model::config::{ClusterConfig, Config, HostZones, Limits, OUTPUT_BYTES_MAX};
use crate::model::{Server, Wall};
use reader::Reader;
use secrets::secret;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Every key that app.toml may have; `config/app.toml` explains them.
const KEYS: [&str; 49] = [
    "consul_address",
    "service_name",
    "lock_key",
    "bind_address",
    "http_bind_address",
    "http_allow",
    "http_tokens_file",
    "http_trusted_proxies",
    "http_hosts",
    "http_tls_cert",
    "http_tls_key",
    "pprof_listen",
    "log_level",
    "mysql_user",
    "mysql_password",
    "mysql_host",
    "mysql_port",
    "mysql_database",
    "mysql_charset",
    "mysql_password_file",
    "mysql_tls",
    "mysql_ca_file",
    "mysql_cert_file",
    "mysql_key_file",
    "consul_token",
    "consul_token_file",
    "consul_ca_file",
    "consul_cert_file",
    "consul_key_file",
    "cluster_secret",
    "cluster_secret_file",
    "cluster_insecure",
    "data_dir",
    "log_file",
    "log_retention_days",
    "shell",
    "env_pass",
    "run_cgroup",
    "drain_timeout",
    "max_running",
    "max_pending",
    "max_pending_per_job",
    "misfire_grace",
    "max_output_bytes",
    "time_zone",
    "labels",
    "kill_grace",
    "min_free_memory_mb",
    "spool_output",
];

/// The least length of a secret that nobody guesses from a recorded handshake.
const SECRET_CHARS_MIN: usize = 16;

/// The path of the file: the named one, else `config/app.toml` under the working directory, else the one beside the
/// executable. Error: none was named, and neither of these exists.
pub fn find(named: Option<PathBuf>) -> Result<PathBuf, String> {
    if let Some(path) = named {
        return Ok(path);
    }
    let here = PathBuf::from("config/app.toml");
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("config/app.toml")));
    let candidates = [Some(here), beside];
    let found = candidates.iter().flatten().find(|path| path.is_file());
    found.cloned().ok_or_else(|| {
        let tried: Vec<String> = candidates.iter().flatten().map(|path| path.display().to_string()).collect();
        format!("there is no {}; name one with --config PATH", tried.join(" and no "))
    })
}

/// Reads and checks the file. The error lists all mistakes, a line each.
pub fn load(path: &Path, environment: impl Fn(&str) -> Option<String>) -> Result<Config, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    parse(&text, &path.display().to_string(), environment)
}

/// As `load`, from a text; `file` names it in errors.
pub fn parse(text: &str, file: &str, environment: impl Fn(&str) -> Option<String>) -> Result<Config, String> {
    let mut reader = Reader::new(text, file, &KEYS)?;
    let config = read(&mut reader, &environment);
    reader.finish()?;
    // A missing part has been noted as a mistake, so the configuration is there.
    config.ok_or_else(|| format!("{file}: a required key is missing"))
}

fn read(reader: &mut Reader, environment: &dyn Fn(&str) -> Option<String>) -> Option<Config> {
    let bind = bind_address(reader);
    let http = address(reader, "http_bind_address", "127.0.0.1:9990");
    let pprof = reader.text("pprof_listen").filter(|text| !text.is_empty());
    let pprof_listen = pprof.and_then(|text| parse_address(reader, "pprof_listen", &text));
    let listens = [("bind_address", bind), ("http_bind_address", http), ("pprof_listen", pprof_listen)];
    for (at, (name, address)) in listens.iter().enumerate() {
        if let Some((earlier, _)) = listens[..at].iter().find(|(_, earlier)| earlier.is_some() && earlier == address) {
            reader.mistake(name, &format!("it is the same as {earlier}; each needs an address of its own"));
        }
    }
    let access = access::access(reader, environment);
    let consul = services::consul(reader, environment);
    let cluster = cluster(reader, environment);
    let mysql = services::mysql(reader, environment);
    let service_name = name(reader, "service_name", "wing-crontab-service");
    let lock_key = name(reader, "lock_key", "wing-crontab-lock");
    let limits = limits(reader);
    let log_level = log_level(reader);
    let log_file = reader.path("log_file");
    let data_dir = reader.path("data_dir").unwrap_or_else(|| PathBuf::from("data"));
    let shell = shell(reader);
    let env_pass = env_pass(reader);
    let run_cgroup = run_cgroup(reader);
    let drain_timeout_ms = reader.integer("drain_timeout", 0, 86_400).unwrap_or(10) as u64 * 1_000;
    let log_retention_days = reader.integer("log_retention_days", 0, 36_500).unwrap_or(0) as u32;
    let zones = host_zones(reader, environment);
    let labels = reader.texts("labels").unwrap_or_default();
    let spool_output = reader.flag("spool_output").unwrap_or(false);
    // A missing part ends this function only here, so that the mistakes in all others are noted before.
    Some(Config {
        bind_address: Server(bind?.to_string().into()),
        http_bind_address: http?,
        access,
        pprof_listen,
        log_level,
        log_file,
        data_dir,
        service_name,
        lock_key,
        consul,
        cluster,
        mysql,
        shell,
        env_pass,
        run_cgroup,
        drain_timeout_ms,
        limits,
        zones: zones?,
        log_retention_days,
        labels,
        spool_output,
    })
}

fn bind_address(reader: &mut Reader) -> Option<SocketAddr> {
    let address = address(reader, "bind_address", "127.0.0.1:9991")?;
    if address.ip().is_unspecified() {
        reader.mistake(
            "bind_address",
            &format!(
                "\"{address}\" names every interface, but other nodes connect to this address: give one concrete ip:port, such as \
                 \"10.0.0.5:9991\""
            ),
        );
        return None;
    }
    Some(address)
}

fn address(reader: &mut Reader, key: &'static str, default: &str) -> Option<SocketAddr> {
    let text = reader.text(key).filter(|text| !text.is_empty()).unwrap_or_else(|| default.into());
    parse_address(reader, key, &text)
}

fn parse_address(reader: &mut Reader, key: &'static str, text: &str) -> Option<SocketAddr> {
    let parsed = text.parse().ok().filter(|address: &SocketAddr| address.port() != 0);
    if parsed.is_none() {
        reader.mistake(
            key,
            &format!("{text:?} is not an ip:port with a port from 1 to 65535, such as \"127.0.0.1:9990\""),
        );
    }
    parsed
}

fn name(reader: &mut Reader, key: &'static str, default: &str) -> String {
    let text = reader.text(key).unwrap_or_else(|| default.into());
    if text.is_empty() || 200 < text.len() || text.chars().any(char::is_control) {
        reader.mistake(key, "a name of 1 to 200 characters is expected, the same on every node of the cluster");
    }
    text
}

fn log_level(reader: &mut Reader) -> log::LevelFilter {
    // The older system's scale: 0 panic, 1 fatal, 2 error, 3 warn, 4 info, 5 debug.
    match reader.integer("log_level", 0, 5).unwrap_or(4) {
        0..=2 => log::LevelFilter::Error,
        3 => log::LevelFilter::Warn,
        4 => log::LevelFilter::Info,
        _ => log::LevelFilter::Debug,
    }
}

fn shell(reader: &mut Reader) -> PathBuf {
    let shell = reader.path("shell").unwrap_or_else(|| PathBuf::from("/bin/sh"));
    let is_program = shell.is_absolute()
        && shell.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0);
    if !is_program {
        reader.mistake(
            "shell",
            &format!("{:?} is not the absolute path of a program, such as \"/bin/sh\"", shell.display().to_string()),
        );
    }
    shell
}

fn env_pass(reader: &mut Reader) -> Vec<String> {
    let names = reader.texts("env_pass").unwrap_or_default();
    for name in &names {
        if name.contains(['=', '\0']) || name.starts_with("WING_") {
            reader.mistake("env_pass", &format!("{name:?} is not passed: the name of a variable is expected, and not one of the daemon's own (WING_)"));
        }
    }
    names
}

fn run_cgroup(reader: &mut Reader) -> bool {
    match reader.text("run_cgroup").as_deref() {
        None | Some("auto") => true,
        Some("off") => false,
        Some(other) => {
            reader.mistake("run_cgroup", &format!("{other:?} is neither \"auto\" nor \"off\""));
            false
        }
    }
}

fn host_zones(reader: &mut Reader, environment: &dyn Fn(&str) -> Option<String>) -> Option<HostZones> {
    let name = reader.text("time_zone").filter(|name| !name.is_empty());
    zones::load(name.as_deref(), environment).map_err(|error| reader.mistake("time_zone", &error)).ok()
}

fn limits(reader: &mut Reader) -> Limits {
    let default = Limits::default();
    let kill_grace_ms =
        reader.integer("kill_grace", 0, 3_600).map_or(default.kill_grace_ms, |secs| secs as u64 * 1_000);
    let min_free_memory_mb = reader.integer("min_free_memory_mb", 0, 1 << 30).unwrap_or(0) as u64;
    let mut count = |key, default: usize, max: i64| reader.integer(key, 1, max).map_or(default, |count| count as usize);
    Limits {
        max_running: count("max_running", default.max_running, 100_000),
        max_pending: count("max_pending", default.max_pending, 1_000_000),
        max_pending_per_job: count("max_pending_per_job", default.max_pending_per_job, 1_000_000),
        misfire_grace_secs: count("misfire_grace", default.misfire_grace_secs as usize, 86_400) as u32,
        max_output_bytes: count("max_output_bytes", default.max_output_bytes, OUTPUT_BYTES_MAX as i64),
        kill_grace_ms,
        min_free_memory_mb,
        part_runs_max: default.part_runs_max,
    }
}

fn cluster(reader: &mut Reader, environment: &dyn Fn(&str) -> Option<String>) -> ClusterConfig {
    let secret = secret(reader, environment, ["cluster_secret", "cluster_secret_file", "WING_CLUSTER_SECRET"]);
    if secret.as_ref().is_some_and(|secret| secret.0.chars().count() < SECRET_CHARS_MIN) {
        let expected =
            format!("it is shorter than {SECRET_CHARS_MIN} characters; `openssl rand -hex 32` prints a good one");
        reader.mistake("cluster_secret", &expected);
    }
    let insecure = reader.flag("cluster_insecure").unwrap_or(false);
    ClusterConfig { secret, insecure }
}

/// A line for each value that is allowed but most likely a mistake, at this time.
pub fn warnings(config: &Config, path: &Path, now: Wall) -> Vec<String> {
    let address = &config.bind_address;
    let is_on_loopback = address.0.parse().is_ok_and(|address: SocketAddr| address.ip().is_loopback());
    let mut warnings = Vec::new();
    if config.consul.is_some() && !is_on_loopback && config.cluster.secret.is_none() {
        warnings.push(match config.cluster.insecure {
            false => "cluster_secret: it is not set, so this node connects to no node on another host; give all nodes of a cluster the \
                      same one"
                .into(),
            true => {
                format!("cluster_insecure: everybody who reaches {address} may run commands here; set cluster_secret instead")
            }
        });
    }
    if config.consul.is_some() && !is_on_loopback && config.mysql.is_none() {
        warnings.push(
            "mysql_host: it is not set, so the jobs are in this node's own data_dir, and no other node knows them; give all nodes of a \
             cluster the same database"
                .into(),
        );
    }
    warnings.extend(exposed::warnings(path));
    warnings.extend(access::warnings(&config.access, config.http_bind_address, now));
    let of_file = warnings.into_iter().map(|warning| format!("{}: {warning}", path.display()));
    of_file.chain(config.zones.warnings.iter().cloned()).collect()
}

/// The text that `--check-config` prints. It has no secrets.
pub fn summary(config: &Config) -> String {
    let (store, consul) = services::summary(config);
    format!(
        "node {} ({} {})\n{}\nstore: {store}\nconsul: {consul}\ndata_dir: {}\nshell: {}\n{}\n",
        config.bind_address,
        if config.access.tls.is_some() { "HTTPS" } else { "HTTP" },
        config.http_bind_address,
        access::summary(&config.access),
        config.data_dir.display(),
        config.shell.display(),
        config.zones.told.join("\n")
    )
}

#[cfg(test)]
mod tests;
