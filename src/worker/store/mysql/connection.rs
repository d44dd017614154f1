//! A connection to MySQL: how it is made, and what is known of its server.
//!
//! Not here: when a new one is made; `MysqlStore` knows that.
//!
//! Invariant: no call on it waits without a limit.

use super::outcome::{Failure, Outcome};
use super::schema::LogTable;
use crate::core::time::bounds::{
    MYSQL_ANSWER_MS, MYSQL_CONNECT_MS, MYSQL_LOCK_WAIT_SECS, MYSQL_READ_MS, MYSQL_READ_SECS, MYSQL_UNHEARD_MS,
};
use crate::model::config::MysqlConfig;
use crate::worker::store::Hand;
use mysql::prelude::Queryable;
use mysql::{Conn, OptsBuilder};
use std::time::Duration;

pub struct Connection {
    pub conn: Conn,
    /// What the server takes in one statement.
    pub packet_bytes: usize,
    pub log: Option<LogTable>,
}

pub fn options(config: &MysqlConfig, hand: Hand) -> OptsBuilder {
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
        .init(vec![
            // The charset of the connection must not be narrower than that of any table.
            "SET NAMES utf8mb4".to_string(),
            format!("SET SESSION innodb_lock_wait_timeout = {MYSQL_LOCK_WAIT_SECS}, SESSION sql_mode = 'STRICT_TRANS_TABLES'"),
        ])
}

pub fn connect(config: &MysqlConfig, hand: Hand) -> Outcome<Connection> {
    let options = options(config, hand).db_name(Some(&config.database));
    let mut conn = Conn::new(options).map_err(Failure::Connect)?;
    let packet_bytes = conn.query_first("SELECT @@max_allowed_packet")?.unwrap_or(1 << 20);
    if hand == Hand::Reader {
        // First MariaDB's name of the limit, then MySQL's. A server too old for both reads on until the client is gone.
        let _ = conn
            .query_drop(format!("SET SESSION max_statement_time = {MYSQL_READ_SECS}"))
            .or_else(|_| conn.query_drop(format!("SET SESSION max_execution_time = {}", MYSQL_READ_SECS * 1_000)));
    }
    Ok(Connection { conn, packet_bytes, log: None })
}

/// Creates the database, where the user may.
pub fn create_database(config: &MysqlConfig) -> Outcome<()> {
    let mut conn = Conn::new(options(config, Hand::Lead)).map_err(Failure::Connect)?;
    let name = config.database.replace('`', "``");
    Ok(conn.query_drop(format!("CREATE DATABASE IF NOT EXISTS `{name}` CHARACTER SET utf8mb4"))?)
}
