//! Tests of the table: each column fits its field, and a field takes any value that a row may have.

use super::*;
use std::collections::BTreeSet;

fn takes(kind: Kind, value: &Value) -> bool {
    match (kind, value) {
        (Kind::Flag, Value::Flag(_)) => true,
        (Kind::Word(words), Value::Text(word)) => words.contains(&word.as_ref()),
        (Kind::Whole { min, max }, Value::Number(number)) => (min..=max).contains(number),
        (Kind::Seconds { max }, Value::Number(secs)) => (0..=max).contains(secs),
        (Kind::Time, Value::Number(time)) => (0..=TIME_MAX).contains(time),
        (kind, Value::Text(text)) => kind.cell() == CellKind::Text && text.is_empty(),
        _ => false,
    }
}

#[test]
fn every_column_has_a_name_a_default_and_a_sentence_of_its_own() {
    for column in COLUMNS.iter().filter(|column| column.set_by != SetBy::Store) {
        assert!(takes(column.kind, &column.default), "{column:?}");
        let mut job = Job::default();
        column.set(&mut job, column.default.clone());
        assert_eq!(column.value(&job), column.default, "{column:?}: its field is of another kind");
    }
    for own in [Column::name, Column::parameter, |column: &Column| column.help] {
        assert_eq!(COLUMNS.iter().map(own).collect::<BTreeSet<&str>>().len(), COLUMNS.len());
    }
    assert!(COLUMNS.iter().all(|column| column.help.ends_with('.') && !column.help.contains(". ")));
}

#[test]
fn a_value_that_is_put_back_changes_nothing() {
    let job = Job { cron_set: "@daily".into(), is_mutex: true, misfire: Misfire::Once, jitter: 7, ..new_job() };
    let mut copy = Job::default();
    COLUMNS.iter().for_each(|column| column.set(&mut copy, column.value(&job)));
    assert_eq!(copy, Job { version: crate::model::Version(1), ..job });
}

#[test]
fn a_job_that_a_node_of_an_earlier_version_tells_has_the_defaults_of_later_columns() {
    let job = Job { cron_set: "@daily".into(), command: "x".into(), ..new_job() };
    for column in given() {
        let mut earlier = serde_json::to_value(&job).unwrap();
        earlier.as_object_mut().unwrap().remove(column.name());
        let read: Job = serde_json::from_value(earlier).unwrap();
        assert_eq!(column.value(&read), column.default, "{column:?}");
    }
}

#[test]
fn a_field_takes_the_nearest_value_that_it_has() {
    let mut job = new_job();
    let values: [(&str, Value); 7] = [
        ("start_time", Value::Number(-5)),
        ("timeout", Value::Number(-5)),
        ("retry_times", Value::Number(i64::MAX)),
        ("is_mutex", Value::Number(9)),
        ("misfire", "never".into()),
        ("version", Value::Number(0)),
        ("command", Value::Null),
    ];
    values.into_iter().for_each(|(name, value)| find(name).unwrap().set(&mut job, value));
    let expect = Job { retry_times: u32::MAX, is_mutex: true, version: crate::model::Version(1), ..new_job() };
    assert_eq!(job, expect);
}

#[test]
fn a_field_that_a_message_leaves_out_is_as_in_a_new_job() {
    assert_eq!(Job::default(), new_job(), "the default of a field is not that of its column");
}
