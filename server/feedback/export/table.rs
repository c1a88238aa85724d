//! Rows as a Parquet file: a first pass finds out which columns there are and of what kind, a second writes them in
//! groups, so that never more than a group is in memory.

use std::{collections::BTreeMap, io::Write, sync::Arc};

use bytes::Bytes;
use parquet::{
    basic::{Compression, LogicalType, Repetition, Type as Physical},
    data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int64Type},
    errors::ParquetError,
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::types::{Type, TypePtr},
};

use super::{
    kind::{self, Kind},
    row::{Columns, row},
};
use crate::feedback::{
    Event, Record, Scalar,
    log::{Entry, LogError},
};

/// Why a table was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The log cannot be read as a whole.
    #[error("the feedback log cannot be read")]
    Log(#[from] LogError),
    /// A record that is no event.
    #[error("record {seq} of the feedback log is no event")]
    Event {
        /// Its place in the log.
        seq: u64,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// Records that have too few columns in common.
    #[error("the records have more than {MAX_COLUMNS} different columns")]
    Columns,
    /// The file cannot be written.
    #[error("the file cannot be written")]
    Write(#[from] ParquetError),
}

/// Columns of a table at most.
pub const MAX_COLUMNS: usize = 1024;

/// Writes what the log has between two sequence numbers as a table; how many rows it has. `entries` is called twice and must
/// give the same both times.
pub fn write<W: Write + Send, E: Iterator<Item = Result<Entry, LogError>>>(
    entries: impl Fn() -> Result<E, LogError>,
    columns: &Columns,
    to: W,
) -> Result<u64, ExportError> {
    let mut kinds = BTreeMap::new();
    for entry in entries()? {
        for (column, value) in row(event(&entry?)?, columns) {
            let kind = kinds.entry(column).or_insert(Kind::Empty);
            *kind = kind.join(Kind::of(&value));
        }
        if kinds.len() > MAX_COLUMNS {
            return Err(ExportError::Columns);
        }
    }
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut writer = SerializedFileWriter::new(to, schema(&kinds)?, Arc::new(properties))?;
    let (mut group, mut bytes, mut rows) = (Vec::new(), 0, 0);
    for entry in entries()? {
        let entry = entry?;
        bytes += entry.payload.len();
        group.push(row(event(&entry)?, columns));
        rows += 1;
        if group.len() == GROUP_ROWS || bytes >= GROUP_BYTES {
            write_group(&mut writer, &kinds, &group)?;
            group.clear();
            bytes = 0;
        }
    }
    if !group.is_empty() {
        write_group(&mut writer, &kinds, &group)?;
    }
    writer.close()?;
    Ok(rows)
}

fn event(entry: &Entry) -> Result<Event, ExportError> {
    let Entry { seq, payload } = entry;
    serde_json::from_slice::<Event>(payload).map_err(|source| ExportError::Event { seq: *seq, source })
}

/// Every column may lack values.
fn schema(kinds: &BTreeMap<String, Kind>) -> Result<TypePtr, ParquetError> {
    let column = |(name, kind): (&String, &Kind)| {
        let (physical, logical) = match kind {
            Kind::Bool => (Physical::BOOLEAN, None),
            Kind::Int { .. } => (Physical::INT64, None),
            Kind::Float => (Physical::DOUBLE, None),
            Kind::Empty | Kind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        };
        let builder = Type::primitive_type_builder(name, physical).with_repetition(Repetition::OPTIONAL);
        builder.with_logical_type(logical).build().map(Arc::new)
    };
    let columns = kinds.iter().map(column).collect::<Result<_, _>>()?;
    Type::group_type_builder("feedback").with_fields(columns).build().map(Arc::new)
}

fn write_group<W: Write + Send>(
    writer: &mut SerializedFileWriter<W>,
    kinds: &BTreeMap<String, Kind>,
    rows: &[Record],
) -> Result<(), ParquetError> {
    let mut group = writer.next_row_group()?;
    for (name, kind) in kinds {
        let mut column = group.next_column()?.expect("one for each of the schema");
        let cells = rows.iter().map(|row| row.get(name).filter(|&value| *value != Scalar::Missing));
        let there: Vec<i16> = cells.clone().map(|cell| i16::from(cell.is_some())).collect();
        let (cells, there) = (cells.flatten(), Some(&*there));
        match kind {
            Kind::Bool => {
                let values: Vec<bool> = cells.map(|value| *value == Scalar::Bool(true)).collect();
                column.typed::<BoolType>().write_batch(&values, there, None)?
            }
            Kind::Int { .. } => {
                let values: Vec<i64> = cells.filter_map(int).collect();
                column.typed::<Int64Type>().write_batch(&values, there, None)?
            }
            Kind::Float => {
                let values: Vec<f64> = cells.filter_map(float).collect();
                column.typed::<DoubleType>().write_batch(&values, there, None)?
            }
            Kind::Empty | Kind::Text => {
                let values: Vec<ByteArray> =
                    cells.map(|value| ByteArray::from(Bytes::from(kind::text(value)))).collect();
                column.typed::<ByteArrayType>().write_batch(&values, there, None)?
            }
        };
        column.close()?;
    }
    group.close().map(drop)
}

fn int(value: &Scalar) -> Option<i64> {
    if let Scalar::Int(number) = value { Some(*number) } else { None }
}

fn float(value: &Scalar) -> Option<f64> {
    match value {
        Scalar::Float(number) => Some(*number),
        Scalar::Int(number) => Some(*number as f64),
        _ => None,
    }
}

/// Rows of a group, and the bytes of their events, at most about so many.
const GROUP_ROWS: usize = 16_384;
const GROUP_BYTES: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use parquet::{
        file::reader::{FileReader, SerializedFileReader},
        record::Field,
    };

    use super::{super::row::tests::label, *};

    fn entries(events: &[Event]) -> Vec<Result<Entry, LogError>> {
        let entry =
            |(seq, event)| Ok(Entry { seq, payload: serde_json::to_vec(event).expect("JSON").into() });
        (1..).zip(events).map(entry).collect()
    }

    fn written(events: &[Event]) -> Result<SerializedFileReader<Bytes>, ExportError> {
        let mut file = Vec::new();
        let rows = write(|| Ok(entries(events).into_iter()), &Columns::default(), &mut file)?;
        assert_eq!(rows, events.len() as u64);
        Ok(SerializedFileReader::new(Bytes::from(file))?)
    }

    fn behaviour(columns: &[(&str, Scalar)]) -> Event {
        let record = columns.iter().map(|(column, value)| ((*column).to_owned(), value.clone())).collect();
        Event::Behaviour { id: "x".to_owned(), received_ms: 1, record }
    }

    fn column(reader: &SerializedFileReader<Bytes>, name: &str) -> Vec<Field> {
        let rows = reader.get_row_iter(None).expect("rows").map(|row| row.expect("a row"));
        let cell = |row: parquet::record::Row| {
            let mut columns = row.into_columns().into_iter();
            columns.find(|(column, _)| column == name).expect("the column").1
        };
        rows.map(cell).collect()
    }

    #[test]
    fn every_kind_of_column_comes_back() {
        let reader = written(&[
            behaviour(&[("id", Scalar::Int(i64::MAX)), ("price", Scalar::Int(3)), ("x", Scalar::Bool(true))]),
            behaviour(&[("id", Scalar::Missing), ("price", Scalar::Float(0.5)), ("x", Scalar::Int(7))]),
            behaviour(&[("taken", Scalar::Bool(false)), ("none", Scalar::Missing)]),
            label(4, None),
        ])
        .expect("written");
        let text = |text: &str| Field::Str(text.to_owned());
        assert_eq!(column(&reader, "id"), [Field::Long(i64::MAX), Field::Null, Field::Null, Field::Null]);
        assert_eq!(column(&reader, "price")[..2], [Field::Double(3.0), Field::Double(0.5)]);
        assert_eq!(column(&reader, "x"), [text("true"), text("7"), Field::Null, Field::Null]);
        assert_eq!(column(&reader, "taken")[2..], [Field::Bool(false), Field::Null]);
        assert_eq!(column(&reader, "none"), [Field::Null, Field::Null, Field::Null, Field::Null]);
        assert_eq!(column(&reader, "millrace_event")[3], text("00000000000000ab/4"));
        assert_eq!(column(&reader, "millrace_score")[2..], [Field::Null, Field::Double(0.25)]);
    }

    #[test]
    fn more_rows_than_a_group_has_are_all_there_in_their_order() {
        let numbers = || 0..=i64::try_from(GROUP_ROWS).expect("a few");
        let events: Vec<Event> = numbers().map(|number| behaviour(&[("n", Scalar::Int(number))])).collect();
        let reader = written(&events).expect("written");
        assert_eq!(reader.metadata().num_row_groups(), 2);
        assert_eq!(column(&reader, "n"), numbers().map(Field::Long).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_no_event_or_has_too_many_columns_is_refused() {
        let bad = || Ok([Ok(Entry { seq: 9, payload: Bytes::from_static(b"{}") })].into_iter());
        let error = write(bad, &Columns::default(), Vec::new()).expect_err("no event");
        assert_eq!(error.to_string(), "record 9 of the feedback log is no event");
        let event = |n: usize| behaviour(&[(&format!("column {n}"), Scalar::Int(1))]);
        let error =
            written(&(0..MAX_COLUMNS).map(event).collect::<Vec<_>>()).err().expect("two more are ours");
        assert_eq!(error.to_string(), "the records have more than 1024 different columns");
        assert!(written(&(2..MAX_COLUMNS).map(event).collect::<Vec<_>>()).is_ok());
    }
}
