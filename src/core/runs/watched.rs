//! A value that notes by itself that it was lent to be changed, so that whoever recounts it can pass over an unchanged
//! one.
//!
//! Not a recount: each part makes its own.
//!
//! Invariant: nobody changes the value without the note.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};

/// A value, and whether it may have changed.
#[derive(Debug, Default)]
pub struct Watched<T> {
    value: T,
    is_touched: Cell<bool>,
}

impl<T> Watched<T> {
    /// Whether the value was lent to be changed since this was asked last.
    pub fn take_touched(&self) -> bool {
        self.is_touched.take()
    }
}

impl<T> Deref for Watched<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Watched<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.is_touched.set(true);
        &mut self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_noted_and_a_look_is_not() {
        let mut watched = Watched::<Vec<u8>>::default();
        assert!(watched.is_empty() && !watched.take_touched());
        watched.push(1);
        assert!(watched.take_touched() && !watched.take_touched());
    }
}
