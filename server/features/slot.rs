//! One encoding of one raw value: which column of the model's inputs it fills, and with what.

use xxhash_rust::xxh3::xxh3_64;

use super::{FeatureError, List, RawValue, Transform, Vocabulary, moment};

/// Where one encoding of a value goes, and how.
#[derive(Debug)]
pub(super) struct Slot {
    /// The position of its feature in the schema.
    pub(super) feature: usize,
    /// The column that it fills.
    pub(super) column: usize,
    /// What with.
    pub(super) target: Target,
}

/// What a slot fills its column with.
#[derive(Debug)]
pub(super) enum Target {
    /// Of `ids`: a row of the table, `offset` and what [`TableRows::row`] says.
    Table {
        /// The first row of the feature's range.
        offset: u32,
        /// The range.
        rows: TableRows,
    },
    /// Of `ids`: a row of the table for each value of a list, in a column each from the slot's on.
    List(Box<ListRows>),
    /// Of `dense`: a number.
    Dense(Scale),
}

impl Target {
    /// The range of table rows; `None` for a number.
    pub(super) fn rows(&self) -> Option<&TableRows> {
        match self {
            Self::Table { rows, .. } => Some(rows),
            Self::List(list) => Some(&list.rows),
            Self::Dense(_) => None,
        }
    }

    /// The vocabulary, where it is what rows of the table are found by.
    pub(super) fn vocabulary(&self) -> Option<&Vocabulary> {
        if let Some(TableRows::Vocabulary(vocabulary)) = self.rows() { Some(vocabulary) } else { None }
    }
}

/// Where the values of a list go, apart from [`Target`], for most targets are of one value.
#[derive(Debug)]
pub(super) struct ListRows {
    /// The first row of the feature's range, which stands where there is no value; what [`TableRows::row`] says counts
    /// from the next one.
    pub(super) padding: u32,
    /// The range behind it.
    pub(super) rows: TableRows,
    /// How long a list may be, and what becomes of it.
    pub(super) list: List,
}

/// A feature's range of table rows.
#[derive(Debug)]
pub(super) enum TableRows {
    /// A row an id.
    Vocabulary(Vocabulary),
    /// So many rows for all ids.
    Hash(u32),
    /// A row for missing numbers and one for each bucket between these.
    Boundaries(Box<[f64]>),
    /// A row for missing moments and one an hour.
    HourOfDay,
    /// A row for missing moments and one a weekday.
    DayOfWeek,
}

impl TableRows {
    /// The number of rows.
    pub(super) fn count(&self) -> usize {
        match self {
            Self::Vocabulary(vocabulary) => vocabulary.rows(),
            Self::Hash(buckets) => *buckets as usize,
            Self::Boundaries(boundaries) => boundaries.len() + 2,
            Self::HourOfDay => 1 + 24,
            Self::DayOfWeek => 1 + 7,
        }
    }

    /// The row of a value, below [`TableRows::count`].
    pub(super) fn row(&self, value: RawValue<'_>) -> Result<u32, FeatureError> {
        match self {
            Self::Vocabulary(vocabulary) => vocabulary.lookup(value).ok_or(FeatureError::NotAnId),
            Self::Hash(buckets) => hash(value, *buckets).ok_or(FeatureError::NotAnId),
            Self::Boundaries(boundaries) => bucket_between(boundaries, value),
            Self::HourOfDay => part_of(value, moment::hour_of_day),
            Self::DayOfWeek => part_of(value, moment::day_of_week),
        }
    }
}

/// How a number is standardised.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    /// What is done with it first.
    pub(super) transform: Transform,
    /// What is taken away.
    pub(super) mean: f64,
    /// What it is divided by.
    pub(super) std: f64,
}

impl Scale {
    /// The standardised number; the mean, which is 0, for a missing one.
    #[expect(clippy::cast_possible_truncation, reason = "rounding to F32 is the point; overflow is checked")]
    pub(super) fn apply(&self, value: RawValue<'_>) -> Result<f32, FeatureError> {
        let Some(value) = number(value)? else { return Ok(0.0) };
        let standardised = ((self.transform.apply(value) - self.mean) / self.std) as f32;
        if standardised.is_finite() { Ok(standardised) } else { Err(FeatureError::NotFinite) }
    }
}

/// `hash` as one of so many buckets.
pub(super) fn bucket(hash: u64, buckets: u32) -> u32 {
    u32::try_from(hash % u64::from(buckets)).expect("below a u32")
}

fn hash(value: RawValue<'_>, buckets: u32) -> Option<u32> {
    let hash = match value {
        RawValue::Text(id) => xxh3_64(id.as_bytes()),
        RawValue::Int(id) => xxh3_64(itoa::Buffer::new().format(id).as_bytes()),
        RawValue::Missing => xxh3_64(b""),
        RawValue::Float(_) | RawValue::List(_) => return None,
    };
    Some(bucket(hash, buckets))
}

fn bucket_between(boundaries: &[f64], value: RawValue<'_>) -> Result<u32, FeatureError> {
    let Some(value) = number(value)? else { return Ok(MISSING) };
    if !value.is_finite() {
        return Err(FeatureError::NotFinite);
    }
    let below = boundaries.partition_point(|&boundary| boundary <= value);
    Ok(MISSING + 1 + u32::try_from(below).expect("a schema has fewer boundaries"))
}

fn part_of(value: RawValue<'_>, part: impl Fn(i64) -> u32) -> Result<u32, FeatureError> {
    match value {
        RawValue::Missing => Ok(MISSING),
        value => moment::seconds(value).map(|at| MISSING + 1 + part(at)).ok_or(FeatureError::NotAMoment),
    }
}

fn number(value: RawValue<'_>) -> Result<Option<f64>, FeatureError> {
    match value {
        RawValue::Int(value) => Ok(Some(value as f64)),
        RawValue::Float(value) => Ok(Some(value)),
        RawValue::Text(_) | RawValue::List(_) => Err(FeatureError::NotANumber),
        RawValue::Missing => Ok(None),
    }
}

/// The row of what is missing, where that has one of its own.
const MISSING: u32 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_takes_its_lower_boundary_and_what_is_missing_has_one_of_its_own() {
        let rows = TableRows::Boundaries(Box::new([-1.0, 0.0, 10.0]));
        let row = |value| rows.row(value);
        let cases = [
            (RawValue::Missing, 0),
            (RawValue::Float(f64::MIN), 1),
            (RawValue::Int(-1), 2),
            (RawValue::Float(-0.5), 2),
            (RawValue::Int(0), 3),
            (RawValue::Float(-0.0), 3),
            (RawValue::Float(9.999), 3),
            (RawValue::Int(10), 4),
            (RawValue::Float(f64::MAX), 4),
        ];
        for (value, expected) in cases {
            assert_eq!(row(value), Ok(expected), "{value:?}");
        }
        assert_eq!(rows.count(), 5);
        assert_eq!(row(RawValue::Text("7")), Err(FeatureError::NotANumber));
        assert_eq!(row(RawValue::Float(f64::NAN)), Err(FeatureError::NotFinite));
    }

    #[test]
    fn hours_and_weekdays_have_rows_of_their_own() {
        let monday = RawValue::Text("2010-11-01T08:30:00Z");
        assert_eq!((TableRows::HourOfDay.row(monday), TableRows::DayOfWeek.row(monday)), (Ok(9), Ok(1)));
        assert_eq!(TableRows::DayOfWeek.row(RawValue::Missing), Ok(0));
        assert_eq!(TableRows::HourOfDay.row(RawValue::Text("noon")), Err(FeatureError::NotAMoment));
    }

    #[test]
    fn a_missing_number_is_the_mean_and_the_log_comes_before_the_mean() {
        let scale = Scale { transform: Transform::Log, mean: 1.0, std: 0.5 };
        assert_eq!(scale.apply(RawValue::Missing), Ok(0.0));
        assert_eq!(scale.apply(RawValue::Int(0)), Ok(-2.0));
        assert!((scale.apply(RawValue::Int(99)).expect("a number") - 7.210_34).abs() < 1e-5);
    }

    #[test]
    fn a_missing_id_is_the_empty_text_to_a_hash() {
        let rows = TableRows::Hash(1000);
        assert_eq!(rows.row(RawValue::Missing), rows.row(RawValue::Text("")));
    }
}
