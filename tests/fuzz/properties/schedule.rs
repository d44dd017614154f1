//! The text of a schedule and its times, against a second reading of crontab's rules that is as slow and as plain as can
//! be.
//!
//! The bytes are two lines: the text, and a second from which to look (`+` before it: from shortly before the next
//! transition of the schedule's zone on).

use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::sync::LazyLock;
use wing_crontab::core::jobs::schedule::Schedule;
use wing_crontab::core::jobs::schedule::jitter::Shifted;
use wing_crontab::model::{Second, Zones};

/// So many seconds are looked at one by one.
const WINDOW_SECS: i64 = 40;
/// The calendar's first second, and the last one: 1970-01-01T00:00:00 and 2100-12-31T23:59:59 of the wall clock.
const CALENDAR: std::ops::RangeInclusive<i64> = 0..=4_133_980_799;
/// No zone is further from UTC.
const OFFSET_SECS_MAX: i64 = 100_000;

static ZONES: LazyLock<Zones> = LazyLock::new(Zones::default);

pub fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (text, from) = text.split_once('\n').unwrap_or((&text, "1700000000"));
    let plain = plain::Rule::of(text);
    let schedule = match Schedule::parse(text, &ZONES) {
        Ok(schedule) => schedule,
        Err(error) => {
            let error = error.to_string();
            let never_or_no_zone = error.contains("can never match") || error.contains("is not a time zone");
            return assert!(plain.is_none() || never_or_no_zone, "{text:?} is refused: {error}");
        }
    };
    let plain = plain.unwrap_or_else(|| panic!("{text:?} is taken"));
    let zone = plain.zone.map_or(TimeZone::UTC, |name| ZONES.named(name).expect("its zone is known"));
    let from = start(from, &zone);
    goes_forward(text, &schedule, from);
    if CALENDAR.contains(&from.saturating_sub(OFFSET_SECS_MAX))
        && CALENDAR.contains(&from.saturating_add(OFFSET_SECS_MAX))
    {
        is_due_as_the_plain_rule_says(text, &schedule, &plain, &zone, from);
    }
}

fn start(text: &str, zone: &TimeZone) -> i64 {
    let (text, is_at_transition) = text.strip_prefix('+').map_or((text, false), |rest| (rest, true));
    let from: i64 = text.trim().parse().unwrap_or(1_700_000_000);
    let following = || zone.following(Timestamp::from_second(from).ok()?).next();
    match following().filter(|_| is_at_transition) {
        Some(transition) => transition.timestamp().as_second() - WINDOW_SECS / 2,
        None => from,
    }
}

/// From fire to fire: each one later than the one before, due, and the same with an offset.
fn goes_forward(text: &str, schedule: &Schedule, from: i64) {
    let next = |after: &Second| schedule.next_after(*after);
    let mut before = Second(from);
    for fire in std::iter::successors(next(&before), next).take(3) {
        assert!(before < fire, "{text:?} fires at {fire:?}, not after {before:?}");
        assert!(schedule.matches(fire), "{text:?} fires at {fire:?}, and is not due then");
        before = fire;
    }
    let shifted = Shifted::new(schedule.clone().into(), 77);
    let first = schedule.next_after(Second(from)).map(|fire| fire.plus(77));
    if let Some(from) = from.checked_add(77) {
        assert_eq!(shifted.next_after(Second(from)), first, "{text:?} with an offset");
    }
}

fn is_due_as_the_plain_rule_says(text: &str, schedule: &Schedule, plain: &plain::Rule, zone: &TimeZone, from: i64) {
    let next = schedule.next_after(Second(from)).map_or(i64::MAX, |fire| fire.0);
    for second in from + 1..=from + WINDOW_SECS {
        let is_due = plain.is_due(second, zone);
        assert_eq!(schedule.matches(Second(second)), is_due, "{text:?} at {second}");
        assert!(!is_due || next <= second, "{text:?} is due at {second}, before {next}");
    }
    if next != i64::MAX {
        assert!(plain.is_due(next, zone), "{text:?} fires at {next}");
    }
}

/// Crontab's rules once more: a list of numbers for each field, and a look at the wall clock of each second.
mod plain {
    use jiff::Timestamp;
    use jiff::civil::DateTime;
    use jiff::tz::{AmbiguousOffset, TimeZone};

    pub struct Rule<'a> {
        pub zone: Option<&'a str>,
        kind: Kind,
    }

    enum Kind {
        Every(i64),
        Fields { sets: [Vec<i64>; 6], either_day: bool, in_both_passes: bool },
    }

    const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

    impl Rule<'_> {
        /// None: the text is not one of ours.
        pub fn of(text: &str) -> Option<Rule<'_>> {
            let text = text.trim_matches([' ', '\t']);
            let zoned = text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ="));
            let (zone, text) = match zoned {
                Some(zoned) => zoned.split_once([' ', '\t']).map(|(zone, text)| (Some(zone), text))?,
                None => (None, text),
            };
            if zone == Some("") {
                return None;
            }
            let lower = text.trim_matches([' ', '\t']).to_ascii_lowercase();
            let fields = match lower.as_str() {
                "@yearly" | "@annually" => "0 0 0 1 1 *",
                "@monthly" => "0 0 0 1 * *",
                "@weekly" => "0 0 0 * * 0",
                "@daily" | "@midnight" => "0 0 0 * * *",
                "@hourly" => "0 0 * * * *",
                other if other.starts_with("@every") => {
                    return Some(Rule { zone, kind: Kind::Every(period_secs(other[6..].trim_matches([' ', '\t']))?) });
                }
                other => other,
            };
            let fields: Vec<&str> = fields.split([' ', '\t']).filter(|field| !field.is_empty()).collect();
            let [second, minute, hour, day, month, week_day] = *fields.as_slice() else { return None };
            let sets = [
                numbers(second, 0, 59, &[])?,
                numbers(minute, 0, 59, &[])?,
                numbers(hour, 0, 23, &[])?,
                numbers(day, 1, 31, &[])?,
                numbers(month, 1, 12, &MONTHS)?,
                numbers(week_day, 0, 6, &DAYS)?,
            ];
            let is_star = |field: &str| field.starts_with('*') || field.starts_with('?');
            let kind = Kind::Fields {
                sets,
                either_day: !is_star(day) && !is_star(week_day),
                in_both_passes: is_star(minute) || is_star(hour),
            };
            Some(Rule { zone, kind })
        }

        pub fn is_due(&self, second: i64, zone: &TimeZone) -> bool {
            let Kind::Fields { in_both_passes, .. } = &self.kind else {
                return matches!(self.kind, Kind::Every(period) if second.rem_euclid(period) == 0);
            };
            let wall = |second: i64| zone.to_datetime(Timestamp::from_second(second).unwrap());
            let now = wall(second);
            if *in_both_passes {
                return self.matches(now);
            }
            let is_second_pass = match zone.to_ambiguous_timestamp(now).offset() {
                AmbiguousOffset::Fold { after, .. } => zone.to_offset(Timestamp::from_second(second).unwrap()) == after,
                _ => false,
            };
            // The wall times that were skipped right before this second.
            let mut skipped = wall(second - 1).checked_add(jiff::Span::new().seconds(1)).unwrap();
            let mut was_skipped = false;
            while skipped < now && !was_skipped {
                was_skipped = self.matches(skipped);
                skipped = skipped.checked_add(jiff::Span::new().seconds(1)).unwrap();
            }
            was_skipped || (self.matches(now) && !is_second_pass)
        }

        fn matches(&self, wall: DateTime) -> bool {
            let Kind::Fields { sets: [second, minute, hour, day, month, week_day], either_day, .. } = &self.kind else {
                return false;
            };
            let has = |set: &[i64], value: i8| set.contains(&value.into());
            let (in_month, in_week) = (has(day, wall.day()), has(week_day, wall.weekday().to_sunday_zero_offset()));
            has(second, wall.second())
                && has(minute, wall.minute())
                && has(hour, wall.hour())
                && has(month, wall.month())
                && if *either_day { in_month || in_week } else { in_month && in_week }
        }
    }

    fn period_secs(text: &str) -> Option<i64> {
        let (mut total, mut number) = (0, String::new());
        for letter in text.chars() {
            let unit = match letter {
                '0'..='9' => {
                    number.push(letter);
                    continue;
                }
                'h' => 3_600,
                'm' => 60,
                's' => 1,
                _ => return None,
            };
            total += i128::from(number.parse::<i64>().ok()?) * unit;
            number.clear();
        }
        let is_whole = number.is_empty() && (1..=i128::from(i32::MAX)).contains(&total);
        is_whole.then_some(total as i64)
    }

    fn numbers(field: &str, min: i64, max: i64, names: &[&str]) -> Option<Vec<i64>> {
        let is_week_day = names.len() == 7;
        // Sunday is 0 and 7.
        let top = if is_week_day { 7 } else { max };
        let number = |text: &str| {
            let named = names.iter().position(|name| *name == text).map(|at| min + at as i64);
            let is_number = !text.is_empty() && text.chars().all(|letter| letter.is_ascii_digit());
            let plain = || is_number.then(|| text.parse::<u32>().ok().map(i64::from)).flatten();
            named.or_else(plain).filter(|number| (min..=top).contains(number))
        };
        let mut all = Vec::new();
        for item in field.split(',') {
            let (range, step) = item.split_once('/').map_or((item, None), |(range, step)| (range, Some(step)));
            let step = match step {
                Some(step) if step.chars().all(|letter| letter.is_ascii_digit()) => Some(step.parse::<u32>().ok()?),
                Some(_) => return None,
                None => None,
            };
            let (first, last) = match range.split_once('-') {
                _ if range == "*" || range == "?" => (min, max),
                Some((first, "sun")) if is_week_day && number(first)? != 0 => (number(first)?, 7),
                Some((first, last)) => (number(first)?, number(last)?),
                None if step.is_some() => (number(range)?, max.max(number(range)?)),
                None => (number(range)?, number(range)?),
            };
            if last < first || step == Some(0) {
                return None;
            }
            let in_set = |value: &i64| (value - first) % i64::from(step.unwrap_or(1)) == 0;
            all.extend((first..=last).filter(in_set).map(|value| if is_week_day { value % 7 } else { value }));
        }
        Some(all)
    }
}
