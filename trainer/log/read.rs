//! Reads a log from CSV or Parquet, by the file's extension. Only the columns that the pipeline names are read. How
//! a file becomes batches is [`crate::explore`]'s too, and so is what a column of one means, which [`super::column`] says.
//!
//! A row that lacks a value which it needs is dropped and counted, and so is a row that a condition excludes; a value
//! of the wrong kind is an error, for it says that the pipeline names the wrong column. In text, nothing and `?` are
//! missing values, and so they are within a list, where they are left out.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, Seek},
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, DataType, Field, Schema};
use millrace::features::RawKind;
use parquet::{
    arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder},
    errors::ParquetError,
};

use super::{
    FeatureColumn, Feedback, Interner, Log, StoredColumn,
    lists::{CollectedLists, lists},
};
use crate::{
    config::{DataConfig, FeatureConfig, KeepConfig},
    progress::{Progress, Step, Work},
    random::{Purpose, random},
};

/// Why a log was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The file cannot be opened or read.
    #[error("{path}: cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file's extension is neither `csv` nor `parquet`.
    #[error("{0}: a log is a .csv or a .parquet file")]
    Format(PathBuf),
    /// The contents are damaged, or no table.
    #[error("{path}: cannot be decoded")]
    Arrow {
        /// The file.
        path: PathBuf,
        /// What the decoder said.
        #[source]
        source: ArrowError,
    },
    /// The contents are damaged, or no Parquet.
    #[error("{path}: cannot be decoded")]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What the decoder said.
        #[source]
        source: ParquetError,
    },
    /// Rows cannot be put together as a table.
    #[error("rows cannot be put together")]
    Table(#[source] ArrowError),
    /// The pipeline names a column that is not there.
    #[error("the log has no column `{0}`")]
    NoColumn(String),
    /// A column holds something that it should not.
    #[error("column `{column}`: {reason}")]
    Value {
        /// The column.
        column: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No row is left.
    #[error("the log has no usable rows")]
    Empty,
}

/// What a log file held.
#[derive(Clone, Debug, PartialEq)]
pub struct LogFile {
    /// The rows.
    pub log: Log,
    /// Rows that were dropped because a value is missing or a condition excludes them.
    pub dropped: usize,
}

/// Reads the log at `path`, which takes the place of the path that `data` names. `measured` are the columns that history
/// features look at.
pub fn read(
    path: &Path,
    data: &DataConfig,
    features: &[FeatureConfig],
    measured: &BTreeMap<String, RawKind>,
    progress: &mut dyn Progress,
) -> Result<LogFile, LogError> {
    read_with(path, None, data, features, measured, progress)
}

/// Reads the log at `path` as [`read`] does, and what servers have exported besides.
pub fn read_with(
    path: &Path,
    feedback: Option<&Feedback>,
    data: &DataConfig,
    features: &[FeatureConfig],
    measured: &BTreeMap<String, RawKind>,
    progress: &mut dyn Progress,
) -> Result<LogFile, LogError> {
    let mut reader = Reader::new(data, features, measured);
    collect(path, &mut reader, progress)?;
    if let Some(feedback) = feedback {
        feedback.collect(&mut reader, progress)?;
    }
    let mut file = reader.finish()?;
    file.log.sort();
    Ok(file)
}

/// Reads the table whose training rows are in the file `training` and whose test rows are in the file `test`. Also the
/// number of training rows, which come first, in an order that `seed` decides.
pub fn read_table(
    (training, test): (&Path, &Path),
    data: &DataConfig,
    features: &[FeatureConfig],
    seed: u64,
    progress: &mut dyn Progress,
) -> Result<(LogFile, usize), LogError> {
    let nothing = BTreeMap::new();
    let mut reader = Reader::new(data, features, &nothing);
    collect(training, &mut reader, progress)?;
    let rows = reader.labels.len();
    collect(test, &mut reader, progress)?;
    let mut file = reader.finish()?;
    file.log.shuffle(rows, &mut random(seed, Purpose::Table, 0));
    Ok((file, rows))
}

/// What is made of a file, batch after batch.
pub(crate) trait Collect {
    /// The positions of the columns that are wanted. Every column of a CSV file is one of texts.
    fn projection(&mut self, schema: &Schema) -> Result<Vec<usize>, LogError>;

    /// Takes the next rows.
    fn push(&mut self, batch: &RecordBatch) -> Result<(), LogError>;
}

/// Hands the rows of the file at `path` to `reader`.
pub(crate) fn collect(
    path: &Path,
    reader: &mut impl Collect,
    progress: &mut dyn Progress,
) -> Result<(), LogError> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("csv") => read_csv(path, reader, progress),
        Some("parquet") => read_parquet(path, reader, progress),
        _ => Err(LogError::Format(path.to_path_buf())),
    }
}

fn read_csv(path: &Path, reader: &mut impl Collect, progress: &mut dyn Progress) -> Result<(), LogError> {
    let failed = |source| LogError::Read { path: path.to_path_buf(), source };
    let damaged = |source| LogError::Arrow { path: path.to_path_buf(), source };
    let mut file = BufReader::new(File::open(path).map_err(failed)?);
    let mut header = String::new();
    file.read_line(&mut header).map_err(failed)?;
    file.rewind().map_err(failed)?;
    // Every column is read as text: guessed types would depend on the rows that happen to come first.
    let names = arrow_csv::reader::Format::default().with_header(true);
    let (schema, _) = names.infer_schema(header.as_bytes(), Some(0)).map_err(damaged)?;
    let fields: Vec<Field> =
        schema.fields().iter().map(|field| Field::new(field.name(), DataType::Utf8, true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let columns = reader.projection(&schema)?;
    let batches = arrow_csv::ReaderBuilder::new(schema)
        .with_header(true)
        .with_projection(columns)
        .with_batch_size(BATCH_ROWS)
        .build(file)
        .map_err(damaged)?;
    push_all(batches.map(|batch| batch.map_err(damaged)), None, reader, progress)
}

fn read_parquet(path: &Path, reader: &mut impl Collect, progress: &mut dyn Progress) -> Result<(), LogError> {
    let file = File::open(path).map_err(|source| LogError::Read { path: path.to_path_buf(), source })?;
    let damaged = |source| LogError::Parquet { path: path.to_path_buf(), source };
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(damaged)?;
    let columns = reader.projection(builder.schema())?;
    let mask = ProjectionMask::roots(builder.parquet_schema(), columns);
    let rows = u64::try_from(builder.metadata().file_metadata().num_rows()).ok();
    let batches = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build().map_err(damaged)?;
    let damaged = |source| LogError::Arrow { path: path.to_path_buf(), source };
    push_all(batches.map(|batch| batch.map_err(damaged)), rows, reader, progress)
}

/// Hands every batch to `reader`; `of` is the number of their rows, where it is known.
fn push_all(
    batches: impl Iterator<Item = Result<RecordBatch, LogError>>,
    of: Option<u64>,
    reader: &mut impl Collect,
    progress: &mut dyn Progress,
) -> Result<(), LogError> {
    let mut done = 0;
    for batch in batches {
        let batch = batch?;
        reader.push(&batch)?;
        done += batch.num_rows() as u64;
        progress.step(Step { work: Work::Reading, done, of });
    }
    Ok(())
}

/// Collects the rows of batch after batch.
pub(super) struct Reader<'a> {
    data: &'a DataConfig,
    /// The features that have a column of their own.
    specs: Vec<&'a FeatureConfig>,
    users: Interner,
    items: Interner,
    times: Vec<i64>,
    labels: Vec<bool>,
    features: Vec<Collected>,
    measured: BTreeMap<&'a str, Collected>,
    dropped: usize,
    /// The row of the file that is being read, from 1.
    row: usize,
}

enum Collected {
    Ids(Interner),
    Lists(CollectedLists),
    Numbers(Vec<f64>),
    Moments(Vec<Option<i64>>),
}

impl<'a> Reader<'a> {
    fn new(
        data: &'a DataConfig,
        features: &'a [FeatureConfig],
        measured: &'a BTreeMap<String, RawKind>,
    ) -> Self {
        let specs: Vec<_> = features.iter().filter(|spec| spec.from.is_none()).collect();
        Self {
            data,
            users: Interner::default(),
            items: Interner::default(),
            times: Vec::new(),
            labels: Vec::new(),
            features: specs.iter().map(|spec| Collected::of(spec)).collect(),
            measured: measured.iter().map(|(name, &kind)| (name.as_str(), Collected::new(kind))).collect(),
            specs,
            dropped: 0,
            row: 0,
        }
    }

    /// Adds a row that has everything it needs.
    fn take(&mut self, cells: &Cells, row: usize) {
        for (interner, ids) in [(&mut self.users, &cells.users), (&mut self.items, &cells.items)] {
            if let Some(id) = ids.as_ref().and_then(|ids| ids[row].as_deref()) {
                interner.push(id);
            }
        }
        self.times.extend(cells.times.as_ref().and_then(|times| times[row]));
        self.labels.extend(cells.labels.as_ref().and_then(|labels| labels[row]));
        for (collected, cells) in self.features.iter_mut().zip(&cells.features) {
            collected.push(cells, row, self.row);
        }
        for (collected, cells) in self.measured.values_mut().zip(&cells.measured) {
            collected.push(cells, row, self.row);
        }
    }

    /// The rows in the order in which they were read.
    fn finish(self) -> Result<LogFile, LogError> {
        if let (Some(column), Some(positive)) = (&self.data.label, &self.data.label_positive)
            && !self.labels.contains(&true)
        {
            let reason = format!("no row says `{positive}`");
            return Err(LogError::Value { column: column.clone(), reason });
        }
        let log = Log {
            users: self.users.finish(),
            items: self.items.finish(),
            times: self.times,
            labels: self.data.label.is_some().then_some(self.labels),
            features: self.features.into_iter().map(Collected::finish).collect::<Result<_, _>>()?,
            measured: self
                .measured
                .into_iter()
                .map(|(name, column)| Ok((name.to_owned(), column.finish()?)))
                .collect::<Result<_, LogError>>()?,
        };
        if log.is_empty() { Err(LogError::Empty) } else { Ok(LogFile { log, dropped: self.dropped }) }
    }
}

impl Collect for Reader<'_> {
    fn projection(&mut self, schema: &Schema) -> Result<Vec<usize>, LogError> {
        self.begin();
        let place = |name| schema.index_of(name).map_err(|_| LogError::NoColumn(name.to_owned()));
        self.columns().into_iter().map(place).collect()
    }

    fn push(&mut self, batch: &RecordBatch) -> Result<(), LogError> {
        self.push_where(batch, |_| true)
    }
}

impl<'a> Reader<'a> {
    /// Begins with a file.
    pub(super) fn begin(&mut self) {
        self.row = 0;
    }

    /// The columns that are read.
    pub(super) fn columns(&self) -> Vec<&'a str> {
        let data = self.data;
        let own = [&data.user, &data.item, &data.time, &data.label].into_iter().flatten();
        let conditions = data.keep.iter().map(|keep| &keep.column);
        let features = self.specs.iter().map(|spec| &spec.column);
        let named = own.chain(conditions).chain(features).map(String::as_str);
        named.chain(self.measured.keys().copied()).collect()
    }

    /// Whether rows say if the event happened.
    pub(super) fn has_labels(&self) -> bool {
        self.data.label.is_some()
    }

    /// Takes the rows that are wanted; the others do not count as dropped.
    pub(super) fn push_where(
        &mut self,
        batch: &RecordBatch,
        is_wanted: impl Fn(usize) -> bool,
    ) -> Result<(), LogError> {
        let data = self.data;
        let positive = data.label_positive.as_deref();
        let column =
            |name: &'a Option<String>| name.as_deref().map(|name| StoredColumn::of(batch, name)).transpose();
        let cells = Cells {
            users: column(&data.user)?.map(|users| users.ids()).transpose()?,
            items: column(&data.item)?.map(|items| items.ids()).transpose()?,
            times: column(&data.time)?.map(|times| times.times()).transpose()?,
            labels: column(&data.label)?.map(|labels| labels.labels(positive)).transpose()?,
            features: self
                .specs
                .iter()
                .map(|spec| FeatureCells::of(batch, spec))
                .collect::<Result<_, _>>()?,
            measured: self
                .measured
                .iter()
                .map(|(column, collected)| FeatureCells::new(batch, column, collected.kind()))
                .collect::<Result<_, _>>()?,
            kept: kept(batch, &self.data.keep)?,
        };
        for row in 0..batch.num_rows() {
            self.row += 1;
            if !is_wanted(row) {
                continue;
            }
            if cells.is_usable(row, &self.specs) {
                self.take(&cells, row);
            } else {
                self.dropped += 1;
            }
        }
        Ok(())
    }
}

impl Collected {
    fn new(kind: RawKind) -> Self {
        match kind {
            RawKind::Id => Self::Ids(Interner::default()),
            RawKind::Number => Self::Numbers(Vec::new()),
            RawKind::Moment => Self::Moments(Vec::new()),
        }
    }

    /// For the values of a feature.
    fn of(spec: &FeatureConfig) -> Self {
        match &spec.values {
            Some(list) => Self::Lists(CollectedLists::new(&spec.column, list)),
            None => Self::new(spec.encoding.raw()),
        }
    }

    fn kind(&self) -> RawKind {
        match self {
            Self::Ids(_) | Self::Lists(_) => RawKind::Id,
            Self::Numbers(_) => RawKind::Number,
            Self::Moments(_) => RawKind::Moment,
        }
    }

    /// Adds the value in `row` of the cells, which is row `row_of_file` of the file.
    fn push(&mut self, cells: &FeatureCells, row: usize, row_of_file: usize) {
        match (self, cells) {
            (Self::Lists(lists), FeatureCells::Lists(cells)) => lists.push(&cells[row], row_of_file),
            (Self::Ids(interner), FeatureCells::Ids(ids)) => match &ids[row] {
                Some(id) => interner.push(id),
                None => interner.push_missing(),
            },
            (Self::Numbers(all), FeatureCells::Numbers(numbers)) => {
                all.push(numbers[row].unwrap_or(f64::NAN));
            }
            (Self::Moments(all), FeatureCells::Moments(moments)) => all.push(moments[row]),
            _ => unreachable!("cells are read by the encoding that the collector was made for"),
        }
    }

    fn finish(self) -> Result<FeatureColumn, LogError> {
        Ok(match self {
            Self::Lists(lists) => FeatureColumn::Lists(lists.finish()?),
            Self::Ids(interner) => FeatureColumn::Ids(interner.finish()),
            Self::Numbers(numbers) => FeatureColumn::Numbers(numbers),
            Self::Moments(moments) => FeatureColumn::Moments(moments),
        })
    }
}

/// The values of a batch by what they are for.
struct Cells {
    users: Option<Vec<Option<String>>>,
    items: Option<Vec<Option<String>>>,
    times: Option<Vec<Option<i64>>>,
    labels: Option<Vec<Option<bool>>>,
    features: Vec<FeatureCells>,
    measured: Vec<FeatureCells>,
    kept: Vec<bool>,
}

impl Cells {
    /// Whether a row meets every condition and has all that it needs.
    fn is_usable(&self, row: usize, specs: &[&FeatureConfig]) -> bool {
        fn has<T>(column: Option<&Vec<Option<T>>>, row: usize) -> bool {
            column.is_none_or(|column| column[row].is_some())
        }
        let features = || self.features.iter().zip(specs);
        self.kept[row]
            && has(self.users.as_ref(), row)
            && has(self.items.as_ref(), row)
            && has(self.times.as_ref(), row)
            && has(self.labels.as_ref(), row)
            && features().all(|(cells, spec)| spec.optional || !cells.is_missing(row))
    }
}

/// The values of one feature in one batch.
enum FeatureCells {
    Ids(Vec<Option<String>>),
    Lists(Vec<Vec<String>>),
    Numbers(Vec<Option<f64>>),
    Moments(Vec<Option<i64>>),
}

impl FeatureCells {
    /// The values of a feature.
    fn of(batch: &RecordBatch, spec: &FeatureConfig) -> Result<Self, LogError> {
        match &spec.values {
            Some(list) => Ok(Self::Lists(lists(&StoredColumn::of(batch, &spec.column)?, list)?)),
            None => Self::new(batch, &spec.column, spec.encoding.raw()),
        }
    }

    fn new(batch: &RecordBatch, column: &str, kind: RawKind) -> Result<Self, LogError> {
        let column = StoredColumn::of(batch, column)?;
        Ok(match kind {
            RawKind::Id => Self::Ids(column.ids()?),
            RawKind::Number => Self::Numbers(column.numbers()?),
            RawKind::Moment => Self::Moments(column.times()?),
        })
    }

    fn is_missing(&self, row: usize) -> bool {
        match self {
            Self::Ids(ids) => ids[row].is_none(),
            // A list that is not there is empty.
            Self::Lists(_) => false,
            Self::Numbers(numbers) => numbers[row].is_none(),
            Self::Moments(moments) => moments[row].is_none(),
        }
    }
}

/// Whether each row meets every condition; one whose value is missing does not.
pub(crate) fn kept(batch: &RecordBatch, conditions: &[KeepConfig]) -> Result<Vec<bool>, LogError> {
    let mut kept = vec![true; batch.num_rows()];
    for condition in conditions {
        for (kept, value) in kept.iter_mut().zip(StoredColumn::of(batch, &condition.column)?.numbers()?) {
            *kept &= value.is_some_and(|value| value > condition.above);
        }
    }
    Ok(kept)
}

/// Rows that are decoded at a time.
const BATCH_ROWS: usize = 16_384;

#[cfg(test)]
mod tests {
    use std::fs;

    use arrow_array::{ArrayRef, Float64Array, Int32Array, StringArray, UInt64Array};
    use millrace::features::Value;
    use parquet::arrow::ArrowWriter;

    use super::*;
    use crate::config::{Encoding, Owner};

    fn data(label: Option<&str>) -> DataConfig {
        DataConfig {
            user: Some("who".into()),
            item: Some("what".into()),
            time: Some("when".into()),
            label: label.map(str::to_owned),
            keep: vec![KeepConfig { column: "price".into(), above: 0.0 }],
            ..DataConfig::default()
        }
    }

    fn feature(column: &str, encoding: Encoding) -> FeatureConfig {
        let (name, column) = (column.into(), column.into());
        FeatureConfig { name, column, from: None, optional: false, encoding, values: None, of: Owner::User }
    }

    fn read_text(text: &str, label: Option<&str>) -> Result<LogFile, LogError> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("log.csv");
        fs::write(&path, text).expect("written");
        let features =
            [feature("who", Encoding::Vocabulary { minimum_count: 1 }), feature("price", Encoding::Numeric)];
        read(&path, &data(label), &features, &BTreeMap::new(), &mut |_: &str| {})
    }

    #[test]
    fn a_csv_log_is_sorted_by_time_and_its_labels_are_read() {
        let text = "when,who,what,price,clicked\n2020-01-02,7,b,2.5,1\n2020-01-01 10:00:00,8,\"x,y\",1,0\n";
        let LogFile { log, dropped } = read_text(text, Some("clicked")).expect("a log");
        assert_eq!((log.len(), dropped), (2, 0));
        assert_eq!(log.users.value(0), &Value::Int(8));
        assert_eq!(log.items.value(0), &Value::Text("x,y".into()));
        assert_eq!(log.labels, Some(vec![false, true]));
        assert_eq!(log.features[1], FeatureColumn::Numbers(vec![1.0, 2.5]));
    }

    #[test]
    fn rows_without_a_needed_value_or_against_a_condition_are_dropped_and_counted() {
        let text =
            "when,who,what,price\n2020-01-01,,a,1\n2020-01-01,7,a,0\n2020-01-01,7,a,\n2020-01-01,7,a,1\n";
        let LogFile { log, dropped } = read_text(text, None).expect("a log");
        assert_eq!((log.len(), dropped, log.labels), (1, 3, None));
    }

    #[test]
    fn what_does_not_fit_is_an_error_that_names_the_column() {
        let cases = [
            ("when,who,price\n", "`what`"),
            ("when,who,what,price\nsoon,7,a,1\n", "`when`"),
            ("when,who,what,price\n", "no usable rows"),
        ];
        for (text, expected) in cases {
            let error = read_text(text, None).expect_err(text).to_string();
            assert!(error.contains(expected), "{error}");
        }
        let error = read_text("when,who,what,price,clicked\n2020-01-01,7,a,1,3\n", Some("clicked"));
        assert_eq!(error.expect_err("3 is no label").to_string(), "column `clicked`: 3 is no label");
    }

    /// Reads a Parquet file of three rows whose users are `users`.
    fn read_users(users: ArrayRef) -> Result<LogFile, LogError> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("log.parquet");
        let columns: [(&str, ArrayRef); 4] = [
            ("who", users),
            ("what", Arc::new(StringArray::from(vec!["85123A", "22423", "22423"]))),
            ("when", Arc::new(StringArray::from(vec!["2009-12-01 07:45:00"; 3]))),
            ("price", Arc::new(Int32Array::from(vec![1, 1, 1]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).expect("a batch");
        let mut writer =
            ArrowWriter::try_new(File::create(&path).expect("made"), batch.schema(), None).expect("a writer");
        writer.write(&batch).expect("written");
        writer.close().expect("closed");
        read(&path, &data(None), &[], &BTreeMap::new(), &mut |_: &str| {})
    }

    #[test]
    fn a_float_that_stores_an_id_becomes_the_id_again() {
        let users = Float64Array::from(vec![Some(17850.0), None, Some(13047.0)]);
        let LogFile { log, dropped } = read_users(Arc::new(users)).expect("a log");
        assert_eq!((log.users.values(), dropped), (&[Value::Int(17850), Value::Int(13047)][..], 1));
        assert_eq!(log.items.values(), [Value::Text("85123A".into()), Value::Int(22423)]);
    }

    #[test]
    fn an_integer_beyond_those_of_a_request_is_its_text_and_no_row_is_dropped_for_it() {
        let users = UInt64Array::from(vec![7, 1 << 63, u64::MAX]);
        let LogFile { log, dropped } = read_users(Arc::new(users)).expect("a log");
        let text = |text: &str| Value::Text(text.into());
        let expected = [Value::Int(7), text("9223372036854775808"), text("18446744073709551615")];
        assert_eq!((log.users.values(), dropped), (&expected[..], 0));
    }

    #[test]
    fn a_damaged_file_is_named_and_what_the_decoder_says_is_said_once() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, text) in [("log.parquet", "no Parquet at all"), ("log.csv", "when,who,what,price\n1,2\n")]
        {
            let path = folder.path().join(name);
            fs::write(&path, text).expect("written");
            let read = read(&path, &data(None), &[], &BTreeMap::new(), &mut |_: &str| {});
            let error = read.expect_err(name);
            assert_eq!(error.to_string(), format!("{}: cannot be decoded", path.display()));
            assert!(std::error::Error::source(&error).is_some(), "{error:?}");
        }
    }

    fn table(training: &str, test: &str, positive: &str) -> Result<(LogFile, usize), LogError> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).expect("written");
            path
        };
        let (training, test) = (write("training.csv", training), write("test.csv", test));
        let label_positive = Some(positive.to_owned());
        let data = DataConfig { label: Some("class".into()), label_positive, ..DataConfig::default() };
        let optional = |column, encoding| FeatureConfig { optional: true, ..feature(column, encoding) };
        let features = [
            optional("job", Encoding::Hash { buckets: 8 }),
            optional("age", Encoding::Quantiles { buckets: 4 }),
            FeatureConfig { from: Some("age".into()), ..feature("age", Encoding::Numeric) },
            optional("since", Encoding::HourOfDay),
            feature("sex", Encoding::Vocabulary { minimum_count: 1 }),
        ];
        read_table((&training, &test), &data, &features, 7, &mut |_: &str| {})
    }

    #[test]
    fn a_table_keeps_its_files_apart_and_its_missing_values() {
        use millrace::features::RawValue::{Float, Int, Missing, Text};
        let training =
            "job,age,since,sex,class\n?,1,,f,yes\nclerk,?,2010-11-01 08:00:00,f,no\nclerk,3,?,,no\n";
        let test = "sex,class,age,job,since\nm,yes,,,2010-11-01\n";
        let (LogFile { log, dropped }, rows) = table(training, test, "yes").expect("a table");
        // A row without its sex, which is not optional, is dropped.
        assert_eq!((log.len(), rows, dropped), (3, 2, 1));
        assert_eq!((log.features.len(), log.labels.as_ref().map(|labels| labels[2])), (4, Some(true)));
        let first = usize::from(!log.labels.as_ref().expect("labelled")[0]);
        let raw = |column: usize, row: usize| log.features[column].raw(row);
        assert_eq!([0, 1, 2].map(|column| raw(column, first)), [Missing, Float(1.0), Missing]);
        assert_eq!(
            [0, 1, 2].map(|column| raw(column, 1 - first)),
            [Text("clerk"), Missing, Int(1_288_598_400)]
        );
        assert_eq!([0, 1, 2].map(|column| raw(column, 2)), [Missing, Missing, Int(1_288_569_600)]);
    }

    #[test]
    fn what_does_not_fit_a_table_is_named() {
        let (header, row) = ("job,age,since,sex,class\n", "clerk,1,,f,yes\n");
        let file = |row: &str| format!("{header}{row}");
        let refusal = |training: &str, positive: &str| {
            table(&file(training), &file(row), positive).expect_err(training).to_string()
        };
        assert_eq!(refusal("clerk,old,,f,yes\n", "yes"), "column `age`: holds texts that are no number");
        assert_eq!(refusal("clerk,1,noon,f,yes\n", "yes"), "column `since`: holds texts that are no time");
        assert_eq!(refusal(row, "Yes"), "column `class`: no row says `Yes`");
    }
}
