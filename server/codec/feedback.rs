//! The body of feedback: `{"events": [..]}`, each what became of a row of an answer, or something that happened.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};

use crate::feedback::{Record, Told};

/// The most events that a body may have.
pub const MAX_EVENTS: usize = 1_000;

/// The most columns that a record may have.
const MAX_COLUMNS: usize = 256;

/// The longest id of an event, and the longest name of a column, in bytes.
const MAX_NAME_BYTES: usize = 128;

/// Why a body is no feedback.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FeedbackDecodeError {
    /// It is not JSON.
    #[error("line {line}, column {column}: the body is not JSON")]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
    },
    /// A key or a value is of another kind than it should be.
    #[error(
        "line {line}, column {column}: expected {{\"events\": [..]}} of at most 1000 objects with a text `receipt`, `row` and `label`, 0, 1 or a truth, or with a text `id`, and a flat object `record` of at most 256 columns"
    )]
    Shape {
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
    },
    /// It has no event.
    #[error("`events` must have 1 to {MAX_EVENTS} events")]
    Empty,
    /// An event is neither of its kinds, or too large.
    #[error("event {event}: {reason}")]
    Event {
        /// The event, from 0.
        event: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    #[serde(deserialize_with = "events")]
    events: Vec<RawEvent>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEvent {
    receipt: Option<String>,
    row: Option<usize>,
    label: Option<RawLabel>,
    id: Option<String>,
    #[serde(default, deserialize_with = "record")]
    record: Option<Record>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawLabel {
    Bool(bool),
    Int(u64),
}

/// Reads events, and stops at one too many: what a body may hold is small beside what would be made of it.
fn events<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<RawEvent>, D::Error> {
    struct Events;
    impl<'de> Visitor<'de> for Events {
        type Value = Vec<RawEvent>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {MAX_EVENTS} events")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
            let mut events = Vec::new();
            while let Some(event) = sequence.next_element()? {
                if events.len() == MAX_EVENTS {
                    return Err(de::Error::invalid_length(MAX_EVENTS + 1, &self));
                }
                events.push(event);
            }
            Ok(events)
        }
    }
    deserializer.deserialize_seq(Events)
}

/// Reads a record, and stops at one column too many.
fn record<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Record>, D::Error> {
    struct Columns;
    impl<'de> Visitor<'de> for Columns {
        type Value = Option<Record>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a record of at most {MAX_COLUMNS} columns")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut record = Record::new();
            while let Some((name, value)) = map.next_entry()? {
                if record.len() == MAX_COLUMNS {
                    return Err(de::Error::invalid_length(MAX_COLUMNS + 1, &self));
                }
                record.insert(name, value);
            }
            Ok(Some(record))
        }
    }
    deserializer.deserialize_map(Columns)
}

impl From<serde_json::Error> for FeedbackDecodeError {
    /// What serde says quotes the request, which an error never does.
    fn from(error: serde_json::Error) -> Self {
        let (line, column) = (error.line(), error.column());
        if error.is_data() { Self::Shape { line, column } } else { Self::Syntax { line, column } }
    }
}

/// What a body tells.
pub fn decode(body: &[u8]) -> Result<Vec<Told>, FeedbackDecodeError> {
    let Body { events } = serde_json::from_slice(body)?;
    if events.is_empty() {
        return Err(FeedbackDecodeError::Empty);
    }
    let told = events
        .into_iter()
        .enumerate()
        .map(|(event, raw)| raw.told().map_err(|reason| FeedbackDecodeError::Event { event, reason }));
    told.collect()
}

impl RawEvent {
    fn told(self) -> Result<Told, &'static str> {
        let mut names = self.record.iter().flat_map(Record::keys);
        if names.any(|name| name.len() > MAX_NAME_BYTES) {
            return Err("a column's name has 128 bytes at most");
        }
        match self {
            Self { receipt: Some(receipt), row, label: Some(label), id: None, record } => {
                let label = match label {
                    RawLabel::Bool(label) => label,
                    RawLabel::Int(0) => false,
                    RawLabel::Int(1) => true,
                    RawLabel::Int(_) => return Err("`label` must be 0, 1, true or false"),
                };
                Ok(Told::Label { receipt, row: row.unwrap_or(0), label, record })
            }
            Self { receipt: None, row: None, label: None, id: Some(id), record: Some(record) } => {
                if id.is_empty() || id.len() > MAX_NAME_BYTES {
                    return Err("`id` must have 1 to 128 bytes");
                }
                Ok(Told::Behaviour { id, record })
            }
            _ => Err("expected `receipt` and `label`, or `id` and `record`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feedback::Scalar;

    fn error(body: &str) -> String {
        decode(body.as_bytes()).expect_err(body).to_string()
    }

    #[test]
    fn both_kinds_of_event_are_read() {
        let body = r#"{"events": [
            {"receipt": "r", "label": 1},
            {"receipt": "r", "row": 2, "label": false, "record": {"user_id": 7}},
            {"id": "e", "record": {"user_id": "u", "at": 1.5, "gone": null, "taken": true}}
        ]}"#;
        let record = |columns: &[(&str, Scalar)]| -> Record {
            columns.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
        };
        let expected = [
            Told::Label { receipt: "r".into(), row: 0, label: true, record: None },
            Told::Label {
                receipt: "r".into(),
                row: 2,
                label: false,
                record: Some(record(&[("user_id", Scalar::Int(7))])),
            },
            Told::Behaviour {
                id: "e".into(),
                record: record(&[
                    ("user_id", Scalar::Text("u".into())),
                    ("at", Scalar::Float(1.5)),
                    ("gone", Scalar::Missing),
                    ("taken", Scalar::Bool(true)),
                ]),
            },
        ];
        assert_eq!(decode(body.as_bytes()).expect("feedback"), expected);
    }

    #[test]
    fn what_is_neither_is_refused_by_its_place() {
        for (event, reason) in [
            (r#"{"receipt": "r"}"#, "event 1: expected"),
            (r#"{"label": 1}"#, "event 1: expected"),
            (r#"{"id": "e"}"#, "event 1: expected"),
            (r#"{"id": "e", "record": {}, "label": 1}"#, "event 1: expected"),
            (r#"{"id": "", "record": {}}"#, "event 1: `id`"),
            (r#"{"receipt": "r", "label": 2}"#, "event 1: `label`"),
            (r#"{"receipt": "r", "label": "yes"}"#, "0, 1 or a truth"),
            (r#"{"id": "e", "record": {"id": 9223372036854775808}}"#, "flat object"),
            (r#"{"id": "e", "record": null}"#, "flat object"),
            (r#"{"receipt": "r", "label": 1, "score": 1}"#, "expected {\"events\""),
            (r#"{"id": "e", "record": {"list": [1]}}"#, "flat object"),
        ] {
            let body = format!(r#"{{"events": [{{"id": "a", "record": {{}}}}, {event}]}}"#);
            assert!(error(&body).contains(reason), "{event}: {}", error(&body));
        }
        assert_eq!(error(r#"{"events": ["#), "line 1, column 12: the body is not JSON");
        let name = "n".repeat(129);
        let long = format!(r#"{{"events": [{{"id": "a", "record": {{"{name}": 1}}}}]}}"#);
        assert!(error(&long).contains("128 bytes"), "{}", error(&long));
        let columns: Vec<String> = (0..=MAX_COLUMNS).map(|column| format!(r#""{column}": 1"#)).collect();
        let wide = format!(r#"{{"events": [{{"id": "a", "record": {{{}}}}}]}}"#, columns.join(","));
        assert!(error(&wide).contains("at most 256 columns"), "{}", error(&wide));
        let wide = wide.replacen(r#""0": 1,"#, "", 1);
        assert_eq!(decode(wide.as_bytes()).expect("as many as may be").len(), 1);
        let events = |number: usize| {
            format!(r#"{{"events": [{}]}}"#, vec![r#"{"id": "a", "record": {}}"#; number].join(","))
        };
        assert!(error(&events(0)).contains("1 to 1000"), "{}", error(&events(0)));
        assert!(error(&events(MAX_EVENTS + 1)).contains("at most 1000"));
        assert_eq!(decode(events(MAX_EVENTS).as_bytes()).expect("as many as may be").len(), MAX_EVENTS);
    }
}
