//! The one code that encodes a row, in the trainer and on the request path.
//!
//! Layout of the model's inputs: `ids` I32 `[rows, categorical features + crosses]` and, where there are numeric
//! features or histories, `dense` F32 `[rows, numeric features + columns of histories + affinities]`. A caller's value
//! fills a column for each feature that encodes it, and a list one for each value that it may have. All tables are one:
//! column `c` of `ids` holds row numbers in that column's own range, or in its list's, so a model needs a single gather,
//! and an id can never reach another feature's rows. The ranges of the categorical features come first: a deep part that
//! takes no crosses uses a prefix of both the columns and the table.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter},
    iter,
    ops::Range,
    path::{Path, PathBuf},
};

use xxhash_rust::xxh3::Xxh3Default;

use super::{
    Affinity, CategoricalSource, Cross, Feature, FeatureKind, History, List, ListColumns, ListInput, Past,
    RawKind, RawValue, Schema, SchemaError, Vocabulary,
    recall::{Part, Recall},
    slot::{ListRows, Scale, Slot, TableRows, Target, bucket},
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
    /// A feature of time was given a value that names no moment.
    #[error("expected a time: seconds since 1970, or text such as 2010-11-01T08:30:00Z")]
    NotAMoment,
    /// A feature that is not optional was given `null`.
    #[error("expected a number or a string, not null")]
    Missing,
    /// A list has more values than its feature takes.
    #[error("expected a list of at most {max} values")]
    TooMany {
        /// The most that it takes.
        max: usize,
    },
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
    inputs: Vec<Input>,
    crosses: Vec<CrossSlot>,
    recall: Recall,
    past: Past,
    signature: Signature,
    /// The table rows that each column of `ids` may name.
    id_ranges: Box<[Range<i32>]>,
    deep_columns: usize,
    deep_rows: usize,
    wide_rows: usize,
}

/// A value that callers send, and every encoding of it.
#[derive(Debug)]
struct Input {
    /// The position in the schema of the feature that it is sent for.
    feature: usize,
    /// The most values, where it is a list.
    max_values: Option<usize>,
    slots: Vec<Slot>,
}

/// Some columns of the inputs, and the features that they follow from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns<'a> {
    /// The features: one, or those of a cross or of a history.
    pub of: &'a [String],
    /// Which columns.
    pub place: Place,
}

/// Columns of one of the inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Of `ids`.
    Ids(Range<usize>),
    /// Of `dense`.
    Dense(Range<usize>),
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
    /// feature that has one, in their order. Of the past the encoder knows nothing until [`Encoder::with_past`].
    pub fn new(
        schema: Schema,
        mut vocabulary: impl FnMut(&Feature) -> Result<Vocabulary, SchemaError>,
    ) -> Result<Self, SchemaError> {
        check(&schema)?;
        let mut layout = Layout::default();
        let input = |feature: usize| {
            let max_values = schema.features[feature].values.map(|list| list.max);
            Input { feature, max_values, slots: Vec::new() }
        };
        let mut inputs: Vec<Input> = sent(&schema).map(input).collect();
        for (position, feature) in schema.features.iter().enumerate() {
            let (column, target) = match &feature.kind {
                FeatureKind::Categorical { source } => {
                    let rows = table_rows(source, || vocabulary(feature))?;
                    if let Some(list) = feature.values {
                        let (column, padding) = layout.place(list.max, 1 + rows.count())?;
                        (column, Target::List(Box::new(ListRows { padding, rows, list })))
                    } else {
                        let (column, offset) = layout.place(1, rows.count())?;
                        (column, Target::Table { offset, rows })
                    }
                }
                &FeatureKind::Numeric { transform, mean, std } => {
                    (layout.place_dense(), Target::Dense(Scale { transform, mean, std }))
                }
            };
            let origin = feature.from.as_ref().map_or(position, |from| origin(&schema, from));
            let input = inputs.iter_mut().find(|input| input.feature == origin);
            let input = input.expect("the origin of every feature is sent");
            input.slots.push(Slot { feature: position, column, target });
        }
        let (deep_columns, deep_rows) = (layout.id_ranges.len(), layout.rows);
        let crosses = schema.crosses.iter().map(|cross| place_cross(cross, &schema, &inputs, &mut layout));
        let crosses = crosses.collect::<Result<_, _>>()?;
        let recall = Recall::new(&schema, layout.dense, |name| part(&schema, &inputs, name))?;
        let past = Past::unseen(&schema);
        let signature = signature(layout.id_ranges.len(), layout.dense + recall.width());
        Ok(Self {
            schema,
            inputs,
            crosses,
            recall,
            past,
            signature,
            id_ranges: layout.id_ranges.into(),
            deep_columns,
            deep_rows,
            wide_rows: layout.rows,
        })
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
        let slots = self.inputs.iter().flat_map(|input| &input.slots);
        let numeric = slots.filter(|slot| matches!(slot.target, Target::Dense(_))).count();
        self.recall = Recall::new(&self.schema, numeric, |name| part(&self.schema, &self.inputs, name))?;
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
        for slot in self.inputs.iter().flat_map(|input| &input.slots) {
            if let Some(TableRows::Vocabulary(vocabulary)) = slot.target.rows() {
                let feature = &self.schema.features[slot.feature];
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

    /// The table rows that each column of `ids` may name, in the order of the columns.
    pub fn id_ranges(&self) -> &[Range<i32>] {
        &self.id_ranges
    }

    /// Whether training has fitted some of the encoding, so that every version has its own: a row that one has encoded
    /// means something else to another.
    pub fn is_fitted(&self) -> bool {
        // What histories and affinities say is found by vocabularies.
        self.schema.features.iter().any(|feature| match &feature.kind {
            FeatureKind::Numeric { .. } => true,
            FeatureKind::Categorical { source } => {
                matches!(source, CategoricalSource::Vocabulary | CategoricalSource::Boundaries(_))
            }
        })
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

    /// The number of values that callers send, which is the width of a positional row.
    pub fn width(&self) -> usize {
        self.inputs.len()
    }

    /// The features that callers send a value for, in the order of a positional row.
    pub fn sent(&self) -> impl Iterator<Item = &Feature> {
        self.inputs.iter().map(|input| &self.schema.features[input.feature])
    }

    /// The feature whose value stands at `position` of a positional row.
    ///
    /// # Panics
    /// When `position` is not below [`Encoder::width`].
    pub fn sent_at(&self, position: usize) -> &Feature {
        &self.schema.features[self.inputs[position].feature]
    }

    /// The position in a row of the value for the feature called `name`.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.sent().position(|feature| feature.name == name)
    }

    /// The position in a row of the value that the feature called `name` encodes, be it sent for that one or for another.
    pub fn origin(&self, name: &str) -> Option<usize> {
        let encodes = |slot: &Slot| self.schema.features[slot.feature].name == name;
        self.inputs.iter().position(|input| input.slots.iter().any(encodes))
    }

    /// The columns of each list, in their order.
    pub fn lists(&self) -> Vec<ListColumns> {
        let slots = self.inputs.iter().flat_map(|input| &input.slots);
        let columns = slots.filter_map(|slot| match &slot.target {
            Target::List(rows) => {
                Some(ListColumns { first: slot.column, list: rows.list, padding: rows.padding })
            }
            _ => None,
        });
        let mut lists: Vec<_> = columns.collect();
        lists.sort_by_key(|list| list.first);
        lists
    }

    /// All columns of the inputs with the features that they follow from.
    pub fn columns(&self) -> Vec<Columns<'_>> {
        let schema = &self.schema;
        let of_slot = |slot: &Slot| {
            let place = match &slot.target {
                Target::Table { .. } => Place::Ids(slot.column..slot.column + 1),
                Target::List(rows) => Place::Ids(slot.column..slot.column + rows.list.max),
                Target::Dense(_) => Place::Dense(slot.column..slot.column + 1),
            };
            Columns { of: std::slice::from_ref(&schema.features[slot.feature].name), place }
        };
        let mut slots: Vec<&Slot> = self.inputs.iter().flat_map(|input| &input.slots).collect();
        slots.sort_by_key(|slot| slot.feature);
        let crosses = schema.crosses.iter().zip(&self.crosses);
        let crosses = crosses.map(|(cross, slot)| Columns {
            of: &cross.features,
            place: Place::Ids(slot.column..slot.column + 1),
        });
        let histories = schema.histories.iter().map(|history| &history.of[..]);
        let past = histories.chain(schema.affinities.iter().map(|affinity| &affinity.of[..]));
        let past =
            past.zip(self.recall.columns()).map(|(of, columns)| Columns { of, place: Place::Dense(columns) });
        slots.into_iter().map(of_slot).chain(crosses).chain(past).collect()
    }

    /// Begins a list at `position` of a positional row; `None` where one value belongs there.
    ///
    /// # Panics
    /// When `position` is not below [`Encoder::width`].
    pub fn list(&self, position: usize) -> Option<ListInput<'_>> {
        let Input { slots, max_values, .. } = &self.inputs[position];
        max_values.map(|max| ListInput::new(slots, max))
    }

    /// Encodes the value at `position` of a positional row into the last row of `rows`, once for each feature that
    /// takes it. To a feature of lists one value is a list of one, and a missing one an empty list.
    ///
    /// # Panics
    /// When `position` is not below [`Encoder::width`], or `rows` is empty or of another signature.
    pub fn set(&self, rows: &mut Rows, position: usize, value: RawValue<'_>) -> Result<(), FeatureError> {
        if matches!(value, RawValue::Missing) && !self.takes_missing(position) {
            return Err(FeatureError::Missing);
        }
        for Slot { column, target, .. } in &self.inputs[position].slots {
            match target {
                Target::Table { offset, rows: table } => {
                    rows.last_i32(IDS)[*column] = table_index(offset + table.row(value)?);
                }
                Target::Dense(scale) => rows.last_f32(self.dense_input())[*column] = scale.apply(value)?,
                // All slots of the input take lists then.
                Target::List(_) => return self.set_list(rows, position, value),
            }
        }
        Ok(())
    }

    #[cold]
    fn takes_missing(&self, position: usize) -> bool {
        self.sent_at(position).optional || self.inputs[position].max_values.is_some()
    }

    /// Apart from [`Encoder::set`], which is to stay small: most values are no lists.
    #[inline(never)]
    fn set_list(&self, rows: &mut Rows, position: usize, value: RawValue<'_>) -> Result<(), FeatureError> {
        let mut list = self.list(position).expect("asked of a feature of lists");
        match value {
            RawValue::Missing => {}
            RawValue::List(values) => values.iter().try_for_each(|value| list.push(rows, value.raw()))?,
            one => list.push(rows, one)?,
        }
        list.finish(rows);
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
        slot(&self.schema, &self.inputs, name)?.target.vocabulary()
    }

    /// The vocabulary of the feature whose value stands at `position` of a positional row, where it has one.
    ///
    /// # Panics
    /// When `position` is not below [`Encoder::width`].
    pub fn vocabulary_at(&self, position: usize) -> Option<&Vocabulary> {
        let input = &self.inputs[position];
        input.slots.iter().find(|slot| slot.feature == input.feature)?.target.vocabulary()
    }
}

/// Where the vocabulary of the feature called `name` is in a row.
fn part(schema: &Schema, inputs: &[Input], name: &str) -> Option<Part> {
    let slot = slot(schema, inputs, name)?;
    match slot.target {
        Target::Table { offset, rows: TableRows::Vocabulary(_) } => {
            Some(Part { column: slot.column, offset })
        }
        _ => None,
    }
}

/// The slot of the feature called `name`.
fn slot<'a>(schema: &Schema, inputs: &'a [Input], name: &str) -> Option<&'a Slot> {
    inputs.iter().flat_map(|input| &input.slots).find(|slot| schema.features[slot.feature].name == name)
}

/// Hands out columns and ranges of table rows in order.
#[derive(Default)]
struct Layout {
    /// The range of each column of `ids`.
    id_ranges: Vec<Range<i32>>,
    rows: usize,
    dense: usize,
}

impl Layout {
    fn place_dense(&mut self) -> usize {
        self.dense += 1;
        self.dense - 1
    }

    fn place(&mut self, columns: usize, rows: usize) -> Result<(usize, u32), SchemaError> {
        let offset = u32::try_from(self.rows).expect("bounded by i32::MAX below");
        let column = self.id_ranges.len();
        let end = self.rows.checked_add(rows).and_then(|end| i32::try_from(end).ok()).ok_or_else(|| {
            SchemaError::Invalid(format!("the features have more than {} table rows together", i32::MAX))
        })?;
        self.id_ranges.extend(iter::repeat_n(table_index(offset)..end, columns));
        self.rows += rows;
        Ok((column, offset))
    }
}

/// The positions of the features that callers send.
fn sent(schema: &Schema) -> impl Iterator<Item = usize> {
    schema
        .features
        .iter()
        .enumerate()
        .filter(|(_, feature)| feature.from.is_none())
        .map(|(position, _)| position)
}

/// The position of the feature called `from`.
fn origin(schema: &Schema, from: &str) -> usize {
    schema.features.iter().position(|feature| feature.name == from).expect("checked with the schema")
}

fn table_rows(
    source: &CategoricalSource,
    vocabulary: impl FnOnce() -> Result<Vocabulary, SchemaError>,
) -> Result<TableRows, SchemaError> {
    Ok(match source {
        CategoricalSource::Vocabulary => TableRows::Vocabulary(vocabulary()?),
        CategoricalSource::Hash(buckets) => TableRows::Hash(*buckets),
        CategoricalSource::Boundaries(boundaries) => TableRows::Boundaries(boundaries.clone().into()),
        CategoricalSource::HourOfDay => TableRows::HourOfDay,
        CategoricalSource::DayOfWeek => TableRows::DayOfWeek,
    })
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
        check_kind(&feature.kind)
            .and_then(|()| check_values(feature))
            .and_then(|()| check_origin(feature, schema))
            .or_else(|reason| invalid(format!("feature `{name}`: {reason}")))?;
    }
    Ok(())
}

fn check_kind(kind: &FeatureKind) -> Result<(), String> {
    match kind {
        FeatureKind::Categorical { source: CategoricalSource::Hash(0) } => {
            Err("hash needs at least one row".into())
        }
        FeatureKind::Categorical { source: CategoricalSource::Boundaries(boundaries) } => {
            let ascend = boundaries.windows(2).all(|pair| pair[0] < pair[1]);
            if ascend && boundaries.len() <= MAX_BOUNDARIES && boundaries.iter().all(|b| b.is_finite()) {
                Ok(())
            } else {
                Err(format!(
                    "boundaries are at most {MAX_BOUNDARIES} finite numbers, each above the one before"
                ))
            }
        }
        FeatureKind::Numeric { mean, std, .. } if !(mean.is_finite() && std.is_finite() && *std > 0.0) => {
            Err("mean and std must be finite, std above zero".into())
        }
        _ => Ok(()),
    }
}

fn check_values(feature: &Feature) -> Result<(), String> {
    let Some(List { max, .. }) = feature.values else { return Ok(()) };
    if feature.kind.raw() != RawKind::Id {
        return Err("a list is one of ids".into());
    }
    if (1..=List::MAX_VALUES).contains(&max) {
        Ok(())
    } else {
        Err(format!("a list has 1 to {} values at most", List::MAX_VALUES))
    }
}

fn check_origin(feature: &Feature, schema: &Schema) -> Result<(), String> {
    let Some(from) = &feature.from else { return Ok(()) };
    let Some(origin) = schema.features.iter().find(|origin| origin.name == *from) else {
        return Err(format!("there is no feature `{from}` that it could be from"));
    };
    if origin.from.is_some() {
        return Err(format!("`{from}` is itself from another feature"));
    }
    if feature.optional {
        return Err(format!("whether it is optional is said by `{from}`"));
    }
    let max = |feature: &Feature| feature.values.map(|list| list.max);
    if max(feature) != max(origin) {
        return Err(format!("takes lists of another length than `{from}`"));
    }
    let (takes, sent) = (feature.kind.raw(), origin.kind.raw());
    if takes == sent { Ok(()) } else { Err(format!("takes {}, but `{from}` {}", noun(takes), noun(sent))) }
}

fn noun(kind: RawKind) -> &'static str {
    match kind {
        RawKind::Id => "ids",
        RawKind::Number => "numbers",
        RawKind::Moment => "times",
    }
}

pub(super) fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn place_cross(
    cross: &Cross,
    schema: &Schema,
    inputs: &[Input],
    layout: &mut Layout,
) -> Result<CrossSlot, SchemaError> {
    if cross.features.len() < 2 || cross.buckets == 0 {
        return Err(SchemaError::Invalid("a cross needs two features and one bucket at least".into()));
    }
    let parts = cross.features.iter().map(|name| match slot(schema, inputs, name) {
        Some(Slot { column, target: Target::Table { .. }, .. }) => Ok(*column),
        Some(Slot { target: Target::List(_), .. }) => {
            Err(SchemaError::Invalid(format!("cross: `{name}` is a list")))
        }
        Some(_) => Err(SchemaError::Invalid(format!("cross: `{name}` is numeric"))),
        None => Err(SchemaError::Invalid(format!("cross: there is no feature `{name}`"))),
    });
    let parts = parts.collect::<Result<_, _>>()?;
    let (column, offset) = layout.place(1, cross.buckets as usize)?;
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

pub(super) fn table_index(row: u32) -> i32 {
    i32::try_from(row).expect("the layout is bounded by i32::MAX")
}

/// The position of `ids` among the inputs.
pub(super) const IDS: usize = 0;
/// Boundaries of one feature; more are no buckets any more.
const MAX_BOUNDARIES: usize = 65_535;

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
        assert_eq!(encoder.id_ranges(), [0..4, 4..104, 104..1104]);
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
    fn a_value_is_sent_once_and_fills_a_column_for_each_feature_that_takes_it() {
        let schema: Schema = toml::from_str(
            r#"
            feature = [
              { name = "bucket", from = "age", kind = "categorical", source = { boundaries = [30, 60] } },
              { name = "user", kind = "categorical", source = { hash = 10 } },
              { name = "age", optional = true, kind = "numeric", mean = 40.0, std = 10.0 },
              { name = "log", from = "age", kind = "numeric", transform = "log", mean = 0.0, std = 1.0 },
              { name = "other", from = "user", kind = "categorical", source = "vocabulary" },
            ]
            cross = [{ features = ["bucket", "user"], buckets = 5000 }]
            "#,
        )
        .expect("a schema");
        let encoder = Encoder::new(schema, |_| Ok(Vocabulary::new(["u"]).expect("an id"))).expect("a layout");
        let sent: Vec<&str> = encoder.sent().map(|feature| &*feature.name).collect();
        assert_eq!((sent, encoder.width()), (vec!["user", "age"], 2));
        assert_eq!((encoder.position("age"), encoder.position("bucket")), (Some(1), None));
        assert_eq!((encoder.deep_columns(), encoder.deep_rows(), encoder.wide_rows()), (3, 4 + 10 + 2, 5016));
        let mut rows = Rows::new(encoder.signature());
        for age in [RawValue::Int(60), RawValue::Missing, RawValue::Float(29.5)] {
            encoder.encode([RawValue::Text("u"), age].into_iter(), &mut rows).expect("a row");
        }
        let (Values::I32(ids), Values::F32(dense)) = (rows.columns()[0].values(), rows.columns()[1].values())
        else {
            panic!("ids and numbers")
        };
        let column = |column: usize| [ids[column], ids[4 + column], ids[8 + column]];
        assert_eq!(column(0), [3, 0, 1]);
        assert_eq!(column(2), [15; 3]);
        let [first, second, third] = column(3);
        assert!(first != second && second != third && ids.iter().all(|id| (0..5016).contains(id)), "{ids:?}");
        assert_eq!((dense[0], dense[2], dense[3]), (2.0, 0.0, 0.0));
        assert!((dense[1] - 61.0_f32.ln()).abs() < 1e-6 && (dense[5] - 30.5_f32.ln()).abs() < 1e-6);
        // What is not optional may not be missing, and a mistake is that of the value, whichever feature finds it.
        let refused = |row: [RawValue<'_>; 2]| {
            encoder.encode(row.into_iter(), &mut Rows::new(encoder.signature())).expect_err("refused")
        };
        assert_eq!(refused([RawValue::Missing, RawValue::Int(1)]), FeatureError::Missing);
        assert_eq!(refused([RawValue::Int(1), RawValue::Text("60")]), FeatureError::NotANumber);
    }

    #[test]
    fn an_encoding_is_fitted_unless_the_declaration_says_it_all() {
        let is_fitted = |kind: &str| {
            let schema = format!(
                r#"
                feature = [
                  {{ name = "user", kind = "categorical", source = {{ hash = 10 }} }},
                  {{ name = "at", kind = "categorical", source = "hour_of_day" }},
                  {{ name = "day", from = "at", kind = "categorical", source = "day_of_week" }},
                  {{ name = "last", kind = {kind} }},
                ]
                cross = [{{ features = ["user", "at"], buckets = 5 }}]"#
            );
            let schema: Schema = toml::from_str(&schema).expect("a schema");
            Encoder::new(schema, |_| Ok(Vocabulary::default())).expect("a layout").is_fitted()
        };
        assert!(!is_fitted(r#""categorical", source = { hash = 7 }"#));
        for kind in [
            r#""categorical", source = "vocabulary""#,
            r#""categorical", source = "vocabulary", values = { max = 2, pooling = "sum" }"#,
            r#""categorical", source = { boundaries = [1.0] }"#,
            r#""numeric", mean = 0.0, std = 1.0"#,
        ] {
            assert!(is_fitted(kind), "{kind}");
        }
    }

    #[test]
    fn every_column_says_which_features_it_follows_from() {
        let schema: Schema = toml::from_str(
            r#"
            feature = [
              { name = "price", kind = "numeric", mean = 0.0, std = 1.0 },
              { name = "user", kind = "categorical", source = "vocabulary" },
              { name = "item", kind = "categorical", source = "vocabulary" },
              { name = "log", from = "price", kind = "numeric", transform = "log", mean = 0.0, std = 1.0 },
              { name = "genres", kind = "categorical", source = { hash = 9 }, values = { max = 3, pooling = "sum" } },
              { name = "hashed", from = "user", kind = "categorical", source = { hash = 10 } },
            ]
            cross = [{ features = ["user", "item"], buckets = 5 }]
            history = [
              { of = ["item"], columns = [
                { name = "a", absent = 0.0, mean = 0.0, std = 1.0 }, { name = "b", absent = 0.0, mean = 0.0, std = 1.0 },
              ] },
              { of = ["user", "item"], columns = [{ name = "c", absent = 0.0, mean = 0.0, std = 1.0 }] },
            ]
            affinity = [{ name = "alike", of = ["user", "item"], mean = 0.0, std = 1.0 }]
            "#,
        )
        .expect("a schema");
        let encoder = Encoder::new(schema, |_| Ok(Vocabulary::default())).expect("a layout");
        let line = |columns: &Columns<'_>| format!("{} {:?}", columns.of.join(" "), columns.place);
        let expected = [
            "price Dense(0..1)",
            "user Ids(0..1)",
            "item Ids(1..2)",
            "log Dense(1..2)",
            "genres Ids(2..5)",
            "hashed Ids(5..6)",
            "user item Ids(6..7)",
            "item Dense(2..4)",
            "user item Dense(4..5)",
            "user item Dense(5..6)",
        ];
        assert_eq!(encoder.columns().iter().map(line).collect::<Vec<_>>(), expected[..]);
        let widths: Vec<usize> = encoder.signature().inputs.iter().map(|input| input.width).collect();
        assert_eq!(widths, [7, 6]);
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
            (
                r#"feature = [{ name = "b", from = "p", kind = "categorical", source = { boundaries = [1] } }]"#,
                "there is no feature `p`",
            ),
            (
                r#"feature = [{ name = "b", from = "b", kind = "categorical", source = { boundaries = [1] } }]"#,
                "is itself from another",
            ),
            (
                r#"feature = [{ name = "i", kind = "categorical", source = { hash = 8 } },
                              { name = "b", from = "i", kind = "categorical", source = { boundaries = [1] } }]"#,
                "takes numbers, but `i` ids",
            ),
            (
                r#"feature = [{ name = "p", kind = "categorical", source = { boundaries = [1] } },
                              { name = "q", from = "p", optional = true, kind = "numeric", mean = 0, std = 1 }]"#,
                "is said by `p`",
            ),
            (
                r#"feature = [{ name = "b", kind = "categorical", source = { boundaries = [1, 1] } }]"#,
                "each above the one before",
            ),
            (
                r#"feature = [{ name = "b", kind = "categorical", source = { boundaries = [1, inf] } }]"#,
                "finite numbers",
            ),
        ];
        for (text, expected) in cases {
            let schema: Schema = toml::from_str(text).expect("well-formed");
            let error = Encoder::new(schema, |_| Ok(Vocabulary::default())).expect_err(text);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
