//! The JSON of the predict dialect: `{"input": [[user, item], ...]}` or `{"input": [{"user": .., "item": ..}, ...]}`
//! to rows, and scores to `{"output": [0.85, ...]}`.
//!
//! Values go from the text into the model's input layout without a tree in between. A row is judged value by value
//! as it is read: what is wrong is said with the row and the feature, and never by quoting the request.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::positional;
use crate::{
    features::{Encoder, FeatureError, ListInput, RawValue},
    tensor::Rows,
};

/// Why a body holds no rows that a model could score.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The body is not JSON.
    #[error("the body is not JSON: {0}")]
    Syntax(String),
    /// The body is JSON, and not an object.
    #[error("the body must be an object with the key `input`")]
    Body,
    /// A key of the body that means nothing.
    #[error("the body has a key that is not `input`")]
    UnknownKey,
    /// `input` stands twice.
    #[error("the body has the key `input` twice")]
    DuplicateInput,
    /// `input` is missing.
    #[error("the body has no key `input`")]
    NoInput,
    /// `input` is not a list.
    #[error("`input` must be an array of rows")]
    Input,
    /// `input` is empty.
    #[error("`input` holds no rows")]
    Empty,
    /// There are more rows than a request may carry.
    #[error("`input` holds more than {limit} rows")]
    TooManyRows {
        /// Rows that a request may carry.
        limit: usize,
    },
    /// A row is neither a list nor an object.
    #[error("row {row} must be an array of {width} values or an object")]
    Row {
        /// The row, from 0.
        row: usize,
        /// The number of features.
        width: usize,
    },
    /// A row has too few values or too many.
    #[error("row {row} must have {width} values: {names}")]
    Width {
        /// The row, from 0.
        row: usize,
        /// The number of features.
        width: usize,
        /// Their names.
        names: String,
    },
    /// An object row names something that is no feature.
    #[error("row {row} names something that is no feature; the features are {names}")]
    UnknownFeature {
        /// The row, from 0.
        row: usize,
        /// The names that there are.
        names: String,
    },
    /// An object row names a feature twice.
    #[error("row {row}, feature `{feature}`: stands twice")]
    DuplicateFeature {
        /// The row, from 0.
        row: usize,
        /// The feature.
        feature: String,
    },
    /// An object row leaves a feature out that is not optional.
    #[error("row {row}, feature `{feature}`: is missing")]
    MissingFeature {
        /// The row, from 0.
        row: usize,
        /// The feature.
        feature: String,
    },
    /// A value is neither a number nor a string.
    #[error("row {row}, feature `{feature}`: expected a number or a string")]
    Value {
        /// The row, from 0.
        row: usize,
        /// The feature.
        feature: String,
    },
    /// What stands for a list is none.
    #[error("row {row}, feature `{feature}`: expected an array of numbers or strings")]
    List {
        /// The row, from 0.
        row: usize,
        /// The feature.
        feature: String,
    },
    /// A value that its feature cannot take.
    #[error("row {row}, feature `{feature}`: {source}")]
    Feature {
        /// The row, from 0.
        row: usize,
        /// The feature.
        feature: String,
        /// What is wrong with it.
        #[source]
        source: FeatureError,
    },
}

/// Appends the rows of `body` to `rows`, at most `limit` of them. On an error `rows` holds some of them.
pub fn decode(body: &[u8], encoder: &Encoder, rows: &mut Rows, limit: usize) -> Result<(), DecodeError> {
    if positional::decode(body, encoder, rows, limit) {
        Ok(())
    } else {
        decode_any(body, encoder, rows, limit)
    }
}

/// The same for bodies of every shape.
fn decode_any(body: &[u8], encoder: &Encoder, rows: &mut Rows, limit: usize) -> Result<(), DecodeError> {
    let mut decoder = Decoder { encoder, rows, limit, seen: Vec::new(), place: Place::Body, error: None };
    let mut json = serde_json::Deserializer::from_slice(body);
    let result = json.deserialize_any(Body(&mut decoder)).and_then(|()| json.end());
    result.map_err(|error| decoder.explain(&error))
}

/// Appends `{"output":[...]}` to `body`. Scores are written with as few digits as tell them from their neighbours.
///
/// The scores must be finite, as the batcher sees to: JSON has no other numbers.
pub fn encode(scores: &[f32], body: &mut Vec<u8>) {
    // A score in (0, 1) rarely takes more than eleven characters and its comma.
    body.reserve(16 + 12 * scores.len());
    body.extend_from_slice(b"{\"output\":[");
    let mut digits = zmij::Buffer::new();
    for (position, &score) in scores.iter().enumerate() {
        if position > 0 {
            body.push(b',');
        }
        body.extend_from_slice(digits.format_finite(score).as_bytes());
    }
    body.extend_from_slice(b"]}");
}

/// What has been read so far.
struct Decoder<'a> {
    encoder: &'a Encoder,
    rows: &'a mut Rows,
    limit: usize,
    /// The features that the current object row has set.
    seen: Vec<bool>,
    /// What is being read, which is what a wrong type is blamed on.
    place: Place,
    error: Option<DecodeError>,
}

#[derive(Clone, Copy)]
enum Place {
    Body,
    Input,
    Row,
    Value(usize),
}

impl Decoder<'_> {
    /// The row that is being read.
    fn row(&self) -> usize {
        self.rows.len().saturating_sub(1)
    }

    fn feature(&self, position: usize) -> String {
        self.encoder.sent_at(position).name.clone()
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.encoder.sent().map(|feature| &*feature.name).collect();
        names.join(", ")
    }

    fn width(&self) -> DecodeError {
        DecodeError::Width { row: self.row(), width: self.encoder.width(), names: self.names() }
    }

    /// Keeps the error for [`Decoder::explain`] and stops the parser.
    fn fail<T, E: de::Error>(&mut self, error: DecodeError) -> Result<T, E> {
        self.error = Some(error);
        Err(E::custom("explained by the decoder"))
    }

    /// Adds a row, to be filled with values.
    fn begin<E: de::Error>(&mut self) -> Result<(), E> {
        if self.rows.len() == self.limit {
            return self.fail(DecodeError::TooManyRows { limit: self.limit });
        }
        self.rows.push_zeroed();
        Ok(())
    }

    fn set<E: de::Error>(&mut self, position: usize, value: RawValue<'_>) -> Result<(), E> {
        match self.encoder.set(self.rows, position, value) {
            Ok(()) => Ok(()),
            Err(source) => self.refuse(position, source),
        }
    }

    fn refuse<E: de::Error>(&mut self, position: usize, source: FeatureError) -> Result<(), E> {
        let (row, feature) = (self.row(), self.feature(position));
        self.fail(DecodeError::Feature { row, feature, source })
    }

    /// An object row that names no value is as good as one that says `null`, where the feature is optional.
    fn leave_out<E: de::Error>(&mut self, position: usize) -> Result<(), E> {
        if self.encoder.sent_at(position).optional {
            return self.set(position, RawValue::Missing);
        }
        let (row, feature) = (self.row(), self.feature(position));
        self.fail(DecodeError::MissingFeature { row, feature })
    }

    /// What to tell the client: the decoder's own judgement, else that a value of the wrong type stood at the place
    /// last entered, else what the parser says of the syntax, which quotes nothing of the body.
    fn explain(&mut self, error: &serde_json::Error) -> DecodeError {
        if let Some(error) = self.error.take() {
            return error;
        }
        if !error.is_data() {
            return DecodeError::Syntax(error.to_string());
        }
        let row = self.row();
        match self.place {
            Place::Body => DecodeError::Body,
            Place::Input => DecodeError::Input,
            Place::Row => DecodeError::Row { row: self.rows.len(), width: self.encoder.width() },
            Place::Value(position) if self.encoder.list(position).is_some() => {
                DecodeError::List { row, feature: self.feature(position) }
            }
            Place::Value(position) => DecodeError::Value { row, feature: self.feature(position) },
        }
    }
}

struct Body<'a, 'b>(&'a mut Decoder<'b>);

impl<'de> Visitor<'de> for Body<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with the key `input`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut found = false;
        while let Some(is_input) = map.next_key_seed(IsInput)? {
            match (is_input, found) {
                (false, _) => return self.0.fail(DecodeError::UnknownKey),
                (true, true) => return self.0.fail(DecodeError::DuplicateInput),
                (true, false) => found = true,
            }
            self.0.place = Place::Input;
            map.next_value_seed(Input(self.0))?;
            self.0.place = Place::Body;
        }
        if found { Ok(()) } else { self.0.fail(DecodeError::NoInput) }
    }
}

/// Whether a key is `input`, without a copy of it.
struct IsInput;

impl<'de> DeserializeSeed<'de> for IsInput {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for IsInput {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<bool, E> {
        Ok(key == "input")
    }
}

struct Input<'a, 'b>(&'a mut Decoder<'b>);

impl<'de> DeserializeSeed<'de> for Input<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Input<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<(), A::Error> {
        self.0.place = Place::Row;
        while rows.next_element_seed(Row(self.0))?.is_some() {
            self.0.place = Place::Row;
        }
        if self.0.rows.is_empty() { self.0.fail(DecodeError::Empty) } else { Ok(()) }
    }
}

struct Row<'a, 'b>(&'a mut Decoder<'b>);

impl<'de> DeserializeSeed<'de> for Row<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Row<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<(), A::Error> {
        self.0.begin()?;
        for position in 0..self.0.encoder.width() {
            if values.next_element_seed(Value { decoder: self.0, position })?.is_none() {
                let error = self.0.width();
                return self.0.fail(error);
            }
        }
        if values.next_element::<IgnoredAny>()?.is_some() {
            let error = self.0.width();
            return self.0.fail(error);
        }
        self.0.encoder.finish(self.0.rows);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut values: A) -> Result<(), A::Error> {
        let decoder = self.0;
        decoder.begin()?;
        decoder.seen.clear();
        decoder.seen.resize(decoder.encoder.width(), false);
        while let Some(position) = values.next_key_seed(Position(decoder.encoder))? {
            let row = decoder.row();
            let Some(position) = position else {
                let names = decoder.names();
                return decoder.fail(DecodeError::UnknownFeature { row, names });
            };
            if std::mem::replace(&mut decoder.seen[position], true) {
                let feature = decoder.feature(position);
                return decoder.fail(DecodeError::DuplicateFeature { row, feature });
            }
            values.next_value_seed(Value { decoder, position })?;
        }
        for position in 0..decoder.encoder.width() {
            if !decoder.seen[position] {
                decoder.leave_out(position)?;
            }
        }
        decoder.encoder.finish(decoder.rows);
        Ok(())
    }
}

/// The position of the feature that a key names, without a copy of it.
struct Position<'a>(&'a Encoder);

impl<'de> DeserializeSeed<'de> for Position<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Position<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a feature's name")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Option<usize>, E> {
        Ok(self.0.position(name))
    }
}

struct Value<'a, 'b> {
    decoder: &'a mut Decoder<'b>,
    position: usize,
}

impl Value<'_, '_> {
    /// Apart from the visitor, which is to stay small: most values are no lists.
    #[inline(never)]
    fn list<'de, A: SeqAccess<'de>>(self, mut values: A) -> Result<(), A::Error> {
        let Self { decoder, position } = self;
        let Some(mut list) = decoder.encoder.list(position) else {
            return Err(de::Error::invalid_type(de::Unexpected::Seq, &"a number or a string"));
        };
        while values.next_element_seed(Element { decoder, position, list: &mut list })?.is_some() {}
        list.finish(decoder.rows);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.decoder.place = Place::Value(self.position);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or a string")
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<(), E> {
        self.decoder.set(self.position, RawValue::Int(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<(), E> {
        self.decoder.set(self.position, unsigned(value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<(), E> {
        self.decoder.set(self.position, RawValue::Float(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<(), E> {
        self.decoder.set(self.position, RawValue::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, values: A) -> Result<(), A::Error> {
        self.list(values)
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.decoder.set(self.position, RawValue::Missing)
    }
}

/// A value of the list at a position.
struct Element<'a, 'b> {
    decoder: &'a mut Decoder<'b>,
    position: usize,
    list: &'a mut ListInput<'b>,
}

impl Element<'_, '_> {
    fn push<E: de::Error>(self, value: RawValue<'_>) -> Result<(), E> {
        match self.list.push(self.decoder.rows, value) {
            Ok(()) => Ok(()),
            Err(source) => self.decoder.refuse(self.position, source),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Element<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Element<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or a string")
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<(), E> {
        self.push(RawValue::Int(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<(), E> {
        self.push(unsigned(value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<(), E> {
        self.push(RawValue::Float(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<(), E> {
        self.push(RawValue::Text(value))
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.push(RawValue::Missing)
    }
}

fn unsigned(value: u64) -> RawValue<'static> {
    i64::try_from(value).map_or(RawValue::Float(value as f64), RawValue::Int)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        features::{Schema, Vocabulary},
        tensor::Values,
    };

    const FEATURES: &str = r#"
        feature = [
          { name = "user_id", kind = "categorical", source = "vocabulary" },
          { name = "price", kind = "numeric", mean = 0.0, std = 1.0 },
        ]
    "#;

    fn encoder() -> Encoder {
        encoder_of(FEATURES)
    }

    fn encoder_of(schema: &str) -> Encoder {
        let schema: Schema = toml::from_str(schema).expect("a schema");
        Encoder::new(schema, |_| Ok(Vocabulary::new(["17", "x"]).expect("two ids"))).expect("a layout")
    }

    fn read(body: &str) -> Result<(Vec<i32>, Vec<f32>), DecodeError> {
        let encoder = encoder();
        let mut rows = Rows::new(encoder.signature());
        decode(body.as_bytes(), &encoder, &mut rows, 4)?;
        match (rows.columns()[0].values(), rows.columns()[1].values()) {
            (Values::I32(ids), Values::F32(prices)) => Ok((ids.clone(), prices.clone())),
            other => panic!("unexpected columns {other:?}"),
        }
    }

    #[test]
    fn positional_and_named_rows_mix_and_mean_the_same() {
        let body = r#" {"input": [[17, 1.5], {"price": 2, "user_id": "x"}, ["nobody", -3]]} "#;
        assert_eq!(read(body), Ok((vec![1, 2, 0], vec![1.5, 2.0, -3.0])));
    }

    #[test]
    fn escapes_in_keys_and_values_are_read() {
        assert_eq!(
            read(r#"{"inp\u0075t": [{"us\u0065r_id": "\u0078", "price": 1}]}"#),
            Ok((vec![2], vec![1.0]))
        );
    }

    #[test]
    fn every_mistake_is_named_with_its_row_and_feature() {
        let cases = [
            ("[]", "the body must be an object with the key `input`"),
            ("7", "the body must be an object with the key `input`"),
            ("{}", "the body has no key `input`"),
            (r#"{"inputs": [[17, 1]]}"#, "the body has a key that is not `input`"),
            (r#"{"input": [[17, 1]], "input": [[17, 1]]}"#, "the body has the key `input` twice"),
            (r#"{"input": {"user_id": 17}}"#, "`input` must be an array of rows"),
            (r#"{"input": null}"#, "`input` must be an array of rows"),
            (r#"{"input": []}"#, "`input` holds no rows"),
            (r#"{"input": [17, 1]}"#, "row 0 must be an array of 2 values or an object"),
            (r#"{"input": [[17, 1], "x"]}"#, "row 1 must be an array of 2 values or an object"),
            (r#"{"input": [[17, 1], [17]]}"#, "row 1 must have 2 values: user_id, price"),
            (r#"{"input": [[17, 1, 2]]}"#, "row 0 must have 2 values: user_id, price"),
            (
                r#"{"input": [[17, 1], [1.5, 1]]}"#,
                "row 1, feature `user_id`: expected an id: a string or a 64-bit integer",
            ),
            (
                r#"{"input": [[18446744073709551615, 1]]}"#,
                "row 0, feature `user_id`: expected an id: a string or a 64-bit integer",
            ),
            (r#"{"input": [[17, "1"]]}"#, "row 0, feature `price`: expected a number"),
            (r#"{"input": [[17, 1e300]]}"#, "row 0, feature `price`: expected a finite number"),
            (
                r#"{"input": [[null, 1]]}"#,
                "row 0, feature `user_id`: expected a number or a string, not null",
            ),
            (r#"{"input": [[17, null]]}"#, "row 0, feature `price`: expected a number or a string, not null"),
            (r#"{"input": [[17, true]]}"#, "row 0, feature `price`: expected a number or a string"),
            (r#"{"input": [[17, [1]]]}"#, "row 0, feature `price`: expected a number or a string"),
            (r#"{"input": [{"user_id": 17}]}"#, "row 0, feature `price`: is missing"),
            (
                r#"{"input": [{"user_id": 17, "user_id": 17, "price": 1}]}"#,
                "row 0, feature `user_id`: stands twice",
            ),
            (
                r#"{"input": [[17, 1], {"user": 17}]}"#,
                "row 1 names something that is no feature; the features are user_id, price",
            ),
            (r#"{"input": [[17,1],[17,1],[17,1],[17,1],[17,1]]}"#, "`input` holds more than 4 rows"),
        ];
        for (body, expected) in cases {
            assert_eq!(read(body).expect_err(body).to_string(), expected, "{body}");
        }
    }

    #[test]
    fn an_optional_value_may_be_null_and_left_out_of_an_object() {
        let schema: Schema = toml::from_str(
            r#"
            feature = [
              { name = "age", optional = true, kind = "categorical", source = { boundaries = [30] } },
              { name = "at", kind = "categorical", source = "hour_of_day" },
            ]"#,
        )
        .expect("a schema");
        let encoder = Encoder::new(schema, |_| Ok(Vocabulary::default())).expect("a layout");
        let read = |body: &str| -> Result<Vec<i32>, String> {
            let mut rows = Rows::new(encoder.signature());
            decode(body.as_bytes(), &encoder, &mut rows, 4).map_err(|error| error.to_string())?;
            match rows.columns()[0].values() {
                Values::I32(ids) => Ok(ids.clone()),
                Values::F32(_) => panic!("ids are integers"),
            }
        };
        let body = r#"{"input": [[null, 3600], {"at": "2010-11-01T23:00:00Z"}, {"age": 30, "at": 0}]}"#;
        assert_eq!(read(body), Ok(vec![0, 3 + 2, 0, 3 + 24, 2, 3 + 1]));
        let refused = read(r#"{"input": [{"age": 30}]}"#).expect_err("`at` is not optional");
        assert_eq!(refused, "row 0, feature `at`: is missing");
        let refused = read(r#"{"input": [[30, null]]}"#).expect_err("`at` is not optional");
        assert_eq!(refused, "row 0, feature `at`: expected a number or a string, not null");
        let refused = read(r#"{"input": [[30, "noon"]]}"#).expect_err("noon is no time");
        assert!(refused.starts_with("row 0, feature `at`: expected a time"), "{refused}");
    }

    /// The columns of a list of at most three genres, of which two are known, behind a user.
    fn read_lists(body: &str) -> Result<Vec<i32>, String> {
        let schema: Schema = toml::from_str(
            r#"
            feature = [
              { name = "user_id", kind = "categorical", source = { hash = 1 } },
              { name = "genres", optional = true, values = { max = 3, pooling = "mean" }, kind = "categorical",
                source = "vocabulary" },
            ]"#,
        )
        .expect("a schema");
        let vocabulary = |_: &_| Ok(Vocabulary::new(["drama", "7"]).expect("two ids"));
        let encoder = Encoder::new(schema, vocabulary).expect("a layout");
        let mut rows = Rows::new(encoder.signature());
        decode(body.as_bytes(), &encoder, &mut rows, 4).map_err(|error| error.to_string())?;
        match rows.columns()[0].values() {
            Values::I32(ids) => Ok(ids.chunks_exact(4).flat_map(|row| row[1..].to_vec()).collect()),
            Values::F32(_) => panic!("ids are integers"),
        }
    }

    #[test]
    fn a_list_is_an_array_or_one_value_or_null_in_both_kinds_of_rows() {
        // The padding is row 1, then the unknown id, `drama` and `7`.
        let cases = [
            (r#"[[1, ["drama", 7, "x"]]]"#, vec![3, 4, 2]),
            (r#"[[1, "drama"], [1, 7]]"#, vec![3, 1, 1, 4, 1, 1]),
            (r#"[[1, []], [1, null], {"user_id": 1}]"#, vec![1; 9]),
            (r#"[{"genres": ["7", "dr\u0061ma"], "user_id": 1}]"#, vec![4, 3, 1]),
        ];
        for (input, expected) in cases {
            assert_eq!(read_lists(&format!(r#"{{"input": {input}}}"#)), Ok(expected), "{input}");
        }
    }

    #[test]
    fn a_mistake_in_a_list_is_named_with_its_row_and_feature() {
        let cases = [
            (r#"["a", "b", "c", "d"]"#, "expected a list of at most 3 values"),
            (r#"["a", null]"#, "expected a number or a string, not null"),
            ("[1.5]", "expected an id: a string or a 64-bit integer"),
            ("1.5", "expected an id: a string or a 64-bit integer"),
            ("[[1]]", "expected an array of numbers or strings"),
            (r#"[{"a": 1}]"#, "expected an array of numbers or strings"),
            ("[true]", "expected an array of numbers or strings"),
            ("true", "expected an array of numbers or strings"),
            ("{}", "expected an array of numbers or strings"),
        ];
        for (list, expected) in cases {
            let error = read_lists(&format!(r#"{{"input": [[1, []], [1, {list}]]}}"#)).expect_err(list);
            assert_eq!(error, format!("row 1, feature `genres`: {expected}"), "{list}");
            let named = format!(r#"{{"input": [{{"genres": {list}, "user_id": 1}}]}}"#);
            assert_eq!(read_lists(&named).expect_err(list), format!("row 0, feature `genres`: {expected}"));
        }
        let deep = format!(r#"{{"input": [[1, {}"#, "[".repeat(100_000));
        let error = read_lists(&deep).expect_err("deep");
        assert_eq!(error, "row 0, feature `genres`: expected an array of numbers or strings");
        let endless = format!(r#"{{"input": [[1, [{}"#, "1,".repeat(100_000));
        assert!(read_lists(&endless).expect_err("endless").ends_with("at most 3 values"));
    }

    #[test]
    fn what_is_not_json_is_said_without_quoting_it() {
        for body in
            ["", "{", "secret", r#"{"input": [[NaN, 1]]}"#, r#"{"input": [[17, 1]]} secret"#, "\u{feff}{}"]
        {
            let error = read(body).expect_err(body);
            assert!(matches!(error, DecodeError::Syntax(_)), "{body}: {error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        assert!(matches!(read(r#"{"input": [[17, 1e400]]}"#), Err(DecodeError::Syntax(_))));
    }

    #[test]
    fn nesting_a_hundred_thousand_deep_ends_at_the_first_level_that_makes_no_sense() {
        let body = format!(r#"{{"input": {}"#, "[".repeat(100_000));
        assert_eq!(
            read(&body).expect_err("deep").to_string(),
            "row 0, feature `user_id`: expected a number or a string"
        );
    }

    #[test]
    fn scores_are_written_with_as_few_digits_as_tell_them_apart() {
        let mut body = Vec::new();
        encode(&[0.85, 1.0, 0.0, 1e-9, 0.1 + 0.2], &mut body);
        assert_eq!(String::from_utf8_lossy(&body), r#"{"output":[0.85,1.0,0.0,1e-9,0.3]}"#);
    }

    /// A value as a caller might write it, right or wrong.
    fn value() -> impl Strategy<Value = String> {
        prop_oneof![
            6 => (-20_i64..20).prop_map(|number| number.to_string()),
            2 => any::<i64>().prop_map(|number| number.to_string()),
            4 => any::<f64>().prop_map(|number| format!("{number:e}")),
            2 => "-?[0-9]{1,3}(\\.[0-9]{0,3})?([eE][+-]?[0-9]{0,3})?",
            4 => "\"[17xäé\\\\\"u0\u{1}]{0,5}\"",
            1 => "null|true|\\[1\\]|\\{\\}|0{2}|-0|[0-9]{17,22}",
        ]
    }

    fn rows() -> impl Strategy<Value = String> {
        let space = || "[ \n]{0,2}";
        let row = (prop::collection::vec((space(), value(), space()), 1..4)).prop_map(|values| {
            let values: Vec<String> = values.into_iter().map(|(a, value, b)| a + &value + &b).collect();
            format!("[{}]", values.join(","))
        });
        let rows =
            prop::collection::vec(prop_oneof![9 => row, 1 => Just("{\"user_id\": 1}".to_owned())], 0..6);
        (space(), rows, space())
            .prop_map(|(a, rows, b)| format!("{{{a}\"input\":{b}[{}]{a}}}{b}", rows.join(",")))
    }

    proptest! {
        #[test]
        fn the_quick_way_through_a_body_says_what_the_full_decoder_says(
            body in rows(),
            cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        ) {
            let body = cut.map_or(&*body, |cut| {
                let end = cut.index(body.len());
                body.get(..end).unwrap_or(&body)
            });
            let cross = "cross = [{ features = [\"user_id\", \"user_id\"], buckets = 5 }]";
            let encoder = encoder_of(&format!("{FEATURES}{cross}"));
            let read = |decode: &dyn Fn(&mut Rows) -> Result<(), DecodeError>| {
                let mut rows = Rows::new(encoder.signature());
                decode(&mut rows).map(|()| rows)
            };
            let full = read(&|rows| decode_any(body.as_bytes(), &encoder, rows, 4));
            let found = read(&|rows| decode(body.as_bytes(), &encoder, rows, 4));
            prop_assert_eq!(format!("{found:?}"), format!("{full:?}"), "{}", body);
        }

        #[test]
        fn written_scores_read_back_to_the_bit(scores in prop::collection::vec(0.0f32..=1.0, 0..20)) {
            let mut body = Vec::new();
            encode(&scores, &mut body);
            let read: std::collections::HashMap<String, Vec<f32>> = serde_json::from_slice(&body).expect("JSON");
            prop_assert_eq!(&read["output"], &scores);
        }

        #[test]
        fn no_body_makes_the_decoder_panic(body in "[\\[\\]{}\",:0-9a-z\\\\ .+-]{0,80}") {
            let _ = read(&body);
            let _ = read(&format!("{{\"input\":{body}}}"));
            let _ = read_lists(&format!("{{\"input\":{body}}}"));
        }
    }
}
