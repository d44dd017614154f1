//! The schedules of all jobs, each once, and which of them fire at a tick.
//!
//! Jobs that share a schedule's text and their offset (`jitter`) share one entry, and one item of the wheel, so a tick costs
//! what is due and never what is stored.
//!
//! Not the jobs: of them only the ids are known here.
//!
//! Invariants: every entry has at least one job; an entry that will fire again lies in the wheel at its `next`.

use crate::core::schedule::jitter::{Shifted, offset_secs};
use crate::core::schedule::wheel::{Item, Wheel};
use crate::core::schedule::{Schedule, ScheduleError};
use crate::model::{Job, JobId, Second, Zones};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// So far ahead the wheel is turned, at the cost of what fires on the way; beyond it, it is filled anew from every schedule.
const TURNS_MAX: i64 = 60;

#[derive(Debug)]
pub struct Timetable {
    entries: Vec<Option<Entry>>,
    /// Places of entries that are gone.
    free: Vec<Item>,
    by_text: BTreeMap<Arc<str>, Text>,
    wheel: Wheel,
}

/// What jobs with one text have in common.
#[derive(Debug)]
struct Text {
    schedule: Arc<Schedule>,
    by_offset: BTreeMap<u32, Item>,
}

/// One schedule.
#[derive(Debug)]
pub struct Entry {
    pub text: Arc<str>,
    pub schedule: Shifted,
    /// Whose it is.
    pub jobs: BTreeSet<JobId>,
    /// When it fires first after the cursor.
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

    /// Finds the job its entry, or makes one.
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
        let item = self.place(Entry { text: Arc::clone(&text), offset_secs, schedule: shifted, jobs, next });
        let new = || Text { schedule, by_offset: BTreeMap::new() };
        self.by_text.entry(text).or_insert_with(new).by_offset.insert(offset_secs, item);
        Ok(item)
    }

    /// Where there was another, or in a new place; and in the wheel.
    fn place(&mut self, entry: Entry) -> Item {
        let item = self.free.pop().unwrap_or(self.entries.len() as Item);
        if let Some(next) = entry.next {
            self.wheel.insert(item, next);
        }
        match self.entries.get_mut(item as usize) {
            Some(place) => {
                debug_assert!(place.is_none(), "the place of {place:?} counts as free");
                *place = Some(entry);
            }
            None => self.entries.push(Some(entry)),
        }
        item
    }

    /// The entry goes with the last of its jobs.
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

    /// Moves on by one tick: the entries that fire in it, each at its next one already.
    pub fn turn(&mut self) -> Vec<Item> {
        let mut fired = self.wheel.tick();
        let tick = self.cursor();
        fired.retain(|item| {
            // An entry that was dropped may still lie in the wheel, and its place may be another's by now.
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
        if (self.cursor().0..self.cursor().0 + TURNS_MAX).contains(&cursor.0) {
            return (self.cursor().0..cursor.0).for_each(|_| drop(self.turn()));
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
        assert_eq!(self.entries().count(), self.count(), "a place without an entry does not count as free");
        let listed: usize = self.by_text.values().map(|text| text.by_offset.len()).sum();
        assert_eq!(listed, self.count(), "more is found by its text than there is");
    }

    #[cfg(test)]
    pub fn text_count(&self) -> usize {
        self.by_text.len()
    }

    /// Places, the free ones included.
    #[cfg(test)]
    pub fn place_count(&self) -> usize {
        self.entries.len()
    }
}
