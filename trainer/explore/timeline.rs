//! When the events happened: by day, week or month, whichever fits the span; the longest silences; and the hours and
//! days of the week.

use serde::Serialize;
use time::{Date, Month, OffsetDateTime};

use crate::calendar::{self, DAY_SECONDS};

/// Events over time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Timeline {
    /// The first event.
    pub first: String,
    /// The last event.
    pub last: String,
    /// What a bucket is.
    pub unit: Unit,
    /// Every bucket from the first event's to the last event's, also those without events.
    pub buckets: Vec<TimeBucket>,
    /// The longest stretches without any event, longest first.
    pub gaps: Vec<Gap>,
    /// Events by the hour of the day, from midnight.
    pub hours: [usize; 24],
    /// Events by the day of the week, from Monday.
    pub weekdays: [usize; 7],
    /// Whether every event is at midnight: then the hours say nothing.
    pub only_dates: bool,
}

/// The length of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// From midnight.
    Day,
    /// From Monday.
    Week,
    /// Of the calendar.
    Month,
}

/// The events of a stretch of time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TimeBucket {
    /// Its first day.
    pub start: String,
    /// Events.
    pub events: usize,
}

/// A stretch without events, between two of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// The event before.
    pub from: String,
    /// The event after.
    pub to: String,
    /// Between them.
    pub seconds: i64,
}

impl Timeline {
    /// The events at the ascending `times`, in seconds since 1970. `None` without events, and where they span more
    /// than [`MOST_MONTHS`]: such times are mistaken, and a chart of them shows nothing.
    pub fn of(times: &[i64]) -> Option<Self> {
        let (&first, &last) = (times.first()?, times.last()?);
        if (month(last)? - month(first)?) >= MOST_MONTHS {
            return None;
        }
        let unit = Unit::of_span(last - first);
        Some(Self {
            first: calendar::format(first),
            last: calendar::format(last),
            unit,
            buckets: buckets(times, unit)?,
            gaps: gaps(times),
            hours: profile(times, |time| time.rem_euclid(DAY_SECONDS) / 3600),
            weekdays: profile(times, |time| (day(time) + THURSDAY).rem_euclid(7)),
            only_dates: times.iter().all(|time| time.rem_euclid(DAY_SECONDS) == 0),
        })
    }
}

impl Unit {
    /// The unit that gives some dozens of buckets, a hundred at most for days and weeks.
    fn of_span(seconds: i64) -> Self {
        match seconds / DAY_SECONDS {
            ..=100 => Self::Day,
            101..=700 => Self::Week,
            _ => Self::Month,
        }
    }

    /// The number of the bucket that holds `time`.
    fn number(self, time: i64) -> Option<i64> {
        match self {
            Self::Day => Some(day(time)),
            Self::Week => Some((day(time) + THURSDAY).div_euclid(7)),
            Self::Month => month(time),
        }
    }

    /// The first day of the bucket `number`.
    fn start(self, number: i64) -> Option<String> {
        let seconds = match self {
            Self::Day => number * DAY_SECONDS,
            Self::Week => (number * 7 - THURSDAY) * DAY_SECONDS,
            Self::Month => {
                let month = Month::try_from(u8::try_from(number.rem_euclid(12) + 1).ok()?).ok()?;
                let year = i32::try_from(number.div_euclid(12)).ok()?;
                Date::from_calendar_date(year, month, 1).ok()?.midnight().assume_utc().unix_timestamp()
            }
        };
        Some(OffsetDateTime::from_unix_timestamp(seconds).ok()?.date().to_string())
    }
}

fn buckets(times: &[i64], unit: Unit) -> Option<Vec<TimeBucket>> {
    let first = unit.number(*times.first()?)?;
    let last = unit.number(*times.last()?)?;
    let mut buckets: Vec<TimeBucket> = (first..=last)
        .map(|number| Some(TimeBucket { start: unit.start(number)?, events: 0 }))
        .collect::<Option<_>>()?;
    for &time in times {
        let position = usize::try_from(unit.number(time)? - first).expect("times ascend");
        buckets[position].events += 1;
    }
    Some(buckets)
}

fn gaps(times: &[i64]) -> Vec<Gap> {
    let mut gaps: Vec<(i64, i64)> =
        times.windows(2).filter(|pair| pair[0] < pair[1]).map(|pair| (pair[0], pair[1])).collect();
    gaps.sort_by_key(|&(from, to)| from - to);
    gaps.truncate(GAPS);
    let gap = |(from, to): (i64, i64)| Gap {
        from: calendar::format(from),
        to: calendar::format(to),
        seconds: to - from,
    };
    gaps.into_iter().map(gap).collect()
}

fn profile<const N: usize>(times: &[i64], position: impl Fn(i64) -> i64) -> [usize; N] {
    let mut counts = [0; N];
    for &time in times {
        counts[usize::try_from(position(time)).expect("an hour or a weekday")] += 1;
    }
    counts
}

fn day(time: i64) -> i64 {
    time.div_euclid(DAY_SECONDS)
}

/// Months since the year 0; `None` outside of the calendar.
fn month(time: i64) -> Option<i64> {
    let date = OffsetDateTime::from_unix_timestamp(time).ok()?.date();
    Some(i64::from(date.year()) * 12 + i64::from(u8::from(date.month())) - 1)
}

/// Gaps that are listed.
const GAPS: usize = 5;
/// The longest span that is shown.
pub const MOST_MONTHS: i64 = 600;
/// 1970 began on a Thursday, three days after a Monday.
const THURSDAY: i64 = 3;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(texts: &[&str]) -> Vec<i64> {
        texts.iter().map(|text| calendar::parse(text).expect(text)).collect()
    }

    fn starts(timeline: &Timeline) -> Vec<(&str, usize)> {
        timeline.buckets.iter().map(|bucket| (bucket.start.as_str(), bucket.events)).collect()
    }

    #[test]
    fn a_short_log_is_shown_by_day_with_its_silences() {
        let times = at(&["2010-11-01 09:30:00", "2010-11-01 10:00:00", "2010-11-03 10:59:59"]);
        let timeline = Timeline::of(&times).expect("events");
        assert_eq!(timeline.unit, Unit::Day);
        assert_eq!(starts(&timeline), [("2010-11-01", 2), ("2010-11-02", 0), ("2010-11-03", 1)]);
        assert_eq!(timeline.gaps[0].from, "2010-11-01 10:00:00");
        assert_eq!(timeline.gaps[0].seconds, 2 * DAY_SECONDS + 3599);
        assert_eq!((timeline.hours[9], timeline.hours[10]), (1, 2));
        assert_eq!(timeline.weekdays, [2, 0, 1, 0, 0, 0, 0], "the first of November 2010 was a Monday");
        assert!(!timeline.only_dates);
    }

    #[test]
    fn longer_logs_are_shown_by_week_from_monday_and_by_month() {
        let weeks = Timeline::of(&at(&["2009-12-06", "2009-12-07", "2010-12-09"])).expect("events");
        assert_eq!((weeks.unit, weeks.buckets.len()), (Unit::Week, 54));
        assert_eq!(starts(&weeks)[..2], [("2009-11-30", 1), ("2009-12-07", 1)]);
        assert!(weeks.only_dates);
        let months = Timeline::of(&at(&["2007-11-30", "2010-01-01"])).expect("events");
        assert_eq!((months.unit, months.buckets.len()), (Unit::Month, 27));
        assert_eq!(starts(&months)[0], ("2007-11-01", 1));
        assert_eq!(starts(&months)[26], ("2010-01-01", 1));
    }

    #[test]
    fn a_span_that_no_log_has_is_not_shown() {
        assert_eq!(Timeline::of(&at(&["1920-01-01", "2010-01-01"])), None);
        assert_eq!(Timeline::of(&[0, i64::MAX]), None);
        assert_eq!(Timeline::of(&[]), None);
    }

    proptest! {
        #[test]
        fn each_event_is_in_one_bucket_of_each_kind(mut times in prop::collection::vec(-90_000_000i64..200_000_000, 1..60)) {
            times.sort_unstable();
            let timeline = Timeline::of(&times).expect("events");
            let events = times.len();
            prop_assert_eq!(timeline.buckets.iter().map(|bucket| bucket.events).sum::<usize>(), events);
            prop_assert_eq!(timeline.hours.iter().sum::<usize>(), events);
            prop_assert_eq!(timeline.weekdays.iter().sum::<usize>(), events);
            prop_assert!(timeline.buckets[0].events > 0 && timeline.buckets.last().expect("one").events > 0);
        }
    }
}
