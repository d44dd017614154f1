//! A request's draft of a job, read column by column in the order of the table in `model::columns`.
//!
//! Not a place that knows single columns, but for two: `end_time` must be after `start_time`.
//!
//! Invariant: a draft without mistakes has only values that their columns can have.

use super::json;
use super::params::Params;
use crate::model::columns::{self, Column, Kind, LeftOut, SetBy, TIME_MAX};
use crate::model::command::JobDraft;
use crate::model::job::parse_env;
use crate::model::value::Value;

/// The names that parameters may have: each column's parameter, and the column's own name where that differs.
pub fn names() -> Vec<&'static str> {
    let names = |column: &'static Column| {
        let own = (column.name() != column.parameter()).then(|| column.name());
        std::iter::once(column.parameter()).chain(own)
    };
    columns::given().flat_map(names).collect()
}

/// Reads a draft. Mistakes are noted in `params`; where there are any, the draft must not be used.
pub fn read(params: &mut Params) -> JobDraft {
    let mut draft = JobDraft::default();
    for column in columns::given() {
        params.rename(column.name(), column.parameter());
        if let Some(value) = read_column(params, column) {
            draft = draft.with(column.name(), value);
        }
    }
    let (start_time, end_time) = (draft.number("start_time"), draft.number("end_time"));
    if start_time != 0 && end_time != 0 && end_time <= start_time {
        params.wrong("end_time", "it must be after start_time (or 0 for no end)");
    }
    draft
}

fn read_column(params: &mut Params, column: &Column) -> Option<Value<'static>> {
    let name = column.parameter();
    match column.kind {
        Kind::Text { chars_max } => text(params, column, chars_max).map(Value::from),
        Kind::Line { chars_max } => text(params, column, chars_max).map(|line| line.trim().to_string().into()),
        Kind::Lines { chars_max } => {
            params.end_lines_with_lf(name);
            text(params, column, chars_max).map(Value::from)
        }
        Kind::Path { chars_max } => {
            let path = text(params, column, chars_max)?;
            if !path.is_empty() && !path.starts_with('/') {
                params.wrong(name, "it is not an absolute path, such as /srv/app");
            }
            Some(path.into())
        }
        Kind::Env { chars_max } => {
            let env = text(params, column, chars_max)?;
            own_env(params, name, &env).map(Value::from)
        }
        Kind::Word(words) => params.word(name, words).map(Value::from),
        Kind::Flag => params.flag(name).map(Value::Flag),
        Kind::Whole { min, max } => params.integer(name, min, max).map(Value::Number),
        Kind::Seconds { max } => params.integer(name, 0, max).map(Value::Number),
        Kind::Time => params.integer(name, 0, TIME_MAX).map(Value::Number),
    }
}

/// A text. A column that is not required is cleared by an empty one.
fn text(params: &mut Params, column: &Column, chars_max: usize) -> Option<String> {
    match column.set_by {
        SetBy::Request(LeftOut::Required(what)) => Some(params.required_text(column.parameter(), chars_max, what)),
        _ => params.clearable_text(column.parameter(), chars_max),
    }
}

/// Environment variables as a JSON object of texts, written anew in one form.
fn own_env(params: &mut Params, name: &str, text: &str) -> Option<String> {
    if text.trim().is_empty() {
        return Some(String::new());
    }
    // The reader of `parse_env` would keep the last of two values in silence.
    let once = |variables| json::parse(text.as_bytes()).map(|_| variables).map_err(|error| error.to_string());
    match parse_env(text).and_then(once) {
        Ok(variables) => Some(serde_json::to_string(&variables).unwrap_or_default()),
        Err(reason) => {
            params.wrong(name, &reason);
            None
        }
    }
}
