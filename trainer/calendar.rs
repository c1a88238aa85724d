//! Seconds since 1970 and the text that people write for them. Logs carry no time zone, so neither does this.

use arrow_cast::parse::string_to_timestamp_nanos;
use time::OffsetDateTime;

/// Seconds in a day.
pub const DAY_SECONDS: i64 = 86_400;

/// The seconds since 1970 that `text` names: a date, or a date and a time. `None` where it is neither.
pub fn parse(text: &str) -> Option<i64> {
    string_to_timestamp_nanos(text).ok().map(|nanos| nanos.div_euclid(1_000_000_000))
}

/// `seconds` since 1970 as `YYYY-MM-DD HH:MM:SS`; the bare number where no calendar reaches that far.
pub fn format(seconds: i64) -> String {
    let Ok(moment) = OffsetDateTime::from_unix_timestamp(seconds) else { return seconds.to_string() };
    let (date, (hour, minute, second)) = (moment.date(), moment.to_hms());
    format!("{date} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_its_first_second() {
        assert_eq!(parse("2010-11-01"), Some(1_288_569_600));
        assert_eq!(parse("2010-11-01 00:00:01"), Some(1_288_569_601));
    }

    #[test]
    fn what_is_parsed_is_written_back() {
        let text = "2009-12-01 07:45:00";
        assert_eq!(parse(text).map(format).as_deref(), Some(text));
    }

    #[test]
    fn other_texts_are_no_time() {
        assert_eq!(parse("last week"), None);
    }
}
