//! What comes of a call: values as MySQL takes and gives them, and why a call ended early.
//!
//! Not the words for people: those are made where the server's name is known.
//!
//! Invariant: an error of the client library is passed on as it is.

use crate::core::io::ports::StoreError;
use crate::model::value::{CellKind, Value};
use crate::worker::store::rows::Cells;
use crate::worker::tls;
use mysql::Row;
use mysql::error::tls::TlsError;
use mysql::prelude::FromValue;
use std::convert::Infallible;
use std::error::Error as _;
use std::io::ErrorKind;

/// Where an INT ends; as a time, 2038-01-19.
pub const INT_MAX: i64 = i32::MAX as i64;
pub const DUPLICATE_KEY: u16 = 1062;

/// The errors that a server gives before it closes a connection: it shuts down, it ends the thread, somebody killed the
/// connection (MariaDB), it was idle for too long (MySQL).
const CLOSINGS: [u16; 4] = [1053, 1080, 1927, 4031];

/// Why a piece of work ended early.
pub enum Failure {
    Store(StoreError),
    Connect(mysql::Error),
    Mysql(mysql::Error),
}

impl From<mysql::Error> for Failure {
    fn from(error: mysql::Error) -> Failure {
        Failure::Mysql(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure::Store(error)
    }
}

impl Failure {
    /// The server has closed the connection. A server that does not answer in time has not, and is not waited for
    /// twice.
    pub fn is_closed(&self) -> bool {
        match self {
            Failure::Mysql(mysql::Error::MySqlError(error)) => CLOSINGS.contains(&error.code),
            Failure::Mysql(error @ (mysql::Error::IoError(_) | mysql::Error::CodecError(_))) => !is_out_of_time(error),
            Failure::Mysql(_) | Failure::Connect(_) | Failure::Store(_) => false,
        }
    }
}

/// Whether our own time limit ended the wait. The system's error is then "resource temporarily unavailable".
pub fn is_out_of_time(error: &mysql::Error) -> bool {
    let is_limit = |error: &std::io::Error| [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind());
    system_error(error).is_some_and(is_limit)
}

pub fn system_error(error: &mysql::Error) -> Option<&std::io::Error> {
    match error {
        mysql::Error::IoError(error) => Some(error),
        mysql::Error::CodecError(error) => error.source()?.downcast_ref(),
        _ => None,
    }
}

/// What went wrong in TLS, where that ended the connection.
pub fn tls_error(error: &mysql::Error) -> Option<&rustls::Error> {
    match error {
        mysql::Error::TlsError(TlsError::Tls(error)) => Some(error),
        error => system_error(error).and_then(tls::error_in),
    }
}

pub type Outcome<T> = Result<T, Failure>;

/// The cell of this name, where the row has one that can be read so.
pub fn cell<T: FromValue>(row: &Row, name: &str) -> Outcome<T> {
    let found = row.get_opt(name).and_then(Result::ok);
    found.ok_or_else(|| StoreError::Permanent(format!("column {name} has a value that cannot be read")).into())
}

/// A value as the database takes it.
pub fn sql_value(value: Value) -> mysql::Value {
    match value {
        Value::Null => mysql::Value::NULL,
        Value::Flag(flag) => flag.into(),
        Value::Number(number) => number.into(),
        Value::Text(text) => text.as_bytes().into(),
    }
}

/// Rows written by hand may hold anything that their columns take: what cannot be read is null.
impl Cells for Row {
    type Error = Infallible;

    fn cell(&self, at: usize, kind: CellKind) -> Result<Value<'_>, Infallible> {
        Ok(match (kind, self.as_ref(at)) {
            (CellKind::Text, Some(mysql::Value::Bytes(bytes))) => Value::Text(String::from_utf8_lossy(bytes)),
            (CellKind::Number, Some(_)) => self.get_opt(at).and_then(Result::ok).map_or(Value::Null, Value::Number),
            _ => Value::Null,
        })
    }
}
