//! A figure as text, for people.

/// `share` in per cent.
pub(crate) fn percent(share: f64) -> String {
    let digits = match share {
        share if share >= 0.01 || share <= 0.0 => 1,
        share if share >= 0.001 => 2,
        _ => 3,
    };
    format!("{:.digits$} %", share * 100.0)
}

/// `count` with a comma at each thousand.
pub(crate) fn grouped(count: usize) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `count` of a thing whose plural has an s.
pub(crate) fn counted(count: usize, thing: &str) -> String {
    format!("{} {thing}{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// `number` for an axis: thousands as k, millions as M.
pub(crate) fn short(number: f64) -> String {
    let (scaled, unit) = match number.abs() {
        size if size >= 1e9 => (number / 1e9, "G"),
        size if size >= 1e6 => (number / 1e6, "M"),
        size if size >= 1e3 => (number / 1e3, "k"),
        _ => (number, ""),
    };
    let text = format!("{scaled:.2}");
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

/// `number` as a value of a column: whole numbers without decimals.
pub(crate) fn number(number: f64) -> String {
    if number.abs() >= 1e15 { format!("{number:e}") } else { number.to_string() }
}

/// A length of time, in the two largest units that it has.
pub(crate) fn duration(seconds: i64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// `text` with no more than `most` characters, an ellipsis where it was longer.
pub(crate) fn cropped(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_as_people_read_them() {
        assert_eq!([0.0, 0.205, 0.0067, 0.000_12].map(percent), ["0.0 %", "20.5 %", "0.67 %", "0.012 %"]);
        assert_eq!([7, 999, 1000, 525_461].map(grouped), ["7", "999", "1,000", "525,461"]);
        assert_eq!([1, 1200].map(|count| counted(count, "row")), ["1 row", "1,200 rows"]);
        assert_eq!([0.0, 0.5, 1500.0, 2e6].map(short), ["0", "0.5", "1.5k", "2M"]);
        assert_eq!([-3.0, 2.5, 1e300].map(number), ["-3", "2.5", "1e300"]);
        assert_eq!([59, 3661, 90_000].map(duration), ["59 s", "1 h 1 min", "1 d 1 h"]);
    }

    #[test]
    fn long_texts_are_cropped_by_characters() {
        assert_eq!(cropped("Lampe", 5), "Lampe");
        assert_eq!(cropped("Größenänderung", 6), "Größe…");
    }
}
