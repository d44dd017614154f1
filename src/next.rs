//! `wing-crontab next`: the next times of a schedule, computed by the daemon's own code.
//!
//! Not a look at stored jobs: the schedule is an argument, and no job's `jitter` is added.
//!
//! Invariant: the printed times are those of the daemon, for the same time zone.

use crate::config::zones;
use crate::core::jobs::schedule::Schedule;
use crate::model::{Second, Zones};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use lexopt::{Arg, ValueExt};
use std::fmt::Write;

const USAGE: &str = "wing-crontab next 'CRONSET' [-n COUNT] [--from TIME] [--tz ZONE]";
const COUNT_DEFAULT: usize = 5;
const COUNT_MAX: usize = 100_000;

/// The text to print.
pub struct Times {
    /// One time a line.
    pub lines: String,
    /// Warnings about the host's time zones, and the reason where there are fewer lines than were asked for.
    pub notes: Vec<String>,
}

/// The times to print: those after TIME, which is RFC 3339 or Unix seconds. Error: an argument is wrong.
pub fn run(
    mut arguments: lexopt::Parser,
    now: Second,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Times, String> {
    let (mut text, mut count, mut from, mut zone) = (None, COUNT_DEFAULT, now, None);
    while let Some(argument) = arguments.next().map_err(usage)? {
        match argument {
            Arg::Short('n') => count = arguments.value().and_then(|value| value.parse()).map_err(usage)?,
            Arg::Long("from") => from = time(&arguments.value().and_then(|value| value.string()).map_err(usage)?)?,
            Arg::Long("tz") => zone = Some(arguments.value().and_then(|value| value.string()).map_err(usage)?),
            Arg::Value(value) if text.is_none() => text = Some(value.string().map_err(usage)?),
            other => return Err(usage(other.unexpected())),
        }
    }
    let text = text.ok_or_else(|| format!("which schedule? usage: {USAGE}"))?;
    if !(1..=COUNT_MAX).contains(&count) {
        return Err(format!("-n {count}: a number from 1 to {COUNT_MAX} is expected"));
    }
    let host = zones::load(zone.as_deref(), environment).map_err(|error| format!("--tz: {error}"))?;
    let schedule = Schedule::parse(&text, &host.zones).map_err(|error| format!("{text:?}: {error}"))?;
    let shown_in = own_zone(&text, &host.zones).unwrap_or(host.zones.own);
    let next = |after: &Second| schedule.next_after(*after);
    let (mut lines, mut left) = (String::new(), count);
    for fire in std::iter::successors(next(&from), next).take(count) {
        let timestamp = Timestamp::from_second(fire.0).map_err(|error| format!("show {}: {error}", fire.0))?;
        left -= 1;
        // Writing to a String cannot fail.
        let _ = writeln!(lines, "{}", timestamp.display_with_offset(shown_in.to_offset(timestamp)));
    }
    let note = (left != 0).then(|| format!("{left} fewer than asked for: the calendar ends with the year 2100"));
    Ok(Times { lines, notes: host.warnings.into_iter().chain(note).collect() })
}

/// The zone that the schedule itself names; its times are shown in that zone.
fn own_zone(text: &str, zones: &Zones) -> Option<TimeZone> {
    let rest = text.trim_start().strip_prefix("TZ=").or_else(|| text.trim_start().strip_prefix("CRON_TZ="))?;
    zones.named(rest.split_whitespace().next()?)
}

fn time(text: &str) -> Result<Second, String> {
    let by_number = text.parse().ok().filter(|second| Timestamp::from_second(*second).is_ok());
    let by_date = || text.parse::<Timestamp>().ok().map(|time| time.as_second());
    by_number.or_else(by_date).map(Second).ok_or_else(|| {
        format!("--from {text}: it is neither RFC 3339, such as 2026-03-29T00:00:00Z, nor seconds since 1970")
    })
}

fn usage(error: lexopt::Error) -> String {
    format!("{error}; usage: {USAGE}")
}
