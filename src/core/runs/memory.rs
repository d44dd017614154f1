//! What the parts of `Runs` remember between two inputs, beside the table of the runs.
//!
//! Not what they do with it: each part says that in its own file.
//!
//! Invariant: what is here concerns runs and entries that are not done.

use crate::model::journal::{EntryId, RefusedRun};
use crate::model::{Attempt, JobId, Mono, RunKey};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What planning remembers from tick to tick.
#[derive(Debug, Default)]
pub struct Planning {
    /// Runs that a former leader named, whatever their outcome, for a tick that it did not complete.
    pub(super) named: BTreeSet<RunKey>,
    /// The first job that was refused in the last tick with refusals. The next tick begins with it, so that it is not
    /// always the same jobs that are refused.
    pub(super) refused_from: Option<JobId>,
}

/// Journaled runs that are not sent yet, each once. A run whose row was committed meanwhile is passed over when it comes
/// to the front.
#[derive(Debug, Default)]
pub struct Sending {
    /// Runs of a tick whose part 0 is not in yet.
    pub(super) held_back: Vec<Attempt>,
    /// Runs whose tick is whole, in the order of sending.
    pub(super) releasing: VecDeque<Attempt>,
    /// When runs were sent last.
    pub(super) released_at: Mono,
}

/// What recovery remembers for as long as the leader leads.
#[derive(Debug, Default)]
pub struct Recovery {
    /// Numbers the questions for log rows.
    pub(super) questions: u64,
    /// How long no node led before this leader.
    pub(super) away_secs: i64,
}

/// Refusals that have no row yet.
#[derive(Debug, Default)]
pub struct Coalescer {
    pub(super) windows: BTreeMap<Key, Window>,
}

/// A job, and the state of its refused runs.
pub type Key = (JobId, &'static str);

/// The refusals after the first one, until they share a row.
#[derive(Debug)]
pub struct Window {
    pub(super) until: Mono,
    pub(super) gathered: Vec<(RefusedRun, EntryId)>,
}
