//! Where in time the log is cut. Training comes before validation, validation before test, and no two rows of one
//! moment are on different sides of a cut: whatever is learnt comes from strictly before whatever it is judged on.
//!
//! The rows of a table have no time. Its test rows are those of a file of their own, and its validation rows are the
//! last of its training rows, which were put into a random order when they were read.

use std::ops::Range;

use crate::{
    config::{SplitConfig, TestStart},
    windows::end_of,
};

/// The rows of a log, in the order of time, or of a table, by what they are for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// The rows that the number of epochs is chosen on; empty where there is no such choice.
    pub validation: Range<usize>,
    /// The rows that the model is judged on.
    pub test: Range<usize>,
}

/// A cut that leaves nothing on one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the split leaves no rows for {0}")]
pub struct EmptySplit(&'static str);

impl Split {
    /// Cuts a log with the ascending `times`, in seconds.
    pub fn new(times: &[i64], config: &SplitConfig) -> Result<Self, EmptySplit> {
        let moment = match config.test {
            TestStart::At(second) => Some(second),
            TestStart::Last(seconds) => Some(end_of(times, &(0..times.len())).saturating_sub(seconds)),
            TestStart::Fraction(share) => times.get(row_at(times.len(), 1.0 - share)).copied(),
            TestStart::Elsewhere => None,
        };
        let test_start = moment.map_or(times.len(), |moment| times.partition_point(|&time| time < moment));
        let Some(cut) = moment.filter(|_| test_start < times.len()) else {
            return Err(EmptySplit("the test"));
        };
        let validation_start = times.partition_point(|&time| time < cut - config.validation_seconds);
        let split =
            Self { validation: validation_start.min(test_start)..test_start, test: test_start..times.len() };
        if split.fit().is_empty() { Err(EmptySplit("training")) } else { Ok(split) }
    }

    /// Cuts a table of `training` rows in random order and `test` rows behind them.
    pub fn of_table(training: usize, test: usize, config: &SplitConfig) -> Result<Self, EmptySplit> {
        let validation = row_at(training, config.validation_share);
        let split = Self { validation: training - validation..training, test: training..training + test };
        if test == 0 {
            Err(EmptySplit("the test"))
        } else if split.fit().is_empty() {
            Err(EmptySplit("training"))
        } else {
            Ok(split)
        }
    }

    /// The rows before the validation slice.
    pub fn fit(&self) -> Range<usize> {
        0..self.validation.start
    }

    /// All rows before the test period.
    pub fn training(&self) -> Range<usize> {
        0..self.test.start
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a length, rounded down"
)]
fn row_at(rows: usize, share: f64) -> usize {
    (rows as f64 * share) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(times: &[i64], test: TestStart, validation_seconds: i64) -> Result<Split, EmptySplit> {
        Split::new(times, &SplitConfig { test, validation_seconds, validation_share: 0.0 })
    }

    #[test]
    fn the_test_starts_at_the_second_named_and_validation_ends_there() {
        let split = split(&[1, 2, 3, 4, 5, 6], TestStart::At(5), 2).expect("rows everywhere");
        assert_eq!((split.fit(), split.validation.clone(), split.test.clone()), (0..2, 2..4, 4..6));
        assert_eq!(split.training(), 0..4);
    }

    #[test]
    fn the_last_days_are_counted_from_the_last_row() {
        let split = split(&[1, 2, 3, 4, 6, 6], TestStart::Last(3), 2).expect("rows everywhere");
        assert_eq!((split.fit(), split.validation.clone(), split.test.clone()), (0..1, 1..3, 3..6));
    }

    #[test]
    fn a_cut_without_rows_on_one_side_is_refused() {
        assert_eq!(split(&[1, 2], TestStart::At(9), 0), Err(EmptySplit("the test")));
        assert_eq!(split(&[1, 2], TestStart::At(1), 0), Err(EmptySplit("training")));
        assert_eq!(split(&[1, 2], TestStart::At(2), 100), Err(EmptySplit("training")));
        assert_eq!(split(&[1, 2], TestStart::Last(2), 0), Err(EmptySplit("training")));
        assert_eq!(split(&[], TestStart::Last(2), 0), Err(EmptySplit("the test")));
    }

    #[test]
    fn the_validation_rows_of_a_table_are_the_last_of_its_training_rows() {
        let config = |validation_share| SplitConfig {
            test: TestStart::Elsewhere,
            validation_seconds: 0,
            validation_share,
        };
        let split = Split::of_table(10, 4, &config(0.2)).expect("rows everywhere");
        assert_eq!((split.fit(), split.validation.clone(), split.test.clone()), (0..8, 8..10, 10..14));
        assert!(Split::of_table(10, 4, &config(0.0)).expect("rows").validation.is_empty());
        assert_eq!(Split::of_table(10, 0, &config(0.2)), Err(EmptySplit("the test")));
        assert_eq!(Split::of_table(0, 4, &config(0.2)), Err(EmptySplit("training")));
    }

    proptest! {
        #[test]
        fn everything_before_a_cut_is_strictly_earlier(
            mut times in prop::collection::vec(0i64..50, 1..80),
            start in prop_oneof![
                (0i64..60).prop_map(TestStart::At),
                (1i64..60).prop_map(TestStart::Last),
                (0.01f64..0.99).prop_map(TestStart::Fraction),
            ],
            validation in 0i64..30,
        ) {
            times.sort_unstable();
            if let Ok(split) = split(&times, start, validation) {
                let last = |range: Range<usize>| times[range].last().copied();
                let first = |range: Range<usize>| times[range].first().copied();
                prop_assert!(last(split.training()) < first(split.test.clone()));
                if let Some(first) = first(split.validation.clone()) {
                    prop_assert!(last(split.fit()) < Some(first));
                }
                prop_assert_eq!(split.fit().end, split.validation.start);
                prop_assert_eq!(split.validation.end, split.test.start);
                prop_assert_eq!(split.test.end, times.len());
            }
        }
    }
}
