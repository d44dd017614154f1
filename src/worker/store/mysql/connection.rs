//! A connection to MySQL: how it is made, and what is known of its server.
//!
//! Not here: when a new one is made; `MysqlStore` knows that.
//!
//! Invariants: no call on it waits without a limit; it is encrypted wherever `mysql_tls` says so.

use super::outcome::{Failure, Outcome, system_error, tls_error};
use super::schema::LogTable;
use crate::core::time::bounds::{
    MYSQL_ANSWER_MS, MYSQL_CONNECT_MS, MYSQL_LOCK_WAIT_SECS, MYSQL_READ_LOCK_SECS, MYSQL_READ_MS, MYSQL_READ_SECS,
    MYSQL_UNHEARD_MS,
};
use crate::model::config::{MysqlConfig, MysqlTls};
use crate::model::tls::IdentityFiles;
use crate::worker::store::Hand;
use crate::worker::tls;
use mysql::prelude::Queryable;
use mysql::{ClientIdentity, Conn, DriverError, OptsBuilder, SslOpts};
use std::io::ErrorKind;
use std::time::Duration;

const ACCESS_DENIED: u16 = 1045;
/// The server takes encrypted connections only (`require_secure_transport`).
const NO_INSECURE_TRANSPORT: u16 = 3159;

/// The errors of a connection that the other end has closed.
const CLOSED: [ErrorKind; 4] =
    [ErrorKind::BrokenPipe, ErrorKind::ConnectionAborted, ErrorKind::ConnectionReset, ErrorKind::UnexpectedEof];

pub struct Connection {
    pub conn: Conn,
    /// How it was made, for another one like it.
    pub options: OptsBuilder,
    /// What the server takes in one statement.
    pub packet_bytes: usize,
    pub log: Option<LogTable>,
}

fn options(config: &MysqlConfig, hand: Hand) -> OptsBuilder {
    let read_ms = if hand == Hand::Reader { MYSQL_READ_MS } else { MYSQL_ANSWER_MS };
    OptsBuilder::new()
        .ip_or_hostname(Some(&config.host))
        .tcp_port(config.port)
        .user(Some(&config.user))
        .pass(Some(&config.password.0))
        .prefer_socket(false)
        .tcp_connect_timeout(Some(Duration::from_millis(MYSQL_CONNECT_MS)))
        .tcp_user_timeout_ms(Some(MYSQL_UNHEARD_MS))
        .read_timeout(Some(Duration::from_millis(read_ms)))
        .write_timeout(Some(Duration::from_millis(MYSQL_ANSWER_MS)))
        .tcp_nodelay(true)
        .ssl_opts(tls_options(config))
        .init(vec![
            // The charset of the connection must not be narrower than that of any table.
            "SET NAMES utf8mb4".to_string(),
            format!("SET SESSION innodb_lock_wait_timeout = {MYSQL_LOCK_WAIT_SECS}, SESSION sql_mode = 'STRICT_TRANS_TABLES'"),
        ])
}

/// The files are read with every connection, so new ones count from the next connection on.
fn tls_options(config: &MysqlConfig) -> Option<SslOpts> {
    let (tls, files) = (config.tls, &config.tls_files);
    let identity = |files: &IdentityFiles| ClientIdentity::new(files.cert.clone(), files.key.clone());
    let options = SslOpts::default()
        .with_root_cert_path(files.ca.clone())
        .with_client_identity(files.identity.as_ref().map(identity))
        .with_danger_accept_invalid_certs(tls != MysqlTls::Verify)
        .with_danger_skip_domain_validation(tls != MysqlTls::Verify);
    (tls != MysqlTls::Off).then_some(options)
}

/// Makes the connections of one hand.
pub struct Dialer {
    pub config: MysqlConfig,
    hand: Hand,
    /// TLS is only preferred, and the server had none that works. It is not asked again before it has been away: it counts
    /// against this host each connection that is given up, and ends by refusing all (`max_connect_errors`).
    is_without_tls: bool,
}

impl Dialer {
    pub fn new(config: &MysqlConfig, hand: Hand) -> Dialer {
        Dialer { config: config.clone(), hand, is_without_tls: false }
    }

    pub fn connect(&mut self) -> Outcome<Connection> {
        let database = self.config.database.clone();
        let (mut conn, options) = self.dial(Some(database)).map_err(Failure::Connect)?;
        let packet_bytes = conn.query_first("SELECT @@max_allowed_packet")?.unwrap_or(1 << 20);
        if self.hand == Hand::Reader {
            // First MariaDB's name of the limit, then MySQL's. A server too old for both reads on until the client is gone.
            let _ = conn
                .query_drop(format!("SET SESSION max_statement_time = {MYSQL_READ_SECS}"))
                .or_else(|_| conn.query_drop(format!("SET SESSION max_execution_time = {}", MYSQL_READ_SECS * 1_000)));
            // A table that another program has locked is no slow read: the client hears of it.
            conn.query_drop(format!("SET SESSION lock_wait_timeout = {MYSQL_READ_LOCK_SECS}"))?;
        }
        Ok(Connection { conn, options, packet_bytes, log: None })
    }

    /// Creates the database, where the user may.
    pub fn create_database(&mut self) -> Outcome<()> {
        let (mut conn, _) = self.dial(None).map_err(Failure::Connect)?;
        let name = self.config.database.replace('`', "``");
        Ok(conn.query_drop(format!("CREATE DATABASE IF NOT EXISTS `{name}` CHARACTER SET utf8mb4"))?)
    }

    /// Connects, and answers also how. Where TLS is only preferred and the server has none that works, it connects without.
    fn dial(&mut self, database: Option<String>) -> mysql::Result<(Conn, OptsBuilder)> {
        let options = options(&self.config, self.hand).db_name(database);
        let mut failed = None;
        if !self.is_without_tls {
            match Conn::new(options.clone()) {
                Err(error) if self.config.tls == MysqlTls::Prefer && may_be_of_tls(&error) => failed = Some(error),
                result => return result.map(|conn| (conn, options)),
            }
        }
        let options = options.ssl_opts(None);
        let result = Conn::new(options.clone());
        // Whoever refuses us is there; one that does not answer may come back with TLS.
        let is_there = matches!(&result, Ok(_) | Err(mysql::Error::MySqlError(_)));
        self.is_without_tls = is_there && failed.as_ref().is_none_or(is_of_tls);
        if let (Ok(_), Some(error)) = (&result, failed.filter(|error| !is_lacking_tls(error))) {
            let reason = connect_error(&self.config, &error);
            log::warn!("MySQL at {}: TLS fails: {reason}; it is spoken to without (mysql_tls)", self.server());
        }
        result.map(|conn| (conn, options))
    }

    /// Its address, for people.
    pub fn server(&self) -> String {
        format!("{}:{}", self.config.host, self.config.port)
    }
}

/// Whether the server has no TLS that we can use, or it may be so: some close the connection without a word.
fn may_be_of_tls(error: &mysql::Error) -> bool {
    is_of_tls(error) || system_error(error).is_some_and(|error| CLOSED.contains(&error.kind()))
}

fn is_of_tls(error: &mysql::Error) -> bool {
    is_lacking_tls(error) || tls_error(error).is_some()
}

fn is_lacking_tls(error: &mysql::Error) -> bool {
    matches!(error, mysql::Error::DriverError(DriverError::TlsNotSupported))
}

/// Whether the connection is encrypted, in words.
pub fn encryption(conn: &mut Conn) -> mysql::Result<String> {
    let row: Option<(String, String)> = conn.query_first("SHOW SESSION STATUS LIKE 'Ssl_cipher'")?;
    Ok(match row.map(|(_, cipher)| cipher).filter(|cipher| !cipher.is_empty()) {
        Some(cipher) => format!("connections are encrypted ({cipher})"),
        None => "connections are not encrypted".into(),
    })
}

/// Why no connection was made, and what to do about it.
pub fn connect_error(config: &MysqlConfig, error: &mysql::Error) -> String {
    if let Some(error) = tls_error(error) {
        return tls::told(error, "mysql", &config.tls_files);
    }
    match error {
        mysql::Error::DriverError(DriverError::TlsNotSupported) => format!(
            "it offers no TLS, and mysql_tls is {:?}: give the server a certificate (ssl_cert, ssl_key), or set \"prefer\"",
            config.tls.name()
        ),
        mysql::Error::MySqlError(server) if server.code == NO_INSECURE_TRANSPORT => {
            format!("{error}; set mysql_tls to \"verify\" or \"require\"")
        }
        mysql::Error::MySqlError(server) if server.code == ACCESS_DENIED => {
            let lacks = match (config.tls, &config.tls_files.identity) {
                (MysqlTls::Off, _) => "TLS (mysql_tls)",
                (_, None) => "a client certificate (mysql_cert_file, mysql_key_file)",
                (_, Some(_)) => "another client certificate",
            };
            format!("{error}; the password is wrong, or the server takes this user only with {lacks}")
        }
        // The library tells nothing of a file that it could not use.
        mysql::Error::IoError(_) => tls::read(&config.tls_files).err().unwrap_or_else(|| error.to_string()),
        _ => error.to_string(),
    }
}
