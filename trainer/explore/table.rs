//! Every column of a file in memory, distinct values once. Which column means what is [`super::roles`]' business; here
//! it only decides which columns must be kept whole: ids and times are, every other column as long as it has no more
//! than [`MOST_VALUES`] distinct values.

use std::{
    collections::{HashSet, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    path::Path,
};

use arrow_array::{Array, ArrayRef, RecordBatch, cast::AsArray};
use arrow_schema::{DataType, Schema};
use serde::Serialize;

use super::{
    lists::Lists,
    roles::{Role, Roles},
    values::{Dictionary, Values},
};
use crate::{
    calendar,
    config::KeepConfig,
    log::{Collect, LogError, StoredColumn, collect, kept, stored_lists},
    progress::Progress,
};

/// A file in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// What each column means.
    pub roles: Roles,
    /// The columns, as the file orders them.
    pub columns: Vec<Column>,
    /// The rows.
    pub rows: usize,
    /// Rows that the pipeline's conditions exclude, and that are not among the rows.
    pub left_out: usize,
    /// Rows that are equal to an earlier one in every column that is looked into, told by a hash of 64 bits.
    pub duplicates: usize,
    /// The time of each row, in seconds since 1970, where a column says when.
    pub times: Option<Vec<Option<i64>>>,
    /// Guesses that the contents of a column have refuted, as sentences.
    pub refuted: Vec<String>,
}

/// One column.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// What the file stores it as.
    pub stored_as: String,
    /// What its values are.
    pub kind: Kind,
    /// Rows without a value: empty, null, not a number, or a list without an id.
    pub missing: usize,
    /// The values, unless there are too many, they are lists, or they are not looked into.
    pub values: Option<Values>,
    /// The lists of a column of lists.
    pub lists: Option<Lists>,
    /// The least and the greatest of the finite numbers or, in seconds since 1970, of the times.
    pub range: Option<(f64, f64)>,
    /// Numbers below 0.
    pub negative: usize,
}

/// What the values of a column are, however the file stores them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Whole numbers, stored as such.
    Integer,
    /// Whole numbers, stored as floats or spelled like them.
    WholeNumber,
    /// Numbers.
    Number,
    /// Dates, with or without a time of day.
    Time,
    /// True and false.
    Boolean,
    /// Anything else.
    Text,
    /// Lists of ids.
    List,
    /// Structures, lists of what is no id, and what else has no text: they are not looked into.
    Opaque,
    /// There are none.
    Empty,
}

impl Kind {
    /// Whether the values are numbers.
    pub fn is_number(self) -> bool {
        matches!(self, Self::Integer | Self::WholeNumber | Self::Number)
    }
}

impl Table {
    /// Reads the file at `path`, without the rows that `conditions` exclude. Roles that `roles` does not give are
    /// guessed.
    pub fn read(
        path: &Path,
        roles: &Roles,
        conditions: &[KeepConfig],
        progress: &mut dyn Progress,
    ) -> Result<Self, LogError> {
        let mut reader = Reader { roles: roles.clone(), conditions, ..Reader::default() };
        collect(path, &mut reader, progress)?;
        let table = reader.finish();
        if table.rows == 0 { Err(LogError::Empty) } else { Ok(table) }
    }

    /// The column of `role`.
    pub fn column(&self, role: Role) -> Option<&Column> {
        let name = self.roles.column(role)?;
        self.columns.iter().find(|column| column.name == name)
    }

    /// The values of the column of `role`, if it has them.
    pub fn values(&self, role: Role) -> Option<&Values> {
        self.column(role)?.values.as_ref()
    }
}

/// Collects the rows of batch after batch.
#[derive(Default)]
struct Reader<'a> {
    roles: Roles,
    conditions: &'a [KeepConfig],
    columns: Vec<Collected>,
    hashes: Vec<u64>,
    left_out: usize,
    times: Vec<Option<i64>>,
    refuted: Vec<String>,
}

impl Collect for Reader<'_> {
    fn projection(&mut self, schema: &Schema) -> Result<Vec<usize>, LogError> {
        let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
        let wanted = self.roles.all().iter().map(|found| &found.column);
        for name in wanted.chain(self.conditions.iter().map(|condition| &condition.column)) {
            if !names.contains(name) {
                return Err(LogError::NoColumn(name.clone()));
            }
        }
        self.roles.guess(&names);
        let keeps_all = |name: &str| self.roles.is_one_of(name, &[Role::User, Role::Item]);
        let bound = |name: &str| if keeps_all(name) { usize::MAX } else { MOST_VALUES };
        let collected = schema.fields().iter().map(|field| Collected::new(field.name(), bound(field.name())));
        self.columns = collected.collect();
        Ok((0..names.len()).collect())
    }

    fn push(&mut self, batch: &RecordBatch) -> Result<(), LogError> {
        let kept = kept(batch, self.conditions)?;
        self.left_out += kept.iter().filter(|&&kept| !kept).count();
        let mut hashers = vec![DefaultHasher::new(); batch.num_rows()];
        for (column, array) in self.columns.iter_mut().zip(batch.columns()) {
            column.push_all(array, &kept, &mut hashers);
        }
        let rows = kept.iter().zip(hashers).filter(|(kept, _)| **kept);
        self.hashes.extend(rows.map(|(_, hasher)| hasher.finish()));
        self.push_times(batch, &kept)
    }
}

impl Reader<'_> {
    /// Reads when, as the trainer would. Where that fails, a guess was wrong, but what was given is an error.
    fn push_times(&mut self, batch: &RecordBatch, kept: &[bool]) -> Result<(), LogError> {
        let Some(name) = self.roles.column(Role::Time) else { return Ok(()) };
        match StoredColumn::of(batch, name).and_then(|column| column.times()) {
            Ok(times) => {
                self.times
                    .extend(times.into_iter().zip(kept).filter(|(_, kept)| **kept).map(|(time, _)| time));
            }
            Err(error) if !self.roles.is_guess(Role::Time) => return Err(error),
            Err(_) => {
                self.refuted.push(format!(
                    "Column `{name}` is called like the time, but holds values that are no time."
                ));
                self.roles.remove(Role::Time);
            }
        }
        Ok(())
    }

    fn finish(self) -> Table {
        let rows = self.hashes.len();
        let distinct: HashSet<u64> = self.hashes.into_iter().collect();
        let times = self.roles.get(Role::Time).is_some().then_some(self.times);
        Table {
            columns: self.columns.into_iter().map(Collected::finish).collect(),
            rows,
            left_out: self.left_out,
            duplicates: rows - distinct.len(),
            times,
            roles: self.roles,
            refuted: self.refuted,
        }
    }
}

/// Some values of a column, as they are looked into.
enum Read {
    Texts(ArrayRef),
    Lists(Vec<Vec<String>>),
}

/// Collects one column.
struct Collected {
    name: String,
    stored_as: DataType,
    dictionary: Dictionary,
    lists: Option<Lists>,
    missing: usize,
    negative: usize,
    seen: Seen,
}

/// What all values so far have in common.
struct Seen {
    any: bool,
    /// Whether the column is one that is not looked into.
    is_opaque: bool,
    /// The kinds that every value could be, the narrowest first.
    kinds: Vec<Kind>,
    numbers: Option<(f64, f64)>,
    times: Option<(f64, f64)>,
}

impl Collected {
    fn new(name: &str, bound: usize) -> Self {
        Self {
            name: name.to_owned(),
            stored_as: DataType::Null,
            dictionary: Dictionary::new(bound),
            lists: None,
            missing: 0,
            negative: 0,
            seen: Seen::new(),
        }
    }

    /// Takes the next values as the trainer would; a column that it could not take is not looked into.
    fn push_all(&mut self, array: &ArrayRef, kept: &[bool], hashers: &mut [DefaultHasher]) {
        self.stored_as = array.data_type().clone();
        let read = StoredColumn::new(&self.name, array).and_then(|column| match stored_lists(&column)? {
            Some(lists) => Ok(Read::Lists(lists)),
            None => Ok(Read::Texts(column.texts()?)),
        });
        let is_float = array.data_type().is_floating();
        match read {
            Ok(Read::Texts(texts)) => self.push_texts(&texts, is_float, kept, hashers),
            Ok(Read::Lists(lists)) => self.push_lists(&lists, kept, hashers),
            Err(_) => self.seen.is_opaque = true,
        }
    }

    fn push_texts(&mut self, texts: &ArrayRef, is_float: bool, kept: &[bool], hashers: &mut [DefaultHasher]) {
        for ((text, kept), hasher) in texts.as_string::<i32>().iter().zip(kept).zip(hashers) {
            let text = text.filter(|text| !text.is_empty() && (!is_float || *text != "NaN"));
            // A float that is a whole number is that number, as it is to the trainer.
            let text = text.map(|text| if is_float { text.strip_suffix(".0").unwrap_or(text) } else { text });
            if *kept {
                text.hash(hasher);
                self.push(text);
            }
        }
    }

    fn push_lists(&mut self, lists: &[Vec<String>], kept: &[bool], hashers: &mut [DefaultHasher]) {
        let collected = self.lists.get_or_insert_with(Lists::new);
        let rows = lists.iter().zip(kept).zip(hashers).filter(|((_, kept), _)| **kept);
        for ((list, _), hasher) in rows {
            list.hash(hasher);
            if list.is_empty() {
                self.missing += 1;
            } else {
                collected.push(list, MOST_VALUES);
            }
        }
    }

    fn push(&mut self, text: Option<&str>) {
        let Some(value) = text else {
            self.missing += 1;
            self.dictionary.push(None);
            return;
        };
        if value.starts_with('-') && value.parse::<f64>().is_ok_and(|number| number < 0.0) {
            self.negative += 1;
        }
        if self.dictionary.push(text) {
            self.seen.see(value);
        }
    }

    fn finish(self) -> Column {
        let kind = match self.seen.kind(&self.stored_as) {
            Kind::Empty if self.lists.is_some() => Kind::List,
            kind => kind,
        };
        let is_opaque = kind == Kind::Opaque;
        let range = match kind {
            Kind::Time => self.seen.times,
            kind if kind.is_number() => self.seen.numbers,
            _ => None,
        };
        Column {
            name: self.name,
            stored_as: self.stored_as.to_string(),
            kind,
            missing: if is_opaque { 0 } else { self.missing },
            values: self.dictionary.finish().filter(|_| !is_opaque && kind != Kind::List),
            lists: self.lists.filter(|_| !is_opaque),
            range,
            negative: if kind.is_number() { self.negative } else { 0 },
        }
    }
}

impl Seen {
    fn new() -> Self {
        let kinds = vec![Kind::Integer, Kind::WholeNumber, Kind::Number, Kind::Time, Kind::Boolean];
        Self { any: false, is_opaque: false, kinds, numbers: None, times: None }
    }

    fn see(&mut self, text: &str) {
        self.any = true;
        let could_be = |kind| self.kinds.contains(&kind);
        let number = could_be(Kind::Number).then(|| text.parse::<f64>().ok()).flatten();
        let time = could_be(Kind::Time).then(|| calendar::parse(text)).flatten();
        self.kinds.retain(|kind| match kind {
            // Unsigned integers and long ids go further than 64 bits with a sign.
            Kind::Integer => text.parse::<i128>().is_ok(),
            Kind::WholeNumber => number.is_some_and(|number| number.fract() == 0.0),
            Kind::Number => number.is_some(),
            Kind::Time => time.is_some(),
            _ => BOOLEANS.contains(&text.to_ascii_lowercase().as_str()),
        });
        if let Some(number) = number {
            widen(&mut self.numbers, number);
        }
        if let Some(seconds) = time {
            widen(&mut self.times, seconds as f64);
        }
    }

    /// The narrowest kind of all values, of a column that is stored as `stored_as`.
    fn kind(&self, stored_as: &DataType) -> Kind {
        match stored_as {
            _ if self.is_opaque => Kind::Opaque,
            _ if !self.any => Kind::Empty,
            DataType::Boolean => Kind::Boolean,
            kind => {
                let is_integer = |found: &&Kind| kind.is_floating() && **found == Kind::Integer;
                self.kinds.iter().find(|found| !is_integer(found)).copied().unwrap_or(Kind::Text)
            }
        }
    }
}

fn widen(range: &mut Option<(f64, f64)>, number: f64) {
    if number.is_finite() {
        let (low, high) = range.unwrap_or((number, number));
        *range = Some((low.min(number), high.max(number)));
    }
}

/// Distinct values that a column may have to be kept in memory; columns of ids may have more.
pub const MOST_VALUES: usize = 1_000_000;
/// How booleans are spelled.
const BOOLEANS: [&str; 2] = ["true", "false"];

#[cfg(test)]
mod tests {
    use std::{fs, fs::File, sync::Arc};

    use arrow_array::{
        BinaryArray, BooleanArray, Float64Array, Int64Array, ListArray, StringArray,
        TimestampMicrosecondArray, TimestampSecondArray, UInt64Array,
        types::{Float64Type, Int32Type},
    };
    use parquet::arrow::ArrowWriter;

    use super::*;
    use crate::explore::roles::Source;

    fn read_text(text: &str, roles: &Roles, conditions: &[KeepConfig]) -> Result<Table, LogError> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("log.csv");
        fs::write(&path, text).expect("written");
        Table::read(&path, roles, conditions, &mut |_: &str| {})
    }

    fn write(path: &Path, batch: &RecordBatch) {
        let file = File::create(path).expect("made");
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a writer");
        writer.write(batch).expect("written");
        writer.close().expect("closed");
    }

    fn kinds(table: &Table) -> Vec<(&str, Kind, usize)> {
        table.columns.iter().map(|column| (column.name.as_str(), column.kind, column.missing)).collect()
    }

    #[test]
    fn texts_are_told_apart_by_what_they_spell() {
        let text = "a,b,c,d,e,f\n1,1.0,2.5,2020-01-01,x,\n-2,2.0,-1,2020-01-02 10:00:00,,\n-2,2.0,-1,2020-01-02,7,\n";
        let table = read_text(text, &Roles::new(), &[]).expect("a table");
        let expected = [
            ("a", Kind::Integer, 0),
            ("b", Kind::WholeNumber, 0),
            ("c", Kind::Number, 0),
            ("d", Kind::Time, 0),
            ("e", Kind::Text, 1),
            ("f", Kind::Empty, 3),
        ];
        assert_eq!(kinds(&table), expected);
        assert_eq!(
            (table.rows, table.columns[0].negative, table.columns[0].range),
            (3, 2, Some((-2.0, 1.0)))
        );
        assert_eq!(table.columns[3].range, Some((1_577_836_800.0, 1_577_959_200.0)));
    }

    #[test]
    fn typed_columns_keep_their_types_and_whole_floats_read_as_integers() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("log.parquet");
        let columns: [(&str, ArrayRef); 5] = [
            ("Customer ID", Arc::new(Float64Array::from(vec![Some(17850.0), None, Some(f64::NAN)]))),
            ("n", Arc::new(Int64Array::from(vec![1, 2, 3]))),
            ("timestamp", Arc::new(TimestampSecondArray::from(vec![0, 60, 120]))),
            ("yes", Arc::new(BooleanArray::from(vec![true, false, true]))),
            ("s", Arc::new(StringArray::from(vec!["85123A", "22423", "22423"]))),
        ];
        write(&path, &RecordBatch::try_from_iter(columns).expect("a batch"));
        let table = Table::read(&path, &Roles::new(), &[], &mut |_: &str| {}).expect("a table");
        let expected = [
            ("Customer ID", Kind::WholeNumber, 2),
            ("n", Kind::Integer, 0),
            ("timestamp", Kind::Time, 0),
            ("yes", Kind::Boolean, 0),
            ("s", Kind::Text, 0),
        ];
        assert_eq!(kinds(&table), expected);
        assert_eq!(table.values(Role::User).expect("users").texts(), ["17850"]);
        assert_eq!(table.times, Some(vec![Some(0), Some(60), Some(120)]));
    }

    /// What a Parquet file of `columns` holds.
    fn read_columns<const N: usize>(columns: [(&str, ArrayRef); N]) -> Table {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("log.parquet");
        write(&path, &RecordBatch::try_from_iter(columns).expect("a batch"));
        Table::read(&path, &Roles::new(), &[], &mut |_: &str| {}).expect("a table")
    }

    #[test]
    fn lists_of_ids_are_looked_into_and_other_nested_values_are_not() {
        let lists = [Some(vec![Some(1), Some(2)]), None, Some(vec![]), Some(vec![Some(1), None])];
        let fractions = vec![Some(vec![Some(0.5)]); 4];
        let table = read_columns([
            ("title", Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists))),
            ("vector", Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(fractions))),
            ("blob", Arc::new(BinaryArray::from(vec![b"\xff".as_slice(); 4]))),
            ("n", Arc::new(Int64Array::from(vec![1, 2, 2, 3]))),
        ]);
        let expected = [
            ("title", Kind::List, 2),
            ("vector", Kind::Opaque, 0),
            ("blob", Kind::Opaque, 0),
            ("n", Kind::Integer, 0),
        ];
        assert_eq!(kinds(&table), expected);
        let lists = table.columns[0].lists.as_ref().expect("lists");
        assert_eq!((lists.lists, lists.shortest, lists.longest, lists.distinct()), (2, 1, 2, Some(2)));
        assert!(table.columns.iter().take(3).all(|column| column.values.is_none()));
        assert_eq!(table.duplicates, 1, "an empty list is as good as none");
    }

    #[test]
    fn times_with_a_zone_are_read_as_the_trainer_reads_them() {
        for zone in ["UTC", "+02:00"] {
            let moments = TimestampMicrosecondArray::from(vec![0, 60_000_000]).with_timezone(zone);
            let table = read_columns([("timestamp", Arc::new(moments))]);
            assert_eq!(kinds(&table), [("timestamp", Kind::Time, 0)], "{zone}");
            assert_eq!(table.times, Some(vec![Some(0), Some(60)]), "{zone}");
            assert_eq!(table.columns[0].range, Some((0.0, 60.0)), "{zone}");
        }
    }

    #[test]
    fn integers_beyond_64_bits_with_a_sign_are_integers_and_no_floats() {
        let table = read_columns([("user_id", Arc::new(UInt64Array::from(vec![1, u64::MAX])))]);
        assert_eq!(kinds(&table), [("user_id", Kind::Integer, 0)]);
        assert_eq!(table.values(Role::User).expect("users").texts(), ["1", "18446744073709551615"]);
        let text = read_text("id\n18446744073709551615\n", &Roles::new(), &[]).expect("a table");
        assert_eq!(kinds(&text), [("id", Kind::Integer, 0)]);
    }

    #[test]
    fn equal_rows_are_counted_and_conditions_leave_rows_out() {
        let text = "who,price\nab,1\na,1\nab,1\nab,1\na,0\n";
        let keep = [KeepConfig { column: "price".into(), above: 0.0 }];
        let table = read_text(text, &Roles::new(), &keep).expect("a table");
        assert_eq!((table.rows, table.left_out, table.duplicates), (4, 1, 2));
        let shifted = read_text("a,b\nx,\n,x\n", &Roles::new(), &[]).expect("a table");
        assert_eq!(shifted.duplicates, 0, "the column of a value counts");
    }

    #[test]
    fn a_wrong_guess_of_the_time_is_taken_back_and_a_wrong_order_is_an_error() {
        let text = "user,time\n1,2020-01-01\n2,soon\n";
        let table = read_text(text, &Roles::new(), &[]).expect("a table");
        assert_eq!((table.times, table.roles.column(Role::Time)), (None, None));
        assert!(table.refuted[0].contains("`time`"), "{:?}", table.refuted);
        let mut given = Roles::new();
        given.set(Role::Time, "time", Source::Given);
        assert!(read_text(text, &given, &[]).expect_err("given").to_string().contains("`time`"));
        given.set(Role::Time, "when", Source::Given);
        assert!(matches!(read_text(text, &given, &[]), Err(LogError::NoColumn(name)) if name == "when"));
        assert!(matches!(read_text("a\n", &Roles::new(), &[]), Err(LogError::Empty)));
    }
}
