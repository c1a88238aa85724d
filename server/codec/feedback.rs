//! The body of feedback: `{"events": [..]}`, each what became of a row of an answer, or something that happened.

use serde::Deserialize;

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
        "line {line}, column {column}: expected {{\"events\": [..]}} of objects with a text `receipt`, `row` and `label`, 0, 1 or a truth, or with a text `id`, and a flat object `record`"
    )]
    Shape {
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
    },
    /// It has none, or too many.
    #[error("`events` must have 1 to {MAX_EVENTS} events")]
    Events,
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
    events: Vec<RawEvent>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEvent {
    receipt: Option<String>,
    row: Option<usize>,
    label: Option<RawLabel>,
    id: Option<String>,
    record: Option<Record>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawLabel {
    Bool(bool),
    Int(u64),
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
    if events.is_empty() || events.len() > MAX_EVENTS {
        return Err(FeedbackDecodeError::Events);
    }
    let told = events
        .into_iter()
        .enumerate()
        .map(|(event, raw)| raw.told().map_err(|reason| FeedbackDecodeError::Event { event, reason }));
    told.collect()
}

impl RawEvent {
    fn told(self) -> Result<Told, &'static str> {
        let fits = |record: &Record| {
            record.len() <= MAX_COLUMNS && record.keys().all(|name| name.len() <= MAX_NAME_BYTES)
        };
        if !self.record.as_ref().is_none_or(fits) {
            return Err("a record has 256 columns at most, with names of 128 bytes at most");
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
                    ("gone", Scalar::Missing(())),
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
            (r#"{"receipt": "r", "label": 1, "score": 1}"#, "expected {\"events\""),
            (r#"{"id": "e", "record": {"list": [1]}}"#, "flat object"),
        ] {
            let body = format!(r#"{{"events": [{{"id": "a", "record": {{}}}}, {event}]}}"#);
            assert!(error(&body).contains(reason), "{event}: {}", error(&body));
        }
        assert_eq!(error(r#"{"events": ["#), "line 1, column 12: the body is not JSON");
        let name = "n".repeat(129);
        let long = format!(r#"{{"events": [{{"id": "a", "record": {{"{name}": 1}}}}]}}"#);
        assert!(error(&long).contains("256 columns"), "{}", error(&long));
        let many = vec![r#"{"id": "a", "record": {}}"#; MAX_EVENTS + 1].join(",");
        for body in [r#"{"events": []}"#.to_owned(), format!(r#"{{"events": [{many}]}}"#)] {
            assert!(error(&body).contains("1 to 1000"), "{}", error(&body));
        }
    }
}
