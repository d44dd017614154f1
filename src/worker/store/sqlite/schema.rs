//! The tables in SQLite: migrations on a new file, and on one of an earlier version.
//!
//! Not here: the reading and writing of rows.
//!
//! Invariant: migrations that are applied twice, or by two connections at once, have the same result as when applied
//! once.

use super::outcome::Outcome;
use rusqlite::Transaction;

/// The migrations, in order; the number in a file's name is its position here, from 1.
const MIGRATIONS: &[&str] = &[
    include_str!("../../../../sql/sqlite/0001_tables.sql"),
    include_str!("../../../../sql/sqlite/0002_control.sql"),
    include_str!("../../../../sql/sqlite/0003_usage.sql"),
];

/// Brings the tables up to date. The file's header has the number of the last migration.
pub fn migrate(transaction: &Transaction) -> Outcome<()> {
    let applied: u32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    for (at, migration) in MIGRATIONS.iter().enumerate().skip(applied as usize) {
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "user_version", at as u32 + 1)?;
    }
    Ok(())
}
