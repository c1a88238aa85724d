//! The ids that a categorical feature knows, each with its row in the embedding table.
//!
//! Row 0 stands for every id that is not in the vocabulary; the ids of the file follow from row 1 in their order.
//! An integer and its decimal text are one id: callers write `123` and `"123"` and mean the same customer.

use std::{
    collections::HashMap,
    io::{self, BufRead, Write},
};

use foldhash::fast::FixedState;

use super::RawValue;

/// The row of ids that are not in a vocabulary.
const OUT_OF_VOCABULARY: u32 = 0;

/// Why a vocabulary was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VocabularyError {
    /// The file could not be read, or was not UTF-8.
    #[error("cannot be read")]
    Read(#[source] io::Error),
    /// An id stands twice, so that its row would be ambiguous.
    #[error("line {line}: the id stands twice")]
    Duplicate {
        /// The line, from 1.
        line: usize,
    },
    /// An id that one line of text cannot carry.
    #[error("id {row}: an id is one to 1024 bytes without line breaks")]
    Unwritable {
        /// The id's row.
        row: usize,
    },
    /// More ids than a table index can number.
    #[error("more than {} ids", i32::MAX - 1)]
    TooMany,
}

/// A map from ids to rows of an embedding table.
#[derive(Clone, Debug, Default)]
pub struct Vocabulary {
    // Ids are looked up by the callers but only ever inserted from the artifact, so a hash without a secret is safe.
    integers: HashMap<i64, u32, FixedState>,
    texts: HashMap<Box<str>, u32, FixedState>,
}

impl Vocabulary {
    /// Gives the ids rows from 1 in their order.
    pub fn new<'a>(ids: impl IntoIterator<Item = &'a str>) -> Result<Self, VocabularyError> {
        let mut vocabulary = Self::default();
        for id in ids {
            vocabulary.insert(id)?;
        }
        Ok(vocabulary)
    }

    /// Reads one id a line.
    pub fn read(reader: impl BufRead) -> Result<Self, VocabularyError> {
        let mut vocabulary = Self::default();
        for line in reader.lines() {
            vocabulary.insert(&line.map_err(VocabularyError::Read)?)?;
        }
        Ok(vocabulary)
    }

    /// Writes one id a line, in row order, so that [`Vocabulary::read`] gives each id its row again.
    pub fn write(&self, mut writer: impl Write) -> io::Result<()> {
        let mut ids: Vec<(u32, String)> =
            self.integers.iter().map(|(id, &row)| (row, id.to_string())).collect();
        ids.extend(self.texts.iter().map(|(id, &row)| (row, id.to_string())));
        ids.sort_unstable();
        ids.iter().try_for_each(|(_, id)| writeln!(writer, "{id}"))
    }

    /// Rows of the table, the one for unknown ids among them.
    pub fn rows(&self) -> usize {
        self.integers.len() + self.texts.len() + 1
    }

    /// The row of an id; row 0 where it is unknown or missing. `None` for a value that cannot be an id.
    pub fn lookup(&self, value: RawValue<'_>) -> Option<u32> {
        let row = match value {
            RawValue::Int(id) => self.integers.get(&id),
            RawValue::Text(id) => match canonical_integer(id) {
                Some(id) => self.integers.get(&id),
                None => self.texts.get(id),
            },
            RawValue::Missing => None,
            RawValue::Float(_) | RawValue::List(_) => return None,
        };
        Some(row.copied().unwrap_or(OUT_OF_VOCABULARY))
    }

    /// Whether `id` is one that a line of the file can carry: 1 to 1024 bytes without line breaks.
    pub fn is_id(id: &str) -> bool {
        (1..=1024).contains(&id.len()) && !id.contains(['\n', '\r'])
    }

    fn insert(&mut self, id: &str) -> Result<(), VocabularyError> {
        let row = self.rows();
        if !Self::is_id(id) {
            return Err(VocabularyError::Unwritable { row });
        }
        if row >= i32::MAX as usize {
            return Err(VocabularyError::TooMany);
        }
        let index = u32::try_from(row).expect("bounded by i32::MAX above");
        let previous = match canonical_integer(id) {
            Some(id) => self.integers.insert(id, index),
            None => self.texts.insert(id.into(), index),
        };
        if previous.is_some() { Err(VocabularyError::Duplicate { line: row }) } else { Ok(()) }
    }
}

/// The integer that `text` is the one decimal form of: no sign but `-`, no leading zero, no `-0`.
fn canonical_integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let canonical = match digits.as_bytes() {
        [b'0'] => digits.len() == text.len(),
        [b'1'..=b'9', ..] => true,
        _ => false,
    };
    if canonical { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_integer_and_its_decimal_text_are_one_id() {
        let vocabulary = Vocabulary::new(["85123A", "22423", "-7"]).expect("three ids");
        assert_eq!(vocabulary.lookup(RawValue::Int(22423)), Some(2));
        assert_eq!(vocabulary.lookup(RawValue::Text("22423")), Some(2));
        assert_eq!(vocabulary.lookup(RawValue::Text("-7")), Some(3));
        assert_eq!(vocabulary.lookup(RawValue::Text("85123A")), Some(1));
    }

    #[test]
    fn texts_that_only_resemble_an_integer_stay_apart() {
        let vocabulary = Vocabulary::new(["7", "007", "+7", "-0", "0"]).expect("five ids");
        let row = |text| vocabulary.lookup(RawValue::Text(text));
        assert_eq!(
            [row("7"), row("007"), row("+7"), row("-0"), row("0")],
            [Some(1), Some(2), Some(3), Some(4), Some(5)]
        );
    }

    #[test]
    fn an_unknown_id_has_row_zero_and_a_fraction_is_no_id() {
        let vocabulary = Vocabulary::new(["1"]).expect("one id");
        assert_eq!(vocabulary.lookup(RawValue::Int(2)), Some(0));
        assert_eq!(vocabulary.lookup(RawValue::Text("99999999999999999999999")), Some(0));
        assert_eq!(vocabulary.lookup(RawValue::Missing), Some(0));
        assert_eq!(vocabulary.lookup(RawValue::Float(1.0)), None);
    }

    #[test]
    fn an_id_that_stands_twice_is_refused_with_its_line() {
        let error = Vocabulary::read("a\nb\na\n".as_bytes()).expect_err("a stands twice");
        assert!(matches!(error, VocabularyError::Duplicate { line: 3 }), "{error}");
    }

    #[test]
    fn ids_that_a_line_cannot_carry_are_refused() {
        for id in ["", "a\nb", "a\r", &"x".repeat(1025)] {
            assert!(matches!(Vocabulary::new([id]), Err(VocabularyError::Unwritable { row: 1 })), "{id:?}");
        }
    }

    proptest! {
        #[test]
        fn writing_and_reading_keeps_every_row(ids in prop::collection::hash_set("[-0-9a-zA-Z ]{1,12}", 0..50)) {
            let vocabulary = Vocabulary::new(ids.iter().map(String::as_str)).expect("distinct ids");
            let mut file = Vec::new();
            vocabulary.write(&mut file).expect("memory takes it");
            let again = Vocabulary::read(file.as_slice()).expect("what was written");
            prop_assert_eq!(again.rows(), vocabulary.rows());
            for id in &ids {
                prop_assert_eq!(again.lookup(RawValue::Text(id)), vocabulary.lookup(RawValue::Text(id)));
            }
        }
    }
}
