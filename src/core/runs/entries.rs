//! The journal's entries that are not done. An entry stays open for as long as a later leader would need it.
//!
//! Four things keep an entry open: the runs that it names (the table counts those); rows of refused, missed and
//! cancelled runs, until they are committed; earlier entries that it must outlast; seconds of which it is the only
//! record, until they are past.
//!
//! Not here: the closing of entries in the store; the leader takes the closable ones from here.
//!
//! Invariant: an entry is handed out to be closed once, and only when nothing keeps it open.

use super::table::RunTable;
use super::watched::Watched;
use crate::model::journal::{Body, EntryId};
use crate::model::{Attempt, Second};
use std::collections::BTreeMap;

/// The open entries, and those that are to be closed.
#[derive(Debug, Default)]
pub struct OpenEntries {
    kept: Watched<Kept>,
    to_close: Vec<EntryId>,
}

/// The open entries, and the reasons that keep each of them open.
#[derive(Debug, Default)]
struct Kept {
    /// How many rows and earlier entries keep each entry open.
    holds: BTreeMap<EntryId, usize>,
    /// Uncommitted rows of refused, missed and cancelled runs, with the entries that they explain.
    rows: BTreeMap<Attempt, Vec<EntryId>>,
    /// The entries that are the only record of some seconds, each with the last of these seconds. It is kept open until
    /// that second is decided.
    until: BTreeMap<EntryId, Second>,
    /// The later entries that stay open until this one is closed.
    outlasting: BTreeMap<EntryId, Vec<EntryId>>,
}

impl OpenEntries {
    /// The entry is in the journal. It stays open until all seconds up to `until` are decided, where one is given.
    pub fn open(&mut self, id: EntryId, until: Option<Second>) {
        self.kept.holds.insert(id, 0);
        if let Some(until) = until {
            self.kept.until.insert(id, until);
        }
    }

    /// The entry waits for one more row, which `explain` will name.
    pub fn hold(&mut self, id: EntryId) {
        if let Some(holds) = self.kept.holds.get_mut(&id) {
            *holds += 1;
        }
    }

    /// This row, once committed, ends one hold of each of these entries.
    pub fn explain(&mut self, row: Attempt, entries: impl Iterator<Item = EntryId>) {
        let Kept { holds, rows, .. } = &mut *self.kept;
        rows.entry(row).or_default().extend(entries.filter(|entry| holds.contains_key(entry)));
    }

    /// `later` stays open until `earlier` is closed.
    pub fn outlast(&mut self, earlier: EntryId, later: EntryId) {
        if self.kept.holds.contains_key(&earlier) && earlier != later {
            self.hold(later);
            self.kept.outlasting.entry(earlier).or_default().push(later);
        }
    }

    /// The row is committed.
    pub fn on_row(&mut self, row: Attempt, table: &RunTable) {
        self.kept.rows.remove(&row).into_iter().flatten().for_each(|entry| self.release(entry, table));
    }

    /// All ticks up to this one are decided.
    pub fn on_decided(&mut self, tick: Option<Second>, table: &RunTable) {
        let past = self.kept.until.extract_if(.., |_, until| Some(*until) <= tick);
        let past: Vec<EntryId> = past.map(|(entry, _)| entry).collect();
        past.into_iter().for_each(|entry| self.close_if_settled(entry, table));
    }

    /// Hands the entry out to be closed, where nothing keeps it open any more. To be called whenever that may be so.
    pub fn close_if_settled(&mut self, id: EntryId, table: &RunTable) {
        let is_held = self.kept.until.contains_key(&id) || table.named_by(id) != 0;
        if self.kept.holds.get(&id) == Some(&0) && !is_held {
            self.kept.holds.remove(&id);
            self.to_close.push(id);
            self.kept.outlasting.remove(&id).into_iter().flatten().for_each(|later| self.release(later, table));
        }
    }

    /// The entries that may be set done; each is answered once.
    pub fn take_closable(&mut self) -> Vec<EntryId> {
        std::mem::take(&mut self.to_close)
    }

    /// Whether `take_closable` has an entry to answer.
    pub fn has_closable(&self) -> bool {
        !self.to_close.is_empty()
    }

    /// These entries could not be set done: `take_closable` will answer them again.
    pub fn put_back_closable(&mut self, mut entries: Vec<EntryId>) {
        self.to_close.append(&mut entries);
    }

    /// Whether something has changed since this was asked last.
    pub fn take_touched(&self) -> bool {
        self.kept.take_touched()
    }

    /// Recounts the reasons that keep each entry open. `gathered`: the entries of refusals that have no row yet.
    pub fn check_invariants(&self, table: &RunTable, gathered: impl Iterator<Item = EntryId>) {
        let mut recount: BTreeMap<EntryId, usize> = self.kept.holds.keys().map(|id| (*id, 0)).collect();
        let rows = self.kept.rows.values().flatten().copied();
        for entry in rows.chain(self.kept.outlasting.values().flatten().copied()).chain(gathered) {
            *recount.entry(entry).or_default() += 1;
        }
        assert_eq!(self.kept.holds, recount, "the holds of the entries are miscounted");
        for (id, holds) in &self.kept.holds {
            let is_held = *holds != 0 || self.kept.until.contains_key(id) || table.named_by(*id) != 0;
            assert!(is_held, "entry {id:?}: nothing keeps it open, and it is not handed out to be closed");
        }
        let is_open = |id: &EntryId| self.kept.holds.contains_key(id);
        assert!(
            self.kept.until.keys().all(is_open) && self.kept.outlasting.keys().all(is_open),
            "a closed entry is held"
        );
    }

    fn release(&mut self, id: EntryId, table: &RunTable) {
        if let Some(holds) = self.kept.holds.get_mut(&id) {
            debug_assert!(*holds != 0, "entry {id:?}: released more often than held");
            *holds = holds.saturating_sub(1);
        }
        self.close_if_settled(id, table);
    }
}

/// The last second that the entry settles ahead of its tick; none where it settles none.
pub fn settled_to(body: &Body) -> Option<Second> {
    body.settled.iter().map(|gap| gap.last).chain(body.decided_to).max()
}
