//! The leader's calls that concern the journal and the jobs together, in MySQL.
//!
//! Not here: calls that concern one table; see `jobs`, `journal` and `logs`, which do not use this file.
//!
//! Invariants: nothing is written for a leader whose epoch is not the stored one; the note of a change is in the
//! journal before its row is written.

use super::outcome::Outcome;
use super::{jobs, journal, logs};
use crate::core::io::ports::{Change, Loaded, Since};
use crate::model::journal::{Body, Entry};
use crate::model::{Epoch, JobId};
use crate::worker::store::{coalesced, note, outcomes};
use mysql::Conn;

/// Reads everything that a new leader must know.
pub fn load(conn: &mut Conn, epoch: Epoch, since: &Since) -> Outcome<Loaded> {
    journal::check_epoch(conn, epoch)?;
    let watermark = journal::watermark(conn)?;
    let open = journal::open_entries(conn)?;
    let differences = jobs::differences(conn, since)?;
    let mut logged = logs::logged(conn, &outcomes(&open))?;
    logged.extend(logs::logged(conn, &coalesced(&open, &logged))?);
    let is_paused = journal::is_paused(conn)?;
    Ok(Loaded { differences, watermark, open, logged, is_paused })
}

/// Notes a change in the journal, then carries it out.
pub fn change(conn: &mut Conn, epoch: Epoch, request: u64, change: &Change) -> Outcome<JobId> {
    if let Change::Add(job, _) | Change::Put(job) = change {
        jobs::check_storable(conn, job)?;
    }
    if let Some(note) = note(change) {
        let body = Body { changes: vec![note], ..Body::default() };
        let entry = Entry { epoch, request, tick: None, part: 0, body, request_key: None };
        // The note is only a record: nothing has to happen before it is done.
        journal::write(conn, &entry, true)?;
    }
    match change {
        Change::Add(job, key) => jobs::add(conn, epoch, job, key),
        Change::Put(job) => jobs::put(conn, epoch, job),
        Change::Delete { id, version } => jobs::delete(conn, epoch, *id, *version),
    }
}
