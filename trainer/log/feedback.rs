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
