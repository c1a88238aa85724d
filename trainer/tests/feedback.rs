//! Feedback as servers export it, beside a log.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::Path,
};

use millrace::feedback::{Event, Label, Record, Scalar, export, log::Entry};
use millrace_trainer::{
    config::{DataConfig, Encoding, FeatureConfig, Owner},
    log::{FeatureColumn, Feedback, LogError, LogFile, read_with},
};

fn record(columns: &[(&str, Scalar)]) -> Record {
    columns.iter().map(|(column, value)| ((*column).to_owned(), value.clone())).collect()
}

fn label(row: u32, model: &str, label: bool, record: Option<Record>) -> Event {
    let (receipt, received_ms, answered_ms, version, score) = (7, 2_000, 86_400_000, 1, 0.5);
    let model = model.to_owned();
    Event::Label(Label { receipt, row, received_ms, answered_ms, model, version, score, label, record })
}

fn behaviour(id: &str, columns: &[(&str, Scalar)]) -> Event {
    Event::Behaviour { id: id.to_owned(), received_ms: 1, record: record(columns) }
}

/// Exports as a server does.
fn write(path: &Path, events: &[Event]) {
    let entries = || {
        let payload = |event| serde_json::to_vec(event).expect("JSON").into();
        Ok((1..).zip(events).map(move |(seq, event)| Ok(Entry { seq, payload: payload(event) })))
    };
    let columns = export::Columns { label: Some("clicked".to_owned()), time: Some("at".to_owned()) };
    export::write(entries, &columns, File::create(path).expect("a file")).expect("written");
}

fn read(label: Option<&str>, tables: &[&[Event]]) -> Result<LogFile, LogError> {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("log.csv");
    fs::write(&log, "at,who,what,clicked,price\n1970-01-03,1,a,0,2.5\n").expect("written");
    let exported = folder.path().join("exported");
    fs::create_dir(&exported).expect("a folder");
    fs::write(exported.join("half.parquet.part"), "PAR1").expect("written");
    for (number, events) in tables.iter().enumerate() {
        write(&exported.join(format!("{number}.parquet")), events);
    }
    let data = DataConfig {
        user: Some("who".into()),
        item: Some("what".into()),
        time: Some("at".into()),
        label: label.map(str::to_owned),
        ..DataConfig::default()
    };
    let price = FeatureConfig {
        name: "price".into(),
        column: "price".into(),
        from: None,
        optional: true,
        encoding: Encoding::Numeric,
        values: None,
        of: Owner::Item,
    };
    let feedback = Feedback::find(&exported, "shop")?;
    read_with(&log, Some(&feedback), &data, &[price], &BTreeMap::new(), &mut |_: &str| {})
}

fn user(id: i64) -> (&'static str, Scalar) {
    ("who", Scalar::Int(id))
}

fn item(id: &str) -> (&'static str, Scalar) {
    ("what", Scalar::Text(id.to_owned()))
}

#[test]
fn rows_of_feedback_join_those_of_the_log_once_each() {
    let bought = behaviour(
        "b",
        &[
            user(2),
            item("b"),
            ("at", Scalar::Text("1970-01-04T00:00:00Z".to_owned())),
            ("clicked", Scalar::Int(1)),
            ("price", Scalar::Int(3)),
        ],
    );
    let events = [
        label(0, "shop", true, Some(record(&[user(3), item("c")]))),
        bought.clone(),
        // Of another model, and without a record.
        label(1, "other", true, Some(record(&[user(4), item("d")]))),
        label(2, "shop", true, None),
    ];
    let file = read(Some("clicked"), &[&events, &[bought]]).expect("a log");
    let LogFile { log, dropped } = file;
    assert_eq!(log.times, [86_400, 2 * 86_400, 3 * 86_400]);
    assert_eq!(log.labels, Some(vec![true, false, true]));
    assert_eq!(log.users.values().len(), 3);
    let FeatureColumn::Numbers(prices) = &log.features[0] else { panic!("numbers") };
    assert!(prices[0].is_nan() && prices[1..] == [2.5, 3.0], "{prices:?}");
    assert_eq!(dropped, 1, "the label without a record");
}

#[test]
fn where_every_row_is_a_purchase_what_was_not_taken_is_none() {
    let shown = |row, taken| label(row, "shop", taken, Some(record(&[user(3), item("c")])));
    let LogFile { log, .. } = read(None, &[&[shown(0, true), shown(1, false)]]).expect("a log");
    assert_eq!((log.len(), log.labels), (2, None));
}

#[test]
fn a_folder_that_is_not_there_and_a_file_of_something_else_are_errors() {
    let error = Feedback::find(Path::new("nowhere"), "shop").expect_err("no folder").to_string();
    assert_eq!(error, "nowhere: cannot be read");
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("x.parquet"), "no table").expect("written");
    let log = folder.path().join("log.csv");
    fs::write(&log, "at,who,what\n1970-01-03,1,a\n").expect("written");
    let data = DataConfig {
        user: Some("who".into()),
        item: Some("what".into()),
        time: Some("at".into()),
        ..DataConfig::default()
    };
    let feedback = Feedback::find(folder.path(), "shop").expect("a folder");
    let read = read_with(&log, Some(&feedback), &data, &[], &BTreeMap::new(), &mut |_: &str| {});
    assert!(matches!(read, Err(LogError::Parquet { .. })), "{read:?}");
}
