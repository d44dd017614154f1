//! The text of a schedule, taken apart into sets of values.
//!
//! Not the place that knows dates: sets may name 30 February, which the calendar refuses.
//!
//! Invariant: a text that does not follow crontab's rules is refused, with the field's name and the reason.

use super::error::ScheduleError;

/// A schedule's text, taken apart.
#[derive(Debug)]
pub struct Parsed<'a> {
    /// The time zone that the text names.
    pub zone: Option<&'a str>,
    pub rule: Rule,
}

#[derive(Debug)]
pub enum Rule {
    Every { period_secs: i64 },
    Fields(Fields),
}

/// The sets, one bit for each value. Sunday is bit 0.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Fields {
    pub seconds: u64,
    pub minutes: u64,
    pub hours: u64,
    pub days_of_month: u64,
    pub months: u64,
    pub days_of_week: u64,
    /// Both day fields restrict the days, so a day in either set matches. Otherwise a day must be in both sets.
    pub either_day: bool,
    /// The minute or the hour field begins with `*`.
    pub follows_elapsed_time: bool,
}

struct Field {
    name: &'static str,
    min: u32,
    max: u32,
    /// Names for the values from `min` on.
    names: &'static [&'static str],
}

const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

const FIELDS: [Field; 6] = [
    Field { name: "second", min: 0, max: 59, names: &[] },
    Field { name: "minute", min: 0, max: 59, names: &[] },
    Field { name: "hour", min: 0, max: 23, names: &[] },
    Field { name: "day-of-month", min: 1, max: 31, names: &[] },
    Field { name: "month", min: 1, max: 12, names: &MONTHS },
    Field { name: "day-of-week", min: 0, max: 6, names: &DAYS },
];
const DAY_OF_WEEK: &str = FIELDS[5].name;
/// Sunday is day 0, and day 7 as well.
const SUNDAY: u32 = 7;

const DESCRIPTORS: [(&str, &str); 7] = [
    ("@yearly", "0 0 0 1 1 *"),
    ("@annually", "0 0 0 1 1 *"),
    ("@monthly", "0 0 0 1 * *"),
    ("@weekly", "0 0 0 * * 0"),
    ("@daily", "0 0 0 * * *"),
    ("@midnight", "0 0 0 * * *"),
    ("@hourly", "0 0 * * * *"),
];

pub fn parse(text: &str) -> Result<Parsed<'_>, ScheduleError> {
    let text = text.trim_matches(is_blank);
    let (zone, text) = split_zone(text)?;
    let rule = match text.strip_prefix('@') {
        Some(_) => descriptor(text)?,
        None => Rule::Fields(fields(text)?),
    };
    Ok(Parsed { zone, rule })
}

fn split_zone(text: &str) -> Result<(Option<&str>, &str), ScheduleError> {
    let Some(rest) = text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ=")) else {
        return Ok((None, text));
    };
    match rest.split_once(is_blank) {
        Some((zone, fields)) if !zone.is_empty() => Ok((Some(zone), fields.trim_start_matches(is_blank))),
        _ => Err(ScheduleError(
            "TZ: a zone and then the fields are expected, such as TZ=Europe/Berlin 0 30 2 * * *".into(),
        )),
    }
}

fn descriptor(text: &str) -> Result<Rule, ScheduleError> {
    let lower = text.to_ascii_lowercase();
    if let Some(duration) = lower.strip_prefix("@every") {
        return Ok(Rule::Every { period_secs: period_secs(duration.trim_matches(is_blank))? });
    }
    match DESCRIPTORS.iter().find(|(name, _)| *name == lower) {
        Some((_, meaning)) => Ok(Rule::Fields(fields(meaning)?)),
        None => Err(ScheduleError(format!(
            "{text:?} is not known; @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly and @every 90s are"
        ))),
    }
}

/// A duration such as `90s` or `1h30m`, in seconds.
fn period_secs(duration: &str) -> Result<i64, ScheduleError> {
    let wrong = || {
        ScheduleError(format!(
            "@every: {duration:?} is not a duration of whole seconds of at least 1s, such as 90s or 1h30m"
        ))
    };
    let mut total: i64 = 0;
    let mut rest = duration;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: i64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit_secs = match rest.as_bytes().get(digits) {
            Some(b'h') => 3_600,
            Some(b'm') => 60,
            Some(b's') => 1,
            _ => return Err(wrong()),
        };
        total = number.checked_mul(unit_secs).and_then(|secs| total.checked_add(secs)).ok_or_else(wrong)?;
        rest = &rest[digits + 1..];
    }
    if (1..=i64::from(i32::MAX)).contains(&total) { Ok(total) } else { Err(wrong()) }
}

fn fields(text: &str) -> Result<Fields, ScheduleError> {
    let texts: Vec<&str> = text.split(is_blank).filter(|text| !text.is_empty()).collect();
    let [second, minute, hour, day_of_month, month, day_of_week] = texts[..] else {
        return Err(ScheduleError(format!(
            "six fields are expected (second minute hour day-of-month month day-of-week), {} found",
            texts.len()
        )));
    };
    let is_star = |text: &str| text.starts_with(['*', '?']);
    Ok(Fields {
        seconds: set(&FIELDS[0], second)?,
        minutes: set(&FIELDS[1], minute)?,
        hours: set(&FIELDS[2], hour)?,
        days_of_month: set(&FIELDS[3], day_of_month)?,
        months: set(&FIELDS[4], month)?,
        days_of_week: set(&FIELDS[5], day_of_week)?,
        either_day: !is_star(day_of_month) && !is_star(day_of_week),
        follows_elapsed_time: is_star(minute) || is_star(hour),
    })
}

fn set(field: &Field, text: &str) -> Result<u64, ScheduleError> {
    text.split(',').try_fold(0, |set, item| Ok(set | item_set(field, item)?))
}

/// One item of a list: `*`, `a`, `a-b`, each with or without `/step`.
fn item_set(field: &Field, item: &str) -> Result<u64, ScheduleError> {
    let (range, step) = match item.split_once('/') {
        Some((range, step)) => (range, Some(step_of(field, step)?)),
        None => (item, None),
    };
    let (first, last) = match range {
        "" => return Err(error(field, format!("{item:?}: a value is missing"))),
        "*" | "?" => (field.min, field.max),
        _ => match range.split_once('-') {
            Some((first, last)) => (value(field, first)?, range_end(field, first, last)?),
            None => {
                let first = value(field, range)?;
                // With a step, a single value means "from there on".
                (first, if step.is_some() { field.max.max(first) } else { first })
            }
        },
    };
    if last < first {
        return Err(error(field, format!("{range}: the range ends before it begins")));
    }
    let values = (first..=last).step_by(step.unwrap_or(1));
    Ok(values.fold(0, |set, value| set | 1 << if field.name == DAY_OF_WEEK { value % SUNDAY } else { value }))
}

/// The end of a range. The name SUN at the end is day 7, so FRI-SUN and 5-7 are the same.
fn range_end(field: &Field, first: &str, last: &str) -> Result<u32, ScheduleError> {
    let end = value(field, last)?;
    let is_sunday = field.name == DAY_OF_WEEK && last.eq_ignore_ascii_case(DAYS[0]);
    Ok(if is_sunday && 0 < value(field, first)? { SUNDAY } else { end })
}

fn value(field: &Field, text: &str) -> Result<u32, ScheduleError> {
    if let Some(at) = field.names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
        return Ok(field.min + at as u32);
    }
    let max = if field.name == DAY_OF_WEEK { SUNDAY } else { field.max };
    let value = number(text).ok_or_else(|| {
        let names = if field.names.is_empty() { "" } else { ", or a name of three letters" };
        error(field, format!("{text:?} is not a number from {} to {max}{names}", field.min))
    })?;
    match value {
        _ if value < field.min => Err(error(field, format!("{text} is below {}", field.min))),
        _ if max < value => Err(error(field, format!("{text} is beyond {max}"))),
        _ => Ok(value),
    }
}

fn step_of(field: &Field, text: &str) -> Result<usize, ScheduleError> {
    match number(text) {
        Some(0) => Err(error(field, "a step of 0 leads nowhere".into())),
        Some(step) => Ok(step as usize),
        None => Err(error(field, format!("/{text}: a step is a number from 1"))),
    }
}

/// Digits only: `parse` alone would take a sign.
fn number(text: &str) -> Option<u32> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn error(field: &Field, reason: String) -> ScheduleError {
    ScheduleError(format!("{}: {reason}", field.name))
}

fn is_blank(character: char) -> bool {
    character == ' ' || character == '\t'
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `text` as a field and lists its values.
    #[track_caller]
    fn check(field: usize, text: &str, expect: &[u32]) {
        let set = set(&FIELDS[field], text).unwrap();
        let values: Vec<u32> = (0..64).filter(|value| set >> value & 1 == 1).collect();
        assert_eq!(values, expect, "{text}");
    }

    #[test]
    fn fields_read_as_crontab_does() {
        check(0, "5", &[5]);
        check(0, "5,1,5", &[1, 5]);
        check(0, "7-9", &[7, 8, 9]);
        check(0, "*/15", &[0, 15, 30, 45]);
        check(0, "?/30", &[0, 30]);
        check(0, "50/3", &[50, 53, 56, 59]);
        check(0, "1-10/4", &[1, 5, 9]);
        check(0, "*/100", &[0]);
        check(0, "1,2-4,50/5", &[1, 2, 3, 4, 50, 55]);
        check(3, "*/10", &[1, 11, 21, 31]);
        check(4, "jan,Dec", &[1, 12]);
        check(4, "feb-apr", &[2, 3, 4]);
        check(5, "0", &[0]);
        check(5, "7", &[0]);
        check(5, "*", &[0, 1, 2, 3, 4, 5, 6]);
        check(5, "5-7", &[0, 5, 6]);
        check(5, "FRI-SUN", &[0, 5, 6]);
        check(5, "sun-tue", &[0, 1, 2]);
        check(5, "mon/2", &[1, 3, 5]);
        check(5, "4/2", &[4, 6]);
        check(5, "7/2", &[0]);
    }

    #[track_caller]
    fn refuse(text: &str, expect: &str) {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(expect), "{text:?} gave {error:?}");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_field() {
        refuse("60 * * * * *", "second: 60 is beyond 59");
        refuse("* 99 * * * *", "minute: 99 is beyond 59");
        refuse("* * 24 * * *", "hour: 24 is beyond 23");
        refuse("* * * 0 * *", "day-of-month: 0 is below 1");
        refuse("* * * * 13 *", "month: 13 is beyond 12");
        refuse("* * * * * 8", "day-of-week: 8 is beyond 7");
        refuse("* * * * * FRI-MON", "day-of-week: FRI-MON: the range ends before it begins");
        refuse("*/0 * * * * *", "second: a step of 0");
        refuse("*/ * * * * *", "second: /: a step is a number");
        refuse("1,,2 * * * * *", "second: \"\": a value is missing");
        refuse("/5 * * * * *", "second: \"/5\": a value is missing");
        refuse("+5 * * * * *", "second: \"+5\" is not a number");
        refuse("*-5 * * * * *", "second: \"*\" is not a number");
        refuse("5-1 * * * * *", "second: 5-1: the range ends before it begins");
        refuse("99999999999 * * * * *", "second: \"99999999999\" is not a number");
        refuse("* * * L * *", "day-of-month: \"L\" is not a number");
        refuse("* * * * jam *", "month: \"jam\" is not a number from 1 to 12, or a name");
        refuse("* * * * *", "six fields are expected");
        refuse("* * * * * * *", "7 found");
        refuse("******", "1 found");
        refuse("", "0 found");
        refuse("@reboot", "@reboot");
        refuse("@every", "is not a duration");
        refuse("@every 0s", "is not a duration");
        refuse("@every 1.5s", "is not a duration");
        refuse("@every 500ms", "is not a duration");
        refuse("@every 99999999999h", "is not a duration");
        refuse("@every -1s", "is not a duration");
        refuse("TZ=UTC", "TZ: a zone and then the fields");
        refuse("TZ= * * * * * *", "TZ: a zone and then the fields");
    }

    #[test]
    fn blanks_may_be_many_and_durations_add_up() {
        assert!(parse(" 1  2\t3 * * * ").is_ok());
        assert_eq!(period_secs("1h30m5s").unwrap(), 5_405);
        assert_eq!(period_secs("90s").unwrap(), 90);
        let parsed = parse("TZ=Asia/Tokyo  @daily").unwrap();
        assert_eq!(parsed.zone, Some("Asia/Tokyo"));
    }

    #[test]
    fn the_day_fields_are_an_either_or_only_when_both_restrict() {
        let either = |text: &str| fields(text).unwrap().either_day;
        assert!(either("0 0 0 13 * 5"));
        assert!(!either("0 0 0 13 * *"));
        assert!(!either("0 0 0 ? * 5"));
        assert!(!either("0 0 0 */2 * Sun"));
        assert!(!either("0 0 0 1 * *,1"));
    }
}
