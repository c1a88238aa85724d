//! A column of lists of ids: how one is read from a batch, and what is said of lists that are longer than the pipeline lets
//! them be.

use std::ops::Range;

use arrow_array::Array;

use super::{Ids, Interner, LogError, StoredColumn};
use crate::config::ListConfig;

/// A column of lists, and the first that is too long.
pub(super) struct CollectedLists {
    column: String,
    max: usize,
    truncate: bool,
    lists: Interner,
    too_long: Option<TooLong>,
}

struct TooLong {
    row: usize,
    values: usize,
    /// The values of the longest list of all.
    longest: usize,
}

impl CollectedLists {
    /// No lists yet of `column`.
    pub(super) fn new(column: &str, config: &ListConfig) -> Self {
        let &ListConfig { max, truncate, .. } = config;
        Self { column: column.to_owned(), max, truncate, lists: Interner::default(), too_long: None }
    }

    /// Adds the list of the next row, which is row `row` of the file.
    pub(super) fn push(&mut self, list: &[String], row: usize) {
        if list.len() > self.max && !self.truncate {
            let values = list.len();
            let too_long = self.too_long.get_or_insert(TooLong { row, values, longest: values });
            too_long.longest = too_long.longest.max(values);
        }
        self.lists.push_list(list.iter().take(self.max).map(String::as_str));
    }

    /// The column, where no list is too long.
    pub(super) fn finish(self) -> Result<Ids, LogError> {
        let Some(TooLong { row, values, longest }) = self.too_long else { return Ok(self.lists.finish()) };
        let reason = format!(
            "row {row} holds a list of {values} values, and values.max is {}; the longest list has {longest}",
            self.max
        );
        Err(LogError::Value { column: self.column, reason })
    }
}

/// The ids of each list of a column of lists, of texts with a separator, or of single ids.
pub(super) fn lists(column: &StoredColumn<'_>, config: &ListConfig) -> Result<Vec<Vec<String>>, LogError> {
    if let Some(lists) = stored_lists(column)? {
        return Ok(lists);
    }
    if !column.is_text() {
        return Ok(column.ids()?.into_iter().map(|id| id.into_iter().collect()).collect());
    }
    let Some(separator) = &config.separator else {
        return Err(column
            .error("holds texts and no lists, so that values.separator must say what stands between ids"));
    };
    let there = |id: &&str| !id.is_empty() && *id != "?";
    let split = |text: &str| Ok(text.split(&**separator).filter(there).map(str::to_owned).collect());
    Ok(column.parsed(split)?.into_iter().map(Option::unwrap_or_default).collect())
}

/// The ids of each list, where the file stores lists. What is missing within one is left out.
pub(crate) fn stored_lists(column: &StoredColumn<'_>) -> Result<Option<Vec<Vec<String>>>, LogError> {
    let Some((lists, ids)) = column.lists()? else { return Ok(None) };
    let ids = ids.ids()?;
    let place = |offset: i32| usize::try_from(offset).expect("offsets count from 0");
    let ends = lists.value_offsets().windows(2).map(|ends| place(ends[0])..place(ends[1]));
    let list = |(row, range): (usize, Range<usize>)| {
        let range = if lists.is_null(row) { 0..0 } else { range };
        ids[range].iter().flatten().cloned().collect()
    };
    Ok(Some(ends.enumerate().map(list).collect()))
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        fs::{self, File},
        path::Path,
        sync::Arc,
    };

    use arrow_array::{
        ArrayRef, Int32Array, ListArray, RecordBatch,
        builder::{Int64Builder, ListBuilder},
        types::Int64Type,
    };
    use arrow_cast::cast;
    use arrow_schema::{DataType, Field};
    use millrace::features::{Pooling, Value};
    use parquet::arrow::ArrowWriter;

    use super::{
        super::{FeatureColumn, LogFile, read},
        *,
    };
    use crate::config::{DataConfig, Encoding, FeatureConfig, KeepConfig, Owner};

    fn read_list(path: &Path, list: ListConfig) -> Result<LogFile, LogError> {
        read(path, &data(), &[genres(list)], &BTreeMap::new(), &mut |_: &str| {})
    }

    fn data() -> DataConfig {
        DataConfig {
            user: Some("who".into()),
            item: Some("what".into()),
            time: Some("when".into()),
            keep: vec![KeepConfig { column: "price".into(), above: 0.0 }],
            ..DataConfig::default()
        }
    }

    fn genres(list: ListConfig) -> FeatureConfig {
        FeatureConfig {
            name: "genres".into(),
            column: "genres".into(),
            from: None,
            optional: false,
            encoding: Encoding::Vocabulary { minimum_count: 1 },
            values: Some(list),
            of: Owner::User,
        }
    }

    fn list(max: usize) -> ListConfig {
        ListConfig { max, pooling: Pooling::Mean, separator: Some("|".into()), truncate: false }
    }

    fn texts(texts: &[&str]) -> Value {
        Value::List(texts.iter().map(|&text| Value::Text(text.into())).collect())
    }

    #[test]
    fn texts_are_split_into_lists_and_what_is_missing_in_them_is_left_out() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("log.csv");
        let text = "when,who,what,price,genres\n2020-01-01,7,a,1,drama|war\n2020-01-02,7,a,1,\n2020-01-03,7,a,0,a|b|c\n\
                    2020-01-04,7,a,1,|war||?\n2020-01-05,7,a,1,?\n";
        fs::write(&path, text).expect("written");
        let read = |list: ListConfig| read_list(&path, list);
        let LogFile { log, dropped } = read(list(2)).expect("a log");
        let FeatureColumn::Lists(lists) = &log.features[0] else { panic!("lists") };
        let found: Vec<&Value> = (0..log.len()).map(|row| lists.value(row)).collect();
        assert_eq!(found, [&texts(&["drama", "war"]), &texts(&[]), &texts(&["war"]), &texts(&[])]);
        assert_eq!(dropped, 1, "the row that a condition excludes, however long its list is");
        let error = read(ListConfig { separator: None, ..list(2) }).expect_err("texts").to_string();
        assert!(error.starts_with("column `genres`: holds texts and no lists"), "{error}");
    }

    #[test]
    fn a_list_that_is_too_long_is_an_error_that_says_what_would_do_or_is_cut() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("log.csv");
        let row = |list: &str| format!("2020-01-01,7,a,1,{list}\n");
        let rows = [row("x"), row("x|y|z"), row("a|b|c|d|e")].concat();
        fs::write(&path, format!("when,who,what,price,genres\n{rows}")).expect("written");
        let read = |list: ListConfig| read_list(&path, list);
        assert_eq!(
            read(list(2)).expect_err("too long").to_string(),
            "column `genres`: row 2 holds a list of 3 values, and values.max is 2; the longest list has 5"
        );
        read(list(5)).expect("long enough");
        let cut = read(ListConfig { truncate: true, ..list(2) }).expect("cut").log;
        assert_eq!(cut.features[0].raw(2), texts(&["a", "b"]).raw());
    }

    #[test]
    fn lists_of_parquet_are_read_whatever_they_are_made_of() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("log.parquet");
        let texts_ = ListArray::from_iter_primitive::<Int64Type, _, _>([
            Some(vec![Some(3), None, Some(4)]),
            None,
            Some(vec![]),
        ]);
        let large = cast(&texts_, &DataType::LargeList(Arc::new(Field::new("item", DataType::Utf8, true))));
        let columns: [(&str, ArrayRef); 6] = [
            ("who", Arc::new(Int32Array::from(vec![1, 1, 1]))),
            ("what", Arc::new(Int32Array::from(vec![1, 2, 3]))),
            ("when", Arc::new(Int32Array::from(vec![10, 20, 30]))),
            ("price", Arc::new(Int32Array::from(vec![1, 1, 1]))),
            ("genres", Arc::new(texts_)),
            ("large", large.expect("a cast")),
        ];
        let batch = RecordBatch::try_from_iter(columns).expect("a batch");
        let mut writer =
            ArrowWriter::try_new(File::create(&path).expect("made"), batch.schema(), None).expect("a writer");
        writer.write(&batch).expect("written");
        writer.close().expect("closed");
        let of = |column: &str| FeatureConfig { column: column.into(), ..genres(list(2)) };
        let features = [of("genres"), of("large"), of("who")];
        let log = read(&path, &data(), &features, &BTreeMap::new(), &mut |_: &str| {}).expect("a log").log;
        let three_four = Value::List(vec![Value::Int(3), Value::Int(4)]);
        for column in &log.features[..2] {
            assert_eq!(
                [0, 1, 2].map(|row| column.raw(row)),
                [three_four.raw(), texts(&[]).raw(), texts(&[]).raw()]
            );
        }
        assert_eq!(log.features[2].raw(0), Value::List(vec![Value::Int(1)]).raw(), "one id is a list of one");
    }

    #[test]
    fn lists_of_lists_are_refused_by_the_name_of_their_column() {
        let mut nested = ListBuilder::new(ListBuilder::new(Int64Builder::new()));
        nested.values().append_value([Some(3)]);
        nested.append(true);
        let nested: ArrayRef = Arc::new(nested.finish());
        let column = StoredColumn::new("genres", &nested).expect("a column");
        let error = lists(&column, &list(2)).expect_err("nested").to_string();
        assert!(error.starts_with("column `genres`: is a column of lists (List(List("), "{error}");
        assert!(error.ends_with("expected lists of ids"), "{error}");
    }
}
