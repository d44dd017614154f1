//! The columns of a job: one table with the name, the values and the purpose of each.
//!
//! The API's parameters with their checks, its answers, the changes that a request makes, and both stores' statements
//! follow from this table, in its order: the older system's columns first, then ours.
//!
//! Not the place that makes a column in a database: a migration does (see `sql/`).
//!
//! Invariant: every column has a name of its own, and its default is one of its values.

use super::value::{Cell, CellKind, Value};
use super::{Job, Misfire, OnLost};
use std::borrow::Cow;

/// Most number columns are signed 32-bit integers.
const INT_MAX: i64 = i32::MAX as i64;
/// The last second of the year 9999. A larger number is a mistake, such as a time in milliseconds.
pub const TIME_MAX: i64 = 253_402_300_799;
const EMPTY: Value<'static> = Value::Text(Cow::Borrowed(""));
const ZERO: Value<'static> = Value::Number(0);

/// One column of table `cron`.
#[derive(Debug)]
pub struct Column {
    pub field: Field,
    pub kind: Kind,
    /// The value in a new row, where nobody gives another one.
    pub default: Value<'static>,
    pub set_by: SetBy,
    /// The column's purpose, in one sentence.
    pub help: &'static str,
}

/// The field of a job whose values are in the column; both have the same name.
#[derive(Debug)]
pub struct Field {
    pub name: &'static str,
    /// The column's name in requests and messages: the older system's name, where that differs from the column's.
    pub parameter: &'static str,
    get: for<'a> fn(&'a Job) -> Value<'a>,
    set: for<'a> fn(&mut Job, Value<'a>),
}

macro_rules! field {
    ($name:ident) => {
        field!($name, stringify!($name))
    };
    ($name:ident, $parameter:expr) => {
        Field {
            name: stringify!($name),
            parameter: $parameter,
            get: |job| job.$name.value(),
            set: |job, value| job.$name.set_value(value),
        }
    };
}

/// The values of a column. A text may be empty, unless it is required.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Text {
        chars_max: usize,
    },
    /// A text without white space around it.
    Line {
        chars_max: usize,
    },
    /// A text of lines, each of which ends with LF.
    Lines {
        chars_max: usize,
    },
    /// An absolute path.
    Path {
        chars_max: usize,
    },
    /// Environment variables: a JSON object of texts.
    Env {
        chars_max: usize,
    },
    /// One of these words.
    Word(&'static [&'static str]),
    Flag,
    /// A whole number.
    Whole {
        min: i64,
        max: i64,
    },
    /// A length of time, from 0 to `max` seconds.
    Seconds {
        max: i64,
    },
    /// A Unix second up to the year 9999; 0 for none.
    Time,
}

/// Who gives a column its value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SetBy {
    /// The database, when the row is added. Answers show it.
    Store,
    /// The leader, with every change. Answers do not show it.
    Leader,
    /// A request. Answers show it.
    Request(LeftOut),
}

/// The meaning of a request that leaves the column out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LeftOut {
    /// The request is refused; the text says what is expected.
    Required(&'static str),
    /// The column gets its default, even by an update: so the older system documents it.
    Default,
    /// An update keeps the job's value.
    Unchanged,
}

impl Kind {
    /// The type of the column's cells.
    pub fn cell(self) -> CellKind {
        match self {
            Kind::Flag | Kind::Whole { .. } | Kind::Seconds { .. } | Kind::Time => CellKind::Number,
            Kind::Text { .. } | Kind::Line { .. } | Kind::Lines { .. } => CellKind::Text,
            Kind::Path { .. } | Kind::Env { .. } | Kind::Word(_) => CellKind::Text,
        }
    }
}

impl Column {
    /// The name of the column, in the tables and in answers.
    pub fn name(&self) -> &'static str {
        self.field.name
    }

    /// The name of the API parameter that sets it.
    pub fn parameter(&self) -> &'static str {
        self.field.parameter
    }

    /// The value in this job's field.
    pub fn value<'a>(&self, job: &'a Job) -> Value<'a> {
        (self.field.get)(job)
    }

    /// Sets the job's field. Rows that another program wrote may have times before 1970: they become 0, which is none.
    pub fn set(&self, job: &mut Job, value: Value) {
        let value = match (self.kind, value) {
            (Kind::Time, Value::Number(time)) => Value::Number(time.max(0)),
            (_, value) => value,
        };
        (self.field.set)(job, value);
    }

    /// Whether answers show the column.
    pub fn is_shown(&self) -> bool {
        self.set_by != SetBy::Leader
    }

    /// Whether statements write the column.
    pub fn is_written(&self) -> bool {
        self.set_by != SetBy::Store
    }
}

/// The column of this name.
pub fn find(name: &str) -> Option<&'static Column> {
    COLUMNS.iter().find(|column| column.name() == name)
}

/// The columns that a request gives.
pub fn given() -> impl Iterator<Item = &'static Column> {
    COLUMNS.iter().filter(|column| matches!(column.set_by, SetBy::Request(_)))
}

/// A job with the default in every column that a request gives.
pub fn new_job() -> Job {
    let mut job = Job::default();
    given().for_each(|column| column.set(&mut job, column.default.clone()));
    job
}

/// All columns, in the order of answers.
pub static COLUMNS: &[Column] = &[
    Column {
        field: field!(id),
        kind: Kind::Whole { min: 1, max: INT_MAX },
        default: ZERO,
        set_by: SetBy::Store,
        help: "The number that names the job.",
    },
    Column {
        field: field!(cron_set, "cronSet"),
        kind: Kind::Line { chars_max: 128 },
        default: EMPTY,
        set_by: SetBy::Request(LeftOut::Required("a schedule such as */5 * * * * *")),
        help: "The schedule, its first field the seconds.",
    },
    Column {
        field: field!(command),
        kind: Kind::Lines { chars_max: 2048 },
        default: EMPTY,
        set_by: SetBy::Request(LeftOut::Required("the command to run")),
        help: "The command, which a shell runs.",
    },
    Column {
        field: field!(remark),
        kind: Kind::Text { chars_max: 1024 },
        default: EMPTY,
        set_by: SetBy::Request(LeftOut::Default),
        help: "A note for those who read the list.",
    },
    Column {
        field: field!(stop),
        kind: Kind::Flag,
        default: Value::Flag(false),
        set_by: SetBy::Request(LeftOut::Default),
        help: "With 1 the schedule starts no run.",
    },
    Column {
        field: field!(start_time),
        kind: Kind::Time,
        default: ZERO,
        set_by: SetBy::Request(LeftOut::Default),
        help: "The first unix second at which the job may run; 0 sets no bound.",
    },
    Column {
        field: field!(end_time),
        kind: Kind::Time,
        default: ZERO,
        set_by: SetBy::Request(LeftOut::Default),
        help: "The first unix second at which the job may no longer run; 0 sets no bound.",
    },
    Column {
        field: field!(is_mutex),
        kind: Kind::Flag,
        default: Value::Flag(false),
        set_by: SetBy::Request(LeftOut::Default),
        help: "With 1 the cluster never has two runs of the job at once.",
    },
    Column {
        field: field!(lock_limit),
        kind: Kind::Seconds { max: INT_MAX },
        default: ZERO,
        set_by: SetBy::Request(LeftOut::Unchanged),
        help: "A mutex run that takes more seconds is ended; 0 sets no limit.",
    },
    Column {
        field: field!(misfire),
        kind: Kind::Word(&Misfire::WORDS),
        default: Value::Text(Cow::Borrowed(Misfire::All.as_str())),
        set_by: SetBy::Request(LeftOut::Unchanged),
        help: "Which of the seconds that were not handled in time run late: all, the last one (once), or none (skip).",
    },
    Column {
        field: field!(on_lost),
        kind: Kind::Word(&OnLost::WORDS),
        default: Value::Text(Cow::Borrowed(OnLost::Skip.as_str())),
        set_by: SetBy::Request(LeftOut::Unchanged),
        help: "Whether a run whose end nobody knows is left alone (skip) or started again (rerun).",
    },
    Column {
        field: field!(max_parallel),
        kind: Kind::Whole { min: 0, max: INT_MAX },
        default: ZERO,
        set_by: SetBy::Request(LeftOut::Unchanged),
        help: "How many runs of the job the cluster has at one time; 0 sets no limit.",
    },
    Column {
        field: field!(timeout),
        kind: Kind::Seconds { max: INT_MAX },
        default: ZERO,
        set_by: SetBy::Request(LeftOut::Unchanged),
        help: "A run that takes more seconds is ended; 0 sets no limit.",
    },
    Column {
        field: field!(retry_times),
        kind: Kind::Whole { min: 0, max: 1_000 },
        default: ZERO,
        set_by: SetBy::Request(LeftOut::Unchanged),
        help: "How many further attempts follow one that failed.",
    },
    Column {
        field: field!(retry_delay),
        kind: Kind::Seconds { max: INT_MAX },
        default: ZERO,
        set_by: SetBy::Request(LeftOut::Unchanged),
        help: "How many seconds pass before the first further attempt; the time doubles before each one after it.",
    },
    Column {
        field: field!(run_as),
        kind: Kind::Text { chars_max: 64 },
        default: EMPTY,
        set_by: SetBy::Request(LeftOut::Unchanged),
        help: "The user that the command runs as; without one it is the daemon's.",
    },
    Column {
        field: field!(work_dir),
        kind: Kind::Path { chars_max: 1024 },
        default: EMPTY,
        set_by: SetBy::Request(LeftOut::Unchanged),
        help: "The folder that the command starts in; without one it is the daemon's.",
    },
    Column {
        field: field!(env),
        kind: Kind::Env { chars_max: 2048 },
        default: EMPTY,
        set_by: SetBy::Request(LeftOut::Unchanged),
        help: "Further environment variables, as a JSON object of texts.",
    },
    Column {
        field: field!(shell),
        kind: Kind::Path { chars_max: 255 },
        default: EMPTY,
        set_by: SetBy::Request(LeftOut::Unchanged),
        help: "The program that gets -c and the command; without one it is the configured shell.",
    },
    Column {
        field: field!(node),
        kind: Kind::Text { chars_max: 255 },
        default: EMPTY,
        set_by: SetBy::Request(LeftOut::Unchanged),
        help: "The only server that may run the job, or the label of the only servers; without one any may.",
    },
    Column {
        field: field!(jitter),
        kind: Kind::Seconds { max: 86_400 },
        default: ZERO,
        set_by: SetBy::Request(LeftOut::Unchanged),
        help: "The job runs up to so many seconds after its schedule, by a number of its own that never changes.",
    },
    Column {
        field: field!(version),
        kind: Kind::Whole { min: 1, max: i64::MAX },
        default: Value::Number(1),
        set_by: SetBy::Leader,
        help: "The number of this definition of the job; it grows with every change.",
    },
    Column {
        field: field!(since),
        kind: Kind::Time,
        default: ZERO,
        set_by: SetBy::Leader,
        help: "The first unix second at which this definition was there; 0 in rows that were written by hand.",
    },
];

#[cfg(test)]
mod tests;
