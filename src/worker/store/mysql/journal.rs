//! Tables `journal` and `scheduler` in MySQL: the entries, and the epoch under which they are written.
//!
//! Invariant: no entry is written under an epoch that is not the stored one.

use super::outcome::{DUPLICATE_KEY, Outcome, cell};
use crate::core::io::ports::{Bump, Bumped, Journaled, Since, StoreError, StoredLeader};
use crate::model::journal::{Entry, EntryId, StoredEntry};
use crate::model::{Epoch, JobId, NodeId, Second, Server, Wall};
use crate::worker::store::rows::{ENTRY_COLUMNS, body_text, list, parse_body};
use crate::worker::store::{DELETE_ENTRIES_MAX, NOTED, foreign_lock_key, not_alone, noted};
use mysql::prelude::Queryable;
use mysql::{Conn, Row};

/// The last node that took the lead; in a new database nobody, under epoch 0.
pub fn last_leader(conn: &mut Conn) -> Outcome<StoredLeader> {
    let row: Option<Row> = conn.query_first("SELECT lock_key, epoch, leader, node_id FROM scheduler WHERE id = 1")?;
    let Some(row) = row else { return Ok(StoredLeader::default()) };
    let [lock_key, server, node_id]: [String; 3] =
        [cell(&row, "lock_key")?, cell(&row, "leader")?, cell(&row, "node_id")?];
    let (server, node_id) = (Server(server.into()), NodeId(node_id.into()));
    Ok(StoredLeader { lock_key, epoch: Epoch(cell(&row, "epoch")?), server, node_id })
}

/// Takes the lead.
pub fn bump(conn: &mut Conn, bump: &Bump) -> Outcome<Bumped> {
    let first = "INSERT IGNORE INTO scheduler (id, lock_key, epoch, leader, node_id) VALUES (1, ?, 0, '', '')";
    conn.exec_drop(first, (&bump.lock_key,))?;
    let former = last_leader(conn)?;
    if former.lock_key != bump.lock_key {
        return Err(foreign_lock_key(&bump.lock_key, &former.lock_key).into());
    }
    if bump.alone && former.node_id != bump.node_id {
        let newest =
            "SELECT CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 - MAX(created_at) AS SIGNED) FROM journal WHERE node_id = ?";
        let age_ms: Option<Option<i64>> = conn.exec_first(newest, (&*former.node_id.0,))?;
        if let Some(age_ms) = age_ms.flatten().filter(|age_ms| *age_ms < bump.lease_ms as i64) {
            return Err(not_alone(&former.server, age_ms / 1_000).into());
        }
    }
    conn.exec_drop(
        "UPDATE scheduler SET epoch = epoch + 1, leader = ?, node_id = ? WHERE id = 1 AND epoch = ?",
        (&*bump.server.0, &*bump.node_id.0, former.epoch.0),
    )?;
    match conn.affected_rows() {
        1 => Ok(Bumped { epoch: Epoch(former.epoch.0 + 1) }),
        _ => Err(StoreError::Unavailable("take the lead: another node was quicker".into()).into()),
    }
}

/// Writes the entry; again is harmless. With `is_done` it counts as done from the start, as the note of a change does.
pub fn write(conn: &mut Conn, entry: &Entry, is_done: bool) -> Outcome<Journaled> {
    let body = body_text(&entry.body)?;
    let key = entry.request_key.as_ref().map(|key| &key.0);
    let inserted = conn.exec_drop(
        "INSERT INTO journal (epoch, request, tick, part, node_id, body, done, created_at, request_key)
         SELECT epoch, ?, ?, ?, node_id, ?, ?, CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED), ? FROM scheduler
         WHERE id = 1 AND epoch = ? LOCK IN SHARE MODE",
        (entry.request, entry.tick.map(|tick| tick.0), entry.part, body, is_done, key, entry.epoch.0),
    );
    match inserted {
        Ok(()) if conn.affected_rows() == 0 => Err(StoreError::Deposed.into()),
        Ok(()) => Ok(Journaled::Entry(EntryId(conn.last_insert_id() as i64))),
        Err(mysql::Error::MySqlError(error)) if error.code == DUPLICATE_KEY => {
            let known = "SELECT id FROM journal WHERE epoch = ? AND request = ?";
            let known: Option<i64> = conn.exec_first(known, (entry.epoch.0, entry.request))?;
            if let Some(id) = known {
                return Ok(Journaled::Entry(EntryId(id)));
            }
            let asked = "SELECT id, body FROM journal WHERE request_key = ?";
            let asked: Option<(i64, String)> = conn.exec_first(asked, (key,))?;
            asked.map_or(Ok(Journaled::TickTaken), |(id, body)| Ok(Journaled::Known(parse_body(id, &body)?)))
        }
        Err(error) => Err(error.into()),
    }
}

/// Sets these entries done. With `delete_before` it also deletes done entries that were written before that time.
pub fn close(conn: &mut Conn, epoch: Epoch, entries: &[EntryId], delete_before: Option<Wall>) -> Outcome<()> {
    let ids = list(entries.iter().map(|entry| entry.0.to_string()));
    if !ids.is_empty() {
        conn.query_drop(format!("UPDATE journal SET done = 1 WHERE id IN ({ids}) AND {}", is_epoch(epoch)))?;
        if conn.affected_rows() == 0 {
            check_epoch(conn, epoch)?;
        }
    }
    if let Some(before) = delete_before {
        let newest: Option<Option<i64>> = conn.query_first("SELECT MAX(tick) FROM journal WHERE part = 0")?;
        let delete =
            "DELETE FROM journal WHERE done = 1 AND created_at < ? AND (tick IS NULL OR tick < ?) ORDER BY id LIMIT ?";
        conn.exec_drop(delete, (before.ms(), newest.flatten().unwrap_or(0), DELETE_ENTRIES_MAX))?;
    }
    Ok(())
}

/// Stores whether scheduled runs are paused.
pub fn pause(conn: &mut Conn, epoch: Epoch, paused: bool) -> Outcome<()> {
    conn.exec_drop("UPDATE scheduler SET paused = ? WHERE id = 1 AND epoch = ?", (paused, epoch.0))?;
    // The server does not count a row whose value stays the same.
    if conn.affected_rows() == 0 { check_epoch(conn, epoch) } else { Ok(()) }
}

/// The condition that this epoch is the stored one.
pub fn is_epoch(epoch: Epoch) -> String {
    format!("EXISTS (SELECT 1 FROM scheduler WHERE id = 1 AND epoch = {})", epoch.0)
}

/// `Deposed` where this epoch is not the stored one.
pub fn check_epoch(conn: &mut Conn, epoch: Epoch) -> Outcome<()> {
    let stored: Option<u64> = conn.query_first("SELECT epoch FROM scheduler WHERE id = 1")?;
    if stored == Some(epoch.0) { Ok(()) } else { Err(StoreError::Deposed.into()) }
}

pub fn newest_entry(conn: &mut Conn) -> Outcome<EntryId> {
    let newest: Option<Option<i64>> = conn.query_first("SELECT MAX(id) FROM journal")?;
    Ok(EntryId(newest.flatten().unwrap_or(0)))
}

/// The job that was noted last.
pub fn last_noted(conn: &mut Conn) -> Outcome<Option<JobId>> {
    let sql = format!("SELECT id, body FROM journal WHERE {NOTED} ORDER BY id DESC LIMIT 1");
    let entries: Vec<(i64, String)> = conn.query(sql)?;
    Ok(noted(&entries, &Since::default())?.and_then(|noted| noted.last))
}

/// The last tick whose entry is whole.
pub fn watermark(conn: &mut Conn) -> Outcome<Option<Second>> {
    let watermark: Option<Option<i64>> = conn.query_first("SELECT MAX(tick) FROM journal WHERE part = 0")?;
    Ok(watermark.flatten().map(Second))
}

/// Whether scheduled runs are paused.
pub fn is_paused(conn: &mut Conn) -> Outcome<bool> {
    Ok(conn.query_first("SELECT paused <> 0 FROM scheduler WHERE id = 1")?.unwrap_or(false))
}

/// The entries that are not done, in their order.
pub fn open_entries(conn: &mut Conn) -> Outcome<Vec<StoredEntry>> {
    let rows: Vec<Row> = conn.query(format!("SELECT {ENTRY_COLUMNS} FROM journal WHERE done = 0 ORDER BY id"))?;
    rows.iter().map(stored_entry).collect()
}

fn stored_entry(row: &Row) -> Outcome<StoredEntry> {
    let (id, tick): (i64, Option<i64>) = (cell(row, "id")?, cell(row, "tick")?);
    let body = parse_body(id, &cell::<String>(row, "body")?)?;
    let (epoch, request, part) = (Epoch(cell(row, "epoch")?), cell(row, "request")?, cell(row, "part")?);
    let entry = Entry { epoch, request, tick: tick.map(Second), part, body, request_key: None };
    Ok(StoredEntry { id: EntryId(id), entry })
}
