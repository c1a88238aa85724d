//! The one code that encodes a row, in the trainer and on the request path.
//!
//! Layout of the model's inputs: `ids` I32 `[rows, categorical features + crosses]` and, where there are numeric
//! features or histories, `dense` F32 `[rows, numeric features + columns of histories + affinities]`. All tables are one: column `c` of `ids` holds row numbers in
//! that column's own range, so a model needs a single gather, and an id can never reach another feature's rows.
//! The ranges of the categorical features come first: a deep part that takes no crosses uses a prefix of both the
//! columns and the table.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter},
    path::{Path, PathBuf},
};

use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

use super::{
    Affinity, CategoricalSource, Cross, Feature, FeatureKind, History, Past, RawValue, Schema, SchemaError,
    Vocabulary,
    recall::{Part, Recall},
};
use crate::tensor::{DType, Rows, Signature, TensorSpec};

/// Why a raw value cannot be encoded; whose value it was, the caller knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FeatureError {
    /// A categorical feature was given a number with a fraction or beyond 64 bits.
    #[error("expected an id: a string or a 64-bit integer")]
    NotAnId,
    /// A numeric feature was given a string.
    #[error("expected a number")]
    NotANumber,
    /// A numeric feature was given a value that a 32-bit float cannot hold.
    #[error("expected a finite number")]
    NotFinite,
    /// A row has another number of values than there are features.
    #[error("expected {expected} values")]
    Width {
        /// The number of features.
        expected: usize,
    },
}

/// Encodes raw rows into a model's inputs.
#[derive(Debug)]
pub struct Encoder {
    schema: Schema,
    slots: Vec<Slot>,
    crosses: Vec<CrossSlot>,
    recall: Recall,
    past: Past,
    signature: Signature,
    deep_columns: usize,
    deep_rows: usize,
    wide_rows: usize,
}

/// Where the value of one feature goes, and how.
#[derive(Debug)]
enum Slot {
    Vocabulary { column: usize, offset: u32, vocabulary: Vocabulary },
    Hash { column: usize, offset: u32, buckets: u32 },
    Numeric { column: usize, mean: f64, std: f64 },
}

#[derive(Debug)]
struct CrossSlot {
    column: usize,
    offset: u32,
    buckets: u32,
    parts: Vec<usize>,
}

impl Encoder {
    /// Checks the schema and lays out columns and table rows. `vocabulary` is asked for the vocabulary of each
    /// feature that has one. Of the past the encoder knows nothing until [`Encoder::with_past`].
    pub fn new(
        schema: Schema,
        mut vocabulary: impl FnMut(&Feature) -> Result<Vocabulary, SchemaError>,
    ) -> Result<Self, SchemaError> {
        check(&schema)?;
        let mut layout = Layout::default();
        let mut slots = Vec::with_capacity(schema.features.len());
        let mut dense = 0;
        for feature in &schema.features {
            slots.push(match feature.kind {
                FeatureKind::Categorical { source: CategoricalSource::Vocabulary } => {
                    let vocabulary = vocabulary(feature)?;
                    let (column, offset) = layout.place(vocabulary.rows())?;
                    Slot::Vocabulary { column, offset, vocabulary }
                }
                FeatureKind::Categorical { source: CategoricalSource::Hash(buckets) } => {
                    let (column, offset) = layout.place(buckets as usize)?;
                    Slot::Hash { column, offset, buckets }
                }
                FeatureKind::Numeric { mean, std } => {
                    dense += 1;
                    Slot::Numeric { column: dense - 1, mean, std }
                }
            });
        }
        let (deep_columns, deep_rows) = (layout.columns, layout.rows);
        let crosses = schema
            .crosses
            .iter()
            .map(|cross| place_cross(cross, &schema, &slots, &mut layout))
            .collect::<Result<_, _>>()?;
        let recall = Recall::new(&schema, dense, |name| part(&schema, &slots, name))?;
        let past = Past::unseen(&schema);
        let signature = signature(layout.columns, dense + recall.width());
        let wide_rows = layout.rows;
        Ok(Self { schema, slots, crosses, recall, past, signature, deep_columns, deep_rows, wide_rows })
    }

    /// The same encoder with tables of the past, which must be of its schema.
    #[must_use]
    pub fn with_past(self, past: Past) -> Self {
        Self { past, ..self }
    }

    /// The same encoder with other declarations of what follows from ids, and the tables that go with them.
    pub fn remembering(
        mut self,
        (histories, affinities): (Vec<History>, Vec<Affinity>),
        past: Past,
    ) -> Result<Self, SchemaError> {
        self.schema.histories = histories;
        self.schema.affinities = affinities;
        let numeric = self.slots.iter().filter(|slot| matches!(slot, Slot::Numeric { .. })).count();
        self.recall = Recall::new(&self.schema, numeric, |name| part(&self.schema, &self.slots, name))?;
        self.signature = signature(self.signature.inputs[IDS].width, numeric + self.recall.width());
        Ok(self.with_past(past))
    }

    /// Reads `schema.toml`, the vocabularies and the tables of the past from the folder `directory`.
    pub fn read(directory: &Path) -> Result<Self, SchemaError> {
        let encoder = Self::new(Schema::read(directory)?, |feature| {
            let path = vocabulary_path(directory, feature);
            let file = File::open(&path).map_err(|source| SchemaError::Read {
                file: format!("{}.vocabulary", feature.name),
                source,
            })?;
            Vocabulary::read(BufReader::new(file))
                .map_err(|source| SchemaError::Vocabulary { feature: feature.name.clone(), source })
        })?;
        let rows = |name: &str| encoder.vocabulary(name).map_or(0, Vocabulary::rows);
        let past = Past::read(&encoder.schema, directory, rows)?;
        Ok(encoder.with_past(past))
    }

    /// Writes `schema.toml`, the vocabularies and the tables of the past into the folder `directory`, which is made.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        fs::create_dir_all(directory)?;
        self.schema.write(directory)?;
        for (feature, slot) in self.schema.features.iter().zip(&self.slots) {
            if let Slot::Vocabulary { vocabulary, .. } = slot {
                let mut file = BufWriter::new(File::create(vocabulary_path(directory, feature))?);
                vocabulary.write(&mut file)?;
                file.into_inner()?.sync_all()?;
            }
        }
        self.past.write(&self.schema, directory)
    }

    /// The declaration.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The inputs that the encoder writes and the output that its models answer.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Columns of `ids` without the crosses.
    pub fn deep_columns(&self) -> usize {
        self.deep_columns
    }

    /// Table rows of the categorical features without the crosses.
    pub fn deep_rows(&self) -> usize {
        self.deep_rows
    }

    /// Table rows in all.
    pub fn wide_rows(&self) -> usize {
        self.wide_rows
    }

    /// The number of features, which is the width of a positional row.
    pub fn width(&self) -> usize {
        self.slots.len()
    }

    /// The position of the feature called `name`.
    pub fn position(&self, name: &str) -> Option<usize> {
        position(&self.schema, name)
    }

    /// Encodes the value of the feature at `position` into the last row of `rows`.
    ///
    /// # Panics
    /// When `position` is not below [`Encoder::width`], or `rows` is empty or of another signature.
    pub fn set(&self, rows: &mut Rows, position: usize, value: RawValue<'_>) -> Result<(), FeatureError> {
        match &self.slots[position] {
            Slot::Vocabulary { column, offset, vocabulary } => {
                let row = vocabulary.lookup(value).ok_or(FeatureError::NotAnId)?;
                rows.last_i32(IDS)[*column] = table_index(offset + row);
            }
            Slot::Hash { column, offset, buckets } => {
                let row = hash(value, *buckets).ok_or(FeatureError::NotAnId)?;
                rows.last_i32(IDS)[*column] = table_index(offset + row);
            }
            Slot::Numeric { column, mean, std } => {
                let value = standardise(value, *mean, *std)?;
                rows.last_f32(self.dense_input())[*column] = value;
            }
        }
        Ok(())
    }

    /// Completes the last row of `rows` once every feature is set: its crosses and its past follow from its ids.
    pub fn finish(&self, rows: &mut Rows) {
        self.finish_as_of(&self.past, rows);
    }

    /// The same with another past than the encoder's own, which training examples need: theirs is as of their time.
    pub fn finish_as_of(&self, past: &Past, rows: &mut Rows) {
        self.recall.fill(past, rows, self.dense_input());
        if self.crosses.is_empty() {
            return;
        }
        let ids = rows.last_i32(IDS);
        for cross in &self.crosses {
            let mut hasher = Xxh3Default::new();
            for &part in &cross.parts {
                hasher.update(&ids[part].to_le_bytes());
            }
            ids[cross.column] = table_index(cross.offset + bucket(hasher.digest(), cross.buckets));
        }
    }

    /// Encodes one positional row at the end of `rows`, which is left as it was on an error.
    pub fn encode<'a>(
        &self,
        values: impl ExactSizeIterator<Item = RawValue<'a>>,
        rows: &mut Rows,
    ) -> Result<(), FeatureError> {
        if values.len() != self.width() {
            return Err(FeatureError::Width { expected: self.width() });
        }
        let before = rows.len();
        rows.push_zeroed();
        for (position, value) in values.enumerate() {
            if let Err(error) = self.set(rows, position, value) {
                rows.resize(before);
                return Err(error);
            }
        }
        self.finish(rows);
        Ok(())
    }

    fn dense_input(&self) -> usize {
        self.signature.inputs.len() - 1
    }

    /// The vocabulary of the feature called `name`, where it has one.
    pub fn vocabulary(&self, name: &str) -> Option<&Vocabulary> {
        match &self.slots[self.position(name)?] {
            Slot::Vocabulary { vocabulary, .. } => Some(vocabulary),
            _ => None,
        }
    }
}

/// Where the vocabulary of the feature called `name` is in a row.
fn part(schema: &Schema, slots: &[Slot], name: &str) -> Option<Part> {
    match &slots[position(schema, name)?] {
        Slot::Vocabulary { column, offset, .. } => Some(Part { column: *column, offset: *offset }),
        _ => None,
    }
}

fn position(schema: &Schema, name: &str) -> Option<usize> {
    schema.features.iter().position(|feature| feature.name == name)
}

/// Hands out columns of `ids` and ranges of table rows in order.
#[derive(Default)]
struct Layout {
    columns: usize,
    rows: usize,
}

impl Layout {
    fn place(&mut self, rows: usize) -> Result<(usize, u32), SchemaError> {
        let place = (self.columns, u32::try_from(self.rows).expect("bounded by i32::MAX below"));
        self.columns += 1;
        self.rows =
            self.rows.checked_add(rows).filter(|&rows| i32::try_from(rows).is_ok()).ok_or_else(|| {
                SchemaError::Invalid(format!("the features have more than {} table rows together", i32::MAX))
            })?;
        Ok(place)
    }
}

fn check(schema: &Schema) -> Result<(), SchemaError> {
    let invalid = |text: String| Err(SchemaError::Invalid(text));
    if schema.features.is_empty() {
        return invalid("there are no features".into());
    }
    for (position, feature) in schema.features.iter().enumerate() {
        let name = &feature.name;
        if !is_name(name) {
            return invalid(format!("feature {position}: a name is 1 to 64 of a-z, A-Z, 0-9, _ and -"));
        }
        if schema.features[..position].iter().any(|earlier| earlier.name == *name) {
            return invalid(format!("feature `{name}` stands twice"));
        }
        match feature.kind {
            FeatureKind::Categorical { source: CategoricalSource::Hash(0) } => {
                return invalid(format!("feature `{name}`: hash needs at least one row"));
            }
            FeatureKind::Numeric { mean, std } if !(mean.is_finite() && std.is_finite() && std > 0.0) => {
                return invalid(format!("feature `{name}`: mean and std must be finite, std above zero"));
            }
            _ => {}
        }
    }
    Ok(())
}

pub(super) fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn place_cross(
    cross: &Cross,
    schema: &Schema,
    slots: &[Slot],
    layout: &mut Layout,
) -> Result<CrossSlot, SchemaError> {
    if cross.features.len() < 2 || cross.buckets == 0 {
        return Err(SchemaError::Invalid("a cross needs two features and one bucket at least".into()));
    }
    let parts = cross.features.iter().map(|name| {
        let position = schema.features.iter().position(|feature| feature.name == *name);
        match position.map(|position| &slots[position]) {
            Some(Slot::Vocabulary { column, .. } | Slot::Hash { column, .. }) => Ok(*column),
            Some(Slot::Numeric { .. }) => Err(SchemaError::Invalid(format!("cross: `{name}` is numeric"))),
            None => Err(SchemaError::Invalid(format!("cross: there is no feature `{name}`"))),
        }
    });
    let parts = parts.collect::<Result<_, _>>()?;
    let (column, offset) = layout.place(cross.buckets as usize)?;
    Ok(CrossSlot { column, offset, buckets: cross.buckets, parts })
}

fn signature(ids: usize, dense: usize) -> Signature {
    let mut inputs = vec![TensorSpec { name: "ids".into(), dtype: DType::I32, width: ids }];
    if dense > 0 {
        inputs.push(TensorSpec { name: "dense".into(), dtype: DType::F32, width: dense });
    }
    Signature { inputs, output: "probability".into() }
}

fn vocabulary_path(directory: &Path, feature: &Feature) -> PathBuf {
    directory.join(format!("{}.vocabulary", feature.name))
}

fn hash(value: RawValue<'_>, buckets: u32) -> Option<u32> {
    let hash = match value {
        RawValue::Text(id) => xxh3_64(id.as_bytes()),
        RawValue::Int(id) => xxh3_64(itoa::Buffer::new().format(id).as_bytes()),
        RawValue::Float(_) => return None,
    };
    Some(bucket(hash, buckets))
}

fn bucket(hash: u64, buckets: u32) -> u32 {
    u32::try_from(hash % u64::from(buckets)).expect("below a u32")
}

fn table_index(row: u32) -> i32 {
    i32::try_from(row).expect("the layout is bounded by i32::MAX")
}

#[expect(clippy::cast_possible_truncation, reason = "rounding to F32 is the point; overflow is checked")]
fn standardise(value: RawValue<'_>, mean: f64, std: f64) -> Result<f32, FeatureError> {
    let value = match value {
        RawValue::Int(value) => value as f64,
        RawValue::Float(value) => value,
        RawValue::Text(_) => return Err(FeatureError::NotANumber),
    };
    let standardised = ((value - mean) / std) as f32;
    if standardised.is_finite() { Ok(standardised) } else { Err(FeatureError::NotFinite) }
}

/// The position of `ids` among the inputs.
pub(super) const IDS: usize = 0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Values;

    fn encoder() -> Encoder {
        let schema: Schema = toml::from_str(
            r#"
            feature = [
              { name = "user_id", kind = "categorical", source = "vocabulary" },
              { name = "price", kind = "numeric", mean = 10.0, std = 2.0 },
              { name = "item_id", kind = "categorical", source = { hash = 100 } },
            ]
            cross = [{ features = ["user_id", "item_id"], buckets = 1000 }]
            "#,
        )
        .expect("a schema");
        Encoder::new(schema, |_| Ok(Vocabulary::new(["17", "18", "x"]).expect("three ids")))
            .expect("a layout")
    }

    fn encode(encoder: &Encoder, values: [RawValue<'_>; 3]) -> (Vec<i32>, Vec<f32>) {
        let mut rows = Rows::new(encoder.signature());
        encoder.encode(values.into_iter(), &mut rows).expect("a good row");
        match (rows.columns()[0].values(), rows.columns()[1].values()) {
            (Values::I32(ids), Values::F32(dense)) => (ids.clone(), dense.clone()),
            other => panic!("unexpected columns {other:?}"),
        }
    }

    #[test]
    fn every_column_stays_in_its_own_range_of_the_table() {
        let encoder = encoder();
        assert_eq!((encoder.deep_columns(), encoder.deep_rows(), encoder.wide_rows()), (2, 104, 1104));
        for id in -200..200 {
            let (ids, _) = encode(&encoder, [RawValue::Int(id), RawValue::Float(1.5), RawValue::Int(id)]);
            assert!((0..4).contains(&ids[0]) && (4..104).contains(&ids[1]) && (104..1104).contains(&ids[2]));
        }
    }

    #[test]
    fn numbers_are_standardised_and_integers_are_numbers_too() {
        let (_, dense) = encode(&encoder(), [RawValue::Int(17), RawValue::Int(14), RawValue::Int(1)]);
        assert_eq!(dense, [2.0]);
    }

    #[test]
    fn a_cross_depends_on_each_of_its_features() {
        let encoder = encoder();
        let cross = |user, item| encode(&encoder, [user, RawValue::Int(0), item]).0[2];
        let base = cross(RawValue::Int(17), RawValue::Text("a"));
        assert_eq!(base, cross(RawValue::Text("17"), RawValue::Text("a")));
        assert_ne!(base, cross(RawValue::Int(18), RawValue::Text("a")));
        assert_ne!(base, cross(RawValue::Int(17), RawValue::Text("b")));
    }

    #[test]
    fn hashing_takes_an_integer_for_its_text() {
        let encoder = encoder();
        let item = |value| encode(&encoder, [RawValue::Int(17), RawValue::Int(0), value]).0[1];
        assert_eq!(item(RawValue::Int(-42)), item(RawValue::Text("-42")));
    }

    #[test]
    fn a_bad_value_leaves_the_rows_as_they_were() {
        let encoder = encoder();
        let mut rows = Rows::new(encoder.signature());
        let good = RawValue::Int(1);
        let cases = [
            ([RawValue::Float(1.5), good, good], FeatureError::NotAnId),
            ([good, RawValue::Text("7"), good], FeatureError::NotANumber),
            ([good, RawValue::Float(f64::MAX), good], FeatureError::NotFinite),
        ];
        for (values, expected) in cases {
            assert_eq!(encoder.encode(values.into_iter(), &mut rows), Err(expected));
            assert!(rows.is_empty());
        }
        let short = [good; 2];
        assert_eq!(encoder.encode(short.into_iter(), &mut rows), Err(FeatureError::Width { expected: 3 }));
    }

    #[test]
    fn the_folder_gives_back_the_same_encoding() {
        let (encoder, directory) = (encoder(), tempfile::tempdir().expect("a temporary folder"));
        encoder.write(directory.path()).expect("written");
        let again = Encoder::read(directory.path()).expect("read");
        for id in ["17", "x", "unknown"] {
            let row = [RawValue::Text(id), RawValue::Float(0.25), RawValue::Text(id)];
            assert_eq!(encode(&encoder, row), encode(&again, row));
        }
    }

    #[test]
    fn contradictions_in_a_schema_are_named() {
        let cases = [
            ("feature = []", "no features"),
            (r#"feature = [{ name = "../x", kind = "numeric", mean = 0, std = 1 }]"#, "a name is"),
            (r#"feature = [{ name = "p", kind = "numeric", mean = 0, std = 0 }]"#, "above zero"),
            (
                r#"feature = [{ name = "i", kind = "categorical", source = { hash = 0 } }]"#,
                "at least one row",
            ),
            (
                r#"feature = [{ name = "p", kind = "numeric", mean = 0, std = 1 },
                              { name = "p", kind = "numeric", mean = 0, std = 1 }]"#,
                "stands twice",
            ),
            (
                r#"feature = [{ name = "p", kind = "numeric", mean = 0, std = 1 }]
                   cross = [{ features = ["p", "q"], buckets = 8 }]"#,
                "`p` is numeric",
            ),
        ];
        for (text, expected) in cases {
            let schema: Schema = toml::from_str(text).expect("well-formed");
            let error = Encoder::new(schema, |_| Ok(Vocabulary::default())).expect_err(text);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
