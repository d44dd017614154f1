//! The tables in SQLite: migrations on a new file, and on one of an earlier version.
//!
//! Invariant: applied twice, or by two connections at once, they do what they do once.

use super::outcome::Outcome;
use rusqlite::Transaction;

/// In order; the number of a file is its position here, from 1.
const MIGRATIONS: &[&str] =
    &[include_str!("../../../../sql/sqlite/0001_tables.sql"), include_str!("../../../../sql/sqlite/0002_control.sql")];

/// Brings the tables up to date. The number of the last migration stands in the file's head.
pub fn migrate(transaction: &Transaction) -> Outcome<()> {
    let applied: u32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    for (at, migration) in MIGRATIONS.iter().enumerate().skip(applied as usize) {
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "user_version", at as u32 + 1)?;
    }
    Ok(())
}
