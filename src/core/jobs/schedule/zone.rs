//! From wall-clock times to seconds, across a zone's transitions.
//!
//! Between two transitions the offset is constant, so a schedule is followed segment by segment. At a transition clocks
//! skip times (a gap) or repeat them (a fold); the rules for both are cronie's, and the docs of the two functions have
//! them.
//!
//! Not the source of the zones' rules: those come with `model::Zones`.
//!
//! Invariant: a second that is returned lies after the second that was asked about.

use super::calendar::Calendar;
use jiff::Timestamp;
use jiff::tz::TimeZone;

#[derive(Clone, Debug)]
pub enum Zone {
    /// Always the same offset, in seconds east of UTC.
    Fixed(i64),
    /// With transitions.
    Ruled(TimeZone),
}

/// A stretch of time with one offset.
#[derive(Clone, Copy, Debug)]
struct Segment {
    offset_secs: i64,
    /// The second in which it begins, and the offset before it; none for the first segment.
    start: Option<(i64, i64)>,
    /// The second in which the next segment begins; none for the last one.
    end: Option<i64>,
}

impl Zone {
    pub fn new(zone: TimeZone) -> Zone {
        match zone.to_fixed_offset() {
            Ok(offset) => Zone::Fixed(offset.seconds().into()),
            Err(_) => Zone::Ruled(zone),
        }
    }

    /// The first second after `after` whose wall time matches. A wall time in a gap has no second, one in a fold has
    /// two.
    pub fn next_elapsed(&self, calendar: &Calendar, after: i64) -> Option<i64> {
        let mut from = after + 1;
        loop {
            let segment = self.segment(from)?;
            let next = calendar.next(from - 1 + segment.offset_secs)? - segment.offset_secs;
            match segment.end {
                Some(end) if end <= next => from = end,
                _ => return Some(next),
            }
        }
    }

    /// The same, but a wall time in a fold counts only the first time, and all matching wall times in a gap count once,
    /// at the first second after the gap.
    pub fn next_fixed(&self, calendar: &Calendar, after: i64) -> Option<i64> {
        let mut from = after + 1;
        loop {
            let segment = self.segment(from)?;
            let mut wall = from + segment.offset_secs;
            if let Some((start, offset_before_secs)) = segment.start {
                let wall_before = start + offset_before_secs;
                let is_skipped = |skipped: i64| wall_before <= skipped && skipped < start + segment.offset_secs;
                if from == start && calendar.next(wall_before - 1).is_some_and(is_skipped) {
                    return Some(start);
                }
                // After a fold the wall times up to `wall_before` come for the second time.
                wall = wall.max(wall_before);
            }
            let next = calendar.next(wall - 1)? - segment.offset_secs;
            match segment.end {
                Some(end) if end <= next => from = end,
                _ => return Some(next),
            }
        }
    }

    /// The segment in which the second `at` lies.
    fn segment(&self, at: i64) -> Option<Segment> {
        let zone = match self {
            Zone::Fixed(offset_secs) => return Some(Segment { offset_secs: *offset_secs, start: None, end: None }),
            Zone::Ruled(zone) => zone,
        };
        let timestamp = Timestamp::from_second(at).ok()?;
        let offset = |at: Timestamp| i64::from(zone.to_offset(at).seconds());
        let just_after = Timestamp::from_second(at + 1).ok()?;
        let start = zone.preceding(just_after).next().and_then(|transition| {
            let start = transition.timestamp().as_second();
            Some((start, offset(Timestamp::from_second(start - 1).ok()?)))
        });
        let end = zone.following(timestamp).next().map(|transition| transition.timestamp().as_second());
        Some(Segment { offset_secs: offset(timestamp), start, end })
    }
}
