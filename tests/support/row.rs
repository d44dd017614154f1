//! A row of the log, as `/log/list` gives it.

use serde_json::Value;
use std::fmt::{Display, Formatter, Result};
use std::ops::Deref;

/// The fields are reached as those of a JSON object; the ones that every row has are read by name.
#[derive(Clone, Debug, PartialEq)]
pub struct Row(pub Value);

impl Row {
    /// The second for which the run was scheduled.
    #[track_caller]
    pub fn time(&self) -> i64 {
        self["time"].as_i64().unwrap_or_else(|| panic!("a row without time: {self}"))
    }

    #[track_caller]
    pub fn state(&self) -> &str {
        self.text("state")
    }

    #[track_caller]
    pub fn output(&self) -> &str {
        self.text("output")
    }

    #[track_caller]
    pub fn run_key(&self) -> &str {
        self.text("run_key")
    }

    #[track_caller]
    pub fn run_server(&self) -> &str {
        self.text("run_server")
    }

    /// How long the run took, in milliseconds.
    #[track_caller]
    pub fn use_time(&self) -> i64 {
        self["use_time"].as_i64().unwrap_or_else(|| panic!("a row without use_time: {self}"))
    }

    /// `RUN_KEY#ATTEMPT`: what the run itself writes down.
    #[track_caller]
    pub fn attempt(&self) -> String {
        format!("{}#{}", self.run_key(), self["attempt"])
    }

    #[track_caller]
    fn text(&self, field: &str) -> &str {
        self[field].as_str().unwrap_or_else(|| panic!("a row without {field}: {self}"))
    }
}

impl Deref for Row {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.0
    }
}

impl Display for Row {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        Display::fmt(&self.0, f)
    }
}
