//! The windows of time whose rows are learnt from. What is known of the past in a window is what was known at its
//! start, as a served model knows what was known when its training ended: so a model learns to look ahead from tables
//! as stale as those that it will be served with.

use std::ops::Range;

use serde::Deserialize;

use crate::calendar::DAY_SECONDS;

/// How many windows there are, one after the other up to the end of training, and how long each is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowsConfig {
    /// The length of a window.
    pub days: u32,
    /// The number of windows; rows before the first one are only the past of others.
    pub count: u32,
}

/// A window: some rows, and the moment at which it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The second since 1970 up to which the past is known.
    pub start: i64,
    /// The rows in it.
    pub rows: Range<usize>,
}

/// The moment at which `rows` of a log with the ascending `times` end: the second after their last one.
pub fn end_of(times: &[i64], rows: &Range<usize>) -> i64 {
    times[rows.clone()].last().map_or(0, |&last| last.saturating_add(1))
}

impl WindowsConfig {
    /// The windows of `rows` that hold rows and have some before them, the earliest first.
    pub fn of(self, times: &[i64], rows: &Range<usize>) -> Vec<Window> {
        let (end, length) = (end_of(times, rows), i64::from(self.days) * DAY_SECONDS);
        let first_row =
            |moment: i64| times[..rows.end].partition_point(|&time| time < moment).max(rows.start);
        let window = |back: u32| {
            let start = end.saturating_sub(i64::from(back) * length);
            Window { start, rows: first_row(start)..first_row(start.saturating_add(length)) }
        };
        let windows = (1..=self.count).rev().map(window);
        windows.filter(|window| !window.rows.is_empty() && window.rows.start > rows.start).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn windows_follow_each_other_up_to_the_last_row() {
        let times: Vec<i64> = (0..10).map(|day| day * DAY_SECONDS).collect();
        let windows = WindowsConfig { days: 2, count: 3 }.of(&times, &(0..9));
        let rows: Vec<Range<usize>> = windows.iter().map(|window| window.rows.clone()).collect();
        assert_eq!(rows, [3..5, 5..7, 7..9]);
        assert_eq!(windows[2].start, 6 * DAY_SECONDS + 1);
    }

    #[test]
    fn a_window_without_a_past_or_without_rows_is_left_out() {
        let times = [0, 0, 9 * DAY_SECONDS];
        let windows = WindowsConfig { days: 3, count: 9 }.of(&times, &(0..3));
        assert_eq!(windows.len(), 1);
        assert_eq!(windows[0].rows, 2..3);
    }

    proptest! {
        #[test]
        fn what_came_before_a_window_is_strictly_earlier_and_none_is_in_two(
            mut times in prop::collection::vec(0i64..20 * DAY_SECONDS, 1..60), days in 1u32..6, count in 1u32..6,
        ) {
            times.sort_unstable();
            let mut before = 0;
            for Window { start, rows } in (WindowsConfig { days, count }).of(&times, &(0..times.len())) {
                prop_assert!(rows.start >= before);
                prop_assert!(times[..rows.start].iter().all(|&time| time < start));
                prop_assert!(times[rows.clone()].iter().all(|&time| time >= start));
                before = rows.end;
            }
        }
    }
}
