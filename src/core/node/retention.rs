//! Retention: deletes log rows that are older than `log_retention_days`.
//!
//! Not the deletion itself: the store does that, a bounded number of rows at a time. This asks again until no old row
//! is left; new rows are written in between.
//!
//! Invariant: one deletion is under way at a time.

use super::Node;
use crate::core::io::ports::{Log, StoreError, Work};
use crate::model::{Mono, Now};

/// How often old log rows are deleted.
const RETAIN_EVERY_MS: u64 = 3_600_000;

impl Node {
    /// Whether old log rows are deleted at all.
    pub(super) fn retains(&self) -> bool {
        self.is_open() && self.setup.log_retention_days != 0
    }

    /// Deletes old log rows when it is time.
    pub(super) fn retain(&mut self, now: Now) {
        if self.retains() && self.retain_at <= now.mono {
            self.delete_some(true, now);
            self.retain_at = Mono::NEVER;
        }
    }

    /// The store's answer to a deletion: whether more old rows may be left.
    pub(super) fn on_retained(&mut self, result: Result<bool, StoreError>, now: Now) {
        match result {
            Ok(true) => return self.delete_some(false, now),
            Ok(false) => {}
            Err(error) => {
                self.lender
                    .fx
                    .notice(log::Level::Warn, format!("delete log rows older than log_retention_days: {error}"));
            }
        }
        self.retain_at = now.mono.plus_ms(RETAIN_EVERY_MS);
    }

    fn delete_some(&mut self, is_first: bool, now: Now) {
        let before = now.wall.second().plus(-86_400 * i64::from(self.setup.log_retention_days));
        self.lender.fx.work(Work::Log(Log::Retain { before, is_first }));
    }

    /// Whether a deletion is under way.
    pub(super) fn is_retaining(&self) -> bool {
        self.retain_at == Mono::NEVER
    }
}
