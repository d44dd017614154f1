//! The value of one cell of a table, and the types of fields that a cell can hold.
//!
//! Not the values of a database or a request: the stores and `api` convert theirs to these and back.
//!
//! Invariant: a field does not change where its own value is set again.

use super::{JobId, Misfire, OnLost, Second, Version};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// The value of a cell. In JSON it is null, true or false, a number, or a text.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Value<'a> {
    Null,
    Flag(bool),
    Number(i64),
    Text(Cow<'a, str>),
}

impl From<bool> for Value<'_> {
    fn from(flag: bool) -> Self {
        Value::Flag(flag)
    }
}

impl From<i32> for Value<'_> {
    fn from(number: i32) -> Self {
        Value::Number(number.into())
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Value::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Value::Text(Cow::Owned(text))
    }
}

/// The type of a cell in a database.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CellKind {
    /// Flags too: databases keep them as 0 and 1.
    Number,
    Text,
}

/// A type that a cell can hold.
pub trait Cell {
    /// The cell's value.
    fn value(&self) -> Value<'_>;
    /// Sets the nearest value that the type has, because rows that another program wrote may have any value. A value of
    /// another kind changes nothing, nor does null, unless the type is an `Option`.
    fn set_value(&mut self, value: Value<'_>);
}

impl Cell for String {
    fn value(&self) -> Value<'_> {
        self.as_str().into()
    }

    fn set_value(&mut self, value: Value<'_>) {
        if let Value::Text(text) = value {
            *self = text.into_owned();
        }
    }
}

impl Cell for bool {
    fn value(&self) -> Value<'_> {
        Value::Flag(*self)
    }

    fn set_value(&mut self, value: Value<'_>) {
        match value {
            Value::Flag(flag) => *self = flag,
            Value::Number(number) => *self = number != 0,
            Value::Null | Value::Text(_) => {}
        }
    }
}

/// Whole numbers, and types that wrap one.
macro_rules! number_cells {
    ($($kind:ty: $to:expr, $from:expr;)*) => {$(
        impl Cell for $kind {
            fn value(&self) -> Value<'_> {
                Value::Number($to(*self))
            }

            fn set_value(&mut self, value: Value<'_>) {
                if let Value::Number(number) = value {
                    *self = $from(number);
                }
            }
        }
    )*};
}

number_cells! {
    i64: |number| number, |number| number;
    i32: i64::from, |number: i64| number.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32;
    u32: i64::from, |number: i64| number.clamp(0, i64::from(u32::MAX)) as u32;
    u64: |number| i64::try_from(number).unwrap_or(i64::MAX), |number: i64| number.max(0) as u64;
    JobId: |id: JobId| i64::from(id.0), |number: i64| JobId(number.clamp(0, i64::from(u32::MAX)) as u32);
    Second: |second: Second| second.0, Second;
    Version: |version: Version| version.0 as i64, |number: i64| Version(number.max(1) as u64);
}

/// Types whose values are a few words. Any other text means the default.
macro_rules! word_cells {
    ($($kind:ty),*) => {$(
        impl Cell for $kind {
            fn value(&self) -> Value<'_> {
                self.as_str().into()
            }

            fn set_value(&mut self, value: Value<'_>) {
                if let Value::Text(word) = value {
                    *self = <$kind>::parse(&word).unwrap_or_default();
                }
            }
        }
    )*};
}

word_cells!(Misfire, OnLost);

impl<T: Cell + Default> Cell for Option<T> {
    fn value(&self) -> Value<'_> {
        self.as_ref().map_or(Value::Null, Cell::value)
    }

    fn set_value(&mut self, value: Value<'_>) {
        match value {
            Value::Null => *self = None,
            value => self.get_or_insert_default().set_value(value),
        }
    }
}
