//! Wall-clock times that match a set of fields. A time is in seconds since 1970-01-01T00:00:00 of the wall clock
//! itself, as if that stood in UTC.
//!
//! Not a place for time zones: `zone` turns wall-clock times into seconds.
//!
//! The `cron` crate is the calendar. It gets only expressions that mean the same to it and to crontab: explicit lists,
//! its own numbers for the days of the week (Sunday is 1), and two schedules where in crontab one of the two day fields
//! is enough (the crate wants both to match). It gets no zone with daylight saving, because it handles those wrongly.
//!
//! Invariant: every calendar has a matching time.

use super::error::ScheduleError;
use super::parse::Fields;
use chrono::DateTime;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// The times that the `cron` crate knows: the years 1970 to 2100.
pub const TIMES: RangeInclusive<i64> = 0..=4_133_980_799;

#[derive(Clone, Debug)]
pub struct Calendar {
    fields: Fields,
    by_month_day: cron::Schedule,
    /// The schedule for days of the week, where a day in either day field matches.
    by_week_day: Option<Box<cron::Schedule>>,
}

impl Calendar {
    pub fn new(fields: &Fields) -> Result<Calendar, ScheduleError> {
        let (by_month_day, by_week_day) = match fields.either_day {
            true => (
                schedule(&Fields { days_of_week: EVERY_WEEK_DAY, ..*fields })?,
                Some(Box::new(schedule(&Fields { days_of_month: EVERY_MONTH_DAY, ..*fields })?)),
            ),
            false => (schedule(fields)?, None),
        };
        let calendar = Calendar { fields: *fields, by_month_day, by_week_day };
        match calendar.next(0) {
            Some(_) => Ok(calendar),
            None => Err(ScheduleError("day-of-month: it can never match: none of the months has such a day".into())),
        }
    }

    /// The first matching time after `after`.
    pub fn next(&self, after: i64) -> Option<i64> {
        if self.matches(after + 1) {
            return Some(after + 1);
        }
        let from = DateTime::from_timestamp(after, 0)?;
        let next = |schedule: &cron::Schedule| schedule.after(&from).next().map(|time| time.timestamp());
        let by_week_day = self.by_week_day.as_ref().and_then(|schedule| next(schedule));
        next(&self.by_month_day).into_iter().chain(by_week_day).min()
    }

    /// Whether the time matches, by the sets alone. So a schedule that fires every second needs no search.
    fn matches(&self, time: i64) -> bool {
        if !TIMES.contains(&time) {
            return false;
        }
        let in_day = time.rem_euclid(86_400);
        let has = |set: u64, value: i64| set >> value & 1 == 1;
        if !(has(self.fields.seconds, in_day % 60)
            && has(self.fields.minutes, in_day / 60 % 60)
            && has(self.fields.hours, in_day / 3_600))
        {
            return false;
        }
        use chrono::Datelike;
        let Some(date) = DateTime::from_timestamp(time, 0) else { return false };
        let in_month = has(self.fields.days_of_month, date.day().into());
        let in_week = has(self.fields.days_of_week, date.weekday().num_days_from_sunday().into());
        let is_day = if self.fields.either_day { in_month || in_week } else { in_month && in_week };
        is_day && has(self.fields.months, date.month().into())
    }
}

const EVERY_WEEK_DAY: u64 = 0b111_1111;
const EVERY_MONTH_DAY: u64 = 0xffff_fffe;

fn schedule(fields: &Fields) -> Result<cron::Schedule, ScheduleError> {
    let list = |set: u64, offset: u32| -> String {
        let values: Vec<String> =
            (0..64).filter(|value| set >> value & 1 == 1).map(|value| (value + offset).to_string()).collect();
        values.join(",")
    };
    let text = [
        list(fields.seconds, 0),
        list(fields.minutes, 0),
        list(fields.hours, 0),
        list(fields.days_of_month, 0),
        list(fields.months, 0),
        list(fields.days_of_week, 1),
    ]
    .join(" ");
    cron::Schedule::from_str(&text).map_err(|error| ScheduleError(format!("the calendar refuses {text:?}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::super::parse::{Rule, parse};
    use super::*;

    fn calendar(text: &str) -> Result<Calendar, ScheduleError> {
        match parse(text).unwrap().rule {
            Rule::Fields(fields) => Calendar::new(&fields),
            Rule::Every { .. } => unreachable!(),
        }
    }

    /// The next two times after 2024-01-01T00:00:00.
    #[track_caller]
    fn check(text: &str, expect: [&str; 2]) {
        let calendar = calendar(text).unwrap();
        let first = calendar.next(1_704_067_200).unwrap();
        let second = calendar.next(first).unwrap();
        let show = |time: i64| DateTime::from_timestamp(time, 0).unwrap().format("%Y-%m-%dT%H:%M:%S").to_string();
        assert_eq!([show(first), show(second)], expect, "{text}");
    }

    #[test]
    fn times_come_as_the_fields_say() {
        check("* * * * * *", ["2024-01-01T00:00:01", "2024-01-01T00:00:02"]);
        check("59 59 23 31 12 *", ["2024-12-31T23:59:59", "2025-12-31T23:59:59"]);
        check("0 0 0 29 2 *", ["2024-02-29T00:00:00", "2028-02-29T00:00:00"]);
        check("0 0 12 * * 0", ["2024-01-07T12:00:00", "2024-01-14T12:00:00"]);
        check("0 0 12 * * 6", ["2024-01-06T12:00:00", "2024-01-13T12:00:00"]);
        check("0 0 0 13 * 5", ["2024-01-05T00:00:00", "2024-01-12T00:00:00"]);
        check("0 0 0 2,13 * 5", ["2024-01-02T00:00:00", "2024-01-05T00:00:00"]);
        check("0 0 0 */2 * Sun", ["2024-01-07T00:00:00", "2024-01-21T00:00:00"]);
        check("0 */30 9-17 * * MON-FRI", ["2024-01-01T09:00:00", "2024-01-01T09:30:00"]);
    }

    #[test]
    fn a_day_that_no_month_has_is_refused() {
        for text in ["0 0 0 30 2 *", "0 0 0 31 2,4,6,9,11 *"] {
            assert!(calendar(text).unwrap_err().to_string().contains("can never match"), "{text}");
        }
        assert!(calendar("0 0 0 30 2 1").is_ok(), "its Mondays match");
    }
}
