//! A request's parameters, which come from the query string, a form, or a JSON object. Mistakes are collected, so that
//! one answer names them all.
//!
//! Not the columns of a job: those are in `draft`.
//!
//! Invariants: an empty value counts as absent, but for texts that may be cleared; a name that is given twice with
//! different values is a mistake.

use super::body::{self, Body};
use crate::model::columns::{self, Kind};
use crate::model::command::CallError;
use crate::model::job::with_lf;
use crate::wire::http::Request;
use serde_json::Value;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// The parameters that are still to be read, and the mistakes so far.
#[derive(Debug, Default)]
pub struct Params {
    values: BTreeMap<String, String>,
    mistakes: Vec<String>,
}

impl Params {
    /// The parameters of a request. Error: its query or body cannot be read.
    pub fn of(request: &Request) -> Result<Params, CallError> {
        let mut params = Params::default();
        params.add_form(&request.query)?;
        match body::read(request)? {
            Body::None => {}
            Body::Form(bytes) => params.add_form(bytes)?,
            Body::Object(object) => params.add_object(object),
        }
        Ok(params)
    }

    /// Notes every other name as a mistake: a misspelt parameter must not be ignored.
    pub fn allow(&mut self, names: &[&str]) {
        let unknown: Vec<String> = self.values.keys().filter(|name| !names.contains(&name.as_str())).cloned().collect();
        let there_are = if names.is_empty() { "none".into() } else { names.join(", ") };
        for name in unknown {
            self.wrong(&name, &format!("there is no such parameter; there are {there_are}"));
        }
    }

    /// Moves the value of `other` to `name`: both are names of one parameter.
    pub fn rename(&mut self, other: &str, name: &str) {
        if let Some(value) = self.values.remove(other) {
            self.add(name.into(), value);
        }
    }

    /// Makes each line of a text end with LF.
    pub fn end_lines_with_lf(&mut self, name: &str) {
        if let Some(value) = self.values.get_mut(name) {
            *value = with_lf(value);
        }
    }

    /// Notes a mistake in this parameter.
    pub fn wrong(&mut self, name: &str, reason: &str) {
        self.mistakes.push(format!("{name}: {reason}"));
    }

    /// An error with all mistakes, if there are any.
    pub fn finish(self) -> Result<(), CallError> {
        if self.mistakes.is_empty() { Ok(()) } else { Err(CallError::bad(self.mistakes.join("; "))) }
    }

    /// A text; none where it is absent or empty.
    pub fn text(&mut self, name: &str, chars_max: usize) -> Option<String> {
        let text = self.values.remove(name).filter(|text| !text.is_empty())?;
        let chars = text.chars().count();
        if chars_max < chars {
            self.wrong(name, &format!("it has {chars} characters, at most {chars_max} are kept"));
        }
        if text.contains('\0') {
            self.wrong(name, "it has a NUL character, which no command line can carry");
        }
        Some(text)
    }

    /// A text that clears its column where it is given empty; none where it is absent.
    pub fn clearable_text(&mut self, name: &str, chars_max: usize) -> Option<String> {
        let is_given = self.values.contains_key(name);
        self.text(name, chars_max).or(is_given.then(String::new))
    }

    /// One of these words; none where it is absent or another text.
    pub fn word(&mut self, name: &str, words: &[&'static str]) -> Option<&'static str> {
        let text = self.values.remove(name).filter(|text| !text.is_empty())?;
        let found = words.iter().find(|word| **word == text).copied();
        if found.is_none() {
            self.wrong(name, &format!("{} is not one of {}", shown(&text), words.join(", ")));
        }
        found
    }

    /// A text that must be given; `what` says what is expected. Where it is absent, the text is empty and a mistake is
    /// noted.
    pub fn required_text(&mut self, name: &str, chars_max: usize, what: &str) -> String {
        let text = self.text(name, chars_max).unwrap_or_default();
        if text.trim().is_empty() {
            self.wrong(name, &format!("it is required: {what}"));
        }
        text
    }

    /// A whole number from `min` to `max`; none where it is absent or wrong.
    pub fn integer(&mut self, name: &str, min: i64, max: i64) -> Option<i64> {
        let text = self.values.remove(name).filter(|text| !text.is_empty())?;
        let whole = whole(&text);
        let digits = whole.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.then(|| whole.parse().ok()).flatten().filter(|number| (min..=max).contains(number));
        if number.is_none() {
            self.wrong(name, &format!("{} is not a whole number from {min} to {max}", shown(&text)));
        }
        number
    }

    /// 0 or 1, false or true; none where it is absent or wrong.
    pub fn flag(&mut self, name: &str) -> Option<bool> {
        let text = self.values.remove(name).filter(|text| !text.is_empty())?;
        match whole(&text) {
            "" | "0" | "false" => Some(false),
            "1" | "true" => Some(true),
            _ => {
                self.wrong(name, &format!("{} is neither 0 nor 1", shown(&text)));
                None
            }
        }
    }

    fn add_form(&mut self, bytes: &[u8]) -> Result<(), CallError> {
        for pair in bytes.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
            let mut sides = pair.splitn(2, |byte| *byte == b'=').map(decoded);
            let (name, value) = (sides.next().unwrap_or_default(), sides.next().unwrap_or_default());
            let name = String::from_utf8(name).map_err(|error| {
                CallError::bad(format!("{}: this name is not UTF-8", shown_bytes(error.as_bytes())))
            })?;
            let value = String::from_utf8(value)
                .map_err(|_| CallError::bad(format!("{}: its value is not UTF-8", shown(&name))))?;
            self.add(name, value);
        }
        Ok(())
    }

    fn add_object(&mut self, object: serde_json::Map<String, Value>) {
        for (name, value) in object {
            match value {
                Value::Null => {}
                Value::String(text) => self.add(name, text),
                Value::Bool(_) | Value::Number(_) => self.add(name, value.to_string()),
                Value::Object(_) if is_env(&name) => self.add(name, value.to_string()),
                Value::Array(_) | Value::Object(_) => {
                    self.wrong(&name, "a text, a number, or true or false is expected")
                }
            }
        }
    }

    fn add(&mut self, name: String, value: String) {
        match self.values.entry(name) {
            Entry::Vacant(entry) => {
                entry.insert(value);
            }
            Entry::Occupied(entry) if *entry.get() == value => {}
            Entry::Occupied(entry) => {
                let name = entry.key().clone();
                self.wrong(&name, "it is given twice, with different values");
            }
        }
    }
}

/// Whether the parameter has environment variables: only such a one may be an object.
fn is_env(name: &str) -> bool {
    columns::find(name).is_some_and(|column| matches!(column.kind, Kind::Env { .. }))
}

/// A name or value of a form as its bytes.
fn decoded(text: &[u8]) -> Vec<u8> {
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    percent_encoding::percent_decode(&spaced).collect()
}

/// The number without a fraction of .0: JSON may write 100 as 100.0, or as 1e2, which serde_json shows as 100.0.
fn whole(text: &str) -> &str {
    text.strip_suffix(".0").unwrap_or(text)
}

/// A value for a message: quoted, and cut off after 40 characters.
fn shown(text: &str) -> String {
    const CHARS_MAX: usize = 40;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

fn shown_bytes(bytes: &[u8]) -> String {
    shown(&String::from_utf8_lossy(bytes))
}
