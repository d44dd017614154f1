//! The journal's entries that are not done: each stays open until nothing that it says has to be found by a later leader.
//!
//! An entry is kept open by the runs that it names (the table counts those), by rows of refused, missed and cancelled
//! runs that are on their way, by entries that rest on it, and until its seconds are past.
//!
//! Invariant: an entry is given out to be closed once, and only when nothing keeps it open.

use super::table::RunTable;
use crate::model::journal::{Body, EntryId};
use crate::model::{Attempt, Second};
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub struct OpenEntries {
    /// What keeps each open, beside its runs.
    holds: BTreeMap<EntryId, usize>,
    /// Rows of refused, missed and cancelled runs that are on their way, with the entries that they explain.
    rows: BTreeMap<Attempt, Vec<EntryId>>,
    /// The entry is the only record of something in seconds up to this one, which are not all decided yet.
    until: BTreeMap<EntryId, Second>,
    /// Entries that stay open until this one is closed.
    outlasting: BTreeMap<EntryId, Vec<EntryId>>,
    to_close: Vec<EntryId>,
}

impl OpenEntries {
    /// The entry is in. It may be the only record of some seconds for as long as those up to `until` are not decided.
    pub fn open(&mut self, id: EntryId, until: Option<Second>) {
        self.holds.insert(id, 0);
        if let Some(until) = until {
            self.until.insert(id, until);
        }
    }

    /// A row that explains a part of this entry has to be committed first; `explain` will name it.
    pub fn hold(&mut self, id: EntryId) {
        if let Some(holds) = self.holds.get_mut(&id) {
            *holds += 1;
        }
    }

    /// The row with this key is on its way, for what holds these entries.
    pub fn explain(&mut self, row: Attempt, entries: impl Iterator<Item = EntryId>) {
        let holds = &self.holds;
        self.rows.entry(row).or_default().extend(entries.filter(|entry| holds.contains_key(entry)));
    }

    /// `later` stays open until `earlier` is closed.
    pub fn outlast(&mut self, earlier: EntryId, later: EntryId) {
        if self.holds.contains_key(&earlier) && earlier != later {
            self.hold(later);
            self.outlasting.entry(earlier).or_default().push(later);
        }
    }

    /// The row is committed.
    pub fn on_row(&mut self, row: Attempt, table: &RunTable) {
        self.rows.remove(&row).into_iter().flatten().for_each(|entry| self.release(entry, table));
    }

    /// All ticks up to this one are decided.
    pub fn on_decided(&mut self, tick: Option<Second>, table: &RunTable) {
        let past = self.until.extract_if(.., |_, until| Some(*until) <= tick);
        let past: Vec<EntryId> = past.map(|(entry, _)| entry).collect();
        past.into_iter().for_each(|entry| self.close_if_settled(entry, table));
    }

    /// To be called when the entry may have lost the last thing that kept it open.
    pub fn close_if_settled(&mut self, id: EntryId, table: &RunTable) {
        let is_held = self.until.contains_key(&id) || table.named_by(id) != 0;
        if self.holds.get(&id) == Some(&0) && !is_held {
            self.holds.remove(&id);
            self.to_close.push(id);
            self.outlasting.remove(&id).into_iter().flatten().for_each(|later| self.release(later, table));
        }
    }

    /// The entries that may be set done, each told once.
    pub fn take_closable(&mut self) -> Vec<EntryId> {
        std::mem::take(&mut self.to_close)
    }

    pub fn has_closable(&self) -> bool {
        !self.to_close.is_empty()
    }

    /// They could not be set done; they come again.
    pub fn put_back_closable(&mut self, mut entries: Vec<EntryId>) {
        self.to_close.append(&mut entries);
    }

    /// Recounts what keeps each entry open. `gathered`: the entries of refusals that have no row yet.
    pub fn check_invariants(&self, table: &RunTable, gathered: impl Iterator<Item = EntryId>) {
        let mut recount: BTreeMap<EntryId, usize> = self.holds.keys().map(|id| (*id, 0)).collect();
        let rows = self.rows.values().flatten().copied();
        for entry in rows.chain(self.outlasting.values().flatten().copied()).chain(gathered) {
            *recount.entry(entry).or_default() += 1;
        }
        assert_eq!(self.holds, recount, "what keeps the entries open is miscounted");
        for (id, holds) in &self.holds {
            let is_held = *holds != 0 || self.until.contains_key(id) || table.named_by(*id) != 0;
            assert!(is_held, "entry {id:?}: nothing keeps it open, and it is not given out to be closed");
        }
        let is_open = |id: &EntryId| self.holds.contains_key(id);
        assert!(self.until.keys().all(is_open) && self.outlasting.keys().all(is_open), "a closed entry is held");
    }

    fn release(&mut self, id: EntryId, table: &RunTable) {
        if let Some(holds) = self.holds.get_mut(&id) {
            debug_assert!(*holds != 0, "entry {id:?}: released more often than held");
            *holds = holds.saturating_sub(1);
        }
        self.close_if_settled(id, table);
    }
}

/// The last second that the entry settles beforehand.
pub fn settled_to(body: &Body) -> Option<Second> {
    body.settled.iter().map(|gap| gap.last).chain(body.decided_to).max()
}
