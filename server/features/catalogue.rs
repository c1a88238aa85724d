//! The items that a model can recommend, `catalogue.json` in a version's folder: the raw values of each, as callers would
//! send them, so that a user can be paired with any item.
//!
//! ```json
//! {"id": "item_id", "features": ["item_id", "price"], "items": [[22423, 12.75], ["85123A", 2.55]]}
//! ```

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::{Encoder, FeatureError, Place, RawValue, Value, Vocabulary, VocabularyError};
use crate::tensor::Rows;

/// Why a catalogue was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogueError {
    /// The file is unreadable.
    #[error("catalogue.json: cannot be read")]
    Read(#[source] io::Error),
    /// The file is not what this version of the program reads.
    #[error("catalogue.json: {0}")]
    Syntax(#[source] serde_json::Error),
    /// There is nothing to recommend.
    #[error("catalogue.json: holds no items")]
    Empty,
    /// A name that is no feature that callers send, or that stands twice.
    #[error("catalogue.json: `{0}` is no feature of a row, or stands twice")]
    Feature(String),
    /// The feature of the items' ids is not among the item's.
    #[error("catalogue.json: the feature `{0}` of ids is none of an item's")]
    Id(String),
    /// Every feature is the item's, so that there is nothing of a user to ask with.
    #[error("catalogue.json: leaves no feature to a user")]
    NoUser,
    /// An item has another number of values than there are features.
    #[error("catalogue.json: item {item} has {values} values for {features} features")]
    Width {
        /// The item, from 0.
        item: usize,
        /// Its values.
        values: usize,
        /// What they are for.
        features: usize,
    },
    /// An id that is no id, or stands twice.
    #[error("catalogue.json: the ids")]
    Ids(#[from] VocabularyError),
    /// A value that its feature cannot take.
    #[error("catalogue.json: item {item}, feature `{feature}`")]
    Value {
        /// The item, from 0.
        item: usize,
        /// The feature.
        feature: String,
        /// What is wrong with it.
        #[source]
        source: FeatureError,
    },
}

/// Items by their numbers, from 0 in the order of the file.
#[derive(Debug)]
pub struct Catalogue {
    id: String,
    /// The position in a row of each of an item's values.
    positions: Vec<usize>,
    /// Of each position in a row, whether the value is the item's.
    is_items: Vec<bool>,
    /// Which of an item's values is its id.
    id_column: usize,
    /// Item after item.
    values: Vec<Value>,
    numbers: Vocabulary,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    id: String,
    features: Vec<String>,
    items: Vec<Vec<Value>>,
}

#[derive(Serialize)]
struct ContentRef<'a> {
    id: &'a str,
    features: Vec<&'a str>,
    items: Vec<&'a [Value]>,
}

impl Catalogue {
    /// The file's name in a version's folder.
    pub const FILE: &str = "catalogue.json";

    /// Reads the catalogue in a version's folder, whose rows `encoder` encodes; `None` where the version has none.
    pub fn read(folder: &Path, encoder: &Encoder) -> Result<Option<Self>, CatalogueError> {
        let text = match fs::read(folder.join(Self::FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(CatalogueError::Read)?,
        };
        let content: Content = serde_json::from_slice(&text).map_err(CatalogueError::Syntax)?;
        Self::new(encoder, content.id, &content.features, content.items).map(Some)
    }

    /// A catalogue of `items`, each of which has a value for each of `features`, one of which, `id`, tells them apart.
    pub fn new(
        encoder: &Encoder,
        id: String,
        features: &[String],
        items: Vec<Vec<Value>>,
    ) -> Result<Self, CatalogueError> {
        let positions = positions(encoder, features)?;
        let id_column = features.iter().position(|feature| *feature == id);
        let id_column = id_column.ok_or_else(|| CatalogueError::Id(id.clone()))?;
        if items.is_empty() {
            return Err(CatalogueError::Empty);
        }
        let mut row = Rows::new(encoder.signature());
        row.push_zeroed();
        for (item, values) in items.iter().enumerate() {
            check(encoder, &positions, (item, values), &mut row)?;
        }
        let ids: Vec<String> = items.iter().map(|values| text(&values[id_column])).collect();
        let numbers = Vocabulary::new(ids.iter().map(String::as_str))?;
        let values = items.into_iter().flatten().collect();
        let is_items = (0..encoder.width()).map(|position| positions.contains(&position)).collect();
        Ok(Self { id, positions, is_items, id_column, values, numbers })
    }

    /// Whether `id` can be the id of an item: an integer, or a text that a vocabulary can have.
    pub fn can_carry(id: &Value) -> bool {
        Vocabulary::is_id(&text(id))
    }

    /// Writes the catalogue of a model whose rows `encoder` encodes into a version's folder.
    pub fn write(&self, folder: &Path, encoder: &Encoder) -> io::Result<()> {
        let features = self.positions.iter().map(|&position| &*encoder.sent_at(position).name).collect();
        let items = self.values.chunks_exact(self.positions.len()).collect();
        let mut file = BufWriter::new(File::create(folder.join(Self::FILE))?);
        serde_json::to_writer(&mut file, &ContentRef { id: &self.id, features, items })?;
        file.flush()
    }

    /// The feature of the items' ids.
    pub fn id_feature(&self) -> &str {
        &self.id
    }

    /// The number of items, at least one.
    pub fn len(&self) -> usize {
        self.values.len() / self.positions.len()
    }

    /// The same as a bound of the items' numbers.
    pub fn count(&self) -> u32 {
        u32::try_from(self.len()).expect("a vocabulary numbers them")
    }

    /// Whether there are no items, which no catalogue is made of.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The id of item `item`.
    pub fn id(&self, item: u32) -> &Value {
        &self.item(item)[self.id_column]
    }

    /// The number of the item whose id is `id`; `None` where there is no such item.
    pub fn number(&self, id: RawValue<'_>) -> Option<u32> {
        // Row 0 of a vocabulary is for what is not in it.
        self.numbers.lookup(id)?.checked_sub(1)
    }

    /// Whether the value at `position` of a row is the item's.
    pub fn is_items(&self, position: usize) -> bool {
        self.is_items[position]
    }

    /// Of each column of `ids`, and then of each of `dense`, whether it follows from the item alone; every other one follows
    /// from the user alone. `None` where some column follows from both.
    pub fn item_columns(&self, encoder: &Encoder) -> Option<Vec<bool>> {
        let widths: Vec<usize> = encoder.signature().inputs.iter().map(|input| input.width).collect();
        let mut is_items = vec![false; widths.iter().sum()];
        for columns in encoder.columns() {
            let mut owners = columns.of.iter().map(|name| encoder.origin(name).map(|at| self.is_items(at)));
            let first = owners.next()??;
            if owners.any(|owner| owner != Some(first)) {
                return None;
            }
            let place = match columns.place {
                Place::Ids(ids) => ids,
                Place::Dense(dense) => widths[0] + dense.start..widths[0] + dense.end,
            };
            is_items[place].fill(first);
        }
        Some(is_items)
    }

    /// The user of a positional row: a row of one, without what that says of an item.
    pub fn user(&self, encoder: &Encoder, row: &[Value]) -> Result<Rows, FeatureError> {
        let mut user = Rows::new(encoder.signature());
        user.push_zeroed();
        for (position, value) in row.iter().enumerate().filter(|&(position, _)| !self.is_items(position)) {
            encoder.set(&mut user, position, value.raw())?;
        }
        Ok(user)
    }

    /// Appends a row for `user` with each of `items` to `rows`; `encoder` is the one that the catalogue was made with.
    pub fn encode(
        &self,
        encoder: &Encoder,
        user: &Rows,
        items: impl IntoIterator<Item = u32>,
        rows: &mut Rows,
    ) {
        for item in items {
            rows.extend_from(user, 0..1);
            for (&position, value) in self.positions.iter().zip(self.item(item)) {
                encoder.set(rows, position, value.raw()).expect("checked when the catalogue was made");
            }
            encoder.finish(rows);
        }
    }

    fn item(&self, item: u32) -> &[Value] {
        let width = self.positions.len();
        &self.values[item as usize * width..][..width]
    }
}

/// The position in a row of each of `features`.
fn positions(encoder: &Encoder, features: &[String]) -> Result<Vec<usize>, CatalogueError> {
    let mut positions = Vec::with_capacity(features.len());
    for feature in features {
        match encoder.position(feature) {
            Some(position) if !positions.contains(&position) => positions.push(position),
            _ => return Err(CatalogueError::Feature(feature.clone())),
        }
    }
    if positions.len() == encoder.width() { Err(CatalogueError::NoUser) } else { Ok(positions) }
}

/// Whether each of an item's values is one that its feature takes; `row` is there to be written to.
fn check(
    encoder: &Encoder,
    positions: &[usize],
    (item, values): (usize, &[Value]),
    row: &mut Rows,
) -> Result<(), CatalogueError> {
    if values.len() != positions.len() {
        return Err(CatalogueError::Width { item, values: values.len(), features: positions.len() });
    }
    for (&position, value) in positions.iter().zip(values) {
        let feature = || encoder.sent_at(position).name.clone();
        let set = encoder.set(row, position, value.raw());
        set.map_err(|source| CatalogueError::Value { item, feature: feature(), source })?;
    }
    Ok(())
}

/// The id as a line of text; empty, which is no id, where it is none.
fn text(id: &Value) -> String {
    match id {
        Value::Int(id) => id.to_string(),
        Value::Text(id) => id.clone(),
        Value::Float(_) | Value::Missing | Value::List(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{features::Schema, tensor::Values};

    fn encoder() -> Encoder {
        let schema: Schema = toml::from_str(
            r#"
            feature = [
              { name = "item", kind = "categorical", source = "vocabulary" },
              { name = "user", kind = "categorical", source = "vocabulary" },
              { name = "price", kind = "numeric", mean = 0.0, std = 1.0 },
            ]
            cross = [{ features = ["user", "item"], buckets = 97 }]
            "#,
        )
        .expect("a schema");
        Encoder::new(schema, |_| Ok(Vocabulary::new(["7", "x"]).expect("ids"))).expect("a layout")
    }

    fn catalogue(items: Vec<Vec<Value>>) -> Result<Catalogue, CatalogueError> {
        Catalogue::new(&encoder(), "item".into(), &["price".into(), "item".into()], items)
    }

    fn two() -> Catalogue {
        let item = |id, price| vec![Value::Float(price), id];
        catalogue(vec![item(Value::Text("x".into()), 1.5), item(Value::Int(7), 2.5)]).expect("a catalogue")
    }

    #[test]
    fn an_item_is_found_by_its_id_however_it_is_written() {
        let catalogue = two();
        assert_eq!(catalogue.len(), 2);
        assert_eq!(catalogue.number(RawValue::Text("7")), Some(1));
        assert_eq!(catalogue.number(RawValue::Int(7)), Some(1));
        assert_eq!(catalogue.number(RawValue::Text("x")), Some(0));
        assert_eq!(catalogue.number(RawValue::Text("y")), None);
        assert_eq!(catalogue.number(RawValue::Float(7.0)), None);
        assert_eq!(catalogue.id(1), &Value::Int(7));
    }

    #[test]
    fn a_pair_is_encoded_as_a_caller_would_have_sent_it() {
        let (encoder, catalogue) = (encoder(), two());
        let user = [Value::Missing, Value::Int(7), Value::Missing];
        let user = catalogue.user(&encoder, &user).expect("a user");
        let mut rows = Rows::new(encoder.signature());
        catalogue.encode(&encoder, &user, [1, 0], &mut rows);
        let mut expected = Rows::new(encoder.signature());
        for row in [
            [RawValue::Int(7), RawValue::Int(7), RawValue::Float(2.5)],
            [RawValue::Text("x"), RawValue::Int(7), RawValue::Float(1.5)],
        ] {
            encoder.encode(row.into_iter(), &mut expected).expect("encoded");
        }
        assert_eq!(rows, expected);
        let Values::I32(ids) = rows.columns()[0].values() else { panic!("ids are I32") };
        assert_ne!(ids[2], ids[5], "the crosses follow from the item");
        assert!(matches!(rows.columns()[1].values(), Values::F32(prices) if prices == &[2.5, 1.5]));
    }

    #[test]
    fn every_column_is_the_users_or_the_items_unless_it_follows_from_both() {
        assert_eq!(two().item_columns(&encoder()), None, "there is a cross of user and item");
        let schema: Schema = toml::from_str(
            r#"
            feature = [
              { name = "item", kind = "categorical", source = "vocabulary" },
              { name = "user", kind = "categorical", source = "vocabulary" },
              { name = "price", kind = "numeric", mean = 0.0, std = 1.0 },
              { name = "age", kind = "numeric", mean = 0.0, std = 1.0 },
              { name = "hashed", from = "item", kind = "categorical", source = { hash = 9 } },
              { name = "user_hashed", from = "user", kind = "categorical", source = { hash = 9 } },
              { name = "tags", kind = "categorical", source = { hash = 9 }, values = { max = 2, pooling = "sum" } },
            ]
            cross = [{ features = ["hashed", "item"], buckets = 5 }, { features = ["user", "user_hashed"], buckets = 5 }]
            history = [
              { of = ["user"], columns = [{ name = "a", absent = 0.0, mean = 0.0, std = 1.0 }] },
              { of = ["item"], columns = [{ name = "b", absent = 0.0, mean = 0.0, std = 1.0 }] },
            ]
            "#,
        )
        .expect("a schema");
        let encoder =
            Encoder::new(schema, |_| Ok(Vocabulary::new(["7", "x"]).expect("ids"))).expect("a layout");
        let features = ["item", "price", "tags"].map(String::from);
        let item = vec![Value::Int(7), Value::Float(0.5), Value::List(vec![Value::Int(1)])];
        let catalogue = Catalogue::new(&encoder, "item".into(), &features, vec![item]).expect("a catalogue");
        let expected = [
            // Item, user, both of them hashed, two tags, the crosses.
            [true, false, true, false, true, true, true, false].as_slice(),
            // Price, age, the histories.
            &[true, false, false, true],
        ];
        assert_eq!(catalogue.item_columns(&encoder), Some(expected.concat()));
    }

    #[test]
    fn a_user_whose_values_cannot_be_encoded_is_refused() {
        let (encoder, catalogue) = (encoder(), two());
        let user = [Value::Missing, Value::Float(0.5), Value::Missing];
        assert_eq!(catalogue.user(&encoder, &user), Err(FeatureError::NotAnId));
    }

    #[test]
    fn a_catalogue_survives_writing_and_reading() {
        let (encoder, folder) = (encoder(), tempfile::tempdir().expect("a temporary folder"));
        assert!(Catalogue::read(folder.path(), &encoder).expect("no file is no error").is_none());
        two().write(folder.path(), &encoder).expect("written");
        let read = Catalogue::read(folder.path(), &encoder).expect("read").expect("there");
        assert_eq!((read.id_feature(), read.len(), &read.values), ("item", 2, &two().values));
        assert!(read.is_items(0) && !read.is_items(1) && read.is_items(2));
    }

    #[test]
    fn what_cannot_be_a_catalogue_is_refused() {
        let said = |result: Result<Catalogue, CatalogueError>| result.expect_err("refused").to_string();
        let item = |id, price| vec![Value::Float(price), id];
        assert!(said(catalogue(vec![])).contains("no items"));
        assert!(said(catalogue(vec![vec![Value::Int(7)]])).contains("item 0 has 1 values for 2"));
        assert!(
            said(catalogue(vec![item(Value::Int(7), 1.0), item(Value::Text("7".into()), 2.0)]))
                .contains("ids")
        );
        assert!(said(catalogue(vec![item(Value::Float(0.5), 1.0)])).contains("item 0, feature `item`"));
        let new = |id: &str, features: &[&str]| {
            let features: Vec<String> = features.iter().map(|&feature| feature.into()).collect();
            said(Catalogue::new(&encoder(), id.into(), &features, vec![]))
        };
        assert!(new("item", &["item", "colour"]).contains("`colour`"));
        assert!(new("item", &["item", "item"]).contains("twice"));
        assert!(new("price", &["item"]).contains("`price` of ids"));
        assert!(new("item", &["item", "user", "price"]).contains("no feature to a user"));
    }
}
