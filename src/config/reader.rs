//! Reads a TOML table key by key, and collects the mistakes in it.
//!
//! Not here: which keys there are, and what they mean.
//!
//! Invariant: every key of the file is either known or noted as a mistake.

use std::collections::BTreeSet;
use std::path::PathBuf;
use toml::{Table, Value};

/// A table that is being read. Each key is taken out when it is read.
pub struct Reader<'a> {
    file: &'a str,
    table: Table,
    mistakes: Vec<String>,
}

impl<'a> Reader<'a> {
    /// Parses the text, and notes each key that is not in `known` as a mistake. Error: the text is not TOML.
    pub fn new(text: &str, file: &'a str, known: &[&str]) -> Result<Reader<'a>, String> {
        let table: Table = text.parse().map_err(|error| format!("{file}: {}", one_line(&error, text)))?;
        let known: BTreeSet<&str> = known.iter().copied().collect();
        let mistakes = table.keys().filter(|key| !known.contains(key.as_str())).map(|key| {
            let nearest = known.iter().min_by_key(|name| distance(key, name)).filter(|name| distance(key, name) <= 3);
            let hint = nearest.map(|name| format!("; is {name} meant?")).unwrap_or_default();
            // A quoted key may have an end of line in it.
            format!("{file}: {}: there is no such key{hint}", key.escape_debug())
        });
        Ok(Reader { file, mistakes: mistakes.collect(), table })
    }

    /// The text of a key; none where the key is absent or its value a mistake (so, too, below).
    pub fn text(&mut self, key: &'static str) -> Option<String> {
        match self.table.remove(key)? {
            Value::String(text) => Some(text),
            other => {
                self.mistake(key, &format!("a text in quotes is expected, not {}", kind(&other)));
                None
            }
        }
    }

    /// A path; an empty one counts as left out.
    pub fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        self.text(key).filter(|text| !text.is_empty()).map(PathBuf::from)
    }

    /// A list of texts, none of them empty.
    pub fn texts(&mut self, key: &'static str) -> Option<Vec<String>> {
        let value = self.table.remove(key)?;
        let texts = value.as_array().and_then(|values| {
            let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(String::from);
            values.iter().map(text).collect::<Option<Vec<String>>>()
        });
        if texts.is_none() {
            self.mistake(key, "a list of texts is expected, such as [\"gpu\", \"eu\"]");
        }
        texts
    }

    /// A whole number from `min` to `max`.
    pub fn integer(&mut self, key: &'static str, min: i64, max: i64) -> Option<i64> {
        match self.table.remove(key)? {
            Value::Integer(number) if (min..=max).contains(&number) => Some(number),
            Value::Integer(number) => {
                self.mistake(key, &format!("{number} is out of range: a number from {min} to {max} is expected"));
                None
            }
            other => {
                self.mistake(key, &format!("a number from {min} to {max} is expected, not {}", kind(&other)));
                None
            }
        }
    }

    /// True or false.
    pub fn flag(&mut self, key: &'static str) -> Option<bool> {
        match self.table.remove(key)? {
            Value::Boolean(flag) => Some(flag),
            other => {
                self.mistake(key, &format!("true or false is expected, not {}", kind(&other)));
                None
            }
        }
    }

    /// Notes a mistake in this key's value.
    pub fn mistake(&mut self, key: &str, reason: &str) {
        self.mistakes.push(format!("{}: {key}: {reason}", self.file));
    }

    /// An error that lists all mistakes, a line each, if there are any.
    pub fn finish(self) -> Result<(), String> {
        if self.mistakes.is_empty() { Ok(()) } else { Err(self.mistakes.join("\n")) }
    }
}

/// The kind of a value, for messages. The value itself may be a secret.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text",
        Value::Integer(_) => "a number without quotes",
        Value::Float(_) => "a decimal number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

/// The line of a syntax error and its reason. It does not quote the line, which may have a secret in it.
fn one_line(error: &toml::de::Error, text: &str) -> String {
    let at = error.span().map_or(0, |span| span.start);
    let line = 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count();
    format!("line {line}: {}", error.message())
}

/// The edit distance of two words: how many letters must be changed, added or removed to get from one to the other.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, letter) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in right.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[right.len()]
}
