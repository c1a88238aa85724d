//! A feature whose value is a list of ids, such as the genres of a film: how long a list may be, what becomes of it in
//! the deep part of a model, and its way into a row.
//!
//! A list fills as many columns as it may have values, from the first on. The columns behind its last value hold the
//! padding, a row of the feature's own range of the table: the embedding and the wide weight of that row are zero, so
//! that an empty list says nothing.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{
    FeatureError, RawValue,
    encoder::{IDS, table_index},
    slot::{Slot, Target},
};
use crate::tensor::Rows;

/// How long the lists of a feature may be, and what becomes of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// The most values, 1 to [`List::MAX_VALUES`]. A longer list is refused.
    pub max: usize,
    /// What becomes of the values' embeddings.
    pub pooling: Pooling,
}

/// How the embeddings of a list's values become one. That of an empty list is zero either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// Their mean, by the number of values that the list has.
    Mean,
    /// Their sum.
    Sum,
}

/// The columns of `ids` that a list fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListColumns {
    /// The first of them.
    pub first: usize,
    /// What is declared of the list.
    pub list: List,
    /// The table row that stands where the list has no value, which is the first of the feature's range.
    pub padding: u32,
}

/// A list on its way into the last row of some rows, value by value.
#[derive(Debug)]
pub struct ListInput<'a> {
    slots: &'a [Slot],
    max: usize,
    count: usize,
}

impl ListColumns {
    /// All of them.
    pub fn columns(&self) -> Range<usize> {
        self.first..self.first + self.list.max
    }
}

impl List {
    /// A bound for every feature's `max`: each value is a column, which every row of a batch has.
    pub const MAX_VALUES: usize = 1024;
}

impl<'a> ListInput<'a> {
    /// A list without values yet, for `slots` that take at most `max`.
    pub(super) fn new(slots: &'a [Slot], max: usize) -> Self {
        Self { slots, max, count: 0 }
    }

    /// Adds a value to the last row of `rows`.
    pub fn push(&mut self, rows: &mut Rows, value: RawValue<'_>) -> Result<(), FeatureError> {
        if self.count == self.max {
            return Err(FeatureError::TooMany { max: self.max });
        }
        if matches!(value, RawValue::Missing) {
            return Err(FeatureError::Missing);
        }
        for Slot { column, target, .. } in self.slots {
            if let Target::List(list) = target {
                let row = list.padding + 1 + list.rows.row(value)?;
                rows.last_i32(IDS)[column + self.count] = table_index(row);
            }
        }
        self.count += 1;
        Ok(())
    }

    /// Ends the list: the columns that are left get the padding.
    pub fn finish(self, rows: &mut Rows) {
        for Slot { column, target, .. } in self.slots {
            if let Target::List(list) = target {
                rows.last_i32(IDS)[column + self.count..column + self.max].fill(table_index(list.padding));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        features::{Encoder, Schema, Value, Vocabulary},
        tensor::Values,
    };

    const SCHEMA: &str = r#"
        feature = [
          { name = "user", kind = "categorical", source = { hash = 10 } },
          { name = "genres", values = { max = 3, pooling = "mean" }, kind = "categorical", source = "vocabulary" },
          { name = "hashed", from = "genres", values = { max = 3, pooling = "sum" }, kind = "categorical",
            source = { hash = 7 } },
          { name = "price", kind = "numeric", mean = 0.0, std = 1.0 },
        ]
        cross = [{ features = ["user", "user"], buckets = 5 }]
    "#;

    fn encoder() -> Encoder {
        let schema: Schema = toml::from_str(SCHEMA).expect("a schema");
        Encoder::new(schema, |_| Ok(Vocabulary::new(["drama", "war", "7"]).expect("three ids")))
            .expect("a layout")
    }

    fn encode(encoder: &Encoder, genres: RawValue<'_>) -> Result<Vec<i32>, FeatureError> {
        let mut rows = Rows::new(encoder.signature());
        encoder.encode([RawValue::Int(1), genres, RawValue::Int(0)].into_iter(), &mut rows)?;
        match rows.columns()[0].values() {
            Values::I32(ids) => Ok(ids.clone()),
            Values::F32(_) => panic!("ids are integers"),
        }
    }

    /// The columns of both features that take the list.
    fn lists(genres: RawValue<'_>) -> ([i32; 3], [i32; 3]) {
        let ids = encode(&encoder(), genres).expect("a list");
        let three = |from: usize| [ids[from], ids[from + 1], ids[from + 2]];
        (three(1), three(4))
    }

    fn texts(texts: &[&str]) -> Vec<Value> {
        texts.iter().map(|&text| Value::Text(text.into())).collect()
    }

    #[test]
    fn a_list_has_columns_and_a_range_of_the_table_for_itself() {
        let encoder = encoder();
        // The user's 10 rows; the padding, the unknown id and three ids; another padding and seven rows.
        assert_eq!((encoder.deep_columns(), encoder.deep_rows()), (1 + 3 + 3, 10 + 5 + 8));
        let list = |first, padding, pooling| ListColumns { first, list: List { max: 3, pooling }, padding };
        assert_eq!(encoder.lists(), [list(1, 10, Pooling::Mean), list(4, 15, Pooling::Sum)]);
        assert_eq!((encoder.width(), encoder.list(0).is_some(), encoder.list(1).is_some()), (3, false, true));
        let longest = encode(&encoder, RawValue::List(&texts(&["x", "y", "z"]))).expect("a list");
        assert!(longest[4..7].iter().all(|id| (16..23).contains(id)), "{longest:?}");
        assert!((23..28).contains(&longest[7]), "the cross comes behind: {longest:?}");
    }

    #[test]
    fn the_padding_stands_behind_the_values_and_is_no_id() {
        let (genres, hashed) = lists(RawValue::List(&texts(&["war", "a stranger"])));
        assert_eq!((genres, hashed[2]), ([13, 11, 10], 15));
        assert_eq!(lists(RawValue::List(&[])), ([10; 3], [15; 3]));
        assert_eq!(lists(RawValue::Missing), ([10; 3], [15; 3]));
    }

    #[test]
    fn one_value_is_a_list_of_one_and_an_integer_is_its_text() {
        for value in [RawValue::Int(7), RawValue::Text("7"), RawValue::List(&texts(&["7"]))] {
            assert_eq!(lists(value).0, [14, 10, 10], "{value:?}");
        }
    }

    #[test]
    fn what_a_list_cannot_be_is_refused() {
        let encoder = encoder();
        let refused = |values: &[Value]| encode(&encoder, RawValue::List(values)).expect_err("refused");
        assert_eq!(refused(&texts(&["a", "b", "c", "d"])), FeatureError::TooMany { max: 3 });
        assert_eq!(refused(&[Value::Missing]), FeatureError::Missing);
        assert_eq!(refused(&[Value::Float(1.5)]), FeatureError::NotAnId);
        assert_eq!(refused(&[Value::List(Vec::new())]), FeatureError::NotAnId);
        let mut rows = Rows::new(encoder.signature());
        let row = [RawValue::List(&[]), RawValue::Missing, RawValue::Int(0)];
        assert_eq!(encoder.encode(row.into_iter(), &mut rows), Err(FeatureError::NotAnId));
        assert!(rows.is_empty());
    }

    #[test]
    fn the_folder_gives_back_the_same_lists() {
        let (encoder, folder) = (encoder(), tempfile::tempdir().expect("a temporary folder"));
        encoder.write(folder.path()).expect("written");
        let again = Encoder::read(folder.path()).expect("read");
        let genres = texts(&["war", "drama", "x"]);
        assert_eq!(encode(&encoder, RawValue::List(&genres)), encode(&again, RawValue::List(&genres)));
    }

    #[test]
    fn contradictions_in_a_schema_are_named() {
        let refusal = |from: &str, to: &str| {
            let schema: Schema = toml::from_str(&SCHEMA.replacen(from, to, 1)).expect("well-formed");
            Encoder::new(schema, |_| Ok(Vocabulary::default())).expect_err(to).to_string()
        };
        assert!(refusal("max = 3", "max = 2").contains("another length than `genres`"));
        assert!(refusal("max = 3", "max = 0").contains("1 to 1024 values"));
        assert!(
            refusal("source = { hash = 7 }", "source = \"hour_of_day\"").contains("a list is one of ids")
        );
        assert!(refusal("[\"user\", \"user\"]", "[\"user\", \"genres\"]").contains("`genres` is a list"));
    }
}
