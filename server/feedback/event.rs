//! What callers tell: that something became of an answer, or that something happened at all.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, Unexpected, Visitor},
};

/// Columns of a training log, by name.
pub type Record = BTreeMap<String, Scalar>;

/// One value of a record, in JSON as it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Scalar {
    /// Nothing.
    Missing,
    /// A truth.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// An id, a time or another text.
    Text(String),
}

impl<'de> Deserialize<'de> for Scalar {
    /// Refuses whole numbers that do not fit: as floats, two ids could become one.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("null, a truth, a number, whole ones of 64 bits with a sign, or a text")
            }

            fn visit_unit<E>(self) -> Result<Scalar, E> {
                Ok(Scalar::Missing)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Scalar, E> {
                Ok(Scalar::Bool(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Scalar, E> {
                Ok(Scalar::Int(value))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Scalar, E> {
                let value =
                    i64::try_from(value).map_err(|_| E::invalid_value(Unexpected::Unsigned(value), &self))?;
                Ok(Scalar::Int(value))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Scalar, E> {
                Ok(Scalar::Float(value))
            }

            fn visit_str<E>(self, value: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(value.to_owned()))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// What a caller says, before anybody has looked whether it is true.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// What became of a row of an answer.
    Label {
        /// The answer's receipt.
        receipt: String,
        /// The row, from 0.
        row: usize,
        /// Whether the event happened.
        label: bool,
        /// The row as a training log would have it.
        record: Option<Record>,
    },
    /// A row of a training log.
    Behaviour {
        /// Tells it from all others; the same id is the same event.
        id: String,
        /// The row.
        record: Record,
    },
}

/// An event as the log has it, one JSON object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// What became of a row of an answer; its receipt was good.
    Label(Label),
    /// A row of a training log.
    Behaviour {
        /// The caller's id of it.
        id: String,
        /// When it came in, in milliseconds since 1970.
        received_ms: u64,
        /// The row.
        record: Record,
    },
}

/// The label of a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Label {
    /// The serial of the receipt.
    pub receipt: u64,
    /// The row of the answer, from 0.
    pub row: u32,
    /// When the label came in, in milliseconds since 1970.
    pub received_ms: u64,
    /// When the answer was given, in milliseconds since 1970.
    pub answered_ms: u64,
    /// The model that answered.
    pub model: String,
    /// Its version.
    pub version: u64,
    /// The score that it answered, within 1 / 131070.
    pub score: f32,
    /// Whether the event happened.
    pub label: bool,
    /// The row as a training log would have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Record>,
}

/// What makes two events the same one: a hash that does not collide by chance.
pub(super) type EventKey = u128;

impl Event {
    /// The key of the event: a row has one label, a caller's id one event.
    pub fn key(&self) -> EventKey {
        let mut hasher = blake3::Hasher::new();
        match self {
            Self::Label(Label { receipt, row, .. }) => {
                hasher.update(b"label").update(&receipt.to_le_bytes()).update(&row.to_le_bytes())
            }
            Self::Behaviour { id, .. } => hasher.update(b"event").update(id.as_bytes()),
        };
        let hash = hasher.finalize();
        u128::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash is longer"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(receipt: u64, row: u32, label: bool) -> Event {
        let model = "shop".to_owned();
        let (received_ms, answered_ms, version, score) = (2, 1, 3, 0.5);
        Event::Label(Label {
            receipt,
            row,
            received_ms,
            answered_ms,
            model,
            version,
            score,
            label,
            record: None,
        })
    }

    #[test]
    fn an_event_is_one_json_object_and_comes_back_from_it() {
        let record = Record::from([
            ("at".to_owned(), Scalar::Text("2026-11-27".to_owned())),
            ("gone".to_owned(), Scalar::Missing),
            ("taken".to_owned(), Scalar::Bool(true)),
            ("user".to_owned(), Scalar::Int(i64::MIN)),
            ("price".to_owned(), Scalar::Float(1.5)),
        ]);
        let behaviour = Event::Behaviour { id: "a".into(), received_ms: 1, record };
        for event in [behaviour, label(u64::MAX, 7, true)] {
            let text = serde_json::to_string(&event).expect("JSON");
            assert_eq!(serde_json::from_str::<Event>(&text).expect("an event"), event, "{text}");
        }
    }

    #[test]
    fn a_row_has_one_label_whichever_and_an_id_is_no_row() {
        assert_eq!(label(1, 2, true).key(), label(1, 2, false).key());
        let behaviour = |id: &str| Event::Behaviour { id: id.into(), received_ms: 1, record: Record::new() };
        let keys =
            [label(1, 2, true), label(2, 1, true), behaviour("1"), behaviour("2")].map(|event| event.key());
        for (i, key) in keys.iter().enumerate() {
            assert!(!keys[i + 1..].contains(key), "{i}");
        }
    }
}
