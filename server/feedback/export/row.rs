//! The row of a training log that an event is.

use std::time::Duration;

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::feedback::{Event, Label, Record, Scalar};

/// The columns of a training log that a label fills in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// Whether the event happened: 1 or 0.
    pub label: Option<String>,
    /// When the answer was given, in RFC 3339, where the record does not say when.
    pub time: Option<String>,
}

/// What our own columns begin with; a record's that do are left out.
const OURS: &str = "millrace_";

/// The row: the record of the event, the label where it is one, and what is known of both, in columns of our own.
pub(super) fn row(event: Event, columns: &Columns) -> Record {
    let (mut row, ours) = match event {
        Event::Behaviour { id, received_ms, record } => {
            (record, vec![("millrace_event", Scalar::Text(id)), ("millrace_received_ms", whole(received_ms))])
        }
        Event::Label(label) => labelled(label, columns),
    };
    row.retain(|column, _| !column.starts_with(OURS));
    row.extend(ours.into_iter().map(|(column, value)| (column.to_owned(), value)));
    row
}

fn labelled(label: Label, columns: &Columns) -> (Record, Vec<(&'static str, Scalar)>) {
    let Label { receipt, row, received_ms, answered_ms, model, version, score, label, record } = label;
    let mut record = record.unwrap_or_default();
    if let Some(column) = &columns.label {
        record.insert(column.clone(), Scalar::Int(i64::from(label)));
    }
    if let Some((column, time)) = columns.time.as_ref().zip(moment(answered_ms)) {
        record.entry(column.clone()).or_insert(Scalar::Text(time));
    }
    let ours = vec![
        ("millrace_event", Scalar::Text(format!("{receipt:016x}/{row}"))),
        ("millrace_received_ms", whole(received_ms)),
        ("millrace_answered_ms", whole(answered_ms)),
        ("millrace_model", Scalar::Text(model)),
        ("millrace_version", whole(version)),
        ("millrace_score", Scalar::Float(f64::from(score))),
        ("millrace_label", Scalar::Bool(label)),
    ];
    (record, ours)
}

/// A whole number, as a text where it is beyond those of 64 bits with a sign.
fn whole(number: u64) -> Scalar {
    i64::try_from(number).map_or_else(|_| Scalar::Text(number.to_string()), Scalar::Int)
}

/// Milliseconds since 1970 as a text; none beyond the year 9999.
fn moment(milliseconds: u64) -> Option<String> {
    let moment =
        OffsetDateTime::UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds).try_into().ok()?)?;
    moment.format(&Rfc3339).ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::feedback::export) fn label(row: u32, record: Option<Record>) -> Event {
        Event::Label(Label {
            receipt: 0xab,
            row,
            received_ms: 5_000,
            answered_ms: 1_500,
            model: "shop".to_owned(),
            version: 3,
            score: 0.25,
            label: true,
            record,
        })
    }

    fn record(columns: &[(&str, Scalar)]) -> Record {
        columns.iter().map(|(column, value)| ((*column).to_owned(), value.clone())).collect()
    }

    #[test]
    fn a_label_fills_in_what_its_record_does_not_say_and_is_the_truth_where_it_does() {
        let columns = Columns { label: Some("clicked".to_owned()), time: Some("at".to_owned()) };
        let told =
            record(&[("user", Scalar::Int(7)), ("clicked", Scalar::Int(0)), ("millrace_x", Scalar::Int(1))]);
        let expected = record(&[
            ("user", Scalar::Int(7)),
            ("clicked", Scalar::Int(1)),
            ("at", Scalar::Text("1970-01-01T00:00:01.5Z".to_owned())),
            ("millrace_event", Scalar::Text("00000000000000ab/2".to_owned())),
            ("millrace_received_ms", Scalar::Int(5_000)),
            ("millrace_answered_ms", Scalar::Int(1_500)),
            ("millrace_model", Scalar::Text("shop".to_owned())),
            ("millrace_version", Scalar::Int(3)),
            ("millrace_score", Scalar::Float(0.25)),
            ("millrace_label", Scalar::Bool(true)),
        ]);
        assert_eq!(row(label(2, Some(told)), &columns), expected);
        let timed = record(&[("at", Scalar::Int(9))]);
        assert_eq!(row(label(2, Some(timed)), &columns)["at"], Scalar::Int(9), "the record knows better");
        assert!(!row(label(2, None), &Columns::default()).contains_key("clicked"));
    }

    #[test]
    fn behaviour_is_its_record() {
        let told = record(&[("user", Scalar::Text("u".to_owned()))]);
        let event = Event::Behaviour { id: "order-1".to_owned(), received_ms: u64::MAX, record: told };
        let expected = record(&[
            ("user", Scalar::Text("u".to_owned())),
            ("millrace_event", Scalar::Text("order-1".to_owned())),
            ("millrace_received_ms", Scalar::Text(u64::MAX.to_string())),
        ]);
        assert_eq!(row(event, &Columns::default()), expected);
    }
}
