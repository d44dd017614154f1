//! Schedules: the rule that says when a job is due. Linux crontab's rules with a seconds field first, `@` descriptors,
//! `@every`, and a time zone of the schedule's own (`TZ=Area/City `).
//!
//! `parse` turns the text into sets, `calendar` finds matching wall-clock times, `zone` turns them into seconds across
//! daylight saving; `jitter` spreads jobs that share a schedule; `wheel` finds the schedules that fire at a tick.
//!
//! Not a timer: a schedule only answers when it fires next.
//!
//! Invariant: going from fire to fire by `next_after` visits exactly the seconds for which `matches` is true.

mod calendar;
mod error;
pub mod jitter;
mod parse;
pub mod wheel;
mod zone;

pub use error::ScheduleError;

use crate::model::{Second, Zones};
use calendar::Calendar;
use parse::{Parsed, Rule};
use zone::Zone;

/// A schedule that was read: it tells the due seconds.
#[derive(Clone, Debug)]
pub struct Schedule {
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// At every second that the period divides, counted from the Unix epoch. So it does not matter when the schedule
    /// began, and every leader finds the same seconds.
    Every { period_secs: i64 },
    /// At every second whose wall time matches: in both passes of a repeated hour, and never for a skipped hour.
    Elapsed(Calendar, Zone),
    /// In the first pass of a repeated hour only. Matching times in a skipped hour count once, at the first second
    /// after it.
    Fixed(Calendar, Zone),
}

impl Schedule {
    /// Reads a `cron_set`. `zones` has the rules of the time zone that it names, or of the host's own.
    pub fn parse(text: &str, zones: &Zones) -> Result<Schedule, ScheduleError> {
        let Parsed { zone: name, rule } = parse::parse(text)?;
        let zone = match name {
            Some(name) => zones
                .named(name)
                .ok_or_else(|| ScheduleError(format!("TZ: {name:?} is not a time zone, such as Europe/Berlin")))?,
            None => zones.own.clone(),
        };
        let kind = match rule {
            Rule::Every { period_secs } => Kind::Every { period_secs },
            Rule::Fields(fields) => {
                let calendar = Calendar::new(&fields)?;
                match fields.follows_elapsed_time {
                    true => Kind::Elapsed(calendar, Zone::new(zone)),
                    false => Kind::Fixed(calendar, Zone::new(zone)),
                }
            }
        };
        Ok(Schedule { kind })
    }

    /// The first second after `after` at which the schedule fires; none where it never does again (the calendar ends
    /// with the year 2100).
    pub fn next_after(&self, after: Second) -> Option<Second> {
        let next = match &self.kind {
            Kind::Every { period_secs } => after.0.div_euclid(*period_secs).checked_add(1)?.checked_mul(*period_secs),
            Kind::Elapsed(calendar, zone) => zone.next_elapsed(calendar, within_reach(after)?),
            Kind::Fixed(calendar, zone) => zone.next_fixed(calendar, within_reach(after)?),
        };
        next.map(Second)
    }

    /// Whether this second is due.
    pub fn matches(&self, second: Second) -> bool {
        self.next_after(second.plus(-1)) == Some(second)
    }
}

/// The second from which to look in the calendar, for a `next_after` this one; none beyond its end. A row of another
/// program may have any time.
fn within_reach(after: Second) -> Option<i64> {
    /// No zone's clock is further from UTC.
    const OFFSET_SECS_MAX: i64 = 2 * 86_400;
    let after = after.0.max(*calendar::TIMES.start() - OFFSET_SECS_MAX);
    (after <= *calendar::TIMES.end() + OFFSET_SECS_MAX).then_some(after)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    fn second(text: &str) -> Second {
        Second(text.parse::<Timestamp>().unwrap().as_second())
    }

    /// The fires after `from` (UTC) until `to`, shown in UTC.
    fn fires(text: &str, from: &str, to: &str) -> Vec<String> {
        let schedule = Schedule::parse(text, &Zones::default()).unwrap();
        let next = |after: &Second| schedule.next_after(*after);
        std::iter::successors(next(&second(from)), next)
            .take_while(|fire| *fire <= second(to))
            .map(|fire| Timestamp::from_second(fire.0).unwrap().to_string())
            .collect()
    }

    #[track_caller]
    fn check(text: &str, from: &str, to: &str, expect: &[&str]) {
        assert_eq!(fires(text, from, to), expect, "{text}");
    }

    #[test]
    fn a_fixed_time_in_a_spring_gap_runs_once_right_after_it() {
        // Berlin, 2026-03-29: 02:00 to 03:00 does not exist; the first second after it is 01:00 UTC.
        let day = ("2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z");
        check("TZ=Europe/Berlin 0 30 2 * * *", day.0, day.1, &["2026-03-29T01:00:00Z"]);
        check("TZ=Europe/Berlin 0,30 15,45 2 * * *", day.0, day.1, &["2026-03-29T01:00:00Z"]);
        check("TZ=Europe/Berlin 0 0 3 * * *", day.0, day.1, &["2026-03-29T01:00:00Z"]);
        check("TZ=Europe/Berlin 0 30 2,3 * * *", day.0, day.1, &["2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z"]);
        check("TZ=Europe/Berlin 0 59 1 * * *", day.0, day.1, &["2026-03-29T00:59:00Z"]);
        check("TZ=Europe/Berlin 0 30 2 30 * *", day.0, day.1, &[]);
    }

    #[test]
    fn a_fixed_time_in_a_repeated_hour_runs_the_first_time_only() {
        // Berlin, 2026-10-25: 02:00 to 03:00 comes at 00:00 UTC and again at 01:00 UTC.
        let day = ("2026-10-24T12:00:00Z", "2026-10-25T12:00:00Z");
        check("TZ=Europe/Berlin 0 30 2 * * *", day.0, day.1, &["2026-10-25T00:30:00Z"]);
        check("TZ=Europe/Berlin 0 0 3 * * *", day.0, day.1, &["2026-10-25T02:00:00Z"]);
        check("TZ=Europe/Berlin 0 0 2 * * *", day.0, day.1, &["2026-10-25T00:00:00Z"]);
        check(
            "TZ=America/New_York 0 30 1 * * *",
            "2026-11-01T00:00:00Z",
            "2026-11-01T20:00:00Z",
            &["2026-11-01T05:30:00Z"],
        );
    }

    #[test]
    fn a_schedule_that_follows_elapsed_time_ignores_daylight_saving() {
        let spring = fires("TZ=Europe/Berlin 0 */30 * * * *", "2026-03-29T00:00:00Z", "2026-03-29T02:00:00Z");
        assert_eq!(spring.len(), 4);
        let autumn = fires("TZ=Europe/Berlin 0 30 * * * *", "2026-10-24T23:00:00Z", "2026-10-25T03:00:00Z");
        assert_eq!(
            autumn,
            ["2026-10-24T23:30:00Z", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"]
        );
        let minutes = fires("TZ=Europe/Berlin 0 * 2 * * *", "2026-10-24T12:00:00Z", "2026-10-25T12:00:00Z");
        assert_eq!(minutes.len(), 120);
        assert_eq!(fires("@every 90s", "2026-10-25T00:00:00Z", "2026-10-25T03:00:00Z").len(), 120);
        let seconds = fires("TZ=Europe/Berlin * * * * * *", "2026-10-24T23:00:00Z", "2026-10-25T02:00:00Z");
        assert_eq!(seconds.len(), 10_800);
    }

    #[test]
    fn odd_zones_have_odd_gaps_and_folds() {
        // Lord Howe moves by half an hour; Apia skipped a whole day; Cairo's gap is at midnight.
        check(
            "TZ=Australia/Lord_Howe 0 15 2 * * *",
            "2026-10-03T00:00:00Z",
            "2026-10-04T00:00:00Z",
            &["2026-10-03T15:30:00Z"],
        );
        check(
            "TZ=Australia/Lord_Howe 0 45 1 * * *",
            "2026-04-04T00:00:00Z",
            "2026-04-05T00:00:00Z",
            &["2026-04-04T14:45:00Z"],
        );
        check(
            "TZ=Pacific/Apia 0 0 12 30 12 *",
            "2011-12-29T00:00:00Z",
            "2012-01-01T00:00:00Z",
            &["2011-12-30T10:00:00Z"],
        );
        check("TZ=Africa/Cairo 0 0 0 * * *", "2026-04-23T12:00:00Z", "2026-04-24T12:00:00Z", &["2026-04-23T22:00:00Z"]);
    }

    #[test]
    fn fires_are_exactly_the_seconds_that_match() {
        let zones = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"];
        let fields = ["*/7 30 2 * * *", "0 * 2 * * *", "30 */20 1-3 * * *", "0 0,30 1,2,3 * * *", "5 0 * * * *"];
        for zone in zones {
            for text in fields.map(|fields| format!("TZ={zone} {fields}")) {
                let schedule = Schedule::parse(&text, &Zones::default()).unwrap();
                for start in
                    ["2026-03-28T22:00:00Z", "2026-10-24T22:00:00Z", "2026-11-01T04:00:00Z", "2026-10-03T14:00:00Z"]
                {
                    let start = second(start);
                    let visited: Vec<i64> =
                        std::iter::successors(schedule.next_after(start), |at| schedule.next_after(*at))
                            .take_while(|at| at.0 <= start.0 + 8_000)
                            .map(|at| at.0)
                            .collect();
                    let matched: Vec<i64> =
                        (start.0 + 1..=start.0 + 8_000).filter(|at| schedule.matches(Second(*at))).collect();
                    assert_eq!(visited, matched, "{text} from {start:?}");
                }
            }
        }
    }

    #[test]
    fn the_calendar_has_a_first_and_a_last_second_for_every_schedule() {
        let (last, beyond) = ("2100-12-31T23:59:59Z", "2101-01-01T00:00:00Z");
        for text in ["* * * * * *", "59 59 23 * * *", "TZ=UTC 59 * * * * *"] {
            let schedule = Schedule::parse(text, &Zones::default()).unwrap();
            assert_eq!(schedule.next_after(second("2100-12-31T23:59:58Z")), Some(second(last)), "{text}");
            for after in [second(last), second(beyond), Second(1 << 40), Second(i64::MAX)] {
                assert_eq!(schedule.next_after(after), None, "{text} after {after:?}");
            }
            for after in [Second(i64::MIN), Second(-(1 << 40)), Second(-9)] {
                assert!(
                    schedule.next_after(after).is_some_and(|first| Second(-1) < first && first.0 < 86_400),
                    "{text}"
                );
            }
            assert!(!schedule.matches(Second(-1)) && !schedule.matches(Second(i64::MAX)));
        }
        let every = Schedule::parse("@every 7s", &Zones::default()).unwrap();
        assert_eq!(every.next_after(Second(i64::MAX)), None);
        assert!(every.next_after(Second(i64::MIN)).is_some());
    }

    #[test]
    fn a_zone_that_is_none_is_refused() {
        let error = Schedule::parse("TZ=Europe/Berlinn * * * * * *", &Zones::default()).unwrap_err();
        assert!(error.to_string().contains("Europe/Berlinn"));
    }

    #[test]
    fn the_daemons_zone_counts_where_none_is_named() {
        let mut zones = Zones::default();
        zones.own = zones.named("Asia/Tokyo").unwrap();
        let schedule = Schedule::parse("@daily", &zones).unwrap();
        assert_eq!(schedule.next_after(second("2026-01-01T00:00:00Z")), Some(second("2026-01-01T15:00:00Z")));
    }
}
