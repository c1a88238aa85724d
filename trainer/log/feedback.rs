//! Feedback that servers exported, as rows like those of the log. An event is one row, whichever files have it; a column that
//! a file does not have is one without values; and what became of another model's answers is left out.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow_array::{ArrayRef, RecordBatch, new_null_array};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use sha2::{Digest, Sha256};

use super::{
    StoredColumn,
    read::{Collect, LogError, Reader, collect},
};
use crate::progress::Progress;

/// Tables of exported feedback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feedback {
    /// The files, in the order of their names.
    pub files: Vec<PathBuf>,
    /// The model that learns.
    pub model: String,
}

impl Feedback {
    /// The tables in `folder`, for the model of this name.
    pub fn find(folder: &Path, model: &str) -> Result<Self, LogError> {
        let failed = |source| LogError::Read { path: folder.to_path_buf(), source };
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            // What is being written ends otherwise.
            if path.extension().is_some_and(|extension| extension == "parquet") {
                files.push(path);
            }
        }
        files.sort_unstable();
        Ok(Self { files, model: model.to_owned() })
    }

    /// Hands the rows of all files to `reader`.
    pub(super) fn collect(
        &self,
        reader: &mut Reader<'_>,
        progress: &mut dyn Progress,
    ) -> Result<(), LogError> {
        let mut told = Told { reader, model: &self.model, seen: HashSet::new() };
        self.files.iter().try_for_each(|file| collect(file, &mut told, progress))
    }
}

/// Hands rows on that are wanted.
struct Told<'t, 'r> {
    reader: &'t mut Reader<'r>,
    model: &'t str,
    /// Half of the SHA-256 of each event's name.
    seen: HashSet<[u8; 16]>,
}

impl Collect for Told<'_, '_> {
    fn projection(&mut self, schema: &Schema) -> Result<Vec<usize>, LogError> {
        self.reader.begin();
        schema.index_of(EVENT).map_err(|_| LogError::NoColumn(EVENT.to_owned()))?;
        let names = self.reader.columns().into_iter().chain([EVENT, MODEL, LABEL]);
        let mut places: Vec<usize> = names.filter_map(|name| schema.index_of(name).ok()).collect();
        places.sort_unstable();
        places.dedup();
        Ok(places)
    }

    fn push(&mut self, batch: &RecordBatch) -> Result<(), LogError> {
        let names = self.reader.columns().into_iter().chain([MODEL, LABEL]);
        let batch = with_columns(batch, names).map_err(LogError::Table)?;
        let events = StoredColumn::of(&batch, EVENT)?.ids()?;
        let models = StoredColumn::of(&batch, MODEL)?.ids()?;
        // Where the log has no labels every row is something that happened, so what did not is no row.
        let labels = StoredColumn::of(&batch, LABEL)?.ids()?;
        let needs = !self.reader.has_labels();
        let rows = events.iter().zip(&models).zip(&labels);
        let wanted: Vec<bool> = rows
            .map(|((event, model), label)| {
                let is_ours = model.as_ref().is_none_or(|model| model == self.model);
                let is_new = event.as_ref().is_some_and(|event| self.seen.insert(key(event)));
                is_ours && is_new && !(needs && label.as_deref() == Some("false"))
            })
            .collect();
        self.reader.push_where(&batch, |row| wanted[row])
    }
}

fn key(event: &str) -> [u8; 16] {
    let hash: [u8; 32] = Sha256::digest(event).into();
    *hash.first_chunk().expect("half of it")
}

/// The batch, with a column of nulls for each of these that it lacks.
fn with_columns<'n>(
    batch: &RecordBatch,
    names: impl Iterator<Item = &'n str>,
) -> Result<RecordBatch, ArrowError> {
    let mut fields: Vec<_> = batch.schema().fields().iter().cloned().collect();
    let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
    for name in names {
        if fields.iter().all(|field| field.name() != name) {
            fields.push(Arc::new(Field::new(name, DataType::Utf8, true)));
            columns.push(new_null_array(&DataType::Utf8, batch.num_rows()));
        }
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

/// What tells events apart, who answered, and what became of it, as the server's export names them.
const EVENT: &str = "millrace_event";
const MODEL: &str = "millrace_model";
const LABEL: &str = "millrace_label";

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs::File};

    use millrace::feedback::{Event, Label, Record, Scalar, export, log::Entry};

    use super::*;
    use crate::{
        config::{DataConfig, Encoding, FeatureConfig, Owner},
        log::{FeatureColumn, LogFile, read_with},
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
}
