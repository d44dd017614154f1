//! What comes of a call: values as SQLite takes and gives them, and why a call ended early.
//!
//! Not the words for people: those are made where the file's name is known.
//!
//! Invariant: an error of SQLite is passed on as it is.

use crate::core::io::ports::StoreError;
use crate::model::value::{CellKind, Value};
use crate::worker::store::rows::Cells;
use rusqlite::types::{FromSql, FromSqlError, ToSqlOutput, ValueRef};
use rusqlite::{Row, ToSql};

/// Why a transaction ended early.
pub enum Failure {
    Store(StoreError),
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Failure {
        Failure::Sqlite(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure::Store(error)
    }
}

pub type Outcome<T> = Result<T, Failure>;

/// A value as SQLite takes it.
pub struct Sql<'a>(pub Value<'a>);

impl ToSql for Sql<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let value = match &self.0 {
            Value::Null => ValueRef::Null,
            Value::Flag(flag) => ValueRef::Integer(i64::from(*flag)),
            Value::Number(number) => ValueRef::Integer(*number),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
        };
        Ok(ToSqlOutput::Borrowed(value))
    }
}

impl Cells for Row<'_> {
    type Error = rusqlite::Error;

    fn cell(&self, at: usize, kind: CellKind) -> rusqlite::Result<Value<'_>> {
        let cell = self.get_ref(at)?;
        let value = match (kind, cell) {
            (_, ValueRef::Null) => Ok(Value::Null),
            (CellKind::Number, ValueRef::Integer(number)) => Ok(Value::Number(number)),
            (CellKind::Text, ValueRef::Text(_)) => cell.as_str().map(Value::from),
            _ => Err(FromSqlError::InvalidType),
        };
        value.map_err(|error| rusqlite::Error::FromSqlConversionFailure(at, cell.data_type(), error.into()))
    }
}

/// The only cell of a row.
pub fn only<T: FromSql>(row: &Row) -> rusqlite::Result<T> {
    row.get(0)
}
