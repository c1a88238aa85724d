//! One column of a batch, however the file stores it, read as ids, numbers, labels or times.
//!
//! What does not fit is an error that names the column and says what it holds; nothing becomes a missing value because it
//! could not be read.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, ListArray, RecordBatch,
    cast::AsArray,
    types::{Float64Type, Int64Type, TimestampSecondType},
};
use arrow_cast::{CastOptions, can_cast_types, cast_with_options};
use arrow_schema::{DataType, TimeUnit};

use super::LogError;
use crate::calendar;

/// A column as a file stores it.
#[derive(Clone, Debug)]
pub(crate) struct StoredColumn<'a> {
    name: &'a str,
    /// The values themselves, where the file stores a dictionary of them.
    array: ArrayRef,
}

impl<'a> StoredColumn<'a> {
    /// The column of `batch` that is called `name`.
    pub(crate) fn of(batch: &RecordBatch, name: &'a str) -> Result<Self, LogError> {
        let array = batch.column_by_name(name).ok_or_else(|| LogError::NoColumn(name.to_owned()))?;
        Self::new(name, array)
    }

    /// The column `array`, which is called `name`.
    pub(crate) fn new(name: &'a str, array: &ArrayRef) -> Result<Self, LogError> {
        let column = Self { name, array: Arc::clone(array) };
        let DataType::Dictionary(_, values) = array.data_type() else { return Ok(column) };
        let array = column.cast(values, "the values of its dictionary")?;
        Ok(Self { name, array })
    }

    /// Whether its values are texts.
    pub(super) fn is_text(&self) -> bool {
        matches!(self.array.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
    }

    /// The texts of its ids. A float that is a whole number is that number: data frames store integers so where some are
    /// missing.
    pub(super) fn ids(&self) -> Result<Vec<Option<String>>, LogError> {
        if !self.array.data_type().is_floating() {
            return self.parsed(|text| Ok(text.to_owned()));
        }
        self.floats()?.into_iter().map(|id| self.whole(id)).collect()
    }

    /// The values of a column of texts; `None` where one is missing.
    pub(super) fn parsed<T>(
        &self,
        mut parse: impl FnMut(&str) -> Result<T, LogError>,
    ) -> Result<Vec<Option<T>>, LogError> {
        let texts = self.texts()?;
        let texts = texts.as_string::<i32>().iter();
        let there = |text: &&str| !text.is_empty() && *text != "?";
        texts.map(|text| text.filter(there).map(&mut parse).transpose()).collect()
    }

    /// Every value as its text, an array of `Utf8`. Times are those of UTC.
    pub(crate) fn texts(&self) -> Result<ArrayRef, LogError> {
        match self.array.data_type() {
            kind if is_list(kind) => {
                Err(self.refused("a value a row; a feature takes the ids of lists where it has `values`"))
            }
            kind if kind.is_nested() => Err(self.refused("a value a row")),
            // The text of a time with a zone would need to know the zone, and the instant is the same without.
            &DataType::Timestamp(unit, Some(_)) => {
                let array = self.cast(&DataType::Timestamp(unit, None), "times")?;
                Self { name: self.name, array }.texts()
            }
            _ => self.cast(&DataType::Utf8, "texts"),
        }
    }

    /// Its lists and their ids, where it is a column of lists.
    pub(super) fn lists(&self) -> Result<Option<(ListArray, Self)>, LogError> {
        let (DataType::List(ids) | DataType::LargeList(ids) | DataType::FixedSizeList(ids, _)) =
            self.array.data_type()
        else {
            return Ok(None);
        };
        if ids.data_type().is_nested() {
            return Err(self.refused("lists of ids"));
        }
        let lists = self.cast(&DataType::List(Arc::clone(ids)), "lists of ids")?;
        let lists = lists.as_list::<i32>().clone();
        let ids = Self::new(self.name, lists.values())?;
        Ok(Some((lists, ids)))
    }

    /// Its finite numbers.
    pub(super) fn numbers(&self) -> Result<Vec<Option<f64>>, LogError> {
        let numbers = if self.is_text() {
            let refused = || self.error("holds texts that are no number");
            self.parsed(|text| text.trim().parse().map_err(|_| refused()))?
        } else {
            self.floats()?
        };
        Ok(numbers
            .into_iter()
            .map(|number: Option<f64>| number.filter(|number| number.is_finite()))
            .collect())
    }

    /// Whether it happened: what is `positive` did where that is given, else 1 did and 0 did not.
    pub(super) fn labels(&self, positive: Option<&str>) -> Result<Vec<Option<bool>>, LogError> {
        if let Some(positive) = positive {
            return Ok(self.ids()?.into_iter().map(|label| Some(label? == positive)).collect());
        }
        let label = |number: f64| match number {
            0.0 => Ok(false),
            1.0 => Ok(true),
            other => Err(self.error(&format!("{other} is no label"))),
        };
        self.numbers()?.into_iter().map(|number| number.map(label).transpose()).collect()
    }

    /// Seconds since 1970. Numbers are taken for such already.
    pub(crate) fn times(&self) -> Result<Vec<Option<i64>>, LogError> {
        match self.array.data_type() {
            _ if self.is_text() => {
                let refused = || self.error("holds texts that are no time");
                self.parsed(|text| calendar::parse(text).ok_or_else(refused))
            }
            kind if kind.is_integer() => {
                let seconds = self.cast(&DataType::Int64, "seconds since 1970")?;
                Ok(seconds.as_primitive::<Int64Type>().iter().collect())
            }
            kind if kind.is_floating() => {
                self.floats()?.into_iter().map(|second| self.second(second)).collect()
            }
            _ => {
                let moments = self.cast(&DataType::Timestamp(TimeUnit::Second, None), "times")?;
                Ok(moments.as_primitive::<TimestampSecondType>().iter().collect())
            }
        }
    }

    fn floats(&self) -> Result<Vec<Option<f64>>, LogError> {
        let floats = self.cast(&DataType::Float64, "numbers")?;
        Ok(floats.as_primitive::<Float64Type>().iter().collect())
    }

    fn whole(&self, id: Option<f64>) -> Result<Option<String>, LogError> {
        let Some(id) = id.filter(|id| !id.is_nan()) else { return Ok(None) };
        match integer(id) {
            Some(whole) if id.fract() == 0.0 => Ok(Some(whole.to_string())),
            _ => Err(self.error(&format!("{id} is no id"))),
        }
    }

    fn second(&self, second: Option<f64>) -> Result<Option<i64>, LogError> {
        let Some(second) = second.filter(|second| !second.is_nan()) else { return Ok(None) };
        integer(second).map(Some).ok_or_else(|| self.error(&format!("{second} is no time")))
    }

    /// The column as one of `kind`; `expected` says in words what that is.
    fn cast(&self, kind: &DataType, expected: &str) -> Result<ArrayRef, LogError> {
        let stored = self.array.data_type();
        if !can_cast_types(stored, kind) {
            return Err(self.refused(expected));
        }
        // Safe is what the library calls making nulls of what does not fit.
        let options = CastOptions { safe: false, ..CastOptions::default() };
        cast_with_options(&self.array, kind, &options).map_err(|_| {
            self.error(&format!("is a column of {}, not all of which are {expected}", described(stored)))
        })
    }

    /// The error of a column whose values are of another kind.
    fn refused(&self, expected: &str) -> LogError {
        self.error(&format!("is a column of {}, expected {expected}", described(self.array.data_type())))
    }

    /// The error that `reason` makes of the column.
    pub(super) fn error(&self, reason: &str) -> LogError {
        LogError::Value { column: self.name.to_owned(), reason: reason.to_owned() }
    }
}

/// The integer at or below a float, where a double tells it from its neighbours.
#[expect(clippy::cast_possible_truncation, reason = "checked to be a number that a double holds exactly")]
fn integer(number: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    (number.abs() <= EXACT).then(|| number.floor() as i64)
}

/// What a column of `kind` is one of, and how the format calls it.
fn described(kind: &DataType) -> String {
    let noun = match kind {
        kind if is_list(kind) => "lists",
        kind if kind.is_nested() => "structures",
        kind if kind.is_integer() => "integers",
        kind if kind.is_numeric() => "numbers",
        DataType::Boolean => "true and false",
        DataType::Date32 | DataType::Date64 => "dates",
        DataType::Timestamp(..) => "times",
        DataType::Time32(_) | DataType::Time64(_) => "times of day",
        DataType::Duration(_) | DataType::Interval(_) => "durations",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            "bytes"
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "texts",
        _ => "values",
    };
    format!("{noun} ({kind})")
}

fn is_list(kind: &DataType) -> bool {
    use DataType::{FixedSizeList, LargeList, LargeListView, List, ListView};
    matches!(kind, List(_) | LargeList(_) | FixedSizeList(..) | ListView(_) | LargeListView(_))
}

#[cfg(test)]
mod tests {
    use arrow_array::{
        BinaryArray, Date32Array, DictionaryArray, Float64Array, StringArray, StructArray,
        TimestampMicrosecondArray, UInt64Array, types::Int32Type,
    };
    use arrow_schema::Field;

    use super::*;

    fn column(array: impl Array + 'static) -> StoredColumn<'static> {
        StoredColumn::new("c", &(Arc::new(array) as ArrayRef)).expect("a column")
    }

    fn said<T: std::fmt::Debug>(read: Result<T, LogError>) -> String {
        read.expect_err("refused").to_string()
    }

    #[test]
    fn unsigned_integers_are_ids_to_the_last_one_and_times_as_far_as_times_go() {
        let ids = UInt64Array::from(vec![Some(7), None, Some(1 << 63), Some(u64::MAX)]);
        let ids = column(ids).ids().expect("ids");
        let expected = [Some("7"), None, Some("9223372036854775808"), Some("18446744073709551615")];
        assert_eq!(ids.iter().map(Option::as_deref).collect::<Vec<_>>(), expected);
        assert_eq!(column(UInt64Array::from(vec![60])).times().expect("times"), [Some(60)]);
        assert_eq!(
            said(column(UInt64Array::from(vec![1 << 63])).times()),
            "column `c`: is a column of integers (UInt64), not all of which are seconds since 1970"
        );
    }

    #[test]
    fn a_time_with_a_zone_is_its_instant_whatever_is_made_of_it() {
        let instant = TimestampMicrosecondArray::from(vec![Some(1_577_836_800_000_000), None]);
        for zone in ["UTC", "+02:00", "Europe/Berlin"] {
            let moments = column(instant.clone().with_timezone(zone));
            assert_eq!(moments.times().expect(zone), [Some(1_577_836_800), None]);
            assert_eq!(moments.ids().expect(zone), [Some("2020-01-01T00:00:00".to_owned()), None]);
        }
    }

    #[test]
    fn what_is_nested_or_no_text_is_no_id() {
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), Some(2)])]);
        let said_of_lists = said(column(lists.clone()).ids());
        assert!(said_of_lists.starts_with("column `c`: is a column of lists (List("), "{said_of_lists}");
        assert!(said_of_lists.ends_with("where it has `values`"), "{said_of_lists}");
        let field = Arc::new(Field::new("x", lists.data_type().clone(), true));
        let structures = StructArray::from(vec![(field, Arc::new(lists) as ArrayRef)]);
        assert!(said(column(structures).ids()).starts_with("column `c`: is a column of structures (Struct("));
        let binary = |bytes: &'static [u8]| column(BinaryArray::from(vec![bytes]));
        assert_eq!(binary(b"text").ids().expect("text"), [Some("text".to_owned())]);
        assert_eq!(
            said(binary(b"\xff").ids()),
            "column `c`: is a column of bytes (Binary), not all of which are texts"
        );
    }

    #[test]
    fn a_column_of_another_kind_is_an_error_in_plain_words() {
        let dates = || column(Date32Array::from(vec![1]));
        assert_eq!(said(dates().numbers()), "column `c`: is a column of dates (Date32), expected numbers");
        assert_eq!(dates().times().expect("times"), [Some(86_400)]);
        let yes = column(arrow_array::BooleanArray::from(vec![true]));
        assert_eq!(said(yes.times()), "column `c`: is a column of true and false (Boolean), expected times");
    }

    #[test]
    fn a_fraction_is_no_id_and_its_second_is_the_one_that_has_begun() {
        let floats = |number: f64| column(Float64Array::from(vec![Some(number), Some(f64::NAN), None]));
        assert_eq!(said(floats(1.5).ids()), "column `c`: 1.5 is no id");
        assert!(floats(1e300).ids().is_err() && floats(1e300).times().is_err());
        assert_eq!(floats(7.0).ids().expect("ids"), [Some("7".to_owned()), None, None]);
        assert_eq!(floats(-1.5).times().expect("times"), [Some(-2), None, None]);
    }

    #[test]
    fn a_dictionary_is_what_its_values_are() {
        let texts = StringArray::from(vec!["2.5", "?"]);
        let keys = arrow_array::Int32Array::from(vec![Some(0), Some(1), None]);
        let dictionary = column(DictionaryArray::new(keys, Arc::new(texts)));
        assert_eq!(dictionary.numbers().expect("numbers"), [Some(2.5), None, None]);
    }
}
