//! What the report says of each column: what it holds, how much of it is missing, and how it is spread.

use serde::Serialize;

use super::{
    lists::Lists,
    share::{rounded, share},
    table::{Column, Kind},
    values::{ValueCount, Values},
};
use crate::calendar;

/// One column of the file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ColumnFigures {
    /// Its name.
    pub name: String,
    /// What its values are.
    pub kind: Kind,
    /// What the file stores it as; CSV stores text.
    pub stored_as: String,
    /// Rows without a value.
    pub missing: usize,
    /// The same over all rows.
    pub missing_share: f64,
    /// Distinct values, of lists their distinct ids; null where there are more than the report's `distinct_bound`, or the column is not looked into.
    pub distinct: Option<usize>,
    /// The range of numbers and times, and of the lengths of lists.
    pub range: Option<ValueRange>,
    /// The commonest values, unless every value is there once; of lists the ids that are in the most rows.
    pub commonest: Vec<ValueCount>,
}

/// The least and the greatest value.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum ValueRange {
    /// Of the finite numbers.
    Numbers {
        /// The least.
        least: f64,
        /// The greatest.
        greatest: f64,
    },
    /// Of times.
    Times {
        /// The first.
        first: String,
        /// The last.
        last: String,
    },
    /// Of the ids in lists that have any.
    Lengths {
        /// The fewest.
        shortest: usize,
        /// Their number on the mean.
        mean: f64,
        /// The most, which `values.max` of a feature has to allow.
        longest: usize,
    },
}

impl ColumnFigures {
    /// The figures of `column`, one of `rows` rows.
    pub fn of(column: &Column, rows: usize) -> Self {
        let (values, lists) = (column.values.as_ref(), column.lists.as_ref());
        let repeats = |distinct: usize| distinct < rows - column.missing;
        let commonest = values
            .filter(|values| repeats(values.distinct()))
            .map(|values| values.commonest(COMMONEST))
            .or_else(|| Some(lists?.commonest(COMMONEST)));
        Self {
            name: column.name.clone(),
            kind: column.kind,
            stored_as: column.stored_as.clone(),
            missing: column.missing,
            missing_share: share(column.missing, rows),
            distinct: values.map(Values::distinct).or_else(|| lists?.distinct()),
            range: column
                .range
                .map(|range| ValueRange::of(column.kind, range))
                .or_else(|| lists.and_then(ValueRange::of_lists)),
            commonest: commonest.unwrap_or_default(),
        }
    }
}

impl ValueRange {
    fn of(kind: Kind, (low, high): (f64, f64)) -> Self {
        if kind == Kind::Time {
            Self::Times { first: moment(low), last: moment(high) }
        } else {
            Self::Numbers { least: rounded(low), greatest: rounded(high) }
        }
    }

    fn of_lists(lists: &Lists) -> Option<Self> {
        let &Lists { shortest, longest, .. } = lists;
        (lists.lists > 0).then(|| Self::Lengths { shortest, mean: rounded(lists.mean()), longest })
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a double holds the seconds of every year exactly")]
fn moment(seconds: f64) -> String {
    calendar::format(seconds as i64)
}

/// Values that are listed.
const COMMONEST: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn column(kind: Kind, texts: &[Option<&str>], range: Option<(f64, f64)>) -> Column {
        Column {
            name: "c".into(),
            stored_as: "Utf8".into(),
            kind,
            missing: texts.iter().filter(|text| text.is_none()).count(),
            values: Some(Values::of(texts.iter().copied())),
            lists: None,
            range,
            negative: 0,
        }
    }

    #[test]
    fn missing_values_are_counted_apart_from_the_others() {
        let texts = [Some("b"), None, Some("b"), Some("a")];
        let figures = ColumnFigures::of(&column(Kind::Text, &texts, None), 4);
        assert_eq!((figures.missing, figures.distinct, figures.range), (1, Some(2), None));
        assert!((figures.missing_share - 0.25).abs() < f64::EPSILON);
        assert_eq!((figures.commonest[0].value.as_str(), figures.commonest[0].rows), ("b", 2));
        assert!((figures.commonest[0].share - 0.666_667).abs() < f64::EPSILON, "of the rows with a value");
    }

    #[test]
    fn values_that_never_repeat_have_no_commonest() {
        let figures = ColumnFigures::of(&column(Kind::Integer, &[Some("1"), Some("2")], Some((1.0, 2.0))), 2);
        assert_eq!(figures.commonest, []);
        assert_eq!(figures.range, Some(ValueRange::Numbers { least: 1.0, greatest: 2.0 }));
    }

    #[test]
    fn a_range_of_times_is_written_as_times() {
        let figures = ColumnFigures::of(&column(Kind::Time, &[Some("1970-01-01")], Some((0.0, 0.0))), 1);
        let moment = || "1970-01-01 00:00:00".to_owned();
        assert_eq!(figures.range, Some(ValueRange::Times { first: moment(), last: moment() }));
    }

    #[test]
    fn of_lists_there_are_the_lengths_and_the_ids() {
        let mut lists = Lists::new();
        lists.push(&["war".into(), "drama".into()], 9);
        lists.push(&["war".into()], 9);
        let stored = Column { values: None, lists: Some(lists), ..column(Kind::List, &[None], None) };
        let figures = ColumnFigures::of(&stored, 3);
        assert_eq!((figures.missing, figures.distinct), (1, Some(2)));
        assert_eq!(figures.range, Some(ValueRange::Lengths { shortest: 1, mean: 1.5, longest: 2 }));
        assert_eq!((figures.commonest[0].value.as_str(), figures.commonest[0].rows), ("war", 2));
        let empty = Column { lists: Some(Lists::new()), ..stored };
        assert_eq!(ColumnFigures::of(&empty, 3).range, None);
    }
}
