//! The things that the parts over the table work with: the runs, the entries, the candidates; and, lent with an input,
//! the ledger and the context.
//!
//! Not a place for what only one part needs: each part keeps its own memory in its own file.
//!
//! Invariant: a desk is lent for one call; nobody keeps it.

use super::candidates::Candidates;
use super::entries::OpenEntries;
use super::rows::Why;
use super::table::RunTable;
use crate::core::Context;
use crate::core::log::ending;
use crate::core::runs::ledger::Ledger;
use crate::model::{Attempt, Server, Version};

/// Limits for the runs of the whole cluster.
#[derive(Clone, Copy, Debug)]
pub struct RunLimits {
    /// Runs of a job that wait for a permit.
    pub max_pending_per_job: usize,
    /// Runs that wait because no node is there to take them.
    pub unplaced_max: usize,
    /// `misfire_grace`.
    pub grace_secs: i64,
    /// Runs in one part of a tick.
    pub part_runs_max: usize,
}

/// The things that stay from input to input.
#[derive(Debug)]
pub struct Common {
    /// The leader's own; log rows name it as their dispatcher.
    server: Server,
    pub limits: RunLimits,
    pub table: RunTable,
    pub entries: OpenEntries,
    pub candidates: Candidates,
}

/// All of it, lent for one call.
pub struct Desk<'a, 'b> {
    pub server: &'a Server,
    pub limits: RunLimits,
    pub table: &'a mut RunTable,
    pub entries: &'a mut OpenEntries,
    pub candidates: &'a mut Candidates,
    pub ledger: &'a mut Ledger,
    pub cx: &'a mut Context<'b>,
}

impl Common {
    /// No run yet.
    pub fn new(server: Server, limits: RunLimits) -> Common {
        Common {
            server,
            limits,
            table: RunTable::default(),
            entries: OpenEntries::default(),
            candidates: Candidates::default(),
        }
    }

    /// Lends everything to the parts.
    pub fn lend<'a, 'b>(&'a mut self, ledger: &'a mut Ledger, cx: &'a mut Context<'b>) -> Desk<'a, 'b> {
        let Common { server, limits, table, entries, candidates } = self;
        Desk { server, limits: *limits, table, entries, candidates, ledger, cx }
    }
}

impl Desk<'_, '_> {
    /// Writes the row of a run that did not start, or that is lost.
    pub fn push_row(&mut self, attempt: Attempt, version: Version, why: Why) {
        let row = ending::unstarted_row(attempt, version, why.state, why.text, self.server);
        self.cx.logbook.push(row, self.cx.now);
    }
}
