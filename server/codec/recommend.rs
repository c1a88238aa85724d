//! The JSON of recommendations: `{"user": 123, "k": 10, "exclude": [5], "candidates": [5, 6, 7]}` to a query, and the best
//! items to `{"output": [{"item": 6, "score": 0.85}, ...]}`.
//!
//! Values and ids go from the text into a row and into numbers of items, without a tree in between. What is wrong is said
//! by the key and the feature, and never by quoting the request.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::{
    features::{Catalogue, Encoder, FeatureError, ListInput, RawValue},
    recommend::{Query, Scored},
    tensor::Rows,
};

/// Why a body asks for nothing that a catalogue could answer.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The body is not JSON.
    #[error("the body is not JSON: {0}")]
    Syntax(String),
    /// The body is JSON of another shape.
    #[error(
        "the body must be an object of `user` and, if need be, `k`, `exclude` and `candidates`, each once"
    )]
    Body,
    /// `user` is missing.
    #[error("the body has no key `user`")]
    NoUser,
    /// One value for a model that needs several.
    #[error("`user` must be an object with the features {names}")]
    NotAnObject {
        /// What callers say of a user.
        names: String,
    },
    /// The user's object names something that is no feature of a user.
    #[error("`user` names something that is no feature of a user; those are {names}")]
    UnknownFeature {
        /// The names that there are.
        names: String,
    },
    /// The user's object names a feature twice.
    #[error("`user`, feature `{0}`: stands twice")]
    DuplicateFeature(String),
    /// The user's object leaves a feature out that is not optional.
    #[error("`user`, feature `{0}`: is missing")]
    MissingFeature(String),
    /// A value is neither a number nor a string.
    #[error("`user`, feature `{0}`: expected a number or a string")]
    Value(String),
    /// What stands for a list is none.
    #[error("`user`, feature `{0}`: expected an array of numbers or strings")]
    List(String),
    /// A value of the user's that its feature cannot take.
    #[error("`user`, feature `{feature}`: {source}")]
    Feature {
        /// The feature.
        feature: String,
        /// What is wrong with it.
        #[source]
        source: FeatureError,
    },
    /// `k` is out of range.
    #[error("`k` must be a whole number from 1 to {MAX_ITEMS}")]
    Number,
    /// What stands for a list of items is none.
    #[error("`{0}` must be an array of ids, each a string or a 64-bit integer")]
    Ids(&'static str),
    /// More ids than a request may name.
    #[error("`{0}` holds more than {MAX_IDS} ids")]
    TooManyIds(&'static str),
    /// A candidate that the model does not know.
    #[error("`candidates`, place {place}: is no item of the catalogue")]
    UnknownCandidate {
        /// Where it stands, from 0.
        place: usize,
    },
}

/// The query that `body` is, for rows of `encoder` and the items of `catalogue`.
pub fn decode(body: &[u8], encoder: &Encoder, catalogue: &Catalogue) -> Result<Query, QueryError> {
    let mut user = Rows::new(encoder.signature());
    user.push_zeroed();
    let query = Query { user, k: DEFAULT_ITEMS, excluded: Vec::new(), candidates: None };
    let mut decoder = Decoder { encoder, catalogue, query, blame: QueryError::Body, error: None };
    let mut json = serde_json::Deserializer::from_slice(body);
    let result = json.deserialize_any(Body(&mut decoder)).and_then(|()| json.end());
    match result {
        Ok(()) => Ok(decoder.query),
        Err(error) => Err(decoder.explain(&error)),
    }
}

/// Appends `{"output":[...]}` to `body`.
pub fn encode(best: &[Scored], catalogue: &Catalogue, body: &mut Vec<u8>) {
    body.extend_from_slice(b"{\"output\":[");
    let mut digits = zmij::Buffer::new();
    for (place, scored) in best.iter().enumerate() {
        body.extend_from_slice(if place == 0 { b"{\"item\":" } else { b",{\"item\":" });
        serde_json::to_writer(&mut *body, catalogue.id(scored.item)).expect("an id is JSON");
        body.extend_from_slice(b",\"score\":");
        body.extend_from_slice(digits.format_finite(scored.score).as_bytes());
        body.push(b'}');
    }
    body.extend_from_slice(b"]}");
}

/// What has been read so far.
struct Decoder<'a> {
    encoder: &'a Encoder,
    catalogue: &'a Catalogue,
    query: Query,
    /// What a value of the wrong type is blamed on, where one comes next.
    blame: QueryError,
    error: Option<QueryError>,
}

impl Decoder<'_> {
    /// Keeps the error for [`Decoder::explain`] and stops the parser.
    fn fail<T, E: de::Error>(&mut self, error: QueryError) -> Result<T, E> {
        self.error = Some(error);
        Err(E::custom("explained by the decoder"))
    }

    /// What to tell the client: the decoder's own judgement, else that a value of the wrong type stood where one was last
    /// expected, else what the parser says of the syntax, which quotes nothing of the body.
    fn explain(self, error: &serde_json::Error) -> QueryError {
        match self.error {
            Some(error) => error,
            None if error.is_data() => self.blame,
            None => QueryError::Syntax(error.to_string()),
        }
    }

    /// The positions of what callers say of a user.
    fn users(&self) -> impl Iterator<Item = usize> {
        let catalogue = self.catalogue;
        (0..self.encoder.width()).filter(move |&position| !catalogue.is_items(position))
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.users().map(|position| &*self.encoder.sent_at(position).name).collect();
        names.join(", ")
    }

    fn name(&self, position: usize) -> String {
        self.encoder.sent_at(position).name.clone()
    }

    fn set<E: de::Error>(&mut self, position: usize, value: RawValue<'_>) -> Result<(), E> {
        match self.encoder.set(&mut self.query.user, position, value) {
            Ok(()) => Ok(()),
            Err(source) => self.refuse(position, source),
        }
    }

    fn refuse<E: de::Error>(&mut self, position: usize, source: FeatureError) -> Result<(), E> {
        let feature = self.name(position);
        self.fail(QueryError::Feature { feature, source })
    }

    /// A name that the user's object leaves out is as good as `null`, where the feature is optional.
    fn leave_out<E: de::Error>(&mut self, position: usize) -> Result<(), E> {
        if self.encoder.sent_at(position).optional {
            return self.set(position, RawValue::Missing);
        }
        let feature = self.name(position);
        self.fail(QueryError::MissingFeature(feature))
    }

    /// The one feature of a user; an error where there are several.
    fn only<E: de::Error>(&mut self) -> Result<usize, E> {
        let first_two = {
            let mut users = self.users();
            (users.next(), users.next())
        };
        if let (Some(position), None) = first_two {
            return Ok(position);
        }
        let names = self.names();
        self.fail(QueryError::NotAnObject { names })
    }
}

struct Body<'a, 'b>(&'a mut Decoder<'b>);

impl<'de> Visitor<'de> for Body<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with the key `user`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let decoder = self.0;
        let mut seen = [false; KEYS.len()];
        while let Some(key) =
            map.next_key_seed(Name(|name: &str| KEYS.iter().position(|key| *key == name)))?
        {
            match key {
                Some(key) if !seen[key] => seen[key] = true,
                _ => return decoder.fail(QueryError::Body),
            }
            match key.map(|key| KEYS[key]) {
                Some("user") => map.next_value_seed(User(decoder))?,
                Some("k") => {
                    decoder.blame = QueryError::Number;
                    map.next_value_seed(Count(decoder))?;
                }
                Some("exclude") => {
                    // What the catalogue does not have is excluded already.
                    let ids = ids(decoder, "exclude", &mut map)?;
                    decoder.query.excluded = sorted(ids.into_iter().flatten().collect());
                }
                _ => {
                    let ids = ids(decoder, "candidates", &mut map)?;
                    if let Some(place) = ids.iter().position(Option::is_none) {
                        return decoder.fail(QueryError::UnknownCandidate { place });
                    }
                    decoder.query.candidates = Some(sorted(ids.into_iter().flatten().collect()));
                }
            }
            decoder.blame = QueryError::Body;
        }
        if seen[0] { Ok(()) } else { decoder.fail(QueryError::NoUser) }
    }
}

/// What `find` makes of a key, without a copy of it.
struct Name<F>(F);

impl<'de, T, F: FnOnce(&str) -> T> DeserializeSeed<'de> for Name<F> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<T, F: FnOnce(&str) -> T> Visitor<'_> for Name<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<T, E> {
        Ok((self.0)(name))
    }
}

/// Hands the scalars of a [`Visitor`] to its method `scalar`; the type is a seed as well, of whatever comes.
macro_rules! scalars {
    ($visitor:ty, $($others:item)*) => {
        impl<'de> DeserializeSeed<'de> for $visitor {
            type Value = ();

            fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
                deserializer.deserialize_any(self)
            }
        }

        impl<'de> Visitor<'de> for $visitor {
            type Value = ();

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<(), E> {
                self.scalar(RawValue::Int(value))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<(), E> {
                self.scalar(i64::try_from(value).map_or(RawValue::Float(value as f64), RawValue::Int))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<(), E> {
                self.scalar(RawValue::Float(value))
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<(), E> {
                self.scalar(RawValue::Text(value))
            }

            fn visit_unit<E: de::Error>(self) -> Result<(), E> {
                self.scalar(RawValue::Missing)
            }

            $($others)*
        }
    };
}

/// The user: an object of features, or the value of the only one.
struct User<'a, 'b>(&'a mut Decoder<'b>);

impl User<'_, '_> {
    fn scalar<E: de::Error>(self, value: RawValue<'_>) -> Result<(), E> {
        let position = self.0.only()?;
        self.0.set(position, value)
    }
}

scalars! {
    User<'_, '_>,
    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        let position = self.0.only()?;
        let feature = self.0.name(position);
        self.0.fail(QueryError::Value(feature))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, values: A) -> Result<(), A::Error> {
        let position = self.0.only()?;
        Feature { decoder: self.0, position }.visit_seq(values)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut values: A) -> Result<(), A::Error> {
        let decoder = self.0;
        let mut left: Vec<usize> = decoder.users().collect();
        let encoder = decoder.encoder;
        while let Some(position) = values.next_key_seed(Name(|name: &str| encoder.position(name)))? {
            let Some(position) = position.filter(|&position| !decoder.catalogue.is_items(position)) else {
                let names = decoder.names();
                return decoder.fail(QueryError::UnknownFeature { names });
            };
            let Some(place) = left.iter().position(|&other| other == position) else {
                let feature = decoder.name(position);
                return decoder.fail(QueryError::DuplicateFeature(feature));
            };
            left.swap_remove(place);
            decoder.blame = QueryError::Value(decoder.name(position));
            values.next_value_seed(Feature { decoder, position })?;
        }
        left.sort_unstable();
        left.into_iter().try_for_each(|position| decoder.leave_out(position))
    }
}

/// The value of one of a user's features.
struct Feature<'a, 'b> {
    decoder: &'a mut Decoder<'b>,
    position: usize,
}

impl Feature<'_, '_> {
    fn scalar<E: de::Error>(self, value: RawValue<'_>) -> Result<(), E> {
        self.decoder.set(self.position, value)
    }
}

scalars! {
    Feature<'_, '_>,
    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<(), A::Error> {
        let Self { decoder, position } = self;
        let Some(mut list) = decoder.encoder.list(position) else {
            let feature = decoder.name(position);
            return decoder.fail(QueryError::Value(feature));
        };
        decoder.blame = QueryError::List(decoder.name(position));
        while values.next_element_seed(Element { decoder, position, list: &mut list })?.is_some() {}
        list.finish(&mut decoder.query.user);
        Ok(())
    }
}

/// A value of a list.
struct Element<'a, 'b, 'l> {
    decoder: &'a mut Decoder<'b>,
    position: usize,
    list: &'a mut ListInput<'l>,
}

impl Element<'_, '_, '_> {
    fn scalar<E: de::Error>(self, value: RawValue<'_>) -> Result<(), E> {
        match self.list.push(&mut self.decoder.query.user, value) {
            Ok(()) => Ok(()),
            Err(source) => self.decoder.refuse(self.position, source),
        }
    }
}

scalars! { Element<'_, '_, '_>, }

/// How many items are wanted.
struct Count<'a, 'b>(&'a mut Decoder<'b>);

impl Count<'_, '_> {
    fn scalar<E: de::Error>(self, value: RawValue<'_>) -> Result<(), E> {
        let k = if let RawValue::Int(k) = value { usize::try_from(k).unwrap_or(0) } else { 0 };
        if !(1..=MAX_ITEMS).contains(&k) {
            return self.0.fail(QueryError::Number);
        }
        self.0.query.k = k;
        Ok(())
    }
}

scalars! { Count<'_, '_>, }

/// The items that the value of `key` names; `None` for those that the catalogue does not have.
fn ids<'de, A: MapAccess<'de>>(
    decoder: &mut Decoder<'_>,
    key: &'static str,
    map: &mut A,
) -> Result<Vec<Option<u32>>, A::Error> {
    let mut items = Vec::new();
    decoder.blame = QueryError::Ids(key);
    map.next_value_seed(Ids { decoder, key, items: &mut items })?;
    Ok(items)
}

struct Ids<'a, 'b> {
    decoder: &'a mut Decoder<'b>,
    key: &'static str,
    items: &'a mut Vec<Option<u32>>,
}

impl<'de> DeserializeSeed<'de> for Ids<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Ids<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of ids")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut ids: A) -> Result<(), A::Error> {
        let Self { decoder, key, items } = self;
        while ids.next_element_seed(Id { decoder, key, items })?.is_some() {
            if items.len() > MAX_IDS {
                return decoder.fail(QueryError::TooManyIds(key));
            }
        }
        Ok(())
    }
}

struct Id<'a, 'b> {
    decoder: &'a mut Decoder<'b>,
    key: &'static str,
    items: &'a mut Vec<Option<u32>>,
}

impl Id<'_, '_> {
    fn scalar<E: de::Error>(self, id: RawValue<'_>) -> Result<(), E> {
        if !matches!(id, RawValue::Int(_) | RawValue::Text(_)) {
            return self.decoder.fail(QueryError::Ids(self.key));
        }
        self.items.push(self.decoder.catalogue.number(id));
        Ok(())
    }
}

scalars! { Id<'_, '_>, }

fn sorted(mut items: Vec<u32>) -> Vec<u32> {
    items.sort_unstable();
    items.dedup();
    items
}

/// The keys of a body; the first one must be there.
const KEYS: [&str; 4] = ["user", "k", "exclude", "candidates"];
/// The most items that are answered at once.
pub const MAX_ITEMS: usize = 1000;
/// The most ids of a list: they are read on a thread that serves, some 50 nanoseconds each.
pub const MAX_IDS: usize = 100_000;
/// The items that are answered unless the request says how many.
const DEFAULT_ITEMS: usize = 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::features::{Schema, Value, Vocabulary};

    fn parts(features: &str) -> (Encoder, Catalogue) {
        let schema: Schema = toml::from_str(&format!("feature = [{features}]")).expect("a schema");
        let encoder =
            Encoder::new(schema, |_| Ok(Vocabulary::new(["1", "x"]).expect("ids"))).expect("a layout");
        let items = vec![vec![Value::Int(5)], vec![Value::Text("x".into())], vec![Value::Int(7)]];
        let catalogue = Catalogue::new(&encoder, "item".into(), &["item".into()], items).expect("items");
        (encoder, catalogue)
    }

    const USER: &str = r#"{ name = "user", kind = "categorical", source = "vocabulary" }"#;
    const ITEM: &str = r#"{ name = "item", kind = "categorical", source = "vocabulary" }"#;
    const AGE: &str = r#"{ name = "age", kind = "numeric", mean = 0.0, std = 1.0, optional = true }"#;
    const TAGS: &str = r#"{ name = "tags", kind = "categorical", source = "vocabulary", values = { max = 2, pooling = "sum" } }"#;

    fn decoded(features: &[&str], body: &str) -> Result<Query, QueryError> {
        let (encoder, catalogue) = parts(&features.join(","));
        decode(body.as_bytes(), &encoder, &catalogue)
    }

    fn simple(body: &str) -> Result<Query, QueryError> {
        decoded(&[USER, ITEM], body)
    }

    fn aged(body: &str) -> Result<Query, QueryError> {
        decoded(&[AGE, ITEM, USER], body)
    }

    /// The user of a row, as the catalogue makes it.
    fn user(features: &[&str], row: &[Value]) -> Rows {
        let (encoder, catalogue) = parts(&features.join(","));
        catalogue.user(&encoder, row).expect("a user")
    }

    #[test]
    fn a_query_says_who_how_many_without_what_and_among_what() {
        let query = simple(r#"{"user": 1, "k": 2, "exclude": [7, "9", 5], "candidates": ["x", 7, "7"]}"#);
        let one = user(&[USER, ITEM], &[Value::Int(1), Value::Missing]);
        let expected = Query { user: one.clone(), k: 2, excluded: vec![0, 2], candidates: Some(vec![1, 2]) };
        assert_eq!(query, Ok(expected));
        let least = Query { user: one, k: 10, excluded: vec![], candidates: None };
        assert_eq!(simple(r#"{"user": {"user": "1"}}"#), Ok(least));
    }

    #[test]
    fn a_user_of_several_features_is_an_object() {
        let features = [AGE, ITEM, USER];
        let found = |query: Result<Query, QueryError>| query.expect("a query").user;
        let expected = user(&features, &[Value::Float(30.5), Value::Missing, Value::Int(1)]);
        assert_eq!(found(aged(r#"{"user": {"user": 1, "age": 30.5}}"#)), expected);
        let expected = user(&features, &[Value::Missing, Value::Missing, Value::Int(1)]);
        assert_eq!(found(aged(r#"{"user": {"user": 1}}"#)), expected);
        assert_eq!(found(aged(r#"{"user": {"user": 1, "age": null}}"#)), expected);
        let names = || "age, user".to_owned();
        assert_eq!(aged(r#"{"user": 1}"#), Err(QueryError::NotAnObject { names: names() }));
        for of_none in [r#"{"user": {"user": 1, "item": 5}}"#, r#"{"user": {"user": 1, "size": 5}}"#] {
            assert_eq!(aged(of_none), Err(QueryError::UnknownFeature { names: names() }));
        }
        let twice = QueryError::DuplicateFeature("user".into());
        assert_eq!(aged(r#"{"user": {"user": 1, "user": 2}}"#), Err(twice));
        assert_eq!(aged(r#"{"user": {"age": 3}}"#), Err(QueryError::MissingFeature("user".into())));
    }

    #[test]
    fn a_list_is_an_array_or_one_value() {
        let features = [TAGS, ITEM];
        let found = |body: &str| decoded(&features, body).map(|query| query.user);
        let list = |values: Vec<Value>| user(&features, &[Value::List(values), Value::Missing]);
        assert_eq!(found(r#"{"user": ["x", 1]}"#), Ok(list(vec![Value::Text("x".into()), Value::Int(1)])));
        assert_eq!(found(r#"{"user": "x"}"#), Ok(list(vec![Value::Text("x".into())])));
        assert_eq!(found(r#"{"user": {"tags": []}}"#), Ok(list(vec![])));
        assert_eq!(found(r#"{"user": null}"#), Ok(list(vec![])));
        let too_many = FeatureError::TooMany { max: 2 };
        let refused = QueryError::Feature { feature: "tags".into(), source: too_many };
        assert_eq!(found(r#"{"user": {"tags": [1, 1, 1]}}"#), Err(refused));
        for nested in [r#"{"user": [[1]]}"#, r#"{"user": {"tags": [true]}}"#] {
            assert_eq!(found(nested), Err(QueryError::List("tags".into())), "{nested}");
        }
    }

    #[test]
    fn what_is_wrong_is_blamed_on_its_key_or_its_feature() {
        let feature = |source| QueryError::Feature { feature: "user".into(), source };
        for (body, error) in [
            ("[]", QueryError::Body),
            ("[1, 5, [], []]", QueryError::Body),
            ("1", QueryError::Body),
            (r#"{"user": 1, "user": 2}"#, QueryError::Body),
            (r#"{"user": 1, "colour": 2}"#, QueryError::Body),
            (r#"{"k": 3}"#, QueryError::NoUser),
            (r#"{"user": 1, "k": 0}"#, QueryError::Number),
            (r#"{"user": 1, "k": -1}"#, QueryError::Number),
            (r#"{"user": 1, "k": 1001}"#, QueryError::Number),
            (r#"{"user": 1, "k": 1.5}"#, QueryError::Number),
            (r#"{"user": 1, "k": "5"}"#, QueryError::Number),
            (r#"{"user": 1, "k": [5]}"#, QueryError::Number),
            (r#"{"user": 1, "exclude": 5}"#, QueryError::Ids("exclude")),
            (r#"{"user": 1, "exclude": [null]}"#, QueryError::Ids("exclude")),
            (r#"{"user": 1, "exclude": [1.5]}"#, QueryError::Ids("exclude")),
            (r#"{"user": 1, "candidates": [[5]]}"#, QueryError::Ids("candidates")),
            (r#"{"user": 1, "candidates": [5, 6]}"#, QueryError::UnknownCandidate { place: 1 }),
            (r#"{"user": null}"#, feature(FeatureError::Missing)),
            (r#"{"user": 0.5}"#, feature(FeatureError::NotAnId)),
            (r#"{"user": true}"#, QueryError::Value("user".into())),
            (r#"{"user": [1]}"#, QueryError::Value("user".into())),
            (r#"{"user": {"user": {}}}"#, QueryError::Value("user".into())),
            (r#"{"user": {"user": [1]}}"#, QueryError::Value("user".into())),
        ] {
            assert_eq!(simple(body), Err(error), "{body}");
        }
        for broken in [r#"{"user": 1"#, r#"{"user": 1} x"#, ""] {
            assert!(matches!(simple(broken), Err(QueryError::Syntax(_))), "{broken}");
        }
    }

    #[test]
    fn more_ids_than_a_request_may_name_are_refused() {
        let ids = |count: usize| format!(r#"{{"user": 1, "exclude": [{}]}}"#, vec!["5"; count].join(","));
        assert_eq!(simple(&ids(MAX_IDS)).expect("as many as may be").excluded, [0]);
        assert_eq!(simple(&ids(MAX_IDS + 1)), Err(QueryError::TooManyIds("exclude")));
    }

    proptest! {
        #[test]
        fn whatever_a_body_holds_is_refused_or_a_query_within_bounds(
            user in "[\\[\\]{}\",:a-z0-9 .-]{0,20}",
            k in "[0-9.e-]{1,5}",
            ids in proptest::collection::vec("[5-9]|\"x\"|null", 0..9),
        ) {
            let ids = ids.join(",");
            for user in ["1", &user] {
                let body = format!(r#"{{"user":{user},"k":{k},"exclude":[{ids}],"candidates":[{ids}]}}"#);
                for query in [simple(&body), aged(&body), decoded(&[TAGS, ITEM], &body)].into_iter().flatten() {
                    prop_assert!((1..=MAX_ITEMS).contains(&query.k));
                    prop_assert_eq!(query.user.len(), 1);
                    prop_assert!(query.excluded.is_sorted() && query.excluded.iter().all(|&item| item < 3));
                    prop_assert_eq!(query.candidates, Some(query.excluded), "the same ids");
                }
            }
        }
    }

    #[test]
    fn items_are_answered_by_their_ids() {
        let (_, catalogue) = parts(&[USER, ITEM].join(","));
        let mut body = Vec::new();
        encode(&[Scored { item: 1, score: 0.5 }, Scored { item: 0, score: 0.25 }], &catalogue, &mut body);
        assert_eq!(
            String::from_utf8(body).expect("UTF-8"),
            r#"{"output":[{"item":"x","score":0.5},{"item":5,"score":0.25}]}"#
        );
        let mut body = Vec::new();
        encode(&[], &catalogue, &mut body);
        assert_eq!(body, br#"{"output":[]}"#);
    }
}
