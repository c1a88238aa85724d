//! The JSON of recommendations: `{"user": 123, "k": 10, "exclude": [5], "candidates": [5, 6, 7]}` to a query, and the best
//! items to `{"output": [{"item": 6, "score": 0.85}, ...]}`.
//!
//! What is wrong is said by the key and the feature, and never by quoting the request.

use std::fmt;

use serde::{
    Deserialize,
    de::{Deserializer, IgnoredAny, MapAccess, Visitor},
};

use crate::{
    features::{Catalogue, Encoder, FeatureError, PairError, Value},
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
    /// One value for a model that needs several, or none.
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
    /// A candidate that the model does not know.
    #[error("`candidates`, place {place}: is no item of the catalogue")]
    UnknownCandidate {
        /// Where it stands, from 0.
        place: usize,
    },
}

/// The query that `body` is, for rows of `encoder` and the items of `catalogue`.
pub fn decode(body: &[u8], encoder: &Encoder, catalogue: &Catalogue) -> Result<Query, QueryError> {
    let Body { user, k, exclude, candidates } = parse(body)?;
    let row = user_row(user.ok_or(QueryError::NoUser)?, encoder, catalogue)?;
    let k = match k {
        None => DEFAULT_ITEMS,
        Some(Typed::As(k)) if (1..=MAX_ITEMS).contains(&k) => k,
        Some(_) => return Err(QueryError::Number),
    };
    let excluded = exclude.map(|ids| numbers(ids, "exclude", catalogue)).transpose()?.unwrap_or_default();
    let excluded = sorted(excluded.into_iter().flatten().collect());
    let candidates = candidates.map(|ids| chosen(ids, catalogue)).transpose()?;
    Ok(Query { row, k, excluded, candidates })
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

/// Each value of its type or of another: so that one of another type is blamed on its key.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Body {
    user: Option<User>,
    k: Option<Typed<usize>>,
    exclude: Option<Typed<Vec<Value>>>,
    candidates: Option<Typed<Vec<Value>>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Typed<T> {
    As(T),
    Otherwise(IgnoredAny),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum User {
    Features(Features),
    One(Value),
}

/// A user's object, in whose order names may come twice.
struct Features(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Features {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Features;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Features, A::Error> {
                let mut features = Vec::new();
                while let Some(feature) = map.next_entry()? {
                    features.push(feature);
                }
                Ok(Features(features))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

fn parse(body: &[u8]) -> Result<Body, QueryError> {
    if body.trim_ascii_start().first() == Some(&b'{') {
        return serde_json::from_slice(body).map_err(|error| explain(&error));
    }
    // An array would be taken for the values of the keys in their order.
    let IgnoredAny = serde_json::from_slice(body).map_err(|error| explain(&error))?;
    Err(QueryError::Body)
}

fn explain(error: &serde_json::Error) -> QueryError {
    // What the parser says of the syntax quotes nothing of the body; what it says of its shape may.
    if error.is_data() { QueryError::Body } else { QueryError::Syntax(error.to_string()) }
}

/// The positional row of `user`, whose values its features take.
fn user_row(user: User, encoder: &Encoder, catalogue: &Catalogue) -> Result<Vec<Value>, QueryError> {
    let users: Vec<usize> = (0..encoder.width()).filter(|&place| !catalogue.is_items(place)).collect();
    let names = || {
        let names: Vec<&str> = users.iter().map(|&place| &*encoder.sent_at(place).name).collect();
        names.join(", ")
    };
    let mut row = vec![Value::Missing; encoder.width()];
    match (user, &users[..]) {
        (User::One(value), &[place]) => row[place] = value,
        (User::One(_), _) => return Err(QueryError::NotAnObject { names: names() }),
        (User::Features(Features(features)), users) => {
            let mut left = users.to_vec();
            for (name, value) in features {
                let place = encoder.position(&name).filter(|place| users.contains(place));
                let place = place.ok_or_else(|| QueryError::UnknownFeature { names: names() })?;
                let Some(at) = left.iter().position(|&other| other == place) else {
                    return Err(QueryError::DuplicateFeature(name));
                };
                left.swap_remove(at);
                row[place] = value;
            }
        }
    }
    // Beside any item.
    let beside_one = catalogue.encode(encoder, &row, [0], &mut Rows::new(encoder.signature()));
    beside_one.map_err(|PairError { position, source }| {
        let feature = encoder.sent_at(position).name.clone();
        QueryError::Feature { feature, source }
    })?;
    Ok(row)
}

/// The item that each of `ids` is; `None` for one that the catalogue does not have.
fn numbers(
    ids: Typed<Vec<Value>>,
    key: &'static str,
    catalogue: &Catalogue,
) -> Result<Vec<Option<u32>>, QueryError> {
    let Typed::As(ids) = ids else { return Err(QueryError::Ids(key)) };
    let number = |id: &Value| match id {
        Value::Int(_) | Value::Text(_) => Ok(catalogue.number(id.raw())),
        _ => Err(QueryError::Ids(key)),
    };
    ids.iter().map(number).collect()
}

/// The candidates' items, ascending, each once.
fn chosen(ids: Typed<Vec<Value>>, catalogue: &Catalogue) -> Result<Vec<u32>, QueryError> {
    let numbers = numbers(ids, "candidates", catalogue)?.into_iter().enumerate();
    let known = numbers.map(|(place, number)| number.ok_or(QueryError::UnknownCandidate { place }));
    Ok(sorted(known.collect::<Result<_, _>>()?))
}

fn sorted(mut items: Vec<u32>) -> Vec<u32> {
    items.sort_unstable();
    items.dedup();
    items
}

/// The most items that are answered at once.
pub const MAX_ITEMS: usize = 1000;
/// The items that are answered unless the request says how many.
const DEFAULT_ITEMS: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::{Schema, Vocabulary};

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

    fn simple(body: &str) -> Result<Query, QueryError> {
        let (encoder, catalogue) = parts(&[USER, ITEM].join(","));
        decode(body.as_bytes(), &encoder, &catalogue)
    }

    fn aged(body: &str) -> Result<Query, QueryError> {
        let (encoder, catalogue) = parts(&[AGE, ITEM, USER].join(","));
        decode(body.as_bytes(), &encoder, &catalogue)
    }

    #[test]
    fn a_query_says_who_how_many_without_what_and_among_what() {
        let query = simple(r#"{"user": 1, "k": 2, "exclude": [7, "9", 5], "candidates": ["x", 7, "7"]}"#);
        let expected = Query {
            row: vec![Value::Int(1), Value::Missing],
            k: 2,
            excluded: vec![0, 2],
            candidates: Some(vec![1, 2]),
        };
        assert_eq!(query, Ok(expected));
        let least = Query {
            row: vec![Value::Text("1".into()), Value::Missing],
            k: 10,
            excluded: vec![],
            candidates: None,
        };
        assert_eq!(simple(r#"{"user": {"user": "1"}}"#), Ok(least));
    }

    #[test]
    fn a_user_of_several_features_is_an_object() {
        let row = |query: Result<Query, QueryError>| query.expect("a query").row;
        let expected = [Value::Float(30.5), Value::Missing, Value::Int(1)];
        assert_eq!(row(aged(r#"{"user": {"user": 1, "age": 30.5}}"#)), expected);
        assert_eq!(row(aged(r#"{"user": {"user": 1}}"#))[0], Value::Missing);
        let names = || "age, user".to_owned();
        assert_eq!(aged(r#"{"user": 1}"#), Err(QueryError::NotAnObject { names: names() }));
        for of_none in [r#"{"user": {"user": 1, "item": 5}}"#, r#"{"user": {"user": 1, "size": 5}}"#] {
            assert_eq!(aged(of_none), Err(QueryError::UnknownFeature { names: names() }));
        }
        assert_eq!(
            aged(r#"{"user": {"user": 1, "user": 2}}"#),
            Err(QueryError::DuplicateFeature("user".into()))
        );
        let missing = QueryError::Feature { feature: "user".into(), source: FeatureError::Missing };
        assert_eq!(aged(r#"{"user": {"age": 3}}"#), Err(missing));
    }

    #[test]
    fn what_is_wrong_is_blamed_on_its_key() {
        for (body, error) in [
            ("[]", QueryError::Body),
            ("[1, 5, [], []]", QueryError::Body),
            (r#"{"user": 1, "user": 2}"#, QueryError::Body),
            (r#"{"user": 1, "colour": 2}"#, QueryError::Body),
            (r#"{"k": 3}"#, QueryError::NoUser),
            (r#"{"user": 1, "k": 0}"#, QueryError::Number),
            (r#"{"user": 1, "k": 1001}"#, QueryError::Number),
            (r#"{"user": 1, "k": 1.5}"#, QueryError::Number),
            (r#"{"user": 1, "k": "5"}"#, QueryError::Number),
            (r#"{"user": 1, "exclude": 5}"#, QueryError::Ids("exclude")),
            (r#"{"user": 1, "exclude": [null]}"#, QueryError::Ids("exclude")),
            (r#"{"user": 1, "candidates": [[5]]}"#, QueryError::Ids("candidates")),
            (r#"{"user": 1, "candidates": [5, 6]}"#, QueryError::UnknownCandidate { place: 1 }),
        ] {
            assert_eq!(simple(body), Err(error), "{body}");
        }
        assert!(matches!(simple(r#"{"user": 1"#), Err(QueryError::Syntax(_))));
        let error = simple(r#"{"user": 0.5}"#).expect_err("no id").to_string();
        assert_eq!(error, "`user`, feature `user`: expected an id: a string or a 64-bit integer");
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
