//! What the log said of an id, or of a pair of ids, when training ended: how often, how lately, how alike. A caller
//! sends nothing for it; the [`Encoder`](super::Encoder) looks it up by the ids that a row has already.
//!
//! A table knows nothing of what its numbers mean, and nothing here counts anything: that is the trainer's. The tables
//! are as of one moment and never change afterwards. An id or a pair without an entry has the value that the schema
//! names for those never seen.
//!
//! The file of a table is little-endian: the 8 bytes `MRHIST01`, the number of columns as U32, four bytes of zero, the
//! number of entries as U64, the keys as U64, ascending, and the values as F32, entry by entry. A key is the row of
//! the id in its vocabulary; of two features, the first one's row times 2^32 plus the second one's.

use std::{collections::HashMap, fs, io, path::Path};

use foldhash::fast::FixedState;
use serde::{Deserialize, Serialize};

use super::{Affinity, AffinityTable, Schema, SchemaError};

/// Numbers that are looked up by the ids of one feature, or of two together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    /// One or two categorical features with vocabularies.
    pub of: Vec<String>,
    /// The numbers, in the order of the table's columns.
    pub columns: Vec<HistoryColumn>,
}

/// One looked-up number, standardised to `(value - mean) / std`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryColumn {
    /// What it is called; nobody sends it.
    pub name: String,
    /// The value of ids that have no entry, before it is standardised.
    pub absent: f32,
    /// The mean that is taken off.
    pub mean: f32,
    /// What the rest is divided by, above zero.
    pub std: f32,
}

/// Why a table was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// The file could not be read.
    #[error("cannot be read")]
    Read(#[source] io::Error),
    /// The file is not what its head promises, or its head is not known here.
    #[error("{0}")]
    Format(&'static str),
}

/// The numbers of one [`History`], by key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistoryTable {
    columns: usize,
    /// Which entry a key has. Keys come from vocabularies, not from callers, so a hash without a secret is safe.
    entries: HashMap<u64, u32, FixedState>,
    /// Row-major: an entry's columns lie together.
    values: Vec<f32>,
}

/// All tables of an encoder: the past as of one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Past {
    /// One for each history of the schema, in its order.
    pub tables: Vec<HistoryTable>,
    /// One for each affinity of the schema, in its order.
    pub affinities: Vec<AffinityTable>,
}

impl History {
    /// The key of the ids with these rows in their vocabularies; `None` where one of them is unknown.
    pub fn key(rows: &[u32]) -> Option<u64> {
        rows.iter().try_fold(0, |key, &row| (row != 0).then_some(key << 32 | u64::from(row)))
    }

    /// The name of the table's file in the features folder.
    pub fn file(&self) -> String {
        format!("{}.history", self.of.join("."))
    }
}

impl HistoryTable {
    /// A table without entries.
    pub fn new(columns: usize) -> Self {
        Self { columns, ..Self::default() }
    }

    /// Numbers of each entry.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The numbers of every entry, in the order in which they were added.
    pub fn values(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.columns.max(1))
    }

    /// Adds an entry, or replaces it.
    ///
    /// # Panics
    /// When there are not as many values as columns, or more than four billion entries.
    pub fn insert(&mut self, key: u64, values: impl IntoIterator<Item = f32>) {
        let entry = self.entries.get(&key).copied().unwrap_or_else(|| {
            let entry =
                u32::try_from(self.entries.len()).expect("a table of fewer than four billion entries");
            self.entries.insert(key, entry);
            self.values.resize(self.values.len() + self.columns, 0.0);
            entry
        });
        let start = entry as usize * self.columns;
        let mut values = values.into_iter();
        for place in &mut self.values[start..start + self.columns] {
            *place = values.next().expect("a value for each column");
        }
    }

    /// The numbers of an entry.
    pub fn get(&self, key: u64) -> Option<&[f32]> {
        let start = *self.entries.get(&key)? as usize * self.columns;
        self.values.get(start..start + self.columns)
    }

    /// The table as its file holds it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut entries: Vec<(u64, u32)> = self.entries.iter().map(|(&key, &entry)| (key, entry)).collect();
        entries.sort_unstable();
        let mut bytes = Vec::with_capacity(HEAD + entries.len() * (8 + 4 * self.columns));
        bytes.extend(MAGIC);
        bytes.extend(u32::try_from(self.columns).expect("a handful of columns").to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend((entries.len() as u64).to_le_bytes());
        bytes.extend(entries.iter().flat_map(|(key, _)| key.to_le_bytes()));
        for (key, _) in entries {
            bytes.extend(self.get(key).into_iter().flatten().flat_map(|value| value.to_le_bytes()));
        }
        bytes
    }

    /// Reads a table of `columns` numbers by keys of ids whose vocabularies have `rows`.
    pub fn from_bytes(bytes: &[u8], columns: usize, rows: &[usize]) -> Result<Self, HistoryError> {
        let refused = |what| Err(HistoryError::Format(what));
        let Some((head, rest)) = bytes.split_at_checked(HEAD).filter(|(head, _)| head.starts_with(MAGIC))
        else {
            return refused("is no table of histories");
        };
        let entries = u64::from_le_bytes(head[16..24].try_into().expect("8 bytes"));
        if u64::from(u32::from_le_bytes(head[8..12].try_into().expect("4 bytes"))) != columns as u64 {
            return refused("has another number of columns than the schema");
        }
        let bytes_an_entry = 8 + 4 * columns as u64;
        if entries.checked_mul(bytes_an_entry) != Some(rest.len() as u64) || u32::try_from(entries).is_err() {
            return refused("is not as long as it says");
        }
        let (keys, values) = rest.split_at(rest.len() / (8 + 4 * columns) * 8);
        let mut table = Self::new(columns);
        table.values = values.chunks_exact(4).map(|v| f32::from_le_bytes([v[0], v[1], v[2], v[3]])).collect();
        if !table.values.iter().all(|value| value.is_finite()) {
            return refused("holds a value that is no finite number");
        }
        table.entries.reserve(keys.len() / 8);
        let mut previous = None;
        for (entry, key) in (0..).zip(keys.chunks_exact(8)) {
            let key = u64::from_le_bytes(key.try_into().expect("8 bytes"));
            if previous >= Some(key) {
                return refused("has keys that do not ascend");
            }
            if !is_of(key, rows) {
                return refused("has a key that is in no vocabulary");
            }
            previous = Some(key);
            table.entries.insert(key, entry);
        }
        Ok(table)
    }
}

impl Past {
    /// Nothing was ever seen.
    pub fn unseen(schema: &Schema) -> Self {
        Self {
            tables: schema.histories.iter().map(|history| HistoryTable::new(history.columns.len())).collect(),
            affinities: vec![AffinityTable::default(); schema.affinities.len()],
        }
    }

    /// Reads the tables of `schema` from the folder `directory`; `rows` says how many a feature's vocabulary has.
    pub(super) fn read(
        schema: &Schema,
        directory: &Path,
        rows: impl Fn(&str) -> usize,
    ) -> Result<Self, SchemaError> {
        let read = |file: &str| fs::read(directory.join(file)).map_err(HistoryError::Read);
        let of = |names: &[String]| -> Vec<usize> { names.iter().map(|name| rows(name)).collect() };
        let table = |history: &History| {
            let file = history.file();
            let table = read(&file)
                .and_then(|bytes| HistoryTable::from_bytes(&bytes, history.columns.len(), &of(&history.of)));
            table.map_err(|source| SchemaError::History { file, source })
        };
        let affinity = |affinity: &Affinity| {
            let file = affinity.file();
            let rows = [rows(&affinity.of[0]), rows(&affinity.of[1])];
            let table = read(&file).and_then(|bytes| AffinityTable::from_bytes(&bytes, rows));
            table.map_err(|source| SchemaError::History { file, source })
        };
        Ok(Self {
            tables: schema.histories.iter().map(table).collect::<Result<_, _>>()?,
            affinities: schema.affinities.iter().map(affinity).collect::<Result<_, _>>()?,
        })
    }

    /// Writes the tables of `schema` into the folder `directory`.
    pub(super) fn write(&self, schema: &Schema, directory: &Path) -> io::Result<()> {
        for (history, table) in schema.histories.iter().zip(&self.tables) {
            fs::write(directory.join(history.file()), table.to_bytes())?;
        }
        for (affinity, table) in schema.affinities.iter().zip(&self.affinities) {
            fs::write(directory.join(affinity.file()), table.to_bytes())?;
        }
        Ok(())
    }
}

/// Whether `key` names a known id of each vocabulary.
fn is_of(key: u64, rows: &[usize]) -> bool {
    let known = |row: u64, rows: usize| row > 0 && row < rows as u64;
    match rows {
        [rows] => known(key, *rows),
        [first, second] => known(key >> 32, *first) && known(key & u64::from(u32::MAX), *second),
        _ => false,
    }
}

/// What a file of this format begins with.
const MAGIC: &[u8; 8] = b"MRHIST01";
/// Bytes before the keys.
const HEAD: usize = 24;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table() -> HistoryTable {
        let mut table = HistoryTable::new(2);
        table.insert(History::key(&[2, 1]).expect("known ids"), [0.5, 3.0]);
        table.insert(History::key(&[1, 3]).expect("known ids"), [1.5, -1.0]);
        table
    }

    fn refusal(bytes: &[u8]) -> String {
        HistoryTable::from_bytes(bytes, 2, &[3, 4]).expect_err("refused").to_string()
    }

    #[test]
    fn an_unknown_id_has_no_key_and_the_order_of_ids_matters() {
        assert_eq!(History::key(&[0, 5]), None);
        assert_eq!(History::key(&[5, 0]), None);
        assert_ne!(History::key(&[1, 2]), History::key(&[2, 1]));
        assert_eq!(History::key(&[7]), Some(7));
    }

    #[test]
    fn a_second_insert_replaces_the_first() {
        let mut table = table();
        let key = History::key(&[2, 1]).expect("known ids");
        table.insert(key, [9.0, 8.0]);
        assert_eq!((table.len(), table.get(key)), (2, Some(&[9.0, 8.0][..])));
    }

    #[test]
    fn a_damaged_file_is_refused_and_says_how() {
        let good = table().to_bytes();
        assert_eq!(HistoryTable::from_bytes(&good, 2, &[3, 4]).expect("good").len(), 2);
        assert!(refusal(b"MRHIST01").contains("no table"));
        assert!(refusal(&good[..good.len() - 1]).contains("long"));
        assert!(refusal(&[&good[..], &[0; 16]].concat()).contains("long"));
        let changed = |at: usize, bytes: &[u8]| {
            let mut file = good.clone();
            file[at..at + bytes.len()].copy_from_slice(bytes);
            refusal(&file)
        };
        assert!(changed(8, &[3]).contains("columns"));
        assert!(changed(16, &u64::MAX.to_le_bytes()).contains("long"));
        assert!(changed(HEAD, &good[HEAD + 8..HEAD + 16]).contains("ascend"));
        assert!(changed(HEAD + 8, &9_u64.to_le_bytes().map(|_| 0xff)).contains("no vocabulary"));
        assert!(changed(HEAD + 16, &f32::NAN.to_le_bytes()).contains("finite"));
    }

    proptest! {
        #[test]
        fn a_file_gives_back_every_entry(entries in prop::collection::hash_map((1u32..50, 1u32..60), -9f32..9.0, 0..80)) {
            let mut table = HistoryTable::new(1);
            for (&(first, second), &value) in &entries {
                table.insert(History::key(&[first, second]).expect("known ids"), [value]);
            }
            let again = HistoryTable::from_bytes(&table.to_bytes(), 1, &[50, 60]).expect("what was written");
            prop_assert_eq!(again.len(), entries.len());
            for (&(first, second), &value) in &entries {
                prop_assert_eq!(again.get(History::key(&[first, second]).expect("known ids")), Some(&[value][..]));
            }
        }
    }
}
