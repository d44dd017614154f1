//! The embedded store's rows of `journal`, and the epoch that they are written under.
//!
//! Invariant: no entry is written under an epoch that is not the stored one.

use super::{Failure, Transaction};
use crate::core::ports::{StoreError, StoredLeader};
use crate::model::journal::{Body, Entry, EntryId, StoredEntry};
use crate::model::{Epoch, NodeId, Second, Server};
use rusqlite::{OptionalExtension, Row, params};

pub(super) fn check_epoch(transaction: &Transaction, epoch: Epoch) -> Result<(), Failure> {
    let stored = transaction.query_row("SELECT epoch FROM scheduler", [], |row| row.get(0)).optional()?;
    if stored == Some(epoch.0) { Ok(()) } else { Err(StoreError::Deposed.into()) }
}

/// Whose the epoch is; none in a new file.
pub(super) fn last_leader(transaction: &Transaction) -> Result<Option<StoredLeader>, Failure> {
    let leader = |row: &Row| {
        let [lock_key, server, node_id] = [row.get(0)?, row.get(2)?, row.get::<_, String>(3)?];
        let (server, node_id) = (Server(server.into()), NodeId(node_id.into()));
        Ok(StoredLeader { lock_key, epoch: Epoch(row.get(1)?), server, node_id })
    };
    let sql = "SELECT lock_key, epoch, leader, node_id FROM scheduler";
    Ok(transaction.query_row(sql, [], leader).optional()?)
}

pub(super) fn insert_entry(transaction: &Transaction, entry: &Entry, is_done: bool) -> Result<EntryId, Failure> {
    let body = serde_json::to_string(&entry.body)
        .map_err(|error| StoreError::Permanent(format!("write a journal body: {error}")))?;
    let key = entry.request_key.as_ref().map(|key| &key.0);
    transaction.execute(
        "INSERT INTO journal (epoch, request, tick, part, node_id, body, done, created_at, request_key)
         SELECT epoch, ?2, ?3, ?4, node_id, ?5, ?6, CAST(unixepoch('subsec') * 1000 AS INTEGER), ?7 FROM scheduler WHERE epoch = ?1",
        params![entry.epoch.0, entry.request, entry.tick.map(|tick| tick.0), entry.part, body, is_done, key],
    )?;
    Ok(EntryId(transaction.last_insert_rowid()))
}

pub(super) fn open_entries(transaction: &Transaction) -> Result<Vec<StoredEntry>, Failure> {
    let sql = "SELECT id, epoch, request, tick, part, body FROM journal WHERE done = 0 ORDER BY id";
    let mut statement = transaction.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut open = Vec::new();
    while let Some(row) = rows.next()? {
        let (id, body): (i64, String) = (row.get(0)?, row.get(5)?);
        let body = parse_body(id, &body)?;
        let tick: Option<i64> = row.get(3)?;
        let (epoch, request, tick, part) = (Epoch(row.get(1)?), row.get(2)?, tick.map(Second), row.get(4)?);
        let entry = Entry { epoch, request, tick, part, body, request_key: None };
        open.push(StoredEntry { id: EntryId(id), entry });
    }
    Ok(open)
}

pub(super) fn parse_body(id: i64, text: &str) -> Result<Body, Failure> {
    serde_json::from_str(text)
        .map_err(|error| StoreError::Permanent(format!("journal row {id}: its body cannot be read: {error}")).into())
}

pub(super) fn newest_entry(transaction: &Transaction) -> Result<EntryId, Failure> {
    let newest: Option<i64> = transaction.query_row("SELECT max(id) FROM journal", [], |row| row.get(0))?;
    Ok(EntryId(newest.unwrap_or(0)))
}
