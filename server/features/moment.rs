//! A moment as callers and logs write it, and the parts of a day and of a week that it falls into. All of it is UTC;
//! text without a zone is taken for UTC, as logs carry none.

use time::{Date, Month, Time};

use super::RawValue;

/// Seconds since 1970, before it where negative. `None` for a value that names no moment.
///
/// A number is such seconds already, and what is behind its point is dropped. Text is RFC 3339, where a space may
/// stand for the `T`, and the zone, the seconds or the whole time of day may be absent.
pub(super) fn seconds(value: RawValue<'_>) -> Option<i64> {
    match value {
        RawValue::Int(seconds) => Some(seconds),
        RawValue::Float(seconds) => whole(seconds),
        RawValue::Text(text) => parse(text),
        RawValue::Missing | RawValue::List(_) => None,
    }
}

/// The hour of the day, 0 to 23.
pub(super) fn hour_of_day(seconds: i64) -> u32 {
    u32::try_from(seconds.div_euclid(3600).rem_euclid(24)).expect("below 24")
}

/// The day of the week, 0 for Monday to 6 for Sunday.
pub(super) fn day_of_week(seconds: i64) -> u32 {
    // 1970 began on a Thursday.
    u32::try_from((seconds.div_euclid(DAY_SECONDS) + 3).rem_euclid(7)).expect("below 7")
}

#[expect(clippy::cast_possible_truncation, reason = "within the whole numbers that a double holds exactly")]
fn whole(seconds: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    (seconds.abs() <= EXACT).then(|| seconds.floor() as i64)
}

fn parse(text: &str) -> Option<i64> {
    let (date, rest) = text.split_at_checked(10)?;
    let [year, month, day] = numbers(date, b'-', [4, 2, 2])?;
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    let date = Date::from_calendar_date(i32::try_from(year).ok()?, month, u8::try_from(day).ok()?).ok()?;
    let midnight = (i64::from(date.to_julian_day()) - UNIX_JULIAN_DAY) * DAY_SECONDS;
    let Some(rest) = rest.strip_prefix(['T', 't', ' ']) else {
        return rest.is_empty().then_some(midnight);
    };
    let (clock, zone) = rest.split_at(rest.find(['Z', 'z', '+', '-']).unwrap_or(rest.len()));
    Some(midnight + clock_seconds(clock)? - zone_seconds(zone)?)
}

/// `HH:MM`, `HH:MM:SS` or `HH:MM:SS.fraction`.
fn clock_seconds(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let [hour, minute, second] = match whole.len() {
        5 if whole.len() == text.len() => {
            let [hour, minute] = numbers(whole, b':', [2, 2])?;
            [hour, minute, 0]
        }
        _ => numbers(whole, b':', [2, 2, 2])?,
    };
    let is_fraction = !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let part = |number| u8::try_from(number).ok();
    let time = Time::from_hms(part(hour)?, part(minute)?, part(second)?).ok()?;
    is_fraction
        .then(|| i64::from(time.hour()) * 3600 + i64::from(time.minute()) * 60 + i64::from(time.second()))
}

/// How far a zone is ahead of UTC: nothing, `Z`, or `+HH:MM`.
fn zone_seconds(text: &str) -> Option<i64> {
    let sign = match text.as_bytes() {
        [] | [b'Z' | b'z'] => return Some(0),
        [b'+', ..] => 1,
        _ => -1,
    };
    let [hours, minutes] = numbers(&text[1..], b':', [2, 2])?;
    (hours < 24 && minutes < 60).then_some(sign * i64::from(hours * 3600 + minutes * 60))
}

/// The numbers of exactly these widths that `text` is made of, with `separator` between them.
fn numbers<const N: usize>(text: &str, separator: u8, widths: [usize; N]) -> Option<[u32; N]> {
    let mut bytes = text.bytes();
    let mut found = [0; N];
    for (position, (number, width)) in found.iter_mut().zip(widths).enumerate() {
        if position > 0 && bytes.next() != Some(separator) {
            return None;
        }
        for _ in 0..width {
            let digit = bytes.next().filter(u8::is_ascii_digit)?;
            *number = *number * 10 + u32::from(digit - b'0');
        }
    }
    bytes.next().is_none().then_some(found)
}

const DAY_SECONDS: i64 = 86_400;
/// The Julian day of 1970-01-01.
const UNIX_JULIAN_DAY: i64 = 2_440_588;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

    use super::*;

    #[test]
    fn texts_of_one_moment_are_one_moment() {
        for text in [
            "2010-11-01T08:30:00Z",
            "2010-11-01t08:30:00.25z",
            "2010-11-01 08:30:00",
            "2010-11-01 08:30",
            "2010-11-01T10:00:00+01:30",
            "2010-10-31T23:30:00-09:00",
        ] {
            assert_eq!(parse(text), Some(1_288_600_200), "{text}");
        }
        assert_eq!(parse("2010-11-01"), Some(1_288_569_600));
    }

    #[test]
    fn what_names_no_moment_is_refused() {
        for text in [
            "",
            "soon",
            "2010-11",
            "2010-13-01",
            "2010-02-29",
            "2010-11-01T",
            "2010-11-01T24:00:00",
            "2010-11-01T08",
            "2010-11-01T08:30:00.",
            "2010-11-01T08:30.5",
            "2010-11-01T08:30:00+1",
            "2010-11-01X",
            "2010-11-01T08:30:00Zz",
            "2010-11-01T08:30:00+25:00",
            "2010/11/01",
            "\u{661}2010-11-01",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(seconds(RawValue::Float(f64::NAN)), None);
        assert_eq!(seconds(RawValue::Float(1e300)), None);
    }

    #[test]
    fn hours_and_days_count_from_midnight_and_monday_on_both_sides_of_1970() {
        assert_eq!((hour_of_day(0), day_of_week(0)), (0, 3));
        assert_eq!((hour_of_day(-1), day_of_week(-1)), (23, 2));
        // 2010-11-01 was a Monday.
        assert_eq!((hour_of_day(1_288_600_200), day_of_week(1_288_600_200)), (8, 0));
    }

    proptest! {
        #[test]
        fn every_rfc_3339_text_is_read(at in -62_000_000_000i64..250_000_000_000, minutes in -1439i32..1440) {
            let offset = UtcOffset::from_whole_seconds(minutes * 60).expect("less than a day");
            let moment = OffsetDateTime::from_unix_timestamp(at).expect("in range");
            if let Some(text) = moment.checked_to_offset(offset).and_then(|moment| moment.format(&Rfc3339).ok()) {
                prop_assert_eq!(parse(&text), Some(at), "{}", text);
            }
            prop_assert_eq!(hour_of_day(at), u32::from(moment.hour()));
            prop_assert_eq!(day_of_week(at), u32::from(moment.weekday().number_days_from_monday()));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[-0-9TZ:+. é]{0,30}") {
            let _ = parse(&text);
        }
    }
}
