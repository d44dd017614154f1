//! The schedules of all jobs, each once, and which of them fire at a tick.
//!
//! Jobs with the same text and the same offset (`jitter`) share one entry, and one item of the wheel. So the cost of a
//! tick grows with its due schedules, not with the stored jobs.
//!
//! Not the owner of the jobs: it knows only their ids.
//!
//! Invariants: every entry has at least one job; an entry that will fire again lies in the wheel at its `next`.

use crate::core::jobs::schedule::jitter::{Shifted, offset_secs};
use crate::core::jobs::schedule::wheel::{Item, Wheel};
use crate::core::jobs::schedule::{Schedule, ScheduleError};
use crate::model::{Job, JobId, Second, Zones};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Over so many seconds the wheel advances second by second, which costs a look at the schedules that fire on the way.
/// For a longer distance a new wheel is filled, which costs a look at every schedule.
const ADVANCE_SECS_MAX: i64 = 60;

#[derive(Debug)]
pub struct Timetable {
    entries: Vec<Option<Entry>>,
    /// Indexes of `entries` that have none.
    free: Vec<Item>,
    by_text: BTreeMap<Arc<str>, Text>,
    wheel: Wheel,
}

/// A text of a schedule, read once for all jobs that have it.
#[derive(Debug)]
struct Text {
    schedule: Arc<Schedule>,
    by_offset: BTreeMap<u32, Item>,
}

/// A schedule with an offset, and the jobs that have both.
#[derive(Debug)]
pub struct Entry {
    pub text: Arc<str>,
    pub schedule: Shifted,
    /// At least one.
    pub jobs: BTreeSet<JobId>,
    /// When it fires first after the cursor; none where it never does again.
    pub next: Option<Second>,
    offset_secs: u32,
}

impl Timetable {
    /// The first tick will be the one after `cursor`.
    pub fn new(cursor: Second) -> Timetable {
        Timetable { entries: Vec::new(), free: Vec::new(), by_text: BTreeMap::new(), wheel: Wheel::new(cursor) }
    }

    /// The last tick that was taken.
    pub fn cursor(&self) -> Second {
        self.wheel.cursor()
    }

    pub fn has_text(&self, cron_set: &str) -> bool {
        self.by_text.contains_key(cron_set)
    }

    pub fn entry(&self, item: Item) -> Option<&Entry> {
        self.entries.get(item as usize)?.as_ref()
    }

    pub fn entries(&self) -> impl Iterator<Item = (Item, &Entry)> {
        self.entries.iter().enumerate().filter_map(|(item, entry)| Some((item as Item, entry.as_ref()?)))
    }

    pub fn count(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Adds the job to the entry of its schedule, which is made where it is not there.
    pub fn share(&mut self, job: &Job, zones: &Zones) -> Result<Item, ScheduleError> {
        let offset_secs = offset_secs(job.id, job.jitter);
        let known = self.by_text.get_key_value(job.cron_set.as_str());
        if let Some(&item) = known.and_then(|(_, text)| text.by_offset.get(&offset_secs)) {
            if let Some(entry) = &mut self.entries[item as usize] {
                entry.jobs.insert(job.id);
            }
            return Ok(item);
        }
        let (text, schedule) = match known {
            Some((text, known)) => (Arc::clone(text), Arc::clone(&known.schedule)),
            None => (job.cron_set.as_str().into(), Arc::new(Schedule::parse(&job.cron_set, zones)?)),
        };
        let shifted = Shifted::new(Arc::clone(&schedule), offset_secs);
        let next = shifted.next_after(self.cursor());
        let jobs = BTreeSet::from([job.id]);
        let item = self.store(Entry { text: Arc::clone(&text), offset_secs, schedule: shifted, jobs, next });
        let new = || Text { schedule, by_offset: BTreeMap::new() };
        self.by_text.entry(text).or_insert_with(new).by_offset.insert(offset_secs, item);
        Ok(item)
    }

    /// Stores the entry at a free index or a new one, and puts it into the wheel.
    fn store(&mut self, entry: Entry) -> Item {
        let item = self.free.pop().unwrap_or(self.entries.len() as Item);
        if let Some(next) = entry.next {
            self.wheel.insert(item, next);
        }
        match self.entries.get_mut(item as usize) {
            Some(free) => {
                debug_assert!(free.is_none(), "the index of {free:?} counts as free");
                *free = Some(entry);
            }
            None => self.entries.push(Some(entry)),
        }
        item
    }

    /// Takes the job from the entry; the entry goes with its last job.
    pub fn unshare(&mut self, item: Item, id: JobId) {
        let Some(entry) = &mut self.entries[item as usize] else { return };
        let was_there = entry.jobs.remove(&id);
        debug_assert!(was_there, "job {id} leaves the schedule {:?}, which is not its own", entry.text);
        if !entry.jobs.is_empty() {
            return;
        }
        if let Some(text) = self.by_text.get_mut(&entry.text) {
            text.by_offset.remove(&entry.offset_secs);
            if text.by_offset.is_empty() {
                self.by_text.remove(&entry.text);
            }
        }
        self.entries[item as usize] = None;
        self.free.push(item);
    }

    /// Advances by one tick, and answers the entries that fire in it. Their `next` is already the second after that.
    pub fn advance(&mut self) -> Vec<Item> {
        let mut fired = self.wheel.tick();
        let tick = self.cursor();
        fired.retain(|item| {
            // An entry that was dropped may still lie in the wheel, and another entry may have its index.
            let Some(entry) = self.entries[*item as usize].as_mut().filter(|entry| entry.next == Some(tick)) else {
                return false;
            };
            entry.next = entry.schedule.next_after(tick);
            if let Some(next) = entry.next {
                self.wheel.insert(*item, next);
            }
            true
        });
        fired
    }

    /// Makes the tick after `cursor` the next one, whatever came before.
    pub fn wind_to(&mut self, cursor: Second) {
        if (self.cursor().0..self.cursor().0 + ADVANCE_SECS_MAX).contains(&cursor.0) {
            return (self.cursor().0..cursor.0).for_each(|_| drop(self.advance()));
        }
        self.wheel = Wheel::new(cursor);
        for (item, entry) in self.entries.iter_mut().enumerate() {
            let Some(entry) = entry else { continue };
            entry.next = entry.schedule.next_after(cursor);
            if let Some(next) = entry.next {
                self.wheel.insert(item as Item, next);
            }
        }
    }

    /// Counts everything again. Costs a look at every entry and at all that is in the wheel.
    pub fn check_invariants(&self) {
        self.wheel.check_invariants();
        let timed: BTreeSet<(Second, Item)> = self.wheel.items().collect();
        for (item, Entry { text, jobs, next, offset_secs, .. }) in self.entries() {
            assert!(!jobs.is_empty(), "{text:?} has no job");
            let listed = self.by_text.get(text).and_then(|text| text.by_offset.get(offset_secs));
            assert_eq!(listed, Some(&item), "{text:?} with the offset {offset_secs} is not found by its text");
            let Some(next) = next else { continue };
            assert!(timed.contains(&(*next, item)), "{text:?} fires next at {next:?} and is not in the wheel there");
        }
        assert_eq!(self.entries().count(), self.count(), "an index without an entry does not count as free");
        let listed: usize = self.by_text.values().map(|text| text.by_offset.len()).sum();
        assert_eq!(listed, self.count(), "more schedules are found by their texts than there are");
    }

    #[cfg(test)]
    pub fn text_count(&self) -> usize {
        self.by_text.len()
    }

    /// Indexes, the free ones included.
    #[cfg(test)]
    pub fn index_count(&self) -> usize {
        self.entries.len()
    }
}
