//! The timer wheel: it finds the items that are due at a tick without a look at the others.
//!
//! Five levels of 64 slots: a slot of level 0 is one second, a slot of each further level is 64 times as wide. An item
//! lies on the level of the highest base-64 digit in which its second differs from the cursor. So it moves down at most
//! once per level, and is taken in its own second. Items beyond the last level (34 years) wait in `far`.
//!
//! Not a clock. Items cannot be removed: one that its owner no longer wants comes out all the same, and the owner
//! ignores it.
//!
//! Invariant: every item's second is after the cursor.

use crate::model::Second;

const LEVELS: usize = 5;
const DIGIT_BITS: u32 = 6;
const SLOTS: usize = 1 << DIGIT_BITS;

/// An index that the wheel's owner understands.
pub type Item = u32;

#[derive(Clone, Copy, Debug)]
struct Timed {
    at: Second,
    item: Item,
}

/// The distinct schedules, by their next due second.
#[derive(Debug)]
pub struct Wheel {
    cursor: Second,
    levels: Vec<Vec<Vec<Timed>>>,
    far: Vec<Timed>,
}

impl Wheel {
    /// A wheel whose first tick is the one after `cursor`.
    pub fn new(cursor: Second) -> Wheel {
        Wheel { cursor, levels: vec![vec![Vec::new(); SLOTS]; LEVELS], far: Vec::new() }
    }

    /// The last tick that was taken.
    pub fn cursor(&self) -> Second {
        self.cursor
    }

    /// Puts the item in for `at`, which must lie after the cursor.
    pub fn insert(&mut self, item: Item, at: Second) {
        debug_assert!(self.cursor < at, "item {item} is put in for {at:?}, which is not after {:?}", self.cursor);
        self.put_in_slot(Timed { at, item });
    }

    /// Advances by one second, and takes the items that are due in it, in no particular order.
    pub fn tick(&mut self) -> Vec<Item> {
        self.cursor = self.cursor.plus(1);
        for level in (1..=LEVELS).rev() {
            if digits_below(self.cursor, level) == 0 {
                let moved = match self.levels.get_mut(level) {
                    Some(slots) => std::mem::take(&mut slots[digit(self.cursor, level)]),
                    None => std::mem::take(&mut self.far),
                };
                moved.into_iter().for_each(|timed| self.put_in_slot(timed));
            }
        }
        let due = std::mem::take(&mut self.levels[0][digit(self.cursor, 0)]);
        let is_due = due.iter().all(|timed| timed.at == self.cursor);
        debug_assert!(is_due, "an item comes out at {:?}, not in its own second: {due:?}", self.cursor);
        due.into_iter().map(|timed| timed.item).collect()
    }

    /// All items, in no particular order.
    pub fn items(&self) -> impl Iterator<Item = (Second, Item)> {
        self.levels.iter().flatten().flatten().chain(&self.far).map(|timed| (timed.at, timed.item))
    }

    /// Looks for every item in its slot. Costs a look at every item.
    pub fn check_invariants(&self) {
        for (level, slots) in self.levels.iter().enumerate() {
            for (slot, timed) in slots.iter().enumerate().flat_map(|(slot, all)| all.iter().map(move |one| (slot, one)))
            {
                self.check_item(timed, level);
                assert_eq!(digit(timed.at, level), slot, "{timed:?} lies in another slot of level {level}");
            }
        }
        self.far.iter().for_each(|timed| self.check_item(timed, LEVELS));
    }

    fn check_item(&self, timed: &Timed, level: usize) {
        assert!(self.cursor < timed.at, "{timed:?} lies in the wheel and its second is over: {:?}", self.cursor);
        assert_eq!(self.level_of(timed.at).min(LEVELS), level, "{timed:?} lies on another level");
    }

    fn put_in_slot(&mut self, timed: Timed) {
        let level = self.level_of(timed.at);
        match self.levels.get_mut(level) {
            Some(slots) => slots[digit(timed.at, level)].push(timed),
            None => self.far.push(timed),
        }
    }

    /// The level of the highest digit in which the second differs from the cursor.
    fn level_of(&self, at: Second) -> usize {
        let differing = (at.0 ^ self.cursor.0) as u64;
        ((63 - (differing | 1).leading_zeros()) / DIGIT_BITS) as usize
    }
}

fn digit(second: Second, level: usize) -> usize {
    (second.0 >> (DIGIT_BITS * level as u32)) as usize & (SLOTS - 1)
}

/// How far the second lies inside its slot of `level`.
fn digits_below(second: Second, level: usize) -> i64 {
    second.0 & ((1 << (DIGIT_BITS * level as u32)) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ticks until `at`, and checks that the item comes out in that second and not before.
    #[track_caller]
    fn check(cursor: i64, at: i64) {
        let mut wheel = Wheel::new(Second(cursor));
        wheel.insert(7, Second(at));
        for second in cursor + 1..at {
            assert!(wheel.tick().is_empty(), "early, at {second}");
        }
        assert_eq!(wheel.tick(), [7]);
        assert_eq!(wheel.cursor(), Second(at));
    }

    #[test]
    fn an_item_comes_in_its_own_second() {
        for cursor in [-70, -1, 0, 1, 62, 63, 64, 4_094, 4_095, 1_699_999_999, 1_700_000_000, (1 << 30) - 1] {
            for distance in [1, 2, 63, 64, 65, 4_095, 4_096, 4_097, 262_144, 300_000] {
                check(cursor, cursor + distance);
            }
        }
    }

    #[test]
    fn items_of_one_second_come_together_and_re_inserted_ones_come_again() {
        let mut wheel = Wheel::new(Second(100));
        for item in 0..5 {
            wheel.insert(item, Second(101));
        }
        let mut seen = 0;
        for _ in 0..200 {
            for item in wheel.tick() {
                seen += 1;
                wheel.insert(item, wheel.cursor().plus(1 + i64::from(item)));
            }
        }
        assert_eq!(seen, 200 + 100 + 67 + 50 + 40);
    }

    #[test]
    fn an_item_that_is_due_in_decades_waits() {
        let mut wheel = Wheel::new(Second(0));
        wheel.insert(1, Second(1 << 40));
        assert_eq!(wheel.far.len(), 1);
        for _ in 0..1_000 {
            assert!(wheel.tick().is_empty());
        }
    }
}
