//! The leader's calls that concern the journal and the jobs together, in SQLite.
//!
//! Not here: calls that concern one table; see `jobs`, `journal` and `logs`, which do not use this file.
//!
//! Invariant: nothing is read or written for a leader whose epoch is not the stored one.

use super::outcome::Outcome;
use super::{jobs, journal, logs};
use crate::core::io::ports::{Change, Loaded, Since};
use crate::model::journal::{Body, Entry};
use crate::model::{Epoch, JobId};
use crate::worker::store::{coalesced, note, outcomes};
use rusqlite::Transaction;

/// Reads everything that a new leader must know.
pub fn load(transaction: &Transaction, epoch: Epoch, since: &Since) -> Outcome<Loaded> {
    journal::check_epoch(transaction, epoch)?;
    let watermark = journal::watermark(transaction)?;
    let open = journal::open_entries(transaction)?;
    let differences = jobs::differences(transaction, since)?;
    let mut logged = logs::logged(transaction, &outcomes(&open))?;
    logged.extend(logs::logged(transaction, &coalesced(&open, &logged))?);
    let is_paused = journal::is_paused(transaction)?;
    Ok(Loaded { differences, watermark, open, logged, is_paused })
}

/// Notes a change in the journal and carries it out, in one transaction.
pub fn change(transaction: &Transaction, epoch: Epoch, request: u64, change: &Change) -> Outcome<JobId> {
    journal::check_epoch(transaction, epoch)?;
    if let Some(note) = note(change) {
        let body = Body { changes: vec![note], ..Body::default() };
        // The row is written in the same transaction, so nothing has to happen before the note is done.
        let entry = Entry { epoch, request, tick: None, part: 0, body, request_key: None };
        journal::insert(transaction, &entry, true)?;
    }
    match change {
        Change::Add(job, key) => jobs::add(transaction, job, key),
        Change::Put(job) => jobs::put(transaction, job),
        Change::Delete { id, version } => jobs::delete(transaction, *id, *version),
    }
}
