//! Tables `journal` and `scheduler` in SQLite: the entries, and the epoch under which they are written.
//!
//! Invariant: no entry is written under an epoch that is not the stored one.

use super::outcome::{Outcome, only};
use crate::core::io::ports::{Bump, Bumped, Journaled, StoreError, StoredLeader};
use crate::model::command::RequestKey;
use crate::model::journal::{Entry, EntryId, StoredEntry};
use crate::model::{Epoch, NodeId, Second, Server, Wall};
use crate::worker::store::rows::{ENTRY_COLUMNS, body_text, parse_body};
use crate::worker::store::{DELETE_ENTRIES_MAX, foreign_lock_key, not_alone};
use rusqlite::{OptionalExtension, Row, Transaction, params};

/// The last node that took the lead; none in a new file.
pub fn last_leader(transaction: &Transaction) -> Outcome<Option<StoredLeader>> {
    let leader = |row: &Row| {
        let [lock_key, server, node_id]: [String; 3] = [row.get("lock_key")?, row.get("leader")?, row.get("node_id")?];
        let (server, node_id) = (Server(server.into()), NodeId(node_id.into()));
        Ok(StoredLeader { lock_key, epoch: Epoch(row.get("epoch")?), server, node_id })
    };
    let sql = "SELECT lock_key, epoch, leader, node_id FROM scheduler";
    Ok(transaction.query_row(sql, [], leader).optional()?)
}

/// Takes the lead.
pub fn bump(transaction: &Transaction, bump: &Bump) -> Outcome<Bumped> {
    let former = last_leader(transaction)?;
    let Epoch(epoch) = former.as_ref().map_or(Epoch(0), |former| former.epoch);
    if let Some(former) = former.as_ref().filter(|former| former.lock_key != bump.lock_key) {
        return Err(foreign_lock_key(&bump.lock_key, &former.lock_key).into());
    }
    if let Some(former) = former.filter(|former| bump.alone && former.node_id != bump.node_id) {
        let newest = "SELECT unixepoch() - max(created_at) / 1000 FROM journal WHERE node_id = ?";
        let age_secs: Option<i64> = transaction.query_row(newest, [&*former.node_id.0], only)?;
        if let Some(age_secs) = age_secs.filter(|age| age * 1_000 < bump.lease_ms as i64) {
            return Err(not_alone(&former.server, age_secs).into());
        }
    }
    transaction.execute(
        "INSERT INTO scheduler (id, lock_key, epoch, leader, node_id) VALUES (1, ?1, ?2, ?3, ?4)
         ON CONFLICT (id) DO UPDATE SET epoch = ?2, leader = ?3, node_id = ?4",
        params![bump.lock_key, epoch + 1, &*bump.server.0, &*bump.node_id.0],
    )?;
    Ok(Bumped { epoch: Epoch(epoch + 1) })
}

/// Writes an entry that is not done yet; again is harmless.
pub fn write(transaction: &Transaction, entry: &Entry) -> Outcome<Journaled> {
    check_epoch(transaction, entry.epoch)?;
    let known = "SELECT id FROM journal WHERE epoch = ? AND request = ?";
    let known = transaction.query_row(known, params![entry.epoch.0, entry.request], only).optional()?;
    if let Some(id) = known {
        return Ok(Journaled::Entry(EntryId(id)));
    }
    if let Some(RequestKey(key)) = &entry.request_key {
        let asked = "SELECT id, body FROM journal WHERE request_key = ?";
        let asked: Option<(i64, String)> =
            transaction.query_row(asked, [key], |row| Ok((row.get("id")?, row.get("body")?))).optional()?;
        if let Some((id, body)) = asked {
            return Ok(Journaled::Known(parse_body(id, &body)?));
        }
    }
    let taken = "SELECT 1 FROM journal WHERE tick = ? AND part = ?";
    let tick = entry.tick.map(|tick| tick.0);
    if transaction.query_row(taken, params![tick, entry.part], |_| Ok(())).optional()?.is_some() {
        return Ok(Journaled::TickTaken);
    }
    Ok(Journaled::Entry(insert(transaction, entry, false)?))
}

/// Sets these entries done, and deletes done entries that were written before `delete_before`.
pub fn close(transaction: &Transaction, epoch: Epoch, entries: &[EntryId], delete_before: Wall) -> Outcome<()> {
    check_epoch(transaction, epoch)?;
    let mut close = transaction.prepare_cached("UPDATE journal SET done = 1 WHERE id = ?")?;
    for entry in entries {
        close.execute([entry.0])?;
    }
    transaction.execute(
        "DELETE FROM journal WHERE id IN (SELECT id FROM journal WHERE done = 1 AND created_at < ?1
           AND (tick IS NULL OR tick < (SELECT max(tick) FROM journal WHERE part = 0)) ORDER BY id LIMIT ?2)",
        params![delete_before.ms(), DELETE_ENTRIES_MAX],
    )?;
    Ok(())
}

/// Stores whether scheduled runs are paused.
pub fn pause(transaction: &Transaction, epoch: Epoch, paused: bool) -> Outcome<()> {
    check_epoch(transaction, epoch)?;
    transaction.execute("UPDATE scheduler SET paused = ?", [paused])?;
    Ok(())
}

/// `Deposed` where this epoch is not the stored one.
pub fn check_epoch(transaction: &Transaction, epoch: Epoch) -> Outcome<()> {
    let stored = transaction.query_row("SELECT epoch FROM scheduler", [], only).optional()?;
    if stored == Some(epoch.0) { Ok(()) } else { Err(StoreError::Deposed.into()) }
}

/// Writes an entry without a look at earlier ones.
pub fn insert(transaction: &Transaction, entry: &Entry, is_done: bool) -> Outcome<EntryId> {
    let body = body_text(&entry.body)?;
    let key = entry.request_key.as_ref().map(|key| &key.0);
    transaction.execute(
        "INSERT INTO journal (epoch, request, tick, part, node_id, body, done, created_at, request_key)
         SELECT epoch, ?2, ?3, ?4, node_id, ?5, ?6, CAST(unixepoch('subsec') * 1000 AS INTEGER), ?7 FROM scheduler WHERE epoch = ?1",
        params![entry.epoch.0, entry.request, entry.tick.map(|tick| tick.0), entry.part, body, is_done, key],
    )?;
    Ok(EntryId(transaction.last_insert_rowid()))
}

/// The entry with the largest id; 0 in an empty journal.
pub fn newest_entry(transaction: &Transaction) -> Outcome<EntryId> {
    let newest: Option<i64> = transaction.query_row("SELECT max(id) FROM journal", [], only)?;
    Ok(EntryId(newest.unwrap_or(0)))
}

/// The last tick whose entry is whole.
pub fn watermark(transaction: &Transaction) -> Outcome<Option<Second>> {
    let watermark = "SELECT max(tick) FROM journal WHERE part = 0";
    let watermark: Option<i64> = transaction.query_row(watermark, [], only)?;
    Ok(watermark.map(Second))
}

/// Whether scheduled runs are paused.
pub fn is_paused(transaction: &Transaction) -> Outcome<bool> {
    Ok(transaction.query_row("SELECT paused <> 0 FROM scheduler", [], only)?)
}

/// The entries that are not done, in their order.
pub fn open_entries(transaction: &Transaction) -> Outcome<Vec<StoredEntry>> {
    let sql = format!("SELECT {ENTRY_COLUMNS} FROM journal WHERE done = 0 ORDER BY id");
    let mut statement = transaction.prepare(&sql)?;
    let mut rows = statement.query([])?;
    let mut open = Vec::new();
    while let Some(row) = rows.next()? {
        open.push(stored_entry(row)?);
    }
    Ok(open)
}

fn stored_entry(row: &Row) -> Outcome<StoredEntry> {
    let (id, tick): (i64, Option<i64>) = (row.get("id")?, row.get("tick")?);
    let body = parse_body(id, &row.get::<_, String>("body")?)?;
    let (epoch, request, part) = (Epoch(row.get("epoch")?), row.get("request")?, row.get("part")?);
    let entry = Entry { epoch, request, tick: tick.map(Second), part, body, request_key: None };
    Ok(StoredEntry { id: EntryId(id), entry })
}
