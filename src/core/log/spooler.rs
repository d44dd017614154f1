//! The spool: log rows on this node's own disk while the store is away, so that neither the daemon's death nor a long
//! outage loses them.
//!
//! ```text
//! appended -> a chunk on the disk -> (once it is the first) read back -> written to the store -> forgotten
//! The file is emptied when no chunk is left.
//! ```
//!
//! Not the file itself: that is `worker::spool`. Rows on the disk are not kept in memory, save those of the first
//! chunk.
//!
//! Invariants: one piece of work is with the file at a time; the file is emptied only when all of its rows are
//! committed. So after a crash a chunk may be written to the store a second time, which does no harm.

use crate::core::io::Effects;
use crate::core::io::ports::{Chunk, Spool, Spooled, Work, WorkId};
use crate::core::time::{Backoff, Timer, Timers};
use crate::model::{LogRow, Mono, Now};
use std::collections::VecDeque;
use std::sync::Arc;

#[derive(Debug, Default)]
pub struct Spooler {
    /// Chunks on the disk that are not committed, the oldest first.
    chunks: VecDeque<Chunk>,
    /// The rows of the first chunk, read back.
    loaded: Option<Arc<[LogRow]>>,
    under_way: Option<(WorkId, UnderWay)>,
    backoff: Backoff,
    /// The file may have rows in it.
    is_used: bool,
}

#[derive(Debug)]
enum UnderWay {
    Append {
        group: Arc<[LogRow]>,
        /// The store has the rows: the chunk on the disk is not needed.
        is_committed: bool,
    },
    Read(Chunk),
    Empty,
}

/// What an answer of the spool means for the rows.
#[derive(Debug)]
pub enum Fate {
    Nothing,
    OnDisk(Chunk, Arc<[LogRow]>),
    /// The disk has not taken these rows.
    NotOnDisk(Arc<[LogRow]>),
    /// The file is empty.
    Emptied,
}

impl Spooler {
    /// `chunks`: those that former incarnations left.
    pub fn new(chunks: Vec<Chunk>) -> Spooler {
        Spooler { is_used: !chunks.is_empty(), chunks: chunks.into(), ..Spooler::default() }
    }

    /// Whether rows may be appended now.
    pub fn is_free(&self, now: Now) -> bool {
        self.under_way.is_none() && self.backoff.is_over(now)
    }

    pub fn append(&mut self, group: Arc<[LogRow]>, fx: &mut Effects) {
        debug_assert!(!group.is_empty(), "a chunk without a row goes to the disk");
        let id = fx.work(Work::Spool(Spool::Append(Arc::clone(&group))));
        self.begin(id, UnderWay::Append { group, is_committed: false });
    }

    pub fn is_appending(&self, rows: &Arc<[LogRow]>) -> bool {
        matches!(&self.under_way, Some((_, UnderWay::Append { group, .. })) if Arc::ptr_eq(group, rows))
    }

    /// The store has committed these rows, which are in this chunk or are being appended.
    pub fn on_committed(&mut self, rows: &Arc<[LogRow]>, chunk: Option<Chunk>) {
        self.chunks.retain(|kept| Some(*kept) != chunk);
        if let Some((_, UnderWay::Append { group, is_committed })) = &mut self.under_way {
            *is_committed |= Arc::ptr_eq(group, rows);
        }
    }

    /// The first chunk, for the store. It stays on the disk until it is committed.
    pub fn take_loaded(&mut self) -> Option<(Chunk, Arc<[LogRow]>)> {
        Some((*self.chunks.front()?, self.loaded.take()?))
    }

    /// The store has not taken the rows of this chunk.
    pub fn put_back(&mut self, chunk: Chunk, rows: Arc<[LogRow]>) {
        if self.chunks.front() == Some(&chunk) {
            self.loaded = Some(rows);
        }
    }

    pub fn has_loaded(&self) -> bool {
        self.loaded.is_some()
    }

    /// Whether nothing waits on the disk, or on its way to it.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty() && !self.is_used && !matches!(self.under_way, Some((_, UnderWay::Append { .. })))
    }

    /// Reads the first chunk back, or empties a file without chunks. `writing`: the chunk that is with the store.
    pub fn poll(&mut self, writing: Option<Chunk>, fx: &mut Effects, now: Now) {
        if !self.is_free(now) || self.loaded.is_some() {
            return;
        }
        let (spool, under_way) = match self.chunks.front() {
            Some(chunk) if Some(*chunk) == writing => return,
            Some(chunk) => (Spool::Read(*chunk), UnderWay::Read(*chunk)),
            None if self.is_used => (Spool::Empty, UnderWay::Empty),
            None => return,
        };
        self.begin(fx.work(Work::Spool(spool)), under_way);
    }

    fn begin(&mut self, id: WorkId, under_way: UnderWay) {
        debug_assert!(self.under_way.is_none(), "{under_way:?} begins beside {:?}", self.under_way);
        self.under_way = Some((id, under_way));
    }

    /// Whether the chunk is on the disk and not committed.
    pub fn has(&self, chunk: Chunk) -> bool {
        self.chunks.contains(&chunk)
    }

    /// When rows may be appended again; none while a piece of work is with the file.
    pub fn free_at(&self) -> Option<Mono> {
        self.under_way.is_none().then(|| self.backoff.ready_at())
    }

    /// `writing`: as for `poll`.
    pub fn timers(&self, writing: Option<Chunk>, timers: &mut Timers) {
        let is_wanted = match self.chunks.front() {
            Some(chunk) => Some(*chunk) != writing && self.loaded.is_none(),
            None => self.is_used && self.loaded.is_none(),
        };
        timers.set(Timer::SpoolRead, self.free_at().filter(|_| is_wanted));
    }

    pub fn on_spooled(&mut self, id: WorkId, result: Result<Spooled, String>, fx: &mut Effects, now: Now) -> Fate {
        let Some((_, under_way)) = self.under_way.take_if(|(under_way, _)| *under_way == id) else {
            return Fate::Nothing;
        };
        match &result {
            Ok(_) if self.backoff.is_failing() => {
                fx.notice(log::Level::Info, "the spool takes log rows again");
                self.backoff.reset();
            }
            Err(error) if !self.backoff.is_failing() && !matches!(under_way, UnderWay::Read(_)) => {
                fx.notice(log::Level::Error, format!("{error}; log rows wait in memory until that is mended"));
                self.backoff.fail(now);
            }
            Err(_) => self.backoff.fail(now),
            Ok(_) => {}
        }
        match (under_way, result) {
            (UnderWay::Append { group, is_committed }, result) => {
                self.is_used = true;
                match result {
                    _ if is_committed => return Fate::Nothing,
                    Ok(Spooled::Chunk(chunk)) => {
                        let last = self.chunks.back();
                        debug_assert!(
                            last.is_none_or(|last| is_behind(*last, chunk)),
                            "{chunk:?} lies before {last:?}"
                        );
                        self.chunks.push_back(chunk);
                        return Fate::OnDisk(chunk, group);
                    }
                    _ => return Fate::NotOnDisk(group),
                }
            }
            (UnderWay::Read(_), Ok(Spooled::Rows(rows))) => self.loaded = Some(rows.into()),
            // The file will be set aside instead of emptied, so people can look at the rows that cannot be read.
            (UnderWay::Read(chunk), result) => {
                let error = result.err().unwrap_or_default();
                fx.notice(
                    log::Level::Error,
                    format!("{error}: these log rows are left out; the file will be set aside"),
                );
                self.chunks.retain(|kept| *kept != chunk);
            }
            (UnderWay::Empty, Ok(_)) => {
                self.is_used = false;
                return Fate::Emptied;
            }
            (UnderWay::Empty, Err(_)) => {}
        }
        Fate::Nothing
    }

    /// Costs a look at every chunk.
    pub fn check_invariants(&self) {
        for (one, next) in self.chunks.iter().zip(self.chunks.iter().skip(1)) {
            assert!(is_behind(*one, *next), "{next:?} comes after {one:?} and lies before it");
        }
        assert!(self.is_used || self.chunks.is_empty(), "there are chunks in a file that counts as empty");
        let first = self.chunks.front();
        if let Some(rows) = &self.loaded {
            assert!(first.is_some() && !rows.is_empty(), "{} rows of no chunk are read back", rows.len());
        }
        match &self.under_way {
            Some((_, UnderWay::Read(chunk))) => {
                assert_eq!(first, Some(chunk), "another chunk than the first is read back");
                assert!(self.loaded.is_none(), "a chunk is read back while one is loaded");
            }
            Some((_, UnderWay::Empty)) => assert_eq!(first, None, "the file is emptied while a chunk is in it"),
            Some((_, UnderWay::Append { .. })) | None => {}
        }
    }
}

/// Whether the chunk `next` lies behind the chunk `one` in the file.
fn is_behind(one: Chunk, next: Chunk) -> bool {
    one.at + one.bytes <= next.at
}
