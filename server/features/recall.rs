//! Where the numbers of the past go in a row, and by which of its ids they are found.

use std::ops::Range;

use super::{
    Affinity, History, Past, Schema, SchemaError,
    encoder::{IDS, is_name},
};
use crate::tensor::Rows;

/// Fills the columns of `dense` that follow from ids.
#[derive(Debug, Default)]
pub(super) struct Recall {
    histories: Vec<Looked>,
    affinities: Vec<Looked>,
}

/// A column of `ids` and where its vocabulary's rows start in the table of all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    /// The column.
    pub(super) column: usize,
    /// The table row of the vocabulary's row 0.
    pub(super) offset: u32,
}

/// What is looked up at once, by the same ids.
#[derive(Debug)]
struct Looked {
    parts: Vec<Part>,
    first_column: usize,
    columns: Vec<Standardised>,
}

/// How a number becomes an input.
#[derive(Debug)]
struct Standardised {
    absent: f32,
    mean: f32,
    std: f32,
}

impl Recall {
    /// Checks the declarations and lays out their columns from `first_column` on. `part` knows the features that have
    /// a vocabulary.
    pub(super) fn new(
        schema: &Schema,
        first_column: usize,
        part: impl Fn(&str) -> Option<Part>,
    ) -> Result<Self, SchemaError> {
        check_names(schema)?;
        let mut next = first_column;
        let mut place = |of: &[String], columns: Vec<Standardised>| {
            let parts = of.iter().map(|name| {
                let unknown = || {
                    SchemaError::Invalid(format!(
                        "history: `{name}` is no feature with a vocabulary, or takes lists"
                    ))
                };
                part(name).ok_or_else(unknown)
            });
            let parts = parts.collect::<Result<Vec<_>, _>>()?;
            let first_column = next;
            next += columns.len();
            Ok::<_, SchemaError>(Looked { parts, first_column, columns })
        };
        let history = |history: &History| {
            let columns = history.columns.iter();
            place(
                &history.of,
                columns.map(|c| Standardised { absent: c.absent, mean: c.mean, std: c.std }).collect(),
            )
        };
        let histories = schema.histories.iter().map(history).collect::<Result<_, _>>()?;
        let affinity = |affinity: &Affinity| {
            place(&affinity.of, vec![Standardised { absent: 0.0, mean: affinity.mean, std: affinity.std }])
        };
        let affinities = schema.affinities.iter().map(affinity).collect::<Result<_, _>>()?;
        Ok(Self { histories, affinities })
    }

    /// Columns in all.
    pub(super) fn width(&self) -> usize {
        self.histories.iter().chain(&self.affinities).map(|looked| looked.columns.len()).sum()
    }

    /// The columns of `dense` of each history and then of each affinity, in the order of the schema.
    pub(super) fn columns(&self) -> impl Iterator<Item = Range<usize>> {
        let all = self.histories.iter().chain(&self.affinities);
        all.map(|looked| looked.first_column..looked.first_column + looked.columns.len())
    }

    /// Completes the last row of `rows`, whose ids are set. Nothing is allocated.
    pub(super) fn fill(&self, past: &Past, rows: &mut Rows, dense_input: usize) {
        for (looked, table) in self.histories.iter().zip(&past.tables) {
            let mut own = [0; 2];
            for (own, part) in own.iter_mut().zip(&looked.parts) {
                *own = part.row(rows);
            }
            let values = History::key(&own[..looked.parts.len()]).and_then(|key| table.get(key));
            let places = rows.last_f32(dense_input)[looked.first_column..].iter_mut();
            for (position, (place, column)) in places.zip(&looked.columns).enumerate() {
                *place = column.of(values.map_or(column.absent, |values| values[position]));
            }
        }
        for (looked, table) in self.affinities.iter().zip(&past.affinities) {
            let value = table.get(looked.parts[0].row(rows), looked.parts[1].row(rows));
            rows.last_f32(dense_input)[looked.first_column] = looked.columns[0].of(value);
        }
    }
}

impl Part {
    /// The row of the id in its own vocabulary.
    fn row(self, rows: &mut Rows) -> u32 {
        u32::try_from(rows.last_i32(IDS)[self.column]).expect("ids count from 0") - self.offset
    }
}

impl Standardised {
    fn of(&self, value: f32) -> f32 {
        (value - self.mean) / self.std
    }
}

fn check_names(schema: &Schema) -> Result<(), SchemaError> {
    let invalid = |text: String| Err(SchemaError::Invalid(text));
    let mut names: Vec<&str> = schema.features.iter().map(|feature| feature.name.as_str()).collect();
    let columns = schema.histories.iter().flat_map(|history| &history.columns);
    let columns = columns.map(|column| (&column.name, [column.absent, column.mean, column.std]));
    let affinities =
        schema.affinities.iter().map(|affinity| (&affinity.name, [0.0, affinity.mean, affinity.std]));
    for (name, numbers) in columns.chain(affinities) {
        if !is_name(name) {
            return invalid("history: a name is 1 to 64 of a-z, A-Z, 0-9, _ and -".into());
        }
        if names.contains(&name.as_str()) {
            return invalid(format!("history `{name}`: the name stands twice"));
        }
        if !numbers.iter().all(|number| number.is_finite()) || numbers[2] <= 0.0 {
            return invalid(format!("history `{name}`: absent, mean and std must be finite, std above zero"));
        }
        names.push(name);
    }
    for (position, history) in schema.histories.iter().enumerate() {
        if !(1..=2).contains(&history.of.len()) || history.columns.is_empty() {
            return invalid("history: needs one or two features and a column at least".into());
        }
        if schema.histories[..position].iter().any(|earlier| earlier.of == history.of) {
            return invalid(format!("history: `{}` stands twice", history.of.join(", ")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::{
        features::{AffinityTable, Encoder, HistoryTable, RawValue, Schema, Vocabulary},
        tensor::{Rows, Values},
    };

    use super::*;

    const SCHEMA: &str = r#"
        feature = [
          { name = "user", kind = "categorical", source = "vocabulary" },
          { name = "price", kind = "numeric", mean = 0.0, std = 1.0 },
          { name = "item", kind = "categorical", source = "vocabulary" },
        ]
        history = [
          { of = ["item"], columns = [{ name = "sold", absent = 0.0, mean = 1.0, std = 2.0 }] },
          { of = ["user", "item"], columns = [
            { name = "pair_days", absent = 9.0, mean = 0.0, std = 1.0 },
            { name = "pair_count", absent = 0.0, mean = 0.0, std = 1.0 },
          ] },
        ]
        affinity = [{ name = "alike", of = ["user", "item"], mean = 0.0, std = 1.0 }]
    "#;

    fn schema(text: &str) -> Schema {
        toml::from_str(text).expect("a schema")
    }

    fn encoder() -> Encoder {
        let encoder = Encoder::new(schema(SCHEMA), |_| Ok(Vocabulary::new(["1", "2"]).expect("two ids")));
        encoder.expect("a layout")
    }

    /// Item 2 sold; user 1 bought item 2 and item 1 is like it.
    fn past() -> Past {
        let mut sold = HistoryTable::new(1);
        sold.insert(2, [5.0]);
        let mut pairs = HistoryTable::new(2);
        pairs.insert(History::key(&[1, 2]).expect("known ids"), [3.0, 1.5]);
        let alike = AffinityTable::new(&[vec![], vec![2]], &[vec![], vec![(2, 0.5)]]);
        Past { tables: vec![sold, pairs], affinities: vec![alike] }
    }

    fn dense(encoder: &Encoder, user: i64, item: i64) -> Vec<f32> {
        let mut rows = Rows::new(encoder.signature());
        let values = [RawValue::Int(user), RawValue::Float(7.0), RawValue::Int(item)];
        encoder.encode(values.into_iter(), &mut rows).expect("a good row");
        let Values::F32(dense) = rows.columns()[1].values() else { panic!("dense is F32") };
        dense.clone()
    }

    #[test]
    fn numbers_are_found_by_the_ids_of_the_row() {
        let encoder = encoder().with_past(past());
        assert_eq!(encoder.signature().inputs[1].width, 5);
        assert_eq!(dense(&encoder, 1, 2), [7.0, 2.0, 3.0, 1.5, 0.0]);
        assert_eq!(dense(&encoder, 1, 1), [7.0, -0.5, 9.0, 0.0, 0.5_f32.ln_1p()]);
    }

    #[test]
    fn strangers_and_an_encoder_without_a_past_have_what_is_absent() {
        let absent = [7.0, -0.5, 9.0, 0.0, 0.0];
        assert_eq!(dense(&encoder().with_past(past()), 77, 77), absent);
        assert_eq!(dense(&encoder(), 1, 2), absent);
    }

    #[test]
    fn the_folder_gives_back_the_same_numbers() {
        let (encoder, directory) =
            (encoder().with_past(past()), tempfile::tempdir().expect("a temporary folder"));
        encoder.write(directory.path()).expect("written");
        let again = Encoder::read(directory.path()).expect("read");
        for (user, item) in [(1, 1), (1, 2), (2, 2), (9, 9)] {
            assert_eq!(dense(&encoder, user, item), dense(&again, user, item));
        }
    }

    #[test]
    fn a_missing_or_damaged_table_is_named() {
        for file in ["item.history", "user.item.history", "alike.affinity"] {
            let directory = tempfile::tempdir().expect("a temporary folder");
            encoder().with_past(past()).write(directory.path()).expect("written");
            std::fs::write(directory.path().join(file), "x").expect("written");
            assert_eq!(Encoder::read(directory.path()).expect_err(file).to_string(), file);
            std::fs::remove_file(directory.path().join(file)).expect("removed");
            assert_eq!(Encoder::read(directory.path()).expect_err(file).to_string(), file);
        }
    }

    #[test]
    fn contradictions_are_named() {
        for (from, to, expected) in [
            ("name = \"alike\"", "name = \"sold\"", "stands twice"),
            ("name = \"sold\"", "name = \"a/b\"", "a name is"),
            ("of = [\"item\"]", "of = [\"price\"]", "no feature with a vocabulary"),
            ("of = [\"item\"]", "of = []", "one or two"),
            ("of = [\"item\"]", "of = [\"user\", \"item\"]", "stands twice"),
            ("mean = 1.0, std = 2.0", "mean = 1.0, std = 0.0", "above zero"),
        ] {
            let text = SCHEMA.replacen(from, to, 1);
            assert_ne!(text, SCHEMA);
            let error = Encoder::new(schema(&text), |_| Ok(Vocabulary::default())).expect_err(&text);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
